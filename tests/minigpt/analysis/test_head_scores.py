"""Head scores on a model that was built by hand to have the heads that are looked for."""

import pytest
import torch
from torch import Tensor

from minigpt.analysis.head_scores import (
    first_token,
    induction,
    keys_of_kind,
    own_token,
    previous_token,
    repeated_tokens,
    row_shares,
    row_uniform_shares,
    same_token,
    share,
    uniform_share,
)
from minigpt.config import GPTConfig
from minigpt.model import GPT

V, T = 16, 24
SHARP = 40.0


@torch.no_grad()
def planted() -> GPT:
    """Two layers of two heads. Layer 0, head 0 looks at the token before; layer 1, head 0 is an induction head.

    The residual stream has a part for the token (V), one for the position (T) and one for the token before (V), which
    layer 0 writes. The second head of each layer has zero weights: it attends uniformly.
    """
    C = 2 * V + T
    model = GPT(GPTConfig(n_layer=2, n_head=2, d_model=C, context=T, vocab_size=V, bias=False))
    for name, weight in model.named_parameters():
        weight.fill_(1.0 if "norm" in name else 0.0)
    token, position, before = slice(0, V), slice(V, V + T), slice(V + T, C)
    model.token_embedding.weight[:, token] = torch.eye(V)
    assert model.position_embedding is not None
    model.position_embedding.weight[:, position] = torch.eye(T)
    D = C // 2
    queries, keys, values = (slice(part * C, part * C + D) for part in range(3))  # of head 0

    def plant(layer: int, part: slice, size: int, source: slice, matrix: Tensor) -> None:
        model.blocks[layer].attn.qkv.weight[part][:size, source] = matrix

    plant(0, queries, T, position, SHARP * torch.eye(T))
    plant(0, keys, T, position, torch.eye(T).roll(1, dims=0))  # a key says at which position it is "the one before"
    plant(0, values, V, token, torch.eye(V))
    model.blocks[0].attn.proj.weight[before, :V] = torch.eye(V)
    plant(1, queries, V, token, SHARP * torch.eye(V))
    plant(1, keys, V, before, torch.eye(V))
    return model.eval()


@pytest.fixture
def tokens() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return repeated_tokens([6, 8, 9, 11], T, torch.arange(V), generator)


@pytest.fixture
def maps(tokens: Tensor) -> list[Tensor]:
    found: list[Tensor] = []
    with torch.inference_mode():
        planted()(tokens, maps=found)
    return found


def test_planted_heads_are_found(maps: list[Tensor], tokens: Tensor) -> None:
    before = [share(layer, previous_token(T).expand(4, -1, -1)) for layer in maps]
    again = [share(layer, induction(tokens)) for layer in maps]
    assert before[0][0] > 0.99
    assert again[1][0] > 0.9
    assert max(before[0][1], before[1][0], before[1][1]) < 0.3
    assert max(again[0][0], again[0][1], again[1][1]) < 0.2


@pytest.mark.parametrize(
    "wanted",
    [
        previous_token(T).expand(4, -1, -1),
        first_token(T).expand(4, -1, -1),
        own_token(T).expand(4, -1, -1),
        keys_of_kind(torch.rand(4, T, generator=torch.Generator().manual_seed(5)) < 0.3),
    ],
)
def test_a_blind_head_has_the_baseline(maps: list[Tensor], wanted: Tensor) -> None:
    for layer in maps:
        assert share(layer, wanted)[1].item() == pytest.approx(uniform_share(wanted), abs=1e-6)


def test_a_blind_head_has_the_baseline_of_induction(maps: list[Tensor], tokens: Tensor) -> None:
    assert share(maps[1], induction(tokens))[1].item() == pytest.approx(uniform_share(induction(tokens)), abs=1e-6)


def test_position_alone_is_no_induction(tokens: Tensor) -> None:
    """A head that always looks five back is perfect on a period of 6 and nowhere else."""
    fixed = torch.zeros(4, 1, T, T)
    fixed[:, :, torch.arange(5, T), torch.arange(T - 5)] = 1
    wanted = induction(tokens)
    assert share(fixed[:1], wanted[:1]) == 1
    assert share(fixed, wanted) < 0.5


def test_the_keys_of_induction_by_hand() -> None:
    #                       A  B  C  A  B  A
    wanted = induction(torch.tensor([[0, 1, 2, 0, 1, 0]]))[0]
    assert [row.nonzero().flatten().tolist() for row in wanted] == [[], [], [], [1], [2], [1, 4]]


def test_earlier_twins_by_hand() -> None:
    wanted = same_token(torch.tensor([[0, 1, 0, 0, 1]]))[0]
    assert [row.nonzero().flatten().tolist() for row in wanted] == [[], [], [0], [0, 2], [1]]


def test_shares_of_all_keys_sum_to_one(maps: list[Tensor]) -> None:
    everything = torch.ones(4, T, T, dtype=torch.bool).tril()
    torch.testing.assert_close(share(maps[0], everything), torch.ones(2))
    assert uniform_share(everything) == pytest.approx(1.0)


def test_rows_by_themselves(maps: list[Tensor], tokens: Tensor) -> None:
    wanted = induction(tokens)
    wanted[2] = False  # a row that has no such key
    found = torch.tensor(row_shares(maps, wanted))
    assert found.shape == (3, 2, 2)
    for place, row in enumerate((0, 1, 3)):
        for layer in range(2):
            torch.testing.assert_close(found[place, layer], share(maps[layer][row : row + 1], wanted[row : row + 1]))
    assert row_uniform_shares(wanted) == pytest.approx(found[:, 1, 1].tolist(), abs=1e-6)  # the blind head's


def test_repeated_tokens(tokens: Tensor) -> None:
    for row, period in zip(tokens, [6, 8, 9, 11], strict=True):
        assert torch.equal(row[period:], row[:-period])
        assert len(set(row[:period].tolist())) == period


def test_bad_input(maps: list[Tensor]) -> None:
    with pytest.raises(ValueError, match="after its query"):
        share(maps[0], torch.ones(4, T, T, dtype=torch.bool))
    with pytest.raises(ValueError, match="no query"):
        uniform_share(torch.zeros(4, T, T, dtype=torch.bool))
    with pytest.raises(ValueError, match="different periods"):
        repeated_tokens([5, 5], T, torch.arange(V))
    with pytest.raises(ValueError, match="tokens to choose"):
        repeated_tokens([5, 20], T, torch.arange(V))
