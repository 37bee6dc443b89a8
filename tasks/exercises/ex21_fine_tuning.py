"""Exercise 21.21: the pretrained model trained further on poetry, and what it gains and forgets."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.decoding.sampling import Sampling
from minigpt.evaluation.statistics import Comparison, compare, compare_paired
from minigpt.pretrained.causal_lm import ScoredText, continue_text, score_text
from minigpt.pretrained.limits import context_of
from reports.types import Answer, Block, Cell, Check, Figure, Part, Prose, Sample, Series, Table
from tasks.exercise import Context, Exercise, FineTuned, Pretrained, Source
from tasks.recipes.catalogue import VERSE

TEXTS: Mapping[str, Source] = {"domain": "domain", "main corpus": "main", "Python source": "code"}


@dataclass(frozen=True)
class Scores:
    """One held-out text under the model before and after."""

    before: ScoredText
    after: ScoredText
    change: Comparison  # of the mean loss, paired over windows


@dataclass(frozen=True)
class Written:
    """Continuations of one prompt, before and after, from the same random numbers."""

    prompt: str
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True)
class Findings:
    """Everything the answer rests on."""

    base: Pretrained
    tuned: FineTuned
    scores: Mapping[str, Scores]
    written: tuple[Written, ...]
    own_loss: tuple[float, float]  # the untuned model's loss on the first window: ours, Transformers'
    overlap: int  # lines of the held-out text that also stand in the training text
    lines: int  # of the held-out text, of those that were looked for


def measure(ctx: Context) -> Findings:
    """Score and write with both models."""
    base, tuned = ctx.pretrained(), ctx.finetuned(VERSE)
    models = {"before": base, "after": tuned.pretrained}
    scores = {}
    for i, (name, corpus) in enumerate(TEXTS.items()):
        ctx.progress(i / (len(TEXTS) + 1), f"scoring the {name}, before and after")
        text = ctx.text("validation", corpus)
        before, after = (
            score_text(m.model, m.tokenizer, text, tokens=ctx.numbers["tokens"], window=tuned.block)
            for m in models.values()
        )
        scores[name] = Scores(before, after, compare_paired(*(windows(s, tuned.block) for s in (before, after))))
    ctx.progress(len(TEXTS) / (len(TEXTS) + 1), "writing before and after")
    train = set(ctx.text("train", "domain").splitlines())
    held_out = [line for line in ctx.text("validation", "domain").splitlines() if len(line) > 20]
    return Findings(
        base=base,
        tuned=tuned,
        scores=scores,
        written=write(ctx, models),
        own_loss=own_loss(base, ctx.text("validation", "domain"), tuned.block),
        overlap=sum(line in train for line in held_out),
        lines=len(held_out),
    )


def windows(scored: ScoredText, size: int) -> list[float]:
    """Mean loss of each whole window, what noise is counted in: neighbouring tokens are not independent."""
    whole = scored.tokens // size * size
    if whole < 2 * size:
        return [scored.nats]
    return [float(loss) for loss in scored.losses[:whole].view(-1, size).double().mean(dim=1)]


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


def write(ctx: Context, models: Mapping[str, Pretrained]) -> tuple[Written, ...]:
    """Continue each prompt several times with both models, from the same random numbers."""
    found = []
    for prompt in prompts(ctx):
        texts = {}
        for name, model in models.items():
            ids = torch.tensor([model.tokenizer(prompt, add_special_tokens=False)["input_ids"]])
            rows = ids.repeat(ctx.numbers["samples"], 1).to(model.model.device)
            n_new = min(ctx.numbers["new_tokens"], context_of(model.model) - rows.shape[1])
            tokens = continue_text(
                model.model, rows, n_new, sampling=Sampling(top_p=0.95), generator=ctx.generator(prompt)
            )
            texts[name] = tuple(decoded(model, tokens[:, rows.shape[1] :]))
        found.append(Written(prompt, texts["before"], texts["after"]))
    return tuple(found)


def decoded(model: Pretrained, rows: Tensor) -> list[str]:
    """Tokens as text, special ones left out."""
    return [model.tokenizer.decode(row, skip_special_tokens=True) for row in rows.tolist()]


def vocabulary_share(texts: Sequence[str], words: frozenset[str]) -> list[float]:
    """Per text, the share of its words that occur in a vocabulary."""
    found = [[word.strip(".,:;!?'\"()").lower() for word in text.split()[:-1]] for text in texts]
    return [sum(word in words for word in text) / len(text) for text in found if text]


# --- The parts --------------------------------------------------------------------------------------------------


def part_a(ctx: Context, f: Findings) -> Part:
    """The data set."""
    rows: list[tuple[Cell, ...]] = []
    gpt2 = ctx.bpe()
    for split, name in (("train", "training"), ("validation", "held out")):
        text = ctx.text("train" if split == "train" else "validation", "domain")
        own = len(f.base.tokenizer(text, add_special_tokens=False)["input_ids"])
        rows.append((name, len(text), len(text.split()), own, len(gpt2.encode(text)), f.tuned.tokens[split]))
    columns = ("split", "characters", "words", "tokens", "tokens of GPT-2's tokenizer", "tokens used in (b)")
    ids = f.base.tokenizer(ctx.text("train", "domain")[:120], add_special_tokens=False)["input_ids"][:12]
    pieces = tuple((i, id_, repr(f.base.tokenizer.decode([id_]))) for i, id_ in enumerate(ids))
    text = (
        "The corpus is cut into a training and a held-out text that share no document (held-out lines of more than 20 "
        f"characters that stand in the training text as well: {f.overlap} of {f.lines}), each is encoded as a whole "
        f"with the tokenizer of {f.base.name}, and the training tokens are cut into blocks of {f.tuned.block} that "
        "follow each other, in each epoch from another start: each block is read once per epoch, in random order, and "
        "each of its tokens is predicted from those before it in the block. Nothing is padded, and labels are shifted "
        "once."
    )
    return Part(
        "a",
        (
            Prose(text),
            Table(
                columns, tuple(rows), "The data set. A token of another tokenizer is another amount of text.", "data"
            ),
            Table(("place", "id", "token"), pieces, "The first tokens of the training text.", "first_tokens"),
        ),
        "The data set",
    )


def part_b(f: Findings) -> Part:
    """The training."""
    t = f.tuned
    losses = t.evaluations["validation_loss"]
    epochs = [step * t.recipe.batch_size * t.block / t.tokens["train"] for step in t.evaluations["step"]]
    per_epoch = tuple(
        (round(epoch, 2), int(step), loss, math.exp(loss))
        for epoch, step, loss in zip(epochs, t.evaluations["step"], losses, strict=True)
    )
    text = (
        f"AdamW (Loshchilov & Hutter, 2019) on all {sum(p.numel() for p in t.pretrained.model.parameters()):,} weights "
        f"for {t.recipe.epochs} epochs: {t.steps} steps of {t.recipe.batch_size} blocks of {t.block} tokens, learning "
        f"rate {t.recipe.learning_rate:g} after a warm-up over a tenth of the steps, then along a cosine; no weight "
        f"decay, gradients clipped to norm 1. That took {t.seconds / 60:.1f} minutes at {t.tokens_per_second:,.0f} "
        f"tokens per second. The loss on the held-out text is taken after each epoch, without dropout; "
        f"{course(epochs, losses)}."
    )
    steps = tuple(t.history["step"])
    curve = Figure(
        "line",
        (
            Series("training, mean since the point before", steps, tuple(t.history["train_loss"])),
            Series("held out", tuple(t.evaluations["step"]), tuple(losses)),
        ),
        "training step",
        "loss (nats/token)",
        "Loss during fine-tuning.",
    )
    columns = ("epoch", "step", "held-out loss (nats/token)", "perplexity")
    caption = (
        f"After each epoch, on the first {t.tokens['validation']:,} tokens of the held-out text; part (d) scores "
        f"{f.scores['domain'].before.tokens:,}."
    )
    return Part("b", (Prose(text), curve, Table(columns, per_epoch, caption, "epochs")), "Three epochs at 5e-5")


def course(epochs: Sequence[float], losses: Sequence[float]) -> str:
    """Which epoch ends with the lowest held-out loss; the first entry is of before the training."""
    best = min(range(len(losses)), key=losses.__getitem__)
    if best == len(losses) - 1:
        return f"it is lowest after the last one ({losses[best]:.3f} nats per token), so more epochs might still help"
    rise = f"{losses[-1] - losses[best]:.3f} nats per token higher after the last one (one seed)"
    if best == 0:
        return f"it is lowest before the training, and {rise}: on text that it has not read, the model gains nothing"
    return f"it is lowest after epoch {epochs[best]:.0f}, and {rise}"


def part_c(ctx: Context, f: Findings) -> tuple[Part, dict[str, float]]:
    """Text before and after."""
    words = frozenset(word.strip(".,:;!?'\"()").lower() for word in ctx.text("train", "domain").split())
    change = compare(
        *(
            vocabulary_share([text for w in f.written for text in getattr(w, when)], words)
            for when in ("before", "after")
        )
    )
    (before, spread), (after, spread_after) = change.baseline, change.other
    verdict = {"higher": "a rise beyond noise", "lower": "a fall beyond noise"}.get(change.verdict, "inside the noise")
    samples: list[Block] = []
    for w in f.written:
        samples += [Sample("Before", w.prompt, w.before[0]), Sample("After", w.prompt, w.after[0])]
    text = (
        "The same prompts, the same random numbers, nucleus sampling at $p = 0.95$, the model before and after. Of the "
        f"words that it writes, {before:.0%} (± {spread:.0%} over texts) occur in the training part of the domain "
        f"before fine-tuning and {after:.0%} (± {spread_after:.0%}) after it: {verdict} (Welch's 95 % interval over "
        f"{change.seeds[0]} and {change.seeds[1]} texts)."
    )
    metrics = {"domain_words_share_before": before, "domain_words_share_after": after}
    metrics |= {"domain_words_share_before_std": spread, "domain_words_share_after_std": spread_after}
    return Part("c", (Prose(text), *samples), "Text before and after"), metrics


def part_d(f: Findings) -> tuple[Part, list[Check]]:
    """Perplexities."""
    rows = tuple(
        (
            *(name, s.before.tokens, s.before.perplexity, s.after.perplexity),
            *(s.before.bits_per_byte, s.after.bits_per_byte, s.change.difference, s.change.verdict),
        )
        for name, s in f.scores.items()
    )
    columns = (
        *("held-out text", "tokens", "perplexity before", "perplexity after", "bits per byte before"),
        *("bits per byte after", "change of loss (nats/token)", "verdict"),
    )
    caption = (
        f"Held-out texts before and after, in windows of {f.tuned.block} tokens. Verdict: Student's 95 % interval for "
        "the mean change, paired over windows."
    )
    domain, near, far = f.scores.values()
    text = (
        f"On the held-out part of the domain the perplexity goes from {domain.before.perplexity:.2f} to "
        f"{domain.after.perplexity:.2f}{interval(domain.change)}. Elsewhere: on the main corpus, "
        f"{moved(near)}; on Python source, {moved(far)}. {forgetting(f)}"
    )
    figure = Figure(
        "bar",
        tuple(
            Series(when, tuple(f.scores), tuple(getattr(s, when).bits_per_byte for s in f.scores.values()))
            for when in ("before", "after")
        ),
        "held-out text",
        "bits per byte",
        "What fine-tuning gains and costs.",
    )
    checks = [
        Check.at_most(
            "fine-tuning lowers the loss on the held-out text of the domain (nats/token, change)",
            domain.change.difference,
            0.0,
            "empirical",
        ),
        Check.at_least(
            "fine-tuning on one kind of text forgets another: loss on Python source (nats/token, change)",
            far.change.difference,
            0.0,
            "empirical",
        ),
    ]
    return Part("d", (Prose(text), Table(columns, rows, caption, "perplexity"), figure), "Held-out perplexity"), checks


def interval(change: Comparison) -> str:
    """The change of the loss with its interval, in parentheses."""
    if change.verdict == "one seed":
        return f" ({change.difference:+.3f} nats per token, one window)".replace("-", "−")
    low, high = change.interval
    return f" ({change.difference:+.3f} nats per token, 95 % interval {low:+.3f} to {high:+.3f})".replace("-", "−")


def moved(s: Scores) -> str:
    """Where the perplexity of a text has gone."""
    verb = {"lower": "falls", "higher": "rises", "noise": "does not move beyond noise"}.get(s.change.verdict, "goes")
    return f"it {verb}, from {s.before.perplexity:.2f} to {s.after.perplexity:.2f}{interval(s.change)}"


def forgetting(f: Findings) -> str:
    """The sentence on forgetting that the data allow."""
    lost = [name for name, s in list(f.scores.items())[1:] if s.change.verdict == "higher"]
    gained = [name for name, s in list(f.scores.items())[1:] if s.change.verdict == "lower"]
    said = []
    if lost:
        said.append(f"Forgetting is measured on: {', '.join(lost)}.")
    if gained:
        said.append(f"There is a gain outside of the domain, too, on: {', '.join(gained)}.")
    return " ".join(said) or "At this learning rate and length no forgetting is measured on either."


def answer(ctx: Context) -> Answer:
    """All four parts."""
    f = measure(ctx)
    written, metrics = part_c(ctx, f)
    perplexities, checks = part_d(f)
    t, domain, far = f.tuned, f.scores["domain"], f.scores["Python source"]
    numbers: dict[str, float | int] = {
        **metrics,
        "epochs": t.recipe.epochs,
        "learning_rate": t.recipe.learning_rate,
        "steps": t.steps,
        "train_tokens": t.tokens["train"],
        "training_seconds": t.seconds,
        "tokens_per_second": t.tokens_per_second,
    }
    for name, s in f.scores.items():
        key = name.replace(" ", "_").lower()
        numbers |= {
            f"perplexity_{key}_before": s.before.perplexity,
            f"perplexity_{key}_after": s.after.perplexity,
            f"bits_per_byte_{key}_before": s.before.bits_per_byte,
            f"bits_per_byte_{key}_after": s.after.bits_per_byte,
            f"loss_change_nats_{key}": s.change.difference,
        }
        if s.change.verdict != "one seed":
            numbers[f"loss_change_nats_{key}_low"], numbers[f"loss_change_nats_{key}_high"] = s.change.interval
    first = t.evaluations["validation_loss"][0]
    again = score_text(
        f.base.model,
        f.base.tokenizer,
        ctx.text("validation", "domain"),
        tokens=t.tokens["validation"] - 1,
        window=t.block,
    )
    exact = (
        Check.close("loss on a window against Transformers' own, which shifts labels itself (nats)", *f.own_loss, 1e-4),
        Check.close("loss before the first step against scoring the same text apart (nats)", first, again.nats, 1e-4),
        Check.equal("held-out lines that also stand in the training text", f.overlap, 0, "empirical"),
        Check.equal("epochs", t.recipe.epochs, 3),
        Check.equal("learning rate", t.recipe.learning_rate, 5e-5),
    )
    return Answer(
        summary=f"{f.base.name}, {t.recipe.epochs} epochs on {t.tokens['train']:,} tokens: held-out perplexity "
        f"{domain.before.perplexity:.1f} → {domain.after.perplexity:.1f} on the domain, "
        f"{far.before.perplexity:.1f} → {far.after.perplexity:.1f} on "
        f"Python.",
        parts=(part_a(ctx, f), part_b(f), written, perplexities),
        checks=(*exact, *checks),
        metrics=numbers,
        notes=(f.base.note,) if f.base.note else (),
    )


EXERCISE = Exercise(
    id="21.21",
    title="GPT-2 Fine-Tuning",
    answer=answer,
    sources=("main", "domain", "code", "pretrained", "bpe"),
    finetunes=(VERSE,),
    numbers={
        "smoke": {"tokens": 512, "samples": 2, "new_tokens": 24, "domain_prompts": 1, "other_prompts": 1},
        "laptop": {"tokens": 3_072, "samples": 6, "new_tokens": 64, "domain_prompts": 3, "other_prompts": 1},
        "gpu": {"tokens": 32_768, "samples": 32, "new_tokens": 128, "domain_prompts": 4, "other_prompts": 2},
    },
    seconds={"smoke": 4, "laptop": 165, "gpu": 120},
)
