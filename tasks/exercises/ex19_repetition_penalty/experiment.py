"""Measures 21.19: texts of every strength, sampled and greedy, and human text under the penalised model."""

import inspect
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minigpt.decoding.penalties import banned, repetition_penalty
from minigpt.decoding.recording import Recorder
from minigpt.decoding.sampling import Processor, Sampling
from minigpt.decoding.side_by_side import side_by_side
from minigpt.evaluation.diversity import ngrams, repetition
from minigpt.evaluation.excerpts import spread_starts
from minigpt.evaluation.words import common_words, share_of_real_words, words
from minigpt.pretrained.causal_lm import continue_text, losses_under
from minigpt.pretrained.limits import context_of
from minigpt.pretrained.quick import quick
from tasks.exercise import Context, Exercise
from tasks.exercises.ex19_repetition_penalty.findings import (
    GREEDY,
    HUMAN,
    NGRAMS,
    NUCLEUS,
    STRENGTHS,
    TOP_P,
    WAYS,
    Accuracy,
    Findings,
    Reading,
    Written,
)

SAMPLINGS = {NUCLEUS: Sampling(top_p=TOP_P), GREEDY: Sampling(temperature=0.0)}


@dataclass(frozen=True)
class Lab:
    """The model, the prompts, and how people went on."""

    model: Any  # what reads and writes
    exact: Any  # the same model as it was loaded, in fp32, for checks
    tokenizer: Any
    rows: Tensor  # (N, length + n_new): prompts with their human continuation
    length: int  # of a prompt, tokens
    n_new: int
    known: frozenset[str]  # words


def measure(context: Context) -> Findings:
    """Everything the answer rests on."""
    lab, pretrained = prepare(context), context.pretrained()
    context.progress(0.0, "reading the human continuations")
    reading = context.once("human", lambda: read(lab))
    count = len(lab.rows)
    found, written = context.once("texts", lambda: write(context, lab)), []
    for i, (key, alpha) in enumerate(itertools.product(WAYS, STRENGTHS)):
        rows = slice(i * count, (i + 1) * count)
        written.append(examined(lab, key, alpha, found["tokens"][rows], found["losses"][rows]))
    context.progress(0.8, "checking")
    losses = torch.tensor(reading["losses"][0]).view(count, -1).tolist()
    return Findings(
        model=pretrained.name,
        note=pretrained.note,
        prompt_length=lab.length,
        n_new=lab.n_new,
        written=tuple(written),
        human=examined(lab, HUMAN, 1.0, lab.rows.tolist(), losses),
        reading=Reading(**{name: tuple(map(tuple, x) if name == "losses" else x) for name, x in reading.items()}),
        accuracy=Accuracy(**penalty_accuracy(context), **writing_accuracy(context, lab, found["tokens"][0])),
        source=inspect.getsource(repetition_penalty),
    )


