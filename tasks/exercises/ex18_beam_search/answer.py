"""Tables, figures, samples and checks of 21.18; the text is in answer.md."""

import itertools
import math
from collections.abc import Callable, Sequence

from minigpt.evaluation.statistics import Comparison, compare_paired, mean_std
from reports.answers import Draft
from reports.live.listings import listing
from reports.types import Block, Cell, Check, Figure, Sample, Series, Table
from reports.words import plural
from tasks.comparison import least
from tasks.exercises.ex18_beam_search.findings import (
    BEAM,
    BEAMS,
    COOL,
    GREEDY,
    HUMAN,
    LETTERED,
    NUCLEUS,
    PLAIN,
    PROMPT,
    RUN,
    TOP_K,
    WIDTHS,
    Findings,
    Strategy,
    Written,
    different,
)
from tasks.nearness import as_low, as_near, few

MEASURES: dict[str, Callable[[Written], Sequence[float]]] = {
    "perplexity": lambda w: w.perplexities,
    "loss (nats/token)": lambda w: w.nats,
    "bits per character": lambda w: w.bits,
    "own loss (nats/character)": lambda w: w.own,
    f"repeated {RUN}-character runs": lambda w: w.repeated,
    "known words": lambda w: w.known,
}
# In the tables of the lettered parts; in the text also human text beside the likeliest, and top-k where it truncates.
INTERVALS = len(MEASURES) * len(LETTERED) + 2


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    blocks: dict[str, Block | Sequence[Block]] = {
        "code": listing(f.source, "minigpt/decoding/beam.py"),
        "strategies": strategies(f),
        "texts": scatter(f),
        "widths": widths(f),
        "large": large(f),
        "large samples": tuple(large_sample(f, strategy) for strategy in (BEAMS[BEAM], TOP_K, PLAIN)),
        "samples": tuple(sample(f, strategy) for strategy in (HUMAN, BEAMS[BEAM], PLAIN)),
    }
    for strategy in LETTERED:
        blocks[strategy.key] = against(f, strategy)
        blocks[f"samples of {strategy.key}"] = (sample(f, BEAMS[BEAM]), sample(f, strategy))
    lowest = min(f.ours, key=lambda w: w.loss)
    nearest = min(f.ours, key=lambda w: abs(w.loss - f.human.loss))
    confidence = f.truncates.confidence
    return Draft(
        blocks=blocks,
        checks=checks(f),
        values={
            "written": [len(w.texts) for w in f.ours],
            "texts": len(different(f.ours)),
            "wider": wider(f),
            "own": compare_paired(f.beam.own, f.of(GREEDY).own),
            "lowest": lowest,
            "lowest_rivals": few(as_low(lowest.nats, {w.name: w.nats for w in f.ours if w is not lowest})),
            "nearest": nearest,
            "nearest_rivals": few(as_near(f.human.nats, {w.name: w.nats for w in f.ours}, nearest.name)),
            "large_rivals": large_rivals(f),
            "by_bits": {s.key: compare_paired(f.beam.bits, f.of(s).bits) for s in LETTERED},
            "intervals": INTERVALS,
            "confidence": confidence,
            "by_chance": (1 - confidence) * INTERVALS,
            "compared": [f.of(strategy) for strategy in (BEAMS[BEAM], *LETTERED, HUMAN)],
            "greedy": f.of(GREEDY),
            "top_k": f.of(TOP_K),
            "nucleus": f.of(NUCLEUS),
            "cool": f.of(COOL),
            "plain": f.of(PLAIN),
            "large_human": f.large(HUMAN),
            "large_top_k": f.large(TOP_K),
            "large_plain": f.large(PLAIN),
            "large_beam": f.large(BEAMS[BEAM]),
            "large_nucleus": f.large(NUCLEUS),
            "k": TOP_K.options["top_k"],
            "temperature": COOL.options["temperature"],
            "beam_width": BEAM,
            "widths": WIDTHS,
            "prompt_length": PROMPT,
            "run": RUN,
        },
    )


