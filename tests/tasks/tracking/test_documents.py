"""The shapes of what is logged."""

import itertools

import pytest

from tasks.tracking.documents import CURVE_POINTS, curve_rows, figure_curves, flatten


@pytest.mark.parametrize("points", [1, CURVE_POINTS, CURVE_POINTS + 1, 10_000])
def test_curves_are_thinned_but_keep_their_ends(points: int) -> None:
    rows = curve_rows({"step": list(range(points)), "train_loss": [float(i) for i in range(points)]})
    assert len(rows) <= CURVE_POINTS + 1
    assert (rows[0][1], rows[-1][1]) == (0, points - 1)
    assert all(value == step for _, step, value, _ in rows)
    gaps = {after[1] - before[1] for before, after in itertools.pairwise(rows[:-1])}
    assert len(gaps) <= 1


def test_flatten_names_leaves_by_their_path() -> None:
    assert flatten({"a": {"b": 1, "c": None}, "d": [1, [2]]}) == {"a.b": 1, "d": "[1, [2]]"}


def test_lines_are_grouped_by_what_they_measure_and_no_two_share_a_name() -> None:
    def figure(y_label: str, *names: str) -> dict[str, object]:
        series = [{"name": name, "x": [0, 1, 2], "y": [float(len(name))] * 3} for name in names]
        return {"type": "figure", "kind": "line", "y_label": y_label, "series": series}

    figures = [figure("loss (nats/token)", "α = 0.5, τ = 2", "pre-norm"), figure("loss, nats / token", "pre-norm", "")]
    rows = figure_curves({"parts": [{"blocks": figures}]})
    groups = {
        "loss nats per token/alpha 0.5 tau 2": 14.0,
        "loss nats per token/pre-norm": 8.0,
        "loss nats per token": 0.0,
    }
    assert {(name, value) for name, _, value, _ in rows} == set(groups.items())
    assert len(rows) == 3 * len(groups)
