"""Exercise 21.19: the repetition penalty, on sampled and on greedy text, and what it costs."""

import functools
import inspect
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minigpt.decoding.penalties import banned, repetition_penalty
from minigpt.decoding.recording import Recorder
from minigpt.decoding.sampling import Processor, Sampling
from minigpt.evaluation.diversity import ngrams, repetition
from minigpt.evaluation.excerpts import spread_starts
from minigpt.evaluation.statistics import Comparison, compare_paired, mean_std
from minigpt.evaluation.words import share_of_real_words, words
from minigpt.pretrained.causal_lm import continue_text, losses_under
from minigpt.pretrained.limits import context_of
from reports.types import Answer, Block, Cell, Check, Code, Figure, Part, Prose, Sample, Series, Table
from tasks.exercise import Context, Exercise

ALPHAS = {"a": (1.0, "No penalty"), "b": (1.2, "Mild"), "c": (1.5, "Strong"), "d": (2.0, "Aggressive")}
NGRAMS = {2: "bigrams", 3: "trigrams", 4: "4-grams"}
SAMPLED, GREEDY, HUMAN = "sampled", "greedy", "human"
TEMPERATURES = {SAMPLED: 1.0, GREEDY: 0.0}
STRENGTHS = tuple(alpha for alpha, _ in ALPHAS.values())


@dataclass(frozen=True)
class Lab:
    """The model, the prompts, and how people went on."""

    model: Any
    tokenizer: Any
    rows: Tensor  # (N, length + n_new): prompts with their human continuation
    length: int  # of a prompt, tokens
    n_new: int
    known: frozenset[str]  # words


@dataclass(frozen=True)
class Written:
    """Continuations of all prompts by one way to write; one value per text."""

    key: str  # SAMPLED, GREEDY or HUMAN
    alpha: float
    prompts: tuple[str, ...]
    texts: tuple[str, ...]
    repeated: Mapping[int, tuple[float, ...]]  # n -> share of n-grams that occurred before in the continuation
    seen: tuple[float, ...]  # share of tokens that occurred before, in the prompt or the continuation
    nats: tuple[float, ...]  # mean loss under the model without penalty, per token
    real: tuple[float, ...]  # share of words that are known

    @property
    def perplexity(self) -> float:
        """Of all texts together."""
        return math.exp(mean_std(self.nats)[0])

    def share(self, n: int) -> float:
        """Mean share of repeated n-grams."""
        return mean_std(self.repeated[n])[0]


def shares(n: int) -> Callable[[Written], Sequence[float]]:
    """Repeated n-grams, as a measure."""
    return lambda w: w.repeated[n]


def nats(w: Written) -> Sequence[float]:
    """Loss, as a measure."""
    return w.nats


