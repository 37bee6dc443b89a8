"""21.5: which matrix the shared one resembles more, and whether tying hurts, is said where seeds can tell."""

from types import SimpleNamespace as Any

import pytest

from minigpt.evaluation.statistics import compare_paired
from tests.exercises.test_conclusions import said

OPEN = "seeds cannot tell: the output matrix at 0.41, the input matrix at 0.41 (95% interval"


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        ((0.40, 0.42, 0.41), (0.42, 0.40, 0.416), OPEN),
        ((0.30, 0.31, 0.30), (0.50, 0.52, 0.50), "untied output matrix (0.51) more than the other (0.30;"),
        ((0.50, 0.52, 0.50), (0.30, 0.31, 0.30), "untied input matrix (0.51) more than the other (0.30;"),
        ((0.30,), (0.50,), "1 seed cannot tell: the output matrix at 0.50, the input matrix at 0.30. In the word"),
    ],
)
def test_a_likeness_inside_the_noise_lets_neither_prevail(inputs, outputs, expected):
    text = said(
        "ex05_weight_tying",
        '{% if likeness.verdict in ("higher", "lower") %}',
        "was the output.\n{% endif %}",
        likeness=compare_paired(inputs, outputs),
        to_input=sum(inputs) / len(inputs),
        to_output=sum(outputs) / len(outputs),
    )
    assert expected in text
    assert "prevails" not in text


@pytest.mark.parametrize(
    ("verdict", "parameters", "told"), [("higher", 1_035, True), ("higher", 1_300, False), ("lower", 1_035, False)]
)
def test_a_small_matrix_that_is_better_tied_is_said_beside_the_list(verdict, parameters, told):
    text = said(
        "ex05_weight_tying",
        "{% set share = ",
        "GPT-2 and SmolLM2",
        verdict=verdict,
        f=Any(tied=Any(parameters=1_000), untied=Any(parameters=parameters)),
    )
    assert (
        "its matrix is 3.5% of its parameters, and untied it was worse all the same" in " ".join(text.split())
    ) == told


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        ("noise", "is not shown, and not refuted either: the two differ by no more than noise."),
        ("one seed", "One seed cannot confirm or refute it."),
        ("untrained", "not put to the test"),
        ("lower", ""),
    ],
)
def test_a_prediction_missed_within_the_noise_is_not_refuted(verdict, expected):
    text = said(
        "ex05_weight_tying", "{% set verdict", "{% endif %}\n\n# (a)", f=Any(comparison=Any(verdict=verdict))
    ).removesuffix("# (a)")
    assert expected in text
    assert bool(text) == bool(expected)
