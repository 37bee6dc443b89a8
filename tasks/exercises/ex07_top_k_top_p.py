"""Exercise 21.7: top-k against nucleus sampling on one distribution, and where each of them goes wrong."""

from fractions import Fraction
from itertools import accumulate

import torch
from scipy.stats import chisquare
from torch import Tensor

from minigpt.decoding.sampling import Sampling, sample, top_k_warp, top_p_warp
from minigpt.evaluation.entropy import effective_support, entropy, kl_divergence, participation_ratio, total_variation
from reports.types import Answer, Block, Check, Figure, Part, Prose, Series, Table
from tasks.exercise import Context, Exercise

GIVEN = tuple(map(Fraction, ("0.35", "0.20", "0.15", "0.10", "0.08", "0.05", "0.03", "0.02", "0.01", "0.01")))
K, P = 3, Fraction("0.9")

PEAKED = tuple(
    map(Fraction, ("0.96", "0.03", "0.006", "0.002", "0.001", "0.0005", "0.0002", "0.0001", "0.0001", "0.0001"))
)
PEAKED_K, UNLIKELY = 5, Fraction("0.01")
LENGTH = 200  # tokens of a text, for what a small probability per token means in the long run

Exact = tuple[Fraction, ...]


def nucleus_size(probabilities: Exact, p: Fraction) -> int:
    """Size of the smallest set of likeliest tokens with at least p of the mass, in rational arithmetic."""
    cumulative = accumulate(sorted(probabilities, reverse=True))
    return 1 + next(i for i, mass in enumerate(cumulative) if mass >= p)


def renormalised(probabilities: Exact, kept: int) -> Exact:
    """The first ``kept`` probabilities over their sum, 0 for the rest."""
    mass = sum(probabilities[:kept])
    return tuple(p / mass if i < kept else Fraction(0) for i, p in enumerate(probabilities))


def unlikely_mass() -> Fraction:
    """What top-k leaves to the unlikely tokens of the constructed distribution."""
    kept = renormalised(PEAKED, PEAKED_K)
    return sum((kept[i] for i in range(PEAKED_K) if PEAKED[i] < UNLIKELY), Fraction(0))


def tensor(probabilities: Exact, dtype: torch.dtype = torch.float64) -> Tensor:
    """Rational numbers as floating point."""
    return torch.tensor([float(p) for p in probabilities], dtype=dtype)


def answer(context: Context) -> Answer:
    """All four parts."""
    size, peaked_size = nucleus_size(GIVEN, P), nucleus_size(PEAKED, P)
    top_k, top_p = renormalised(GIVEN, K), renormalised(GIVEN, size)
    counts = drawn(context)
    metrics: dict[str, float | int] = {
        **{f"top_k_probability_token_{i + 1}": float(p) for i, p in enumerate(top_k[:K])},
        **{f"top_p_probability_token_{i + 1}": float(p) for i, p in enumerate(top_p[:size])},
        "top_k_tokens": K,
        "top_p_tokens": size,
        "top_k_mass_kept": float(sum(GIVEN[:K])),
        "top_p_mass_kept": float(sum(GIVEN[:size])),
        "entropy_nats": entropy(tensor(GIVEN)).item(),
        "effective_support_tokens": effective_support(tensor(GIVEN)).item(),
        "participation_ratio_tokens": participation_ratio(tensor(GIVEN)).item(),
        "top_k_total_variation": total_variation(tensor(top_k), tensor(GIVEN)).item(),
        "top_p_total_variation": total_variation(tensor(top_p), tensor(GIVEN)).item(),
        "top_k_kl_nats": kl_divergence(tensor(top_k), tensor(GIVEN)).item(),
        "top_p_kl_nats": kl_divergence(tensor(top_p), tensor(GIVEN)).item(),
        **{
            f"peaked_top_k_probability_token_{i + 1}": float(p)
            for i, p in enumerate(renormalised(PEAKED, PEAKED_K)[:PEAKED_K])
        },
        f"peaked_unlikely_draws_in_{LENGTH}_tokens": LENGTH * float(unlikely_mass()),
        "peaked_top_k_unlikely_tokens": sum(p < UNLIKELY for p in PEAKED[:PEAKED_K]),
        "peaked_top_k_unlikely_mass": float(unlikely_mass()),
        "peaked_top_p_tokens": peaked_size,
    }
    return Answer(
        summary=f"k = {K} keeps {float(sum(GIVEN[:K])):.0%} of the mass in {K} tokens, p = {float(P):g} keeps "
        f"{float(sum(GIVEN[:size])):.0%} in {size}; the distribution is worth "
        f"{metrics['effective_support_tokens']:.2f} tokens.",
        parts=(
            Part("a", part_a(), f"top-k with k = {K}"),
            Part("b", part_b(), f"nucleus with p = {float(P):g}"),
            Part("c", part_c(metrics), "which fits this distribution better"),
            Part("d", part_d(counts), "a distribution that top-k gets wrong"),
        ),
        checks=checks(counts),
        metrics=metrics,
    )


