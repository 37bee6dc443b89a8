"""Exercise 21.6: what temperature does to a softmax over four tokens."""

import math
from decimal import Decimal, localcontext
from itertools import pairwise

import torch
from scipy.optimize import brentq
from torch import Tensor

from minigpt.evaluation.entropy import effective_support, entropy, normalised_entropy
from reports.types import Answer, Block, Check, Figure, Part, Prose, Series, Table
from tasks.exercise import Context, Exercise

LOGITS = (2.0, 1.0, 0.5, -1.0)
TEMPERATURES = (0.5, 1.0, 2.0)
THRESHOLD = 0.99  # of the largest possible entropy: what "approximately uniform" means here
RATIO = 1.1  # another reading: no token more than so many times as likely as another
LIMITS = (0.01, 0.05, 0.1, 0.2, 5.0, 10.0, 100.0, 10_000.0)  # towards both
THRESHOLDS = (0.9, 0.95, THRESHOLD, 0.999, 0.9999)
DIGITS = 50


def probabilities(tau: float) -> Tensor:
    """Softmax of the logits at one temperature, (4,) float64."""
    return (torch.tensor(LOGITS, dtype=torch.float64) / tau).softmax(dim=-1)


def exact_probabilities(tau: float) -> list[Decimal]:
    """The same in decimal arithmetic, from the definition: the independent check."""
    with localcontext() as context:
        context.prec = DIGITS
        weights = [(Decimal(z) / Decimal(tau)).exp() for z in LOGITS]
        return [weight / sum(weights) for weight in weights]


def exact_entropy(tau: float) -> Decimal:
    """Entropy in nats in decimal arithmetic."""
    with localcontext() as context:
        context.prec = DIGITS
        return -sum((p * p.ln() for p in exact_probabilities(tau)), Decimal(0))


def threshold_temperature(threshold: float) -> float:
    """The temperature at which normalised entropy equals ``threshold``, by Brent's method (1973, chapter 4)."""
    return float(brentq(lambda tau: normalised_entropy(probabilities(tau)).item() - threshold, 0.05, 1e4, xtol=1e-13))


def bisected_temperature(threshold: float) -> float:
    """The same by bisection in decimal arithmetic: another method, another arithmetic, another entropy."""
    low, high = 0.05, 1e4
    with localcontext() as context:
        context.prec = DIGITS
        goal = Decimal(threshold) * Decimal(len(LOGITS)).ln()
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if exact_entropy(middle) < goal else (low, middle)
    return (low + high) / 2


def ratio_temperature() -> float:
    """The temperature at which the largest probability is ``RATIO`` times the smallest."""
    return (max(LOGITS) - min(LOGITS)) / math.log(RATIO)


def answer(context: Context) -> Answer:
    """All four parts; nothing in them depends on the profile."""
    crossing = threshold_temperature(THRESHOLD)
    metrics: dict[str, float | int] = {}
    for tau in TEMPERATURES:
        p = probabilities(tau)
        metrics |= {f"probability_token_{i + 1}_tau_{tau}": value for i, value in enumerate(p.tolist())}
        metrics |= {
            f"entropy_nats_tau_{tau}": entropy(p).item(),
            f"entropy_bits_tau_{tau}": entropy(p).item() / math.log(2),
            f"entropy_normalised_tau_{tau}": normalised_entropy(p).item(),
        }
    metrics |= {f"tau_at_normalised_entropy_{t}": threshold_temperature(t) for t in THRESHOLDS}
    metrics[f"tau_at_probability_ratio_{RATIO}"] = ratio_temperature()
    for tau in (LIMITS[0], LIMITS[-1]):
        exact = exact_probabilities(tau)
        metrics |= {
            f"largest_probability_tau_{tau:g}": float(max(exact)),
            f"smallest_probability_tau_{tau:g}": float(min(exact)),
            f"entropy_nats_tau_{tau:g}": float(exact_entropy(tau)),
        }
    metrics["entropy_nats_uniform"] = math.log(len(LOGITS))
    entropies = ", ".join(f"{metrics[f'entropy_nats_tau_{tau}']:.4f}" for tau in TEMPERATURES)
    return Answer(
        summary=f"Entropy at τ = 0.5, 1, 2 is {entropies} nats; {THRESHOLD:.0%} of the maximum is passed at "
        f"τ = {crossing:.3f}.",
        parts=(
            Part("a", part_a(), "probabilities at three temperatures"),
            Part("b", part_b(), "entropy of each distribution"),
            Part("c", part_c(crossing), "where it becomes approximately uniform"),
            Part("d", part_d(), "the limits τ → 0⁺ and τ → ∞"),
        ),
        checks=checks(crossing),
        metrics=metrics,
    )


