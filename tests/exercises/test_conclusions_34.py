"""21.34: a ratio of times whose quartiles overlap is a hint, of reading as of decoding, with each library."""

from types import SimpleNamespace as Any

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