def truncation_table(kept: int, name: str, caption: str) -> Table:
    """Original and renormalised probabilities of every token."""
    new, cumulative = renormalised(GIVEN, kept), tuple(accumulate(GIVEN))
    return Table(
        columns=("token", "p", "cumulative", "kept", "renormalised", "exactly"),
        rows=tuple(
            (str(i + 1), float(p), float(c), i < kept, float(q), str(q))
            for i, (p, c, q) in enumerate(zip(GIVEN, cumulative, new, strict=True))
        ),
        caption=caption,
        name=name,
    )


def part_a() -> tuple[Block, ...]:
    """Top-k."""
    mass = sum(GIVEN[:K])
    return (
        Prose(
            f"Top-k keeps the {K} likeliest tokens, 1 to {K}, whatever their probabilities are (Fan et al., 2018). "
            f"Together they have {float(mass):g}; each is divided by that, so that they sum to 1 again:"
            r"$$p_i' = \frac{p_i}{\sum_{j \in S} p_j} \quad (i \in S), \qquad p_i' = 0 \quad (i \notin S).$$"
        ),
        truncation_table(K, "top_k", f"Top-k sampling with k = {K}"),
    )


def part_b() -> tuple[Block, ...]:
    """Nucleus."""
    size, cumulative = nucleus_size(GIVEN, P), tuple(accumulate(GIVEN))
    rows = []
    for dtype in (torch.float64, torch.float32, torch.float16):
        logits = tensor(GIVEN, dtype).log()
        total = tensor(GIVEN, dtype).cumsum(0)[size - 2].item()
        at_boundary = float(cumulative[size - 2])
        rows.append(
            (
                str(dtype).removeprefix("torch."),
                f"{total:.17g}",
                int(top_p_warp(logits, float(P)).isfinite().sum()),
                int(top_p_warp(logits, at_boundary).isfinite().sum()),
            )
        )
    return (
        Prose(
            f"Nucleus sampling keeps the smallest set of likeliest tokens whose mass is at least $p = {float(P):g}$ "
            f"(Holtzman et al., 2020, section 3.1). After {size - 1} tokens the mass is "
            f"{float(cumulative[size - 2]):g}, which is less; token {size} takes it to "
            f"{float(cumulative[size - 1]):g}. The token that crosses the threshold belongs to the set, so tokens 1 to "
            f"{size} stay and are divided by {float(cumulative[size - 1]):g}."
        ),
        truncation_table(size, "top_p", f"Nucleus sampling with p = {float(P):g}"),
        Prose(
            f"Sums of floating-point numbers are rounded. At $p = {float(P):g}$ that cannot matter, as the nearest "
            f"cumulative sums are {float(P - cumulative[size - 2]):g} below and "
            f"{float(cumulative[size - 1] - P):g} above. Asked for exactly $p = {float(cumulative[size - 2]):g}$ "
            f"the set of {nucleus_size(GIVEN, cumulative[size - 2])} is right in exact arithmetic, and rounding "
            "decides what a program keeps:"
        ),
        Table(
            columns=(
                "precision",
                f"sum of the first {size - 1}",
                f"kept at p = {float(P):g}",
                f"kept at p = {float(cumulative[size - 2]):g}",
            ),
            rows=tuple(rows),
            caption="The same nucleus in three precisions",
            name="rounding",
        ),
    )


