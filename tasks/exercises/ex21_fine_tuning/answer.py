"""Tables, figures, samples and checks of 21.21; the text is in answer.md."""

import math
from collections.abc import Sequence

from reports.answers import Draft
from reports.types import Cell, Check, Figure, Sample, Series, Table
from reports.words import shown_text, shown_token
from tasks.exercises.ex21_fine_tuning.findings import Findings, Written, has_words


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    losses = f.training.evaluated_losses
    elsewhere = {
        "the main corpus": f.scores["main corpus"].change.verdict,
        "Python source": f.scores["Python source"].change.verdict,
    }
    compared = [*(scores.change for scores in f.scores.values()), *([f.domain_words] if f.domain_words else [])]
    intervals = sum(comparison.verdict != "one seed" for comparison in compared)
    confidence = compared[0].confidence
    return Draft(
        blocks={
            "data": data(f),
            "first tokens": first_tokens(f),
            "losses": losses_in_training(f),
            "epochs": epochs(f),
            "prompts": prompts(f),
            "recall": recall(f),
            **{f"samples of {i}": samples(w) for i, w in enumerate(f.written)},
            "perplexity": perplexity(f),
            "bits per byte": bits_per_byte(f),
        },
        checks=checks(f),
        values={
            "best": min(range(len(losses)), key=losses.__getitem__),  # which evaluation found the lowest loss
            "intervals": intervals,
            "confidence": confidence,
            "by_chance": (1 - confidence) * intervals,
            "lost": [name for name, verdict in elsewhere.items() if verdict == "higher"],
            "gained": [name for name, verdict in elsewhere.items() if verdict == "lower"],
        },
    )


def data(f: Findings) -> Table:
    """The two splits in all units."""
    rows = tuple(
        (name, split.characters, split.words, split.tokens, split.gpt2_tokens, split.used)
        for name, split in (("training", f.train), ("held out", f.held_out))
    )
    columns = ("split", "characters", "words", "tokens", "tokens of GPT-2's tokenizer", "tokens used in (b)")
    return Table(columns, rows, "The data set. A token of another tokenizer is another amount of text.", "data")


def first_tokens(f: Findings) -> Table:
    """What a block begins with."""
    rows = tuple((i, id_, shown_token(piece)) for i, (id_, piece) in enumerate(f.first_tokens))
    return Table(("place", "id", "token"), rows, "The first tokens of the training text.", "first_tokens")


def losses_in_training(f: Findings) -> Figure:
    """Both curves."""
    t = f.training
    series = (
        Series("training, mean since the point before", t.trained_steps, t.trained_losses),
        Series("held out", t.evaluated_steps, t.evaluated_losses),
    )
    return Figure("line", series, "training step", "loss (nats/token)", "Loss during fine-tuning.")


def epochs(f: Findings) -> Table:
    """The held-out loss after each epoch."""
    t = f.training
    rows = tuple(
        (round(epoch, 2), int(step), loss, math.exp(loss))
        for epoch, step, loss in zip(f.epochs, t.evaluated_steps, t.evaluated_losses, strict=True)
    )
    columns = ("epoch", "step", "held-out loss (nats/token)", "perplexity")
    caption = (
        f"After each epoch, on the first {f.held_out.used:,} tokens of the held-out text; part (d) scores "
        f"{f.scores['domain'].before.tokens:,}."
    )
    return Table(columns, rows, caption, "epochs")


def samples(w: Written) -> tuple[Sample, ...]:
    """The first text of a prompt, before and after."""

    def known(text: str, shares: Sequence[float]) -> str:
        return f"{shares[0]:.0%} of its words stand in the training text" if has_words(text) else "no whole word"

    return (
        Sample("Before", w.prompt, w.before[0], known(w.before[0], w.words_before)),
        Sample("After", w.prompt, w.after[0], known(w.after[0], w.words_after)),
    )


def prompts(f: Findings) -> Table:
    """Words of the domain by prompt, over all of its texts."""
    rows = tuple((shown_text(w.prompt), len(w.before), w.known_before, w.known_after) for w in f.written)
    columns = ("prompt", "texts of each model", "words of the domain, before", "after")
    caption = "Share of the written words that stand in the training text, by prompt. Means over its texts."
    return Table(columns, rows, caption, "prompts")


def recall(f: Findings) -> Table:
    """How far both models go on as the text does."""
    rows = tuple(
        (name, r.lines, r.whole_before, r.whole_after, r.share_before, r.share_after) for name, r in f.recall.items()
    )
    one = next(iter(f.recall.values()))
    columns = (
        "held-out text",
        "lines",
        "recalled whole, before",
        "recalled whole, after",
        "share of tokens, before",
        "share of tokens, after",
    )
    caption = (
        f"Greedy continuations of the first {one.prompt} tokens of a line, against its next {one.asked}: lines that "
        "come out whole, and tokens up to the first that is another."
    )
    return Table(columns, rows, caption, "recall")


def perplexity(f: Findings) -> Table:
    """All held-out texts, before and after."""
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            s.before.tokens,
            s.before.perplexity,
            s.after.perplexity,
            s.before.bits_per_byte,
            s.after.bits_per_byte,
            s.change.difference,
            s.change.verdict,
        )
        for name, s in f.scores.items()
    ]
    columns = (
        "held-out text",
        "tokens",
        "perplexity before",
        "perplexity after",
        "bits per byte before",
        "bits per byte after",
        "change of loss (nats/token)",
        "verdict",
    )
    caption = (
        f"Held-out texts before and after, in windows of {f.training.block} tokens. Verdict: Student's 95 % interval "
        "for the mean change, paired over windows."
    )
    return Table(columns, tuple(rows), caption, "perplexity")


def bits_per_byte(f: Findings) -> Figure:
    """The same in a unit that can be compared between texts."""
    series = (
        Series("before", tuple(f.scores), tuple(s.before.bits_per_byte for s in f.scores.values())),
        Series("after", tuple(f.scores), tuple(s.after.bits_per_byte for s in f.scores.values())),
    )
    return Figure("bar", series, "held-out text", "bits per byte", "What fine-tuning gains and costs.")


def checks(f: Findings) -> tuple[Check, ...]:
    """The claims."""
    t = f.training
    return (
        Check.close("loss on a window against Transformers' own, which shifts labels itself (nats)", *f.own_loss, 1e-4),
        Check.close(
            "loss before the first step against scoring the same text apart (nats)",
            t.evaluated_losses[0],
            f.again,
            1e-4 if t.precision == "fp32" else 1e-3,  # bf16 has 8 bits: batches of another size round otherwise
        ),
        Check.equal("lines trained on that also stand in the held-out text", f.overlap, 0, "empirical"),
        Check.equal("epochs", t.epochs, 3),
        Check.equal("learning rate", t.learning_rate, 5e-5),
        Check.beyond_noise(
            "fine-tuning lowers the loss on the held-out text of the domain (nats/token, change)",
            f.scores["domain"].change,
            "lower",
        ),
        Check.beyond_noise(
            "fine-tuning on one kind of text forgets another: loss on Python source (nats/token, change)",
            f.scores["Python source"].change,
            "higher",
        ),
    )
