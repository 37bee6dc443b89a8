"""Can a model copy? Random tokens that repeat, where nothing else helps, beside random tokens that do not.

    a row with period 3:    token   7 2 9 7 2 9 7 2       the first target that can be copied is the second 2, in
                            column    0 1 2 3 4 5 6       column 3: "7 2" has been seen, and nothing told of the 7

Losses stand in columns: column c is the loss of token c + 1 given tokens 0 … c.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.analysis.head_scores import induction, repeated_tokens


@dataclass(frozen=True)
class CopyRows:
    """Rows of random tokens, each of which repeats with a period of its own, and controls that never repeat."""

    tokens: Tensor  # (R, T)
    controls: Tensor  # (R, T), all different within a row
    periods: list[int]

    @property
    def wanted(self) -> Tensor:
        """The keys that hold what comes next, (R, T, T) bool; in the controls, the same places without that meaning."""
        return induction(self.tokens)

    def split(self, losses: Tensor) -> tuple[list[float], list[float]]:
        """Mean loss of each row (R, T - 1) in its columns before the first that can be copied, and from there on."""
        pairs = [(row[:period], row[period:]) for row, period in zip(losses, self.periods, strict=True)]
        return [before.mean().item() for before, _ in pairs], [after.mean().item() for _, after in pairs]

    def aligned(self, losses: Tensor) -> tuple[list[int], Tensor]:
        """Distances from the first column that can be copied, where all rows have losses, and these (R, distances)."""
        before, after = min(self.periods), losses.shape[1] - max(self.periods)
        rows = [row[period - before : period + after] for row, period in zip(losses, self.periods, strict=True)]
        return list(range(-before, after)), torch.stack(rows)


def copy_rows(choices: Tensor, rows: int, length: int, generator: torch.Generator) -> CopyRows:
    """Rows of up to ``length`` tokens out of ``choices`` (V,), with periods spread from a sixth to two fifths of them.

    So every row repeats at least twice. Fewer choices than ``length`` make shorter rows: controls do not repeat.

    Raises:
        ValueError: fewer than two rows, or rows too short for different periods.
    """
    length = min(length, len(choices))
    low, high = max(2, length // 6), 2 * length // 5
    periods = [low + row * (high - low) // max(1, rows - 1) for row in range(rows)]
    tokens = repeated_tokens(periods, length, choices, generator)
    controls = torch.stack([choices[torch.randperm(len(choices), generator=generator)[:length]] for _ in periods])
    return CopyRows(tokens, controls, periods)
