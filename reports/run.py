"""What the report says about the run as a whole, and the score of its checks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from reports.chapter import Chapter, exercise_id
from reports.types import Result


@dataclass(frozen=True)
class Machine:
    """Where the run took place."""

    device: str = ""  # "CPU", "NVIDIA H100 80GB", …
    cores: int = 0
    memory_gib: float = 0.0
    python: str = ""
    torch: str = ""
    system: str = ""
    precision: str = ""  # of the trainings: "fp32", "bf16 and fp32", …


@dataclass(frozen=True)
class ModelRow:
    """One trained model in the report's table."""

    name: str
    parameters: int
    tokens: int  # seen in training
    validation_loss: float  # nats per token; NaN where not measured
    seconds: float
    path: str = ""
    mlflow_url: str = ""
    tokenizer: str = ""  # what a token is: "characters"; losses compare only where it is the same
    shape: str = ""  # what it is, in a few words: "2 layers × 64, RoPE"


@dataclass(frozen=True)
class SizeRow:
    """One of the book's model sizes on one vocabulary, and whether this run has trained it; ``said`` is Markdown."""

    name: str
    shape: str
    vocabulary: str
    parameters: int | None  # None where they depend on the text
    said: str


@dataclass(frozen=True)
class RunInfo:
    """One run of the chapter, or of part of it."""

    profile: str
    sources: Mapping[str, str] = field(default_factory=dict)  # name → description, licence included
    machine: Machine = field(default_factory=Machine)
    started: str = ""  # ISO 8601 with time zone
    seconds: float = 0.0
    command: str = ""  # reproduces the run
    asked: str = ""  # a digest of what decides on its results beside the profile: budget, precision, texts and model
    trainings: int = 0  # models trained in this run; the others came from the store
    models: tuple[ModelRow, ...] = ()
    sizes: tuple[SizeRow, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)  # name → URL
    served_by: str = ""  # the command that shows these pages, where no server runs all the time
    caution: str = ""  # why the numbers of this run mean nothing, where they do not


@dataclass(frozen=True)
class Score:
    """How many exercises are answered and how many checks hold."""

    answered: int
    failed: int
    total: int
    exact_held: int
    exact: int
    empirical_confirmed: int
    empirical: int

    @staticmethod
    def of(results: Sequence[Result], total: int) -> "Score":
        """The score of these results, out of ``total`` exercises."""
        checks = [check for result in results for check in result.checks]
        exact = [check.passed for check in checks if check.kind == "exact"]
        empirical = [check.passed for check in checks if check.kind == "empirical"]
        return Score(
            answered=sum(result.status == "ok" for result in results),
            failed=sum(result.status == "failed" for result in results),
            total=total,
            exact_held=sum(exact),
            exact=len(exact),
            empirical_confirmed=sum(empirical),
            empirical=len(empirical),
        )

    @property
    def sentence(self) -> str:
        """The verdict in one line."""
        failed = f", {self.failed} failed" if self.failed else ""
        return (
            f"{self.answered} of {self.total} exercises answered{failed}; "
            f"exact checks {self.exact_held} of {self.exact} hold; "
            f"empirical {self.empirical_confirmed} of {self.empirical} confirmed"
        )


def by_id(chapter: Chapter, results: Sequence[Result]) -> dict[str, Result]:
    """Results by two-digit id, in the chapter's order.

    Raises:
        ValueError: two results of one exercise, or one of an exercise that the chapter does not have.
    """
    found: dict[str, Result] = {}
    for result in results:
        key = exercise_id(result.id)
        if key in found or key not in chapter.questions:
            raise ValueError(f"{'two results' if key in found else 'no question'} for exercise {key}")
        found[key] = result
    return {key: found[key] for key in chapter.questions if key in found}
