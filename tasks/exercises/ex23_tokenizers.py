"""Exercise 21.23: one paragraph as characters, as GPT-2's byte pairs and as words, and what each costs to learn.

Losses per token cannot be compared between tokenizers, so everything is in bits per byte of the text. An unknown word
costs a word model little and loses the word, so it is also charged for spelling it.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from minigpt.cost.counting import count_parameters, training_flops
from minigpt.evaluation.evaluate import token_losses
from minigpt.evaluation.statistics import compare, describe, mean_std
from minigpt.tokenizers import Tokenizer
from reports.types import Answer, Cell, Check, Code, Figure, Part, Prose, Series, Table, TokenScores
from tasks.exercise import Context, Exercise, TrainedModel
from tasks.recipes.catalogue import STUDY_BPE, STUDY_ROPE, STUDY_WORD
from tasks.study_legacy import Variant, at_equal_time, variants

KINDS = {"characters": STUDY_ROPE, "byte pairs": STUDY_BPE, "words": STUDY_WORD}
CONTEXTS = (256, 1024)
GPT2_WIDTH = 768
FOREIGN = ("tokenization", "ChatGPT", "naïve", "🙂")  # what a text of any age may not contain
UNSEEN = "Tokenization of a naïve ChatGPT prompt: 🙂 (100 %)."
PIECE = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]|\s")  # words, marks, and each white space
WORD = re.compile(r"\w+(?:['’]\w+)*")
SELDOM = 10  # an entry of the vocabulary that occurs less often is hardly trained
CLASSES = (("unseen", 0, 0), ("1-9", 1, 9), ("10-99", 10, 99), ("100 or more", 100, math.inf))


def char_spans(text: str, tokenizer: Tokenizer, ids: Sequence[int]) -> list[tuple[int, int]]:
    """Where each token lies in the text, as characters [start, end)."""
    return [(i, i + 1) for i in range(len(ids))]


def bpe_spans(text: str, tokenizer: Tokenizer, ids: Sequence[int]) -> list[tuple[int, int]]:
    """The same for byte pairs; a character of several bytes may belong to more than one token."""
    lengths = {i: len(token) for token, i in tokenizer.to_json()["encoder"].items()}  # one printable sign per byte
    owner = [i for i, character in enumerate(text) for _ in character.encode()]
    spans, at = [], 0
    for token in ids:
        spans.append((owner[at], owner[at + lengths[token] - 1] + 1))
        at += lengths[token]
    return spans


def word_spans(text: str, tokenizer: Tokenizer, ids: Sequence[int]) -> list[tuple[int, int]]:
    """The same for words: a space that is implied belongs to the word after it; glue has no length."""
    words, pieces = tokenizer.to_json()["words"], list(PIECE.finditer(text))
    spans, at, begin = [], 0, 0
    for token in ids:
        if words[token] == "<glue>":
            spans.append((begin, begin))
            continue
        if pieces[at][0] == " " and words[token] != " ":
            at += 1
        spans.append((begin, pieces[at].end()))
        begin = pieces[at].end()
        at += 1
    return spans


SPANS = {"characters": char_spans, "byte pairs": bpe_spans, "words": word_spans}


@dataclass(frozen=True)
class Kind:
    """One tokenizer, and the models that were trained with it."""

    name: str
    variant: Variant  # the models of all seeds, and the time of a step, measured alone
    late: tuple[float, ...]  # validation loss when the shortest of the trainings is over, nats per token, one per seed
    paragraph: tuple[int, ...]
    spans: list[tuple[int, int]]  # of the paragraph's tokens
    tokens: int  # in the validation text
    unknown: int  # tokens among them
    spelling: float  # bits to write the unknown words out
    train_tokens: int
    bits: tuple[Tensor, ...]  # per validation token but the first, (N - 1,), one per seed
    by_rarity: tuple[tuple[float, ...], ...]  # per class: bits per byte of words, one per seed, unknown ones spelled
    occurrences: Tensor  # of each entry of the vocabulary in the training text, (V,)
    n_bytes: int  # of the validation text
    train_bytes: int

    @property
    def trained(self) -> tuple[TrainedModel, ...]:
        """One per seed."""
        return self.variant.models

    @property
    def tokenizer(self) -> Tokenizer:
        """The same for every seed."""
        return self.trained[0].tokenizer

    @property
    def bits_per_byte(self) -> list[float]:
        """Per seed; unknown words cost no more than the sign that stands for them."""
        return [bits.sum().item() / self.n_bytes for bits in self.bits]

    @property
    def spelled(self) -> list[float]:
        """Per seed, with unknown words spelled out."""
        return [bits + self.spelling / self.n_bytes for bits in self.bits_per_byte]

    @property
    def spelled_at_equal_time(self) -> list[float]:
        """Per seed, when the shortest of the trainings is over."""
        return [(nats * (self.tokens - 1) / math.log(2) + self.spelling) / self.n_bytes for nats in self.late]

    @property
    def rarity(self) -> tuple[float, ...]:
        """Bits per byte of words by class, mean over seeds."""
        return tuple(mean_std(values)[0] for values in self.by_rarity)

    def entries_below(self, times: int) -> float:
        """Share of the vocabulary that occurs less often than so many times in the training text."""
        return (self.occurrences < times).double().mean().item()

    @property
    def bytes_per_token(self) -> float:
        """In the validation text."""
        return self.n_bytes / self.tokens

    @property
    def train_bytes_per_token(self) -> float:
        """In the training text."""
        return self.train_bytes / self.train_tokens

    @property
    def tokens_per_step(self) -> int:
        """Targets in a batch."""
        return self.trained[0].recipe.train.batch_size * self.trained[0].model.config.context

    @property
    def seconds(self) -> float:
        """Of one training: steps times the median step."""
        return self.variant.steps * self.variant.step_seconds

    @property
    def bytes_seen(self) -> float:
        """Text that one training read."""
        return self.trained[0].recipe.train.steps * self.tokens_per_step * self.train_bytes_per_token

    @property
    def flops_per_byte(self) -> float:
        """Of training."""
        config = self.trained[0].model.config
        return training_flops(config, 1, config.context) / config.context / self.train_bytes_per_token

    @property
    def logits_share(self) -> float:
        """Of the FLOPs of training: those of the product with the unembedding, 6 · V · C a token."""
        config = self.trained[0].model.config
        return 6 * config.vocab_size * config.d_model * config.context / training_flops(config, 1, config.context)


@dataclass(frozen=True)
class Findings:
    """All that was measured; the answer only words it."""

    kinds: dict[str, Kind]
    text: str  # the paragraph
    counts: Counter[str]  # of words in the training text
    rare: tuple[str, ...]  # the rarest words of the paragraph, then some that are foreign to it
    rarity_sizes: tuple[int, ...]  # words of the validation text, by class
    unknown_pieces: int  # found by looking pieces up
    round_trips: dict[str, tuple[bool, bool]]  # of the paragraph, of a text with unseen signs
    transformers_agrees: bool

    @property
    def budget(self) -> float:
        """Seconds of the shortest training: what equal time means."""
        return min(kind.seconds for kind in self.kinds.values())

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        words = len(WORD.findall(self.text))
        metrics: dict[str, float | int] = {"equal_time_seconds": self.budget}
        for name, kind in self.kinds.items():
            key, n = name.replace(" ", "_"), len(kind.paragraph)
            for context in (kind.trained[0].model.config.context, *CONTEXTS):
                metrics[f"{key}_contexts_of_{context}_per_paragraph"] = n / context
            for (label, *_), size, cost in zip(CLASSES, self.rarity_sizes, kind.rarity, strict=True):
                if size:  # "unseen", "1_to_9", …
                    metrics[f"{key}_bits_per_byte_words_{label.replace(' ', '_').replace('-', '_to_')}"] = cost
            metrics |= {
                f"{key}_paragraph_tokens": n,
                f"{key}_tokens_per_word": n / words,
                f"{key}_words_in_a_context_of_{CONTEXTS[-1]}": CONTEXTS[-1] * words / n,
                f"{key}_embedding_share_of_parameters": share(kind),
                f"{key}_logits_share_of_flops": kind.logits_share,
                f"{key}_unused_share_of_vocabulary": kind.entries_below(1),
                f"{key}_bits_per_byte_spelled_at_equal_time": mean_std(kind.spelled_at_equal_time)[0],
                f"{key}_vocabulary": kind.tokenizer.vocab_size,
                f"{key}_bytes_per_token": kind.bytes_per_token,
                f"{key}_unknown_tokens_share": kind.unknown / kind.tokens,
                f"{key}_embedding_parameters": kind.tokenizer.vocab_size * kind.trained[0].model.config.d_model,
                f"{key}_bits_per_byte": mean_std(kind.bits_per_byte)[0],
                f"{key}_bits_per_byte_spelled": mean_std(kind.spelled)[0],
                f"{key}_training_seconds": kind.seconds,
                f"{key}_training_bytes_per_second": kind.bytes_seen / kind.seconds,
                f"{key}_training_flops_per_byte": kind.flops_per_byte,
            }
        return metrics | {"paragraph_bytes": len(self.text.encode()), "paragraph_words": words}


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


def study(
    ctx: Context, variant: Variant, late: tuple[float, ...], paragraph: str, counts: Counter[str]
) -> tuple[Kind, tuple[int, ...]]:
    """Everything about one tokenizer; also how many words of each class the validation text has."""
    name, trained = variant.label, variant.models
    recipe, text, train = KINDS[name], ctx.text(), ctx.text("train")
    tokenizer, ids, train_ids = trained[0].tokenizer, ctx.tokens(recipe), ctx.tokens(recipe, "train")
    bits = tuple(token_losses(one.model, ids).double().cpu() / math.log(2) for one in trained)
    spans = SPANS[name](text, tokenizer, ids.tolist())
    unknown: list[tuple[int, str]] = []
    if name == "words":
        known = set(tokenizer.to_json()["words"])
        unknown = [(match.start(), match[0]) for match in PIECE.finditer(text) if match[0] not in known]
    extra = {start: spelling_bits(train, [word]) for start, word in unknown}
    first = torch.zeros(1, dtype=torch.float64)
    rarity = [cost_by_rarity(text, spans, torch.cat([first, one]), extra, counts) for one in bits]
    marks = 0 if name == "byte pairs" else int((ids == 0).sum())
    own = tuple(tokenizer.encode(paragraph))
    kind = Kind(
        name=name,
        variant=variant,
        late=late,
        paragraph=own,
        spans=SPANS[name](paragraph, tokenizer, own),
        tokens=len(ids),
        unknown=marks,
        spelling=sum(extra.values()),
        train_tokens=len(train_ids),
        bits=bits,
        by_rarity=tuple(zip(*(costs for costs, _ in rarity), strict=True)),
        occurrences=torch.bincount(train_ids, minlength=tokenizer.vocab_size).cpu(),
        n_bytes=len(text.encode()),
        train_bytes=len(train.encode()),
    )
    return kind, rarity[0][1]


def choose_paragraph(text: str, characters: int) -> str:
    """Whole lines, or whole sentences where there are none, of about so many characters."""
    start = text.find("\n") + 1
    piece = text[start : start + characters]
    end = max(piece.rfind("\n"), piece.rfind(". ") + 1)
    return piece[:end].strip() if end > 0 else piece


def transformers_agrees(tokenizer: Tokenizer, texts: Sequence[str]) -> bool:
    """Whether Transformers' GPT-2 tokenizer, made from the same vocabulary, gives the same ids."""
    from transformers import GPT2Tokenizer

    data: Any = tokenizer.to_json()
    merges: Any = [tuple(pair) for pair in data["merges"]]
    theirs = GPT2Tokenizer(vocab=data["encoder"], merges=merges)
    return all(theirs(text)["input_ids"] == tokenizer.encode(text) for text in texts)


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    text, train = ctx.text(), ctx.text("train")
    paragraph = choose_paragraph(text, 700)
    counts = Counter(WORD.findall(train))
    ctx.progress(0.0, "timing the steps")
    rows = variants(ctx, KINDS)
    kinds = {}
    for i, (row, late) in enumerate(zip(rows, at_equal_time(rows), strict=True)):
        ctx.progress((i + 1) / (len(KINDS) + 1), row.label)
        kinds[row.label], sizes = study(ctx, row, late, paragraph, counts)
    own = sorted(set(WORD.findall(paragraph)), key=lambda word: (counts[word], word))
    words = set(kinds["words"].tokenizer.to_json()["words"])
    trips = {}
    for name, kind in kinds.items():
        encode, decode = kind.tokenizer.encode, kind.tokenizer.decode
        trips[name] = (decode(encode(paragraph)) == paragraph, decode(encode(UNSEEN)) == UNSEEN)
    return Findings(
        kinds=kinds,
        text=paragraph,
        counts=counts,
        rare=(*own[:4], *FOREIGN),
        rarity_sizes=sizes,
        unknown_pieces=sum(piece not in words for piece in PIECE.findall(text)),
        round_trips=trips,
        transformers_agrees=transformers_agrees(ctx.bpe(), (paragraph, UNSEEN, text[:2000])),
    )


