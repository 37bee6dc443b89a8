"""How much a model of Transformers' interface can read at once."""

from typing import Any

UNBOUNDED = 2**31  # tokens; for models without a limit of their own (ALiBi, state spaces)


def context_of(model: Any) -> int:
    """Longest sequence that the model was made for, in tokens; ``UNBOUNDED`` where its configuration names none."""
    for name in ("n_positions", "max_position_embeddings", "n_ctx", "max_seq_len"):
        value = getattr(model.config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return UNBOUNDED
