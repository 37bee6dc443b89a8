"""What 21.27 measures: whose texts speculative decoding writes, how often drafts are accepted, and what it gains."""

from dataclasses import dataclass

from minigpt.evaluation.ngrams import Baselines
from minigpt.evaluation.statistics import Comparison, compare, compare_paired, holm, mean_std

ITSELF = "the target itself"
TOP_K = 8  # of the distribution test: at most 8³ texts of three tokens, and a truncation for both models
STUDENT_GAMMA = 4  # for which the students' tokens per pass are predicted


@dataclass(frozen=True)
class Speed:
    """One draft with one γ. Costs are in plain steps of the target, as it decodes alone."""

    gamma: int
    acceptance: float  # share of the tested drafts that were accepted
    tokens_per_pass: float  # counted
    expected_tokens: float  # per pass, by α
    alpha: float  # mean acceptance probability on the target's own texts
    draft_cost: float  # c: a step of the draft
    verify_cost: float  # v: a pass of the target over γ + 1 tokens, and the acceptance test
    textbook: float  # speed-up by Leviathan et al. (2023), theorem 3.8: a pass over γ + 1 tokens costs one step
    predicted: float  # the same with the measured price of verification
    measured: float  # speed-up over plain decoding, text by text
    low: float  # … its 95 % interval
    high: float
    texts: int  # that were timed


@dataclass(frozen=True)
class DraftModel:
    """A model that drafts for the target."""

    label: str
    key: str  # in names of metrics
    layers: int
    width: int
    parameters: int
    training_tokens: int
    loss: float  # validation loss, nats per token
    speeds: tuple[Speed, ...]  # one per γ that was timed
    predictions: tuple[tuple[int, float], ...] = ()  # speed-up by the cost model, for every γ

    @property
    def best(self) -> Speed:
        """With the γ that suits it best: by the cost model before anything was timed, and timed on most texts."""
        return max(self.speeds, key=lambda speed: (speed.texts, speed.measured))

    @property
    def alpha(self) -> float:
        """The same for every γ."""
        return self.best.alpha


@dataclass(frozen=True)
class Output:
    """Whether the texts are the target's."""

    draws: int  # texts of three tokens
    p_values: dict[str, float]  # chi-square against the target's exact distribution: speculative, target, draft
    teacher_layers: int
    student_layers: int
    n_new: int  # tokens of a greedy text
    prompts: int  # of the small pair
    same: int  # of these, greedy texts that are the target's
    large_prompts: int  # of the large target, over all drafts
    large_same: int

    @property
    def greedy(self) -> tuple[int, int]:
        """Greedy texts that are the target's, of how many."""
        return self.same + self.large_same, self.prompts + self.large_prompts


@dataclass(frozen=True)
class Student:
    """A draft before or after distillation, under its teacher; one value per seed."""

    label: str
    key: str
    losses: tuple[float, ...]  # validation, nats per token
    alphas: tuple[float, ...]
    expected_tokens: float  # per pass at γ = STUDENT_GAMMA, by the mean α

    @property
    def alpha(self) -> float:
        """Mean over the seeds."""
        return mean_std(self.alphas)[0]


@dataclass(frozen=True)
class Pass:
    """One verification by the target."""

    drafted: tuple[str, ...]
    target: tuple[float, ...]  # probability of each drafted token under the target
    draft: tuple[float, ...]  # … under the draft
    accepted: int
    added: str  # instead of the first rejected token, or after all of them


@dataclass(frozen=True)
class Writing:
    """A text that two models wrote."""

    draft: str
    prompt: str
    text: str
    passes: int
    emitted: int
    acceptance: float
    rounds: tuple[Pass, ...]  # what the text is made of


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    drafts: tuple[DraftModel, ...]  # the last is the target itself
    output: Output
    n_new: int  # tokens of a timed text
    stretch: int  # … of which so many are written at a time
    students: tuple[Student, ...]  # the first before distillation
    source: str  # of the algorithm
    writing: Writing
    baselines: Baselines | None = None  # n-grams on the same tokens

    @property
    def beats_bigram(self) -> bool:
        """Whether the target does: else it has not learned to use more than the last token."""
        return self.baselines is None or self.target.loss < self.baselines.bigram

    @property
    def runs(self) -> list[tuple[DraftModel, Speed]]:
        """Every draft with every γ."""
        return [(draft, speed) for draft in self.drafts for speed in draft.speeds]

    @property
    def best(self) -> DraftModel:
        """The draft of the highest measured speed-up."""
        return max(self.drafts, key=lambda draft: draft.best.measured)

    @property
    def target(self) -> DraftModel:
        """The target, as its own draft."""
        return self.drafts[-1]

    @property
    def ahead(self) -> float:
        """How much better the target is than the best of the other drafts, nats per token."""
        return min(draft.loss for draft in self.drafts[:-1]) - self.target.loss

    @property
    def best_student(self) -> Student:
        """The distilled student that is accepted most often."""
        return max(self.students[1:], key=lambda student: student.alpha)

    @property
    def distillations(self) -> list[Comparison]:
        """Acceptance of each student against the one before distillation, corrected for their number.

        As many trainings have the same seeds, and are pairs.
        """
        base = self.students[0].alphas
        return holm(
            [(compare_paired if len(s.alphas) == len(base) else compare)(base, s.alphas) for s in self.students[1:]]
        )

    @property
    def distillation(self) -> Comparison:
        """Of ``best_student``, which is the best of them by the same numbers: one of many."""
        return self.distillations[self.students[1:].index(self.best_student)]

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        metrics: dict[str, float | int] = {
            f"chi_square_p_{name}": value for name, value in self.output.p_values.items()
        }
        metrics["greedy_identical_prompts"], metrics["greedy_prompts"] = self.output.greedy
        if self.baselines:
            metrics |= {"bigram_nats": self.baselines.bigram, "ngram_nats": self.baselines.ngram}
        metrics["target_ahead_of_the_best_draft_nats"] = self.ahead
        for draft, speed in self.runs:
            key, with_gamma = draft.key, f"{draft.key}_gamma_{speed.gamma}"
            metrics |= {
                f"alpha_{key}": speed.alpha,
                f"draft_cost_{key}": speed.draft_cost,
                f"acceptance_rate_{with_gamma}": speed.acceptance,
                f"tokens_per_pass_{with_gamma}": speed.tokens_per_pass,
                f"speedup_measured_{with_gamma}": speed.measured,
                f"speedup_low_{with_gamma}": speed.low,
                f"speedup_high_{with_gamma}": speed.high,
                f"texts_{with_gamma}": speed.texts,
                f"speedup_predicted_{with_gamma}": speed.predicted,
                f"speedup_textbook_{with_gamma}": speed.textbook,
                f"verify_cost_{with_gamma}": speed.verify_cost,
            }
        for student in self.students:
            metrics[f"alpha_{student.key}"] = student.alpha
            if len(student.alphas) > 1:
                metrics[f"alpha_{student.key}_std"] = mean_std(student.alphas)[1]
        return metrics