def checks(f: Findings) -> tuple[Check, ...]:
    """The claims."""
    characters, pairs, words = f.kinds.values()
    time = characters.seconds
    covered = sum(end - start for start, end in pairs.spans)
    recorded = [
        abs(bits.mean().item() * math.log(2) - one.evaluations["validation_loss"][-1])
        for kind in f.kinds.values()
        for one, bits in zip(kind.trained, kind.bits, strict=True)
    ]
    lengths = [len(kind.paragraph) for kind in f.kinds.values()]
    mean = {name: mean_std(kind.spelled_at_equal_time)[0] for name, kind in f.kinds.items()}
    return (
        Check.equal("tokens of the paragraph as characters", len(characters.paragraph), len(f.text)),
        Check.at_least("characters of the paragraph that its byte pairs cover", covered, len(f.text)),
        Check.equal("byte pairs are those of Transformers' GPT-2 tokenizer", f.transformers_agrees, True),
        Check.equal("unknown words, found by looking each up", words.unknown, f.unknown_pieces),
        Check.equal("byte pairs give back a text with unseen signs", f.round_trips["byte pairs"][1], True),
        Check.equal("size of GPT-2's vocabulary", pairs.tokenizer.vocab_size, 50_257),
        Check.at_most("losses per token against those recorded in training, nats", max(recorded), 2e-3),
        Check.equal(
            "lengths fall from characters to byte pairs to words", lengths == sorted(lengths)[::-1], True, "empirical"
        ),
        *(
            Check.close(f"training time of {kind.name} over characters'", kind.seconds / time, 1.0, 0.5, "empirical")
            for kind in (pairs, words)
        ),
        Check.at_most(
            "bits per byte at equal time: byte pairs against the best of the others",
            mean["byte pairs"],
            min(mean["characters"], mean["words"]),
            "empirical",
        ),
    )