def part_a() -> tuple[Block, ...]:
    """Probabilities."""
    rows = [(f"{i + 1}", z, *(probabilities(tau)[i].item() for tau in TEMPERATURES)) for i, z in enumerate(LOGITS)]
    odds = [math.exp((LOGITS[0] - LOGITS[1]) / tau) for tau in TEMPERATURES]
    ratios = ", ".join(f"{ratio:.3f} at $\\tau = {tau:g}$" for ratio, tau in zip(odds, TEMPERATURES, strict=True))
    return (
        Prose(
            r"With temperature $\tau$ the probability of token $i$ is"
            r"$$p_i(\tau) = \frac{e^{z_i/\tau}}{\sum_j e^{z_j/\tau}}, \qquad "
            r"\frac{p_i}{p_j} = e^{(z_i - z_j)/\tau}.$$"
            "Only differences of logits count, and the temperature divides them: the odds of the first token "
            f"against the second are {ratios}. The order of the tokens never changes."
        ),
        Table(
            columns=("token", "logit", *(f"p at τ = {tau:g}" for tau in TEMPERATURES)),
            rows=tuple(rows),
            caption="Softmax probabilities at three temperatures",
            name="probabilities",
        ),
    )


def part_b() -> tuple[Block, ...]:
    """Entropies."""
    rows = []
    for tau in TEMPERATURES:
        p = probabilities(tau)
        nats = entropy(p).item()
        rows.append((tau, nats, nats / math.log(2), normalised_entropy(p).item(), effective_support(p).item()))
    return (
        Prose(
            r"$H = -\sum_i p_i \ln p_i$ is in nats, and in bits after division by $\ln 2$. Normalised by its maximum "
            f"$\\ln {len(LOGITS)} = {math.log(len(LOGITS)):.6f}$ nats it lies between 0 and 1. The last column, $e^H$, "
            "is the number of equally likely tokens that would be as uncertain."
        ),
        Table(
            columns=("τ", "H (nats)", "H (bits)", "H / ln 4", "effective tokens e^H"),
            rows=tuple(rows),
            caption="Entropy at three temperatures",
            name="entropy",
        ),
    )


def part_c(crossing: float) -> tuple[Block, ...]:
    """The temperature at which a stated threshold is passed, and how it depends on the threshold."""
    variance = torch.tensor(LOGITS, dtype=torch.float64).var(correction=0).item()
    rows = []
    for threshold in THRESHOLDS:
        tau = threshold_temperature(threshold)
        p = probabilities(tau)
        asymptotic = math.sqrt(variance / (2 * (1 - threshold) * math.log(len(LOGITS))))
        rows.append((threshold, tau, asymptotic, p.max().item(), p.min().item(), (p.max() / p.min()).item()))
    p = probabilities(crossing)
    return (
        Prose(
            "“Approximately” needs a number. Taken here: normalised entropy of at least "
            f"{THRESHOLD}. Because"
            r"$$\frac{dH}{d\tau} = \frac{\operatorname{Var}_{p(\tau)}(z)}{\tau^3} > 0,$$"
            "entropy rises with every increase of the temperature, so the crossing is unique; a root finder (Brent) "
            f"puts it at $\\tau = {crossing:.6f}$. There the likeliest token still has {p.max():.4f} and the "
            f"unlikeliest {p.min():.4f}, a ratio of {p.max() / p.min():.3f}: entropy is flat near its maximum, so "
            "a threshold close to 1 leaves visible differences. For high temperatures"
            r"$$H \approx \ln n - \frac{\operatorname{Var}(z)}{2\tau^2}, \qquad "
            r"\tau \approx \sqrt{\frac{\operatorname{Var}(z)}{2\,(1-\theta)\ln n}}$$"
            r"with the plain variance of the logits and a threshold $\theta$: a tenth of the gap $1 - \theta$ "
            r"costs a temperature about $\sqrt{10}$ times as high. Asking instead that no token be more than "
            f"{RATIO:g} times as likely as another gives $\\tau = (z_1 - z_4) / \\ln {RATIO:g} = "
            f"{ratio_temperature():.4f}$."
        ),
        Table(
            columns=("threshold θ", "τ (root)", "τ (high-temperature formula)", "largest p", "smallest p", "ratio"),
            rows=tuple(rows),
            caption="Temperature at which normalised entropy passes a threshold",
            name="thresholds",
        ),
        entropy_figure(),
    )


def entropy_figure() -> Figure:
    """Normalised entropy and the largest probability against temperature."""
    taus = torch.logspace(-1.5, 2, 141, dtype=torch.float64).tolist()
    return Figure(
        kind="line",
        series=(
            Series("normalised entropy", tuple(taus), tuple(normalised_entropy(probabilities(t)).item() for t in taus)),
            Series("largest probability", tuple(taus), tuple(probabilities(t).max().item() for t in taus)),
        ),
        x_label="temperature τ",
        y_label="H / ln 4, probability",
        x_log=True,
        caption="Entropy rises from 0 to its maximum while the likeliest token falls from 1 to a quarter",
        hlines=((THRESHOLD, f"threshold {THRESHOLD}"), (1 / len(LOGITS), "uniform probability")),
    )


