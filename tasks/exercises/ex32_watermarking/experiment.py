"""Measures 21.32: writes with every δ, and tests human, unmarked and marked texts for the mark."""

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from minigpt.decoding import watermark
from minigpt.decoding.sampling import generate
from minigpt.decoding.watermark import Detection, KeyedGreenLists, Watermark, detect
from minigpt.evaluation.quality import continuation_nll
from minigpt.evaluation.statistics import mean_std
from minigpt.evaluation.words import share_of_real_words, words
from tasks.exercise import Context, Exercise
from tasks.exercises.ex32_watermarking.findings import (
    EDGES,
    EDITED,
    LOOSE_RATE,
    RATE,
    USUAL,
    Findings,
    GreenList,
    Marked,
    Score,
    Width,
    uniform_share,
)
from tasks.recipes.catalogue import SMALL_LONG

if TYPE_CHECKING:
    from transformers import WatermarkLogitsProcessor

KEY, WRONG_KEY = 20_230_124, 19_480_701
PROMPT = 16  # characters


@dataclass(frozen=True)
class Lab:
    """The model's vocabulary, the prompts and texts that nobody marked."""

    ctx: Context
    vocab_size: int
    piece: int  # characters written at once
    n_new: int  # in all
    human: Tensor  # (N, n_new)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Lengths at which detection is tried: a quarter, a half and all of the text."""
        return tuple(self.n_new // share for share in (4, 2, 1))

    def lists(self, key: int) -> KeyedGreenLists:
        """Green lists of half of the vocabulary."""
        return KeyedGreenLists(key, self.vocab_size, self.vocab_size // 2)

    def prompts(self, texts: int) -> Tensor:
        """Pieces of the validation text from places at equal distances, (texts, PROMPT)."""
        source = self.ctx.tokens(SMALL_LONG)
        starts = torch.arange(texts, device=source.device) * ((len(source) - PROMPT) // texts)
        return source[starts[:, None] + torch.arange(PROMPT, device=source.device)]

    def write(self, delta: float, width: int, texts: int) -> Tensor:
        """Prompts and continuations, marked with KEY, (texts, PROMPT + n_new). δ = 0 is plain sampling.

        A piece fills the model's context; the next one goes on from its last PROMPT characters.
        """
        model, tokens = self.ctx.model(SMALL_LONG).model, self.prompts(texts)
        generator = self.ctx.generator(f"δ = {delta:g}")
        mark = (Watermark(self.lists(KEY), width, delta),) if delta else ()
        while tokens.shape[1] < PROMPT + self.n_new:
            piece = generate(model, tokens[:, -PROMPT:], self.piece, generator=generator, processors=mark)
            tokens = torch.cat([tokens, piece[:, PROMPT:]], dim=1)
        return tokens

    def nll(self, tokens: Tensor) -> tuple[float, ...]:
        """Under the unmarked model, each piece after the characters that it was written after; nats per character."""
        model = self.ctx.model(SMALL_LONG).model
        pieces = tokens.unfold(1, PROMPT + self.piece, self.piece)  # (N, pieces, PROMPT + piece)
        return tuple(continuation_nll(model, pieces.flatten(0, 1), PROMPT).view(len(tokens), -1).mean(1).tolist())

    def test(self, texts: Tensor, key: int, width: int) -> Detection:
        """Detect, in the continuations only: the prompt is not ours."""
        lists = self.lists(key)
        return detect(texts, lists, width, lists.fraction)


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    lab, n = prepare(ctx), ctx.numbers
    width = n["width"]
    marked = []
    for index, delta in enumerate(n["deltas"]):
        marked.append(write_marked(lab, delta))
        ctx.progress(0.5 * (index + 1) / len(n["deltas"]), f"wrote with δ = {delta:g}")
    logits_equal, counts_equal, z_error = parity(ctx)
    random_flagged, p_error = exact_null(ctx)
    widths = []
    for index, one in enumerate(n["widths"]):
        widths.append(try_width(lab, one))
        ctx.progress(0.6 + 0.4 * (index + 1) / len(n["widths"]), f"width {one}")
    return Findings(
        width=width,
        vocab_size=lab.vocab_size,
        list_size=lab.lists(KEY).size,
        lists=green_lists(lab),
        listing="\n\n".join(inspect.getsource(item) for item in (watermark.keyed_hash, KeyedGreenLists)),
        lengths=lab.lengths,
        marked=tuple(marked),
        human=score(lab.test(lab.human, KEY, width)),
        human_wrong=score(lab.test(lab.human, WRONG_KEY, width)),
        widths=tuple(widths),
        width_texts=min(n["width_texts"], len(lab.human)),
        biased_as_transformers=logits_equal,
        counted_as_transformers=counts_equal,
        z_error=z_error,
        zero_changes_nothing=zero_changes_nothing(lab),
        uniform_error=max(uniform_error(lab, delta) for delta in n["deltas"]),
        random_texts=n["random_texts"],
        random_flagged=random_flagged,
        p_error=p_error,
    )


def prepare(ctx: Context) -> Lab:
    """Model and human texts of the length that the model will write."""
    config = ctx.model(SMALL_LONG).model.config
    piece = config.context - PROMPT
    n_new = ctx.numbers["pieces"] * piece
    tokens = ctx.tokens(SMALL_LONG, "train")
    count = min(ctx.numbers["human_texts"], len(tokens) // n_new)
    starts = torch.arange(count, device=tokens.device) * (len(tokens) // count)
    human = tokens[starts[:, None] + torch.arange(n_new, device=tokens.device)]
    return Lab(ctx, config.vocab_size, piece, n_new, human)


def flagged(found: Detection, rate: float = RATE) -> float:
    """Share of the texts that are called marked at a false-positive rate."""
    return (found.p_value <= rate).double().mean().item()


def score(found: Detection) -> Score:
    """A detection as numbers."""
    return Score(
        texts=len(found.z),
        scored=found.scored.double().mean().item(),
        mean_z=found.z.mean().item(),
        z=mean_std(found.z.tolist()),
        flagged=flagged(found),
        flagged_loosely=flagged(found, LOOSE_RATE),
        histogram=histogram(found.z),
    )


def histogram(z: Tensor) -> tuple[float, ...]:
    """Shares of the texts between EDGES; what lies outside counts in the first and the last bin."""
    half = (EDGES[1] - EDGES[0]) / 2
    inside = z.clamp(EDGES[0] + half, EDGES[-1] - half).float().cpu()
    counts = torch.histc(inside, bins=len(EDGES) - 1, min=EDGES[0], max=EDGES[-1])
    return tuple((counts / len(z)).tolist())


# --- Lists and bias ---------------------------------------------------------------------------------------------


def green_lists(lab: Lab) -> tuple[GreenList, ...]:
    """A few lists along a piece of human text."""
    tokenizer, width = lab.ctx.model(SMALL_LONG).tokenizer, lab.ctx.numbers["width"]
    lists, found = lab.lists(KEY), []
    for end in range(width, width + 5):
        context = lab.human[0, end - width : end]
        green = lists(context[None])[0].nonzero()[:, 0].tolist()
        following = int(lab.human[0, end])
        found.append(
            GreenList(
                context=tokenizer.decode(context.tolist()),
                green="".join(tokenizer.decode([i]) for i in green),
                following=tokenizer.decode([following]),
                is_green=following in green,
            )
        )
    return tuple(found)


def write_marked(lab: Lab, delta: float) -> Marked:
    """Texts with one δ, tested with the right key and a wrong one."""
    ctx, width = lab.ctx, lab.ctx.numbers["width"]
    tokenizer, vocabulary = ctx.model(SMALL_LONG).tokenizer, frozenset(words(ctx.text("train")))
    tokens = lab.write(delta, width, ctx.numbers["texts"])
    written = tokens[:, PROMPT:]
    texts = [tokenizer.decode(row) for row in written.tolist()]
    right = lab.test(written, KEY, width)
    green, running_z = token_by_token(lab, written[0], width)
    return Marked(
        delta=delta,
        prompt=tokenizer.decode(tokens[0, :PROMPT].tolist()),
        text=texts[0],
        text_z=right.z[0].item(),
        text_green=int(right.green[0]),
        text_scored=int(right.scored[0]),
        tokens=tuple(tokenizer.decode([token]) for token in written[0].tolist()),
        green=green,
        running_z=running_z,
        nll=lab.nll(tokens),
        known=share_of_real_words(texts, vocabulary, cut_start=True),
        green_share=(right.green / right.scored).mean().item(),
        right=score(right),
        wrong=score(lab.test(written, WRONG_KEY, width)),
        rates=tuple(flagged(lab.test(written[:, :length], KEY, width)) for length in lab.lengths),
    )


def token_by_token(lab: Lab, text: Tensor, width: int) -> tuple[tuple[bool | None, ...], tuple[float | None, ...]]:
    """What the detector says of every beginning of a text (T,): whether its last token is green, and z.

    A token is not counted before its context is full, nor where its n-gram was there before: None.
    """
    green: list[bool | None] = [None] * width
    z: list[float | None] = [None] * width
    scored, found = 0, 0
    for end in range(width + 1, len(text) + 1):
        one = lab.test(text[None, :end], KEY, width)
        green.append(int(one.green) > found if int(one.scored) > scored else None)
        scored, found = int(one.scored), int(one.green)
        z.append(one.z.item())
    return tuple(green), tuple(z)


def uniform_error(lab: Lab, delta: float) -> float:
    """How far P(green) is from its closed form where all logits are equal."""
    lists, width = lab.lists(KEY), lab.ctx.numbers["width"]
    contexts = lab.human[:64, :width]
    logits = torch.zeros(len(contexts), lab.vocab_size, device=contexts.device)
    p = Watermark(lists, width, delta)(contexts, logits).softmax(-1)
    share = (p * lists(contexts)).sum(1)
    return (share - uniform_share(lists.fraction, delta)).abs().max().item()


def zero_changes_nothing(lab: Lab) -> bool:
    """Whether δ = 0 writes what plain sampling writes."""
    model, prompts = lab.ctx.model(SMALL_LONG).model, lab.prompts(lab.ctx.numbers["texts"])[:8]
    nothing = (Watermark(lab.lists(KEY), lab.ctx.numbers["width"], 0.0),)
    zero = generate(model, prompts, 16, generator=lab.ctx.generator("zero"), processors=nothing)
    return torch.equal(zero, generate(model, prompts, 16, generator=lab.ctx.generator("zero")))


# --- The width of the context -----------------------------------------------------------------------------------


def edited(lab: Lab, tokens: Tensor, share: float) -> Tensor:
    """The texts with a share of their characters replaced by random ones."""
    g = lab.ctx.generator("edit")
    hit = torch.rand(tokens.shape, generator=g) < share
    other = torch.randint(lab.vocab_size, tokens.shape, generator=g)
    return torch.where(hit.to(tokens.device), other.to(tokens.device), tokens)


def try_width(lab: Lab, width: int) -> Width:
    """What the width of the context decides: one key's luck, and how much an edit destroys."""
    n = lab.ctx.numbers
    found = [lab.test(lab.human[: n["width_texts"]], key, width) for key in range(1, 1 + n["keys"])]
    marked = lab.write(USUAL, width, n["texts"])[:, PROMPT:]
    return Width(
        width=width,
        scored=found[0].scored.double().mean().item(),
        flagged=tuple(flagged(one) for one in found),
        mean_z=tuple(one.z.mean().item() for one in found),
        detected=flagged(lab.test(marked, KEY, width)),
        detected_edited=flagged(lab.test(edited(lab, marked, EDITED), KEY, width)),
    )


# --- Independent references -------------------------------------------------------------------------------------


class TheirLists:
    """Transformers' green lists in place of ours."""

    def __init__(self, processor: "WatermarkLogitsProcessor") -> None:
        self.processor = processor

    def __call__(self, contexts: Tensor) -> Tensor:
        """Contexts (N, k) → (N, V), True for green."""
        green = torch.zeros(len(contexts), self.processor.vocab_size, dtype=torch.bool)
        for row, context in zip(green, contexts, strict=True):
            row[self.processor._get_greenlist_ids(context)] = True
        return green


def parity(ctx: Context) -> tuple[bool, bool, float]:
    """With Transformers' lists: are biased logits and green counts equal, and how far apart are the z-scores."""
    from transformers import GPT2Config, WatermarkDetector, WatermarkingConfig, WatermarkLogitsProcessor

    V, bias, g = 40, 2.0, ctx.generator("parity")
    theirs = WatermarkLogitsProcessor(V, "cpu", greenlist_ratio=0.5, bias=bias, context_width=1)
    ours, same = Watermark(TheirLists(theirs), width=1, delta=bias), True
    tokens = torch.randint(V, (4, 2), generator=g)
    for _ in range(40):
        logits = torch.randn(4, V, generator=g)
        marked = ours(tokens, logits)
        same &= torch.equal(marked, theirs(tokens, logits))
        tokens = torch.cat([tokens, torch.multinomial(marked.softmax(-1), 1, generator=g)], dim=1)
    tokens = torch.cat([tokens, torch.randint(V, tokens.shape, generator=g)])
    config = WatermarkingConfig(greenlist_ratio=0.5, bias=bias, context_width=1)
    shape = GPT2Config(vocab_size=V, bos_token_id=0, eos_token_id=0)
    shape.bos_token_id = V  # a token that no text begins with: the detector would cut it off
    detector: Any = WatermarkDetector(shape, "cpu", config, ignore_repeated_ngrams=True)
    expected, found = detector(tokens, return_dict=True), detect(tokens, ours.green_lists, 1, 0.5)
    counts = found.green.tolist() == expected.num_green_tokens.tolist()
    counts &= found.scored.tolist() == expected.num_tokens_scored.tolist()
    return same, counts, float(np.abs(found.z.numpy() - expected.z_score).max())


def exact_null(ctx: Context) -> tuple[float, float]:
    """The detector on uniformly random tokens: flagged share, largest p-value error against scipy."""
    from scipy.stats import binom

    V = 60
    tokens = torch.randint(V, (ctx.numbers["random_texts"], 100), generator=ctx.generator("null"))
    found = detect(tokens, KeyedGreenLists(KEY, V, V // 2), 4, 0.5)
    expected = binom.sf(found.green.numpy() - 1, found.scored.numpy(), 0.5)
    return flagged(found), float(np.abs(found.p_value.numpy() - expected).max())


SHARED = {"deltas": (0.0, 0.5, 1.0, 2.0, 4.0), "width": 6, "widths": (1, 2, 3, 4, 6)}
EXERCISE = Exercise(
    measure=measure,
    recipes=(SMALL_LONG,),
    numbers={
        "smoke": SHARED
        | {
            "deltas": (0.0, 2.0, 4.0),
            "widths": (1, 6),
            "pieces": 2,
            "texts": 60,
            "human_texts": 600,
            "width_texts": 200,
            "random_texts": 2_000,
            "keys": 4,
        },
        "laptop": SHARED
        | {
            "pieces": 2,
            "texts": 300,
            "human_texts": 2_500,
            "width_texts": 800,
            "random_texts": 5_000,
            "keys": 8,
        },
        "gpu": SHARED
        | {
            "pieces": 1,
            "texts": 2_000,
            "human_texts": 10_000,
            "width_texts": 2_000,
            "random_texts": 20_000,
            "keys": 20,
        },
    },
    seconds={"smoke": 4, "laptop": 25, "gpu": 60},
)