def prepare(context: Context) -> Lab:
    """Cut prompts out of the held-out text, each from the beginning of a word."""
    pretrained, n = context.pretrained(), context.numbers
    tokenizer, text = pretrained.tokenizer, context.text()
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    room = min(context_of(pretrained.model), len(offsets) // 2)
    length = min(n["prompt"], room // 4)
    n_new = min(n["tokens"], room - length)
    last = offsets[len(offsets) - length - n_new - 8][0]  # some tokens to spare: text cut elsewhere has others
    starts = spread_starts(text, n["samples"], last)
    rows = [tokenizer(text[start:], add_special_tokens=False)["input_ids"][: length + n_new] for start in starts]
    bpe = context.bpe()
    pieces = (bpe.decode([token]) for token in range(bpe.vocab_size))
    whole = {piece[1:].lower() for piece in pieces if piece[:1] == " " and piece[1:].isalpha()}
    known = frozenset(whole.union(words(context.text("train"))))
    return Lab(pretrained.model, tokenizer, torch.tensor(rows, device=context.device), length, n_new, known)


# --- Writing ----------------------------------------------------------------------------------------------------


def write(context: Context, lab: Lab, key: str, start: float) -> dict[str, Any]:
    """All α in one batch: tokens (α · N, length + n_new) and their losses under the model, as plain JSON."""
    done = 0

    def tell(_: Tensor, logits: Tensor) -> Tensor:
        nonlocal done
        done += 1
        context.progress(start + 0.4 * done / lab.n_new, f"{key}: token {done} of {lab.n_new} of each text")
        return logits

    alphas = torch.tensor(STRENGTHS).repeat_interleave(len(lab.rows))
    recorder = Recorder()
    tokens = continue_text(
        lab.model,
        lab.rows[:, : lab.length].repeat(len(ALPHAS), 1),
        lab.n_new,
        sampling=Sampling(TEMPERATURES[key]),
        generator=context.generator(key),
        processors=(tell, recorder, repetition_penalty(alphas), banned(special(lab))),
    )
    return {"tokens": tokens.tolist(), "losses": recorder.losses(tokens).tolist()}


def special(lab: Lab) -> list[int]:
    """Tokens that end a text or mark up a conversation: they are banned, for all texts to have the same length."""
    return sorted(lab.tokenizer.all_special_ids)


def measured(lab: Lab, key: str, alpha: float, tokens: Sequence[list[int]], losses: Sequence[list[float]]) -> Written:
    """All measures of the continuations."""
    decode = lab.tokenizer.decode
    new = [row[lab.length :] for row in tokens]
    texts = tuple(decode(row) for row in new)
    return Written(
        key=key,
        alpha=alpha,
        prompts=tuple(decode(row[: lab.length]) for row in tokens),
        texts=texts,
        repeated={n: tuple(repetition(row, n) for row in new) for n in NGRAMS},
        seen=tuple(sum(row[i] in row[:i] for i in range(lab.length, len(row))) / lab.n_new for row in tokens),
        nats=tuple(sum(row) / len(row) for row in losses),
        real=tuple(share_of_real_words([text], lab.known) for text in texts),
    )


def read(lab: Lab) -> dict[str, Any]:
    """The human continuations under the model, as plain JSON: one value per token, text after text.

    ``losses`` per α; ``logits`` of the model itself; ``seen``: did the token occur before?
    """
    seen_logits: list[Tensor] = []

    def note(_: Tensor, logits: Tensor) -> Tensor:
        seen_logits.append(logits)
        return logits

    found: dict[str, Any] = {"losses": [[] for _ in ALPHAS], "logits": [], "seen": []}
    for row in lab.rows:
        seen_logits.clear()
        penalties = [repetition_penalty(alpha) for alpha in STRENGTHS[1:]]
        losses = losses_under(lab.model, row, lab.length, (note, *penalties))
        for per_alpha, values in zip(found["losses"], losses.tolist(), strict=True):
            per_alpha += values
        targets = row[lab.length :, None]
        found["logits"] += torch.cat(seen_logits).gather(1, targets)[:, 0].tolist()
        found["seen"] += [bool((row[:end] == row[end]).any()) for end in range(lab.length, len(row))]
    return found


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    lab: Lab
    name: str  # of the model
    written: Mapping[tuple[str, float], Written]
    human: Written
    reading: Mapping[str, Any]  # see ``read``
    checks: tuple[Check, ...]

    def change(self, key: str, alpha: float, values: Callable[[Written], Sequence[float]]) -> Comparison:
        """Against no penalty, paired over prompts; of no penalty itself, against people."""
        other = self.human if alpha == 1.0 else self.written[key, 1.0]
        return compare_paired(values(other), values(self.written[key, alpha]))

    def human_nats(self, alpha: float, seen: bool | None = None) -> float:
        """Mean loss of the human text under the penalised model, per token; ``seen`` picks those seen before or not."""
        losses = self.reading["losses"][STRENGTHS.index(alpha)]
        chosen = [v for v, flag in zip(losses, self.reading["seen"], strict=True) if seen is None or flag is seen]
        return mean_std(chosen)[0] if chosen else math.nan

    def reading_change(self, alpha: float) -> Comparison:
        """Loss of the human text under the penalised model against that without a penalty, paired over texts."""
        size = self.lab.n_new
        plain, penalised = (
            [mean_std(losses[start : start + size])[0] for start in range(0, len(losses), size)]
            for losses in (self.reading["losses"][STRENGTHS.index(a)] for a in (1.0, alpha))
        )
        return compare_paired(plain, penalised)


def measure(context: Context) -> Findings:
    """Everything the answer rests on."""
    lab = prepare(context)
    context.progress(0.0, "reading the human continuations")
    reading = context.once("human", lambda: read(lab))
    count = len(lab.rows)
    written = {}
    for i, key in enumerate(TEMPERATURES):
        found = context.once(key, functools.partial(write, context, lab, key, 0.1 + 0.4 * i))
        for j, alpha in enumerate(STRENGTHS):
            rows = slice(j * count, (j + 1) * count)
            written[key, alpha] = measured(lab, key, alpha, found["tokens"][rows], found["losses"][rows])
    context.progress(0.9, "checking")
    losses = torch.tensor(reading["losses"][0]).view(count, -1).tolist()
    human = measured(lab, HUMAN, 1.0, lab.rows.tolist(), losses)
    checks = (*penalty_checks(context), *writing_checks(context, lab, found["tokens"][0], found["losses"][0]))
    return Findings(lab, context.pretrained().name, written, human, reading, checks)


# --- Checks -----------------------------------------------------------------------------------------------------


def penalty_checks(context: Context) -> tuple[Check, ...]:
    """The penalty against Transformers' and against its definition."""
    from transformers import RepetitionPenaltyLogitsProcessor

    g = context.generator("parity")
    logits, before = 5 * torch.randn(64, 97, generator=g), torch.randint(97, (64, 60), generator=g)
    held = {alpha: repetition_penalty(alpha)(before, logits) for alpha in STRENGTHS}
    same = all(torch.equal(RepetitionPenaltyLogitsProcessor(a)(before, logits.clone()), held[a]) for a in held)
    rise = max((held[a] - logits).gather(1, before).max().item() for a in STRENGTHS[1:])
    pair = torch.tensor([[3.0, -3.0, 1.0]])
    once = repetition_penalty(2.0)(torch.tensor([[0, 1]]), pair)
    often = repetition_penalty(2.0)(torch.tensor([[0, 1, 0, 0, 1]]), pair)
    return (
        Check.equal("logits = those of Transformers' RepetitionPenaltyLogitsProcessor, every α", same, True),
        Check.equal("α = 1 leaves all logits as they are", torch.equal(held[1.0], logits), True),
        Check.at_most("α > 1: largest rise of the logit of a token that occurred", rise, 0.0),
        Check.equal(
            "at α = 2 the logits 3 and -3 of tokens that occurred become", str(once[0, :2].tolist()), "[1.5, -6.0]"
        ),
        Check.equal("a token that occurred three times is penalised once", torch.equal(once, often), True),
    )


@torch.inference_mode()
def writing_checks(context: Context, lab: Lab, tokens: list[int], losses: list[float]) -> tuple[Check, ...]:
    """What was written and measured, against second ways to do it. ``tokens`` and ``losses`` are of one text."""
    prompt, few = lab.rows[:2, : lab.length], min(8, lab.n_new)

    def sample(*processors: Processor) -> Tensor:
        return continue_text(lab.model, prompt, few, generator=context.generator("α = 1"), processors=processors)

    ids = torch.tensor([tokens], device=lab.rows.device)
    theirs = lab.model(ids, labels=ids.masked_fill(torch.arange(ids.shape[1], device=ids.device) < lab.length, -100))
    new = tokens[lab.length :]
    counts = Counter(ngrams(new, 2))
    return (
        Check.equal(
            "α = 1 gives the samples of no processor", torch.equal(sample(), sample(repetition_penalty(1.0))), True
        ),
        Check.close(
            "loss recorded while writing against the model's own on a second pass, prompt masked (nats/token)",
            sum(losses) / len(losses),
            theirs.loss.item(),
            1e-3,
        ),
        Check.close(
            "repeated bigrams against counting occurrences beyond the first",
            repetition(new, 2),
            sum(count - 1 for count in counts.values()) / counts.total(),
            1e-12,
        ),
        Check.equal("banned tokens written", sum(token in special(lab) for token in new), 0),
    )


def empirical_checks(f: Findings) -> tuple[Check, ...]:
    """What the literature expects."""
    greedy, mild = f.written[GREEDY, 1.0].share(4), f.written[GREEDY, 1.2].share(4)
    claims = {
        "without a penalty greedy text repeats more 4-grams than sampled text (Holtzman et al., 2020), shares": (
            greedy - f.written[SAMPLED, 1.0].share(4)
        ),
        "at α = 1.2, which Keskar et al. (2019) recommend, greedy text repeats no more 4-grams than people, shares": (
            f.human.share(4) - mild
        ),
        "sampled text at α = 2 is less likely than without a penalty, nats/token": (
            f.change(SAMPLED, 2.0, nats).difference
        ),
        "at α = 1.2 the model predicts human text worse than without a penalty, nats/token": (
            f.human_nats(1.2) - f.human_nats(1.0)
        ),
    }
    return tuple(Check.at_least(f"{claim}: difference", value, 0.0, "empirical") for claim, value in claims.items())


# --- The parts --------------------------------------------------------------------------------------------------


def overview(f: Findings) -> Part:
    """The penalty itself, and all results at a glance."""
    return Part(
        "",
        (
            Prose(definition(f)),
            Code(inspect.getsource(repetition_penalty), "minigpt/decoding/penalties.py"),
            overall(f),
            Prose(closest(f)),
            *figures(f),
            *meaning(f),
        ),
        "The penalty, and the four strengths at a glance",
    )


def definition(f: Findings) -> str:
    """What is done, in words and in a formula."""
    lab = f.lab
    return (
        r"The logit $z_i$ of every token $i$ that occurs in the text so far, prompt included, is changed before the "
        r"softmax (Keskar et al., 2019, section 4.1):"
        r"$$z_i' = \begin{cases} z_i / \alpha & z_i \ge 0 \\ \alpha\, z_i & z_i < 0 \end{cases}$$"
        r"The second line is not in the paper. Without it a negative logit would be raised. A token is penalised "
        f"once, however often it occurs.\n\n{f.name} continues {len(lab.rows)} prompts of {lab.length} tokens, evenly "
        f"spread over the held-out text and with no chat template, by {lab.n_new} tokens each: sampled from the whole "
        "distribution at temperature 1, and greedily, since the paper made the penalty for sampling that is nearly "
        "greedy. Tokens that end a text or mark up a conversation are banned, or the samples would differ in "
        f"length. All measures are of the {lab.n_new} new tokens; the first row is what people wrote after the same "
        "prompts."
    )


def overall(f: Findings) -> Table:
    """One row per way to write."""
    rows: list[tuple[Cell, ...]] = []
    for w in (f.human, *f.written.values()):
        shares = [value for n in NGRAMS for value in mean_std(w.repeated[n])]
        label = ("held-out text", None) if w.key == HUMAN else (w.key, w.alpha)
        rows.append((*label, *shares, mean_std(w.seen)[0], *mean_std(w.nats), w.perplexity, mean_std(w.real)[0]))
    columns = (
        *("text", "α"),
        *(column for name in NGRAMS.values() for column in (f"repeated {name}", f"± std, {name}")),
        *("tokens seen before", "loss (nats/token)", "± std, loss", "perplexity", "real words"),
    )
    caption = (
        "Repetition and its price. Share of n-grams that occurred before in the continuation, mean and standard "
        f"deviation over {len(f.lab.rows)} texts. Tokens seen before occurred in the prompt or the continuation. "
        "Loss under the model without penalty, of the new tokens only; the perplexity is its exponential. Real words "
        "stand in the training text or are, with a space before them, a token of GPT-2's vocabulary."
    )
    return Table(columns, tuple(rows), caption, "overview")


def closest(f: Findings) -> str:
    """Which α writes most like people, by two measures."""
    said = []
    for key in TEMPERATURES:
        repeats = min(STRENGTHS, key=lambda alpha: abs(f.written[key, alpha].share(4) - f.human.share(4)))
        likely = min(STRENGTHS, key=lambda alpha: abs(mean_std(f.written[key, alpha].nats)[0] - f.human_nats(1.0)))
        said.append(f"of {key} text, α = {repeats:g} by repeated 4-grams and α = {likely:g} by loss")
    return f"Closest to what people wrote: {'; '.join(said)}."


def figures(f: Findings) -> tuple[Figure, ...]:
    """Repetition over α, its price over α, and one against the other."""
    found: list[Figure] = []
    for key in TEMPERATURES:
        series = tuple(curve(name, [f.written[key, a].repeated[n] for a in STRENGTHS]) for n, name in NGRAMS.items())
        lines = tuple((f.human.share(n), f"{name}, human") for n, name in NGRAMS.items() if n != 3)
        caption = f"Repetition in {key} text over α. Mean and standard deviation over texts."
        found.append(Figure("line", series, "α", "repeated n-grams (share)", caption, hlines=lines))
    price = [curve(f"{key} text", [f.written[key, a].nats for a in STRENGTHS]) for key in TEMPERATURES]
    reader = tuple(f.human_nats(a) for a in STRENGTHS)
    price.append(Series("human text, read by the penalised model", STRENGTHS, reader))
    human = ((reader[0], "human text"),)
    caption = "The price. Loss of the text under the model without penalty, mean and standard deviation over texts."
    found.append(Figure("line", tuple(price), "α", "loss (nats/token)", caption, hlines=human))
    path = [
        Series(
            f"{key}: {f.written[key, 1.0].perplexity:,.3g} at α = 1, {f.written[key, 2.0].perplexity:,.3g} at α = 2",
            tuple(mean_std(f.written[key, a].seen)[0] for a in STRENGTHS),
            tuple(f.written[key, a].perplexity for a in STRENGTHS),
        )
        for key in TEMPERATURES
    ]
    path.append(Series("human", (mean_std(f.human.seen)[0],), (f.human.perplexity,)))
    caption = "The trade-off. A point for each α, joined in their order."
    labels = ("tokens that occurred before (share)", "perplexity without penalty")
    return (*found, Figure("line", tuple(path), *labels, caption, y_log=True))


def curve(name: str, values: Sequence[Sequence[float]]) -> Series:
    """Mean and standard deviation over texts, per α."""
    means, spreads = zip(*map(mean_std, values), strict=True)
    return Series(name, STRENGTHS, means, spreads)


def meaning(f: Findings) -> tuple[Block, ...]:
    """Why α means something else for every model, and what the penalty does to human text."""
    logits = f.reading["logits"]
    positive = sum(logit >= 0 for logit in logits) / len(logits)
    change = f.reading_change(1.2)
    does = {"lower": "lowers the model's loss", "higher": "raises the model's loss"}.get(
        change.verdict, "changes the model's loss by no more than noise"
    )
    patch = ": a patch of the decoding, not a better model of the language" if change.verdict == "higher" else ""
    low, high = (f"{value:+.2f}".replace("-", "−") for value in change.interval)
    text = (
        "**What α means depends on the model.** Adding a constant to all logits leaves the softmax as it is, but "
        f"not what the penalty makes of it. In {f.name} the logit of the token that comes next in the human text is "
        f"{mean_std(logits)[0]:.1f} on average, and positive for {positive:.0%} of them. In another model the same α "
        f"is another penalty. And people repeat tokens: {mean_std(f.human.seen)[0]:.0%} of theirs occurred before. "
        f"On human text α = 1.2 {does}: {f.human_nats(1.0):.2f} nats per token without it, "
        f"{f.human_nats(1.2):.2f} with it (95 % interval of the change over texts {low} to {high}){patch}."
    )
    rows = tuple(
        (
            alpha,
            *(
                None if math.isnan(value) else value
                for value in (f.human_nats(alpha, True), f.human_nats(alpha, False))
            ),
            f.human_nats(alpha),
            math.exp(f.human_nats(alpha)),
        )
        for alpha in STRENGTHS
    )
    columns = ("α", "loss of tokens seen before", "loss of other tokens", "loss (nats/token)", "perplexity")
    caption = f"Human text read by the penalised model: {len(logits):,} tokens after the same prompts."
    return Prose(text), Table(columns, rows, caption, "human_text")


def part(f: Findings, letter: str) -> Part:
    """One strength, against no penalty; no penalty itself against people."""
    alpha, name = ALPHAS[letter]
    against = "human text" if alpha == 1.0 else "no penalty"
    measures: dict[str, Callable[[Written], Sequence[float]]] = {
        **{f"repeated {label}": shares(n) for n, label in NGRAMS.items()},
        "loss without penalty (nats/token)": nats,
        "real words": lambda w: w.real,
    }
    rows: list[tuple[Cell, ...]] = []
    for key in TEMPERATURES:
        for label, values in measures.items():
            change = f.change(key, alpha, values)
            interval = change.interval if math.isfinite(change.std_error) else (None, None)
            row = (key, label, *mean_std(values(f.written[key, alpha])), change.difference, *interval, change.verdict)
            rows.append(row)
    columns = (
        *("text", "measure", "mean", "± std over texts", f"difference from {against}"),
        *("95 % from", "95 % to", "verdict"),
    )
    caption = (
        f"α = {alpha:g} against {against}. Student's interval for the mean difference, paired over "
        f"{len(f.lab.rows)} prompts."
    )
    blocks: list[Block] = [Prose(sentences(f, alpha)), Table(columns, tuple(rows), caption, f"alpha_{alpha:g}")]
    for w in [f.written[key, alpha] for key in TEMPERATURES] + ([f.human] if alpha == 1.0 else []):
        title = "human" if w.key == HUMAN else f"α = {alpha:g}, {w.key}"
        note = f"{w.repeated[4][0]:.0%} of its 4-grams repeated, perplexity {math.exp(w.nats[0]):,.1f}"
        blocks.append(Sample(title, w.prompts[0], w.texts[0], note))
    return Part(letter, tuple(blocks), f"{name} (α = {alpha:g})")


def sentences(f: Findings, alpha: float) -> str:
    """What the data allow to say of one α."""
    sampled, greedy = (f.written[key, alpha] for key in TEMPERATURES)
    portions = [" / ".join(f"{w.share(n):.1%}" for n in NGRAMS) for w in (sampled, greedy, f.human)]
    text = (
        f"Repeated bigrams / trigrams / 4-grams: {portions[0]} of sampled text, {portions[1]} of greedy text"
        f"{f', {portions[2]} of what people wrote' if alpha == 1.0 else ''}. Against "
        f"{'people' if alpha == 1.0 else 'no penalty'}, {than(f, SAMPLED, alpha)}, and {than(f, GREEDY, alpha)}. "
    )
    if alpha == 1.0:
        return text + (
            f"Greedy text has a perplexity of {greedy.perplexity:.2f}, what people wrote one of "
            f"{f.human.perplexity:.1f}, sampled text one of {sampled.perplexity:.1f}."
        )
    return f"{text}{price(f, alpha)}\n\n{verdict(f, alpha)}"


def than(f: Findings, key: str, alpha: float) -> str:
    """Fewer or more repeated 4-grams."""
    change = f.change(key, alpha, shares(4))
    low, high = (f"{100 * value:+.2f}".replace("-", "−") for value in change.interval)
    evidence = "" if change.verdict == "one seed" else f" (95 % interval of the difference: {low} to {high} points)"
    said = {"lower": "repeats fewer 4-grams", "higher": "repeats more 4-grams"}
    return f"{key} text {said.get(change.verdict, 'repeats neither clearly fewer nor clearly more 4-grams')}{evidence}"


def price(f: Findings, alpha: float) -> str:
    """What it costs."""
    said = []
    for key in TEMPERATURES:
        before, after = f.written[key, 1.0], f.written[key, alpha]
        noise = "" if f.change(key, alpha, nats).verdict in ("lower", "higher") else " (which may be noise)"
        said.append(
            f"the perplexity of {key} text goes from {before.perplexity:,.1f} to {after.perplexity:,.1f}{noise}, its "
            f"real words from {mean_std(before.real)[0]:.0%} to {mean_std(after.real)[0]:.0%}"
        )
    return f"The price: {'; '.join(said)}."


def verdict(f: Findings, alpha: float) -> str:
    """Was there anything to cure, and is it cured?"""
    said = []
    for key in TEMPERATURES:
        before = f.change(key, 1.0, shares(4)).verdict
        now = compare_paired(f.human.repeated[4], f.written[key, alpha].repeated[4]).verdict
        more = {"lower": "fewer 4-grams than", "higher": "more 4-grams than"}
        was, has = (more.get(found, "up to noise as many 4-grams as") for found in (before, now))
        said.append(
            f"{key} text, which without a penalty repeats {was} people, {'still' if now == before else 'now'} repeats "
            f"{has} they"
        )
    seen = {key: mean_std(f.written[key, alpha].seen)[0] for key in TEMPERATURES}
    return (
        f"**Verdict.** At α = {alpha:g} {said[0]}; {said[1]}. People take {mean_std(f.human.seen)[0]:.0%} of their "
        f"tokens from what is there already; at this α the sampled text takes {seen[SAMPLED]:.1%} and the greedy one "
        f"{seen[GREEDY]:.1%}."
    )


def answer(context: Context) -> Answer:
    """All parts."""
    f = measure(context)
    metrics: dict[str, float | int] = {"samples": len(f.lab.rows), "new_tokens": f.lab.n_new}
    for w in (f.human, *f.written.values()):
        key = HUMAN if w.key == HUMAN else f"{w.key}_alpha_{w.alpha:g}"
        for n in NGRAMS:
            metrics[f"repeated_{n}grams_share_{key}"], metrics[f"repeated_{n}grams_share_{key}_std"] = mean_std(
                w.repeated[n]
            )
        metrics[f"perplexity_{key}"] = w.perplexity
        metrics[f"loss_{key}_nats"], metrics[f"loss_{key}_nats_std"] = mean_std(w.nats)
        metrics[f"real_words_share_{key}"] = mean_std(w.real)[0]
        metrics[f"seen_before_share_{key}"] = mean_std(w.seen)[0]
    for alpha in STRENGTHS:
        metrics[f"loss_human_text_under_alpha_{alpha:g}_nats"] = f.human_nats(alpha)
    metrics["mean_logit_of_human_tokens"] = mean_std(f.reading["logits"])[0]
    plain, mild = (f.written[GREEDY, alpha] for alpha in (1.0, 1.2))
    summary = (
        f"Repeated 4-grams of greedy text: {plain.share(4):.0%} without a penalty, {mild.share(4):.0%} at α = 1.2, "
        f"{f.written[GREEDY, 2.0].share(4):.0%} at 2; of sampled text {f.written[SAMPLED, 1.0].share(4):.1%} before "
        f"and {f.written[SAMPLED, 1.2].share(4):.1%} at 1.2, where its perplexity goes from "
        f"{f.written[SAMPLED, 1.0].perplexity:,.0f} to {f.written[SAMPLED, 1.2].perplexity:,.0f}."
    )
    note = context.pretrained().note
    return Answer(
        summary=summary,
        parts=(overview(f), *(part(f, letter) for letter in ALPHAS)),
        checks=(*f.checks, *empirical_checks(f)),
        metrics=metrics,
        notes=(note,) if note else (),
    )


EXERCISE = Exercise(
    id="21.19",
    title="Repetition Penalty",
    answer=answer,
    sources=("main", "pretrained", "bpe"),
    numbers={
        "smoke": {"samples": 3, "prompt": 16, "tokens": 32},
        "laptop": {"samples": 10, "prompt": 32, "tokens": 200},
        "gpu": {"samples": 10, "prompt": 32, "tokens": 200},
    },
    seconds={"smoke": 3, "laptop": 225, "gpu": 60},
)
