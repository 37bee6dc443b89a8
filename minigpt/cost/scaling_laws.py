"""Loss as a function of parameters and training tokens, as three papers fitted it.

    Kaplan et al. (2020), "Scaling Laws for Neural Language Models", https://arxiv.org/abs/2001.08361
    Hoffmann et al. (2022), "Training Compute-Optimal Large Language Models", https://arxiv.org/abs/2203.15556
    Besiroglu et al. (2024), "Chinchilla Scaling: A replication attempt", https://arxiv.org/abs/2404.10102

Each holds for its own text and tokenizer: differences within a law mean something, losses across laws do not. All
refuse parameters and tokens that are not positive finite numbers, with a ``ValueError``.
"""

from collections.abc import Callable

from minigpt.checks import positive

Law = Callable[[float, float], float]
SizeAndData = tuple[float, float]  # parameters, tokens


def kaplan_loss(parameters: float, tokens: float) -> float:
    """L(N, D) of equation 1.5 with the constants of table 2, in nats per token; N without embeddings."""
    _check(parameters, tokens)
    alpha_n, alpha_d, critical_n, critical_d = 0.076, 0.103, 6.4e13, 1.8e13
    return float(((critical_n / parameters) ** (alpha_n / alpha_d) + critical_d / tokens) ** alpha_d)


def hoffmann_loss(parameters: float, tokens: float) -> float:
    """L(N, D) of section 3.3 and appendix D.3, in nats per token; N with embeddings."""
    _check(parameters, tokens)
    return float(1.69 + 406.4 / parameters**0.34 + 410.7 / tokens**0.28)


def besiroglu_loss(parameters: float, tokens: float) -> float:
    """The form of Hoffmann et al. fitted again to the same runs, in nats per token; N with embeddings."""
    _check(parameters, tokens)
    return float(1.8172 + 482.01 / parameters**0.3478 + 2085.43 / tokens**0.3658)


def contributions(law: Law, before: SizeAndData, after: SizeAndData) -> tuple[float, float]:
    """The loss that a step saves, split between parameters and tokens, in nats per token.

    Each is the mean over both orders of making the two changes (Shapley, 1953), so that they add up to the whole.
    """
    (n0, d0), (n1, d1) = before, after
    by_size = (law(n0, d0) - law(n1, d0) + law(n0, d1) - law(n1, d1)) / 2
    by_data = (law(n0, d0) - law(n0, d1) + law(n1, d0) - law(n1, d1)) / 2
    return by_size, by_data


def _check(parameters: float, tokens: float) -> None:
    positive("parameters", parameters)
    positive("tokens", tokens)