def strategies(f: Findings) -> Table:
    """One row per strategy."""
    rows: list[tuple[Cell, ...]] = []
    for w in f.written.values():
        again = (w.runs[0], None if w.key == HUMAN.key else w.runs[1])
        rows.append(
            (
                w.name,
                *mean_std(w.perplexities),
                *again,
                w.bits_per_character,
                w.own_loss,
                w.repeats,
                w.distinct,
                w.known_words,
            )
        )
    columns = (
        "text",
        "perplexity",
        "± std over prompts",
        "perplexity after the first prompt",
        "± std over its runs",
        "bits per character",
        "own loss (nats/character)",
        f"repeated {RUN}-character runs",
        "distinct word bigrams",
        "known words",
    )
    caption = (
        f"All strategies. Perplexity and bits per character under {f.judge}, means over {len(f.prompts)} "
        f"texts; after the first prompt, means over {plural(f.runs, 'run')} of each sampler. Own loss is "
        "under the mini-GPT that wrote them. Repeated runs occurred before in the same text; distinct "
        "bigrams are of all texts together; known words occur in the training text."
    )
    return Table(columns, tuple(rows), caption, "strategies")


def scatter(f: Findings) -> Figure:
    """Perplexity and repetition of every text."""
    shown = (HUMAN, BEAMS[BEAM], *LETTERED, PLAIN)
    series = tuple(Series(s.name, f.of(s).perplexities, f.of(s).repeated) for s in shown)
    caption = "Every text by its perplexity and by what it repeats of itself."
    labels = (f"perplexity under {f.judge}", f"repeated {RUN}-character runs (share)")
    return Figure("scatter", series, *labels, caption, x_log=True)


def widths(f: Findings) -> tuple[Figure, ...]:
    """Loss and repetition over K."""
    rows, x = f.by_width, (1, *WIDTHS)
    judge = tuple(w.bits_per_character * math.log(2) for w in rows)
    losses = (
        Series("under the mini-GPT", x, tuple(w.own_loss for w in rows), tuple(mean_std(w.own)[1] for w in rows)),
        Series(f"under {f.judge}", x, judge, tuple(mean_std(w.bits)[1] * math.log(2) for w in rows)),
    )
    means, spreads = zip(*(mean_std(w.repeated) for w in rows), strict=True)
    repeated = Series("beam search", x, means, spreads)
    human = ((f.human.repeats, "human text"),)
    spread = "Mean and standard deviation over prompts."
    return (
        Figure("line", losses, "K", "loss (nats/character)", f"Loss of the text found by a beam of width K. {spread}"),
        Figure(
            "line",
            (repeated,),
            "K",
            f"repeated {RUN}-character runs (share)",
            f"Repetition in the text found by a beam of width K. {spread}",
            hlines=human,
        ),
    )


def sample(f: Findings, strategy: Strategy) -> Sample:
    """The first text of a strategy."""
    w = f.of(strategy)
    note = f"perplexity {w.perplexities[0]:.1f}, own loss {w.own[0]:.2f} nats/character, {w.repeated[0]:.0%} repeated"
    return Sample(strategy.name, f.prompts[0], w.texts[0], note)


def large(f: Findings) -> Table:
    """The strategies on the pretrained model."""
    rows: list[tuple[Cell, ...]] = [
        (w.name, *mean_std(w.nats), w.perplexity, *mean_std(w.repeated), w.distinct, w.real_words, w.kept, w.removed)
        for w in f.by_pretrained.values()
    ]
    columns = (
        "text",
        "loss (nats/token)",
        "± std over prompts",
        "perplexity",
        "repeated 4-grams",
        "± std over prompts, 4-grams",
        "distinct word bigrams",
        "real words",
        "tokens kept",
        "probability removed",
    )
    human = f.large(HUMAN)
    caption = (
        f"The same strategies, written by {f.judge}, of {f.pretrained_vocabulary:,} tokens; loss under itself. "
        f"{plural(len(human.texts), 'text')} each. What a sampler keeps and removes is measured on what people wrote; "
        "tokens that tie with the k-th are kept."
    )
    return Table(columns, tuple(rows), caption, "pretrained_strategies")


