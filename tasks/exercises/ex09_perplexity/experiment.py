"""Measures 21.9: two texts under the pretrained model, and the character model on the validation text."""

import lzma
import math
from collections import Counter
from decimal import Decimal, localcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt.evaluation.entropy import unigram_loss
from minigpt.evaluation.words import spaced
from minigpt.pretrained.causal_lm import ScoredText, row_losses, score_text
from minigpt.pretrained.limits import context_of
from minigpt.pretrained.quick import quick
from tasks.exercise import Context, Exercise, Pretrained, Source
from tasks.exercises.ex09_perplexity.findings import GIVEN, UNIFORM, Findings, Scored, Study
from tasks.recipes.catalogue import STUDY

TEXTS: dict[str, Source] = {"English prose": "main", "Python source": "code"}


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    pretrained = ctx.pretrained()
    prose, code = scored(ctx, pretrained)
    with localcontext() as precise:
        precise.prec = 50
        exact = float(Decimal(GIVEN).ln())
    chance = torch.full((1, 2), math.log(1 / GIVEN), dtype=torch.float64)
    chance[0, 1] = math.log(1 - 1 / GIVEN)
    return Findings(
        pretrained=pretrained.name,
        note=pretrained.note,
        pretrained_vocab_size=int(pretrained.model.config.vocab_size),
        prose=prose,
        code=code,
        study=study(ctx),
        uniform_perplexity=uniform_perplexity(UNIFORM),
        exact_log=exact,
        given_perplexity=math.exp(F.cross_entropy(chance, torch.tensor([0])).item()),
    )


def scored(ctx: Context, pretrained: Pretrained) -> list[Scored]:
    """Both texts."""
    n, found, reader = ctx.numbers, [], quick(pretrained.model, ctx.precision)
    for i, (name, corpus) in enumerate(TEXTS.items()):
        ctx.progress(i / 2, f"scoring {name} with {pretrained.name}")
        text = ctx.text("validation", corpus)
        losses = score_text(
            reader, pretrained.tokenizer, text, tokens=n["tokens"], window=n["window"], batch_size=n["batch"]
        )
        found.append(summary(pretrained, losses))
    return found


def summary(pretrained: Pretrained, s: ScoredText) -> Scored:
    """A scored text in numbers."""
    frequencies, packed = references(s.text)
    white = torch.tensor([not piece.strip() for piece in s.pieces])
    return Scored(
        tokens=s.tokens,
        bytes_per_token=s.bytes_per_token,
        perplexity=s.perplexity,
        bits_per_byte=s.bits_per_byte,
        byte_frequencies=frequencies,
        lzma=packed,
        blank_share=white.double().mean().item(),
        blank_loss=mean(s.losses[white]),
        other_loss=mean(s.losses[~white]),
        loss=mean(s.losses),
        own_difference=own_difference(pretrained, s),
    )


def mean(losses: Tensor) -> float | None:
    """Mean loss, None of nothing."""
    return losses.double().mean().item() if len(losses) else None


def references(text: str) -> tuple[float, float]:
    """Bits per byte of two models of the text that know no language: byte frequencies, and a compressor (LZMA)."""
    data = text.encode()
    counts = Counter(data)
    frequencies = -sum(c / len(data) * math.log2(c / len(data)) for c in counts.values())
    packed = lzma.compress(data, format=lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 9}])
    return frequencies, len(packed) * 8 / len(data)


@torch.inference_mode()
def own_difference(pretrained: Pretrained, scored: ScoredText) -> float:
    """Our loss on the first tokens of a text against the loss that Transformers computes from labels."""
    ids = pretrained.tokenizer(scored.text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    ids = ids[:, : min(64, context_of(pretrained.model))].to(pretrained.model.device)
    theirs: float = pretrained.model(ids, labels=ids).loss.item()
    return abs(row_losses(pretrained.model, ids).mean().item() - theirs)


def study(ctx: Context) -> Study:
    """One character model on one text."""
    text, size = ctx.text("validation"), ctx.model(STUDY).model.config.vocab_size
    return Study(
        losses=tuple(ctx.model(STUDY, seed).evaluations["validation_loss"][-1] for seed in ctx.seeds(STUDY)),
        vocab_size=size,
        characters=len(text) - 1,
        n_bytes=len(text.encode()),
        words=len(text.split()) if spaced(text) else None,
        unigram_loss=unigram_loss(ctx.tokens(STUDY, "train"), ctx.tokens(STUDY), size),
    )


def uniform_perplexity(size: int) -> float:
    """Measured: cross-entropy of constant logits on 1,000 targets spread over the vocabulary."""
    targets = torch.arange(1_000) * (size // 1_000)
    logits = torch.zeros(1, dtype=torch.float64).expand(size)
    losses = [F.cross_entropy(logits[None].expand(100, -1), chunk).item() for chunk in targets.split(100)]
    return math.exp(sum(losses) / len(losses))


EXERCISE = Exercise(
    measure=measure,
    recipes=(STUDY,),
    sources=("main", "code", "pretrained"),
    numbers={
        "smoke": {"tokens": 512, "window": 128, "batch": 4},
        "laptop": {"tokens": 4_096, "window": 512, "batch": 4},
        "gpu": {"tokens": 65_536, "window": 1_024, "batch": 16},
    },
    seconds={"smoke": 3, "laptop": 35, "gpu": 30},
)
