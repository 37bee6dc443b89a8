"""Exercise 21.9: what a perplexity says, and what it says only together with its tokenizer and its text."""

import functools
import lzma
import math
from collections import Counter
from decimal import Decimal, localcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt.evaluation.entropy import unigram_loss
from minigpt.evaluation.statistics import mean_std
from minigpt.pretrained.causal_lm import ScoredText, row_losses, score_text
from minigpt.pretrained.limits import context_of
from reports.types import Answer, Block, Check, Figure, Part, Prose, Series, Table
from tasks.exercise import Context, Exercise, Pretrained, Source
from tasks.recipes.catalogue import STUDY

GIVEN, UNIFORM, QUESTIONED = 25, 50_000, 50
ENGLISH, PYTHON = 15, 45
TEXTS: dict[str, Source] = {"English prose": "main", "Python source": "code"}


def answer(context: Context) -> Answer:
    """All four parts."""
    pretrained, n = context.pretrained(), context.numbers
    scored = {}
    for i, (name, corpus) in enumerate(TEXTS.items()):
        context.progress(i / 2, f"scoring {name} with {pretrained.name}")
        text = context.text("validation", corpus)
        scored[name] = score_text(
            pretrained.model, pretrained.tokenizer, text, tokens=n["tokens"], window=n["window"], batch_size=n["batch"]
        )
    prose, code = scored.values()
    metrics: dict[str, float | int] = {
        "cross_entropy_at_perplexity_25_nats": math.log(GIVEN),
        "cross_entropy_at_perplexity_25_bits": math.log2(GIVEN),
        "perplexity_uniform_50000": uniform_perplexity(UNIFORM),
        "cross_entropy_uniform_50000_nats": math.log(UNIFORM),
        "bits_per_byte_at_perplexity_15_english": math.log2(ENGLISH) / prose.bytes_per_token,
        "bits_per_byte_at_perplexity_45_python": math.log2(PYTHON) / code.bytes_per_token,
    }
    for key, s in (("english", prose), ("python", code)):
        metrics |= {
            f"perplexity_{key}": s.perplexity,
            f"bits_per_byte_{key}": s.bits_per_byte,
            f"bytes_per_token_{key}": s.bytes_per_token,
            f"scored_tokens_{key}": s.tokens,
        }
        known = references(s.text)
        metrics |= {
            f"byte_frequencies_bits_per_byte_{key}": known[0],
            f"lzma_bits_per_byte_{key}": known[1],
            f"fewer_bits_than_lzma_share_{key}": 1 - s.bits_per_byte / known[1],
        }
    units = per_unit(context)
    metrics |= {f"study_perplexity_per_{name}": value for name, _, value in units}
    meanings = fifty(context, pretrained, units, prose)
    for key, (*_, bits) in zip(("character", "pretrained_token", "word"), meanings, strict=True):
        metrics[f"bits_per_byte_at_perplexity_{QUESTIONED}_per_{key}"] = bits
    return Answer(
        summary=f"Perplexity {GIVEN} is {math.log(GIVEN):.4f} nats; uniform over {UNIFORM:,} gives {UNIFORM:,}. "
        f"{pretrained.name}: {prose.perplexity:.1f} per token on prose and {code.perplexity:.1f} on Python, but "
        f"{prose.bits_per_byte:.2f} and {code.bits_per_byte:.2f} bits per byte.",
        parts=(
            Part("a", part_a(), f"loss at perplexity {GIVEN}"),
            Part("b", part_b(), f"a uniform model over {UNIFORM:,} tokens"),
            Part("c", part_c(context, units, meanings), f"is {QUESTIONED} good or bad"),
            Part("d", part_d(pretrained, scored), "English against Python"),
        ),
        checks=checks(pretrained, scored),
        metrics=metrics,
        notes=(pretrained.note,) if pretrained.note else (),
    )


