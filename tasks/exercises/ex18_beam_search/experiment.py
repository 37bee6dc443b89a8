"""Measures 21.18: continuations of every strategy, scored by the mini-GPT and by the pretrained model."""

import functools
import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from minigpt.decoding.beam import beam_search
from minigpt.decoding.sampling import Sampling, generate, warp
from minigpt.evaluation.diversity import repetition
from minigpt.evaluation.entropy import entropy
from minigpt.evaluation.evaluate import evaluating
from minigpt.evaluation.words import share_of_real_words
from minigpt.pretrained.causal_lm import score_continuations
from tasks.exercise import Context, Exercise
from tasks.exercises.ex18_beam_search.accuracy import accuracy
from tasks.exercises.ex18_beam_search.findings import (
    COOL,
    HUMAN,
    NUCLEUS,
    PLAIN,
    PROMPT,
    RUN,
    TOP_K,
    WRITING,
    Findings,
    Strategy,
    Truncation,
    Writer,
    Written,
    different,
)
from tasks.exercises.ex18_beam_search.lab import Lab, own_loss, prepare
from tasks.exercises.ex18_beam_search.pretrained_writing import pretrained_writing, prompts
from tasks.recipes.catalogue import SMALL_LONG


def measure(context: Context) -> Findings:
    """Everything the answer rests on."""
    lab, written = prepare(context), {}
    everything = (HUMAN, *WRITING)
    for i, strategy in enumerate(everything):
        context.progress(i / (len(everything) + 1), f"writing and scoring: {strategy.name}")
        found = context.once(strategy.key, functools.partial(as_json, lab, strategy))
        written[strategy.key] = Written(strategy.key, *(tuple(values) for values in found))
    context.progress(len(everything) / (len(everything) + 1), "checking")
    rows = prompts(context)
    ours = [written[strategy.key] for strategy in WRITING]
    return Findings(
        writer=writer(context),
        judge=lab.judge.name,
        note=lab.judge.note,
        prompts=lab.prompts,
        n_new=lab.n_new,
        runs=context.numbers["runs"],
        written=written,
        truncation=truncation(lab),
        by_pretrained=pretrained_writing(lab, rows),
        pretrained_vocabulary=len(lab.judge.tokenizer),
        pretrained_prompt=lab.judge.tokenizer.decode(rows[0, :PROMPT]),
        correlation=rank_correlation(*zip(*different(ours), strict=True)),
        accuracy=accuracy(lab, written),
        source=inspect.getsource(beam_search),
    )


def writer(context: Context) -> Writer:
    """The model that writes."""
    trained = context.model(SMALL_LONG)
    config = trained.model.config
    loss = trained.evaluations["validation_loss"][-1]
    return Writer(config.n_layer, config.d_model, config.vocab_size, config.context, loss)


def write(lab: Lab, strategy: Strategy, prompts: Tensor, salt: str = "sampling") -> Tensor:
    """Prompts (N, PROMPT) and what one strategy makes of them, (N, PROMPT + n_new).

    All samplers use the same random numbers, so that they differ only where the strategies do.
    """
    if strategy.beams:
        search = functools.partial(beam_search, lab.model, n_new=lab.n_new, beams=strategy.beams)
        return torch.stack([search(prompt)[0].tokens for prompt in prompts])
    generator = lab.context.generator(salt)
    return generate(lab.model, prompts, lab.n_new, sampling=Sampling(**strategy.options), generator=generator)


def judged(lab: Lab, strategy: Strategy) -> Written:
    """Write with one strategy, and measure."""
    n = lab.context.numbers
    tokens = lab.rows if strategy is HUMAN else write(lab, strategy, lab.rows[:, :PROMPT])
    texts, runs = lab.decode(tokens), list[str]()
    if strategy.drawn and strategy is not HUMAN:
        prompts = lab.rows[:1, :PROMPT].repeat(n["runs"], 1)
        runs = lab.decode(write(lab, strategy, prompts, "runs of one prompt"))
    pairs = [*zip(lab.prompts, texts, strict=True), *((lab.prompts[0], text) for text in runs)]
    scored = score_continuations(lab.scorer, lab.judge.tokenizer, pairs)
    first = scored[: len(texts)]
    return Written(
        key=strategy.key,
        texts=tuple(texts),
        own=tuple(own_loss(lab.model, row) for row in tokens),
        nats=tuple(s.nats for s in first),
        bits=tuple(s.nats * s.tokens / math.log(2) / len(s.text) for s in first),
        repeated=tuple(repetition(text, RUN) for text in texts),
        known=tuple(share_of_real_words([text], lab.known) for text in texts),
        again=tuple(s.perplexity for s in scored[len(texts) :]),
    )


def as_json(lab: Lab, strategy: Strategy) -> list[Any]:
    """``judged`` without the strategy, as plain JSON."""
    w = judged(lab, strategy)
    return [w.texts, w.own, w.nats, w.bits, w.repeated, w.known, w.again]


@torch.inference_mode()
def truncation(lab: Lab) -> dict[str, Truncation]:
    """What each sampler leaves of the distributions on held-out contexts."""
    size = lab.model.config.context
    tokens = lab.context.tokens(SMALL_LONG)
    count = min(lab.context.numbers["heldout"], len(tokens)) // size * size
    with evaluating(lab.model):
        logits = lab.model(tokens[:count].view(-1, size)).flatten(0, 1).float()
    p, found = logits.softmax(dim=-1), {}
    for strategy in (PLAIN, TOP_K, NUCLEUS, COOL):
        warped = warp(logits, Sampling(**strategy.options))
        kept = warped.isfinite()
        removed = 1.0 - (p * kept).sum(dim=-1).mean().item()
        left = entropy(warped.softmax(dim=-1)).mean().item()
        found[strategy.key] = Truncation(kept.sum(dim=-1).double().mean().item(), max(0.0, removed), left)
    return found


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's, 0 where one of the two does not vary."""
    from scipy.stats import spearmanr

    correlate: Any = spearmanr
    return float(correlate(x, y).statistic) if len(set(x)) > 1 < len(set(y)) else 0.0


EXERCISE = Exercise(
    measure=measure,
    recipes=(SMALL_LONG,),
    sources=("main", "pretrained", "bpe"),
    numbers={
        "smoke": {"prompts": 3, "new": 40, "runs": 3, "heldout": 512, "pretrained_prompts": 2, "pretrained_new": 16},
        "laptop": {
            "prompts": 10,
            "new": 200,
            "runs": 10,
            "heldout": 2_048,
            "pretrained_prompts": 5,
            "pretrained_new": 100,
        },
        "gpu": {
            "prompts": 10,
            "new": 200,
            "runs": 10,
            "heldout": 32_768,
            "pretrained_prompts": 10,
            "pretrained_new": 200,
        },
    },
    seconds={"smoke": 5, "laptop": 150, "gpu": 120},
)
