"""The benchmark of decoding counts bytes as one would by hand, and runs."""

import json

import pytest
import torch

from minigpt.config import GPTConfig
from minigpt.model import GPT
from tests.benchmarks.bench_decoding import REFERENCE, TINY, bytes_per_token, compare, plain_reads, table


def test_bytes_are_those_of_everything_but_the_lookups():
    config = GPTConfig(n_layer=3, n_head=2, d_model=32, context=120, vocab_size=100, n_kv_head=1)
    model = GPT(config)
    parameters = sum(p.numel() for p in model.parameters())
    table = 120 * 32
    whole = 4 * (parameters - table + 2 * 32)  # tied: the embedding is read as the unembedding; one row of each
    keys = 3 * 2 * 16 * 10  # layers, keys and values, head width, positions
    assert bytes_per_token(model, "float32", 0) == whole
    assert bytes_per_token(model, "float32", 10) == whole + 4 * keys
    matrices = [p for p in model.parameters() if p.ndim == 2 and len(p) != 120]
    weights, channels = sum(p.numel() for p in matrices), sum(len(p) for p in matrices)
    assert bytes_per_token(model, "bfloat16", 10) == whole - 2 * weights + 2 * keys
    assert bytes_per_token(model, "int8", 10) == whole - 3 * weights + 4 * channels + 2 * keys


def test_plain_reads_touch_a_buffer_of_that_size():
    reads = plain_reads(1_000_000)
    buffer = reads["sum"].__self__
    assert buffer.nbytes == pytest.approx(1_000_000, rel=0.01)
    torch.testing.assert_close(reads["dot"](), buffer.square().sum())
    assert reads["mv"]().shape == (len(buffer) // 1024,)


def test_it_runs_and_its_result_is_plain():
    before = torch.get_num_threads()
    result = compare(threads=1, short=True, shapes={"tiny": TINY}, cached=TINY)
    assert torch.get_num_threads() == before
    assert json.loads(json.dumps(result)) == result
    (shape,) = result["shapes"]
    rows = {row["version"]: row for row in shape["rows"]}
    assert len(rows) == 5
    assert rows[REFERENCE]["times generate()"] == [1.0, 1.0, 1.0]
    assert rows["this project, unpacked fp32"]["same tokens"] == 1.0
    assert rows["this project, packed float32"]["same tokens"] == 1.0
    assert all(row["ms per token"][0] > 0 for row in rows.values())
    assert "tiny, 1 thread, 40 tokens, 3 rounds" in table(result)


def test_parts_that_are_not_asked_for_are_not_measured():
    result = compare(threads=1, short=True, shapes={"tiny": TINY}, cached=None, rounds=1)
    assert result["cache"] is None
    assert [shape["rounds"] for shape in result["shapes"]] == [1]
    assert "a cache" not in table(result)
    only_cache = compare(threads=1, short=True, shapes={}, cached=TINY)
    assert only_cache["shapes"] == []
    assert only_cache["cache"]["new tokens"] == 100
    assert min(only_cache["cache"]["seconds"].values()) > 0  # which is the shorter is for the benchmark to say
