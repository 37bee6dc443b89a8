"""Pretrained models: read from directories, the Hub and the package; refused with one sentence; never half-written."""

import errno
import functools
import json
import logging
import re
import shutil
import tempfile
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertLMHeadModel,
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from minigpt.config import GPTConfig
from minigpt.model import GPT
from minigpt.tokenizers import CharTokenizer
from tasks.models import pretrained
from tasks.models.pretrained import load
from tasks.models.reading import facts, is_causal
from tasks.models.stand_in import save_for_transformers, stand_in, transformers_tokenizer
from tasks.sources.corpora import build_tokenizer
from tasks.sources.references import Reference
from tasks.sources.resolve import SourceError, embedded, resolve_sources
from tests.tasks.fake_hub import FakeHub, Repo, closed_port

LETTERS = CharTokenizer.train("abcdefghijklmnopqrstuvwxyz \n")
TINY = {"n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 32, "vocab_size": LETTERS.vocab_size}
GIB = 2**30


def tiny_gpt2(**changes: Any) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(**{**TINY, "bos_token_id": 0, "eos_token_id": 0, **changes})
    model = GPT2LMHeadModel(config).eval()
    model.set_attn_implementation("eager")
    return model


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A tiny GPT-2 with random weights and a character tokenizer, in Transformers format."""
    folder = tmp_path / "tiny-gpt2"
    tiny_gpt2().save_pretrained(folder)
    transformers_tokenizer(LETTERS, 32).save_pretrained(folder)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def refusal(reference: Reference, cache: Path) -> str:
    """The one sentence with which a model is refused."""
    with pytest.raises(SourceError) as caught:
        load(reference, cache)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert ";" in text, "no remedy"
    return text


def user_model(folder: Path) -> Reference:
    return resolve_sources("embedded", None, str(folder)).pretrained


# --- Directories ----------------------------------------------------------------------------------------------


def test_a_directory_gives_the_same_logits(directory: Path, cache: Path) -> None:
    found = load(user_model(directory).to_json(), cache)
    ids = torch.tensor([found.tokenizer.encode("abc xyz")])
    assert ids.tolist() == [LETTERS.encode("abc xyz")]
    with torch.inference_mode():
        assert torch.equal(found.model(ids).logits, tiny_gpt2()(ids).logits)
        attention = found.model(ids, output_attentions=True).attentions
    assert [tuple(weights.shape) for weights in attention] == [(1, 2, 7, 7)] * 2  # eager: the maps are there
    assert not found.model.training
    assert not found.is_stand_in
    assert "learned positions" in found.note
    assert not cache.exists()


def test_long_texts_are_encoded_without_a_warning(
    directory: Path, cache: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    made = stand_in(small_gpt(LETTERS.vocab_size), LETTERS)
    for tokenizer in (load(user_model(directory), cache).tokenizer, made.tokenizer):
        assert len(tokenizer("abc " * 100)["input_ids"]) == 400
    assert "longer" not in caplog.text
    transformers_tokenizer(LETTERS, 32)("abc " * 100)
    assert "longer" in caplog.text


def test_half_precision_is_read_as_fp32(directory: Path, cache: Path) -> None:
    tiny_gpt2().to(torch.bfloat16).save_pretrained(directory)
    assert load(user_model(directory), cache).model.dtype == torch.float32


def test_a_model_that_sees_the_future_is_refused(directory: Path, cache: Path) -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "hidden_size": 16,
        "intermediate_size": 32,
    }
    sizes["initializer_range"] = 0.2  # with BERT's own 0.02, two random layers hardly mix positions at all
    bert = BertLMHeadModel(BertConfig(vocab_size=LETTERS.vocab_size, is_decoder=False, **sizes)).eval()
    assert not is_causal(bert)
    assert is_causal(BertLMHeadModel(BertConfig(vocab_size=29, is_decoder=True, **sizes)).eval())
    assert is_causal(tiny_gpt2())
    for file in directory.glob("*model*"):
        file.unlink()
    bert.save_pretrained(directory)  # its configuration names a class that may be a decoder; its behaviour tells
    assert "later tokens change" in refusal(user_model(directory), cache)


def test_weights_that_do_not_fit(directory: Path, cache: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    name = next(name for name in weights if name.endswith("h.1.mlp.c_fc.weight"))
    save_file({n: w for n, w in weights.items() if n != name}, directory / "model.safetensors", {"format": "pt"})
    assert name in refusal(user_model(directory), cache)
    (directory / "model.safetensors").write_bytes(b"\x00" * 100)
    assert "cannot be loaded" in refusal(user_model(directory), cache)


def test_a_tokenizer_of_another_model(directory: Path, cache: Path) -> None:
    transformers_tokenizer(CharTokenizer.train("".join(map(chr, range(32, 300)))), 32).save_pretrained(directory)
    assert "269 tokens, its model 29" in refusal(user_model(directory), cache)


def test_code_that_a_model_brings_is_not_run(
    directory: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is anybody asked: Transformers would, at the terminal, and run it on a "y"."""
    marker = tmp_path / "ran"
    (directory / "evil.py").write_text(
        f"open({str(marker)!r}, 'w')\nfrom transformers import PretrainedConfig\n"
        "class Evil(PretrainedConfig):\n    model_type = 'evil'\n"
    )
    config = json.loads((directory / "config.json").read_text())
    code = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
    (directory / "config.json").write_text(json.dumps({**config, "model_type": "evil", "auto_map": code}))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    assert "cannot be loaded" in refusal(user_model(directory), cache)
    assert not marker.exists()


def test_a_directory_that_changes_during_the_run(directory: Path, cache: Path) -> None:
    reference = user_model(directory)
    (directory / "config.json").write_text((directory / "config.json").read_text() + "\n")
    assert "have changed since the run began" in refusal(reference, cache)
    shutil.rmtree(directory)
    assert "has gone" in refusal(reference, cache)


# --- The Hub --------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_on_hub(fake_hub: FakeHub, directory: Path) -> Repo:
    repo = Repo({file.name: file.read_bytes() for file in directory.iterdir()}, sha="5" * 40)
    repo.files |= {"pytorch_model.bin": b"not wanted", "onnx/config.json": b"{}"}
    fake_hub.models["someone/tiny"] = repo
    return repo


def hub_model(revision_cache: Path) -> Reference:
    return resolve_sources("embedded", None, "someone/tiny", cache=revision_cache).pretrained


def hub_files(tmp_path: Path) -> list[str]:
    """Files of models in the Hub's cache, without locks and empty folders."""
    kept = tmp_path / "hub" / "models--someone--tiny"
    return sorted(path.name for path in kept.rglob("*") if path.is_file() and "snapshots" in path.parts)


def test_the_hub_is_asked_once_and_then_not_at_all(
    tiny_on_hub: Repo, fake_hub: FakeHub, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = hub_model(cache)
    found = load(reference, cache)
    ids = torch.tensor([found.tokenizer.encode("hello")])
    with torch.inference_mode():
        assert torch.equal(found.model(ids).logits, tiny_gpt2()(ids).logits)
    assert not {"pytorch_model.bin", "onnx"} & set(hub_files(tmp_path))
    fake_hub.log.clear()
    load(reference, cache)
    assert not fake_hub.log
    monkeypatch.setenv("HF_ENDPOINT", closed_port())
    load(hub_model(cache), cache)  # the name is resolved from the cache as well


def test_wrong_weights_from_the_hub_are_dropped(tiny_on_hub: Repo, cache: Path, tmp_path: Path) -> None:
    reference = hub_model(cache)
    good = tiny_on_hub.files["model.safetensors"]
    tiny_on_hub.files["model.safetensors"] = good[:-1] + b"\x01"
    assert "wrong SHA-256" in refusal(reference, cache)
    assert "model.safetensors" not in hub_files(tmp_path)
    tiny_on_hub.files["model.safetensors"] = good
    assert load(reference, cache).model is not None


Usage = namedtuple("Usage", "total used free")


def test_no_room_for_a_download(
    tiny_on_hub: Repo, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = hub_model(cache)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(GIB, GIB, 1_000_000))
    assert re.search(r"64 MiB are needed .* and 0 MiB are free; make room", refusal(reference, cache))
    assert hub_files(tmp_path) == []


def test_a_hub_that_hangs_or_refuses_at_loading_time(
    tiny_on_hub: Repo, cache: Path, tmp_path: Path, hanging: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = hub_model(cache)
    monkeypatch.setenv("HF_ENDPOINT", hanging)
    started = time.monotonic()
    assert "did not answer within 3 s" in refusal(reference, cache)
    assert time.monotonic() - started < 5
    monkeypatch.setenv("HF_ENDPOINT", closed_port())
    assert "cannot be reached" in refusal(reference, cache)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in refusal(reference, cache)
    assert hub_files(tmp_path) == []


def test_a_repository_without_safetensors_runs_no_pickle(tiny_on_hub: Repo, cache: Path) -> None:
    del tiny_on_hub.files["model.safetensors"]
    assert "no safetensors" in refusal(hub_model(cache), cache)


# --- The packaged model ---------------------------------------------------------------------------------------


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reference:
    """A reference to a package whose file stands for the GGUF, turned into a tiny GPT-2 instead of SmolLM2."""
    gguf = tmp_path / "package" / "model.gguf"
    gguf.parent.mkdir()
    gguf.write_bytes(b"four bits")
    monkeypatch.setattr(embedded, "gguf_file", lambda: gguf)
    monkeypatch.setattr(embedded, "GGUF_SHA256", embedded.sha256_of(gguf))
    monkeypatch.setattr(pretrained, "dequantise", dequantise_tiny)
    return Reference(kind="gguf", name="SmolLM2", sha256=embedded.sha256_of(gguf))


def dequantise_tiny(source: Path, folder: Path) -> None:
    tiny_gpt2().save_pretrained(folder)
    transformers_tokenizer(LETTERS, 32).save_pretrained(folder)


def test_weights_are_turned_once(packaged: Reference, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(packaged, cache).model.state_dict()
    monkeypatch.setattr(pretrained, "dequantise", None)  # a second call would fail
    second = load(packaged, cache).model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("damage", ["alter", "truncate", "delete"])
def test_damaged_weights_are_made_again(packaged: Reference, cache: Path, damage: str) -> None:
    load(packaged, cache)
    (file,) = cache.rglob("model.safetensors")
    content = file.read_bytes()
    if damage == "delete":
        file.unlink()
    else:
        file.write_bytes(content[:-1] + b"\x01" if damage == "alter" else content[:100])
    load(packaged, cache)
    assert file.read_bytes() == content


def leftovers(cache: Path) -> list[str]:
    return [path.name for path in cache.iterdir() if path.suffix != ".lock"] if cache.exists() else []


def test_no_room_for_the_weights(packaged: Reference, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(GIB, GIB, 300 * 2**20))
    assert re.search(r"624 MiB are needed .* and 300 MiB are free; make room", refusal(packaged, cache))
    assert leftovers(cache) == []


@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("I/O error: No space left on device")]
)
def test_a_disk_that_fills_up_meanwhile(
    packaged: Reference, cache: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def break_off(source: Path, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half of the wei")
        raise failure

    monkeypatch.setattr(pretrained, "dequantise", break_off)
    assert "the disk is full" in refusal(packaged, cache)
    assert leftovers(cache) == []
    monkeypatch.setattr(pretrained, "dequantise", dequantise_tiny)
    assert load(packaged, cache).model is not None


def test_a_package_with_another_file(packaged: Reference, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "GGUF_SHA256", "0" * 64)
    assert "wrong SHA-256" in refusal(packaged, cache)
    monkeypatch.setattr(embedded, "gguf_file", lambda: None)
    assert "not installed" in refusal(packaged, cache)
    assert leftovers(cache) == []


@pytest.mark.slow
@pytest.mark.skipif(embedded.gguf_file() is None, reason="requirements-pretrained.txt is not installed")
def test_smollm2_is_what_its_file_says() -> None:
    import gguf

    with tempfile.TemporaryDirectory() as cache:  # a tenth of a gigabyte, which pytest would keep
        found = load(resolve_sources("embedded").pretrained, Path(cache))
        used = sum(path.stat().st_blocks * 512 for path in Path(cache).rglob("*"))
    source = embedded.gguf_file()
    assert source is not None
    assert used < 1.1 * source.stat().st_size, "its blocks, not the 32 bits that each weight is read as"
    theirs = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    for name, weight in theirs.state_dict().items():
        assert torch.equal(weight.view(torch.int32), found.model.state_dict()[name].view(torch.int32)), name
    known = facts(found.model)
    reader = gguf.GGUFReader(embedded.gguf_file())
    header = {name: field.contents() for name, field in reader.fields.items() if name.startswith("llama.")}
    assert known["layers"] == header["llama.block_count"]
    assert known["heads"] == header["llama.attention.head_count"]
    assert known["kv_heads"] == header["llama.attention.head_count_kv"]
    assert known["context"] == header["llama.context_length"]
    assert (known["positions"], known["architecture"]) == ("rope", "LlamaForCausalLM")
    # Weights that no permutation touches, dequantised by the format's own reference implementation.
    weights = found.model.state_dict()
    names = {"token_embd": "model.embed_tokens", "blk.7.ffn_down": "model.layers.7.mlp.down_proj"}
    for tensor in reader.tensors:
        name = names.get(tensor.name.removesuffix(".weight"))
        if name:
            expected = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
            assert torch.equal(weights[f"{name}.weight"], expected)
    # It knows English: a unigram model needs about ten bits for a token of prose, a shuffled text more than this one.
    text = "The quick brown fox jumps over the lazy dog. The cat sat on the mat and looked out of the window."
    ids = torch.tensor([found.tokenizer.encode(text)])
    assert found.tokenizer.decode(ids[0]) == text
    shuffled = ids[:, torch.randperm(ids.shape[1], generator=torch.Generator().manual_seed(0))]
    with torch.inference_mode():
        loss, worse = (found.model(tokens, labels=tokens).loss.item() for tokens in (ids, shuffled))
    assert loss < 3.5 < worse


# --- Facts ----------------------------------------------------------------------------------------------------


def test_facts_come_from_the_configuration() -> None:
    torch.manual_seed(0)
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=40,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
        )
    )
    known = facts(llama)
    assert (known["layers"], known["heads"], known["kv_heads"], known["width"]) == (3, 4, 2, 32)
    assert (known["context"], known["positions"], known["vocabulary"]) == (128, "rope", 40)
    gpt2 = tiny_gpt2()
    known = facts(gpt2)
    assert (known["layers"], known["heads"], known["kv_heads"], known["context"]) == (2, 2, 2, 32)
    assert known["parameters"] == gpt2.num_parameters()  # the tied matrix once


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (tiny_gpt2, "learned"),
        (lambda: tiny_gpt2(n_positions=29), "learned"),  # as many positions as tokens
        (
            lambda: OPTForCausalLM(
                OPTConfig(vocab_size=29, hidden_size=16, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2)
            ),
            "learned",
        ),
        (
            lambda: GPTNeoXForCausalLM(
                GPTNeoXConfig(
                    vocab_size=29, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
                )
            ),
            "rope",
        ),
        (lambda: BloomForCausalLM(BloomConfig(vocab_size=29, hidden_size=16, n_layer=1, n_head=2)), "alibi"),
    ],
    ids=["gpt2", "gpt2-square", "opt", "neox", "bloom"],
)
def test_kinds_of_positions(model: Any, kind: str) -> None:
    assert facts(model())["positions"] == kind


