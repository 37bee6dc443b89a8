"""What 21.12 measures: shapes, weights, and differences from other implementations of the same layer."""

import math
from dataclasses import dataclass

SHOWN = 8  # positions of the first sequence whose weights are kept


@dataclass(frozen=True)
class Shapes:
    """What goes into the layer and what comes out."""

    input: tuple[int, ...]
    output: tuple[int, ...]
    weights: tuple[int, ...]


@dataclass(frozen=True)
class Parity:
    """Largest absolute differences from another implementation."""

    output: float
    weights: float


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    shape: tuple[int, int, int]  # batch, positions, d_model
    source: str  # of the layer
    parameters: dict[str, tuple[int, ...]]  # shapes by name
    shapes: tuple[Shapes, ...]
    weights: tuple[tuple[float, ...], ...]  # first positions of the first sequence: query, key
    sdpa: float  # output
    gradients: float  # against the same, of input and weights
    gpt2: Parity
    minigpt: Parity
    batch: float  # a sequence alone against the same sequence in a batch
    above_diagonal: float
    lower_triangular: bool  # exactly
    smallest_on_diagonal: float
    row_sums: tuple[float, float]  # smallest and largest

    @property
    def numbers(self) -> int:
        """Parameters, counted."""
        return sum(map(math.prod, self.parameters.values()))

    @property
    def worst(self) -> float:
        """Largest difference of output or weights from any other implementation."""
        return max(self.sdpa, self.gpt2.output, self.gpt2.weights, self.minigpt.output, self.minigpt.weights)

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        return {
            "weight_above_diagonal_max": self.above_diagonal,
            "row_sum_min": self.row_sums[0],
            "row_sum_max": self.row_sums[1],
            "parameters": self.numbers,
            "sdpa_output_max_difference": self.sdpa,
            "sdpa_gradient_max_difference": self.gradients,
            "gpt2_output_max_difference": self.gpt2.output,
            "gpt2_weights_max_difference": self.gpt2.weights,
            "minigpt_output_max_difference": self.minigpt.output,
            "minigpt_weights_max_difference": self.minigpt.weights,
        }