def part_a() -> tuple[Block, ...]:
    """From perplexity to loss."""
    values = (2, 10, GIVEN, QUESTIONED, 100, UNIFORM)
    return (
        Prose(
            r"Perplexity is the exponential of the mean negative log-likelihood per token,"
            r"$$\text{PPL} = \exp\left( -\frac{1}{N} \sum_{t=1}^{N} \ln P(x_t \mid x_{<t}) \right), \qquad "
            r"\mathcal{L} = \ln \text{PPL},$$"
            f"so a perplexity of {GIVEN} is a cross-entropy of $\\ln {GIVEN} = {math.log(GIVEN):.6f}$ nats per "
            f"token, or $\\log_2 {GIVEN} = {math.log2(GIVEN):.6f}$ bits. On (geometric) average the model gives the "
            f"right token $1/{GIVEN} = {1 / GIVEN:g}$."
        ),
        Table(
            columns=("perplexity", "nats per token", "bits per token", "mean probability (geometric)"),
            rows=tuple((v, math.log(v), math.log2(v), 1 / v) for v in values),
            caption="Perplexity and loss",
            name="conversion",
        ),
    )


@functools.cache
def uniform_perplexity(size: int) -> float:
    """Measured: cross-entropy of constant logits on 1,000 targets spread over the vocabulary."""
    targets = torch.arange(1_000) * (size // 1_000)
    logits = torch.zeros(1, dtype=torch.float64).expand(size)
    losses = [F.cross_entropy(logits[None].expand(100, -1), chunk).item() for chunk in targets.split(100)]
    return math.exp(sum(losses) / len(losses))


def part_b() -> tuple[Block, ...]:
    """Uniform, and worse than uniform."""
    wrong = 1e-9
    rows = (
        ("uniform", 1 / UNIFORM, math.log(UNIFORM), uniform_perplexity(UNIFORM)),
        (f"always gives the right token {wrong:g}", wrong, -math.log(wrong), 1 / wrong),
        ("uniform over the half that holds the right token", 2 / UNIFORM, math.log(UNIFORM / 2), UNIFORM / 2),
    )
    return (
        Prose(
            rf"Every token has probability $1/V$, whatever the text: $\mathcal{{L}} = \ln V = "
            rf"{math.log(UNIFORM):.6f}$ nats "
            f"({math.log2(UNIFORM):.4f} bits), and the perplexity is $V$: {UNIFORM:,}. A perplexity is the number of "
            "faces of a fair die that would be as uncertain. Uniform is where training starts, not the worst there "
            "is: a model that is confident and wrong has more."
        ),
        Table(
            columns=("model", "P(right token)", "nats per token", "perplexity"),
            rows=rows,
            caption=f"A vocabulary of {UNIFORM:,} tokens; the first perplexity is measured with constant logits",
            name="uniform",
        ),
    )


def per_unit(context: Context) -> list[tuple[str, int, float]]:
    """(unit, how many, perplexity per unit) of one character model on one text: mean loss over seeds, shared out."""
    losses = [context.model(STUDY, seed).evaluations["validation_loss"][-1] for seed in context.seeds(STUDY)]
    text = context.text("validation")
    nats = mean_std(losses)[0] * (len(text) - 1)
    counts = {"character": len(text) - 1, "byte": len(text.encode()), "word": len(text.split())}
    return [(name, count, math.exp(nats / count)) for name, count in counts.items()]


Meaning = tuple[str, int | None, float | None, float, float]  # tokens, V, perplexity / V, bytes a token, bits a byte


def fifty(
    context: Context, pretrained: Pretrained, units: list[tuple[str, int, float]], prose: ScoredText
) -> tuple[Meaning, ...]:
    """What one perplexity comes to if the tokens are characters, those of the pretrained model, or words."""
    size = context.model(STUDY).model.config.vocab_size
    vocabulary = int(pretrained.model.config.vocab_size)
    (_, characters, _), (_, n_bytes, _), (_, words, _) = units
    bits = math.log2(QUESTIONED)
    return (
        ("characters", size, QUESTIONED / size, n_bytes / characters, bits * characters / n_bytes),
        (
            f"those of {pretrained.name}",
            vocabulary,
            QUESTIONED / vocabulary,
            prose.bytes_per_token,
            bits / prose.bytes_per_token,
        ),
        ("words", None, None, n_bytes / words, bits * words / n_bytes),
    )


def part_c(context: Context, units: list[tuple[str, int, float]], meanings: tuple[Meaning, ...]) -> tuple[Block, ...]:
    """The same number means different things."""
    size = context.model(STUDY).model.config.vocab_size
    letters = math.exp(unigram_loss(context.tokens(STUDY, "train"), context.tokens(STUDY), size))
    (_, _, by_character), (_, _, _), (_, _, by_word) = units
    rows = [(f"per {name}", count, value, math.log2(value) * count / units[1][1]) for name, count, value in units]
    return (
        Prose(
            f"A perplexity is per token of one tokenizer, on one text. The character model trained here has "
            f"{by_character:.2f} per character on the validation text, and the very same predictions are "
            f"{by_word:,.0f} per "
            "word: the loss of the whole text stays the same, and only what it is divided by changes. Bits per byte, "
            "which divide by what every tokenizer shares, are the same in all three rows."
        ),
        Table(
            columns=("unit", "units in the text", "perplexity", "bits per byte"),
            rows=tuple(rows),
            caption="One model, one text, three perplexities",
            name="units",
        ),
        Prose(
            f"So a perplexity of {QUESTIONED} comes to {meanings[0][4]:.2f} bits per byte if the tokens are "
            f"characters, of which there are {size} (their mere frequencies give a perplexity of {letters:.1f}), to "
            f"{meanings[1][4]:.2f} if they are {meanings[1][0]} and to {meanings[2][4]:.2f} if they are words. It also "
            "depends on the text (poetry, logs and source code differ in how predictable they are), on the context "
            "that the model may read, on whether the text was in its training data, and on what it is for. The "
            "question has an answer only beside another model, on the same text, in the same unit."
        ),
        Table(
            columns=("tokens are", "vocabulary", f"{QUESTIONED} / vocabulary", "bytes per token", "bits per byte"),
            rows=meanings,
            caption=f"What a perplexity of {QUESTIONED} comes to; bytes per token as measured on English prose",
            name="fifty",
        ),
    )


def references(text: str) -> tuple[float, float]:
    """Bits per byte of two models of the text that know no language: byte frequencies, and a compressor (LZMA)."""
    data = text.encode()
    counts = Counter(data)
    frequencies = -sum(c / len(data) * math.log2(c / len(data)) for c in counts.values())
    packed = lzma.compress(data, format=lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 9}])
    return frequencies, len(packed) * 8 / len(data)


