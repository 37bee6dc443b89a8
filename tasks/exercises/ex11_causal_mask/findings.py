"""What 21.11 measures: weights before and after the mask, leaks, and what six ways of masking let through."""

from dataclasses import dataclass

TOKENS = ("the", "cat", "sat", "down")  # names for the rows and columns; the vectors are random
Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Way:
    """One way of applying the mask in one precision."""

    name: str
    precision: str
    row_sum: float  # the smallest, of rows without NaN
    future_weight: float  # the largest weight on the future
    leak: float  # largest change of an earlier output when the last token changes
    nan_rows: int


@dataclass(frozen=True)
class EmptyRow:
    """The weights of a query whose keys are all hidden."""

    fill: str  # what stands for a forbidden score
    precision: str
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    source: str  # of the function
    mask: tuple[tuple[bool, ...], ...]
    is_lower_triangle: bool
    is_the_models_own: bool  # at all lengths up to ``length``
    before: Matrix  # attention weights, queries in rows
    after: Matrix
    gradients: Matrix  # norms, of the output at the row by the input at the column
    future_weight_before: float  # sum over the future, mean over the rows
    future_weight_after: float  # the largest
    row_sum_after: float  # the smallest
    future_gradient: float  # the largest
    past_gradient: float  # the smallest, the own position included
    renormalised_difference: float  # of the weights after from those before, restricted to the past
    sdpa_difference: float
    inverted_sdpa_norm: float  # of an output whose keys are all hidden
    length: int
    leaks: int  # earlier positions of a whole model that changed
    seen: int  # changed positions that noticed it themselves
    ways: tuple[Way, ...]
    padding: tuple[EmptyRow, ...]
    fp16_fill: str  # what torch says to masked_fill(-1e9) in half precision

    def leak(self, name: str) -> float:
        """What a way of masking in fp32 tells earlier positions."""
        return next(way.leak for way in self.ways if (way.name, way.precision) == (name, "fp32"))

    @property
    def padding_future(self) -> float:
        """The weight that an empty row gives to the last token, with −1e9 in fp32."""
        return next(row.weights[-1] for row in self.padding if (row.fill, row.precision) == ("−1e9", "fp32"))

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        return {
            "future_weight_before_mean": self.future_weight_before,
            "future_weight_after_max": self.future_weight_after,
            "row_sum_after_min": self.row_sum_after,
            "sdpa_max_difference": self.sdpa_difference,
            "future_gradient_max": self.future_gradient,
            "past_gradient_min": self.past_gradient,
            "positions_leaking": self.leaks,
            "perturbations_seen": self.seen,
            "softmax_then_mask_leak": self.leak("softmax, then mask"),
            "softmax_then_mask_renormalised_leak": self.leak("softmax, then mask, then renormalise"),
            "minus_1e9_fp32_padding_future_weight": self.padding_future,
        }
