"""How much a model of Transformers' interface can read at once, and how few logits it can be asked for."""

import inspect
from typing import Any

UNBOUNDED = 2**31  # tokens; for models without a limit of their own (ALiBi, state spaces)


def context_of(model: Any) -> int:
    """Longest sequence that the model was made for, in tokens; ``UNBOUNDED`` where its configuration names none."""
    for name in ("n_positions", "max_position_embeddings", "n_ctx", "max_seq_len"):
        value = getattr(model.config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return UNBOUNDED


def keeping(model: Any, last: int) -> dict[str, int]:
    """The option by which a model computes the logits of the last so many tokens only; none where it has none.

    Over a vocabulary of 50,000 the logits of a token cost a fifth of all else that a model of 135 M does for it.
    """
    return {"logits_to_keep": last} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
