"""What 21.10 measures: a causal and a masked model as writers, as readers and as fillers of gaps."""

from dataclasses import dataclass

from minigpt.cost import published
from minigpt.evaluation.ngrams import Baselines
from minigpt.evaluation.statistics import Comparison, compare_paired, holm, mean_std

PAIRS = 3  # of neighbouring letters transposed in a corrupted window
TASKS = ("spelling", "word order")


@dataclass(frozen=True)
class Model:
    """A trained recipe."""

    recipe: str
    parameters: int
    steps: int
    losses: tuple[float, ...]  # of the next character on the whole validation split, nats, one per seed

    @property
    def loss(self) -> float:
        """Mean over the seeds."""
        return mean_std(self.losses)[0]

    @property
    def size(self) -> str:
        """Name and parameters."""
        return f"{self.recipe}, {self.parameters:,}"


@dataclass(frozen=True)
class Gap:
    """A way of filling the middle of a window; one value per seed."""

    accuracy: tuple[float, ...]
    nats: tuple[float, ...]

    @property
    def loss(self) -> float:
        """Mean over the seeds, nats."""
        return mean_std(self.nats)[0]


@dataclass(frozen=True)
class Written:
    """A prompt continued in one of the ways."""

    way: str
    prompt: str
    text: str


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    causal: Model
    masked: Model
    larger: dict[str, Model]  # causal too, by the name of the recipe
    baselines: Baselines
    vocab_size: int
    length: int  # of a window
    masking_rate: float  # share of the tokens that the masked model predicted in training
    accuracy: dict[str, dict[str, tuple[float, ...]]]  # of probes by task and features, one per seed
    gaps: dict[str, Gap]  # by way
    next: dict[str, tuple[float, ...]]  # loss of the next character of the same texts, nats, one per seed
    written: tuple[Written, ...]
    leaks: tuple[int, int]  # earlier positions that change with the last token: causal, masked
    scoring_error: float  # of Bayes' rule against whole texts, nats
    moved: dict[str, float]  # largest difference of any letter count by a corruption, by task
    corrupted: dict[str, float]  # share of the windows that a corruption can change, by task

    @property
    def writing(self) -> Comparison:
        """The masked model against the causal one."""
        return compare_paired(self.next["causal"], self.next["masked"])

    @property
    def tasks(self) -> list[str]:
        """The tasks that this text has: without letters there are no misspellings, without spaces no word order."""
        return [name for name, share in self.corrupted.items() if share > 0]

    @property
    def learned(self) -> bool:
        """Whether the causal model beats the bigram: else no comparison of the two says much."""
        return max(self.causal.losses) < self.baselines.bigram

    @property
    def better_models(self) -> list[str]:
        """Larger causal models that predict better, too, by the names of their recipes, the best last."""
        found = [name for name, model in self.larger.items() if model.loss < self.causal.loss]
        return sorted(found, key=lambda name: -self.larger[name].loss)

    def probes(self, baseline: str, other: str) -> dict[str, Comparison]:
        """Accuracy with some features against that with others, by task; pairs of seeds, corrected for the tasks."""
        pairs = [(self.accuracy[name][baseline], self.accuracy[name][other]) for name in self.tasks]
        return dict(zip(self.tasks, holm([compare_paired(*pair) for pair in pairs]), strict=True))

    def mean_accuracy(self, task: str, features: str) -> float:
        """Over the seeds."""
        return mean_std(self.accuracy[task][features])[0]

    @property
    def best_way(self) -> str:
        """Of filling a gap."""
        return min(self.gaps, key=lambda way: self.gaps[way].loss)

    @property
    def gpt3_over_bert(self) -> float:
        """How many times BERT-Large's parameters GPT-3 175B has, as published."""
        return published.GPT3[-1].parameters_millions * 1e6 / published.BERT_LARGE_PARAMETERS

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        metrics: dict[str, float | int] = {
            "next_character_causal_nats": mean_std(self.next["causal"])[0],
            "next_character_masked_nats": mean_std(self.next["masked"])[0],
            "next_character_masked_minus_causal_nats": self.writing.difference,
            "parameters_causal": self.causal.parameters,
            "parameters_masked": self.masked.parameters,
            **{f"parameters_causal_{label}": model.parameters for label, model in self.larger.items()},
            "validation_loss_nats_causal": self.causal.loss,
            **{f"validation_loss_nats_causal_{label}": model.loss for label, model in self.larger.items()},
            "bigram_nats": self.baselines.bigram,
            "ngram_nats": self.baselines.ngram,
            **{_slug(f"superglue {name} percent"): score for name, score in published.SUPERGLUE.items()},
            "gpt_3_175b_parameters_over_bert_large": self.gpt3_over_bert,
        }
        for task, found in self.accuracy.items():
            for features, values in found.items():
                metrics[_slug(f"accuracy {task} {features}")] = mean_std(values)[0]
        for way, gap in self.gaps.items():
            metrics[_slug(f"gap accuracy {way}")] = mean_std(gap.accuracy)[0]
            metrics[_slug(f"gap {way} nats")] = gap.loss
        return metrics


def _slug(text: str) -> str:
    """A metric's name."""
    return "_".join(text.lower().replace(",", "").replace("-", "_").split())
