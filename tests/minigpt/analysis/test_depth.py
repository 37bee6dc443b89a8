import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from minigpt.analysis import depth
from minigpt.config import GPTConfig
from minigpt.model import GPT, xavier

CONFIG = GPTConfig(n_layer=3, n_head=2, d_model=16, context=8, vocab_size=11)


@pytest.fixture(params=["pre", "post"])
def model(request):
    torch.manual_seed(0)
    return GPT(replace(CONFIG, norm=request.param)).eval()


@pytest.fixture
def batch(generator):
    return torch.randint(11, (4, 9), generator=generator)


def test_gradient_norms_are_those_of_autograd(model, batch):
    blocks, last = depth.gradient_norms(model, batch)
    loss = F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
    for i, block in enumerate(model.blocks):
        weights = list(block.parameters())
        gradients = torch.autograd.grad(loss, weights, retain_graph=True)
        assert blocks[i] == pytest.approx(torch.cat([g.flatten() for g in gradients]).norm().item(), rel=1e-5)
        (gradient,) = torch.autograd.grad(loss, block.mlp.down.weight, retain_graph=True)
        assert last[i] == pytest.approx(gradient.norm().item(), rel=1e-5)
    assert all(weight.grad is None for weight in model.parameters())


def test_the_stream_ends_in_the_hidden_states(model, batch):
    batch = batch[:, :8]
    stream = depth.residual_stream(model, batch)
    assert len(stream) == CONFIG.n_layer + 1
    torch.testing.assert_close(model.final_norm(stream[-1]), model.hidden(batch))
    steps = depth.steps(model, batch)
    assert len(steps) == CONFIG.n_layer
    assert steps[0].size == pytest.approx(stream[1].square().mean().sqrt().item())


def test_skipping_every_block_leaves_the_embeddings(model, batch):
    tokens = batch[:, :8]
    whole = model.hidden(tokens)
    with depth.without_block(model, 0), depth.without_block(model, 1), depth.without_block(model, 2):
        skipped = model.hidden(tokens)
    embedded = model.token_embedding(tokens) + model.position_embedding.weight
    torch.testing.assert_close(skipped, model.final_norm(embedded))
    torch.testing.assert_close(model.hidden(tokens), whole)


def test_a_block_that_does_nothing_costs_nothing():
    torch.manual_seed(0)
    model = GPT(CONFIG).eval()
    for layer in (model.blocks[1].attn.proj, model.blocks[1].mlp.down):
        nn.init.zeros_(layer.weight)
    tokens = torch.arange(40) % 11
    costs = depth.cost_of_removal(model, tokens)
    assert costs[1] == pytest.approx(0, abs=1e-6)
    assert abs(costs[0]) > 1e-5
    step = depth.steps(model, tokens[None, :8])[1]
    assert (step.change, step.cosine) == pytest.approx((0, 1), abs=1e-6)


def test_what_survives_of_the_path(batch):
    torch.manual_seed(0)
    pre, post = GPT(CONFIG), GPT(replace(CONFIG, norm="post"))
    assert depth.surviving_share(pre, batch[:, :8]) == 1
    for layer in post.blocks.modules():  # blocks that add nothing: every norm finds a deviation of 1
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.weight)
    assert depth.surviving_share(post, batch[:, :8]) == pytest.approx(1, abs=1e-2)


def test_xavier_has_the_stated_variance():
    torch.manual_seed(0)
    model = xavier(GPT(replace(CONFIG, d_model=128, n_head=2)))
    torch.manual_seed(0)
    configured = GPT(replace(CONFIG, d_model=128, n_head=2, init="xavier"))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), configured.parameters(), strict=True))
    block = model.blocks[0]
    assert block.attn.qkv.weight.std().item() == pytest.approx(math.sqrt(2 / 256), rel=0.02)
    assert block.mlp.down.weight.std().item() == pytest.approx(math.sqrt(2 / (128 * 5)), rel=0.02)
