"""What a model thought of each token that was chosen, remembered while a text is written."""

import torch
from torch import Tensor


class Recorder:
    """A processor that changes nothing and keeps -ln p of the token that is chosen next, in nats.

        recorder = Recorder()
        tokens = generate(model, prompt, n_new, processors=(recorder, *others))
        losses = recorder.losses(tokens)  # (B, n_new)

    As the first of several processors it sees the model's own logits: the losses are those of the model itself at
    temperature 1, whatever else the decoding does. They cost no second pass. One recorder serves one generation.
    """

    def __init__(self) -> None:
        self._log_p: Tensor | None = None  # (B, V), of the token to come
        self._losses: list[Tensor] = []  # (B,) each

    def __call__(self, tokens: Tensor, logits: Tensor) -> Tensor:
        """Tokens so far (B, T), logits (B, V) → the same logits."""
        self._settle(tokens)
        self._log_p = logits.log_softmax(dim=-1)
        return logits

    def losses(self, tokens: Tensor) -> Tensor:
        """Of all chosen tokens, (B, n), given the finished text (B, T + n).

        Raises:
            ValueError: nothing was chosen.
        """
        self._settle(tokens)
        if not self._losses:
            raise ValueError("no token was chosen")
        return torch.stack(self._losses, dim=1)

    def _settle(self, tokens: Tensor) -> None:
        if self._log_p is not None:
            self._losses.append(-self._log_p.gather(1, tokens[:, -1:])[:, 0])
            self._log_p = None
