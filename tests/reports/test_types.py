"""Results to JSON and back."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt.evaluation.statistics import compare_paired
from reports.plain import from_json, to_json
from reports.types import BLOCKS, Check, Result, Table
from tests.reports import sample


def test_every_block_makes_the_round_trip():
    seen = set()
    for result in sample.results():
        data = json.loads(json.dumps(to_json(result)))
        for part, copy in zip(result.parts, from_json(Result, data).parts, strict=True):
            for block, again in zip(part.blocks, copy.blocks, strict=True):
                seen.add(block.type)
                assert repr(again) == repr(block).replace("nan, None, None, 1.0", "'NaN', None, None, 1.0")
    assert seen == set(BLOCKS)


@given(st.floats(), st.text(max_size=10))
def test_numbers_keep_every_bit(value, text):
    result = Result("21.1", text, "ok", sample.PROVENANCE, metrics={"value": value})
    again = from_json(Result, json.loads(json.dumps(to_json(result), allow_nan=False)))
    assert again.title == text
    assert again.metrics["value"] == value or (math.isnan(value) and math.isnan(again.metrics["value"]))


def test_foreign_data_are_refused():
    with pytest.raises(ValueError, match="not a Result"):
        from_json(Result, {"id": "21.1", "surprise": 1})
    with pytest.raises(ValueError, match="not a block"):
        from_json(Result, to_json(sample.results()[0]) | {"parts": [{"letter": "a", "blocks": [{"type": "html"}]}]})
    with pytest.raises(TypeError, match="not part of a result"):
        to_json({"tensor": object()})


def test_a_ragged_table_is_refused():
    with pytest.raises(ValueError, match="1 cells under 2 columns"):
        Table(("a", "b"), ((1,),))


@pytest.mark.parametrize(
    ("other", "lower", "higher"),
    [
        ((1.0, 1.2, 0.9), True, False),
        ((3.0, 3.2, 2.9), False, True),
        ((2.0, 2.4, 1.7), False, False),
        ((1.0,), False, False),
    ],
)
def test_noise_and_one_seed_confirm_nothing(other, lower, higher):
    found = compare_paired((2.0, 2.1, 1.9)[: len(other)], other)
    below, above = (Check.beyond_noise("c", found, side) for side in ("lower", "higher"))
    assert (below.passed, above.passed) == (lower, higher)
    assert (below.bound, above.bound) == ("< 0 beyond the noise", "> 0 beyond the noise")
    assert below.measured == found.difference


def test_a_nan_passes_no_check():
    for check in (Check.at_most("c", math.nan, 1), Check.at_least("c", math.nan, 1), Check.close("c", math.nan, 1, 1)):
        assert not check.passed
    assert Check.at_most("c", 1.0, 1.0).passed
    assert Check.close("c", 1.0, 1.1, 0.2).passed
    assert not Check.equal("c", 1.0000001, 1.0).passed