def test_a_stand_in_must_be_made_by_somebody(cache: Path) -> None:
    reference = resolve_sources("embedded", None, "stand-in").pretrained
    assert "no model is trained for it" in refusal(reference, cache)
    assert load(reference, cache, stand_in=lambda: "made") == "made"  # type: ignore[arg-type,return-value]
    assert json.dumps(reference.key()) == '{"kind": "stand-in", "name": "stand-in trained by this project"}'


# --- Models of this project -----------------------------------------------------------------------------------


def small_gpt(vocab_size: int, **changes: Any) -> GPT:
    torch.manual_seed(0)
    shape = {"n_layer": 2, "n_head": 2, "d_model": 16, "context": 64, **changes}
    return GPT(GPTConfig(vocab_size=vocab_size, **shape)).eval()


@pytest.mark.parametrize("name", ["char", "bpe"])
def test_a_stand_in_is_the_model_it_was_made_from(name: str, cache: Path) -> None:
    tokenizer = build_tokenizer(name, "In the beginning God created the heaven and the earth.\n")
    model = small_gpt(tokenizer.vocab_size)
    made = stand_in(model, tokenizer)
    text = "the earth\n\nand the heaven"
    ids = torch.tensor([made.tokenizer.encode(text)])
    assert ids.tolist() == [tokenizer.encode(text)]
    with torch.inference_mode():
        torch.testing.assert_close(made.model(ids).logits, model(ids), rtol=0, atol=1e-5)
        assert len(made.model(ids, output_attentions=True).attentions) == 2
    assert made.is_stand_in
    assert "stands in" in made.note
    assert facts(made.model)["positions"] == "learned"

    folder = save_for_transformers(model, tokenizer, cache / "small")
    again = load(user_model(folder), cache)
    with torch.inference_mode():
        assert torch.equal(again.model(ids).logits, made.model(ids).logits)
    assert again.tokenizer.encode(text) == tokenizer.encode(text)
    assert [path.name for path in cache.iterdir()] == ["small"]


@pytest.mark.parametrize("name", ["char", "bpe"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.one_of(st.sampled_from("abc \n\t'’."), st.characters(exclude_categories=["Cs"])), max_size=40))
def test_tokenizers_agree_on_any_text(name: str, text: str) -> None:
    ours, theirs = tokenizers_of(name)
    ids = ours.encode(text)
    assert theirs.encode(text) == ids
    assert theirs.decode(ids) == ours.decode(ids)


@functools.cache
def tokenizers_of(name: str) -> tuple[Any, Any]:
    ours = build_tokenizer(name, "abc \n\t'’. and what else a training text may hold")
    return ours, transformers_tokenizer(ours, 64)


def test_models_without_a_counterpart_cannot_stand_in(cache: Path) -> None:
    with pytest.raises(ValueError, match="rope positions"):
        stand_in(small_gpt(LETTERS.vocab_size, position="rope"), LETTERS)
    with pytest.raises(ValueError, match="word tokenizer has no counterpart"):
        save_for_transformers(small_gpt(20), build_tokenizer("word", "a b c"), cache / "model")
    assert not cache.exists()
