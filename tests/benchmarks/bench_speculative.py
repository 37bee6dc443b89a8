"""Speculative decoding against plain decoding of the same target, one text at a time, greedily.

The target is the 10 M model with random weights. Its blocks after the first write into the residual stream with
a fraction of their strength, and the draft is the target without them: one block of six, which agrees with the target
often. So the row tells what the algorithm and its code are worth at the share of accepted drafts that
is stated beside it, not how good a draft some training gives. Both must write the same text.
"""

from dataclasses import replace
from typing import Any

import torch

from minigpt.config import GPTConfig
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


def compare(rounds: int, threads: int, n_new: int = 200) -> dict[str, Any]:
    """Tokens per second of both, round by round, with the best γ of ``GAMMAS``, and the share of accepted drafts.

    Raises:
        ArithmeticError: the texts differ by more than ties of rounding explain.
    """
    torch.set_num_threads(threads)
    target, draft = pair()
    prompt = torch.arange(16)[None] % VOCABULARY
    texts: dict[str, Any] = {}

    def plain() -> None:
        texts["plain"] = generate(target, prompt, n_new, sampling=GREEDY)

    def speculative(gamma: int) -> None:
        texts[f"gamma {gamma}"] = speculate(target, draft, prompt, n_new, gamma=gamma, sampling=GREEDY)

    runs: dict[str, Any] = {"plain": plain} | {
        f"gamma {gamma}": lambda gamma=gamma: speculative(gamma) for gamma in GAMMAS
    }
    seconds = interleaved(rounds, runs)
    best = min(GAMMAS, key=lambda gamma: sorted(seconds[f"gamma {gamma}"])[rounds // 2])
    found = texts[f"gamma {best}"]
    if not torch.equal(found.tokens, texts["plain"]):
        raise ArithmeticError("speculative decoding wrote another text than plain greedy decoding")
    return {
        "ours": [n_new / each for each in seconds[f"gamma {best}"]],
        "plain": [n_new / each for each in seconds["plain"]],
        "gamma": best,
        "acceptance": found.acceptance_rate,
    }