# --- The parts ------------------------------------------------------------------------------------------------


def pieces(tokenizer: Tokenizer, text: str) -> str:
    """A text cut into its tokens."""
    return " · ".join(tokenizer.decode([token]).replace(" ", "␣") or "⌁" for token in tokenizer.encode(text))


def coloured(f: Findings, kind: Kind) -> TokenScores:
    """The paragraph in tokens; the score of each is its length."""
    tokens, lengths = [], []
    for start, end in kind.spans:
        piece = f.text[start:end]
        tokens.append(piece)
        lengths.append(float(len(piece.encode())))
    return TokenScores(tuple(tokens), tuple(lengths), "bytes", f"The paragraph in {len(tokens)} tokens.")


def facts(f: Findings, kind: Kind) -> Table:
    """Length and context use."""
    paragraph = len(kind.paragraph)
    own = kind.trained[0].model.config.context
    words = len(WORD.findall(f.text))
    rows: list[tuple[Cell, ...]] = [
        ("tokens in the paragraph", paragraph),
        ("tokens per word", paragraph / words),
        ("bytes per token, whole validation text", kind.bytes_per_token),
        ("vocabulary", kind.tokenizer.vocab_size),
        ("unknown tokens, share of the validation text", kind.unknown / kind.tokens),
    ]
    for context in (own, *CONTEXTS):
        rows.append((f"contexts of {context} that the paragraph fills", paragraph / context))
    rows.append((f"words that fit into a context of {CONTEXTS[-1]}", CONTEXTS[-1] * words / paragraph))
    key = kind.name.replace(" ", "-")
    return Table(("", "value"), tuple(rows), f"{kind.name.capitalize()}: length and context.", f"facts-{key}")