def part_c(metrics: dict[str, float | int]) -> tuple[Block, ...]:
    """How well each set covers what the distribution is worth."""
    support, size = metrics["effective_support_tokens"], int(metrics["top_p_tokens"])
    nearer_nucleus = abs(size - support) < abs(K - support)
    better, worse = ("The nucleus", "top-k") if nearer_nucleus else ("Top-k", "the nucleus")
    rows = []
    for label, kept in ((f"top-k, k = {K}", K), (f"nucleus, p = {float(P):g}", size), ("none", len(GIVEN))):
        q = tensor(renormalised(GIVEN, kept))
        rows.append(
            (
                label,
                kept,
                float(sum(GIVEN[:kept])),
                total_variation(q, tensor(GIVEN)).item(),
                kl_divergence(q, tensor(GIVEN)).item(),
                entropy(q).item(),
                float(GIVEN[kept] / GIVEN[kept - 1]) if kept < len(GIVEN) else None,
            )
        )
    return (
        Prose(
            "The distribution falls off gently: its entropy of "
            f"{metrics['entropy_nats']:.4f} nats is that of {support:.2f} equally likely tokens ($e^H$; the "
            f"participation ratio $1/\\sum p_i^2$, which cares less about the tail, is "
            f"{metrics['participation_ratio_tokens']:.2f}). A truncation should remove the unreliable tail and leave "
            f"about that many. {better} does so with {size if nearer_nucleus else K} tokens; {worse} keeps "
            f"{K if nearer_nucleus else size}. Top-k drops {1 - metrics['top_k_mass_kept']:.0%} of the mass, "
            f"nucleus sampling {1 - metrics['top_p_mass_kept']:.0%}, and that share is exactly the total variation "
            r"distance to the model's distribution; $\mathrm{KL}(p' \,\|\, p) = -\ln \sum_{j \in S} p_j$ says the same "
            f"in nats. The first token that $k = {K}$ removes is {float(GIVEN[K] / GIVEN[K - 1]):.2f} times as likely "
            "as the last it keeps: nothing in the distribution marks that place as an end. At the end of the nucleus "
            f"that ratio is {float(GIVEN[size] / GIVEN[size - 1]):.2f}, hardly an edge either; what speaks for it is "
            "the mass."
        ),
        Table(
            columns=(
                "truncation",
                "tokens",
                "mass kept",
                "total variation",
                "KL (nats)",
                "entropy after (nats)",
                "first removed / last kept",
            ),
            rows=tuple(rows),
            caption="What each truncation does to the distribution",
            name="comparison",
        ),
        Figure(
            kind="bar",
            series=tuple(
                Series(label, tuple(str(i + 1) for i in range(len(GIVEN))), tuple(map(float, values)))
                for label, values in (
                    ("model", GIVEN),
                    (f"top-k, k = {K}", renormalised(GIVEN, K)),
                    (f"nucleus, p = {float(P):g}", renormalised(GIVEN, size)),
                )
            ),
            x_label="token",
            y_label="probability",
            caption="The distribution before and after truncation",
        ),
        Prose(
            f"The verdict is about this distribution. A smaller $p$ or a larger $k$ would bring the two together (here "
            f"$k = {size}$ gives the same set); the difference is that $k$ is fixed before the distribution is "
            "known, while the nucleus adapts to it."
        ),
    )


