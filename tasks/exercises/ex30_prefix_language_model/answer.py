"""Tables, figures, samples and checks of 21.30; the text is in answer.md."""

from dataclasses import replace

from minigpt.evaluation.statistics import Comparison, binomial_interval, compare_paired, mean_std
from reports.answers import Draft
from reports.live.listings import listing
from reports.types import Cell, Check, Figure, Heatmap, Mask, Sample, Series, Table
from reports.words import shown_text, verdict
from tasks.comparison import curves, table
from tasks.exercises.ex30_prefix_language_model.findings import WRONG, Completion, Findings, trained_targets


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    chance = 1 / (1 + WRONG)
    by_chance = [count / f.windows for count in binomial_interval(f.windows, chance)]
    return Draft(
        blocks={
            "mask": listing(f.mask_source, "minigpt/masks.py"),
            "masks": tuple(picture(f, prefix) for prefix in f.masks),
            "set": to_set(f),
            "objective": listing(f.objective_source, "minigpt/objectives.py"),
            "losses": losses(f),
            "suffix": suffix(f),
            "trained": table(
                f.rows,
                name="trained",
                caption="All as plain causal language models, on every token: what the prefix model gives up.",
            ),
            "curves": curves(f.rows, caption="Validation loss under the causal mask in training."),
            "distance": distance(f),
            "choices": choices(f),
            "words": words(f),
            "samples": tuple(sample(f, one) for one in f.completions),
        },
        checks=checks(f),
        values={
            "share_of_targets": trained_targets(f.context),
            "fewer": fewer_targets(f),
            "wrong": WRONG,
            "chance": chance,
            "by_chance": by_chance,
            "guessing": [
                f"the {label} model"
                for label, shares in f.choices.items()
                if by_chance[0] <= mean_std(shares)[0] <= by_chance[1]
            ],
        },
    )


def fewer_targets(f: Findings) -> Comparison:
    """The control against the causal model at half of the context; no verdict unless both beat the bigram."""
    causal, control = (f.losses[reading][f.half] for reading in ("causal model", "control"))
    found = compare_paired(causal, control)
    learned = max(*causal, *control) < f.rows[0].baselines.bigram
    return found if learned else replace(found, verdict="untrained")


def picture(f: Findings, prefix: int) -> Heatmap:
    """The mask of one prefix."""
    mask = f.masks[prefix]
    values = tuple(tuple(1.0 if seen else None for seen in row) for row in mask)
    length, names = len(mask), tuple(map(str, range(len(mask))))
    caption = {0: "P = 0, the causal mask.", length: f"P = {length}, full attention."}.get(prefix, f"P = {prefix}.")
    return Heatmap(values, "key", "query", caption, names, names)


def to_set(f: Findings) -> Mask:
    """The prefix to set, from one that is neither nothing nor everything."""
    prefix = sorted(f.masks)[len(f.masks) // 2]
    return Mask(len(f.masks[prefix]), ("length", "prefix"), prefix=prefix, caption="The prefix to set: who sees whom.")


def losses(f: Findings) -> Figure:
    """Loss on the suffix by prefix, one line per reading."""
    series = []
    for reading, by in f.losses.items():
        means, spreads = zip(*map(mean_std, by.values()), strict=True)
        series.append(Series(reading, tuple(map(float, by)), means, spreads if len(f.rows[0].losses) > 1 else ()))
    return Figure(
        "line",
        tuple(series),
        "prefix length P (tokens)",
        "loss on the suffix (nats/token)",
        "Loss on what follows the prefix, mean ± standard deviation over seeds. Targets differ between prefixes, "
        "not between readings.",
    )


def suffix(f: Findings) -> Table:
    """The same as numbers, with verdicts."""
    rows: list[tuple[Cell, ...]] = []
    for prefix in f.losses["causal model"]:
        means = (mean_std(by[prefix])[0] for by in f.losses.values())
        verdicts = (verdict(f.against(other, prefix)) for other in ("causal model", "control"))
        rows.append((prefix, f.context + 1 - prefix, *means, *verdicts))
    columns = ("prefix P", "targets per window", *f.losses, "prefix against causal", "prefix against control")
    return Table(
        columns,
        tuple(rows),
        "Nats per suffix token, mean over seeds; verdicts by intervals of pairs that share their seed, none "
        "corrected for there being several.",
        "suffix",
    )


def distance(f: Findings) -> Figure:
    """Loss by distance from the paragraph."""
    series = (
        Series(f"{label} model", tuple(float(step) for step in range(1, len(means) + 1)), means)
        for label, means in f.by_distance.items()
    )
    return Figure(
        "line",
        tuple(series),
        "tokens after the paragraph",
        "loss (nats/token)",
        f"Loss by distance from a paragraph of {f.half} tokens, mean over {f.windows} paragraphs and seeds.",
    )


def choices(f: Findings) -> Table:
    """Right choices of each model."""
    rows = tuple(
        (label, seed, share)
        for label, shares in f.choices.items()
        for seed, share in zip(f.seeds[label], shares, strict=True)
    )
    caption = f"{1 + WRONG} continuations for each of {f.windows} paragraphs of {f.half} tokens."
    return Table(("model", "seed", "share of right choices"), rows, caption, "choices")


def words(f: Findings) -> Table:
    """Completed words."""
    rows: list[tuple[Cell, ...]] = []
    for label in f.words.after_all:
        shares = (f.words.after_all[label], f.words.after_little[label])
        several = len(shares[0]) > 1
        cells = [cell for values in shares for cell in (mean_std(values)[0], mean_std(values)[1] if several else None)]
        rows.append((label, *cells, f.words.paragraph(label).difference))
    columns = (
        "model",
        "given all before",
        "± std",
        f"given {f.words.given} tokens",
        "± std, given little",
        "the rest is worth",
    )
    caption = (
        f"Share of {f.words.count:,} words of at least {f.words.shortest} letters after the paragraph that the greedy "
        "continuation gets right to the last letter; mean over seeds."
    )
    return Table(columns, tuple(rows), caption, "words")


def sample(f: Findings, one: Completion) -> Sample:
    """A paragraph as one model continues it."""
    note = f"temperature {f.temperature:g}, seed {one.seed}; the original goes on: “{shown_text(one.original)}”"
    return Sample(f"Paragraph {one.paragraph}, {one.model} model", one.prompt, one.text, note)


def checks(f: Findings) -> tuple[Check, ...]:
    """The claims."""
    found = f.limits
    return (
        Check.equal("P = 0 gives the logits of the causal mask (max difference)", found.causal, 0.0),
        Check.equal("P = T gives the logits of full attention (max difference)", found.full, 0.0),
        Check.equal("scored predictions that change with their own target", found.leaking, 0),
        Check.at_least(
            f"of {f.limits_prefix - 1} predictions inside the prefix, those that do: they are not scored",
            found.inside,
            1,
        ),
        Check.equal("cached completion ≠ reading all again for each token (tokens)", found.cached, 0),
        Check.close(
            "P = 1 is the causal model: both readings of the prefix model score alike (nats)",
            f.losses["prefix model"][1][0],
            f.losses["prefix model, read causally"][1][0],
            1e-6,
        ),
        Check.beyond_noise(
            f"at P = {f.half} the prefix model predicts the suffix better than the causal one",
            f.against_causal,
            "lower",
        ),
    )