def part_d(pretrained: Pretrained, scored: dict[str, ScoredText]) -> tuple[Block, ...]:
    """Both texts measured."""
    prose, code = scored.values()
    rows, blanks, known = [], [], {name: references(s.text) for name, s in scored.items()}
    for name, s in scored.items():
        rows.append((name, s.tokens, s.bytes_per_token, s.perplexity, s.bits_per_byte, *known[name]))
        white = torch.tensor([not piece.strip() for piece in s.pieces])
        blanks.append(
            (name, white.double().mean().item(), *(mean(s.losses[w]) for w in (white, ~white)), mean(s.losses))
        )
    hypothetical = math.log2(ENGLISH) / prose.bytes_per_token, math.log2(PYTHON) / code.bytes_per_token
    by_token = "English prose" if prose.perplexity < code.perplexity else "Python source"
    by_byte = "English prose" if prose.bits_per_byte < code.bits_per_byte else "Python source"
    order = (
        f"Per byte the order turns round, to {by_byte}: the unit decided."
        if by_token != by_byte
        else f"Per byte it is {by_byte}, too."
    )
    gain = {name: 1 - s.bits_per_byte / known[name][1] for name, s in scored.items()}
    fewer = max(gain, key=lambda name: gain[name])
    return (
        Prose(
            f"No. {ENGLISH} and {PYTHON} are perplexities per token, and tokens of prose and of code need not be the "
            f"same amount of text: with the tokenizer of {pretrained.name} a token is {prose.bytes_per_token:.2f} "
            f"bytes of the prose and {code.bytes_per_token:.2f} of the code. The numbers of the question, "
            f"{math.log2(ENGLISH):.2f} and {math.log2(PYTHON):.2f} bits per token, would be {hypothetical[0]:.2f} and "
            f"{hypothetical[1]:.2f} bits per byte. And even in the same unit they would say how predictable the two "
            "texts are *to this model*, which mixes the skill of the model with the difficulty of the text."
        ),
        Prose(
            f"**Measured** with {pretrained.name} on held-out text of both kinds: per token, {by_token} has the lower "
            f"perplexity ({prose.perplexity:.2f} for prose, {code.perplexity:.2f} for code). {order} A fairer "
            "question is how far the model is ahead of something that knows neither language. Against a compressor "
            f"(LZMA on the same text alone) it needs {more_or_fewer(gain['English prose'])} bits on prose and "
            f"{more_or_fewer(gain['Python source'])} on code, so by that measure it is better at {fewer}. All of it "
            "holds for these two texts; both are public, and the model may have seen them in training."
        ),
        Table(
            columns=(
                *("text", "tokens", "bytes per token", "perplexity per token", "bits per byte"),
                *("byte frequencies (bits per byte)", "LZMA (bits per byte)"),
            ),
            rows=tuple(rows),
            caption=f"Two texts under {pretrained.name}, and two references that know no language",
            name="texts",
        ),
        Figure(
            kind="bar",
            series=(
                Series(pretrained.name, tuple(scored), tuple(s.bits_per_byte for s in scored.values())),
                Series("byte frequencies", tuple(scored), tuple(low for low, _ in known.values())),
                Series("LZMA", tuple(scored), tuple(packed for _, packed in known.values())),
            ),
            x_label="text",
            y_label="bits per byte",
            caption="The same texts in a unit that does not depend on the tokenizer",
        ),
        Table(
            columns=(
                "text",
                "share of white-space tokens",
                "their loss (nats)",
                "loss of the others (nats)",
                "all (nats)",
            ),
            rows=tuple(blanks),
            caption="What code and prose spend their tokens on: white space and the rest",
            name="white_space",
        ),
    )


