"""Measures 21.21: scores and texts of the pretrained model, before and after its training on poetry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from minigpt.decoding.sampling import GREEDY, Sampling
from minigpt.decoding.side_by_side import side_by_side
from minigpt.evaluation.overlap import LONG, shared_lines, shared_runs, without_shared_lines
from minigpt.pretrained.causal_lm import ScoredText, continue_text, score_text
from minigpt.pretrained.limits import context_of
from minigpt.pretrained.quick import quick
from tasks.exercise import Context, Exercise, FineTuned, Pretrained, Source
from tasks.exercises.ex21_fine_tuning.findings import (
    Findings,
    Recall,
    Score,
    Scores,
    Split,
    Training,
    Written,
)
from tasks.recipes.catalogue import VERSE

PROMPT = 6  # tokens of a line
RECALLED = 12  # tokens of a line that are given, and as many that are asked for
RUN = 8  # words
TEXTS: Mapping[str, Source] = {"domain": "domain", "main corpus": "main", "Python source": "code"}


@dataclass(frozen=True)
class Models:
    """The pretrained model, and what the training has made of it."""

    before: Pretrained
    after: Pretrained


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    base, tuned = ctx.pretrained(), ctx.finetuned(VERSE)
    models = Models(*(replace(p, model=quick(p.model, ctx.precision)) for p in (base, tuned.pretrained)))
    scores = {}
    for i, (name, corpus) in enumerate(TEXTS.items()):
        ctx.progress(i / (len(TEXTS) + 1), f"scoring the {name}, before and after")
        scores[name] = scores_of(ctx, models, ctx.text("validation", corpus), tuned.block)
    ctx.progress(len(TEXTS) / (len(TEXTS) + 1), "writing before and after")
    held_out, everything = ctx.text("validation", "domain"), ctx.text("train", "domain")
    train = without_shared_lines(everything, held_out)
    words = frozenset(word.strip(".,:;!?'\"()").lower() for word in train.split())
    written = write(ctx, models, words)
    ids = base.tokenizer(train[:120], add_special_tokens=False)["input_ids"][:12]
    reader = quick(base.model, tuned.recipe.precision)
    again = score_text(reader, base.tokenizer, held_out, tokens=tuned.tokens["validation"] - 1, window=tuned.block)
    return Findings(
        model=base.name,
        note=base.note,
        train=split_of(ctx, train, tuned.tokens["train"]),
        held_out=split_of(ctx, held_out, tuned.tokens["validation"]),
        first_tokens=tuple((id_, base.tokenizer.decode([id_])) for id_ in ids),
        training=training_of(tuned),
        scores=scores,
        written=written,
        recall={name: recall(ctx, models, ctx.text("validation", corpus)) for name, corpus in TEXTS.items()},
        own_loss=own_loss(base, held_out, tuned.block),
        again=again.nats,
        shared=len(shared_lines(everything, held_out)),
        overlap=len(shared_lines(train, held_out)),
        lines=sum(len(line) > LONG for line in held_out.splitlines()),
        runs=RUN,
        shared_runs=shared_runs(train, held_out, RUN),
    )


def split_of(ctx: Context, text: str, used: int) -> Split:
    """The size of a text in several units."""
    own = ctx.pretrained().tokenizer(text, add_special_tokens=False)["input_ids"]
    return Split(len(text), len(text.split()), len(own), len(ctx.bpe().encode(text)), used)


def training_of(tuned: FineTuned) -> Training:
    """The training as plain data."""
    recipe = tuned.recipe
    return Training(
        epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        batch_size=recipe.batch_size,
        block=tuned.block,
        precision=recipe.precision,
        steps=tuned.steps,
        parameters=sum(weight.numel() for weight in tuned.pretrained.model.parameters()),
        seconds=tuned.seconds,
        tokens_per_second=tuned.tokens_per_second,
        trained_steps=tuple(tuned.history["step"]),
        trained_losses=tuple(tuned.history["train_loss"]),
        evaluated_steps=tuple(tuned.evaluations["step"]),
        evaluated_losses=tuple(tuned.evaluations["validation_loss"]),
    )


def scores_of(ctx: Context, models: Models, text: str, size: int) -> Scores:
    """A held-out text under both models."""
    found = []
    for model in (models.before, models.after):
        scored = score_text(model.model, model.tokenizer, text, tokens=ctx.numbers["tokens"], window=size)
        found.append(Score(scored.tokens, scored.perplexity, scored.bits_per_byte, windows(scored, size)))
    return Scores(*found)


def windows(scored: ScoredText, size: int) -> tuple[float, ...]:
    """Mean loss of each whole window, what noise is counted in: neighbouring tokens are not independent."""
    whole = scored.tokens // size * size
    if whole < 2 * size:
        return (scored.nats,)
    return tuple(float(loss) for loss in scored.losses[:whole].view(-1, size).double().mean(dim=1))


@torch.inference_mode()
def own_loss(model: Pretrained, text: str, size: int) -> tuple[float, float]:
    """Our loss on the first window, and the one that Transformers computes from labels that it shifts itself."""
    ids = torch.tensor([model.tokenizer(text, add_special_tokens=False)["input_ids"][:size]])
    ids = ids.to(model.model.device)
    ours = score_text(model.model, model.tokenizer, text, tokens=size - 1, window=size - 1)
    return ours.nats, float(model.model(ids, labels=ids).loss)


# --- Writing --------------------------------------------------------------------------------------------------


def prompts(ctx: Context) -> torch.Tensor:
    """The first tokens of held-out lines, (P, PROMPT): of the domain, and of the main corpus."""
    found: list[list[int]] = []
    wanted: dict[Source, int] = {"domain": ctx.numbers["domain_prompts"], "main": ctx.numbers["other_prompts"]}
    for corpus, count in wanted.items():
        found += first_tokens(ctx, ctx.text("validation", corpus), PROMPT, count)
    return torch.tensor(found, device=ctx.device)


def first_tokens(ctx: Context, text: str, length: int, count: int) -> list[list[int]]:
    """The first tokens of up to ``count`` lines, evenly spread; where no line has so many, the first of the text."""
    tokenizer = ctx.pretrained().tokenizer
    lines = [line for line in text.splitlines() if len(line.split()) >= 8]
    encoded = (tokenizer(line, add_special_tokens=False)["input_ids"] for line in lines)
    rows = [ids[:length] for ids in encoded if len(ids) >= length]
    if not rows:
        rows = [tokenizer(text[: 50 * length], add_special_tokens=False)["input_ids"][:length]]
    return rows[:: max(1, len(rows) // count)][:count]


def write(ctx: Context, models: Models, words: frozenset[str]) -> tuple[Written, ...]:
    """Continue each prompt several times with both models, from the same random numbers."""
    rows, samples = prompts(ctx), ctx.numbers["samples"]
    before, after = (continued(ctx, model, rows, samples) for model in (models.before, models.after))
    return tuple(
        Written(
            ctx.pretrained().tokenizer.decode(row),
            *texts,
            *(vocabulary_share(of_model, words) or (0.0,) for of_model in texts),
        )
        for row, texts in zip(rows.tolist(), zip(before, after, strict=True), strict=True)
    )


def continued(ctx: Context, model: Pretrained, rows: torch.Tensor, samples: int) -> list[tuple[str, ...]]:
    """Several continuations of each prompt."""
    n_new = min(ctx.numbers["new_tokens"], context_of(model.model) - rows.shape[1])
    tokens = side_by_side(
        model.model, rows, n_new, [Sampling(top_p=0.95)] * samples, generator=ctx.generator("continuations")
    )
    new = tokens[:, rows.shape[1] :].view(samples, len(rows), n_new).transpose(0, 1)
    decode = model.tokenizer.decode
    return [tuple(decode(text, skip_special_tokens=True) for text in texts) for texts in new.tolist()]


def recall(ctx: Context, models: Models, text: str) -> Recall:
    """Whether the models go on with the lines of a held-out text as it does, token by token."""
    lines = torch.tensor(first_tokens(ctx, text, 2 * RECALLED, ctx.numbers["recalled"]), device=ctx.device)
    asked = lines.shape[1] // 2
    found = []
    for model in (models.before, models.after):
        written = continue_text(model.model, lines[:, :-asked], asked, sampling=GREEDY)
        same = (written == lines)[:, -asked:].long().cumprod(dim=1)  # up to the first that is another
        found.append((int(same[:, -1].sum()), same.double().mean().item()))
    (whole_before, share_before), (whole_after, share_after) = found
    return Recall(len(lines), lines.shape[1] - asked, asked, whole_before, whole_after, share_before, share_after)


def vocabulary_share(texts: Sequence[str], words: frozenset[str]) -> tuple[float, ...]:
    """Per text, the share of its words that occur in a vocabulary."""
    found = [[word.strip(".,:;!?'\"()").lower() for word in text.split()[:-1]] for text in texts]
    return tuple(sum(word in words for word in text) / len(text) for text in found if text)


EXERCISE = Exercise(
    measure=measure,
    sources=("main", "domain", "code", "pretrained", "bpe"),
    finetunes=(VERSE,),
    numbers={
        "smoke": {
            "tokens": 512,
            "samples": 2,
            "new_tokens": 24,
            "domain_prompts": 1,
            "other_prompts": 1,
            "recalled": 4,
        },
        "laptop": {
            "tokens": 3_072,
            "samples": 3,
            "new_tokens": 64,
            "domain_prompts": 7,
            "other_prompts": 1,
            "recalled": 32,
        },
        "gpu": {
            "tokens": 32_768,
            "samples": 8,
            "new_tokens": 128,
            "domain_prompts": 16,
            "other_prompts": 4,
            "recalled": 128,
        },
    },
    seconds={"smoke": 4, "laptop": 70, "gpu": 120},
)
