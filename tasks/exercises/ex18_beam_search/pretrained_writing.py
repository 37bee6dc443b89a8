"""The strategies of 21.18 on the pretrained model, whose vocabulary is so large that k = 50 cuts something off.

Its prompts are as many tokens as the mini-GPT's are characters. It writes all that is drawn in one batch, and is its
own judge: what people wrote after the same prompts says how likely good text is under it.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from minigpt.decoding.penalties import banned
from minigpt.decoding.sampling import Sampling, warp
from minigpt.decoding.side_by_side import side_by_side
from minigpt.evaluation.diversity import repetition
from minigpt.evaluation.excerpts import spread_starts
from minigpt.evaluation.words import common_words, share_of_real_words
from minigpt.pretrained.causal_lm import row_losses
from minigpt.pretrained.limits import context_of
from tasks.exercise import Context
from tasks.exercises.ex18_beam_search.findings import (
    BEAM,
    BEAMS,
    COOL,
    GREEDY,
    HUMAN,
    NUCLEUS,
    PLAIN,
    PROMPT,
    TOP_K,
    ByPretrained,
    Strategy,
)
from tasks.exercises.ex18_beam_search.lab import Lab

DRAWN = (GREEDY, TOP_K, NUCLEUS, COOL, PLAIN)


def pretrained_writing(lab: Lab, rows: Tensor) -> dict[str, ByPretrained]:
    """What the pretrained model writes with each strategy, by key; people's continuations, the ``rows``, first."""
    tokens = lab.context.once("pretrained texts", lambda: {k: v.tolist() for k, v in written(lab, rows).items()})
    cut, known = kept(lab, rows), known_words(lab)
    found = {}
    for key, values in tokens.items():
        texts = torch.tensor(values, device=rows.device)
        new = texts[:, PROMPT:].tolist()
        words = [lab.judge.tokenizer.decode(row) for row in new]
        losses = row_losses(lab.scorer, texts)[:, PROMPT - 1 :].double().mean(dim=1)
        found[key] = ByPretrained(
            key=key,
            texts=tuple(words),
            nats=tuple(losses.tolist()),
            repeated=tuple(repetition(row, 4) for row in new),
            real=tuple(share_of_real_words([text], known) for text in words),
            kept=cut.get(key, (None, None))[0],
            removed=cut.get(key, (None, None))[1],
        )
    return found


def known_words(lab: Lab) -> frozenset[str]:
    """Words of the training text, and the common ones that GPT-2's vocabulary has whole."""
    return common_words(lab.context.bpe()) | lab.known


def prompts(context: Context) -> Tensor:
    """Held-out text from the beginnings of words on, (N, PROMPT + new) tokens."""
    p, n = context.pretrained(), context.numbers
    text = context.text()
    offsets = p.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    length = PROMPT + min(n["pretrained_new"], context_of(p.model) - PROMPT, len(offsets) // 2 - PROMPT)
    last = offsets[len(offsets) - length - 8][0]  # some tokens to spare: text cut elsewhere has others
    starts = spread_starts(text, n["pretrained_prompts"], last)
    rows = [p.tokenizer(text[start:], add_special_tokens=False)["input_ids"][:length] for start in starts]
    return torch.tensor(rows, device=context.device)


def written(lab: Lab, rows: Tensor) -> Mapping[str, Tensor]:
    """Prompts and continuations by strategy, (N, PROMPT + new)."""
    prompt, new = rows[:, :PROMPT], rows.shape[1] - PROMPT
    special = sorted(lab.judge.tokenizer.all_special_ids)  # no text ends early
    drawn = side_by_side(
        lab.scorer,
        prompt,
        new,
        [Sampling(**strategy.options) for strategy in DRAWN],
        generator=lab.context.generator("pretrained"),
        processors=[banned(special)],
    )
    options: dict[str, Any] = {"num_beams": BEAM, "do_sample": False, "suppress_tokens": special or None}
    beams = lab.scorer.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=new,
        eos_token_id=None,
        pad_token_id=0,
        **options,
    )
    by_way = {strategy.key: texts for strategy, texts in zip(DRAWN, drawn.split(len(rows)), strict=True)}
    return {HUMAN.key: rows, BEAMS[BEAM].key: beams, **by_way}


@torch.inference_mode()
def kept(lab: Lab, rows: Tensor) -> dict[str, tuple[float, float]]:
    """Tokens that each sampler keeps after what people wrote, and the probability that it removes, means."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        logits = lab.scorer(row[None, :-1], use_cache=False).logits[0, PROMPT - 1 :].float()
        p = logits.softmax(dim=-1)
        for strategy in (TOP_K, NUCLEUS, COOL, PLAIN):
            stays = _stays(logits, strategy)
            removed = 1.0 - (p * stays).sum(dim=-1).mean().item()
            found.setdefault(strategy.key, []).append((stays.sum(dim=-1).double().mean().item(), max(0.0, removed)))
    return {key: (_mean([n for n, _ in values]), _mean([r for _, r in values])) for key, values in found.items()}


def _stays(logits: Tensor, strategy: Strategy) -> Tensor:
    return warp(logits, Sampling(**strategy.options)).isfinite()


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