def prepare(context: Context) -> Lab:
    """Cut prompts out of the held-out text, each from the beginning of a word."""
    pretrained, n = context.pretrained(), context.numbers
    tokenizer, text = pretrained.tokenizer, context.text()
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    room = min(context_of(pretrained.model), len(offsets) // 2)
    length = min(n["prompt"], room // 4)
    n_new = min(n["tokens"], room - length)
    last = offsets[len(offsets) - length - n_new - 8][0]  # some tokens to spare: text cut elsewhere has others
    starts = spread_starts(text, n["samples"], last)
    rows = [tokenizer(text[start:], add_special_tokens=False)["input_ids"][: length + n_new] for start in starts]
    known = common_words(context.bpe()).union(words(context.text("train")))
    model = quick(pretrained.model, context.precision)
    return Lab(model, pretrained.model, tokenizer, torch.tensor(rows, device=context.device), length, n_new, known)


def write(context: Context, lab: Lab) -> dict[str, Any]:
    """All ways and all α in one batch, by way, then by α: tokens (WAYS · α · N, length + n_new) and their losses.

    As plain JSON; the losses are those of the model without penalty.
    """
    done = 0

    def tell(_: Tensor, logits: Tensor) -> Tensor:
        nonlocal done
        done += 1
        context.progress(0.1 + 0.7 * done / lab.n_new, f"token {done} of {lab.n_new} of {len(logits)} texts")
        return logits

    alphas = torch.tensor(STRENGTHS).repeat_interleave(len(lab.rows)).repeat(len(WAYS))
    recorder = Recorder()
    tokens = side_by_side(
        lab.model,
        lab.rows[:, : lab.length],
        lab.n_new,
        [SAMPLINGS[way] for way in WAYS for _ in STRENGTHS],
        generator=context.generator("texts"),
        processors=(tell, recorder, repetition_penalty(alphas), banned(special(lab))),
    )
    return {"tokens": tokens.tolist(), "losses": recorder.losses(tokens).tolist()}


def special(lab: Lab) -> list[int]:
    """Tokens that end a text or mark up a conversation: they are banned, for all texts to have the same length."""
    return sorted(lab.tokenizer.all_special_ids)


def examined(lab: Lab, key: str, alpha: float, tokens: Sequence[list[int]], losses: Sequence[list[float]]) -> Written:
    """All measures of the continuations."""
    decode = lab.tokenizer.decode
    new = [row[lab.length :] for row in tokens]
    texts = tuple(decode(row) for row in new)
    return Written(
        key=key,
        alpha=alpha,
        prompts=tuple(decode(row[: lab.length]) for row in tokens),
        texts=texts,
        repeated={n: tuple(repetition(row, n) for row in new) for n in NGRAMS},
        seen=tuple(sum(row[i] in row[:i] for i in range(lab.length, len(row))) / lab.n_new for row in tokens),
        nats=tuple(sum(row) / len(row) for row in losses),
        real=tuple(share_of_real_words([text], lab.known) for text in texts),
    )


def read(lab: Lab) -> dict[str, Any]:
    """The human continuations under the model, the fields of ``Reading`` as plain JSON."""
    found: dict[str, Any] = {"losses": [[] for _ in STRENGTHS], "logits": [], "seen": []}
    found |= {"best_seen": [], "best_new": []}
    noted: list[Tensor] = []

    def note(tokens: Tensor, logits: Tensor) -> Tensor:
        noted.append(logits)
        found["best_seen"].append(logits.gather(1, tokens).max().item())
        found["best_new"].append(logits.scatter(1, tokens, -torch.inf).max().item())
        return logits

    for row in lab.rows:
        noted.clear()
        penalties = [repetition_penalty(alpha) for alpha in STRENGTHS[1:]]
        losses = losses_under(lab.model, row, lab.length, (note, *penalties))
        for per_alpha, values in zip(found["losses"], losses.tolist(), strict=True):
            per_alpha += values
        targets = row[lab.length :, None]
        found["logits"] += torch.cat(noted).gather(1, targets)[:, 0].tolist()
        found["seen"] += [bool((row[:end] == row[end]).any()) for end in range(lab.length, len(row))]
    return found


def penalty_accuracy(context: Context) -> dict[str, Any]:
    """The penalty against Transformers' and against its definition."""
    from transformers import RepetitionPenaltyLogitsProcessor

    g = context.generator("parity")
    logits, before = 5 * torch.randn(64, 97, generator=g), torch.randint(97, (64, 60), generator=g)
    held = {alpha: repetition_penalty(alpha)(before, logits) for alpha in STRENGTHS}
    pair = torch.tensor([[3.0, -3.0, 1.0]])
    once = repetition_penalty(2.0)(torch.tensor([[0, 1]]), pair)
    often = repetition_penalty(2.0)(torch.tensor([[0, 1, 0, 0, 1]]), pair)
    return {
        "as_transformers": all(
            torch.equal(RepetitionPenaltyLogitsProcessor(a)(before, logits.clone()), held[a]) for a in held
        ),
        "nothing_at_1": torch.equal(held[1.0], logits),
        "largest_rise": max((held[a] - logits).gather(1, before).max().item() for a in STRENGTHS[1:]),
        "three_and_minus_three": tuple(once[0, :2].tolist()),
        "penalised_once": torch.equal(once, often),
    }


@torch.inference_mode()
def writing_accuracy(context: Context, lab: Lab, tokens: list[int]) -> dict[str, Any]:
    """What is written and measured, against second ways to do it. ``tokens`` are of one text."""
    prompt, few, recorder = lab.rows[:2, : lab.length], min(8, lab.n_new), Recorder()
    writer = quick(lab.exact)  # in fp32, as exact, with the fused attention

    def sample(*processors: Processor) -> Tensor:
        return continue_text(writer, prompt, few, generator=context.generator("α = 1"), processors=processors)

    # A whole text as the others are written, but in fp32, where its losses must be those of a second pass.
    drawn = context.generator("recorded")
    ids = side_by_side(writer, prompt[:1], lab.n_new, [SAMPLINGS[NUCLEUS]], generator=drawn, processors=[recorder])
    theirs = lab.exact(ids, labels=ids.masked_fill(torch.arange(ids.shape[1], device=ids.device) < lab.length, -100))
    new = tokens[lab.length :]
    counts = Counter(ngrams(new, 2))
    return {
        "same_samples_at_1": torch.equal(sample(), sample(repetition_penalty(1.0))),
        "recorded_loss": recorder.losses(ids).mean().item(),
        "second_loss": theirs.loss.item(),
        "repeated_bigrams": repetition(new, 2),
        "counted_bigrams": sum(count - 1 for count in counts.values()) / counts.total(),
        "banned_written": sum(token in special(lab) for token in new),
    }


EXERCISE = Exercise(
    measure=measure,
    sources=("main", "pretrained", "bpe"),
    numbers={
        "smoke": {"samples": 3, "prompt": 16, "tokens": 32},
        "laptop": {"samples": 10, "prompt": 32, "tokens": 200},
        "gpu": {"samples": 10, "prompt": 32, "tokens": 200},
    },
    seconds={"smoke": 3, "laptop": 140, "gpu": 60},
)
