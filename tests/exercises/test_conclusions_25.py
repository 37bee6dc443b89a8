"""What 21.25 claims follows from intervals of the losses compared, and one comparison is told the same way twice."""

from dataclasses import replace

import pytest

from reports.types import flattened
from tasks.exercises.ex25_rotary_positions.experiment import EXERCISE
from tasks.exercises.ex25_rotary_positions.findings import Extrapolation
from tests.exercise_context import answered, assert_sound, measured


@pytest.fixture(scope="module")
def findings():
    """Of models that beat the bigram, with three seeds."""
    found = measured(EXERCISE)
    rows = [ended(row, (2.0, 2.02, 1.98), (2.3, 2.32, 2.28)) for row in found.variants]
    return replace(found, variants=tuple(rows))


def ended(row, late, early):
    """A variant of as many seeds, whose trainings ended at these losses after all and after the fewest steps."""
    curves = tuple(
        replace(
            row.curves[0],
            seed=seed,
            losses=(*row.curves[0].losses[:-1], end),
            finished_losses=(start, *row.curves[0].finished_losses[1:-1], end),
        )
        for seed, (end, start) in enumerate(zip(late, early, strict=True))
    )
    return replace(row, curves=curves, baselines=replace(row.baselines, bigram=3.0))


def read(rope, restarted, **others) -> Extrapolation:
    """Losses of the last bucket, over the seeds; all before are those of starting again."""
    losses = {"RoPE, restarted": restarted, "RoPE": rope, **others}
    spread = {
        label: tuple((first, first, x) for first, x in zip(restarted, losses[label], strict=True)) for label in losses
    }
    return Extrapolation(bucket=8, context=16, length=24, losses=spread, refusal="no")


def said(findings, part: int) -> str:
    texts = (
        block.text for block in flattened(answered(EXERCISE, findings).parts[part].blocks) if block.type == "prose"
    )
    return " ".join(" ".join(texts).split())


def test_one_page_gives_one_verdict_on_rope(findings):
    """0.1 nats lower with little scatter between the two, while the other variants scatter: not after Holm."""
    learned, rope, *others = findings.variants
    rows = [
        learned,
        ended(rope, (1.9, 1.93, 1.87), (2.3, 2.32, 2.28)),
        *(ended(row, (2.0, 2.2, 1.9), (2.3, 2.32, 2.28)) for row in others),
    ]
    text = said(replace(findings, variants=tuple(rows)), 2)
    assert "RoPE is better at the end of training" not in text
    assert "cannot be told from learned" in text or "not as one of" in text
    assert "Here the end cannot tell them apart" in text


def test_rope_is_better_where_the_comparisons_say_so(findings):
    learned, rope, *others = findings.variants
    rows = [learned, ended(rope, (1.5, 1.521, 1.48), (2.3, 2.32, 2.28)), *others]
    never = {**findings.escapes, rope.label: (None,) * 3}
    text = said(replace(findings, variants=tuple(rows), escapes=never), 2)
    assert "RoPE is better at the end of training: by 0.500 nats" in text
    assert "RoPE ended 0.500 nats lower" in text
    sooner = {**findings.escapes, learned.label: (300.0, 310.0, 320.0), rope.label: (100.0, 112.0, 118.0)}
    text = said(replace(findings, variants=tuple(rows), escapes=sooner), 2)
    assert "RoPE is better at the end of training, too: by 0.500 nats" in text
    assert "learned positions are after 310 (95% interval −" in text


@pytest.mark.parametrize(
    ("rope", "claimed"), [((1.74, 1.4, 2.1), False), ((1.74, 1.76, 1.72), True), ((1.52, 1.53, 1.51), False)]
)
def test_not_understood_needs_an_interval(findings, rope, claimed):
    changed = {"RoPE, window": (1.6, 1.6, 1.6), "RoPE, interpolated": (1.8, 1.9, 1.7)}
    changed["RoPE, positions interpolated"] = changed["RoPE, interpolated"]
    found = replace(findings, extrapolation=read(rope, (1.5, 1.5, 1.5), **changed))
    answer = answered(EXERCISE, found)
    assert ("not understood there" in answer.finding) == claimed
    assert not (claimed and "at no cost" in said(found, 3))
    assert "on the same tokens" in said(found, 3)


def test_a_harder_text_is_no_cost_of_its_position(findings):
    """The last bucket's tokens are harder to predict, for the model that starts again as well."""
    hard = (1.9, 1.91, 1.89)
    found = read(hard, (1.5, 1.5, 1.5), **{"RoPE, positions interpolated": (2.5, 2.5, 2.5)})
    losses = dict(found.losses) | {"RoPE, restarted": tuple((1.5, 1.5, x) for x in hard)}
    harder = replace(findings, extrapolation=replace(found, losses=losses))
    assert "not understood" not in answered(EXERCISE, harder).finding
    assert "does not extrapolate" not in said(harder, 3)


def test_models_that_know_no_context_get_no_verdict_on_longer_ones(findings):
    found = read((3.6, 3.61, 3.59), (3.1, 3.11, 3.09), **{"RoPE, positions interpolated": (3.5, 3.5, 3.5)})
    lost = replace(findings, extrapolation=found)
    text = said(lost, 3)
    assert "Not trained far enough to say: RoPE has not beaten the bigram (3.000 nats)" in text
    assert "extrapolate for free" not in text
    assert "mean loss at all positions beyond" not in text
    assert not answered(EXERCISE, lost).finding
    rows = {row[0]: row for row in table(lost).rows}
    assert {row[5] for label, row in rows.items() if label != "RoPE"} == {"untrained"}


def table(findings):
    blocks = flattened(answered(EXERCISE, findings).parts[3].blocks)
    return next(block for block in blocks if getattr(block, "name", "") == "remedies")


def test_remedies_are_corrected_for_their_number(findings):
    close = (1.66, 1.7, 1.64)  # 0.1 lower than plain RoPE at each, but for scatter: alone enough
    others = {"RoPE, positions interpolated": close, "RoPE, a": (1.7, 1.8, 1.8), "RoPE, b": (1.9, 1.7, 1.8)}
    found = read((1.77, 1.77, 1.76), (1.5, 1.5, 1.5), **others)
    rows = {row[0]: row for row in table(replace(findings, extrapolation=found)).rows}
    low, high = rows["RoPE, positions interpolated"][3:5]
    assert low < high < 0
    assert rows["RoPE, positions interpolated"][5] == "one of many"


def test_the_answer_stays_sound(findings):
    others = {"RoPE, positions interpolated": (1.66, 1.7, 1.64)}
    answer = answered(EXERCISE, replace(findings, extrapolation=read((1.8, 1.82, 1.78), (1.5, 1.5, 1.5), **others)))
    assert_sound(EXERCISE, answer, any_text=True)  # of two readings and two remedies only