def more_or_fewer(share: float) -> str:
    """A saving in words: "20% fewer", or "20% more" if it is none."""
    return f"{abs(share):.0%} {'fewer' if share >= 0 else 'more'}"


def mean(losses: Tensor) -> float | None:
    """Mean loss, None of nothing."""
    return losses.double().mean().item() if len(losses) else None


def checks(pretrained: Pretrained, scored: dict[str, ScoredText]) -> tuple[Check, ...]:
    """High precision, constant logits, the model's own loss, and a round trip of the units."""
    with localcontext() as precise:
        precise.prec = 50
        exact = float(Decimal(GIVEN).ln())
    chance = torch.full((1, 2), math.log(1 / GIVEN), dtype=torch.float64)
    chance[0, 1] = math.log(1 - 1 / GIVEN)
    measured = math.exp(F.cross_entropy(chance, torch.tensor([0])).item())
    result = [
        Check.close("ln 25 against 50-digit decimal arithmetic (nats)", math.log(GIVEN), exact, 1e-15),
        Check.close("a model that gives the right token 1/25 has perplexity 25", measured, GIVEN, 1e-9),
        Check.close("constant logits over 50,000 tokens: perplexity", uniform_perplexity(UNIFORM), UNIFORM, 1e-6),
    ]
    for name, s in scored.items():
        result.append(
            Check.at_most(f"{name}: loss against the model's own (nats/token)", own_difference(pretrained, s), 1e-3)
        )
        again = 2 ** (s.bits_per_byte * s.bytes_per_token)
        result.append(
            Check.close(f"{name}: perplexity from bits per byte and bytes per token", again / s.perplexity, 1.0, 1e-9)
        )
    prose, code = scored.values()
    result.append(
        Check.at_most(
            "Python costs no more bits per byte than prose (bits per byte, difference)",
            code.bits_per_byte - prose.bits_per_byte,
            0.0,
            "empirical",
        )
    )
    return tuple(result)


@torch.inference_mode()
def own_difference(pretrained: Pretrained, scored: ScoredText) -> float:
    """Our loss on the first tokens of a text against the loss that Transformers computes from labels."""
    ids = pretrained.tokenizer(scored.text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    ids = ids[:, : min(64, context_of(pretrained.model))].to(pretrained.model.device)
    theirs: float = pretrained.model(ids, labels=ids).loss.item()
    return abs(row_losses(pretrained.model, ids).mean().item() - theirs)


EXERCISE = Exercise(
    id="21.9",
    title="Perplexity Interpretation",
    answer=answer,
    recipes=(STUDY,),
    sources=("main", "code", "pretrained"),
    numbers={
        "smoke": {"tokens": 512, "window": 128, "batch": 4},
        "laptop": {"tokens": 4_096, "window": 512, "batch": 4},
        "gpu": {"tokens": 65_536, "window": 1_024, "batch": 16},
    },
    seconds={"smoke": 3, "laptop": 45, "gpu": 30},
)
