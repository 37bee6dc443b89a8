"""Measures 21.2: attention weights under the mask, and losses of models trained with the mask and without."""

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt.decoding.sampling import generate
from minigpt.evaluation.entropy import unigram_loss
from minigpt.masks import causal_mask
from minigpt.model import attention_weights
from tasks.exercise import Context, Exercise, TrainedModel
from tasks.exercises.ex02_causal_mask.findings import LENGTH, Findings, Training, Use, Weights
from tasks.recipes.catalogue import STUDY, STUDY_BIDIRECTIONAL


def measure(context: Context) -> Findings:
    """Everything the answer rests on."""
    causal = [context.model(STUDY, seed) for seed in context.seeds(STUDY)]
    leaky = [context.model(STUDY_BIDIRECTIONAL, seed) for seed in context.seeds(STUDY_BIDIRECTIONAL)]
    tokens, mask = context.tokens(STUDY), causal_mask(LENGTH)
    weights = {
        "random": random_weights(context, causal[0].model.config.n_head),
        "trained": trained_weights(causal[0], tokens),
    }
    healthy = [losses_by_position(m, tokens, full=False) for m in causal]
    cheating = [losses_by_position(m, tokens, full=True) for m in leaky]
    broken = [losses_by_position(m, tokens, full=False) for m in leaky]
    by_position = torch.stack(cheating).mean(dim=0)  # (T,)
    every = torch.cat(list(weights.values()))
    prompt = tokens[: LENGTH * 2]
    return Findings(
        mask=tuple(map(tuple, mask.tolist())),
        is_lower_triangle=bool((mask == torch.ones_like(mask).tril()).all()),
        sdpa_difference=sdpa_difference(mask),
        weights={name: summed(found) for name, found in weights.items()},
        example=tuple(map(tuple, weights["trained"][0].tolist())),
        wrong_counts=int(((every > 0).sum(dim=-1) != torch.arange(1, LENGTH + 1)).sum()),
        masked_sum=every[:, ~mask].sum().item(),
        trainings={"causal": training(context, causal, prompt), "full": training(context, leaky, prompt)},
        healthy=use("causal", "causal", healthy),
        cheating=use("full", "full", cheating),
        broken=use("full", "causal", broken),
        cheating_last=by_position[-1].item(),
        cheating_others=by_position[:-1].mean().item(),
        unigram=unigram_loss(context.tokens(STUDY, "train"), tokens, causal[0].model.config.vocab_size),
        prompt=causal[0].tokenizer.decode(prompt.tolist()),
    )


def random_weights(context: Context, heads: int) -> Tensor:
    """Attention weights of random queries and keys under the causal mask, (H, 8, 8)."""
    q, k = torch.randn(2, 1, heads, LENGTH, 16, generator=context.generator("weights")).unbind()
    return attention_weights(q, k, causal_mask(LENGTH))[0]


@torch.inference_mode()
def trained_weights(model: TrainedModel, tokens: Tensor) -> Tensor:
    """Attention weights of every layer and head of a trained model on eight tokens, (L · H, 8, 8)."""
    maps: list[Tensor] = []
    model.model(tokens[None, :LENGTH], maps=maps)
    return torch.cat(maps, dim=1)[0].cpu()


@torch.inference_mode()
def losses_by_position(trained: TrainedModel, tokens: Tensor, *, full: bool) -> Tensor:
    """Mean loss at each position of the windows of a text, with or without the causal mask, (T,) in nats."""
    model, T = trained.model, trained.model.config.context
    windows = (len(tokens) - 1) // T
    inputs, targets = tokens[: windows * T].view(-1, T), tokens[1 : windows * T + 1].view(-1, T)
    mask = torch.ones(T, T, dtype=torch.bool, device=tokens.device) if full else None
    losses = [
        F.cross_entropy(model(x, mask=mask).flatten(0, 1), y.flatten(), reduction="none").view(-1, T)
        for x, y in zip(inputs.split(64), targets.split(64), strict=True)
    ]
    return torch.cat(losses).double().mean(dim=0).cpu()


def summed(weights: Tensor) -> Weights:
    """Counts and sums over the rows and columns of weights, (H, 8, 8)."""
    rows, columns = weights.double().sum(dim=-1), weights.double().sum(dim=-2)
    return Weights(
        heads=weights.shape[0],
        nonzero=tuple(int((weights[:, i] > 0).sum(dim=-1).double().mean()) for i in range(LENGTH)),
        row_sums=(rows.min().item(), rows.max().item()),
        column_sums=(columns.min().item(), columns.max().item()),
        row_error=(rows - 1).abs().max().item(),
    )


def sdpa_difference(mask: Tensor) -> float:
    """Largest difference of masked attention from torch's own, on random vectors."""
    q, k, v = torch.randn(3, 1, 2, LENGTH, 16, generator=torch.Generator().manual_seed(0)).unbind()
    ours = attention_weights(q, k, mask) @ v
    return (ours - F.scaled_dot_product_attention(q, k, v, is_causal=True)).abs().max().item()


def training(context: Context, models: list[TrainedModel], prompt: Tensor) -> Training:
    """All seeds of a recipe: the last training loss of each; curves and a sample of the first."""
    first = models[0]
    continued = generate(
        first.model, prompt[None], context.numbers["sample_tokens"], generator=context.generator("sample")
    )
    return Training(
        final_losses=tuple(m.history["train_loss"][-1] for m in models),
        trained_steps=tuple(first.history["step"]),
        trained_losses=tuple(first.history["train_loss"]),
        evaluated_steps=tuple(first.evaluations["step"]),
        evaluated_losses=tuple(first.evaluations["validation_loss"]),
        sample=first.tokenizer.decode(continued[0, len(prompt) :].tolist()),
    )


def use(trained: str, read: str, by_position: list[Tensor]) -> Use:
    """The mean over the positions, of each seed."""
    return Use(trained, read, tuple(losses.mean().item() for losses in by_position))


EXERCISE = Exercise(
    measure=measure,
    recipes=(STUDY, STUDY_BIDIRECTIONAL),
    numbers={"smoke": {"sample_tokens": 80}, "laptop": {"sample_tokens": 300}, "gpu": {"sample_tokens": 300}},
    seconds={"smoke": 2, "laptop": 3, "gpu": 6},
)
