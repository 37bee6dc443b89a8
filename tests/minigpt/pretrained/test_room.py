import copy

import pytest
import torch
from transformers.cache_utils import DynamicCache

from minigpt.pretrained.room import SPARE, RoomyLayer, with_room
from tests.exercise_context import tiny_pretrained


def pieces(*lengths, batch=2):
    g = torch.Generator().manual_seed(0)
    return [tuple(torch.randn(batch, 3, T, 4, generator=g) for _ in range(2)) for T in lengths]


def filled(first):
    cache = DynamicCache()
    cache.update(*first, 0)
    return cache


def test_it_holds_what_the_cache_of_transformers_holds():
    first, *others = pieces(5, 1, 1, SPARE + 3, 1, 200, 1)
    plain, roomy = filled(first), with_room(filled(first))
    assert type(roomy.layers[0]) is RoomyLayer
    for piece in others:
        for a, b in zip(plain.update(*piece, 0), roomy.update(*piece, 0), strict=True):
            assert torch.equal(a, b)
        assert plain.get_seq_length() == roomy.get_seq_length()


def test_nothing_is_copied_for_one_more_token():
    first, *others = pieces(5, *[1] * SPARE)
    roomy = with_room(filled(first))
    places = {roomy.update(*piece, 0)[0].data_ptr() for piece in others}
    assert len(places) == 1


def test_chosen_rows_and_copies_go_on_by_themselves():
    first, second, third = pieces(5, 1, 1)
    roomy = with_room(filled(first))
    roomy.update(*second, 0)
    other = copy.deepcopy(roomy)
    other.batch_select_indices(torch.tensor([1, 0]))
    keys, _ = other.update(*third, 0)
    assert torch.equal(keys, torch.cat([torch.cat([first[0], second[0]], dim=2)[[1, 0]], third[0]], dim=2))
    keys, _ = roomy.update(*third, 0)
    assert torch.equal(keys, torch.cat([first[0], second[0], third[0]], dim=2))


def test_another_cache_stays_as_it_is():
    other = object()
    assert with_room(other) is other


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@torch.inference_mode()
def test_a_model_reads_on_with_it(kind):
    model = tiny_pretrained(kind).model
    tokens = torch.randint(50_257, (2, 20), generator=torch.Generator().manual_seed(0))
    cache = with_room(model(tokens[:, :8], use_cache=True).past_key_values)
    found = [model(tokens[:, i : i + 1], past_key_values=cache, use_cache=True).logits for i in range(8, 20)]
    assert torch.allclose(torch.cat(found, dim=1), model(tokens).logits[:, 8:], atol=1e-5)
