"""Exercise 21.14: nucleus sampling in five visible steps, against two reference implementations."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import torch
from scipy.stats import chisquare
from torch import Tensor

from minigpt.decoding.sampling import top_p_warp
from reports.types import Answer, Check, Code, Figure, Heatmap, Part, Prose, Series, Table
from tasks.exercise import Context, Exercise
from tasks.recipes.catalogue import STUDY_ROPE

P = 0.85
TOKENS = ("and", "the", "LORD", "unto", "said", "ark", "of", "seven")  # in vocabulary order, not in that of likelihood
PROBABILITIES = tuple(map(Fraction, ("0.07", "0.40", "0.12", "0.02", "0.24", "0.005", "0.14", "0.005")))
GRID = (0.0, 1e-9, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99, 0.999, 1.0)


def sort_descending(logits: Tensor) -> tuple[Tensor, Tensor]:
    """(a) The logits from the largest down, and which token each belongs to: (…, V) → (…, V) twice."""
    return torch.sort(logits, dim=-1, descending=True, stable=True)


def cumulative_probabilities(ordered: Tensor) -> Tensor:
    """(b) Probability of a token or any likelier one, (…, V) → (…, V)."""
    weights = (ordered - ordered[..., :1]).exp()  # the largest logit is first: nothing can overflow
    return (weights / weights.sum(dim=-1, keepdim=True)).cumsum(dim=-1)


def cutoff(cumulative: Tensor, p: float) -> Tensor:
    """(c) How many tokens reach p together, the one that crosses it included, (…, V) → (…, 1); never none.

    p = 1 is all of them: rounded, the sum may be 1 before the last token is added.
    """
    size = cumulative.shape[-1]
    if p >= 1:
        return torch.full_like(cumulative[..., :1], size, dtype=torch.long)
    return ((cumulative < p).sum(dim=-1, keepdim=True) + 1).clamp(max=size)


def mask_below(logits: Tensor, order: Tensor, kept: Tensor) -> Tensor:
    """(d) -inf for every token ranked below the cut-off, back in vocabulary order, (…, V) → (…, V)."""
    ranks = torch.arange(logits.shape[-1], device=logits.device)
    removed = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, ranks >= kept)
    return logits.masked_fill(removed, float("-inf"))


def renormalise_and_sample(masked: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """(e) The distribution over what is left, (…, V), and one token drawn from it, (…)."""
    weights = (masked - masked.max(dim=-1, keepdim=True).values).exp()
    probabilities = weights / weights.sum(dim=-1, keepdim=True)
    cumulative = probabilities.cumsum(dim=-1)
    u = torch.rand(*masked.shape[:-1], 1, generator=generator, dtype=torch.float64).to(masked.device)
    return probabilities, (cumulative / cumulative[..., -1:] <= u).sum(dim=-1)


def nucleus_filter(logits: Tensor, p: float) -> Tensor:
    """Steps (a) to (d) (Holtzman et al., 2020, section 3.1).

    Raises:
        ValueError: p is outside [0, 1].
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p must be in [0, 1], got {p}")
    ordered, order = sort_descending(logits)
    return mask_below(logits, order, cutoff(cumulative_probabilities(ordered), p))


def sample_nucleus(logits: Tensor, p: float, generator: torch.Generator | None = None) -> Tensor:
    """One token per distribution from its nucleus, (…, V) → (…) int64."""
    return renormalise_and_sample(nucleus_filter(logits, p), generator)[1]


# --- The reference implementations, and two that are wrong -----------------------------------------------------


def transformers_filter(logits: Tensor, p: float) -> Tensor:
    """Transformers' warper."""
    from transformers import TopPLogitsWarper

    filtered: Tensor = TopPLogitsWarper(p)(None, logits)
    return filtered


def crossing_dropped(logits: Tensor, p: float) -> Tensor:
    """Wrong: keeps what stays below p, so without the token that crosses it."""
    ordered, order = sort_descending(logits)
    return mask_below(logits, order, (cumulative_probabilities(ordered) < p).sum(dim=-1, keepdim=True))


def not_scattered(logits: Tensor, p: float) -> Tensor:
    """Wrong: takes ranks for token numbers."""
    ordered, order = sort_descending(logits)
    return mask_below(logits, torch.arange(len(order)), cutoff(cumulative_probabilities(ordered), p))


Filter = Callable[[Tensor, float], Tensor]
REFERENCES: dict[str, Filter] = {
    "minigpt.decoding.sampling.top_p_warp": top_p_warp,
    "TopPLogitsWarper": transformers_filter,
}


