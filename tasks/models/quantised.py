"""A model's weights as the quantised blocks that they came from: a fifth of the room, and the same bits when read.

GGUF keeps 32 weights of a row as a block (``ggml-common.h`` and ``ggml-quants.c`` of https://github.com/ggml-org/ggml):

    Q4_1   scale d and minimum m in fp16, then 16 bytes q with weights j and j + 16 in the low and high 4 bits: d·q + m
    Q8_0   scale d in fp16, then 32 signed bytes q: d·q

Neither fp16 nor bf16 holds these products exactly, so that the weights take 32 bits each once they are computed. Here
the blocks are kept instead, under the names and in the order of rows that Transformers gives to the weights.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

BLOCK = 32  # weights
TYPES = "types"  # the key of the file's metadata: JSON, weight's name -> type of its blocks


def keep_blocks(weights: Mapping[str, Tensor], source: Path, file: Path) -> bool:
    """Write what ``weights`` (by name, fp32, made from the GGUF file ``source``) were made from into ``file``.

    A weight belongs to the tensor of the source that has the same rows, in any order: Transformers reorders those of
    queries and keys. Returns False, and writes nothing, if reading would not give the same bits for each of them.
    """
    kept, types = {}, {}
    origins = _origins(source)
    for name, weight in weights.items():
        rows = _row_hashes(weight.numpy()) if weight.ndim == 2 else []
        origin = origins.get(frozenset(rows))
        if origin is None:
            kept[name] = weight.contiguous()
            continue
        kind, blocks, order = origin
        kept[name] = torch.from_numpy(blocks[[order[row] for row in rows]])  # (rows, bytes)
        types[name] = kind
        if not torch.equal(READ[kind](kept[name]).view(torch.int32), weight.contiguous().view(torch.int32)):
            return False
    save_file(kept, file, metadata={TYPES: json.dumps(types, sort_keys=True)})
    return True


def _origins(source: Path) -> dict[frozenset[int], tuple[str, np.ndarray, dict[int, int]]]:
    """Type, blocks (rows, bytes) and place of each row, by hash, of every quantised tensor that can be read here."""
    import gguf

    found = {}
    for tensor in gguf.GGUFReader(source).tensors:
        kind = tensor.tensor_type.name
        if kind in READ:
            blocks = np.array(tensor.data)
            rows = _row_hashes(gguf.dequantize(blocks, tensor.tensor_type))
            found[frozenset(rows)] = kind, blocks, {row: i for i, row in enumerate(rows)}
    return found


def _row_hashes(matrix: np.ndarray) -> list[int]:
    return [hash(row.tobytes()) for row in matrix]


def read_blocks(file: Path) -> dict[str, Tensor]:
    """The weights of a file of ``keep_blocks``, fp32."""
    with safe_open(file, "pt") as content:
        types = json.loads(content.metadata()[TYPES])
        stored = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (it is no mapping)
    return {name: READ[types[name]](tensor) if name in types else tensor for name, tensor in stored.items()}


def _q4_1(blocks: Tensor) -> Tensor:
    """Blocks of Q4_1, (rows, bytes), as weights, (rows, columns) fp32."""
    split = blocks.reshape(-1, 20)
    scale, minimum = split[:, 0:2].contiguous(), split[:, 2:4].contiguous()
    out = torch.empty(len(split), BLOCK)
    out[:, :16] = split[:, 4:] & 15
    out[:, 16:] = split[:, 4:] >> 4
    # Two roundings, as in the format's own implementation: one would give other bits.
    out.mul_(scale.view(torch.float16).float()).add_(minimum.view(torch.float16).float())
    return out.reshape(len(blocks), -1)


def _q8_0(blocks: Tensor) -> Tensor:
    """Blocks of Q8_0, likewise."""
    split = blocks.reshape(-1, 34)
    scale = split[:, 0:2].contiguous().view(torch.float16).float()
    return (split[:, 2:].contiguous().view(torch.int8).float() * scale).reshape(len(blocks), -1)


READ: Mapping[str, Callable[[Tensor], Tensor]] = {"Q4_1": _q4_1, "Q8_0": _q8_0}
