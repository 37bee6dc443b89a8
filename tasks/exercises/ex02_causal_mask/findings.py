"""What 21.2 measures: attention weights under the mask, and models trained with the mask and without."""

from dataclasses import dataclass

from minigpt.evaluation.statistics import mean_std

LENGTH, POSITION = 8, 5


@dataclass(frozen=True)
class Weights:
    """Attention weights of several heads on eight positions, in sums."""

    heads: int
    nonzero: tuple[int, ...]  # in each row, mean over heads
    row_sums: tuple[float, float]  # smallest, largest
    column_sums: tuple[float, float]
    row_error: float  # largest difference of a row's sum from 1


@dataclass(frozen=True)
class Training:
    """Models trained under one mask."""

    final_losses: tuple[float, ...]  # in the last step, nats per token, one per seed
    trained_steps: tuple[float, ...]  # of the first seed, as the rest
    trained_losses: tuple[float, ...]
    evaluated_steps: tuple[float, ...]
    evaluated_losses: tuple[float, ...]  # causal, whatever the training was
    sample: str

    @property
    def final_loss(self) -> float:
        """Mean over the seeds."""
        return mean_std(self.final_losses)[0]


@dataclass(frozen=True)
class Use:
    """Held-out losses of models trained under one mask and read under another."""

    trained: str  # "causal" or "full"
    read: str
    losses: tuple[float, ...]  # nats per token, one per seed

    @property
    def loss(self) -> float:
        """Mean over the seeds."""
        return mean_std(self.losses)[0]


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    mask: tuple[tuple[bool, ...], ...]  # the project's, eight positions
    is_lower_triangle: bool
    sdpa_difference: float  # of masked attention from torch's own
    weights: dict[str, Weights]  # "random" and "trained"
    example: tuple[tuple[float, ...], ...]  # layer 0, head 0 of the trained model
    wrong_counts: int  # rows of all heads with another number of non-zero weights than the mask allows
    masked_sum: float  # of all masked weights
    trainings: dict[str, Training]  # by the mask in training: "causal" and "full"
    healthy: Use  # trained causal, read causal
    cheating: Use  # trained full, read full
    broken: Use  # trained full, read causal
    cheating_last: float  # nats at the last position of a window, whose target is outside the window
    cheating_others: float  # mean over the positions before it
    unigram: float  # nats per token of letter frequencies
    prompt: str

    @property
    def uses(self) -> tuple[Use, Use, Use]:
        """All combinations that were measured."""
        return self.healthy, self.cheating, self.broken

    @property
    def pairs(self) -> int:
        """How many pairs of query and key the mask allows."""
        return sum(map(sum, self.mask))

    @property
    def row_error(self) -> float:
        """How far any row's sum is from 1."""
        return max(weights.row_error for weights in self.weights.values())

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        return {
            "attended_keys_position_5_from_1": POSITION,
            "attended_keys_position_5_from_0": POSITION + 1,
            "attended_pairs": LENGTH * (LENGTH + 1) // 2,
            **{
                f"{which}_row_sum_{name}_weights": found
                for name, weights in self.weights.items()
                for which, found in zip(("smallest", "largest"), weights.row_sums, strict=True)
            },
            "largest_row_sum_error": self.row_error,
            "final_training_loss_causal_nats": self.trainings["causal"].final_loss,
            "final_training_loss_full_attention_nats": self.trainings["full"].final_loss,
            "validation_loss_trained_causal_read_causal_nats": self.healthy.loss,
            "validation_loss_trained_full_read_full_nats": self.cheating.loss,
            "validation_loss_trained_full_read_full_last_position_nats": self.cheating_last,
            "validation_loss_trained_full_read_full_other_positions_nats": self.cheating_others,
            "validation_loss_trained_full_read_causal_nats": self.broken.loss,
            "unigram_loss_nats": self.unigram,
        }
