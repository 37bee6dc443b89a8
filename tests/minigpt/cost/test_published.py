import pytest

from minigpt.cost import published
from minigpt.cost.published import GPT3, MODELS


def test_only_two_rows_have_heads_that_do_not_fit():
    assert [model.name for model in MODELS if not model.heads_fit] == ["GPT-3 XL", "GPT-3 13B"]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_consistent_configurations_keep_depth_and_head_width(model):
    config = model.consistent_config()
    assert (config.n_layer, config.head_dim) == (model.n_layer, model.d_head)
    if model.heads_fit:
        assert (config.d_model, config.n_head) == (model.d_model, model.n_head)


def test_every_row_has_a_source_for_every_column():
    assert all(len(families) == 3 and all(families) for families in published.SOURCES.values())


def test_perplexity_falls_with_size():
    perplexities = [model.lambada_perplexity for model in GPT3]
    assert perplexities == sorted(perplexities, reverse=True)