def random_logits(n: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Vectors of 50 logits: plain, with many ties, and so spread out that most probabilities vanish."""
    plain = torch.randn(n, 50, generator=generator, dtype=torch.float64) * 3
    return {"plain": plain, "with ties": plain.round(), "extreme": plain * 30}


def disagreements(n: int, generator: torch.Generator) -> tuple[Table, int]:
    """Vectors on which our filter and a reference keep different tokens, over the grid of p; and their number.

    Among tied tokens any choice is right, so there the kept logits are compared instead of the kept tokens.
    """
    rows = []
    total = 0
    for name, reference in REFERENCES.items():
        for kind, logits in random_logits(n, generator).items():
            counts = []
            for p in GRID:
                ours, theirs = nucleus_filter(logits, p), reference(logits, p)
                if kind == "with ties":
                    ours, theirs = ours.sort(dim=-1).values, theirs.sort(dim=-1).values
                counts.append(int((ours != theirs).any(dim=-1).sum()))
            total += sum(counts)
            rows.append((name, kind, n * len(GRID), sum(counts)))
    columns = ("reference", "logits", "comparisons", "disagreements")
    grid = ", ".join(f"{p:g}" for p in GRID)
    return Table(columns, tuple(rows), f"{n:,} vectors of 50 logits at each p of {grid}.", "references"), total


@dataclass(frozen=True)
class Findings:
    """All that was measured; the answer only words it."""

    logits: Tensor
    ordered: Tensor
    order: Tensor
    cumulative: Tensor
    kept: int
    masked: Tensor
    probabilities: Tensor
    counts: Tensor  # of the samples, by token
    p_value: float
    exact_kept: int  # in rational arithmetic
    exact_difference: float  # of any probability from its rational value
    dropped_mass: float  # of the nucleus without the token that crosses p
    not_scattered: list[str]
    references: Table
    disagreements: int
    limits: tuple[int, int]  # vectors where p → 0 leaves one token, where p = 1 leaves all
    vectors: int
    saturated: float  # share of the extreme vectors whose sum is 1 before the last token
    sizes: dict[float, tuple[float, float, float]]  # p to quartiles of the model's nucleus size
    size_range: tuple[int, int]  # at P
    characters: int
    vocab_size: int

    @property
    def draws(self) -> int:
        """Samples that were tested."""
        return int(self.counts.sum())

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        metrics: dict[str, float | int] = {
            "p": P,
            "nucleus_size": self.kept,
            "nucleus_mass": float(self.cumulative[self.kept - 1]),
            "mass_without_crossing_token": self.dropped_mass,
            "chi_square_p_value": self.p_value,
            "reference_disagreements": self.disagreements,
            "model_nucleus_size_min": self.size_range[0],
            "model_nucleus_size_max": self.size_range[1],
        }
        for i, token in enumerate(TOKENS):
            metrics[f"renormalised_probability_{token.lower()}"] = float(self.probabilities[i])
        for p, (_, median, _) in self.sizes.items():
            metrics[f"model_nucleus_size_median_p_{p:g}"] = median
        return metrics


def exact_nucleus() -> tuple[int, tuple[Fraction, ...]]:
    """Size and renormalised probabilities of the example, in rational arithmetic."""
    order = sorted(range(len(TOKENS)), key=lambda i: -PROBABILITIES[i])
    kept, mass = 0, Fraction(0)
    while mass < Fraction(str(P)):
        mass += PROBABILITIES[order[kept]]
        kept += 1
    nucleus = set(order[:kept])
    return kept, tuple(q / mass if i in nucleus else Fraction(0) for i, q in enumerate(PROBABILITIES))


def model_nuclei(ctx: Context) -> tuple[dict[float, tuple[float, float, float]], tuple[int, int], int]:
    """Quartiles of the nucleus size over every next-character distribution of a passage, its range at P, how many."""
    trained = ctx.model(STUDY_ROPE)
    context = trained.model.config.context
    tokens = ctx.tokens(STUDY_ROPE)[: ctx.numbers["characters"] // context * context].view(-1, context)
    with torch.inference_mode():
        logits = trained.model(tokens).flatten(0, 1).double().cpu()
    cumulative = cumulative_probabilities(sort_descending(logits)[0])
    sizes = {p: cutoff(cumulative, p)[:, 0] for p in (0.5, P, 0.95, 0.99)}
    quartiles = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    summary = {}
    for p, size in sizes.items():
        low, median, high = torch.quantile(size.double(), quartiles).tolist()
        summary[p] = (low, median, high)
    at_p = sizes[P]
    return summary, (int(at_p.min()), int(at_p.max())), len(at_p)


def measure(ctx: Context) -> Findings:
    """The five steps on the example, the comparisons, and the nuclei of a model."""
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
    references, total = disagreements(n["vectors"], generator)
    kinds = random_logits(n["vectors"], generator)
    vectors = torch.cat(list(kinds.values()))
    sums = cumulative_probabilities(sort_descending(kinds["extreme"])[0])
    one = (nucleus_filter(vectors, 1e-9).isfinite().sum(dim=-1) == 1).sum()
    everything = nucleus_filter(vectors, 1.0).isfinite().all(dim=-1).sum()
    wrong = not_scattered(logits, P).isfinite().tolist()
    sizes, size_range, characters = model_nuclei(ctx)
    return Findings(
        logits=logits,
        ordered=ordered,
        order=order,
        cumulative=cumulative,
        kept=int(kept),
        masked=masked,
        probabilities=probabilities,
        counts=counts,
        p_value=float(chisquare(counts[inside].numpy(), (wanted[inside] * n["draws"]).numpy()).pvalue),
        exact_kept=exact_kept,
        exact_difference=(probabilities - wanted).abs().max().item(),
        dropped_mass=float(sum(q for q, keep in zip(PROBABILITIES, dropped.tolist(), strict=True) if keep)),
        not_scattered=[token for token, keep in zip(TOKENS, wrong, strict=True) if keep],
        references=references,
        disagreements=total,
        limits=(int(one), int(everything)),
        vectors=len(vectors),
        saturated=(sums[:, -2] >= 1).double().mean().item(),
        sizes=sizes,
        size_range=size_range,
        characters=characters,
        vocab_size=ctx.model(STUDY_ROPE).tokenizer.vocab_size,
    )


def checks(f: Findings) -> tuple[Check, ...]:
    """The claims."""
    outside = int(f.counts[f.probabilities == 0].sum())
    return (
        Check.equal("size of the nucleus, against rational arithmetic", f.kept, f.exact_kept),
        Check.at_most("its probabilities against the same, max difference", f.exact_difference, 1e-12),
        Check.equal("random vectors on which a reference keeps other tokens", f.disagreements, 0),
        Check.equal(f"p = 10⁻⁹ leaves one token, of {f.vectors:,} vectors on", f.limits[0], f.vectors),
        Check.equal(f"p = 1 leaves all tokens, of {f.vectors:,} vectors on", f.limits[1], f.vectors),
        Check.at_least(f"chi-square of {f.draws:,} draws against exact probabilities: p-value", f.p_value, 1e-5),
        Check.equal("draws from outside the nucleus", outside, 0),
        Check.at_least("mass of the nucleus", float(f.cumulative[f.kept - 1]), P),
        Check.at_most("its mass without the last token it keeps", f.dropped_mass, P),
    )


def ranked(f: Findings) -> list[str]:
    """Tokens from the likeliest down."""
    return [TOKENS[i] for i in f.order.tolist()]


def part_a(f: Findings) -> Part:
    """Sorted logits."""
    rows = tuple(
        (rank + 1, TOKENS[i], i, float(f.ordered[rank]), float(PROBABILITIES[i]))
        for rank, i in enumerate(f.order.tolist())
    )
    columns = ("rank", "token", "index in the vocabulary", "logit", "probability")
    text = (
        f"Eight tokens, nucleus of p = {P:g}. In the vocabulary they stand in no useful order; sorting returns the "
        "logits *and* the index of each, without which step (d) could not find the way back."
    )
    code = Code(inspect.getsource(sort_descending))
    return Part("a", (Prose(text), code, Table(columns, rows, "After sorting.", "sorted")), "Sort the logits")


def part_b(f: Findings) -> Part:
    """Cumulative probabilities."""
    names = ranked(f)
    series = Series("cumulative probability", tuple(names), tuple(f.cumulative.tolist()))
    figure = Figure(
        "bar",
        (series,),
        "token, likeliest first",
        "probability",
        "Cumulative probability.",
        hlines=((P, f"p = {P:g}"),),
    )
    values = (tuple(f.cumulative.tolist()),)
    text = (
        "Probabilities are added from the likeliest down. The sum never falls, starts at the largest probability, "
        f"{float(f.cumulative[0]):.2f}, and ends at 1; the token of rank {f.kept} takes it past p = {P:g}."
    )
    return Part(
        "b",
        (
            Prose(text),
            Code(inspect.getsource(cumulative_probabilities)),
            figure,
            Heatmap(values, "token", "", "The same numbers.", tuple(names), ("cumulative",), annotate=True),
        ),
        "Cumulative probabilities",
    )


def part_c(f: Findings) -> Part:
    """The cut-off, here and in a model."""
    crossing = ranked(f)[f.kept - 1]
    rows = tuple((p, *quartiles, f.vocab_size) for p, quartiles in f.sizes.items())
    columns = ("p", "lower quartile", "median", "upper quartile", "vocabulary")
    caption = f"Size of the nucleus over {f.characters:,} next-character distributions of a trained model."
    text = (
        f"The first {f.kept} tokens reach {float(f.cumulative[f.kept - 1]):.3f}. “{crossing}” crosses p = {P:g} and "
        f"belongs to the nucleus; a filter that keeps only what stays *below* p would hold {f.dropped_mass:.3f} and, "
        "with a p smaller than the largest probability, nothing at all."
    )
    low, high = f.size_range
    model = (
        f"That the size follows the distribution is the point of the method: at p = {P:g} a trained model's nucleus "
        f"holds between {low} and {high} of {f.vocab_size} characters, depending on the place in the text."
    )
    code = Code(inspect.getsource(cutoff))
    return Part("c", (code, Prose(text), Prose(model), Table(columns, rows, caption, "sizes")), "The cut-off point")


def part_d(f: Findings) -> Part:
    """The mask in vocabulary order, and what happens without the way back."""
    kept = [token for token, x in zip(TOKENS, f.masked.tolist(), strict=True) if math.isfinite(x)]
    listing = "\n".join(
        f"{i}  {token:<6} {before:8.3f} {after:8.3f}"
        for i, (token, before, after) in enumerate(zip(TOKENS, f.logits.tolist(), f.masked.tolist(), strict=True))
    )
    text = (
        f"Kept: {', '.join(kept)}. Without scattering the mask back through the indices, it would fall on the first "
        f"{f.kept} entries of the vocabulary whatever they are: {', '.join(f.not_scattered)}."
    )
    return Part(
        "d",
        (
            Code(inspect.getsource(mask_below)),
            Code(listing, "Token, logit, masked logit, in vocabulary order."),
            Prose(text),
        ),
        "Mask the tokens below",
    )


def part_e(f: Findings) -> Part:
    """The distribution that is left, samples of it, and the references."""
    rows = tuple(
        (
            token,
            float(PROBABILITIES[i]),
            float(f.probabilities[i]),
            int(f.counts[i]),
            float(f.probabilities[i] * f.draws),
        )
        for i, token in enumerate(TOKENS)
    )
    columns = ("token", "probability", "renormalised", "samples", "expected")
    caption = f"{f.draws:,} samples; chi-square p-value {f.p_value:.2g}."
    verdict = (
        "keeps the same tokens as both references"
        if f.disagreements == 0
        else f"differs from a reference in {f.disagreements} cases"
    )
    text = (
        "### Against the references\n\nThe chapter's listing is not part of this project. In its place stand the "
        "project's own sampler and that of Transformers. Both take the nucleus from the other end: they sort upwards "
        "and remove while the sum stays at or below 1 − p. In floating point the two ways could round to different "
        f"cut-offs; in double precision, on these vectors, the filter {verdict}. As p → 0 one token stays "
        f"({f.limits[0]:,} of {f.vectors:,} vectors), at p = 1 all do ({f.limits[1]:,} of {f.vectors:,}). That needs "
        f"its own line in (c): on {f.saturated:.0%} of the extreme vectors the rounded sum is 1 before the last token."
    )
    code = Code(f"{inspect.getsource(renormalise_and_sample)}\n\n{inspect.getsource(nucleus_filter)}")
    return Part(
        "e", (code, Table(columns, rows, caption, "samples"), Prose(text), f.references), "Renormalise and sample"
    )


def answer(ctx: Context) -> Answer:
    """The five steps."""
    f = measure(ctx)
    comparisons = f.vectors * len(REFERENCES) * len(GRID)
    return Answer(
        summary=f"At p = {P:g} the example keeps {f.kept} of {len(TOKENS)} tokens; {f.disagreements} disagreements "
        f"with two references in {comparisons:,} comparisons; chi-square p-value {f.p_value:.2g}.",
        parts=(part_a(f), part_b(f), part_c(f), part_d(f), part_e(f)),
        checks=checks(f),
        metrics=f.metrics,
    )


EXERCISE = Exercise(
    id="21.14",
    title="Nucleus Sampling from Scratch",
    recipes=(STUDY_ROPE,),
    numbers={
        "smoke": {"draws": 10_000, "vectors": 500, "characters": 2_000},
        "laptop": {"draws": 50_000, "vectors": 10_000, "characters": 32_000},
        "gpu": {"draws": 50_000, "vectors": 10_000, "characters": 200_000},
    },
    seconds={"smoke": 2, "laptop": 5, "gpu": 8},
    answer=answer,
)