def rare_words(f: Findings, kind: Kind) -> Table:
    """How it writes the rarest words."""
    rows = tuple(
        (word, f.counts[word], len(kind.tokenizer.encode(word)), pieces(kind.tokenizer, word)) for word in f.rare
    )
    columns = ("word", "times in the training text", "tokens", "pieces")
    sign = "a part of a character" if kind.name == "byte pairs" else "the unknown token"
    caption = f"The paragraph's four rarest words, and four that are foreign to most texts (� is {sign})."
    return Table(columns, rows, caption, f"rare-{kind.name.replace(' ', '-')}")


def lost(f: Findings, name: str) -> str:
    """What the round trips gave."""
    own, foreign = f.round_trips[name]
    first = "The paragraph comes back as it was" if own else "The paragraph does not come back as it was"
    return f"{first}; a line with unseen signs {'does too' if foreign else 'comes back with unknown tokens'}."


def part_a(f: Findings) -> Part:
    """Characters."""
    kind, words = f.kinds["characters"], f.kinds["words"]
    ratio = len(kind.paragraph) / len(words.paragraph)
    text = (
        f"*Context.* Each token is one character, so the sequence is {ratio:.1f} times as long as in words, and a full "
        f"attention over it has {ratio**2:.0f} times the pairs. *Training.* The vocabulary is tiny: the embedding is "
        f"{share(kind):.0%} of the parameters, and training costs {kind.flops_per_byte / 1e6:.2f} MFLOP per byte of "
        f"text, {kind.logits_share:.0%} of it for the logits. *Rare words* are spelled like any other; only a "
        f"character that the training text lacks is unknown, {kind.unknown} of {kind.tokens:,} here. "
        f"{lost(f, 'characters')}"
    )
    return Part("a", (coloured(f, kind), facts(f, kind), rare_words(f, kind), Prose(text)), "Characters")


