"""What 21.35 measures: students with and without a teacher, how far they agree with it, and the soft loss itself."""

import math
from dataclasses import dataclass, replace

from minigpt.evaluation.ngrams import Baselines
from minigpt.evaluation.statistics import Comparison, compare, compare_paired, holm, mean_std, widened
from tasks.variants import Variant


def seconds(row: Variant) -> float:
    """Time of a training: steps × the time of one, measured alone."""
    return row.steps * row.step_seconds


def against(baseline: Variant, row: Variant) -> Comparison:
    """By seed where both have the same: they begin with the same weights and read the text in the same order."""
    if len(baseline.losses) == len(row.losses):
        return compare_paired(baseline.losses, row.losses)
    return compare(baseline.losses, row.losses)


@dataclass(frozen=True)
class Agreement:
    """How close a student's distribution is to the teacher's, over the validation text; one value per seed."""

    divergence: tuple[float, ...]  # KL(teacher ‖ student), nats per token
    same_choice: tuple[float, ...]  # share of positions with the same most likely token


@dataclass(frozen=True)
class Settings:
    """Of the objective; a student without teacher is α = 1."""

    alpha: float
    tau: float | None


@dataclass(frozen=True)
class Model:
    """The size of a model and of its training."""

    layers: int
    width: int
    parameters: int
    steps: int
    tokens: int  # seen in training


@dataclass(frozen=True)
class Temperature:
    """The teacher's distribution and the soft loss's gradient at one temperature."""

    tau: float
    entropy: float  # of the teacher's softened distribution, nats
    gradient: float  # norm, with the factor τ²
    without: float  # … and without it


