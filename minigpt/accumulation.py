"""The gradient of a batch that memory does not hold at once: of parts of it, added up."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class Accumulation:
    """Adds up gradients of batches of ``rows`` sequences; of fewer at once, from where memory runs out.

    ``at_once`` is how many are read together: half as many after each attempt that finds no room.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], rows: int) -> None:
        self.parameters = parameters
        self.rows = self.at_once = rows

    def add_gradient(self, loss_of: Callable[[Tensor], Tensor], batch: Tensor, before: Callable[[], None]) -> Tensor:
        """Give the parameters, which have none yet, the gradient of a mean loss of ``batch`` (B, T).

        Returns the loss, (), detached. ``before`` is called before each attempt, so that all draw the same.

        Raises:
            MemoryError: not even one sequence fits.
        """
        while True:
            before()
            try:
                return add_gradient(loss_of, batch, self.at_once, self.parameters)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            # No sooner: an error that is being handled holds on to all that was computed.
            if self.at_once == 1:
                raise MemoryError(
                    f"of batch_size {self.rows}, memory does not hold even one sequence of {batch.shape[1]} tokens: "
                    "fewer processes on this device, a smaller context or model, or more memory is needed"
                )
            self.at_once = -(-self.at_once // 2)
            for weight in self.parameters:
                weight.grad = None
            if batch.device.type == "cuda":
                torch.cuda.empty_cache()

    @property
    def note(self) -> str:
        """What to add to a line about the training; "" where all is as usual."""
        return f", {self.at_once} sequences at once for want of memory" if self.at_once < self.rows else ""


def add_gradient(
    loss_of: Callable[[Tensor], Tensor], batch: Tensor, at_once: int, parameters: Sequence[nn.Parameter]
) -> Tensor:
    """Give ``parameters`` the gradient of a mean loss of ``batch`` (B, …), ``at_once`` of its rows after others.

    Returns the loss, (), detached: the mean over the parts, by their sizes. For a loss that is a mean over rows, loss
    and gradient are those of the whole batch but for rounding, and the same bits where all rows fit.
    """
    if at_once >= len(batch):
        loss = loss_of(batch)
        loss.backward()
        return loss.detach()
    total = torch.zeros((), device=batch.device)
    for number, part in enumerate(batch.split(at_once)):
        loss = loss_of(part) * (len(part) / len(batch))
        loss.backward()
        total += loss.detach()
        if number == 0:  # a gradient may lie in a CUDA graph's memory, which the next part overwrites
            for weight in parameters:
                weight.grad = None if weight.grad is None else weight.grad.clone()
    return total


def is_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch had no room for a tensor, on a GPU or in the machine's own memory."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )
