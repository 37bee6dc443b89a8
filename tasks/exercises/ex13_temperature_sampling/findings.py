"""What 21.13 measures: samples beside the distributions they are drawn from."""

from dataclasses import dataclass

TOKENS = ("the", "a", "his", "my", "God", "wine", "seven", "of")
LOGITS = (3.0, 2.5, 2.0, 1.0, 0.5, 0.0, -1.0, -3.0)
TEMPERATURES = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)
TOP_K = 3
TINY = 1e-9  # a temperature as good as 0


@dataclass(frozen=True)
class Setting:
    """One temperature and top-k on one vector of logits."""

    temperature: float
    top_k: int | None
    probabilities: tuple[float, ...]
    entropy: float  # of the exact distribution, nats
    counts: tuple[int, ...]  # of the histogram
    p_value: float  # of the chi-square test on more draws
    freedom: int

    @property
    def name(self) -> str:
        """For legends."""
        return f"τ = {self.temperature:g}" + (f", k = {self.top_k}" if self.top_k else "")

    @property
    def samples(self) -> int:
        """In the histogram."""
        return sum(self.counts)

    @property
    def distinct(self) -> int:
        """Tokens that were sampled at all."""
        return sum(count > 0 for count in self.counts)

    @property
    def first_share(self) -> float:
        """Of the samples that the first token takes."""
        return self.counts[0] / self.samples

    @property
    def largest_share(self) -> float:
        """Of the samples that the commonest token takes."""
        return max(self.counts) / self.samples


@dataclass(frozen=True)
class Cooling:
    """How near a temperature comes to greedy decoding."""

    temperature: float
    share: float  # of random vectors where the sample is the argmax


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    source: str  # the sampler
    toy: tuple[Setting, ...]
    with_top_k: tuple[Setting, ...]
    real: tuple[Setting, ...]
    characters: tuple[str, ...]  # the model's vocabulary, as visible_character
    prompt: str
    samples: int
    draws: int
    naive: tuple[float, ...]  # softmax(logits / 0)
    cold: tuple[Cooling, ...]
    smallest_margin: float
    tied: tuple[float, float]  # share of the first of two tied tokens, at a tiny temperature and at 0
    warper_difference: float
    vectors: int

    @property
    def settings(self) -> tuple[Setting, ...]:
        """All of them."""
        return self.toy + self.with_top_k + self.real

    @property
    def tested(self) -> int:
        """Settings with more than one outcome."""
        return sum(setting.freedom > 0 for setting in self.settings)

    @property
    def smallest_p_value(self) -> float:
        """Of all tests."""
        return min(setting.p_value for setting in self.settings)

    def at(self, temperature: float) -> Setting:
        """The eight tokens at one of TEMPERATURES."""
        return next(setting for setting in self.toy if setting.temperature == temperature)

    def cooled(self, temperature: float) -> float:
        """Share of random vectors where the sample is the argmax."""
        return next(one.share for one in self.cold if one.temperature == temperature)

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        metrics: dict[str, float | int] = {}
        for setting in self.toy:
            tau = f"tau_{setting.temperature:g}"
            metrics |= {
                f"entropy_nats_{tau}": setting.entropy,
                f"most_likely_token_probability_{tau}": max(setting.probabilities),
                f"most_likely_token_sampled_share_{tau}": setting.first_share,
                f"distinct_tokens_{tau}": setting.distinct,
            }
            metrics |= {f"samples_of_{token.lower()}_{tau}": n for token, n in zip(TOKENS, setting.counts, strict=True)}
            if setting.freedom:
                metrics[f"chi_square_p_value_{tau}"] = setting.p_value
        for one in self.cold:
            metrics[f"argmax_share_on_random_vectors_tau_{one.temperature:g}"] = one.share
        return metrics | {
            "samples_per_temperature": self.samples,
            "chi_square_draws": self.draws,
            "chi_square_smallest_p_value": self.smallest_p_value,
            "warper_max_probability_difference": self.warper_difference,
            "tied_first_share_tau_0": self.tied[1],
            "tied_first_share_tau_tiny": self.tied[0],
        }