@dataclass(frozen=True)
class Oracles:
    """The objective against its definition and its limits."""

    itself: float  # KL of the teacher with itself, nats
    push: float  # largest element of its gradient
    by_hand: float  # difference of the soft loss from Σ p ln(p/q) in double precision
    hard: float  # difference of α = 1 from the cross-entropy alone
    hot: float  # gradient at τ = 10⁴ against Hinton's limit, relative error


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    rows: tuple[Variant, ...]  # cross-entropy only, the distilled students, cross-entropy only for longer
    settings: dict[str, Settings]  # by label
    agreement: dict[str, Agreement]  # by label
    teacher: Model
    student: Model
    longer_student: Model
    teacher_steps: tuple[float, ...]  # at which the teacher was evaluated
    teacher_losses: tuple[float, ...]
    temperatures: tuple[Temperature, ...]  # from 1 upwards
    oracles: Oracles
    source: str  # of the objective
    baselines: Baselines

    @property
    def untaught(self) -> bool:
        """Whether the teacher, or one of the students that its best is compared with, does not even beat a bigram."""
        return self.teacher_loss >= self.baselines.bigram or not self.taught(self.alone, self.best, self.longer)

    def taught(self, *rows: Variant) -> bool:
        """Whether every seed of these beats the bigram."""
        return all(max(row.losses) < self.baselines.bigram for row in rows)

    @property
    def ahead(self) -> float:
        """How much better the teacher is than the student that trained for longer, nats per token."""
        return self.longer.loss - self.teacher_loss

    @property
    def teacher_loss(self) -> float:
        """After its training, nats per token."""
        return self.teacher_losses[-1]

    @property
    def alone(self) -> Variant:
        """The baseline."""
        return self.rows[0]

    @property
    def longer(self) -> Variant:
        """The baseline with the time of a distilled student."""
        return self.rows[-1]

    @property
    def distilled(self) -> tuple[Variant, ...]:
        """The students with a teacher."""
        return self.rows[1:-1]

    @property
    def best(self) -> Variant:
        """The distilled student with the lowest mean loss."""
        return min(self.distilled, key=lambda row: row.loss)

    @property
    def at_equal_steps(self) -> Comparison:
        """The best distilled student against the student alone, corrected for its being the best of several."""
        return self.all_at_equal_steps[self.distilled.index(self.best)]

    @property
    def at_equal_time(self) -> Comparison:
        """The best distilled student against the student that trained for longer, corrected likewise."""
        return self.all_at_equal_time[self.distilled.index(self.best)]

    @property
    def all_at_equal_steps(self) -> list[Comparison]:
        """Each distilled student against the student alone."""
        return holm([self.judged(self.alone, row) for row in self.distilled])

    @property
    def all_at_equal_time(self) -> list[Comparison]:
        """Each distilled student against the student that trained for longer, about as long as they take."""
        return holm([self.judged(self.longer, row, self.missed(row)) for row in self.distilled])

    def judged(self, baseline: Variant, row: Variant, error: float = 0.0) -> Comparison:
        """Two students of which both have learned something, with an error beside that of the seeds."""
        found = against(baseline, row)
        if not self.taught(baseline, row):
            return replace(found, verdict="untrained")
        return widened(found, [found.difference - error, found.difference + error])

    def missed(self, row: Variant) -> float:
        """How far the loss of the longer training is open at the time of a student's, nats.

        By what it missed that time by, and by the quartiles of both step times, as far as its loss is still changing.
        """
        over = abs(math.log(seconds(self.longer) / seconds(row)))
        over += sum(math.log(one.step.high / one.step.low) / 2 for one in (self.longer, row))
        return abs(self._change) * over

    @property
    def _change(self) -> float:
        return (self.longer.loss - self.alone.loss) / math.log(self.longer.steps / self.alone.steps)

    @property
    def slope(self) -> float | None:
        """What the loss of the student alone changes by when its steps are multiplied by e; None if it doesn't fall."""
        return self._change if self._change < 0 else None

    @property
    def worth(self) -> float | None:
        """How many times as long the student alone would have to train for the loss of the best distilled one.

        By the slope between its two trainings; None where the teacher gains nothing, or more steps do not.
        """
        gain = self.alone.loss - self.best.loss
        return math.exp(min(20.0, -gain / self.slope)) if gain > 0 and self.slope else None

    @property
    def step_ratio(self) -> float:
        """Time of a training of the best distilled student over that of the student alone, at equal steps."""
        return seconds(self.best) / seconds(self.alone)

    @property
    def longer_ratio(self) -> float:
        """Time of the longer training over that of the best distilled student."""
        return seconds(self.longer) / seconds(self.best)

    @property
    def gap_closed(self) -> float | None:
        """Share of the way from the student alone to the teacher; None if the best student is not between them."""
        alone = self.alone.loss
        if self.teacher_loss >= alone:
            return None
        closed = (alone - self.best.loss) / (alone - self.teacher_loss)
        return closed if 0 < closed < 1 else None

    def divergence(self, row: Variant) -> float:
        """A student's KL from the teacher, mean over seeds."""
        return mean_std(self.agreement[row.label].divergence)[0]

    @property
    def by_tau(self) -> list[tuple[float, Variant]]:
        """The students that differ in nothing but their temperature."""
        found = ((self.settings[row.label], row) for row in self.distilled)
        return [(settings.tau, row) for settings, row in found if settings.alpha == 0.5 and settings.tau]

    @property
    def by_alpha(self) -> list[tuple[float, Variant]]:
        """The students that differ in nothing but how much the text weighs, α; 1 is the student alone."""
        found = ((self.settings[row.label], row) for row in self.distilled)
        weighed = [(settings.alpha, row) for settings, row in found if settings.tau == 2.0]
        return sorted([*weighed, (1.0, self.alone)], key=lambda pair: pair[0])

    @property
    def growth(self) -> float:
        """Largest over smallest gradient with τ²."""
        norms = [one.gradient for one in self.temperatures]
        return max(norms) / min(norms)

    @property
    def fade(self) -> float:
        """How many times the gradient without τ² shrinks."""
        return self.temperatures[0].without / self.temperatures[-1].without

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        metrics: dict[str, float | int] = {
            "validation_loss_nats_teacher": self.teacher_loss,
            "teacher_ahead_nats": self.ahead,
            "bigram_loss_nats": self.baselines.bigram,
            "best_ngram_loss_nats": self.baselines.ngram,
            "step_ratio": self.step_ratio,
        }
        if self.worth is not None:
            metrics["worth_in_steps"] = self.worth
        for row in self.rows:
            agreed = self.agreement[row.label]
            for name, values in (
                ("validation_loss_nats", row.losses),
                ("kl_from_teacher_nats", agreed.divergence),
                ("same_first_choice_share", agreed.same_choice),
            ):
                metrics[f"{name}_{row.key}"], spread = mean_std(values)
                if len(values) > 1:
                    metrics[f"{name}_{row.key}_std"] = spread
            metrics[f"step_ms_{row.key}"] = row.step_seconds * 1e3
            metrics[f"training_seconds_{row.key}"] = seconds(row)
        metrics["teacher_entropy_nats"] = self.temperatures[0].entropy
        for one in self.temperatures:
            metrics[f"gradient_norm_tau_{one.tau:g}"] = one.gradient
            metrics[f"gradient_norm_tau_{one.tau:g}_without_factor"] = one.without
        return metrics
