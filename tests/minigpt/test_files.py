"""Files hold a model exactly; what is damaged or does not fit is refused in one sentence."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from minigpt.config import GPTConfig
from minigpt.files import (
    config_from_json,
    config_to_json,
    load_model,
    load_state,
    model_from_state,
    model_state,
    save_model,
    write_atomic,
)
from minigpt.model import GPT

CONFIG = GPTConfig(n_layer=2, n_head=4, d_model=32, context=12, vocab_size=31)
VARIANTS = [CONFIG, replace(CONFIG, tie_weights=False, position="rope", n_kv_head=2, n_future=3, window=4, bias=False)]


@pytest.mark.parametrize("config", VARIANTS, ids=["gpt2", "variant"])
def test_the_way_through_files_changes_nothing(config: GPTConfig, tmp_path: Path) -> None:
    model = GPT(config).eval()
    before = torch.random.get_rng_state()
    loaded = load_model(save_model(model, tmp_path / "model"))
    assert torch.equal(before, torch.random.get_rng_state())
    assert loaded.config == config
    assert not loaded.training
    assert (loaded.unembedding.weight is loaded.token_embedding.weight) == config.tie_weights
    tokens = torch.randint(31, (2, 12))
    assert torch.equal(loaded(tokens), model(tokens))
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]


def test_shared_weights_are_stored_once() -> None:
    names = set(model_state(GPT(CONFIG)))
    assert "token_embedding.weight" in names
    assert "unembedding.weight" not in names


def test_a_state_is_a_copy() -> None:
    model = GPT(CONFIG)
    state = model_state(model)
    with torch.no_grad():
        model.token_embedding.weight.add_(1)
    assert not torch.equal(state["token_embedding.weight"], model.token_embedding.weight)
    assert not any(weight.requires_grad for weight in state.values())


def test_weights_that_do_not_fit_are_refused() -> None:
    state = model_state(GPT(CONFIG))
    name = "blocks.0.attn.qkv.weight"
    bad = [
        {k: v for k, v in state.items() if k != name},
        state | {"extra": torch.zeros(1)},
        state | {name: torch.zeros(3, 3)},
        state | {name: torch.zeros_like(state[name], dtype=torch.int64)},
    ]
    for weights in bad:
        with pytest.raises(ValueError, match=r"fit the model|expected"):
            load_state(GPT(CONFIG), weights)
    with pytest.raises(ValueError, match="fit the model"):
        model_from_state(replace(CONFIG, n_layer=1), state)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-10]),
        lambda folder: (folder / "model.safetensors").write_bytes(b"not a model"),
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "config.json").write_text("[1]"),
        lambda folder: (folder / "config.json").write_text('{"n_layer": 1, "spell": 2}'),
        lambda folder: (folder / "config.json").write_text('{"n_layer": 1}'),
        lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe"),
    ],
)
def test_damaged_files_are_refused(damage: object, tmp_path: Path) -> None:
    save_model(GPT(CONFIG), tmp_path)
    damage(tmp_path)  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"model"):
        load_model(tmp_path)


def test_a_configuration_goes_through_json() -> None:
    for config in VARIANTS:
        assert config_from_json(json.loads(json.dumps(config_to_json(config)))) == config


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "file"
    write_atomic(path, b"old")

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]
