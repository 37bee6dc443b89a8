"""What 21.26 says of times and of positions is no more than the quartiles and the tokens allow."""

from types import SimpleNamespace as Any

import pytest

from minigpt.evaluation.timing import Timing
from tasks.exercises.ex26_sliding_window.answer import of_text, slower
from tasks.exercises.ex26_sliding_window.findings import BLOCKS, DENSE, NARROW, Cost, position_buckets
from tests.exercises.test_conclusions import said


@pytest.mark.parametrize(("blocks", "spread", "longer"), [(1.05, 0.2, False), (1.05, 0.01, True), (0.9, 0.01, False)])
def test_longer_is_said_where_the_quartiles_are_apart(blocks, spread, longer):
    """The dense product takes 1 s."""
    times = {name: Timing(s, s - spread, s + spread, 9) for name, s in ((DENSE, 1.0), (BLOCKS, blocks))}
    cost = Cost(64, {}, times, 0.0, 1)
    assert slower(cost) == longer
    text = said("ex26_sliding_window", "{% if slower %}", "{% endif %}", slower=[64] if slower(cost) else [])
    assert ("at 64 tokens the blocks take longer" in text) == longer


def test_how_far_the_text_alone_moves_a_bucket_is_told():
    """A model that sees 15 tokens at most sees as many at positions 17–32 as at 33–64, and loses 0.05 nats more."""
    buckets = position_buckets(64)
    losses = [2.0] * (len(buckets) - 2) + [1.5, 1.55]
    f = Any(context=64, expected_reach=14, by_position={NARROW: (losses, losses), "full": (losses, losses)})
    assert of_text(f) == pytest.approx(0.05)
    f.expected_reach = 16  # of 17 tokens, position 17 sees all
    assert of_text(f) == pytest.approx(0.05)
    f.expected_reach = 17
    assert of_text(f) is None
    told = {
        found: said(
            "ex26_sliding_window",
            "A window of as many keys",
            "{% endif %}.\nThese",
            unused=True,
        )
        + said("ex26_sliding_window", "These are means", "the text's{% endif %}.", of_text=found, narrow=NARROW)
        for found in (0.05, None)
    }
    assert "has not learned" not in told[None]
    assert told[None].endswith("which no number of seeds evens out.")
    assert "where window 8 sees no more at one position than at the next, its loss still varies by 0.050" in told[0.05]