def large_rivals(f: Findings) -> dict[str, str]:
    """Strategies of the pretrained model that cannot be told from those nearest to people, by loss and repetition."""
    people, (by_loss, by_repeats) = f.large(HUMAN), f.nearest_to_people
    own = [w for key, w in f.by_pretrained.items() if key != HUMAN.key]
    return {
        "loss": few(as_near(people.nats, {w.name: w.nats for w in own}, by_loss.name)),
        "repeats": few(as_near(people.repeated, {w.name: w.repeated for w in own}, by_repeats.name)),
    }


def large_sample(f: Findings, strategy: Strategy) -> Sample:
    """The first text that the pretrained model wrote by a strategy."""
    w = f.large(strategy)
    note = f"loss {w.nats[0]:.2f} nats/token, {w.repeated[0]:.0%} of its 4-grams repeated"
    return Sample(f"{f.judge}: {w.name}", f.pretrained_prompt, w.texts[0], note)


def against(f: Findings, strategy: Strategy) -> Table:
    """Beam search against one strategy."""
    rows: list[tuple[Cell, ...]] = []
    for label, values in MEASURES.items():
        change = compare_paired(values(f.beam), values(f.of(strategy)))
        interval = change.interval if math.isfinite(change.std_error) else (None, None)
        rows.append((label, *change.baseline, *change.other, change.difference, *interval, change.verdict))
    beam = BEAMS[BEAM].name
    columns = (
        "measure",
        beam,
        f"± std, {beam}",
        strategy.name,
        f"± std, {strategy.name}",
        "difference",
        "95 % from",
        "95 % to",
        "verdict",
    )
    caption = (
        f"{strategy.name} against {beam}. Difference: {strategy.name} minus beam search, with Student's interval for "
        f"its mean, paired over {len(f.prompts)} prompts."
    )
    return Table(columns, tuple(rows), caption[0].upper() + caption[1:], strategy.key)


def checks(f: Findings) -> tuple[Check, ...]:
    """The search and the score against other ways to them, then what the literature expects."""
    a = f.accuracy
    wide = "5 tokens, 4 steps, a wide beam"
    return (
        Check.equal(
            f"{wide}: finds the best of all {a.exhaustive} texts, as exhaustive search does", a.best_found, True
        ),
        Check.at_most(f"{wide}: log-probabilities of the {a.listed} best (nats)", a.listed_gap, 1e-4),
        Check.equal(
            f"texts of Transformers' generate(num_beams={BEAM}), of {a.searches}", a.as_transformers, a.searches
        ),
        Check.equal("a beam of width 1 writes what greedy decoding writes", a.width_1_is_greedy, True),
        Check.equal("beam search writes the same text when it is run again", a.same_again, True),
        Check.close(
            "log-probability that the search reports, against reading its text without a cache (nats)",
            a.reported,
            a.reread,
            1e-2,
        ),
        Check.close(
            f"loss under {f.judge} against its own, prompt masked (nats/token)", a.judged, a.judged_by_labels, 1e-3
        ),
        *empirical_checks(f),
    )


def wider(f: Findings) -> Comparison:
    """Own loss of each beam against the next wider one, nats per character: the least gain."""
    return least([compare_paired(after.own, before.own) for before, after in itertools.pairwise(f.by_width)])


def empirical_checks(f: Findings) -> tuple[Check, ...]:
    """What the literature expects."""
    samplers = [f.of(strategy) for strategy in (TOP_K, NUCLEUS, COOL, PLAIN)]
    claims = {
        "a wider beam finds likelier text at every step from K = 1 on (nats/character)": wider(f),
        "human text is less likely under the mini-GPT than what beam search finds (nats/character)": (
            compare_paired(f.beam.own, f.human.own)
        ),
        "beam search has a lower loss under the pretrained model than every sampler (nats/token)": (
            least([compare_paired(f.beam.nats, w.nats) for w in samplers])
        ),
        "beam search repeats more than every sampler (Holtzman et al., 2020; share of runs)": (
            least([compare_paired(w.repeated, f.beam.repeated) for w in samplers])
        ),
    }
    return tuple(Check.beyond_noise(f"{claim}: least difference", found, "higher") for claim, found in claims.items())