def share(kind: Kind) -> float:
    """Of the parameters that the token embedding has."""
    model = kind.trained[0].model
    return kind.tokenizer.vocab_size * model.config.d_model / count_parameters(model)


def part_b(f: Findings) -> Part:
    """GPT-2's byte pairs."""
    kind, characters = f.kinds["byte pairs"], f.kinds["characters"]
    ratio = len(characters.paragraph) / len(kind.paragraph)
    text = (
        f"*Context.* The same context holds {ratio:.1f} times as much of the text as in characters. *Training.* All "
        f"{kind.tokenizer.vocab_size:,} tokens of GPT-2's vocabulary take part in every softmax, though "
        f"{kind.entries_below(1):.0%} of them never occur in the training text: the embedding is {share(kind):.1%} of "
        "the parameters of this small model, and training on a byte of text costs "
        f"{kind.flops_per_byte / characters.flops_per_byte:.1f} times the FLOPs of characters in spite of the shorter "
        f"sequence, {kind.logits_share:.0%} of them for the logits. "
        f"At GPT-2's width of {GPT2_WIDTH} the table has {kind.tokenizer.vocab_size * GPT2_WIDTH / 1e6:.1f} M numbers. "
        f"*Rare words* fall into pieces and nothing is ever unknown: the vocabulary has all bytes. "
        f"{lost(f, 'byte pairs')}"
    )
    return Part("b", (coloured(f, kind), facts(f, kind), rare_words(f, kind), Prose(text)), "GPT-2's byte pairs")


