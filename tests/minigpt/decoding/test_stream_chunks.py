"""Many tokens of a stream at a time, against the paper's cache token by token."""

import pytest
import torch
from torch import Tensor
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from minigpt.decoding.sampling import GREEDY
from minigpt.decoding.stream_chunks import ChunkReader, chunked_losses
from minigpt.decoding.streaming import SinkReader, stream_losses, stream_on
from minigpt.pretrained.causal_lm import row_losses
from tests.minigpt.decoding.test_streaming import V, as_in_the_paper, gpt2, llama

SINKS = [0, 1, 2, 4, 8, 15]


@pytest.fixture
def tokens(generator: torch.Generator) -> Tensor:
    return torch.randint(V, (1, 150), generator=generator)


def neox() -> GPTNeoXForCausalLM:
    torch.manual_seed(0)
    shape = GPTNeoXConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        vocab_size=V,
        initializer_range=0.3,
    )
    return GPTNeoXForCausalLM(shape).eval()


@pytest.mark.parametrize("chunk", [15, 16, 17, 40, 150])
def test_equals_the_papers_cache(tokens: Tensor, chunk: int) -> None:
    model, rows = llama(3), tokens.expand(len(SINKS), -1)
    reader = ChunkReader(model, SINKS, 16)
    ours = torch.cat([reader.read(piece, every=True) for piece in rows.split(chunk, dim=1)], dim=1)
    for row, n in zip(ours, SINKS, strict=True):
        assert (row - as_in_the_paper(model, tokens[0], n, 16)).abs().max() <= 1e-4
    assert (ours[0] - ours[3]).abs().max() > 0.1, "sinks matter, or this test shows nothing"


@pytest.mark.parametrize("make", [lambda: llama(3), neox], ids=["llama", "neox, a quarter of the dimensions rotated"])
def test_losses_equal_those_token_by_token(make, tokens: Tensor) -> None:
    model, rows = make(), tokens.expand(3, -1)
    anew = stream_losses(SinkReader(model, [0, 2, 5], 12), rows, 12)
    ours = chunked_losses(ChunkReader(model, [0, 2, 5], 12), rows, chunk=37)
    torch.testing.assert_close(ours[:, 11:], anew, rtol=1e-4, atol=1e-4)


def test_a_cache_that_holds_everything_is_ordinary_reading(tokens: Tensor) -> None:
    model = llama(2, max_position_embeddings=256)
    losses = chunked_losses(ChunkReader(model, [0, 4], 200), tokens.expand(2, -1), chunk=33)
    torch.testing.assert_close(losses, row_losses(model, tokens).expand(2, -1), rtol=1e-4, atol=1e-4)


def test_writing_goes_on_from_a_chunk(tokens: Tensor) -> None:
    model, rows = llama(2), tokens[:, :60].expand(3, -1)
    one, other = ChunkReader(model, [0, 3, 8], 12), SinkReader(model, [0, 3, 8], 12)
    one.read(rows[:, :-1])
    other.read(rows[:, :12])
    for t in range(12, 59):
        other.read(rows[:, t : t + 1])
    written = (stream_on(reader, rows[:, -1:], 30, sampling=GREEDY) for reader in (one, other))
    assert torch.equal(*written)


def test_a_branch_is_the_row_it_comes_from(tokens: Tensor) -> None:
    model, rows = llama(2), tokens[:, :60].expand(3, -1)
    reader = ChunkReader(model, [0, 3, 8], 12)
    with pytest.raises(ValueError, match="nothing was read"):
        reader.branch([0])
    reader.read(rows)
    branch = reader.branch([1, 1, 0])
    after, expected = branch.read(tokens[:, 60:63].expand(3, -1)), reader.read(tokens[:, 60:63].expand(3, -1))
    torch.testing.assert_close(after, expected[[1, 1, 0]], rtol=1e-5, atol=1e-5)


def test_memory_stays_as_it_is_and_the_model_as_it_was(tokens: Tensor) -> None:
    model, found = llama(3), []
    before = model(tokens).logits
    reader = ChunkReader(model, [0, 4], 12)
    for piece in tokens[:, :148].expand(2, -1).split(37, dim=1):
        reader.read(piece)
        found.append(reader.n_bytes)
    per_position = 4 * 3 * 2 * 8 * 2  # bytes, layers, groups, dimensions of a head, rows
    assert set(found) == {per_position * 2 * (11 + 4)}, "keys and values of the window, and of 4 sinks"
    assert torch.equal(model(tokens).logits, before)


def test_far_positions_are_as_good_as_near_ones() -> None:
    """A stream of one token again and again has the same logits after 100,000 tokens as after 100."""
    reader = ChunkReader(llama(2), [0, 3], 12)
    first = reader.read(torch.full((2, 500), 7))
    for _ in range(50):
        last = reader.read(torch.full((2, 2_000), 7))
    assert reader.length == 100_500
    torch.testing.assert_close(last, first, rtol=1e-4, atol=1e-4)


def test_bad_input(tokens: Tensor) -> None:
    with pytest.raises(ValueError, match="no rotary positions"):
        ChunkReader(gpt2(), [0], 16)
    with pytest.raises(ValueError, match="sinks must be from 0 to 11"):
        ChunkReader(llama(1), [12], 12)
    with pytest.raises(ValueError, match="must hold all 4 sinks, got 3"):
        ChunkReader(llama(1), [0, 4], 12).read(tokens[:, :3].expand(2, -1))
    with pytest.raises(ValueError, match="nothing to score"):
        chunked_losses(ChunkReader(llama(1), [0], 12), tokens[:, :1])