def part_d(counts: Tensor) -> tuple[Block, ...]:
    """A peaked distribution."""
    kept, size, mass = renormalised(PEAKED, PEAKED_K), nucleus_size(PEAKED, P), unlikely_mass()
    unlikely = [p for p in PEAKED[:PEAKED_K] if p < UNLIKELY]
    all_unlikely = float(sum(p for p in PEAKED if p < UNLIKELY))
    at_least_one = 1 - float(1 - mass) ** LENGTH
    rows = [
        (str(i + 1), float(p), float(kept[i]), (counts[i] / counts.sum()).item(), i < PEAKED_K, i < size)
        for i, p in enumerate(PEAKED)
    ]
    return (
        Prose(
            "A model that is sure of its next token, as in the middle of a word or a fixed phrase. “Highly "
            f"unlikely” is taken as a probability below {float(UNLIKELY):g}: of the {PEAKED_K} tokens that "
            f"$k = {PEAKED_K}$ keeps, {len(unlikely)} are. The nucleus with $p = {float(P):g}$ keeps {size}."
        ),
        Table(
            columns=("token", "p", f"top-k, k = {PEAKED_K}", "drawn (share)", "in top-k", "in nucleus"),
            rows=tuple(rows),
            caption="A peaked distribution under both truncations",
            name="peaked",
        ),
        Prose(
            f"Those {len(unlikely)} tokens keep {float(mass):.4f} of the mass. Small, but it is drawn from at every "
            f"step: if all distributions were like this one, a text of {LENGTH} tokens would hold "
            f"{LENGTH * float(mass):.2f} of them on average, and at least one with probability {at_least_one:.3f}. "
            f"Without truncation the share would be {all_unlikely:.4f}: here $k = {PEAKED_K}$ removes little of what "
            "it is meant to remove. A fixed $k$ cannot be small enough for peaked distributions and large enough for "
            "flat ones."
        ),
    )


def drawn(context: Context) -> Tensor:
    """How often each token of the peaked distribution is drawn with top-k, (10,) int64."""
    logits = tensor(PEAKED).log().expand(context.numbers["draws"], -1)
    return sample(logits, Sampling(top_k=PEAKED_K), context.generator("peaked")).bincount(minlength=len(PEAKED))


def checks(counts: Tensor) -> tuple[Check, ...]:
    """The warpers of Transformers, exact fractions, sums, and what is claimed of the constructed example."""
    from transformers import TopKLogitsWarper, TopPLogitsWarper

    p, size = float(P), nucleus_size(GIVEN, P)
    logits, ids = tensor(GIVEN).log()[None], torch.zeros(1, 1, dtype=torch.long)
    pairs = (
        (f"top-k {K}", top_k_warp(logits, K), TopKLogitsWarper(K)(ids, logits), renormalised(GIVEN, K)),
        (f"top-p {p:g}", top_p_warp(logits, p), TopPLogitsWarper(p)(ids, logits), renormalised(GIVEN, size)),
    )
    result = []
    for name, ours, theirs, exact in pairs:
        error = (ours.softmax(-1)[0] - tensor(exact)).abs().max().item()
        result.append(Check.equal(f"{name}: logits equal Transformers' warper", bool(torch.equal(ours, theirs)), True))
        result.append(Check.at_most(f"{name}: probabilities equal exact fractions (largest difference)", error, 1e-15))
    expected = tensor(renormalised(PEAKED, PEAKED_K))[:PEAKED_K] * counts.sum()
    return (
        *result,
        Check.equal("the given probabilities sum to exactly 1", str(sum(GIVEN)), "1"),
        Check.equal("the constructed probabilities sum to exactly 1", str(sum(PEAKED)), "1"),
        Check.at_least(
            f"tokens below {float(UNLIKELY):g} that top-k {PEAKED_K} keeps of the constructed distribution",
            sum(p < UNLIKELY for p in PEAKED[:PEAKED_K]),
            2,
        ),
        Check.equal("tokens that the nucleus keeps of it", nucleus_size(PEAKED, P), 1),
        Check.equal("draws of tokens that top-k removed", int(counts[PEAKED_K:].sum()), 0),
        Check.at_least(
            "draws from it against the exact distribution (p-value of chi-square)",
            float(chisquare(counts[:PEAKED_K].double(), expected).pvalue),
            1e-4,
        ),
    )


EXERCISE = Exercise(
    id="21.7",
    title="Top-k vs. Top-p",
    answer=answer,
    numbers={"smoke": {"draws": 10_000}, "laptop": {"draws": 100_000}, "gpu": {"draws": 1_000_000}},
    seconds={"smoke": 2, "laptop": 1, "gpu": 2},
)
