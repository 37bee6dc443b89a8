"""Exercise 21.13: a sampler with temperature and top-k from scratch, tried a thousand times and tested on many more."""

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.special import softmax
from scipy.stats import chisquare
from torch import Tensor

from minigpt.evaluation.entropy import entropy
from reports.types import Answer, Block, Cell, Check, Code, Figure, Part, Prose, Series, Table
from tasks.exercise import Context, Exercise
from tasks.recipes.catalogue import STUDY_ROPE

TOKENS = ("the", "a", "his", "my", "God", "wine", "seven", "of")
LOGITS = (3.0, 2.5, 2.0, 1.0, 0.5, 0.0, -1.0, -3.0)
TEMPERATURES = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)
TOP_K = 3
TINY = 1e-9  # a temperature as good as 0


def next_token_probabilities(logits: Tensor, temperature: float = 1.0, top_k: int | None = None) -> Tensor:
    """softmax(logits / τ) over the k most likely tokens, (…, V) → (…, V) in float64.

    τ = 0 is defined as greedy: all mass on the largest logit, the first one of ties. Ties with the k-th stay.

    Raises:
        ValueError: a negative temperature, or k below 1.
    """
    if not temperature >= 0 or (top_k is not None and top_k < 1):
        raise ValueError(f"need temperature >= 0 and top_k >= 1, got {temperature} and {top_k}")
    logits = logits.double()
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1]).double()
    if top_k is not None and top_k < logits.shape[-1]:
        smallest = logits.sort(dim=-1, descending=True).values[..., top_k - 1, None]
        logits = logits.masked_fill(logits < smallest, float("-inf"))
    # Relative to the largest, so that no temperature, however small, can overflow.
    weights = ((logits - logits.max(dim=-1, keepdim=True).values) / temperature).exp()
    return weights / weights.sum(dim=-1, keepdim=True)


