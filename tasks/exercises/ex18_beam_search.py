"""Exercise 21.18: beam search against greedy decoding and sampling, judged by another model and by repetition."""

import functools
import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor

from minigpt.config import GPTConfig
from minigpt.decoding.beam import beam_search
from minigpt.decoding.sampling import Sampling, generate, warp
from minigpt.evaluation.diversity import distinct, repetition
from minigpt.evaluation.entropy import entropy
from minigpt.evaluation.evaluate import evaluating, token_losses
from minigpt.evaluation.excerpts import spread_starts
from minigpt.evaluation.statistics import Comparison, compare_paired, mean_std
from minigpt.evaluation.words import share_of_real_words, words
from minigpt.model import GPT
from minigpt.pretrained.causal_lm import score_continuation
from minigpt.pretrained.export import to_gpt2
from minigpt.pretrained.limits import context_of
from reports.types import Answer, Cell, Check, Code, Figure, Part, Prose, Sample, Series, Table
from tasks.exercise import Context, Exercise, Pretrained
from tasks.recipes.catalogue import SMALL_LONG

PROMPT = 32  # characters
RUN = 8  # characters whose repetition is counted


@dataclass(frozen=True)
class Strategy:
    """One way to continue a prompt."""

    key: str
    name: str
    letter: str = ""
    beams: int = 0
    sampling: Sampling = field(default_factory=Sampling)  # where there are no beams

    @property
    def drawn(self) -> bool:
        """Whether chance decides, so that two runs differ."""
        return not self.beams and self.sampling.temperature != 0


BEAM, WIDTHS = 5, (2, 5, 10)
BEAMS = {k: Strategy(f"beam_{k}", f"beam search (K = {k})", beams=k) for k in WIDTHS}
GREEDY = Strategy("greedy", "greedy decoding", "a", sampling=Sampling(0.0))
TOP_K = Strategy("top_k_50", "top-k sampling (k = 50)", "b", sampling=Sampling(top_k=50))
NUCLEUS = Strategy("nucleus_0.92", "nucleus sampling (p = 0.92)", "c", sampling=Sampling(top_p=0.92))
COOL = Strategy("temperature_0.7", "temperature sampling (T = 0.7)", "d", sampling=Sampling(0.7))
PLAIN = Strategy("plain", "plain sampling")
HUMAN = Strategy("human", "human text")
LETTERED = (GREEDY, TOP_K, NUCLEUS, COOL)
WRITING = (*BEAMS.values(), *LETTERED, PLAIN)


@dataclass(frozen=True)
class Written:
    """Continuations by one strategy, with one value per text."""

    strategy: Strategy
    texts: tuple[str, ...]
    own: tuple[float, ...]  # loss under the mini-GPT, nats per character
    nats: tuple[float, ...]  # loss under the pretrained model, nats per token
    bits: tuple[float, ...]  # the same, bits per character
    repeated: tuple[float, ...]  # share of runs of RUN characters that occurred before in the text
    known: tuple[float, ...]  # share of words that occur in the training text
    again: tuple[float, ...] = ()  # perplexities of several runs from the first prompt

    @property
    def perplexities(self) -> tuple[float, ...]:
        """Under the pretrained model, per token."""
        return tuple(math.exp(nats) for nats in self.nats)

    @property
    def runs(self) -> tuple[float, float]:
        """Perplexity of several runs from the first prompt, mean and standard deviation; nothing drawn, no spread."""
        return mean_std(self.again or self.perplexities[:1])

    @property
    def distinct(self) -> float:
        """Distinct bigrams of words over all of them, all texts together."""
        return distinct([words(text) for text in self.texts], 2)


