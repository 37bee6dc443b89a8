"""What 21.3 computes: parameters of all published models, and effects of size and data."""

import math
from dataclasses import dataclass

from minigpt.cost.published import GPT1, GPT3, MODELS, PublishedModel


@dataclass(frozen=True)
class Counted:
    """Parameters of one published model."""

    name: str
    formula: int  # of the consistent architecture, in closed form
    as_printed: int  # with heads, head width and width taken literally
    in_old_vocabulary: int | None  # with GPT-1's vocabulary; of GPT-2's sizes
    built: int  # of this project's model, built without memory
    transformers: int | None  # of the Transformers implementation, where there is one


@dataclass(frozen=True)
class Share:
    """Loss that a step from one family's largest model to the next's saves by one law, nats per token."""

    law: str
    before: str
    after: str
    token_factor: float  # of the tokens assumed for GPT-1 and GPT-2
    by_size: float
    by_data: float

    @property
    def of_size(self) -> float:
        """The share of size in what is saved."""
        return self.by_size / (self.by_size + self.by_data)


@dataclass(frozen=True)
class Pair:
    """Two published models that differ in one thing."""

    what: str
    before: str
    after: str
    factor: float
    drop: float  # of ln perplexity on LAMBADA, nats

    @property
    def per_ten(self) -> float:
        """Drop for each factor of ten, nats."""
        return self.drop / math.log10(self.factor)


@dataclass(frozen=True)
class Findings:
    """All that was computed."""

    counts: dict[str, Counted]  # by the model's name
    shares: tuple[Share, ...]  # with the assumed tokens, half and twice of them
    pairs: tuple[Pair, ...]
    tokens: dict[str, float]  # of a family's corpus; of GPT-3 those that it read
    mix_tokens: tuple[float, float]  # GPT-3's corpora; different ones among those read
    training_flops: dict[str, float]  # of GPT-1 and GPT-3 175B

    @property
    def assumed(self) -> tuple[Share, ...]:
        """The shares with the assumed tokens."""
        return tuple(share for share in self.shares if share.token_factor == 1.0)

    def growth(self) -> tuple[float, float, float]:
        """Factors from GPT-1 to GPT-3 175B: parameters, tokens, training FLOPs."""
        first, last = GPT1.name, GPT3[-1].name
        return (
            self.counts[last].formula / self.counts[first].formula,
            self.tokens["GPT-3"] / self.tokens["GPT-1"],
            self.training_flops[last] / self.training_flops[first],
        )

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        counted = [(model, self.counts[model.name]) for model in MODELS]
        size, tokens, flops = self.growth()
        old = [(model, found.in_old_vocabulary) for model, found in counted if found.in_old_vocabulary is not None]
        metrics: dict[str, float | int] = {
            **{f"parameters_{slug(model.name)}": found.formula for model, found in counted},
            **{f"published_parameters_millions_{slug(m.name)}": m.parameters_millions for m in MODELS},
            **{f"as_printed_parameters_{slug(m.name)}": found.as_printed for m, found in counted if not m.heads_fit},
            **{f"old_vocabulary_parameters_{slug(model.name)}": number for model, number in old},
            "size_factor_gpt_1_to_gpt_3_175b": size,
            "training_tokens_factor_gpt_1_to_gpt_3_175b": tokens,
            "training_flops_factor_gpt_1_to_gpt_3_175b": flops,
        }
        for pair in self.pairs:
            key = f"{pair.what.split()[0].rstrip(',')}_{slug(pair.before)}_to_{slug(pair.after)}"
            metrics[f"lambada_drop_per_factor_of_ten_nats_{key}"] = pair.per_ten
        for share in self.assumed:
            key = f"{share.law.split()[0].lower()}_{slug(share.before)}_to_{slug(share.after)}"
            metrics |= {f"loss_drop_by_size_nats_{key}": share.by_size, f"loss_drop_by_data_nats_{key}": share.by_data}
        return metrics


def slug(name: str) -> str:
    """A model's name in metrics."""
    return name.lower().replace(" ", "_").replace(".", "_").replace("-", "_")


def published(name: str) -> PublishedModel:
    """A model as it was published."""
    return next(model for model in MODELS if model.name == name)
