"""The table of learned position embeddings of a model of Transformers' interface, found by its size."""

from typing import Any

from torch import Tensor, nn

PADDING_ROWS = 2  # OPT and BART keep two rows before position 0


def learned_positions(model: Any) -> Tensor | None:
    """One row per position, (T, C), sharing the model's memory; None where positions are not learned.

    T is the context that the configuration names. Rows that a model keeps before position 0 are left out.
    """
    config = model.config.get_text_config()
    context = int(getattr(config, "max_position_embeddings", 0) or 0)
    words = model.get_input_embeddings()
    for module in model.modules() if context else ():
        if not isinstance(module, nn.Embedding) or module is words:
            continue
        if context <= module.num_embeddings <= context + PADDING_ROWS:
            table: Tensor = module.weight.detach()
            return table[module.num_embeddings - context :]
    return None