@dataclass(frozen=True)
class Lab:
    """The models and the prompts."""

    context: Context
    model: GPT
    tokenizer: Any
    judge: Pretrained
    rows: Tensor  # (N, PROMPT + n_new): prompts with their human continuation
    prompts: tuple[str, ...]
    known: frozenset[str]

    @property
    def n_new(self) -> int:
        """Characters to write."""
        return self.rows.shape[1] - PROMPT

    def decode(self, rows: Tensor) -> list[str]:
        """Continuations as text."""
        return [self.tokenizer.decode(row) for row in rows[:, PROMPT:].tolist()]


def prepare(context: Context) -> Lab:
    """Prompts that begin and end with a word, evenly spread over the held-out text."""
    trained, n = context.model(SMALL_LONG), context.numbers
    text, tokens = context.text(), context.tokens(SMALL_LONG)
    n_new = min(n["new"], len(text) // 4)
    starts = torch.tensor(spread_starts(text, n["prompts"], len(text) - PROMPT - n_new, PROMPT), device=tokens.device)
    rows = tokens[starts[:, None] + torch.arange(PROMPT + n_new, device=tokens.device)]
    prompts = tuple(trained.tokenizer.decode(row) for row in rows[:, :PROMPT].tolist())
    known = frozenset(words(context.text("train")))
    return Lab(context, trained.model, trained.tokenizer, context.pretrained(), rows, prompts, known)


# --- Writing and judging ----------------------------------------------------------------------------------------


def write(lab: Lab, strategy: Strategy, prompts: Tensor, salt: str = "sampling") -> Tensor:
    """Prompts (N, PROMPT) and what one strategy makes of them, (N, PROMPT + n_new).

    All samplers use the same random numbers, so that they differ only where the strategies do.
    """
    if strategy.beams:
        search = functools.partial(beam_search, lab.model, n_new=lab.n_new, beams=strategy.beams)
        return torch.stack([search(prompt)[0].tokens for prompt in prompts])
    generator = lab.context.generator(salt)
    return generate(lab.model, prompts, lab.n_new, sampling=strategy.sampling, generator=generator)


def judged(lab: Lab, strategy: Strategy) -> Written:
    """Write with one strategy, and measure."""
    n = lab.context.numbers
    tokens = lab.rows if strategy is HUMAN else write(lab, strategy, lab.rows[:, :PROMPT])
    texts, scores = lab.decode(tokens), []
    for prompt, text in zip(lab.prompts, texts, strict=True):
        scored = score_continuation(lab.judge.model, lab.judge.tokenizer, prompt, text)
        scores.append((scored.nats, scored.nats * scored.tokens / math.log(2) / len(scored.text)))
    again = []
    if strategy.drawn and strategy is not HUMAN:
        runs = write(lab, strategy, lab.rows[:1, :PROMPT].repeat(n["runs"], 1), "runs of one prompt")
        for text in lab.decode(runs):
            again.append(score_continuation(lab.judge.model, lab.judge.tokenizer, lab.prompts[0], text).perplexity)
    return Written(
        strategy=strategy,
        texts=tuple(texts),
        own=tuple(own_loss(lab.model, row) for row in tokens),
        nats=tuple(nats for nats, _ in scores),
        bits=tuple(bits for _, bits in scores),
        repeated=tuple(repetition(text, RUN) for text in texts),
        known=tuple(share_of_real_words([text], lab.known) for text in texts),
        again=tuple(again),
    )


def own_loss(model: GPT, text: Tensor) -> float:
    """Mean loss of the new characters of (PROMPT + n,), each after all that the model saw when it wrote it."""
    return token_losses(model, text, stride=1)[PROMPT - 1 :].double().mean().item()


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    lab: Lab
    written: Mapping[str, Written]  # by key of the strategy
    truncation: Mapping[str, tuple[float, float, float]]  # by key: characters kept, mass removed, entropy in nats
    checks: tuple[Check, ...]

    def of(self, strategy: Strategy) -> Written:
        """What a strategy wrote."""
        return self.written[strategy.key]

    @property
    def beam(self) -> Written:
        """Of the width that is compared."""
        return self.of(BEAMS[BEAM])


def measure(context: Context) -> Findings:
    """Everything the answer rests on."""
    lab, written = prepare(context), {}
    everything = (HUMAN, *WRITING)
    for i, strategy in enumerate(everything):
        context.progress(i / (len(everything) + 1), f"writing and scoring: {strategy.name}")
        found = context.once(strategy.key, functools.partial(as_json, lab, strategy))
        written[strategy.key] = Written(strategy, *(tuple(values) for values in found))
    context.progress(len(everything) / (len(everything) + 1), "checking")
    return Findings(lab, written, truncation(lab), (*search_checks(context), *model_checks(lab, written)))


def as_json(lab: Lab, strategy: Strategy) -> list[Any]:
    """``judged`` without the strategy, as plain JSON."""
    w = judged(lab, strategy)
    return [w.texts, w.own, w.nats, w.bits, w.repeated, w.known, w.again]


@torch.inference_mode()
def truncation(lab: Lab) -> dict[str, tuple[float, float, float]]:
    """What each sampler leaves of the distributions on held-out contexts: characters, mass removed, entropy."""
    size = lab.model.config.context
    tokens = lab.context.tokens(SMALL_LONG)
    count = min(lab.context.numbers["heldout"], len(tokens)) // size * size
    with evaluating(lab.model):
        logits = lab.model(tokens[:count].view(-1, size)).flatten(0, 1).float()
    p, found = logits.softmax(dim=-1), {}
    for strategy in (PLAIN, TOP_K, NUCLEUS, COOL):
        warped = warp(logits, strategy.sampling)
        kept = warped.isfinite()
        removed = 1.0 - (p * kept).sum(dim=-1).mean().item()
        left = entropy(warped.softmax(dim=-1)).mean().item()
        found[strategy.key] = (kept.sum(dim=-1).double().mean().item(), max(0.0, removed), left)
    return found


# --- Checks -----------------------------------------------------------------------------------------------------


def random_model(context: Context, vocab_size: int) -> GPT:
    """A small model, far from uniform, so that searches of different width differ."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=context.generator("model"))))
        model = GPT(GPTConfig(n_layer=2, n_head=2, d_model=16, context=32, vocab_size=vocab_size)).eval()
    for weight in model.parameters():
        weight.data.mul_(2.5)
    return model


@torch.inference_mode()
def search_checks(context: Context) -> tuple[Check, ...]:
    """Beam search against exhaustive search and against Transformers'."""
    tiny, prompt = random_model(context, 5), torch.tensor([1, 4, 2])
    every = torch.tensor([[1, 4, 2, *new] for new in itertools.product(range(5), repeat=4)])  # (625, 7)
    log_p = tiny(every[:, :-1]).log_softmax(dim=-1).gather(2, every[:, 1:, None])[:, 2:, 0].sum(dim=1)
    found = beam_search(tiny, prompt, 4, beams=5**3)
    best = torch.equal(found[0].tokens, every[log_p.argmax()])
    gaps = torch.tensor([h.log_probability for h in found]) - log_p.topk(len(found)).values
    small = random_model(context, 23)
    theirs: Any = to_gpt2(small)
    prompts = torch.randint(23, (8, 5), generator=context.generator("prompts"))
    options = {"max_new_tokens": 14, "num_beams": BEAM, "do_sample": False, "pad_token_id": 0}
    equal = sum(
        torch.equal(
            theirs.generate(row[None], attention_mask=torch.ones_like(row[None]), **options)[0],
            beam_search(small, row, 14, beams=BEAM)[0].tokens,
        )
        for row in prompts
    )
    wide = "5 tokens, 4 steps, a wide beam"
    return (
        Check.equal(f"{wide}: finds the best of all {len(every)} texts, as exhaustive search does", best, True),
        Check.at_most(f"{wide}: log-probabilities of the {len(found)} best (nats)", gaps.abs().max().item(), 1e-4),
        Check.equal(f"texts of Transformers' generate(num_beams={BEAM}), of {len(prompts)}", equal, len(prompts)),
    )


def model_checks(lab: Lab, written: Mapping[str, Written]) -> tuple[Check, ...]:
    """The search in the trained model, and the other model's score."""
    prompt, again = lab.rows[0, :PROMPT], lab.rows[:1, :PROMPT]
    [narrow] = beam_search(lab.model, prompt, lab.n_new, beams=1)
    greedy = generate(lab.model, again, lab.n_new, sampling=GREEDY.sampling)[0]
    found = beam_search(lab.model, prompt, lab.n_new, beams=BEAM)[0]
    own = -own_loss(lab.model, found.tokens) * lab.n_new
    first = written[BEAMS[BEAM].key].texts[0]
    ours, theirs = both_losses(lab, lab.prompts[0], first)
    return (
        Check.equal("a beam of width 1 writes what greedy decoding writes", torch.equal(narrow.tokens, greedy), True),
        Check.equal(
            "beam search writes the same text when it is run again", lab.decode(found.tokens[None]) == [first], True
        ),
        Check.close(
            "log-probability that the search reports, against reading its text without a cache (nats)",
            found.log_probability,
            own,
            1e-2,
        ),
        Check.close(f"loss under {lab.judge.name} against its own, prompt masked (nats/token)", ours, theirs, 1e-3),
    )


@torch.inference_mode()
def both_losses(lab: Lab, prompt: str, text: str) -> tuple[float, float]:
    """Of what surely fits into the judge's context: our loss of a continuation, and its own from masked labels."""
    model, tokenizer = lab.judge.model, lab.judge.tokenizer
    text = text[: context_of(model) - len(prompt)]
    ids = tokenizer(prompt + text, add_special_tokens=False)["input_ids"]
    read = next(n for n in range(1, len(ids)) if len(tokenizer.decode(ids[:n])) >= len(prompt))
    row = torch.tensor([ids], device=model.device)
    labels = row.masked_fill(torch.arange(len(ids), device=row.device) < read, -100)
    return score_continuation(model, tokenizer, prompt, text).nats, model(row, labels=labels).loss.item()


def empirical_checks(f: Findings) -> tuple[Check, ...]:
    """What the literature expects."""
    gains = [mean(before.own) - mean(after.own) for before, after in itertools.pairwise(by_width(f))]
    samplers = [f.of(strategy) for strategy in (TOP_K, NUCLEUS, COOL, PLAIN)]
    beam, human = f.beam, f.of(HUMAN)
    claims = {
        "a wider beam finds likelier text at every step from K = 1 on (nats/character)": min(gains),
        "human text is less likely under the mini-GPT than what beam search finds (nats/character)": (
            mean(human.own) - mean(beam.own)
        ),
        "beam search has a lower loss under the pretrained model than every sampler (nats/token)": (
            min(mean(w.nats) for w in samplers) - mean(beam.nats)
        ),
        "beam search repeats more than every sampler (Holtzman et al., 2020; share of runs)": (
            mean(beam.repeated) - max(mean(w.repeated) for w in samplers)
        ),
    }
    return tuple(
        Check.at_least(f"{claim}: least difference", value, 0.0, "empirical") for claim, value in claims.items()
    )


def by_width(f: Findings) -> list[Written]:
    """Greedy decoding, which is width 1, and the beams."""
    return [f.of(GREEDY), *(f.of(BEAMS[k]) for k in WIDTHS)]


def mean(values: Sequence[float]) -> float:
    """Without the spread."""
    return mean_std(values)[0]


# --- The parts --------------------------------------------------------------------------------------------------


def overview(f: Findings) -> Part:
    """Beam search itself, and all strategies at a glance."""
    return Part(
        "",
        (
            Prose(definition(f)),
            Code(inspect.getsource(beam_search), "minigpt/decoding/beam.py"),
            overall(f),
            Prose(quality(f)),
            scatter(f),
            Prose(widening(f)),
            *width_figures(f),
            *(sample(f, strategy) for strategy in (HUMAN, BEAMS[BEAM], PLAIN)),
        ),
        "Beam search, and all strategies at a glance",
    )


def definition(f: Findings) -> str:
    """What is done."""
    lab, trained = f.lab, f.lab.context.model(SMALL_LONG)
    config, runs = lab.model.config, lab.context.numbers["runs"]
    slides = (
        f" Of the {PROMPT + lab.n_new} characters it sees the last {config.context}."
        if PROMPT + lab.n_new > config.context
        else ""
    )
    return (
        "Beam search keeps the $K$ likeliest continuations so far. Each is extended by every token, and of the "
        "$K \\cdot V$ extensions the $K$ likeliest go on:"
        "$$\\mathcal{B}_t = \\text{the } K \\text{ of } \\left\\{ (b, x) : b \\in \\mathcal{B}_{t-1},\\ x \\in "
        "\\mathcal{V} \\right\\} \\text{ with the largest } \\ln P(b) + \\ln P(x \\mid b)$$"
        "$K = 1$ is greedy decoding. All texts have the same length here, so that none has to be corrected for.\n\n"
        f"The mini-GPT ({config.n_layer} layers, width {config.d_model}, {config.vocab_size} characters, validation "
        f"loss {trained.evaluations['validation_loss'][-1]:.3f} nats per character) continues {len(lab.prompts)} "
        f"prompts of {PROMPT} characters, evenly spread over the held-out text, by {lab.n_new} characters "
        f"each.{slides} That makes {len(lab.prompts)} runs of each strategy, one per prompt. Beam search and greedy "
        "decoding write the same text whenever they are run, so that their spread is over prompts only; samplers also "
        f"differ from run to run, and for them there are {runs} more runs, all from the first prompt. "
        f"{lab.judge.name} reads prompt and continuation; scored is the continuation alone, and also what people wrote "
        "after the same prompts. A perplexity is per token of its tokenizer; bits per character are not."
    )


def overall(f: Findings) -> Table:
    """One row per strategy."""
    rows: list[tuple[Cell, ...]] = []
    for w in f.written.values():
        again = (w.runs[0], None if w.strategy is HUMAN else w.runs[1])
        rows.append(
            (
                *(w.strategy.name, *mean_std(w.perplexities), *again, mean(w.bits), mean(w.own)),
                *(mean(w.repeated), w.distinct, mean(w.known)),
            )
        )
    columns = (
        *("text", "perplexity", "± std over prompts", "perplexity after the first prompt", "± std over its runs"),
        *("bits per character", "own loss (nats/character)", f"repeated {RUN}-character runs"),
        *("distinct word bigrams", "known words"),
    )
    caption = (
        f"All strategies. Perplexity and bits per character under {f.lab.judge.name}, means over {len(f.lab.prompts)} "
        f"texts; after the first prompt, means over {f.lab.context.numbers['runs']} runs of each sampler. Own loss is "
        "under the mini-GPT that wrote them. Repeated runs occurred before in the same text; distinct "
        "bigrams are of all texts together; known words occur in the training text."
    )
    return Table(columns, tuple(rows), caption, "strategies")


def quality(f: Findings) -> str:
    """Is a low perplexity quality?"""
    ours, human = [f.of(strategy) for strategy in WRITING], f.of(HUMAN)
    lowest = min(ours, key=lambda w: mean(w.nats))
    nearest = min(ours, key=lambda w: abs(mean(w.nats) - mean(human.nats)))
    correlation = rank_correlation([v for w in ours for v in w.nats], [v for w in ours for v in w.repeated])
    order = f"{correlation:+.2f}".replace("-", "−")
    change = compare_paired(human.repeated, lowest.repeated).verdict
    more = {"higher": "more than", "lower": "less than"}.get(change, "about as much as")
    title = "Low perplexity is not quality." if change == "higher" else "Is a low perplexity quality?"
    return (
        f"**{title}** The lowest loss under {f.lab.judge.name} has {lowest.strategy.name}: "
        f"perplexity {mean(lowest.perplexities):.1f}, human text {mean(human.perplexities):.1f}. It repeats "
        f"{mean(lowest.repeated):.0%} of its runs of {RUN} characters, {more} human text with "
        f"{mean(human.repeated):.0%}. Over all {sum(len(w.nats) for w in ours)} written texts the rank correlation of "
        f"loss and repetition is {order}. Nearest to the loss of human text is {nearest.strategy.name}; of its bigrams "
        f"of words {nearest.distinct:.0%} are distinct, and {human.distinct:.0%} of people's."
    )


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's, 0 where one of the two does not vary."""
    correlate: Any = spearmanr
    return float(correlate(x, y).statistic) if len(set(x)) > 1 < len(set(y)) else 0.0


def scatter(f: Findings) -> Figure:
    """Perplexity and repetition of every text."""
    shown = (HUMAN, BEAMS[BEAM], *LETTERED, PLAIN)
    series = tuple(Series(s.name, f.of(s).perplexities, f.of(s).repeated) for s in shown)
    caption = "Every text by its perplexity and by what it repeats of itself."
    labels = (f"perplexity under {f.lab.judge.name}", f"repeated {RUN}-character runs (share)")
    return Figure("scatter", series, *labels, caption, x_log=True)


def widening(f: Findings) -> str:
    """What a wider beam does."""
    first, *wider = by_width(f)
    chain = ", ".join(f"{mean(w.own) * f.lab.n_new:.1f} at K = {k}" for k, w in zip(WIDTHS, wider, strict=True))
    likelier = sum(after < before for before, after in zip(first.own, wider[-1].own, strict=True))
    return (
        "**Wider beams.** The text that the search finds has, on average, a $-\\ln P$ of "
        f"{mean(first.own) * f.lab.n_new:.1f} nats at K = 1, {chain}; K = {WIDTHS[-1]} finds likelier text than greedy "
        f"decoding after {likelier} of {len(first.own)} prompts. That is not guaranteed: a wide beam can lose the "
        "beginning of the greedy text."
    )


def width_figures(f: Findings) -> tuple[Figure, ...]:
    """Loss and repetition over K."""
    rows, x = by_width(f), (1, *WIDTHS)
    judge = tuple(mean(w.bits) * math.log(2) for w in rows)
    losses = (
        Series("under the mini-GPT", x, tuple(mean(w.own) for w in rows), tuple(mean_std(w.own)[1] for w in rows)),
        Series(f"under {f.lab.judge.name}", x, judge, tuple(mean_std(w.bits)[1] * math.log(2) for w in rows)),
    )
    repeated = Series("beam search", x, *zip(*(mean_std(w.repeated) for w in rows), strict=True))
    human = ((mean(f.of(HUMAN).repeated), "human text"),)
    spread = "Mean and standard deviation over prompts."
    return (
        Figure("line", losses, "K", "loss (nats/character)", f"Loss of the text found by a beam of width K. {spread}"),
        Figure(
            *("line", (repeated,), "K", f"repeated {RUN}-character runs (share)"),
            f"Repetition in the text found by a beam of width K. {spread}",
            hlines=human,
        ),
    )


def sample(f: Findings, strategy: Strategy) -> Sample:
    """The first text of a strategy."""
    w = f.of(strategy)
    note = f"perplexity {w.perplexities[0]:.1f}, own loss {w.own[0]:.2f} nats/character, {w.repeated[0]:.0%} repeated"
    return Sample(strategy.name, f.lab.prompts[0], w.texts[0], note)


MEASURES: dict[str, Callable[[Written], Sequence[float]]] = {
    "perplexity": lambda w: w.perplexities,
    "loss (nats/token)": lambda w: w.nats,
    "bits per character": lambda w: w.bits,
    "own loss (nats/character)": lambda w: w.own,
    f"repeated {RUN}-character runs": lambda w: w.repeated,
    "known words": lambda w: w.known,
}


def part(f: Findings, strategy: Strategy) -> Part:
    """Beam search against one strategy."""
    rows: list[tuple[Cell, ...]] = []
    for label, values in MEASURES.items():
        change = compare_paired(values(f.beam), values(f.of(strategy)))
        interval = change.interval if math.isfinite(change.std_error) else (None, None)
        rows.append((label, *change.baseline, *change.other, change.difference, *interval, change.verdict))
    beam = BEAMS[BEAM].name
    columns = (
        *("measure", beam, f"± std, {beam}", strategy.name, f"± std, {strategy.name}"),
        *("difference", "95 % from", "95 % to", "verdict"),
    )
    caption = (
        f"{strategy.name} against {beam}. Difference: {strategy.name} minus beam search, with Student's interval for "
        f"its mean, paired over {len(f.lab.prompts)} prompts."
    )
    text = f"{INTRODUCTIONS[strategy.letter](f)} {against(f, strategy)}"
    table = Table(columns, tuple(rows), caption[0].upper() + caption[1:], strategy.key)
    samples = (sample(f, BEAMS[BEAM]), sample(f, strategy))
    return Part(strategy.letter, (Prose(text), table, *samples), f"Against {strategy.name}")


def against(f: Findings, strategy: Strategy) -> str:
    """The comparison in words."""
    beam, other = f.beam, f.of(strategy)
    loss, repeats = compare_paired(beam.nats, other.nats), compare_paired(beam.repeated, other.repeated)
    (ppl, spread), (theirs, theirs_spread) = mean_std(beam.perplexities), mean_std(other.perplexities)
    likely = {"higher": "likelier than", "lower": "less likely than"}.get(loss.verdict, "up to noise as likely as")
    again = {"lower": "more", "higher": "less"}.get(repeats.verdict, "as much, up to noise")
    return (
        f"The perplexity of beam search is {ppl:.1f} ± {spread:.1f} over prompts, that of {strategy.name} "
        f"{theirs:.1f} ± {theirs_spread:.1f}; the loss of the latter differs by {difference(loss)} nats per "
        f"token. Of its runs of {RUN} characters beam search repeats {mean(beam.repeated):.0%}, {strategy.name} "
        f"{mean(other.repeated):.0%}; of the words {mean(beam.known):.0%} and {mean(other.known):.0%} occur in the "
        "training text.\n\n"
        f"**Verdict.** Under {f.lab.judge.name} the text of beam search is {likely} that of "
        f"{strategy.name}; it repeats itself {again}."
    )


def difference(change: Comparison) -> str:
    """With its interval."""
    low, high = change.interval
    said = f"{change.difference:+.2f}"
    if math.isfinite(change.std_error):
        said += f" (95 % interval {low:+.2f} to {high:+.2f})"
    return said.replace("-", "−")


def about_greedy(f: Findings) -> str:
    """(a)"""
    beam, greedy = f.beam, f.of(GREEDY)
    likelier = sum(a < b for a, b in zip(beam.own, greedy.own, strict=True))
    return (
        "Greedy decoding takes the likeliest character and never goes back. With a beam of "
        f"{BEAM} the mini-GPT's own loss is {mean(beam.own):.3f} nats per character instead of {mean(greedy.own):.3f}, "
        f"lower after {likelier} of {len(beam.own)} prompts."
    )


def about_top_k(f: Findings) -> str:
    """(b)"""
    size, (_, removed, _) = f.lab.model.config.vocab_size, f.truncation[TOP_K.key]
    same = sum(a == b for a, b in zip(f.of(TOP_K).texts, f.of(PLAIN).texts, strict=True))
    k, nucleus = TOP_K.sampling.top_k, f.truncation[NUCLEUS.key][0]
    return (
        f"The mini-GPT has {size} characters. On held-out contexts k = {k} removes {100 * removed:.2g} % of the "
        f"probability (the nucleus of part (c) keeps {nucleus:.1f} characters on average). From the same random "
        f"numbers it wrote the very text of plain sampling after {same} of {len(f.lab.prompts)} prompts."
    )


def about_nucleus(f: Findings) -> str:
    """(c)"""
    kept, removed, left = f.truncation[NUCLEUS.key]
    return (
        f"On held-out contexts the nucleus has {kept:.1f} of {f.lab.model.config.vocab_size} characters on average, "
        f"and {removed:.1%} of the probability is removed; the entropy falls from {f.truncation[PLAIN.key][2]:.2f} to "
        f"{left:.2f} nats."
    )


def about_temperature(f: Findings) -> str:
    """(d)"""
    return (
        f"T = {COOL.sampling.temperature:g} removes no character; on held-out contexts it lowers the mean entropy "
        f"from {f.truncation[PLAIN.key][2]:.2f} to {f.truncation[COOL.key][2]:.2f} nats (the nucleus: "
        f"{f.truncation[NUCLEUS.key][2]:.2f})."
    )


INTRODUCTIONS = {"a": about_greedy, "b": about_top_k, "c": about_nucleus, "d": about_temperature}


def answer(context: Context) -> Answer:
    """All parts."""
    f = measure(context)
    metrics: dict[str, float | int] = {"runs": len(f.lab.prompts), "new_characters": f.lab.n_new}
    metrics["vocabulary"] = f.lab.model.config.vocab_size
    for key, w in f.written.items():
        metrics[f"perplexity_{key}"], metrics[f"perplexity_{key}_std"] = mean_std(w.perplexities)
        metrics[f"loss_{key}_nats_per_token"] = mean(w.nats)
        metrics[f"bits_per_character_{key}"] = mean(w.bits)
        metrics[f"log_probability_{key}_nats"] = -mean(w.own) * f.lab.n_new
        metrics[f"repeated_runs_share_{key}"] = mean(w.repeated)
        metrics[f"distinct_bigrams_share_{key}"] = w.distinct
        metrics[f"known_words_share_{key}"] = mean(w.known)
        if w.strategy is not HUMAN:
            over = "over_runs_of_one_prompt"
            metrics[f"perplexity_{key}_{over}"], metrics[f"perplexity_{key}_std_{over}"] = w.runs
    for key, (kept, removed, left) in f.truncation.items():
        metrics |= {f"characters_kept_{key}": kept, f"probability_removed_{key}": removed, f"entropy_{key}_nats": left}
    shown = (BEAMS[BEAM], *LETTERED, HUMAN)
    listed = ", ".join(f"{s.name} {mean(f.of(s).perplexities):.1f}" for s in shown)
    summary = (
        f"Perplexity under {f.lab.judge.name}: {listed}. Beam search repeats {mean(f.beam.repeated):.0%} of its "
        f"{RUN}-character runs, nucleus sampling {mean(f.of(NUCLEUS).repeated):.0%}, people "
        f"{mean(f.of(HUMAN).repeated):.0%}."
    )
    return Answer(
        summary=summary,
        parts=(overview(f), *(part(f, strategy) for strategy in LETTERED)),
        checks=(*f.checks, *empirical_checks(f)),
        metrics=metrics,
        notes=(f.lab.judge.note,) if f.lab.judge.note else (),
    )


EXERCISE = Exercise(
    id="21.18",
    title="Beam Search vs. Sampling",
    answer=answer,
    recipes=(SMALL_LONG,),
    sources=("main", "pretrained"),
    numbers={
        "smoke": {"prompts": 3, "new": 40, "runs": 3, "heldout": 512},
        "laptop": {"prompts": 10, "new": 200, "runs": 10, "heldout": 2_048},
        "gpu": {"prompts": 10, "new": 200, "runs": 10, "heldout": 32_768},
    },
    seconds={"smoke": 5, "laptop": 120, "gpu": 120},
)
