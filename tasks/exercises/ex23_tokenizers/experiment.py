"""Measures 21.23: one paragraph and the validation text under three tokenizers, and the trainings with each."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minigpt.cost.counting import training_flops
from minigpt.evaluation.evaluate import token_losses
from minigpt.tokenizers import Tokenizer
from tasks.exercise import Context, Exercise
from tasks.exercises.ex23_tokenizers.findings import CLASSES, SELDOM, WORD, Findings, Kind, Pieces
from tasks.exercises.ex23_tokenizers.spans import PIECE, SPANS
from tasks.parts import part
from tasks.recipes.catalogue import STUDY_BPE, STUDY_ROPE, STUDY_WORD
from tasks.study import variants
from tasks.variants import Variant, at_equal_time

KINDS = {"characters": STUDY_ROPE, "byte pairs": STUDY_BPE, "words": STUDY_WORD}
PARAGRAPH = 700  # characters, at most
FOREIGN = ("tokenization", "ChatGPT", "naïve", "🙂")  # what a text of any age may not contain
UNSEEN = "Tokenization of a naïve ChatGPT prompt: 🙂 (100 %)."


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    text = ctx.text()
    paragraph = choose_paragraph(text, PARAGRAPH)
    counts = Counter(WORD.findall(ctx.text("train")))
    own = sorted(set(WORD.findall(paragraph)), key=lambda word: (counts[word], word))
    rare, untimed = (*own[:4], *FOREIGN), ahead(ctx)
    ctx.progress(0.0, "timing the steps")
    rows = variants(ctx, KINDS)
    kinds = {}
    for i, (row, late) in enumerate(zip(rows, at_equal_time(rows), strict=True)):
        ctx.progress((i + 1) / (len(KINDS) + 1), row.label)
        late = late or tuple(curve.finished_losses[0] for curve in row.curves)
        kinds[row.label] = study(ctx, row, late, paragraph, rare, untimed.read[row.label])
    words = set(ctx.model(STUDY_WORD).tokenizer.to_json()["words"])
    return Findings(
        kinds=kinds,
        text=paragraph,
        rare=tuple((word, counts[word]) for word in rare),
        rarity_sizes=untimed.rarity_sizes,
        unknown_pieces=sum(piece not in words for piece in PIECE.findall(text)),
        transformers_agrees=untimed.transformers_agrees,
    )


@dataclass(frozen=True)
class Read:
    """The validation text as the models of one tokenizer read it; see ``Kind`` for the fields."""

    spelling: float
    bits: tuple[float, ...]
    nats_per_token: tuple[float, ...]
    by_rarity: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Untimed:
    """What needs no quiet machine."""

    read: dict[str, Read]  # by tokenizer
    rarity_sizes: tuple[int, ...]
    transformers_agrees: bool


def ahead(ctx: Context) -> Untimed:
    """See ``Exercise.ahead``."""

    def find() -> Untimed:
        text, counts = ctx.text(), Counter(WORD.findall(ctx.text("train")))
        samples = (choose_paragraph(text, PARAGRAPH), UNSEEN, text[:2000])
        found = {name: read(ctx, name, counts) for name in KINDS}
        [sizes] = {sizes for _, sizes in found.values()}  # of words, whatever the tokens
        return Untimed({name: one for name, (one, _) in found.items()}, sizes, transformers_agrees(ctx.bpe(), samples))

    return part(ctx, Untimed, "the text as it is read", find)


def read(ctx: Context, name: str, counts: Counter[str]) -> tuple[Read, tuple[int, ...]]:
    """The text read with one tokenizer; also how many words of each class it has."""
    recipe, text = KINDS[name], ctx.text()
    trained, ids = [ctx.model(recipe, seed) for seed in ctx.seeds(recipe)], ctx.tokens(recipe)
    tokenizer = trained[0].tokenizer
    bits = tuple(token_losses(one.model, ids).double().cpu() / math.log(2) for one in trained)
    spans = SPANS[name](text, tokenizer, ids.tolist())
    unknown: list[tuple[int, str]] = []
    if name == "words":
        known = set(tokenizer.to_json()["words"])
        unknown = [(match.start(), match[0]) for match in PIECE.finditer(text) if match[0] not in known]
    extra = {start: spelling_bits(ctx.text("train"), [word]) for start, word in unknown}
    first = torch.zeros(1, dtype=torch.float64)
    rarity = [cost_by_rarity(text, spans, torch.cat([first, one]), extra, counts) for one in bits]
    found = Read(
        spelling=sum(extra.values()),
        bits=tuple(one.sum().item() for one in bits),
        nats_per_token=tuple(one.mean().item() * math.log(2) for one in bits),
        by_rarity=tuple(zip(*(costs for costs, _ in rarity), strict=True)),
    )
    return found, rarity[0][1]


def study(
    ctx: Context, variant: Variant, late: tuple[float, ...], paragraph: str, rare: tuple[str, ...], text_read: Read
) -> Kind:
    """Everything about one tokenizer."""
    name, recipe, text, train = variant.label, KINDS[variant.label], ctx.text(), ctx.text("train")
    trained = ctx.model(recipe)
    tokenizer, ids, train_ids = trained.tokenizer, ctx.tokens(recipe), ctx.tokens(recipe, "train")
    occurrences = torch.bincount(train_ids, minlength=tokenizer.vocab_size).cpu()
    config = trained.model.config
    flops = training_flops(config, 1, config.context)
    encode, decode = tokenizer.encode, tokenizer.decode
    return Kind(
        name=name,
        variant=variant,
        late=late,
        vocabulary=tokenizer.vocab_size,
        d_model=config.d_model,
        context=config.context,
        tokens_per_step=trained.recipe.train.batch_size * config.context,
        flops_per_token=flops / config.context,
        logits_share=6 * config.vocab_size * config.d_model * config.context / flops,  # 6 · V · C a token
        spans=tuple(SPANS[name](paragraph, tokenizer, encode(paragraph))),
        tokens=len(ids),
        unknown=0 if name == "byte pairs" else int((ids == 0).sum()),
        spelling=text_read.spelling,
        train_tokens=len(train_ids),
        bits=text_read.bits,
        nats_per_token=text_read.nats_per_token,
        by_rarity=text_read.by_rarity,
        entries_below={times: (occurrences < times).double().mean().item() for times in (1, SELDOM)},
        rare=tuple(Pieces(len(encode(word)), pieces(tokenizer, word)) for word in rare),
        round_trips=(decode(encode(paragraph)) == paragraph, decode(encode(UNSEEN)) == UNSEEN),
        n_bytes=len(text.encode()),
        train_bytes=len(train.encode()),
    )


def spelling_bits(text: str, unknown: Sequence[str]) -> float:
    """Bits to write words letter by letter with the letter frequencies of ``text`` (add one), each ended by a space."""
    counts = Counter(text)
    total, kinds = len(text), len(counts) + 1
    return sum(-math.log2((counts[c] + 1) / (total + kinds)) for word in unknown for c in f"{word} ")


def cost_by_rarity(
    text: str, spans: Sequence[tuple[int, int]], bits: Tensor, extra: dict[int, float], counts: Counter[str]
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Bits per byte of the words of a text, each with the space before it, and their number, by class.

    ``bits`` (N,) are those of the tokens with these spans; ``extra`` is added to the word that starts at its key.
    """
    owner: dict[int, int] = {}  # character to word; a word's space is its own
    found = list(WORD.finditer(text))
    for index, match in enumerate(found):
        begin = match.start() - (text[max(0, match.start() - 1)] == " ")
        owner.update(dict.fromkeys(range(begin, match.end()), index))
    cost = [extra.get(match.start(), 0.0) for match in found]
    for (start, _), value in zip(spans, bits.tolist(), strict=True):
        if start in owner:
            cost[owner[start]] += value
    sizes, averages = [], []
    for _, low, high in CLASSES:
        chosen = [i for i, match in enumerate(found) if low <= counts[match[0]] <= high]
        n_bytes = sum(len(found[i][0].encode()) + 1 for i in chosen)
        sizes.append(len(chosen))
        averages.append(sum(cost[i] for i in chosen) / n_bytes if chosen else 0.0)
    return tuple(averages), tuple(sizes)


