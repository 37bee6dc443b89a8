import itertools

import pytest
import torch
from torch import Tensor

from minigpt.analysis.head_scores import previous_token, row_shares, row_uniform_shares
from minigpt.analysis.head_survey import HeadScores, heads_to_draw, kinds, read_maps, survey
from tests.exercise_context import tiny_pretrained


def scores(mean: list[list[float]], blind: float = 0.1, control: list[list[float]] | None = None) -> HeadScores:
    values = torch.tensor(mean)
    noise = torch.tensor([-0.01, 0.01])[:, None, None]
    return HeadScores(values + noise, blind, torch.tensor(control) if control else None)


def test_a_name_needs_half_the_attention_and_three_times_the_references() -> None:
    assert scores([[0.9, 0.49], [0.6, 0.2]]).named == [(0, 0), (1, 0)]
    assert scores([[0.9, 0.49], [0.6, 0.2]], blind=0.25).named == [(0, 0)]
    control = [[0.31, 0.0], [0.0, 0.0]]
    assert scores([[0.9, 0.49], [0.6, 0.2]], control=control).named == [(1, 0)]
    none = scores([[0.3, 0.4]])
    assert (none.named, none.best, none.ranked) == ([], (0, 1), [(0, 1), (0, 0)])
    assert scores([[0.3, 0.4]]).of((0, 1)) == pytest.approx([0.39, 0.41])


def test_a_planted_head_is_named_and_nothing_else() -> None:
    T, keys = 24, previous_token(24)
    uniform = torch.ones(1, T, T).tril() / torch.arange(1, T + 1)[:, None]
    planted = 0.8 * keys + 0.2 * uniform
    planted[:, 0] = uniform[:, 0]
    found = torch.tensor(row_shares([torch.stack([uniform, planted, uniform], dim=1)], keys))
    survey = HeadScores(found, row_uniform_shares(keys)[0])
    assert survey.named == [(0, 1)]
    assert survey.mean[0, 1].item() == pytest.approx(0.8 + 0.2 * survey.blind, abs=1e-6)
    assert survey.mean[0, 0].item() == pytest.approx(survey.blind, abs=1e-6)


def test_kinds_by_hand() -> None:
    #                  .  A  .  A  B
    tokens = torch.tensor([[0, 1, 0, 1, 2]])
    found = kinds(tokens, tokens == 0)
    keys: dict[str, list[list[int]]] = {
        kind: [row.nonzero().flatten().tolist() for row in w[0]] for kind, w in found.items()
    }
    assert keys == {
        "previous": [[], [0], [1], [2], [3]],
        "first": [[0]] * 5,
        "own": [[0], [1], [2], [3], [4]],
        "punctuation": [[], [], [], [2], [2]],
        "same": [[], [], [0], [1], []],
        "induction": [[], [], [1], [2], []],
    }


def brute_force(reach: Tensor) -> float:
    """The best sum over kinds that two layers, one of each half, can have."""
    half = reach.shape[1] // 2
    pairs = itertools.product(range(half), range(half, reach.shape[1]))
    return max(reach[:, list(pair)].amax(dim=(1, 2)).sum().item() for pair in pairs)


def test_drawn_layers_come_closest_to_the_best_of_each_kind() -> None:
    for seed in range(10):
        means = torch.rand(3, 6, 4, generator=torch.Generator().manual_seed(seed))
        drawn = heads_to_draw([HeadScores(mean[None], 0.1) for mean in means], size=2)
        layers = list(drawn)
        assert [layer // 3 for layer in layers] == [0, 1]
        assert all(len(set(heads)) == 2 and heads == sorted(heads) for heads in drawn.values())
        reach = means / means.amax(dim=(1, 2), keepdim=True)
        assert reach[:, layers].amax(dim=(1, 2)).sum().item() == pytest.approx(brute_force(reach))


def test_a_small_model_is_drawn_whole() -> None:
    assert heads_to_draw([scores([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]])]) == {0: [0, 1, 2], 1: [0, 1, 2]}


def test_the_best_heads_of_a_layer_are_drawn() -> None:
    first = scores([[0.0, 0.9, 0.1, 0.0, 0.0, 0.2]])
    second = scores([[0.0, 0.1, 0.0, 0.0, 0.8, 0.3]])
    assert heads_to_draw([first, second], size=2) == {0: [1, 4]}


def test_a_survey_is_the_scores_of_its_rows() -> None:
    model = tiny_pretrained("llama").model
    tokens = torch.randint(50_000, (5, 12), generator=torch.Generator().manual_seed(0))
    wanted = kinds(tokens, tokens % 3 == 0)
    wanted["punctuation"][1] = False
    found = survey(model, tokens, wanted, batch_size=2)
    maps = read_maps(model, tokens)
    for kind, keys in wanted.items():
        torch.testing.assert_close(
            torch.tensor(found[kind]), torch.tensor(row_shares(maps, keys)), atol=1e-5, rtol=1e-4
        )
    assert len(found["punctuation"]) == 4
    assert torch.tensor(found["previous"]).shape == (5, 4, 4)
