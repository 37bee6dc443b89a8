"""Tables, samples and checks of 21.10; the text is in answer.md."""

from dataclasses import replace

from minigpt.cost import published
from minigpt.evaluation.statistics import Comparison, compare_paired, holm
from minigpt.evaluation.statistics import mean_std as mean_and_std
from reports.answers import Draft
from reports.types import Cell, Check, Sample, Table
from reports.words import mean_std
from tasks.exercises.ex10_causal_bidirectional.findings import PAIRS, TASKS, Findings, Gap
from tasks.nearness import as_low

FEATURES = (
    "letter counts",
    "untrained, mean",
    "causal, mean",
    "causal, last",
    "causal, own loss",
    "masked, mean",
    "masked, last",
)
ACCURACIES = tuple(f"accuracy: {name}" for name in TASKS)


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    masked, left, scored = f.gaps.values()
    scoring, one_side, gained = ways(f)
    return Draft(
        blocks={
            "generation": generation(f),
            "written": tuple(Sample(one.way, one.prompt, one.text, "temperature 1") for one in f.written),
            "classification": classification(f),
            "gaps": gaps(f),
            "twice": twice(f),
            "sizes": sizes(f),
        },
        checks=checks(f),
        values={
            "pairs": PAIRS,
            "masked_writes": mean_and_std(f.next["masked"])[0],
            "probes": readers(f),
            "averaged_serve": {kind: averaged_serve(f, kind) for kind in ("causal", "masked")},
            "own": [f"{f.mean_accuracy(name, 'causal, own loss'):.3f} on {name}" for name in f.tasks],
            "scoring": judged(scoring, past_bigram(f, masked, scored)),
            "rivals": rivals(f),
            "one_side": one_side,
            "gained": judged(gained, past_bigram(f, left, scored)),
            "twice": {
                name: judged(c, f.learned) for name, c in f.probes("half, read once", "half, read twice").items()
            },
            "superglue": published.SUPERGLUE,
            "wic": {"few-shot": published.WIC_FEW_SHOT, "chance": published.WIC_CHANCE},
            "of_sizes": [of_sizes(f, name) for name in f.tasks],
            "not_applying": [name for name in TASKS if name not in f.tasks],
            "steps": ", ".join(f"{model.recipe} {model.steps}" for model in (f.causal, *f.larger.values())),
        },
    )


def ways(f: Findings) -> list[Comparison]:
    """Filling a gap: scoring against the masked model, the left side alone against it, scoring against the left."""
    masked, left, scored = f.gaps.values()
    pairs = ((masked, scored), (masked, left), (left, scored))
    return holm([compare_paired(one.nats, other.nats) for one, other in pairs])


def readers(f: Findings) -> dict[str, Comparison]:
    """Probes of the masked model against those of the causal one, by task."""
    learned = f.learned and past_bigram(f, next(iter(f.gaps.values())))
    return {name: judged(c, learned) for name, c in f.probes("causal, mean", "masked, mean").items()}


def averaged_serve(f: Findings, kind: str) -> bool:
    """Whether a model's averaged states say more than its last one, on every task."""
    found = [compare_paired(f.accuracy[name][f"{kind}, last"], f.accuracy[name][f"{kind}, mean"]) for name in f.tasks]
    return {c.verdict for c in holm(found)} == {"higher"}


def judged(c: Comparison, learned: bool) -> Comparison:
    """The comparison, without a verdict where models have not learned enough to have an opinion."""
    return c if learned or c.verdict == "one seed" else replace(c, verdict="untrained")


def past_bigram(f: Findings, *gaps: Gap) -> bool:
    """Whether these ways of filling a gap are better than the bigram, which sees one character, with every seed."""
    return max(loss for gap in gaps for loss in gap.nats) < f.baselines.bigram


def rivals(f: Findings) -> list[str]:
    """Ways of filling a gap that cannot be told from the one of the lowest loss; corrected for their number."""
    others = {way: gap.nats for way, gap in f.gaps.items() if way != f.best_way}
    return [f"“{way}”" for way in as_low(f.gaps[f.best_way].nats, others)]


def generation(f: Findings) -> Table:
    """Writing."""
    return Table(
        columns=("model", "next character (nats)", "passes to score T characters", "to write one more"),
        rows=(
            ("causal", mean_std(f.next["causal"]), "1", "1 token, with a cache"),
            ("masked", mean_std(f.next["masked"]), "T", "all tokens again"),
        ),
        caption=f"Next-character loss from a quarter of the window on, windows of {f.length} characters, mean ± std",
        name="generation",
    )


