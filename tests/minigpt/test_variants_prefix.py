"""Prefix language models: the two limits, what may be seen, and what is scored."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from minigpt.config import GPTConfig
from minigpt.decoding.prefix import complete, suffix_losses
from minigpt.decoding.sampling import GREEDY, generate
from minigpt.masks import causal_mask, prefix_mask
from minigpt.model import GPT
from minigpt.objectives import OBJECTIVES

CONFIG = GPTConfig(n_layer=2, n_head=4, n_kv_head=2, d_model=32, context=24, vocab_size=19)


@pytest.fixture
def model() -> GPT:
    torch.manual_seed(0)
    model = GPT(CONFIG).eval()
    with torch.no_grad():  # with tied weights as they start, a model just repeats the last token
        for weight in model.blocks.parameters():
            weight.mul_(10)
    return model


@pytest.fixture
def windows(generator: torch.Generator) -> torch.Tensor:
    return torch.randint(19, (6, 25), generator=generator)


@pytest.mark.parametrize("prefix", [0, 1, 2, 9, 12])
def test_mask_by_its_definition(prefix: int) -> None:
    mask = prefix_mask(12, prefix)
    for query in range(12):
        assert mask[query].nonzero().flatten().tolist() == list(range(max(query + 1, prefix)))
    lengths = torch.tensor([0, prefix])
    assert torch.equal(prefix_mask(12, lengths)[:, 0], torch.stack([causal_mask(12), mask]))


@torch.inference_mode()
@pytest.mark.parametrize("position", ["learned", "rope", "none"])
def test_the_limits_are_causal_and_full_attention(position: str, windows: torch.Tensor) -> None:
    model, tokens = GPT(replace(CONFIG, position=position)).eval(), windows[:, :24]
    causal, full = model(tokens, mask=causal_mask(24)), model(tokens, mask=torch.ones(24, 24, dtype=torch.bool))
    zero = torch.zeros(6, dtype=torch.long)
    assert torch.equal(model(tokens, prefix=0), model(tokens))
    for prefix in (zero, zero + 1, 1):  # alone in its prefix, a token sees what it saw
        assert torch.equal(model(tokens, prefix=prefix), causal)
    assert torch.equal(model(tokens, prefix=24), full)
    assert torch.equal(model(tokens, prefix=zero + 24), full)


@torch.inference_mode()
def test_each_row_has_its_own_prefix(model: GPT, windows: torch.Tensor) -> None:
    lengths = torch.tensor([0, 3, 24, 7, 1, 12])
    together = model(windows[:, :24], prefix=lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = model(windows[row : row + 1, :24], prefix=length)
        assert torch.allclose(together[row : row + 1], alone, atol=1e-5)


@torch.inference_mode()
def test_no_prediction_that_is_scored_sees_its_target(model: GPT, windows: torch.Tensor) -> None:
    for prefix in (1, 5, 23):
        expected = suffix_losses(model, windows, prefix)
        for target in range(prefix, 24):
            changed = windows.clone()
            changed[:, target] = (changed[:, target] + 1) % 19
            before = model(windows[:, :24], prefix=prefix)[:, prefix - 1 : target]
            assert torch.equal(model(changed[:, :24], prefix=prefix)[:, prefix - 1 : target], before)
        assert expected.shape == (6, 25 - prefix)


def test_the_objective_scores_the_same_targets(model: GPT, windows: torch.Tensor, generator: torch.Generator) -> None:
    for prefix in (0, 1, 10, 23):
        loss = OBJECTIVES["prefix"](model, windows, generator=generator, args={"prefix": prefix})
        assert loss.item() == pytest.approx(suffix_losses(model, windows, prefix).mean().item(), abs=1e-5)
        control = OBJECTIVES["prefix"](
            model, windows, generator=generator, args={"prefix": prefix, "bidirectional": False}
        )
        expected = suffix_losses(model, windows, prefix, bidirectional=False).mean().item()
        assert control.item() == pytest.approx(expected, abs=1e-5)
    causal = OBJECTIVES["causal"](model, windows)
    assert OBJECTIVES["prefix"](model, windows, generator=generator, args={"prefix": 0}).item() == pytest.approx(
        causal.item(), abs=1e-6
    )


@torch.inference_mode()
def test_causal_scores_are_those_of_cross_entropy(model: GPT, windows: torch.Tensor) -> None:
    expected = F.cross_entropy(model(windows[:, :-1]).transpose(1, 2), windows[:, 1:], reduction="none")
    for prefix in (0, 1, 8):
        found = suffix_losses(model, windows, prefix, bidirectional=False, batch_size=4)
        assert torch.allclose(found, expected[:, max(prefix, 1) - 1 :], atol=1e-5)


@torch.inference_mode()
def test_cached_completion_equals_reading_everything_again(model: GPT, windows: torch.Tensor) -> None:
    prompt = windows[:, :9]
    found = complete(model, prompt, 12, sampling=GREEDY)
    tokens = prompt
    for _ in range(12):
        tokens = torch.cat([tokens, model(tokens, prefix=9)[:, -1:].argmax(dim=-1)], dim=1)
    assert torch.equal(found, tokens)
    assert not torch.equal(found, complete(model, prompt, 12, sampling=GREEDY, bidirectional=False))


def test_causal_completion_is_plain_generation(model: GPT, windows: torch.Tensor) -> None:
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    found = complete(model, windows[:, :9], 12, bidirectional=False, generator=generators[0])
    assert torch.equal(found, generate(model, windows[:, :9], 12, generator=generators[1]))


def test_what_makes_no_sense_is_refused(model: GPT, windows: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="nothing to score"):
        suffix_losses(model, windows, 25)
    with pytest.raises(ValueError, match="P >= 1"):
        complete(model, windows[:, :0], 3)
    with pytest.raises(ValueError, match="window"):
        GPT(replace(CONFIG, window=4))(windows[:, :24], prefix=3)
