"""Which inputs an output depends on, read off gradients: no reasoning about masks, so a proof against their bugs."""

import torch
from torch import Tensor

from minigpt.evaluation.evaluate import evaluating
from minigpt.model import GPT


def influence(model: GPT, tokens: Tensor) -> Tensor:
    """Size of the gradient of each output with respect to each input embedding, (T,) int64 → (T, T).

    Entry (i, j) is ‖∂(r · h_i) / ∂x_j‖ with h_i the final hidden state at position i, x_j the token embedding at j and
    r a fixed random direction. It is exactly 0 where no path leads from j to i.

    The sequence is repeated T times as a batch, of which copy i contributes output i: one backward pass does all.
    """
    T = len(tokens)
    embeddings: list[Tensor] = []

    def keep(_module: torch.nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        embeddings.append(output.detach().requires_grad_())
        return embeddings[0]

    handle = model.token_embedding.register_forward_hook(keep)
    try:
        with evaluating(model), torch.enable_grad():
            hidden = model.hidden(tokens.expand(T, T))  # (T copies, T, C)
            own = torch.arange(T, device=tokens.device)
            direction = torch.randn(hidden.shape[-1], generator=torch.Generator().manual_seed(0)).to(hidden)
            (gradient,) = torch.autograd.grad((hidden[own, own] @ direction).sum(), embeddings[0])
    finally:
        handle.remove()
    sizes: Tensor = torch.linalg.vector_norm(gradient, dim=-1)
    return sizes


def reach(influences: Tensor) -> int:
    """The farthest distance i - j at which an output depends on an input, from a matrix of ``influence``.

    Raises:
        ValueError: an output depends on the future, or none depends on anything.
    """
    if (influences.triu(1) != 0).any():
        raise ValueError("an output depends on a later input")
    output, source = influences.nonzero(as_tuple=True)
    if len(output) == 0:
        raise ValueError("no output depends on any input")
    return int((output - source).max())