def sample_token(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """One token index per distribution, (…, V) → (…) int64, by inverting the cumulative distribution.

    A uniform number u falls between two cumulative probabilities; the token between them is drawn.
    """
    cumulative = next_token_probabilities(logits, temperature, top_k).cumsum(dim=-1)
    cumulative = cumulative / cumulative[..., -1:]  # ends in exactly 1, and u < 1: the index is always valid
    u = torch.rand(*logits.shape[:-1], 1, generator=generator, dtype=torch.float64)
    return (cumulative <= u).sum(dim=-1)


def draw(logits: Tensor, temperature: float, top_k: int | None, n: int, generator: torch.Generator) -> np.ndarray:
    """How often each token comes in ``n`` draws, (V,)."""
    tokens = sample_token(logits.expand(n, -1), temperature, top_k, generator)
    return np.asarray(torch.bincount(tokens, minlength=logits.shape[-1]))


def exact(logits: Tensor, temperature: float, top_k: int | None = None) -> np.ndarray:
    """The distribution to be drawn from, by scipy and not by the code above, (V,) float64."""
    z = logits.double().numpy()
    if temperature == 0:
        return np.asarray(np.arange(len(z)) == z.argmax(), dtype=float)
    if top_k is not None:
        z = np.where(z >= np.sort(z)[-top_k], z, -np.inf)
    return np.asarray(softmax(z / temperature))


def chi_square(counts: np.ndarray, probabilities: np.ndarray) -> tuple[float, int]:
    """p-value of Pearson's test and its degrees of freedom; tokens expected less than 5 times are one class."""
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


@dataclass(frozen=True)
class Setting:
    """One temperature and top-k on one vector of logits."""

    temperature: float
    top_k: int | None
    probabilities: np.ndarray
    counts: np.ndarray  # of the histogram
    p_value: float  # of the chi-square test on more draws
    freedom: int

    @property
    def name(self) -> str:
        """For legends."""
        return f"τ = {self.temperature:g}" + (f", k = {self.top_k}" if self.top_k else "")

    @property
    def entropy(self) -> float:
        """Of the exact distribution, nats."""
        return entropy(torch.from_numpy(self.probabilities)).item()


def try_setting(ctx: Context, logits: Tensor, temperature: float, top_k: int | None, salt: str) -> Setting:
    """A histogram of samples, and a test on more of them."""
    generator = ctx.generator(f"{salt} {temperature} {top_k}")
    probabilities = exact(logits, temperature, top_k)
    counts = draw(logits, temperature, top_k, ctx.numbers["samples"], generator)
    p_value, freedom = chi_square(draw(logits, temperature, top_k, ctx.numbers["draws"], generator), probabilities)
    return Setting(temperature, top_k, probabilities, counts, p_value, freedom)


@dataclass(frozen=True)
class Findings:
    """All that was measured; the answer only words it."""

    toy: tuple[Setting, ...]
    with_top_k: tuple[Setting, ...]
    real: tuple[Setting, ...]
    characters: tuple[str, ...]  # the model's vocabulary, as visible_character
    prompt: str
    samples: int
    draws: int
    naive: list[float]  # softmax(logits / 0)
    cold: dict[float, float]  # temperature to share of random vectors where the sample is the argmax
    smallest_margin: float
    tied: tuple[float, float]  # share of the first of two tied tokens, at a tiny temperature and at 0
    warper_difference: float
    vectors: int

    @cached_property
    def settings(self) -> tuple[Setting, ...]:
        """All of them."""
        return self.toy + self.with_top_k + self.real

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        metrics: dict[str, float | int] = {}
        for setting in self.toy:
            tau = f"tau_{setting.temperature:g}"
            metrics |= {
                f"entropy_nats_{tau}": setting.entropy,
                f"most_likely_token_probability_{tau}": float(setting.probabilities.max()),
                f"most_likely_token_sampled_share_{tau}": float(setting.counts[0] / self.samples),
                f"distinct_tokens_{tau}": int((setting.counts > 0).sum()),
            }
            metrics |= {
                f"samples_of_{token.lower()}_{tau}": int(n) for token, n in zip(TOKENS, setting.counts, strict=True)
            }
            if setting.freedom:
                metrics[f"chi_square_p_value_{tau}"] = setting.p_value
        for temperature, share in self.cold.items():
            metrics[f"argmax_share_on_random_vectors_tau_{temperature:g}"] = share
        return metrics | {
            "samples_per_temperature": self.samples,
            "chi_square_draws": self.draws,
            "chi_square_smallest_p_value": min(setting.p_value for setting in self.settings),
            "warper_max_probability_difference": self.warper_difference,
            "tied_first_share_tau_0": self.tied[1],
            "tied_first_share_tau_tiny": self.tied[0],
        }


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
            ours = next_token_probabilities(logits, temperature, top_k)
            worst = max(worst, (ours - theirs.softmax(dim=-1)).abs().max().item())
    return worst


def cool_down(vectors: int, generator: torch.Generator) -> tuple[dict[float, float], float]:
    """How often a sample is the argmax as τ falls, over random vectors of 50 logits; the smallest margin of a best."""
    logits = torch.randn(vectors, 50, generator=generator, dtype=torch.float64) * 3
    best = logits.topk(2, dim=-1)
    shares = {
        temperature: (sample_token(logits, temperature, None, generator) == best.indices[:, 0]).double().mean().item()
        for temperature in (1.0, 0.1, 0.01, 1e-3, 1e-6, TINY, 0.0)
    }
    return shares, (best.values[:, 0] - best.values[:, 1]).min().item()


def ties(n: int, generator: torch.Generator) -> tuple[float, float]:
    """Share of the first of two equal best tokens, as τ → 0 and at τ = 0."""
    logits = torch.tensor([1.0, 1.0, 0.0])
    first = [float(draw(logits, temperature, None, n, generator)[0] / n) for temperature in (TINY, 0.0)]
    return first[0], first[1]


def visible_character(character: str) -> str:
    """A character that can be read on an axis."""
    return {"\n": "⏎", " ": "␣", "\t": "⇥"}.get(character, character)


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    n, trained = ctx.numbers, ctx.model(STUDY_ROPE)
    logits = torch.tensor(LOGITS)
    tokens = ctx.tokens(STUDY_ROPE)[None, : trained.model.config.context]
    with torch.inference_mode():
        real_logits = trained.model(tokens, last_only=True)[0, -1].float().cpu()
    cold, margin = cool_down(n["vectors"], ctx.generator("cold"))
    return Findings(
        toy=tuple(try_setting(ctx, logits, tau, None, "toy") for tau in TEMPERATURES),
        with_top_k=tuple(try_setting(ctx, logits, tau, TOP_K, "toy") for tau in TEMPERATURES[2:]),
        real=tuple(try_setting(ctx, real_logits, tau, None, "real") for tau in (0.5, 1.0, 2.0)),
        characters=tuple(visible_character(trained.tokenizer.decode([i])) for i in range(trained.tokenizer.vocab_size)),
        prompt=trained.tokenizer.decode(tokens[0, -32:].tolist()),
        samples=n["samples"],
        draws=n["draws"],
        naive=(logits / 0.0).softmax(dim=-1).tolist(),
        cold=cold,
        smallest_margin=margin,
        tied=ties(n["draws"], ctx.generator("ties")),
        warper_difference=compare_with_transformers(n["vectors"], ctx.generator("warpers")),
        vectors=n["vectors"],
    )


def checks(f: Findings) -> tuple[Check, ...]:
    """The claims."""
    outside = sum(int(setting.counts[setting.probabilities == 0].sum()) for setting in f.settings)
    greedy = f.toy[0]
    agrees = [
        Check.at_least(
            f"chi-square of {f.draws:,} draws against the exact softmax, {setting.name} "
            f"({'8 tokens' if len(setting.counts) == len(TOKENS) else 'the model'}): p-value",
            setting.p_value,
            1e-5,
        )
        for setting in f.settings
        if setting.freedom
    ]
    return (
        *agrees,
        Check.equal("samples of tokens that top-k or τ = 0 excludes", outside, 0),
        Check.equal("τ = 0: samples that are the argmax", int(greedy.counts[0]), f.samples),
        Check.equal(f"τ = 0 on {f.vectors:,} random vectors: share that is the argmax", f.cold[0.0], 1.0),
        Check.equal(f"τ = {TINY:g} on the same: share that is the argmax", f.cold[TINY], 1.0),
        Check.at_most(
            f"probabilities against Transformers' warpers on {f.vectors:,} random vectors, grid of τ and k, max "
            "difference",
            f.warper_difference,
            1e-12,
        ),
        Check.equal("dividing by τ = 0 gives NaN", any(map(math.isnan, f.naive)), True),
        Check.close("τ → 0 draws each of two tied tokens half the time", f.tied[0], 0.5, 4 * 0.5 / math.sqrt(f.draws)),
    )


def histogram(settings: tuple[Setting, ...], names: tuple[str, ...], places: list[int], caption: str) -> Figure:
    """Counts by token, one set of bars per setting."""
    series = tuple(
        Series(setting.name, tuple(names[i] for i in places), tuple(float(setting.counts[i]) for i in places))
        for setting in settings
    )
    return Figure("bar", series, "token", "samples", caption)


def table_of_counts(f: Findings) -> Table:
    """Counts beside their expectation."""
    rows = tuple(
        (
            token,
            LOGITS[i],
            *(
                number
                for setting in f.toy
                for number in (int(setting.counts[i]), float(setting.probabilities[i] * f.samples))
            ),
        )
        for i, token in enumerate(TOKENS)
    )
    columns = ("token", "logit", *(column for s in f.toy for column in (s.name, f"expected, {s.name}")))
    return Table(columns, rows, f"{f.samples:,} samples at each temperature, and what is expected.", "counts")


def table_of_tests(f: Findings) -> Table:
    """Spread and goodness of fit."""
    rows: list[tuple[Cell, ...]] = []
    for what, settings in (("8 tokens", f.toy + f.with_top_k), ("the model's next character", f.real)):
        for s in settings:
            share = float(s.counts.max() / f.samples)
            rows.append(
                (what, s.name, s.entropy, int((s.counts > 0).sum()), share, s.freedom, s.p_value if s.freedom else None)
            )
    columns = (
        "logits",
        "setting",
        "entropy, nats",
        "distinct tokens sampled",
        "share of the commonest",
        "degrees of freedom",
        "p-value",
    )
    caption = f"Entropy is exact, samples are {f.samples:,}, the chi-square test is on {f.draws:,} further draws."
    return Table(columns, tuple(rows), caption, "tests")


def reading(f: Findings) -> str:
    """What the histograms show."""
    by_temperature: Mapping[float, Setting] = {setting.temperature: setting for setting in f.toy}
    cold, one, hot = by_temperature[0.2], by_temperature[1.0], by_temperature[5.0]
    return (
        f"At $\\tau = 0.2$ the likeliest token takes {cold.counts[0] / f.samples:.0%} of the samples, at 1 "
        f"{one.counts[0] / f.samples:.0%}, at 5 {hot.counts[0] / f.samples:.0%}, where a "
        f"uniform choice gives {1 / len(TOKENS):.1%}; the entropy rises from {cold.entropy:.2f} over "
        f"{one.entropy:.2f} to {hot.entropy:.2f} nats, of at most "
        f"$\\ln {len(TOKENS)} = {math.log(len(TOKENS)):.2f}$. The order of the tokens never changes: temperature "
        "rescales differences of logits, top-k cuts. With "
        f"$k = {TOP_K}$ even $\\tau = 5$ leaves {int((f.with_top_k[-1].counts > 0).sum())} tokens."
    )


def zero_temperature(f: Findings) -> tuple[Block, ...]:
    """The limit, the definition and the trap."""
    rows = tuple((f"{tau:g}", share) for tau, share in f.cold.items())
    caption = f"Samples that are the argmax, over {f.vectors:,} random vectors of 50 logits."
    numbers = ", ".join("NaN" if math.isnan(value) else f"{value:g}" for value in f.naive)
    return (
        Prose(
            "### Temperature zero\n\nThe formula divides by zero there: `softmax(logits / 0)` in torch gives "
            f"[{numbers}]. The limit exists, though, and is greedy decoding, so $\\tau = 0$ is defined as the argmax. "
            "Taking the largest logit off first keeps every positive temperature safe from overflow:"
        ),
        Table(("τ", "share that is the argmax"), rows, caption, "cooling"),
        Prose(
            f"How small is small depends on the margin of the best token over the second, here at least "
            f"{f.smallest_margin:.1g}. Limit and definition differ in one case: of two equal best tokens, "
            f"$\\tau = 10^{{{round(math.log10(TINY))}}}$ draws the first in {f.tied[0]:.1%} of "
            f"{f.draws:,} samples, $\\tau = 0$ in {f.tied[1]:.0%}."
        ),
    )


def answer(ctx: Context) -> Answer:
    """The function, the histograms and the tests."""
    f = measure(ctx)
    likely = np.argsort(-f.real[1].probabilities)[:15].tolist()
    source = f"{inspect.getsource(next_token_probabilities)}\n\n{inspect.getsource(sample_token)}"
    everything = list(range(len(TOKENS)))
    p_value = f.metrics["chi_square_smallest_p_value"]
    tested = sum(setting.freedom > 0 for setting in f.settings)
    blocks: tuple[Block, ...] = (
        Prose("With temperature $\\tau$ the probability of token $i$ is $p_i \\propto e^{z_i / \\tau}$."),
        Code(source, "The sampler. A vector of logits gives one index, a batch gives one each."),
        histogram(
            f.toy, TOKENS, everything, f"{f.samples:,} samples at each temperature, eight tokens with fixed logits."
        ),
        table_of_counts(f),
        Prose(reading(f)),
        histogram(f.with_top_k, TOKENS, everything, f"The same with top-k, k = {TOP_K}."),
        histogram(
            f.real,
            f.characters,
            likely,
            f"A trained model's next character after “…{f.prompt}”, the 15 likeliest, {f.samples:,} samples.",
        ),
        Prose(
            f"Do the samples follow the distribution? Pearson's test on {f.draws:,} draws compares each setting with "
            f"the softmax computed by another library; the smallest of {tested} p-values is {p_value:.2g}, where "
            f"chance alone brings one of {tested} below {1 / tested:.2g} on average."
        ),
        table_of_tests(f),
        *zero_temperature(f),
    )
    one = next(setting for setting in f.toy if setting.temperature == 1)
    return Answer(
        summary=f"The commonest token takes from {f.toy[-1].counts.max() / f.samples:.0%} (τ = {TEMPERATURES[-1]:g}) "
        f"over {one.counts.max() / f.samples:.0%} (τ = 1) to "
        f"{f.toy[0].counts.max() / f.samples:.0%} (τ = 0) of {f.samples:,} samples; the smallest "
        f"chi-square p-value is {p_value:.2g}.",
        parts=(Part("", blocks, "the sampler, its histograms and its tests"),),
        checks=checks(f),
        metrics=f.metrics,
    )


EXERCISE = Exercise(
    id="21.13",
    title="Temperature Sampling Implementation",
    recipes=(STUDY_ROPE,),
    numbers={
        "smoke": {"samples": 1_000, "draws": 10_000, "vectors": 1_000},
        "laptop": {"samples": 1_000, "draws": 50_000, "vectors": 10_000},
        "gpu": {"samples": 1_000, "draws": 50_000, "vectors": 10_000},
    },
    seconds={"smoke": 2, "laptop": 2, "gpu": 4},
    answer=answer,
)
