"""Fine-tuning against Transformers' own loss and PyTorch's own optimiser, and its resumption."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from minigpt.data import Windows
from minigpt.files import model_state
from minigpt.pretrained.finetune import Wrapped, steps_for
from minigpt.pretrained.quick import quick
from minigpt.train import Shape, TrainConfig, TrainResult, train

V, BLOCK = 31, 12
TC = TrainConfig(steps=20, batch_size=4, learning_rate=5e-3, weight_decay=0.0)


@pytest.fixture(params=["gpt2", "llama"])
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    if request.param == "gpt2":  # with dropout, as GPT-2 has it
        return GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=16, n_positions=24, vocab_size=V)).eval()
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(**shape, vocab_size=V, max_position_embeddings=24)).eval()


@pytest.fixture
def tokens() -> Tensor:
    pattern = torch.arange(7).repeat(60)  # something that can be learned
    return (pattern + torch.randint(2, (420,), generator=torch.Generator().manual_seed(1)) * 7) % V


def tune(model: Any, tokens: Tensor, tc: TrainConfig = TC, **options: Any) -> TrainResult:
    wrapped = Wrapped(copy.deepcopy(model), BLOCK)
    return train(wrapped.config, tc, tokens[:300], tokens[300:], seed=1, start=wrapped, **options)


def test_it_learns_and_leaves_the_original_alone(model: Any, tokens: Tensor) -> None:
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    result = tune(model, tokens)
    losses = result.evaluations["validation_loss"]
    assert losses[-1] < losses[0] - 0.2
    assert not result.model.training
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_the_first_step_is_transformers_loss_and_pytorchs_adamw(model: Any, tokens: Tensor) -> None:
    """Labels are shifted once: their loss shifts, ours has shifted, and both see the same targets."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    tc = TrainConfig(steps=1, batch_size=4, learning_rate=1e-3, weight_decay=0.0, warmup_steps=0, grad_clip=0.0)
    result = tune(model, tokens, tc)
    theirs = copy.deepcopy(model).train()
    batch = Windows(tokens[:300], BLOCK, 1).batch(0, 4)  # (4, BLOCK + 1)
    logits = theirs(batch[:, :-1]).logits
    loss = theirs.loss_function(logits, None, vocab_size=V, shift_labels=batch[:, 1:].contiguous())
    assert result.history["train_loss"][0] == pytest.approx(loss.item(), abs=1e-6)
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-3, betas=(tc.beta1, tc.beta2), weight_decay=0.0)
    loss.backward()
    optimizer.step()
    for ours, expected in zip(result.model.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)


def test_the_validation_loss_is_transformers_without_dropout(model: Any, tokens: Tensor) -> None:
    first = tune(model, tokens).evaluations["validation_loss"][0]
    text, total = tokens[300:], 0.0
    with torch.inference_mode():
        for begin in range(0, len(text) - 1, BLOCK):
            window = text[None, begin : begin + BLOCK + 1]
            total += model(window, labels=window).loss.item() * (window.shape[1] - 1)
    assert first == pytest.approx(total / (len(text) - 1), abs=1e-5)


class Killed(Exception):
    pass


@pytest.mark.parametrize("kill_at", [3, 11])
def test_a_killed_one_ends_with_the_same_bits(model: Any, tokens: Tensor, tmp_path: Path, kill_at: int) -> None:
    def kill(fraction: float, note: str) -> None:
        if fraction * TC.steps >= kill_at:
            raise Killed

    whole = tune(model, tokens)
    with pytest.raises(Killed):
        tune(model, tokens, checkpoint_dir=tmp_path, checkpoint_seconds=0.0, progress=kill)
    resumed = tune(model, tokens, checkpoint_dir=tmp_path)
    for name, weight in model_state(resumed.model).items():
        assert torch.equal(weight, model_state(whole.model)[name]), name
    assert resumed.history["train_loss"] == whole.history["train_loss"]


def test_a_checkpoint_of_another_model_is_ignored(model: Any, tokens: Tensor, tmp_path: Path) -> None:
    tune(model, tokens, checkpoint_dir=tmp_path, checkpoint_seconds=0.0)
    other = copy.deepcopy(model)
    with torch.no_grad():
        next(other.parameters()).add_(0.01)
    with pytest.warns(UserWarning, match="another training"):
        again = tune(other, tokens, checkpoint_dir=tmp_path)
    assert again.evaluations["step"][0] == 0


def test_in_bf16_it_is_evaluated_as_it_is_read(model: Any, tokens: Tensor) -> None:
    """By ``quick``, with the weights of now; a step of training goes past it."""
    wrapped, rows = Wrapped(copy.deepcopy(model), BLOCK, "bf16"), tokens[: 2 * BLOCK].view(2, BLOCK)
    assert not dict(wrapped.named_buffers()).keys() - dict(Wrapped(model, BLOCK).named_buffers()).keys()
    for _ in range(2):
        with torch.inference_mode():
            found = wrapped.eval()(rows)
            assert torch.equal(found, quick(wrapped.model, "bf16")(rows).logits)
            assert not torch.equal(found, wrapped.model(rows).logits)
        for weight in wrapped.parameters():
            weight.data.mul_(1.01)
    assert wrapped.eval().train()(rows).requires_grad
    assert wrapped.state_dict().keys() == Wrapped(model, BLOCK).state_dict().keys()


def test_epochs_in_steps() -> None:
    per_epoch = Windows(torch.zeros(1_000, dtype=torch.long), 100, 0).per_epoch
    assert steps_for(3, 1_000, 100, 4) == -(-3 * per_epoch // 4)


def test_bad_input(model: Any, tokens: Tensor) -> None:
    with pytest.raises(ValueError, match="context of 24"):
        Wrapped(model, 25)
    with pytest.raises(ValueError, match="fewer than one window"):
        steps_for(3, 10, 10, 2)
    with pytest.raises(ValueError, match="as start"):
        train(Shape(V, BLOCK), TC, tokens, tokens, seed=0)
