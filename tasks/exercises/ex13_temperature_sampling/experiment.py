"""Measures 21.13: histograms of samples, tests on more of them, and the limits of the sampler."""

import inspect

import numpy as np
import torch
from torch import Tensor

from minigpt.evaluation.entropy import entropy
from tasks.exercise import Context, Exercise
from tasks.exercises.ex13_temperature_sampling import sampler
from tasks.exercises.ex13_temperature_sampling.findings import (
    LOGITS,
    TEMPERATURES,
    TINY,
    TOP_K,
    Cooling,
    Findings,
    Setting,
)
from tasks.recipes.catalogue import STUDY_ROPE


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    n, trained = ctx.numbers, ctx.model(STUDY_ROPE)
    logits = torch.tensor(LOGITS)
    tokens = ctx.tokens(STUDY_ROPE)[None, : trained.model.config.context]
    with torch.inference_mode():
        real_logits = trained.model(tokens, last_only=True)[0, -1].float().cpu()
    cold, margin = cool_down(n["vectors"], ctx.generator("cold"))
    return Findings(
        source=f"{inspect.getsource(sampler.next_token_probabilities)}\n\n{inspect.getsource(sampler.sample_token)}",
        toy=tuple(try_setting(ctx, logits, tau, None, "toy") for tau in TEMPERATURES),
        with_top_k=tuple(try_setting(ctx, logits, tau, TOP_K, "toy") for tau in TEMPERATURES[2:]),
        real=tuple(try_setting(ctx, real_logits, tau, None, "real") for tau in (0.5, 1.0, 2.0)),
        characters=tuple(visible_character(trained.tokenizer.decode([i])) for i in range(trained.tokenizer.vocab_size)),
        prompt=trained.tokenizer.decode(tokens[0, -32:].tolist()),
        samples=n["samples"],
        draws=n["draws"],
        naive=tuple((logits / 0.0).softmax(dim=-1).tolist()),
        cold=cold,
        smallest_margin=margin,
        tied=ties(n["draws"], ctx.generator("ties")),
        warper_difference=compare_with_transformers(n["vectors"], ctx.generator("warpers")),
        vectors=n["vectors"],
    )


def draw(logits: Tensor, temperature: float, top_k: int | None, n: int, generator: torch.Generator) -> np.ndarray:
    """How often each token comes in ``n`` draws, (V,)."""
    tokens = sampler.sample_token(logits.expand(n, -1), temperature, top_k, generator)
    return np.asarray(torch.bincount(tokens, minlength=logits.shape[-1]))


def exact(logits: Tensor, temperature: float, top_k: int | None = None) -> np.ndarray:
    """The distribution to be drawn from, by scipy and not by the code above, (V,) float64."""
    from scipy.special import softmax

    z = logits.double().numpy()
    if temperature == 0:
        return np.asarray(np.arange(len(z)) == z.argmax(), dtype=float)
    if top_k is not None:
        z = np.where(z >= np.sort(z)[-top_k], z, -np.inf)
    return np.asarray(softmax(z / temperature))


def chi_square(counts: np.ndarray, probabilities: np.ndarray) -> tuple[float, int]:
    """p-value of Pearson's test and its degrees of freedom; tokens expected less than 5 times are one class."""
    from scipy.stats import chisquare

    expected = probabilities * counts.sum()
    if counts[probabilities == 0].any():
        return 0.0, 0  # an impossible token was drawn
    common = expected >= 5
    observed, wanted = counts[common], expected[common]
    if expected[~common].sum() > 0:
        observed, wanted = np.append(observed, counts[~common].sum()), np.append(wanted, expected[~common].sum())
    if len(observed) < 2:
        return 1.0, 0  # a single outcome: nothing to test
    return float(chisquare(observed, wanted * (observed.sum() / wanted.sum())).pvalue), len(observed) - 1


def try_setting(ctx: Context, logits: Tensor, temperature: float, top_k: int | None, salt: str) -> Setting:
    """A histogram of samples, and a test on more of them."""
    generator = ctx.generator(f"{salt} {temperature} {top_k}")
    probabilities = exact(logits, temperature, top_k)
    counts = draw(logits, temperature, top_k, ctx.numbers["samples"], generator)
    p_value, freedom = chi_square(draw(logits, temperature, top_k, ctx.numbers["draws"], generator), probabilities)
    return Setting(
        temperature=temperature,
        top_k=top_k,
        probabilities=tuple(probabilities.tolist()),
        entropy=entropy(torch.from_numpy(probabilities)).item(),
        counts=tuple(counts.tolist()),
        p_value=p_value,
        freedom=freedom,
    )


def compare_with_transformers(vectors: int, generator: torch.Generator) -> float:
    """Largest difference of any probability from that of Transformers' warpers, over random logits and a grid.

    A third of the vectors has ties (logits rounded to integers), a third is extreme (scaled by 30).
    """
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper

    logits = torch.randn(vectors, 50, generator=generator, dtype=torch.float64) * 3
    logits[::3] = logits[::3].round()
    logits[1::3] *= 30
    worst = 0.0
    for temperature in (0.1, 0.7, 1.0, 3.0):
        warped = TemperatureLogitsWarper(temperature)(None, logits)
        for top_k in (None, 1, 2, 10, 50):
            theirs = warped if top_k is None else TopKLogitsWarper(top_k)(None, warped)
            ours = sampler.next_token_probabilities(logits, temperature, top_k)
            worst = max(worst, (ours - theirs.softmax(dim=-1)).abs().max().item())
    return worst


def cool_down(vectors: int, generator: torch.Generator) -> tuple[tuple[Cooling, ...], float]:
    """How often a sample is the argmax as τ falls, over random vectors of 50 logits; the smallest margin of a best."""
    logits = torch.randn(vectors, 50, generator=generator, dtype=torch.float64) * 3
    best = logits.topk(2, dim=-1)
    shares = []
    for temperature in (1.0, 0.1, 0.01, 1e-3, 1e-6, TINY, 0.0):
        drawn = sampler.sample_token(logits, temperature, None, generator)
        shares.append(Cooling(temperature, (drawn == best.indices[:, 0]).double().mean().item()))
    return tuple(shares), (best.values[:, 0] - best.values[:, 1]).min().item()


def ties(n: int, generator: torch.Generator) -> tuple[float, float]:
    """Share of the first of two equal best tokens, as τ → 0 and at τ = 0."""
    logits = torch.tensor([1.0, 1.0, 0.0])
    first = [float(draw(logits, temperature, None, n, generator)[0] / n) for temperature in (TINY, 0.0)]
    return first[0], first[1]


def visible_character(character: str) -> str:
    """A character that can be read on an axis."""
    return {"\n": "⏎", " ": "␣", "\t": "⇥"}.get(character, character)


EXERCISE = Exercise(
    measure=measure,
    recipes=(STUDY_ROPE,),
    numbers={
        "smoke": {"samples": 1_000, "draws": 10_000, "vectors": 1_000},
        "laptop": {"samples": 1_000, "draws": 50_000, "vectors": 10_000},
        "gpu": {"samples": 1_000, "draws": 50_000, "vectors": 10_000},
    },
    seconds={"smoke": 2, "laptop": 2, "gpu": 4},
)
