"""21.32: a mark survives an edit best where the shares of texts differ by more than so many texts leave open."""

from types import SimpleNamespace as Any

import pytest

from tasks.exercises.ex32_watermarking.answer import found_often, lucky, rise, rivals
from tasks.exercises.ex32_watermarking.findings import Width
from tests.exercises.test_conclusions import said


@pytest.mark.parametrize(
    ("shares", "texts", "found", "expected"),
    [
        ((0.80, 0.78, 0.30), 60, [3], "but over 60 texts k = 3 cannot be told from it."),
        ((0.80, 0.78, 0.30), 6, [3, 4], "but over 6 texts k = 3 and 4 cannot be told from it."),
        ((0.90, 0.50, 0.30), 300, [], "still detected at k = 2, more than at the others of these."),
        ((1.00, 1.00, 0.00), 60, [3], "but over 60 texts k = 3 cannot be told from it."),
    ],
)
def test_the_best_width_has_its_rivals(shares, texts, found, expected):
    honest = tuple(
        Width(k, 50.0, (0.0, 0.0), (0.0, 0.0), 1.0, share) for k, share in zip((2, 3, 4), shares, strict=True)
    )
    f = Any(honest=honest, best=honest[0], plain=Any(nll=(1.0,) * texts), keys=2)
    assert rivals(f) == found
    text = said(
        "ex32_watermarking",
        'under every one of {{ f.keys | plural("key") }}. With',
        "{% endif %}",
        f=f,
        best=honest[0],
        rivals=found,
    )
    assert expected in text


def test_a_width_that_passed_by_the_luck_of_the_keys_is_said_to():
    """k = 2 passes although its z depends on the key as much as that of k = 3, which does not."""
    widths = [Width(k, 50.0, (0.0, 0.0), (0.0, 2**0.5 * drift), 1.0, 0.5) for k, drift in ((2, 0.36), (6, 0.14))]
    failed = [Width(k, 50.0, (0.5, 0.0), (0.0, 2**0.5 * drift), 1.0, 0.5) for k, drift in ((3, 0.35), (5, 0.4))]
    f = Any(honest=widths, widths=(*widths, *failed), best=widths[0])
    assert lucky(f) == [3]
    assert lucky(Any(honest=(), widths=failed, best=failed[0])) == []
    assert lucky(Any(honest=widths, widths=(*widths, *failed), best=widths[1])) == []
    begin, end = "{% if lucky %}", "{% endif %}\n{% endif %}"
    text = " ".join(said("ex32_watermarking", begin, end, lucky=[3], best=widths[0], steadiest=widths[1]).split())
    assert "its mean z varies by 0.36, no less than at k = 3, which did not pass." in text
    assert "takes the one of these widths whose z varies least, k = 6 (0.14)." in text
    assert "one of these" not in said("ex32_watermarking", begin, end, lucky=[3], best=widths[0], steadiest=widths[0])


@pytest.mark.parametrize(("flagged", "missed"), [(0.86, True), (0.95, False)])
def test_a_mark_that_is_missed_more_often_than_predicted_has_its_reason(flagged, missed):
    text = said(
        "ex32_watermarking",
        "{% if usual.right.flagged",
        "{% endif %}.\n{% endif %}",
        usual=Any(right=Any(flagged=flagged, mean_z=3.5), green_share=0.69, rates=(0.12, flagged)),
        f=Any(lengths=(24, 96)),
        delta="2",
        undecided=0.88,
    )
    assert ("would write 88% green ones; this one is often sure, and writes 69%." in text) == missed
    assert ("12% at 24 characters, 86% at 96." in text) == missed


@pytest.mark.parametrize(
    ("dearest", "verdict", "difference"),
    [((1.30, 1.42, 1.51), "higher", 0.11), ((1.15, 1.40, 1.27), "noise", -0.02667), ((1.0, 1.1, 1.2), "lower", -0.2)],
)
def test_every_rise_of_the_cost_is_beyond_noise_or_the_prediction_fails(dearest, verdict, difference):
    losses = ((0.5, 0.61, 0.72), (1.2, 1.3, 1.4), dearest)
    found = rise(Any(marked=[Any(nll=nll) for nll in losses]))
    assert found.verdict == verdict
    assert found.difference == pytest.approx(difference, abs=1e-4)
    text = said("ex32_watermarking", '{% if rise.verdict != "higher" %}', "{% endif %}", rise=found)
    assert bool(text) == (verdict != "higher")


@pytest.mark.parametrize(
    ("flagged", "texts", "often"), [(290, 300, False), (293, 300, True), (285, 300, False), (3, 3, False)]
)
def test_a_rate_above_the_bound_by_chance_confirms_nothing(flagged, texts, often):
    """Of 300 texts at a rate of 95 %, up to 292 are found in 97.5 % of all cases."""
    right = Any(flagged=flagged / texts, mean_z=3.5)
    assert found_often(Any(usual=Any(nll=(1.0,) * texts, right=right))) == often