def part_c(f: Findings) -> Part:
    """Words and marks."""
    kind, pairs = f.kinds["words"], f.kinds["byte pairs"]
    shorter = len(kind.paragraph) < len(pairs.paragraph)
    text = (
        f"*Context.* {'The shortest sequence' if shorter else 'No shorter than byte pairs here'}: "
        f"{len(kind.paragraph)} tokens. A single space between words is implied. *Training.* The vocabulary is that of "
        f"the training text, {kind.tokenizer.vocab_size:,} entries, with {share(kind):.0%} of the parameters; "
        f"{kind.entries_below(SELDOM):.0%} of the entries occur fewer than {SELDOM} times in the training text, and "
        "their rows of the embedding are read as seldom. *Rare words* are its weakness: a word that the training text "
        f"lacks becomes the unknown token, {kind.unknown / kind.tokens:.1%} of the validation tokens, and is lost. "
        f"{lost(f, 'words')}"
    )
    return Part("c", (coloured(f, kind), facts(f, kind), rare_words(f, kind), Prose(text)), "Words and marks")


def curve(kind: Kind, by_text: bool) -> Series:
    """Bits per byte of the first seed against seconds, or bytes of text seen."""
    evaluations = kind.trained[0].evaluations
    unit = kind.tokens_per_step * kind.train_bytes_per_token if by_text else kind.variant.step_seconds
    per_byte = (kind.tokens - 1) / kind.n_bytes / math.log(2)
    extra = kind.spelling / kind.n_bytes
    y = tuple(loss * per_byte + extra for loss in evaluations["validation_loss"])
    return Series(kind.name, tuple(step * unit for step in evaluations["step"]), y)


def efficiency(f: Findings) -> Table:
    """Cost of training and what came of it."""
    rows: list[tuple[Cell, ...]] = []
    for name, kind in f.kinds.items():
        raw, (spelled, spread) = mean_std(kind.bits_per_byte)[0], mean_std(kind.spelled)
        late, late_spread = mean_std(kind.spelled_at_equal_time)
        several = len(kind.bits) > 1
        nats = raw * kind.n_bytes / (kind.tokens - 1) * math.log(2)
        rows.append(
            (
                name,
                count_parameters(kind.trained[0].model),
                share(kind),
                kind.flops_per_byte / 1e6,
                kind.bytes_seen / kind.seconds,
                kind.bytes_seen / kind.train_bytes,
                kind.seconds,
                nats,
                raw,
                *(spelled, spread if several else None),
                *(late, late_spread if several else None),
            )
        )
    columns = (
        "tokenizer",
        "parameters",
        "embedding's share",
        "training MFLOP per byte",
        "bytes per second",
        "epochs",
        "training, s",
        "nats per token (not comparable)",
        "bits per byte",
        "… unknown words spelled",
        "± over seeds",
        "… at equal time",
        "± over seeds (time)",
    )
    seeds = len(f.kinds["characters"].bits)
    caption = (
        "The same body with three vocabularies. Time is steps × step time, the steps timed alone and in turn; equal "
        f"time is the {f.budget:.3g} s of the shortest training, read off the learning curves, so that the others are "
        "caught before the end of their schedule. Spelled: an unknown word also costs its letters by their frequency. "
        f"{seeds} seed{'s' * (seeds > 1)}; whole validation split."
    )
    return Table(columns, tuple(rows), caption, "training")


def said_of_time(f: Findings) -> str:
    """Which tokenizer is cheapest after equal time, each against the next."""
    ranking = sorted(f.kinds.values(), key=lambda kind: mean_std(kind.spelled_at_equal_time)[0])
    steps = [
        describe(
            compare(worse.spelled_at_equal_time, better.spelled_at_equal_time),
            better.name,
            worse.name,
            quantity="cost per byte",
            unit="bits",
        )
        for better, worse in pairwise(ranking)
    ]
    times = ", ".join(f"{kind.seconds:.3g} s for {name}" for name, kind in f.kinds.items())
    pairs, characters = f.kinds["byte pairs"], f.kinds["characters"]
    speed = (pairs.bytes_seen / pairs.seconds) / (characters.bytes_seen / characters.seconds)
    return (
        f"*Equal time* (the trainings take {times}; compared after {f.budget:.3g} s): {' '.join(steps)} In the same "
        f"time the model on byte pairs reads {speed:.2f} times the text that the model on characters reads; what a "
        "larger body would make of its vocabulary is not measured here."
    )


