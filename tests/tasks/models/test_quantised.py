"""Weights kept as the blocks that they came from: the same bits as the format's own implementation reads."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors import safe_open

from tasks.models import quantised
from tasks.models.quantised import keep_blocks, read_blocks

Q4, Q8 = gguf.GGMLQuantizationType.Q4_1, gguf.GGMLQuantizationType.Q8_0
SHAPES = {"a": (64, 96, Q4), "b": (64, 96, Q4), "embedding": (300, 64, Q8)}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A GGUF file with two matrices of one shape, another one, and a vector in 32 bits."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    for name, (rows, columns, kind) in SHAPES.items():
        matrix = rng.normal(size=(rows, columns)).astype(np.float32)
        matrix[3] = matrix[5]  # rows that are alike
        matrix[7] = 0.0
        writer.add_tensor(name, gguf.quantize(matrix, kind), raw_dtype=kind)
    writer.add_tensor("norm", rng.normal(size=64).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "model.gguf"


def dequantised(source: Path) -> dict[str, torch.Tensor]:
    tensors = gguf.GGUFReader(source).tensors
    return {tensor.name: torch.tensor(gguf.dequantize(tensor.data, tensor.tensor_type)) for tensor in tensors}


def same_bits(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    assert left.keys() == right.keys()
    return all(torch.equal(left[name].view(torch.int32), right[name].view(torch.int32)) for name in left)


def test_weights_come_back_to_the_bit_under_other_names_and_in_another_order(source: Path, tmp_path: Path) -> None:
    original = dequantised(source)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    weights = {
        "model.layers.0.q": original["a"][order],
        "model.layers.0.o": original["b"],
        "model.embed": original["embedding"],
        "model.norm": original["norm"],
        "model.new": torch.randn(4, 32),  # of which the file knows nothing
    }
    assert keep_blocks(weights, source, tmp_path / "blocks")
    assert same_bits(read_blocks(tmp_path / "blocks"), weights)
    with safe_open(tmp_path / "blocks", "pt") as kept:
        types = {name: kept.get_tensor(name).dtype for name in weights}
    assert [types[f"model.{name}"] for name in ("layers.0.q", "embed")] == [torch.uint8, torch.uint8]
    assert [types[f"model.{name}"] for name in ("norm", "new")] == [torch.float32, torch.float32]
    assert (tmp_path / "blocks").stat().st_size < 0.4 * sum(weight.nbytes for weight in weights.values())


def test_a_changed_weight_is_not_taken_for_its_block(source: Path, tmp_path: Path) -> None:
    weights = dequantised(source)
    weights["a"][10, 20] += 1e-6
    assert keep_blocks(weights, source, tmp_path / "blocks")
    assert same_bits(read_blocks(tmp_path / "blocks"), weights)


def test_nothing_is_kept_where_reading_gives_other_bits(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = quantised.READ["Q4_1"]
    monkeypatch.setattr(quantised, "READ", {"Q4_1": lambda blocks: read(blocks).nextafter(torch.tensor(9.0))})
    assert not keep_blocks(dequantised(source), source, tmp_path / "blocks")
    assert not (tmp_path / "blocks").exists()
