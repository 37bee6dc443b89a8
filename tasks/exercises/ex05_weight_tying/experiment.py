"""Measures 21.5: counts on built models, and what a tied and an untied model have learned."""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt.config import GPTConfig
from minigpt.cost.published import GPT1, GPT2, GPT3
from minigpt.model import GPT
from tasks.exercise import Context, Exercise, TrainedModel
from tasks.exercises.ex05_weight_tying.findings import VOCABULARY, WIDTH, DirectPath, Findings, Saving
from tasks.recipes.catalogue import STUDY, STUDY_UNTIED
from tasks.study import variants

GPT2_SMALL = GPTConfig(n_layer=12, n_head=12, d_model=WIDTH, context=1024, vocab_size=VOCABULARY)


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    tied, untied = variants(ctx, {"tied embeddings": STUDY, "untied embeddings": STUDY_UNTIED})
    with_one, with_two = ([ctx.model(recipe, seed) for seed in ctx.seeds(recipe)] for recipe in (STUDY, STUDY_UNTIED))
    config = with_one[0].model.config
    bigrams = log_bigrams(ctx.tokens(STUDY, "train").cpu(), config.vocab_size)
    return Findings(
        tied=tied,
        untied=untied,
        gpt2_tied=count(GPT2_SMALL, tied=True),
        gpt2_untied=count(GPT2_SMALL, tied=False),
        savings=tuple(saving(model.name, model.consistent_config()) for model in (GPT1, *GPT2, GPT3[3], GPT3[-1])),
        likeness=similarities(with_one, with_two),
        tied_path=paths(with_one, bigrams),
        untied_path=paths(with_two, bigrams),
        bigram_asymmetry=asymmetry(bigrams),
        vocab_size=config.vocab_size,
        d_model=config.d_model,
        one_storage=(one_storage(with_one[0].model), one_storage(with_two[0].model)),
    )


def count(config: GPTConfig, *, tied: bool) -> int:
    """Parameters of a real model, built without memory; a tensor that two modules share counts once."""
    with torch.device("meta"):
        return sum(p.numel() for p in GPT(replace(config, tie_weights=tied)).parameters())


def saving(name: str, config: GPTConfig) -> Saving:
    """What tying saves in an architecture."""
    return Saving(name, config.vocab_size, config.d_model, count(config, tied=False))


def one_storage(model: GPT) -> bool:
    """Whether a model reads and writes with the same numbers."""
    return model.token_embedding.weight.data_ptr() == model.unembedding.weight.data_ptr()


def geometry(embedding: Tensor) -> Tensor:
    """Cosines between the embeddings of all pairs of tokens, their mean removed first, (V, C) → (V(V-1)/2,)."""
    unit = F.normalize(embedding - embedding.mean(dim=0), dim=-1)
    first, second = torch.triu_indices(len(unit), len(unit), offset=1)
    return (unit @ unit.T)[first, second]


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation of all entries."""
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def direct_path(model: GPT) -> Tensor:
    """Logits that the residual stream carries past all blocks, (V, V): row = token read, column = token predicted.

    Up to the final norm: Elhage et al. (2021), "A Mathematical Framework for Transformer Circuits", zero layers.
    """
    return (model.token_embedding.weight @ model.unembedding.weight.T).detach()


def asymmetry(matrix: Tensor) -> float:
    """‖A - Aᵀ‖ / ‖A + Aᵀ‖: 0 for a symmetric matrix, 1 where no pair has anything to do with its reverse."""
    return float(torch.linalg.norm(matrix - matrix.T) / torch.linalg.norm(matrix + matrix.T))


def log_bigrams(tokens: Tensor, vocab_size: int) -> Tensor:
    """ln P(next | current) with one added to every count, each row's mean removed, (V, V)."""
    pairs = tokens[:-1] * vocab_size + tokens[1:]
    counts = torch.bincount(pairs, minlength=vocab_size**2).view(vocab_size, vocab_size).double() + 1
    logs = (counts / counts.sum(dim=1, keepdim=True)).log()
    return (logs - logs.mean(dim=1, keepdim=True)).float()


def similarities(tied: Sequence[TrainedModel], untied: Sequence[TrainedModel]) -> dict[str, tuple[float, ...]]:
    """How alike the geometries of the three matrices are, for each seed."""
    shared = [geometry(one.model.token_embedding.weight.detach()) for one in tied]
    read = [geometry(two.model.token_embedding.weight.detach()) for two in untied]
    written = [geometry(two.model.unembedding.weight.detach()) for two in untied]
    return {
        "untied input and untied output": tuple(map(correlation, read, written)),
        "tied and untied input": tuple(map(correlation, shared, read)),
        "tied and untied output": tuple(map(correlation, shared, written)),
    }


def paths(models: Sequence[TrainedModel], bigrams: Tensor) -> DirectPath:
    """The direct path of every seed: its symmetry, and how far it is that of bigrams."""
    found = [direct_path(one.model).cpu() for one in models]
    diagonal = torch.arange(len(bigrams))
    return DirectPath(
        asymmetry=tuple(asymmetry(path) for path in found),
        bigram_correlation=tuple(correlation(path - path.mean(dim=1, keepdim=True), bigrams) for path in found),
        itself=tuple((path.argmax(dim=1) == diagonal).double().mean().item() for path in found),
    )


EXERCISE = Exercise(
    measure=measure,
    recipes=(STUDY, STUDY_UNTIED),
    numbers={"smoke": {}, "laptop": {}, "gpu": {}},
    timed=True,
    seconds={"smoke": 3, "laptop": 2, "gpu": 10},
)