def part_d() -> tuple[Block, ...]:
    """The two limits, approached from the definition in decimal arithmetic."""
    rows = []
    for tau in LIMITS:
        exact = exact_probabilities(tau)
        rows.append((tau, float(max(exact)), float(1 - max(exact)), float(min(exact)), float(exact_entropy(tau))))
    tied = (torch.tensor([2.0, 2.0, 0.5, -1.0], dtype=torch.float64) / 0.01).softmax(dim=-1)
    gap = LOGITS[0] - LOGITS[1]
    return (
        Prose(
            r"As $\tau \to 0^+$ all odds $e^{(z_1 - z_j)/\tau}$ against the largest logit diverge: the distribution "
            "tends to certainty of the argmax, greedy decoding, and entropy to 0. The rest vanishes like "
            f"$e^{{-{gap:g}/\\tau}}$, faster than any power of $\\tau$: {gap:g} is the gap between the two largest "
            "logits. With ties the mass is shared: the logits 2, 2, 0.5, -1 give "
            f"{tied[0]:.3f} and {tied[1]:.3f} at $\\tau = 0.01$. At $\\tau = 0$ itself the formula divides by zero: "
            "implementations refuse it, as Transformers does, or define it as the argmax, as this project does."
        ),
        Prose(
            r"As $\tau \to \infty$ all scaled logits tend to 0 and every token to "
            f"$1/{len(LOGITS)} = {1 / len(LOGITS):g}$, entropy to "
            f"$\\ln {len(LOGITS)} = {math.log(len(LOGITS)):.6f}$ nats: what the model knows is no longer used. "
            r"It is slow: the probabilities differ from uniform by $O(1/\tau)$, the entropy by $O(1/\tau^2)$."
        ),
        Table(
            columns=("τ", "largest p", "1 - largest p", "smallest p", "H (nats)"),
            rows=tuple(rows),
            caption="Towards both limits, in 50-digit arithmetic",
            name="limits",
        ),
    )


def checks(crossing: float) -> tuple[Check, ...]:
    """Exact: decimal arithmetic, a second root finder, the derivative, the limits."""
    exact = [exact_probabilities(tau) for tau in TEMPERATURES]
    difference = max(
        abs(float(Decimal(p) - q))
        for tau, row in zip(TEMPERATURES, exact, strict=True)
        for p, q in zip(probabilities(tau).tolist(), row, strict=True)
    )
    entropies = max(abs(entropy(probabilities(tau)).item() - float(exact_entropy(tau))) for tau in TEMPERATURES)
    grid = torch.logspace(-1, 3, 200, dtype=torch.float64).tolist()
    curve = [entropy(probabilities(tau)).item() for tau in grid]
    z, step = torch.tensor(LOGITS, dtype=torch.float64), 1e-5
    p = probabilities(1.0)
    variance = ((p * z**2).sum() - (p * z).sum() ** 2).item()
    slope = (entropy(probabilities(1 + step)) - entropy(probabilities(1 - step))).item() / (2 * step)
    cold = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    return (
        Check.at_most("probabilities equal 50-digit decimal arithmetic (largest difference)", difference, 1e-14),
        Check.at_most("entropies equal 50-digit decimal arithmetic (largest difference, nats)", entropies, 1e-14),
        Check.close(
            f"Brent's τ for normalised entropy {THRESHOLD} equals bisection in decimal arithmetic",
            crossing,
            bisected_temperature(THRESHOLD),
            1e-9,
        ),
        Check.equal(
            "entropy rises over 200 temperatures from 0.1 to 1000 (steps down)",
            sum(b <= a for a, b in pairwise(curve)),
            0,
        ),
        Check.close("dH/dτ at τ = 1 equals the variance of the logits (central difference)", slope, variance, 1e-8),
        Check.close(
            f"largest over smallest probability at the temperature for a ratio of {RATIO:g}",
            (probabilities(ratio_temperature()).max() / probabilities(ratio_temperature()).min()).item(),
            RATIO,
            1e-12,
        ),
        Check.at_most(
            "τ = 0.01 is the argmax (largest difference)", (probabilities(0.01) - cold).abs().max().item(), 1e-15
        ),
        Check.at_most(
            "τ = 10⁶ is uniform (largest difference)", (probabilities(1e6) - 1 / len(LOGITS)).abs().max().item(), 1e-6
        ),
    )


EXERCISE = Exercise(
    id="21.6",
    title="Temperature Analysis",
    answer=answer,
    numbers={"smoke": {}, "laptop": {}, "gpu": {}},
    seconds={"smoke": 1, "laptop": 1, "gpu": 1},
)