def said_of_rarity(f: Findings) -> str:
    """Whether rare words cost more, and which tokenizer writes unseen ones most cheaply."""
    present = [i for i, size in enumerate(f.rarity_sizes) if size]
    dearer = [name for name, kind in f.kinds.items() if kind.rarity[present[0]] > kind.rarity[present[-1]]]
    rare, common = CLASSES[present[0]][0], CLASSES[present[-1]][0]
    everywhere = (
        "cost more under every tokenizer, in different measure"
        if len(dearer) == len(f.kinds)
        else f"cost more under {' and '.join(dearer)} only"
        if dearer
        else "cost more under no tokenizer here"
    )
    said = f"*Rare words* {everywhere} (times in the training text: {rare} against {common})."
    if not f.rarity_sizes[0]:
        return f"{said} The validation text has no word that the training text lacks."
    best, second = sorted(f.kinds.values(), key=lambda kind: kind.rarity[0])[:2]
    ratio = f.kinds["words"].rarity[0] / f.kinds["words"].rarity[present[-1]]
    cheapest = describe(
        compare(second.by_rarity[0], best.by_rarity[0]),
        best.name,
        second.name,
        quantity="cost of such words per byte",
        unit="bits",
    )
    return (
        f"{said} Words the training text lacks cost the word model {ratio:.1f} times as much per byte as those of the "
        f"commonest class. They are cheapest in {best.name}, {best.rarity[0]:.2f} bits per byte. {cheapest}"
    )


def comparison(f: Findings) -> Part:
    """The three beside one another: training and rare words."""
    present = [i for i, size in enumerate(f.rarity_sizes) if size]
    names = tuple(CLASSES[i][0] for i in present)
    bars = tuple(Series(name, names, tuple(kind.rarity[i] for i in present)) for name, kind in f.kinds.items())
    sizes = ", ".join(f"{size:,} {name}" for size, (name, _, _) in zip(f.rarity_sizes, CLASSES, strict=True))
    return Part(
        "",
        (
            efficiency(f),
            Prose(said_of_time(f)),
            Figure(
                "line",
                tuple(curve(kind, by_text=False) for kind in f.kinds.values()),
                "seconds of training (steps × step time)",
                "bits per byte",
                "Validation loss against time, unknown words spelled (first seed).",
            ),
            Figure(
                "line",
                tuple(curve(kind, by_text=True) for kind in f.kinds.values()),
                "bytes of text seen",
                "bits per byte",
                "The same against the text seen.",
            ),
            Figure(
                "bar",
                bars,
                "times the word occurs in the training text",
                "bits per byte of the word",
                f"Cost of words by rarity ({sizes}), unknown ones spelled.",
            ),
            Prose(said_of_rarity(f)),
        ),
        "The three compared: training and rare words",
    )


def answer(ctx: Context) -> Answer:
    """The three tokenizers, and their comparison."""
    f = measure(ctx)
    lengths = ", ".join(f"{len(kind.paragraph)} {name}" for name, kind in f.kinds.items())
    best = min(f.kinds.values(), key=lambda kind: mean_std(kind.spelled_at_equal_time)[0])
    parts = (part_a(f), part_b(f), part_c(f), comparison(f))
    shown = Code(f.text, f"The paragraph, from the held-out text: {len(f.text.encode())} bytes.")
    first = Part("a", (shown, *parts[0].blocks), parts[0].question)
    return Answer(
        summary=f"{lengths} for one paragraph; at equal training time {best.name} cost least, "
        f"{mean_std(best.spelled_at_equal_time)[0]:.2f} bits per byte.",
        parts=(first, *parts[1:]),
        checks=checks(f),
        metrics=f.metrics,
    )


EXERCISE = Exercise(
    id="21.23",
    title="Tokenizer Effects",
    recipes=tuple(KINDS.values()),
    sources=("bpe",),
    numbers={"smoke": {}, "laptop": {}, "gpu": {}},
    timed=True,
    seconds={"smoke": 4, "laptop": 20, "gpu": 30},
    answer=answer,
)
