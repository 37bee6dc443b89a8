"""What 21.12 measures: shapes, attention weights, and differences from three other implementations."""

from dataclasses import dataclass

SHOWN = 8  # positions of the example


@dataclass(frozen=True)
class Shapes:
    """What goes into a layer and what comes out."""

    input: tuple[int, ...]
    output: tuple[int, ...]
    weights: tuple[int, ...]


@dataclass(frozen=True)
class Parameter:
    """One of the layer's tensors."""

    name: str
    shape: tuple[int, ...]
    numbers: int


@dataclass(frozen=True)
class Parity:
    """Largest differences from another implementation."""

    output: float
    weights: float


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    source: str  # of the layer
    shape: tuple[int, int, int]  # of the input: batch, seq_len, d_model
    shapes: tuple[Shapes, ...]
    parameters: tuple[Parameter, ...]
    example: tuple[tuple[float, ...], ...]  # weights of the first positions of the first sequence
    above_diagonal: float  # the largest weight
    is_lower_triangle: bool
    every_token_sees_itself: bool
    row_sums: tuple[float, float]  # smallest, largest
    sdpa: float  # difference of the output
    gradients: float  # difference of any gradient from the same
    gpt2: Parity
    minigpt: Parity
    batch: float  # a sequence alone against the same sequence in a batch

    @property
    def parameter_count(self) -> int:
        """Of the whole layer."""
        return sum(parameter.numbers for parameter in self.parameters)

    @property
    def weight_count(self) -> int:
        """Attention weights that were looked at."""
        batch, length, _ = self.shape
        return batch * length * length

    @property
    def worst(self) -> float:
        """The largest difference of output or weights from any other implementation."""
        return max(self.sdpa, self.gpt2.output, self.gpt2.weights, self.minigpt.output, self.minigpt.weights)

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        return {
            "weight_above_diagonal_max": self.above_diagonal,
            "row_sum_min": self.row_sums[0],
            "row_sum_max": self.row_sums[1],
            "parameters": self.parameter_count,
            "sdpa_output_max_difference": self.sdpa,
            "sdpa_gradient_max_difference": self.gradients,
            "gpt2_output_max_difference": self.gpt2.output,
            "gpt2_weights_max_difference": self.gpt2.weights,
            "minigpt_output_max_difference": self.minigpt.output,
            "minigpt_weights_max_difference": self.minigpt.weights,
        }
