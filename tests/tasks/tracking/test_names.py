"""Names on MLflow: what it accepts, by its own word, and what people read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.tracking.names import LONGEST, allowed_name, within_a_group


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("validation loss (nats)", "validation loss nats"),
        ("train small, seed 0", "train small seed 0"),
        ("α = 0.5, τ = 2", "alpha 0.5 tau 2"),
        ("Δ at λ ≥ 10⁻⁵", "Delta at lambda at least 10-5"),
        ("component 1 (5.9 %)", "component 1 5.9 percent"),
        ("‖output‖ / ‖input‖", "output/input"),
        ("x₂ × café", "x2 x cafe"),
        ("cached/exercise 21.2", "cached/exercise 21.2"),
        ("mlflow.note.content", "mlflow.note.content"),
        ("../a//b/", "a/b"),
        ("中文", "_"),
    ],
)
def test_a_name_is_what_one_would_say(name: str, said: str) -> None:
    assert allowed_name(name) == said


def test_a_part_of_a_name_makes_no_group() -> None:
    assert within_a_group("‖output‖ / ‖input‖") == "output per input"
    assert within_a_group("loss (nats/token)") == "loss nats per token"


@given(st.text())
def test_mlflow_takes_every_name(name: str) -> None:
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name, _validate_tag_name

    said = allowed_name(name)
    for validate in (_validate_metric_name, _validate_param_name, _validate_tag_name):
        validate(said)
    assert len(said) <= LONGEST
    assert allowed_name(said) == said
