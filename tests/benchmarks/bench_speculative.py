"""Speculative decoding against the fastest plain decoding of the same target, one text at a time, greedily.

Plain decoding is that of the packed target (``minigpt.decoding.packed``) with its own weights: fewer bits would write
another text. Drafts are read one token at a time, so the draft is packed, too; the target verifies several
tokens at once, which is not what packing is for.

The target is the 10 M model with random weights. Its blocks after the first write into the residual stream with
a fraction of their strength, and the draft is the target without them: one block of six, which agrees with the target
often. So the row tells what the algorithm and its code are worth at the share of accepted drafts that
is stated beside it, not how good a draft some training gives. Both must write the same text.
"""

import statistics
from dataclasses import replace
from typing import Any

import torch

from minigpt.config import GPTConfig
from minigpt.decoding.packed import pack
from minigpt.decoding.sampling import GREEDY, generate
from minigpt.decoding.speculative import speculate
from minigpt.model import GPT
from tests.benchmarks.bench_gpt2 import VOCABULARY
from tests.benchmarks.interleaving import interleaved

TARGET = GPTConfig(
    n_layer=6, n_head=6, d_model=384, context=512, vocab_size=VOCABULARY, position="rope", tie_weights=False
)
LATER_BLOCKS = 0.03  # of their strength
GAMMAS = (2, 4, 6)


def pair(config: GPTConfig = TARGET, later: float = LATER_BLOCKS, seed: int = 0) -> tuple[GPT, GPT]:
    """A target and a draft of one block that agrees with it often; with ``later`` 0 always."""
    torch.manual_seed(seed)
    target = GPT(config).eval()
    with torch.no_grad():
        for block in list(target.blocks)[1:]:
            for matrix in (block.attn.proj, block.mlp.down):
                matrix.weight.mul_(later)
    draft = GPT(replace(config, n_layer=1)).eval()
    kept = {k: v for k, v in target.state_dict().items() if not k.startswith("blocks.") or k.startswith("blocks.0.")}
    draft.load_state_dict(kept)
    return target, draft


def compare(rounds: int, threads: int, n_new: int = 200, config: GPTConfig = TARGET) -> dict[str, Any]:
    """Tokens per second of both, round by round, with the best γ of ``GAMMAS``, and the share of accepted drafts.

    Raises:
        ArithmeticError: the texts differ.
    """
    torch.set_num_threads(threads)
    target, draft = pair(config)
    packed, packed_draft = pack(target), pack(draft)
    prompt = torch.arange(16)[None] % config.vocab_size
    texts: dict[str, Any] = {}

    def plain() -> None:
        texts["plain"] = generate(packed, prompt, n_new, sampling=GREEDY)

    def speculative(gamma: int) -> None:
        texts[f"gamma {gamma}"] = speculate(target, packed_draft, prompt, n_new, gamma=gamma, sampling=GREEDY)

    runs: dict[str, Any] = {"plain": plain} | {
        f"gamma {gamma}": lambda gamma=gamma: speculative(gamma) for gamma in GAMMAS
    }
    seconds = interleaved(rounds, runs)
    for gamma in GAMMAS:
        if not torch.equal(texts[f"gamma {gamma}"].tokens, texts["plain"]):
            raise ArithmeticError(
                f"with γ = {gamma} speculative decoding wrote another text than plain greedy decoding"
            )
    best = min(GAMMAS, key=lambda gamma: statistics.median(seconds[f"gamma {gamma}"]))
    found = texts[f"gamma {best}"]
    return {
        "ours": [n_new / each for each in seconds[f"gamma {best}"]],
        "plain": [n_new / each for each in seconds["plain"]],
        "gamma": best,
        "acceptance": found.acceptance_rate,
    }
