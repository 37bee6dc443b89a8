"""Any value in any field of a configuration: a configuration that holds, or one sentence that names the field."""

import dataclasses
import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from minigpt.config import GPTConfig
from minigpt.decoding.sampling import Sampling
from minigpt.files import config_from_json, config_to_json
from minigpt.train import TrainConfig
from tests.fuzz import fuzzed, junk

CONFIG = GPTConfig(n_layer=1, n_head=2, d_model=8, context=12, vocab_size=7)


@fuzzed
@given(field=st.sampled_from(dataclasses.fields(GPTConfig)), value=junk)
def test_a_shape(field: "dataclasses.Field[object]", value: object) -> None:
    try:
        config = replace(CONFIG, **{field.name: value})
    except ValueError as error:
        assert field.name in str(error) or "rope" in str(error)
        assert len(str(error)) < 600  # a number of 400 digits is shown as it is
        return
    assert config_from_json(config_to_json(config)) == config
    assert type(value) is not bool or isinstance(field.default, bool)
    assert config.ff_dim >= 1 <= config.kv_heads


@fuzzed
@given(field=st.sampled_from(dataclasses.fields(TrainConfig)), value=junk)
def test_a_training(field: "dataclasses.Field[object]", value: object) -> None:
    try:
        tc = TrainConfig(**({"steps": 3} | {field.name: value}))  # type: ignore[arg-type]
    except ValueError as error:
        assert field.name.removesuffix("_args") in str(error)
        assert len(str(error)) < 600
        return
    assert hash(tc) == hash(replace(tc))
    assert math.isfinite(tc.learning_rate_at(0))


@fuzzed
@given(field=st.sampled_from(dataclasses.fields(Sampling)), value=junk)
def test_how_to_sample(field: "dataclasses.Field[object]", value: object) -> None:
    try:
        sampling = Sampling(**{field.name: value})  # type: ignore[arg-type]
    except ValueError as error:
        assert field.name in str(error)
        return
    assert sampling == replace(sampling)
