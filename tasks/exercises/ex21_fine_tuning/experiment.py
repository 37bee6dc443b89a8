"""Measures 21.21: scores and texts of the pretrained model, before and after its training on poetry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from minigpt.decoding.sampling import Sampling
from minigpt.pretrained.causal_lm import ScoredText, continue_text, score_text
from minigpt.pretrained.limits import context_of
from minigpt.pretrained.quick import quick
from tasks.exercise import Context, Exercise, FineTuned, Pretrained, Source
from tasks.exercises.ex21_fine_tuning.findings import Findings, Score, Scores, Split, Training, Written
from tasks.recipes.catalogue import VERSE

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
    train, held_out = ctx.text("train", "domain"), ctx.text("validation", "domain")
    written = write(ctx, models)
    words = frozenset(word.strip(".,:;!?'\"()").lower() for word in train.split())
    known, lines = set(train.splitlines()), [line for line in held_out.splitlines() if len(line) > 20]
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
        domain_words_before=vocabulary_share([text for w in written for text in w.before], words),
        domain_words_after=vocabulary_share([text for w in written for text in w.after], words),
        own_loss=own_loss(base, held_out, tuned.block),
        again=again.nats,
        overlap=sum(line in known for line in lines),
        lines=len(lines),
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


def prompts(ctx: Context) -> list[str]:
    """The first words of held-out lines: of the domain, and of the main corpus."""
    found = []
    wanted: dict[Source, int] = {"domain": ctx.numbers["domain_prompts"], "main": ctx.numbers["other_prompts"]}
    for corpus, count in wanted.items():
        lines = [line for line in ctx.text("validation", corpus).splitlines() if len(line.split()) >= 8]
        step = max(1, len(lines) // count)
        found += [" ".join(line.split()[:4]) for line in lines[::step][:count]]
    return found


def write(ctx: Context, models: Models) -> tuple[Written, ...]:
    """Continue each prompt several times with both models, from the same random numbers."""
    return tuple(
        Written(prompt, continued(ctx, models.before, prompt), continued(ctx, models.after, prompt))
        for prompt in prompts(ctx)
    )


def continued(ctx: Context, model: Pretrained, prompt: str) -> tuple[str, ...]:
    """Several continuations of a prompt."""
    ids = torch.tensor([model.tokenizer(prompt, add_special_tokens=False)["input_ids"]])
    rows = ids.repeat(ctx.numbers["samples"], 1).to(model.model.device)
    n_new = min(ctx.numbers["new_tokens"], context_of(model.model) - rows.shape[1])
    tokens = continue_text(model.model, rows, n_new, sampling=Sampling(top_p=0.95), generator=ctx.generator(prompt))
    return tuple(decoded(model, tokens[:, rows.shape[1] :]))


def decoded(model: Pretrained, rows: Tensor) -> list[str]:
    """Tokens as text, special ones left out."""
    return [model.tokenizer.decode(row, skip_special_tokens=True) for row in rows.tolist()]


def vocabulary_share(texts: Sequence[str], words: frozenset[str]) -> tuple[float, ...]:
    """Per text, the share of its words that occur in a vocabulary."""
    found = [[word.strip(".,:;!?'\"()").lower() for word in text.split()[:-1]] for text in texts]
    return tuple(sum(word in words for word in text) / len(text) for text in found if text)


EXERCISE = Exercise(
    measure=measure,
    sources=("main", "domain", "code", "pretrained", "bpe"),
    finetunes=(VERSE,),
    numbers={
        "smoke": {"tokens": 512, "samples": 2, "new_tokens": 24, "domain_prompts": 1, "other_prompts": 1},
        "laptop": {"tokens": 3_072, "samples": 6, "new_tokens": 64, "domain_prompts": 3, "other_prompts": 1},
        "gpu": {"tokens": 32_768, "samples": 32, "new_tokens": 128, "domain_prompts": 4, "other_prompts": 2},
    },
    seconds={"smoke": 4, "laptop": 125, "gpu": 120},
)
