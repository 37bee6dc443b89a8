"""Measures 21.14: the five steps on an example, against rational arithmetic and two references, and on a model."""

import inspect
import math
from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor

from minigpt.decoding.sampling import top_p_warp
from minigpt.evaluation.excerpts import leading
from tasks.exercise import Context, Exercise
from tasks.exercises.ex14_nucleus_sampling.findings import GRID, PROBABILITIES, TOKENS, Findings, P, Reference, Sizes
from tasks.exercises.ex14_nucleus_sampling.nucleus import (
    crossing_dropped,
    cumulative_probabilities,
    cutoff,
    mask_below,
    not_scattered,
    nucleus_filter,
    renormalise_and_sample,
    sample_nucleus,
    sort_descending,
)
from tasks.recipes.catalogue import STUDY_ROPE


def transformers_filter(logits: Tensor, p: float) -> Tensor:
    """Transformers' warper."""
    from transformers import TopPLogitsWarper

    filtered: Tensor = TopPLogitsWarper(p)(None, logits)
    return filtered


Filter = Callable[[Tensor, float], Tensor]
REFERENCES: dict[str, Filter] = {
    "minigpt.decoding.sampling.top_p_warp": top_p_warp,
    "TopPLogitsWarper": transformers_filter,
}


STEPS = (
    sort_descending,
    cumulative_probabilities,
    cutoff,
    mask_below,
    renormalise_and_sample,
    nucleus_filter,
)


def random_logits(n: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Vectors of 50 logits: plain, with many ties, and so spread out that most probabilities vanish."""
    plain = torch.randn(n, 50, generator=generator, dtype=torch.float64) * 3
    return {"plain": plain, "with ties": plain.round(), "extreme": plain * 30}


def disagreements(n: int, generator: torch.Generator) -> tuple[Reference, ...]:
    """Vectors on which our filter and a reference keep different tokens, over the grid of p.

    Among tied tokens any choice is right, so there the kept logits are compared instead of the kept tokens.
    """
    found = []
    for name, reference in REFERENCES.items():
        for kind, logits in random_logits(n, generator).items():
            counts = []
            for p in GRID:
                ours, theirs = nucleus_filter(logits, p), reference(logits, p)
                if kind == "with ties":
                    ours, theirs = ours.sort(dim=-1).values, theirs.sort(dim=-1).values
                counts.append(int((ours != theirs).any(dim=-1).sum()))
            found.append(Reference(name, kind, n * len(GRID), sum(counts)))
    return tuple(found)


def exact_nucleus() -> tuple[int, tuple[Fraction, ...]]:
    """Size and renormalised probabilities of the example, in rational arithmetic."""
    order = sorted(range(len(TOKENS)), key=lambda i: -PROBABILITIES[i])
    kept, mass = 0, Fraction(0)
    while mass < Fraction(str(P)):
        mass += PROBABILITIES[order[kept]]
        kept += 1
    nucleus = set(order[:kept])
    return kept, tuple(q / mass if i in nucleus else Fraction(0) for i, q in enumerate(PROBABILITIES))


def model_nuclei(ctx: Context) -> tuple[tuple[Sizes, ...], tuple[int, int], int]:
    """Quartiles of the nucleus size over every next-character distribution of a passage, its range at P, how many."""
    trained = ctx.model(STUDY_ROPE)
    context = trained.model.config.context
    tokens = leading(ctx.tokens(STUDY_ROPE), max(1, ctx.numbers["characters"] // context), context)
    with torch.inference_mode():
        logits = trained.model(tokens).flatten(0, 1).double().cpu()
    cumulative = cumulative_probabilities(sort_descending(logits)[0])
    sizes = {p: cutoff(cumulative, p)[:, 0] for p in (0.5, P, 0.95, 0.99)}
    quartiles = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    summary = tuple(Sizes(p, *torch.quantile(size.double(), quartiles).tolist()) for p, size in sizes.items())
    at_p = sizes[P]
    return summary, (int(at_p.min()), int(at_p.max())), len(at_p)


def measure(ctx: Context) -> Findings:
    """The five steps on the example, the comparisons, and the nuclei of a model."""
    from scipy.stats import chisquare

    logits = torch.tensor([math.log(q) + 1 for q in PROBABILITIES], dtype=torch.float64)
    ordered, order = sort_descending(logits)
    cumulative = cumulative_probabilities(ordered)
    kept = cutoff(cumulative, P)
    masked = mask_below(logits, order, kept)
    n, generator = ctx.numbers, ctx.generator()
    probabilities, _ = renormalise_and_sample(masked)
    samples = sample_nucleus(logits.expand(n["draws"], -1), P, generator)
    counts = torch.bincount(samples, minlength=len(TOKENS))
    inside = probabilities > 0
    dropped = crossing_dropped(logits, P).isfinite()
    exact_kept, exact = exact_nucleus()
    wanted = torch.tensor([float(q) for q in exact], dtype=torch.float64)
    references = disagreements(n["vectors"], generator)
    kinds = random_logits(n["vectors"], generator)
    vectors = torch.cat(list(kinds.values()))
    sums = cumulative_probabilities(sort_descending(kinds["extreme"])[0])
    one = (nucleus_filter(vectors, 1e-9).isfinite().sum(dim=-1) == 1).sum()
    everything = nucleus_filter(vectors, 1.0).isfinite().all(dim=-1).sum()
    wrong = not_scattered(logits, P).isfinite().tolist()
    sizes, size_range, characters = model_nuclei(ctx)
    return Findings(
        logits=tuple(logits.tolist()),
        ordered=tuple(ordered.tolist()),
        order=tuple(order.tolist()),
        cumulative=tuple(cumulative.tolist()),
        kept=int(kept),
        masked=tuple(masked.tolist()),
        probabilities=tuple(probabilities.tolist()),
        counts=tuple(counts.tolist()),
        p_value=float(chisquare(counts[inside].numpy(), (wanted[inside] * n["draws"]).numpy()).pvalue),
        exact_kept=exact_kept,
        exact_difference=(probabilities - wanted).abs().max().item(),
        dropped_mass=float(sum(q for q, keep in zip(PROBABILITIES, dropped.tolist(), strict=True) if keep)),
        not_scattered=tuple(token for token, keep in zip(TOKENS, wrong, strict=True) if keep),
        references=references,
        per_reference=n["vectors"],
        limits=(int(one), int(everything)),
        vectors=len(vectors),
        saturated=(sums[:, -2] >= 1).double().mean().item(),
        sizes=sizes,
        size_range=size_range,
        characters=characters,
        vocab_size=ctx.model(STUDY_ROPE).tokenizer.vocab_size,
        sources={step.__name__: inspect.getsource(step) for step in STEPS},
    )


EXERCISE = Exercise(
    measure=measure,
    recipes=(STUDY_ROPE,),
    numbers={
        "smoke": {"draws": 10_000, "vectors": 500, "characters": 2_000},
        "laptop": {"draws": 50_000, "vectors": 10_000, "characters": 24_000},
        "gpu": {"draws": 50_000, "vectors": 10_000, "characters": 200_000},
    },
    seconds={"smoke": 2, "laptop": 5, "gpu": 8},
)
