"""``chapter models``: a folder whose writing ended half way is written again."""

import errno
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from flows.commands.models import exported
from minigpt.config import GPTConfig
from minigpt.files import config_to_json, model_state
from minigpt.model import GPT
from minigpt.tokenizers import CharTokenizer
from tasks.cache.store import as_record
from tasks.place import Place


def test_a_tokenizer_that_was_half_written_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, or a power cut, under ``chapter models``."""
    from safetensors.torch import save

    place = Place(str(tmp_path / "store"), str(tmp_path))
    tokenizer = CharTokenizer.train("abcd")
    config = GPTConfig(n_layer=1, n_head=1, d_model=8, context=8, vocab_size=tokenizer.vocab_size, position="rope")
    torch.manual_seed(0)
    store, whole = place.open_store(), json.dumps(tokenizer.to_json()).encode()
    artifacts = {"model": store.put(save(model_state(GPT(config)))), "tokenizer": store.put(whole)}
    records = {"n": as_record("0" * 64, artifacts, {"config": config_to_json(config)})}
    node: Any = SimpleNamespace(name="n", kind="train")
    real = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if "tokenizer.json" in path.name:  # or what it is called until it is whole
            real(path, data[:3])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space"):
            exported(node, records, place)
    folder, _ = exported(node, records, place)
    assert (folder / "tokenizer.json").read_bytes() == whole
