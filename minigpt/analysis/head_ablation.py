"""Looking into the attention of somebody else's model: the outputs of its heads, and reading without some of them.

A head's output is its attention map times its values; the outputs of all heads, side by side, are what the layer's
output projection reads. So a head is taken away by zeroing its slice there:

    projection input (B, T, H·D) = [ A_0 V_0 | A_1 V_1 | … | A_{H-1} V_{H-1} ]        A_h V_h → 0

Transformers gives attention maps (``output_attentions=True``), but neither of these; they are had by hooks on modules
that GPT-2 calls ``attn.c_proj`` and Llama ``self_attn.o_proj``. ``LookupError`` where a model's have no known name.

Shapes: B rows of T tokens, H query heads of D dimensions, G groups of keys and values.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Head = tuple[int, int]  # layer, head within the layer, from 0

# Llama and its many relatives, OPT, Phi; GPT-2, GPT-J; GPT-Neo; GPT-NeoX; Bloom and Falcon.
_PROJECTION = re.compile(
    r"(?:^|\.)(\d+)\.(?:self_attn\.(?:o_proj|out_proj|dense)|attn\.(?:c_proj|out_proj)|attn\.attention\.out_proj"
    r"|attention\.dense|self_attention\.dense)$"
)


def output_projections(model: Any) -> list[nn.Module]:
    """The module of each layer that reads the outputs of its heads side by side.

    Raises:
        LookupError: the model has none, or not one per layer, under a name that is known here.
    """
    found = {int(match[1]): module for name, module in model.named_modules() if (match := _PROJECTION.search(name))}
    layers, heads = model.config.num_hidden_layers, getattr(model.config, "num_attention_heads", 0)
    if not heads or sorted(found) != list(range(layers)) or any(_width(module) % heads for module in found.values()):
        raise LookupError(f"no output projection is known for each of the {layers} layers of {type(model).__name__}")
    return [found[layer] for layer in range(layers)]


def _width(projection: nn.Module) -> int:
    """H·D: inputs of a linear layer, whose weight GPT-2 keeps the other way round."""
    weight = projection.weight
    assert isinstance(weight, Tensor)
    return weight.shape[0] if type(projection).__name__ == "Conv1D" else weight.shape[1]


@contextmanager
def without_heads(model: Any, heads: Collection[Head]) -> Iterator[None]:
    """Within this context, the model reads as if these heads put out zero.

    Raises:
        LookupError: see ``output_projections``.
        ValueError: a head that the model does not have.
    """
    projections, count = output_projections(model), model.config.num_attention_heads
    layers: dict[int, list[int]] = {}
    for layer, head in heads:
        if not (0 <= layer < len(projections) and 0 <= head < count):
            raise ValueError(f"no head {head} in layer {layer}: {len(projections)} layers of {count} heads")
        layers.setdefault(layer, []).append(head)
    with ExitStack() as stack:
        for layer, gone in layers.items():
            handle = projections[layer].register_forward_pre_hook(_silence(count, gone))
            stack.callback(handle.remove)
        yield


def _silence(count: int, gone: list[int]) -> Any:
    """A hook that zeroes some heads of what a projection reads."""

    def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        keep = torch.ones(count, dtype=inputs[0].dtype, device=inputs[0].device)
        keep[gone] = 0
        by_head = inputs[0].unflatten(-1, (count, -1))  # (B, T, H, D)
        return ((by_head * keep[:, None]).flatten(-2), *inputs[1:])

    return hook


@torch.inference_mode()
def head_outputs(model: Any, ids: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Values and outputs of every head for rows of tokens (B, T): per layer (B, H, T, D), twice.

    Values are as the heads see them: those of a group are repeated for each of its query heads.

    Raises:
        LookupError: see ``output_projections``; or the values are not made by a ``v_proj`` or a ``c_attn`` beside it.
    """
    projections, count = output_projections(model), model.config.num_attention_heads
    names = {module: name for name, module in model.named_modules()}
    modules: Mapping[str, nn.Module] = dict(model.named_modules())
    values: list[Tensor] = []
    outputs: list[Tensor] = []
    with ExitStack() as stack:
        for projection in projections:
            width = _width(projection)
            beside = names[projection].rpartition(".")[0]
            source = modules.get(f"{beside}.v_proj") or modules.get(f"{beside}.c_attn")
            if source is None:
                raise LookupError(f"the values of {type(model).__name__} are not made by a module of their own")

            def keep_values(
                module: nn.Module, _: Any, made: Tensor, size: int = width // count, last: int = width
            ) -> None:
                made = made[..., -last:]  # c_attn makes queries, keys and values side by side
                by_group = made.unflatten(-1, (-1, size)).transpose(1, 2)  # (B, G, T, D)
                values.append(by_group.repeat_interleave(count // by_group.shape[1], dim=1))

            def keep_outputs(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
                outputs.append(inputs[0].unflatten(-1, (count, -1)).transpose(1, 2))

            stack.callback(source.register_forward_hook(keep_values).remove)
            stack.callback(projection.register_forward_pre_hook(keep_outputs).remove)
        model(ids, use_cache=False)
    return values, outputs


def random_heads(chosen: Sequence[Head], every: Collection[Head], generator: torch.Generator) -> list[Head]:
    """As many heads as were chosen, none of them the same: each from the layer of one chosen, while it has others.

    What to compare an ablation with: heads of some layers matter more than those of others whatever they attend to.

    Raises:
        ValueError: fewer heads are left than were chosen.
    """
    left = sorted(set(every) - set(chosen))
    if len(left) < len(chosen):
        raise ValueError(f"{len(left)} heads are left beside {len(chosen)} chosen ones")
    taken = []
    for layer, _ in chosen:
        pool = [head for head in left if head[0] == layer] or left
        taken.append(pool[int(torch.randint(len(pool), (1,), generator=generator))])
        left.remove(taken[-1])
    return taken