def classification(f: Findings) -> Table:
    """Probes."""
    return Table(
        columns=("features", *ACCURACIES),
        rows=tuple((features, *(accuracy_cell(f, name, features) for name in TASKS)) for features in FEATURES),
        caption="Accuracy of linear probes on validation text, mean ± standard deviation over seeds. “mean” and "
        "“last” are the states averaged over the window and the last one, “own loss” is one number",
        name="classification",
    )


def accuracy_cell(f: Findings, task: str, features: str) -> str:
    """Mean and deviation over seeds; letter counts depend on none."""
    values = f.accuracy[task][features]
    return f"{values[0]:.3f}" if features == "letter counts" else mean_std(values)


def gaps(f: Findings) -> Table:
    """Ways of filling a gap."""
    passes = {"masked, both sides": "1", "causal, left side only": "1"}
    return Table(
        columns=("way", "right characters", "loss (nats)", "passes per gap"),
        rows=tuple(
            (way, mean_std(gap.accuracy), mean_std(gap.nats), passes.get(way, str(f.vocab_size)))
            for way, gap in f.gaps.items()
        ),
        caption="A missing character in the middle of held-out windows, mean ± standard deviation over seeds",
        name="gaps",
    )


def twice(f: Findings) -> Table:
    """One reading and two."""
    return Table(
        columns=("reading", *ACCURACIES),
        rows=tuple(
            (features.removeprefix("half, "), *(mean_std(f.accuracy[name][features]) for name in TASKS))
            for features in ("half, read once", "half, read twice", "half, masked")
        ),
        caption=f"Linear probes on windows of {f.length // 2} characters, mean ± standard deviation over seeds",
        name="twice",
    )


def sizes(f: Findings) -> Table:
    """Larger causal models beside the masked one."""
    rows: list[tuple[Cell, ...]] = [
        (f"masked, {f.masked.size}", None, *(f.mean_accuracy(name, "masked, mean") for name in TASKS)),
        (f"causal, {f.causal.size}", f.causal.loss, *(f.mean_accuracy(name, "causal, mean") for name in TASKS)),
    ]
    for label, model in f.larger.items():
        accuracies = (f.accuracy[name][f"causal {label}, mean"][0] for name in TASKS)
        rows.append((f"causal, {model.size}", model.loss, *accuracies))
    rows += [("bigram", f.baselines.bigram, *[None] * len(TASKS))]
    rows += [(f"{f.baselines.n}-gram", f.baselines.ngram, *[None] * len(TASKS))]
    return Table(
        columns=("model, parameters", "next-character loss (nats)", *ACCURACIES),
        rows=tuple(rows),
        caption="Linear probes on averaged states of causal models of several sizes, and of the masked model; losses "
        "on the whole validation split, under the causal mask",
        name="sizes",
    )


def of_sizes(f: Findings, task: str) -> dict[str, str | float | list[str]]:
    """Accuracies on a task, of the larger causal models that of the best language model."""
    best = min(f.larger, key=lambda name: f.larger[name].loss)
    found = {name: f.accuracy[task][f"causal {name}, mean"][0] for name in f.larger}
    most = max(found.values())
    return {
        "task": task,
        "masked": f.mean_accuracy(task, "masked, mean"),
        "causal": f.mean_accuracy(task, "causal, mean"),
        "larger": found[best],
        "top": [f.larger[name].recipe for name in found if found[name] == most],
        "most": most,
    }


def checks(f: Findings) -> tuple[Check, ...]:
    """What the models can see, equal sizes, equal letters, Bayes' rule; and the textbook's expectations."""
    causal, both = f.leaks
    probes = readers(f)
    result = [
        Check.equal("causal model: earlier states that change with the last token", causal, 0),
        Check.equal("masked model: earlier states that change with the last token", both, f.length - 1),
        Check.equal("parameters: masked minus causal", f.masked.parameters - f.causal.parameters, 0),
        Check.at_most("a gap by scoring against whole texts scored one by one (nats)", f.scoring_error, 1e-3),
    ]
    for name in TASKS:
        claim = f"{name}: corruption changes no letter count (largest difference)"
        result.append(Check.at_most(claim, f.moved[name], 1e-12))
        if name not in f.tasks:
            continue
        claim = f"{name}: probe accuracy of the masked model minus that of the causal one"
        result.append(Check.beyond_noise(claim, probes[name], "higher"))
    return (
        *result,
        Check.beyond_noise("next character: masked loss minus causal loss (nats)", f.writing, "higher"),
        Check.beyond_noise("gap: loss by scoring minus loss from the left (nats)", ways(f)[2], "lower"),
    )
