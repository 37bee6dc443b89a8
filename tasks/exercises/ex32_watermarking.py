"""Exercise 21.32: a watermark in sampled text, its detector at a fixed false-positive rate, and what it costs."""

import inspect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor

from minigpt.decoding import watermark
from minigpt.decoding.sampling import generate
from minigpt.decoding.watermark import Detection, KeyedGreenLists, Watermark, detect
from minigpt.evaluation.quality import continuation_nll
from minigpt.evaluation.statistics import mean_std
from minigpt.evaluation.words import share_of_real_words, words
from reports.types import Answer, Block, Check, Code, Figure, Part, Prose, Sample, Series, Table
from tasks.exercise import Context, Exercise
from tasks.recipes.catalogue import SMALL_LONG

if TYPE_CHECKING:
    from transformers import WatermarkLogitsProcessor

KEY, WRONG_KEY = 20_230_124, 19_480_701
PROMPT = 16  # characters
RATE = 0.01  # false positives that are allowed for
USUAL = 2.0  # δ in most of Kirchenbauer et al. (2023)

Metrics = dict[str, float | int]


@dataclass(frozen=True)
class Lab:
    """The model's vocabulary, the prompts and texts that nobody marked."""

    ctx: Context
    vocab_size: int
    piece: int  # characters written at once
    n_new: int  # in all
    human: Tensor  # (N, n_new)

    def lists(self, key: int) -> KeyedGreenLists:
        """Green lists of half of the vocabulary."""
        return KeyedGreenLists(key, self.vocab_size, self.vocab_size // 2)

    def write(self, delta: float, width: int, texts: int) -> Tensor:
        """Prompts and continuations, marked with KEY, (texts, PROMPT + n_new). δ = 0 is plain sampling.

        A piece fills the model's context; the next one goes on from its last PROMPT characters.
        """
        model, source = self.ctx.model(SMALL_LONG).model, self.ctx.tokens(SMALL_LONG)
        starts = torch.arange(texts, device=source.device) * ((len(source) - PROMPT) // texts)
        tokens = source[starts[:, None] + torch.arange(PROMPT, device=source.device)]
        generator = self.ctx.generator(f"δ = {delta:g}")
        mark = (Watermark(self.lists(KEY), width, delta),) if delta else ()
        while tokens.shape[1] < PROMPT + self.n_new:
            piece = generate(model, tokens[:, -PROMPT:], self.piece, generator=generator, processors=mark)
            tokens = torch.cat([tokens, piece[:, PROMPT:]], dim=1)
        return tokens

    def nll(self, tokens: Tensor) -> tuple[float, ...]:
        """Under the unmarked model, each piece after the characters that it was written after; nats per character."""
        model = self.ctx.model(SMALL_LONG).model
        pieces = tokens.unfold(1, PROMPT + self.piece, self.piece)  # (N, pieces, PROMPT + piece)
        return tuple(continuation_nll(model, pieces.flatten(0, 1), PROMPT).view(len(tokens), -1).mean(1).tolist())

    def test(self, texts: Tensor, key: int, width: int) -> Detection:
        """Detect, in the continuations only: the prompt is not ours."""
        lists = self.lists(key)
        return detect(texts, lists, width, lists.fraction)


def flagged(found: Detection, rate: float = RATE) -> float:
    """Share of the texts that are called marked at a false-positive rate."""
    return (found.p_value <= rate).double().mean().item()


def prepare(ctx: Context) -> Lab:
    """Model and human texts of the length that the model will write."""
    config = ctx.model(SMALL_LONG).model.config
    piece = config.context - PROMPT
    n_new = ctx.numbers["pieces"] * piece
    tokens = ctx.tokens(SMALL_LONG, "train")
    count = min(ctx.numbers["human_texts"], len(tokens) // n_new)
    starts = torch.arange(count, device=tokens.device) * (len(tokens) // count)
    human = tokens[starts[:, None] + torch.arange(n_new, device=tokens.device)]
    return Lab(ctx, config.vocab_size, piece, n_new, human)


# --- (a), (b) Lists and bias ------------------------------------------------------------------------------------


class TheirLists:
    """Transformers' green lists in place of ours."""

    def __init__(self, processor: "WatermarkLogitsProcessor") -> None:
        self.processor = processor

    def __call__(self, contexts: Tensor) -> Tensor:
        """Contexts (N, k) → (N, V), True for green."""
        green = torch.zeros(len(contexts), self.processor.vocab_size, dtype=torch.bool)
        for row, context in zip(green, contexts, strict=True):
            row[self.processor._get_greenlist_ids(context)] = True
        return green


def parity(ctx: Context) -> tuple[bool, bool, float]:
    """With Transformers' lists: are biased logits and green counts equal, and how far apart are the z-scores."""
    from transformers import GPT2Config, WatermarkDetector, WatermarkingConfig, WatermarkLogitsProcessor

    V, bias, g = 40, 2.0, ctx.generator("parity")
    theirs = WatermarkLogitsProcessor(V, "cpu", greenlist_ratio=0.5, bias=bias, context_width=1)
    ours, same = Watermark(TheirLists(theirs), width=1, delta=bias), True
    tokens = torch.randint(V, (4, 2), generator=g)
    for _ in range(40):
        logits = torch.randn(4, V, generator=g)
        marked = ours(tokens, logits)
        same &= torch.equal(marked, theirs(tokens, logits))
        tokens = torch.cat([tokens, torch.multinomial(marked.softmax(-1), 1, generator=g)], dim=1)
    tokens = torch.cat([tokens, torch.randint(V, tokens.shape, generator=g)])
    config = WatermarkingConfig(greenlist_ratio=0.5, bias=bias, context_width=1)
    shape = GPT2Config(vocab_size=V, bos_token_id=0, eos_token_id=0)
    shape.bos_token_id = V  # a token that no text begins with: the detector would cut it off
    detector: Any = WatermarkDetector(shape, "cpu", config, ignore_repeated_ngrams=True)
    expected, found = detector(tokens, return_dict=True), detect(tokens, ours.green_lists, 1, 0.5)
    counts = found.green.tolist() == expected.num_green_tokens.tolist()
    counts &= found.scored.tolist() == expected.num_tokens_scored.tolist()
    return same, counts, float(np.abs(found.z.numpy() - expected.z_score).max())


def part_a(lab: Lab) -> Part:
    """A few green lists."""
    tokenizer, width = lab.ctx.model(SMALL_LONG).tokenizer, lab.ctx.numbers["width"]
    lists, rows = lab.lists(KEY), []
    for end in range(width, width + 5):
        context = lab.human[0, end - width : end]
        green = lists(context[None])[0].nonzero()[:, 0].tolist()
        following = int(lab.human[0, end])
        rows.append(
            (
                repr(tokenizer.decode(context.tolist())),
                "".join(tokenizer.decode([i]) for i in green).replace("\n", "⏎"),
                repr(tokenizer.decode([following])),
                "green" if following in green else "red",
            )
        )
    text = (
        f"The previous $k = {width}$ characters and a secret key go through SplitMix64 (Steele, Lea & Flood, 2014), a "
        "documented function of 64-bit numbers: the same on every machine, unlike Python's salted `hash`. The hash of "
        f"each character with that of the context ranks the vocabulary; the {lists.size} smallest of "
        f"{lists.vocab_size} are green, $\\gamma = {lists.fraction:.3f}$."
    )
    columns = ("previous characters", "green list", "next character", "which is")
    caption = "Green lists along a piece of human text."
    listing = "\n\n".join(inspect.getsource(item) for item in (watermark.keyed_hash, KeyedGreenLists))
    return Part(
        "a",
        (Prose(text), Table(columns, tuple(rows), caption, "lists"), Code(listing, "minigpt/decoding/watermark.py")),
        "Green and red lists from the previous tokens",
    )


@dataclass(frozen=True)
class Marked:
    """What one δ wrote, and how it is seen."""

    delta: float
    tokens: Tensor  # with the prompt
    text: str  # the first continuation
    nll: tuple[float, ...]  # under the unmarked model, nats per character, one per text
    known: float
    right: Detection
    wrong: Detection
    rates: tuple[float, ...]  # detected at RATE, for each length


def write_all(lab: Lab) -> list[Marked]:
    """Every δ."""
    ctx, found = lab.ctx, []
    width = ctx.numbers["width"]
    tokenizer, vocabulary = ctx.model(SMALL_LONG).tokenizer, frozenset(words(ctx.text("train")))
    for index, delta in enumerate(ctx.numbers["deltas"]):
        tokens = lab.write(delta, width, ctx.numbers["texts"])
        written = tokens[:, PROMPT:]
        texts = [tokenizer.decode(row) for row in written.tolist()]
        found.append(
            Marked(
                delta=delta,
                tokens=tokens,
                text=texts[0],
                nll=lab.nll(tokens),
                known=share_of_real_words(texts, vocabulary, cut_start=True),
                right=lab.test(written, KEY, width),
                wrong=lab.test(written, WRONG_KEY, width),
                rates=tuple(flagged(lab.test(written[:, :n], KEY, width)) for n in lengths(lab)),
            )
        )
        ctx.progress(0.5 * (index + 1) / len(ctx.numbers["deltas"]), f"wrote with δ = {delta:g}")
    return found


def usual(marked: Sequence[Marked]) -> Marked:
    """The texts marked with the usual δ."""
    return next(m for m in marked if m.delta == USUAL)


def lengths(lab: Lab) -> tuple[int, ...]:
    """Lengths at which detection is tried: a quarter, a half and all of the text."""
    return tuple(lab.n_new // share for share in (4, 2, 1))


def part_b(lab: Lab, marked: Sequence[Marked]) -> tuple[Part, list[Check]]:
    """The bias."""
    lists, width = lab.lists(KEY), lab.ctx.numbers["width"]
    model, prompts = lab.ctx.model(SMALL_LONG).model, marked[0].tokens[:8, :PROMPT]
    contexts = lab.human[:64, :width]
    logits = torch.zeros(len(contexts), lab.vocab_size, device=contexts.device)
    rows, worst = [], 0.0
    for m in marked:
        p = Watermark(lists, width, m.delta)(contexts, logits).softmax(-1)
        share = (p * lists(contexts)).sum(1)
        odds = lists.fraction * math.exp(m.delta)
        closed = odds / (odds + 1 - lists.fraction)
        worst = max(worst, (share - closed).abs().max().item())
        rows.append((m.delta, closed, (m.right.green / m.right.scored).mean().item()))
    nothing = (Watermark(lists, width, 0.0),)
    zero = generate(model, prompts, 16, generator=lab.ctx.generator("zero"), processors=nothing)
    same = generate(model, prompts, 16, generator=lab.ctx.generator("zero"))
    logits_equal, counts_equal, z = parity(lab.ctx)
    checks = [
        Check.equal("biased logits = those of Transformers' WatermarkLogitsProcessor", logits_equal, True),
        Check.equal("scored and green n-grams = those of Transformers' WatermarkDetector", counts_equal, True),
        Check.at_most("z-scores against the same, max difference", z, 1e-5),
        Check.equal("δ = 0 changes nothing", torch.equal(zero, same), True),
        Check.at_most("P(green) of a uniform model against γe^δ / (γe^δ + 1 - γ)", worst, 1e-5),
    ]
    text = (
        "$\\delta$ is added to the green logits before sampling. A model that is undecided follows it: with uniform "
        "logits $P(\\text{green}) = \\gamma e^\\delta / (\\gamma e^\\delta + 1 - \\gamma)$. One that knows what comes "
        "next does not, and there is little to mark in such text."
    )
    caption = (
        "Share of green characters: closed form for a model without opinions, and what the model really wrote (of the "
        "distinct n-grams that the detector scores)."
    )
    columns = ("δ", "P(green), uniform model", "green share of the texts")
    samples = tuple(
        Sample(
            f"δ = {m.delta:g}",
            lab.ctx.model(SMALL_LONG).tokenizer.decode(m.tokens[0, :PROMPT].tolist()),
            m.text,
            f"z = {m.right.z[0].item():.1f}, {int(m.right.green[0])} of {int(m.right.scored[0])} n-grams green",
        )
        for m in marked
    )
    blocks: tuple[Block, ...] = (Prose(text), Table(columns, tuple(rows), caption, "bias"), *samples)
    return Part("b", blocks, "A bias δ for green tokens"), checks


# --- (c) Detection ----------------------------------------------------------------------------------------------


def exact_null(ctx: Context) -> tuple[float, float, int]:
    """The detector on uniformly random tokens: flagged share, largest p-value error against scipy, texts."""
    V, count = 60, ctx.numbers["random_texts"]
    tokens = torch.randint(V, (count, 100), generator=ctx.generator("null"))
    found = detect(tokens, KeyedGreenLists(KEY, V, V // 2), 4, 0.5)
    expected = binom.sf(found.green.numpy() - 1, found.scored.numpy(), 0.5)
    return flagged(found), float(np.abs(found.p_value.numpy() - expected).max()), count


def allowed(texts: int, rate: float = RATE) -> float:
    """A false-positive rate plus three standard errors."""
    return rate + 3 * math.sqrt(rate * (1 - rate) / texts)


def histogram(name: str, found: Detection) -> Series:
    """Distribution of z, as a step over unit-width bins."""
    z = found.z.clamp(-4.75, 14.75)
    edges = torch.arange(-5.0, 15.5, 0.5)
    counts = torch.histc(z.float().cpu(), bins=len(edges) - 1, min=edges[0].item(), max=edges[-1].item())
    return Series(name, tuple(edges[:-1].tolist()), tuple((counts / len(z)).tolist()))


def part_c(lab: Lab, marked: Sequence[Marked]) -> tuple[Part, list[Check], Metrics]:
    """The detector, where there is nothing to detect and where there is."""
    width = lab.ctx.numbers["width"]
    plain, strong = marked[0], usual(marked)
    human = {key: lab.test(lab.human, key, width) for key in (KEY, WRONG_KEY)}
    populations = {
        "human text, right key": human[KEY],
        "human text, wrong key": human[WRONG_KEY],
        "unmarked model text, right key": plain.right,
        "unmarked model text, wrong key": plain.wrong,
        f"marked (δ = {strong.delta:g}), wrong key": strong.wrong,
        f"marked (δ = {strong.delta:g}), right key": strong.right,
    }
    rows = tuple(
        (name, len(d.z), d.scored.double().mean().item(), *mean_std(d.z.tolist()), flagged(d), flagged(d, 0.05))
        for name, d in populations.items()
    )
    columns = ("texts", "number", "scored n-grams", "mean z", "std of z", "flagged at 1 %", "flagged at 5 %")
    random_rate, p_error, count = exact_null(lab.ctx)
    nulls = list(populations.items())[:-1]
    checks = [
        Check.at_most("p-values against scipy's binomial tail, max difference", p_error, 1e-9),
        Check.at_most(f"{count:,} texts of random tokens flagged at 1 %", random_rate, allowed(count)),
        *(
            Check.at_most(f"{name}: {len(d.z):,} texts flagged at 1 %", flagged(d), allowed(len(d.z)), "empirical")
            for name, d in nulls
        ),
        Check.at_least(f"marked with δ = {strong.delta:g} flagged at 1 %", flagged(strong.right), 0.95, "empirical"),
    ]
    kept = [name for name, d in nulls if flagged(d) <= allowed(len(d.z))]
    text = (
        "Each distinct $(k+1)$-gram counts once, and $z = (g - \\gamma n) / \\sqrt{n \\gamma (1 - \\gamma)}$ for $g$ "
        "green among $n$ (Kirchenbauer et al., 2023, equation 3). The p-value is the exact binomial tail, and a text "
        f"is flagged where it is at most {RATE:g}. Of the {len(nulls)} unmarked populations, {len(kept)} keep that "
        f"rate up to three standard errors; marked text with the right key is flagged in {flagged(strong.right):.1%} "
        f"of cases, with the wrong key in {flagged(strong.wrong):.1%}."
    )
    spread = widths(lab)
    caption = (
        f"Texts of {lab.n_new} characters. Human text is cut from the corpus; with no mark in it, no key is the right "
        "one, and both must behave alike."
    )
    figure = Figure(
        "step",
        tuple(histogram(name, populations[name]) for name in (*list(populations)[::2], rows[-1][0])),
        "z",
        "share of the texts",
        "The detector's score, in bins of 0.5.",
    )
    blocks = (Prose(text), figure, Table(columns, rows, caption, "detection"), *spread)
    metrics: Metrics = {
        "false_positive_rate_human": flagged(human[KEY]),
        "false_positive_rate_human_wrong_key": flagged(human[WRONG_KEY]),
        "false_positive_rate_unmarked": flagged(plain.right),
        "false_positive_rate_wrong_key": flagged(strong.wrong),
        "false_positive_rate_unmarked_wrong_key": flagged(plain.wrong),
        "detection_rate_marked": flagged(strong.right),
        "delta_marked": strong.delta,
        "human_texts": len(lab.human),
        "unmarked_texts": len(lab.human) + len(plain.tokens),
        "mean_z_human": human[KEY].z.mean().item(),
        "mean_z_marked": strong.right.z.mean().item(),
    }
    return Part("c", blocks, "The detector"), checks, metrics


def edited(lab: Lab, tokens: Tensor, share: float) -> Tensor:
    """The texts with a share of their characters replaced by random ones."""
    g = lab.ctx.generator("edit")
    hit = torch.rand(tokens.shape, generator=g) < share
    other = torch.randint(lab.vocab_size, tokens.shape, generator=g)
    return torch.where(hit.to(tokens.device), other.to(tokens.device), tokens)


def widths(lab: Lab) -> tuple[Block, ...]:
    """What the width of the context decides: one key's luck, and how much an edit destroys."""
    ctx, rows = lab.ctx, []
    keys, count, delta = range(1, 1 + ctx.numbers["keys"]), ctx.numbers["width_texts"], USUAL
    for width in ctx.numbers["widths"]:
        found = [lab.test(lab.human[:count], key, width) for key in keys]
        rates = [flagged(d) for d in found]
        marked = lab.write(delta, width, ctx.numbers["texts"])[:, PROMPT:]
        whole, changed = (flagged(lab.test(t, KEY, width)) for t in (marked, edited(lab, marked, 0.1)))
        drift = mean_std([d.z.mean().item() for d in found])[1]
        scored = found[0].scored.double().mean().item()
        rows.append((width, scored, sum(rates) / len(rates), max(rates), drift, whole, changed))
        ctx.progress(0.6 + 0.4 * len(rows) / len(ctx.numbers["widths"]), f"width {width}")
    columns = (
        *("k", "scored n-grams", "flagged at 1 %, mean of keys", "worst key", "std of mean z over keys"),
        *(f"detected, δ = {delta:g}", "… a tenth of the characters changed"),
    )
    narrow, wide = rows[0], rows[-1]
    text = (
        f"A vocabulary of {lab.vocab_size} characters is a trap. With $k = {narrow[0]}$ all texts share the same few "
        "n-grams, so that whether a key calls ordinary English green is decided once for all of them: the mean z of "
        f"human text varies from key to key with a standard deviation of {narrow[4]:.2f}, where independent texts "
        f"would give {1 / math.sqrt(min(count, len(lab.human))):.2f}, and the worst of {len(keys)} keys flags "
        f"{narrow[3]:.1%} of them. With $k = {wide[0]}$ it is {wide[4]:.2f} and {wide[3]:.1%}. The price of a wide "
        f"context: every edit spoils $k + 1$ n-grams, and with a tenth of the characters changed "
        f"{changed_sentence(narrow[6], wide[6])}."
    )
    caption = f"Human text under {len(keys)} keys, and marked text before and after random substitutions."
    return (Table(columns, tuple(rows), caption, "widths"), Prose(text))


def changed_sentence(narrow: float, wide: float) -> str:
    """Whether the wide context is the more fragile one."""
    if wide < narrow:
        return f"detection is {wide:.0%} instead of {narrow:.0%}"
    return f"detection is {wide:.0%}, no less than the {narrow:.0%} of the narrow one"


# --- (d) Detectability against quality --------------------------------------------------------------------------


def part_d(lab: Lab, marked: Sequence[Marked]) -> tuple[Part, list[Check], Metrics]:
    """The trade-off."""
    plain = marked[0]
    base = mean_std(plain.nll)[0]
    rows, metrics = [], Metrics()
    for m in marked:
        nll, spread = mean_std(m.nll)
        # The same prompts for every δ: what they have in common cancels in the differences.
        error = mean_std([b - a for a, b in zip(plain.nll, m.nll, strict=True)])[1] / math.sqrt(len(m.nll))
        rows.append(
            (
                *(m.delta, nll, spread, nll - base, None if m is plain else error, math.exp(nll - base)),
                *(m.known, m.right.z.mean().item(), *m.rates),
            )
        )
        metrics[f"nll_nats_delta_{m.delta:g}"] = nll
        metrics[f"nll_nats_delta_{m.delta:g}_std"] = spread
        metrics[f"nll_cost_nats_delta_{m.delta:g}"] = nll - base
        metrics[f"nll_cost_nats_delta_{m.delta:g}_standard_error"] = error
        metrics[f"mean_z_delta_{m.delta:g}"] = m.right.z.mean().item()
        metrics[f"known_words_delta_{m.delta:g}"] = m.known
        metrics |= {
            f"detection_rate_delta_{m.delta:g}_length_{n}": rate for n, rate in zip(lengths(lab), m.rates, strict=True)
        }
    columns = (
        *("δ", "NLL (nats/character)", "± std over texts", "cost (nats)", "± standard error", "perplexity ×"),
        *("known words", "mean z", *(f"detected, {n} characters" for n in lengths(lab))),
    )
    caption = (
        f"{len(plain.nll)} texts per δ. NLL under the unmarked model, which wrote them; the cost with its standard "
        f"error, texts paired by prompt; detection at a false-positive rate of {RATE:g}."
    )
    deltas = tuple(m.delta for m in marked)
    by_length = tuple(
        Series(f"{n} characters", deltas, tuple(m.rates[i] for m in marked)) for i, n in enumerate(lengths(lab))
    )
    costs = tuple(float(row[3] or 0.0) for row in rows)
    trade = tuple(Series(series.name, costs, series.y) for series in by_length)
    enough = next((m for m in marked if m.rates[-1] >= 0.95), None)
    verdict = (
        f"The smallest δ tried that is found in at least 95 % of the texts of {lab.n_new} characters is "
        f"{enough.delta:g}; it costs {mean_std(enough.nll)[0] - base:.3f} nats per character, a perplexity "
        f"{math.exp(mean_std(enough.nll)[0] - base):.2f} times as high, and known words go from {plain.known:.0%} to "
        f"{enough.known:.0%}. A quarter of the length is enough in {enough.rates[0]:.0%} of cases."
        if enough
        else f"No δ tried is found in 95 % of the texts of {lab.n_new} characters."
    )
    rise = min(after - before for before, after in itertools.pairwise(costs))
    checks = [Check.at_least("every larger δ costs more (least rise, nats)", rise, 0.0, "empirical")]
    blocks: tuple[Block, ...] = (
        Figure("line", by_length, "δ", "detected", f"Detection at a false-positive rate of {RATE:g}, by length."),
        Figure(
            "line", trade, "cost (nats/character)", "detected", "The trade-off: what detection costs in likelihood."
        ),
        Table(columns, tuple(rows), caption, "trade_off"),
        Prose(verdict),
    )
    return Part("d", blocks, "Detectability against quality"), checks, metrics


def answer(ctx: Context) -> Answer:
    """Watermarking, part by part."""
    lab = prepare(ctx)
    marked = write_all(lab)
    bias, checks = part_b(lab, marked)
    detector, more, metrics = part_c(lab, marked)
    trade, last, cost = part_d(lab, marked)
    strong = usual(marked)
    return Answer(
        summary=f"With δ = {strong.delta:g}, {strong.rates[-1]:.0%} of texts of {lab.n_new} characters are detected "
        f"at a false-positive rate of {RATE:.0%} ({metrics['false_positive_rate_human']:.1%} of "
        f"{len(lab.human):,} human texts), for {cost[f'nll_cost_nats_delta_{strong.delta:g}']:.3f} nats per character.",
        parts=(part_a(lab), bias, detector, trade),
        checks=(*checks, *more, *last),
        metrics=metrics | cost,
    )


SHARED = {"deltas": (0.0, 0.5, 1.0, 2.0, 4.0), "width": 6, "widths": (1, 2, 4, 6)}
EXERCISE = Exercise(
    id="21.32",
    title="Watermarking",
    recipes=(SMALL_LONG,),
    numbers={
        "smoke": SHARED
        | {
            "deltas": (0.0, 2.0, 4.0),
            "widths": (1, 6),
            "pieces": 2,
            "texts": 60,
            "human_texts": 600,
            "width_texts": 200,
            "random_texts": 2_000,
            "keys": 4,
        },
        "laptop": SHARED
        | {
            "pieces": 2,
            "texts": 300,
            "human_texts": 2_500,
            "width_texts": 800,
            "random_texts": 5_000,
            "keys": 8,
        },
        "gpu": SHARED
        | {
            "pieces": 1,
            "texts": 2_000,
            "human_texts": 10_000,
            "width_texts": 2_000,
            "random_texts": 20_000,
            "keys": 20,
        },
    },
    seconds={"smoke": 4, "laptop": 18, "gpu": 60},
    answer=answer,
)
