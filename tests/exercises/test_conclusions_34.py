"""21.34: times whose quartiles overlap are a hint; bits are saved where both thresholds are known."""

from types import SimpleNamespace as Any

import pytest

from minigpt.evaluation.timing import Timing
from tasks.exercises.ex34_quantization.answer import overlapping
from tasks.exercises.ex34_quantization.findings import Deployed
from tests.exercises.test_conclusions import said

SLOW, QUICK, BETWEEN = Timing(3.0, 2.0, 4.0, 3), Timing(1.0, 0.9, 1.1, 3), Timing(1.9, 1.5, 2.1, 3)


def test_every_time_is_held_against_its_spread():
    fp32, library, own, newer = (
        Deployed(key, key, 1, 2.0, read, decode)
        for key, read, decode in (
            ("fp32", SLOW, SLOW),
            ("torch_ao", BETWEEN, QUICK),
            ("int8", QUICK, BETWEEN),
            ("torchao", BETWEEN, BETWEEN),
        )
    )
    d = Any(versions=(fp32, library, own, newer), newer=newer)
    assert overlapping(Any(deployment=d)) == [
        "reading with torch.ao",
        "decoding with this project's layer",
        "reading with torchao",
        "decoding with torchao",
    ]
    text = said(
        "ex34_quantization",
        "Each time is a median",
        "{% endif %}",
        fp32=fp32,
        overlapping=["reading with torch.ao", "decoding with torchao"],
    )
    assert "median of 3 repeats on one machine, with quartiles, which are no interval" in text
    assert "Those of reading with torch.ao and decoding with torchao overlap with those of fp32" in text


@pytest.mark.parametrize(
    ("naive", "channel", "saved"),
    [(5, 3, "saves 2 bits a weight"), (4, 3, "saves 1 bit a weight"), (3, 3, ""), (5, None, "")],
)
def test_a_finer_step_saves_the_bits_between_two_thresholds(naive, channel, saved):
    main = Any(first_noticed={"naive": naive, "channel": channel}.get)
    text = said("ex34_quantization", "{% set coarse, fine", "{% endif %}", main=main, naive="naive", channel="channel")
    assert saved in text
    assert bool(text) == bool(saved)