def choose_paragraph(text: str, characters: int) -> str:
    """Whole lines, or whole sentences where there are none, of about so many characters."""
    start = text.find("\n") + 1
    piece = text[start : start + characters] or text[:characters]
    end = max(piece.rfind("\n"), piece.rfind(". ") + 1)
    return piece[:end].strip() if end > 0 else piece


def pieces(tokenizer: Tokenizer, text: str) -> str:
    """A text cut into its tokens."""
    return " · ".join(tokenizer.decode([token]).replace(" ", "␣") or "⌁" for token in tokenizer.encode(text))


def transformers_agrees(tokenizer: Tokenizer, texts: Sequence[str]) -> bool:
    """Whether Transformers' GPT-2 tokenizer, made from the same vocabulary, gives the same ids."""
    from transformers import GPT2Tokenizer

    data: Any = tokenizer.to_json()
    merges: Any = [tuple(pair) for pair in data["merges"]]
    theirs = GPT2Tokenizer(vocab=data["encoder"], merges=merges)
    return all(theirs(text)["input_ids"] == tokenizer.encode(text) for text in texts)


EXERCISE = Exercise(
    measure=measure,
    recipes=tuple(KINDS.values()),
    sources=("bpe",),
    numbers={"smoke": {}, "laptop": {}, "gpu": {}},
    timed=True,
    seconds={"smoke": 3, "laptop": 6, "gpu": 20},
    ahead=ahead,
    seconds_ahead={"smoke": 2, "laptop": 10, "gpu": 15},
)
