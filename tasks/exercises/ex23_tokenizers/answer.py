"""Tables, figures, coloured paragraphs and checks of 21.23; the text is in answer.md."""

import math
from dataclasses import replace
from itertools import pairwise

from minigpt.evaluation.statistics import Comparison, compare, holm, mean_std
from reports.answers import Draft
from reports.types import Block, Cell, Check, Code, Figure, Series, Table, TokenScores
from tasks.exercises.ex23_tokenizers.findings import CLASSES, CONTEXTS, SELDOM, Findings, Kind

GPT2_WIDTH = 768


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    kinds, present = f.kinds.values(), f.present
    names = tuple(CLASSES[i][0] for i in present)
    sizes = ", ".join(f"{size:,} {name}" for size, (name, _, _) in zip(f.rarity_sizes, CLASSES, strict=True))
    blocks: dict[str, Block] = {
        "paragraph": Code(f.text, f"The paragraph, from the held-out text: {len(f.text.encode())} bytes."),
        "training": efficiency(f),
        "by time": Figure(
            "line",
            tuple(curve(kind, by_text=False) for kind in kinds),
            "seconds of training (steps × step time)",
            "bits per byte",
            "Validation loss against time, unknown words spelled (first seed).",
        ),
        "by text": Figure(
            "line",
            tuple(curve(kind, by_text=True) for kind in kinds),
            "bytes of text seen",
            "bits per byte",
            "The same against the text seen.",
        ),
        "rarity": Figure(
            "bar",
            tuple(Series(kind.name, names, tuple(kind.rarity[i] for i in present)) for kind in kinds),
            "times the word occurs in the training text",
            "bits per byte of the word",
            f"Cost of words by rarity ({sizes}), unknown ones spelled.",
        ),
    }
    for kind in kinds:
        blocks |= {
            f"{kind.name} coloured": coloured(f, kind),
            f"{kind.name} facts": facts(f, kind),
            f"{kind.name} rare": rare_words(f, kind),
        }
    taught = [kind for kind in f.by_late_cost if kind.variant.beats_bigram_with(kind.late)]
    steps = list(pairwise(taught))
    found = holm([compare(worse.spelled_at_equal_time, better.spelled_at_equal_time) for better, worse in steps])
    cheapest, *others = sorted(kinds, key=lambda kind: kind.rarity[0])  # for words that were never seen
    second = next((kind for kind in others if kind.variant.beats_bigram), others[0])
    return Draft(
        blocks=blocks,
        checks=checks(f),
        values={
            "characters": f.kinds["characters"],
            "pairs": f.kinds["byte pairs"],
            "words": f.kinds["words"],
            "seldom": SELDOM,
            "gpt2_width": GPT2_WIDTH,
            "taught": taught,
            "untaught": [kind for kind in f.by_late_cost if kind not in taught],
            "steps": [(better.name, worse.name, c) for (better, worse), c in zip(steps, found, strict=True)],
            "rare_class": names[0],
            "common_class": names[-1],
            "costlier": [kind.name for kind in kinds if kind.rarity[present[0]] > kind.rarity[present[-1]]],
            "unseen_ratio": f.kinds["words"].rarity[0] / f.kinds["words"].rarity[present[-1]],
            "cheapest": cheapest,
            "second": second,
            "cheapest_against_second": rare_compared(cheapest, second),
        },
    )


def coloured(f: Findings, kind: Kind) -> TokenScores:
    """The paragraph in tokens; the score of each is its length."""
    tokens = tuple(f.text[start:end] for start, end in kind.spans)
    lengths = tuple(float(len(piece.encode())) for piece in tokens)
    return TokenScores(tokens, lengths, "bytes", f"The paragraph in {len(tokens)} tokens.")


def facts(f: Findings, kind: Kind) -> Table:
    """Length and context use."""
    rows: list[tuple[Cell, ...]] = [
        ("tokens in the paragraph", kind.paragraph),
        ("tokens per word", kind.paragraph / f.words),
        ("bytes per token, whole validation text", kind.bytes_per_token),
        ("vocabulary", kind.vocabulary),
        ("unknown tokens, share of the validation text", kind.unknown_share),
    ]
    for context in (kind.context, *CONTEXTS):
        rows.append((f"contexts of {context} that the paragraph fills", kind.paragraph / context))
    rows.append((f"words that fit into a context of {CONTEXTS[-1]}", CONTEXTS[-1] * f.words / kind.paragraph))
    key = kind.name.replace(" ", "-")
    return Table(("quantity", "value"), tuple(rows), f"{kind.name.capitalize()}: length and context.", f"facts-{key}")


def rare_words(f: Findings, kind: Kind) -> Table:
    """How it writes the rarest words."""
    rows = tuple(
        (word, times, written.tokens, written.text) for (word, times), written in zip(f.rare, kind.rare, strict=True)
    )
    columns = ("word", "times in the training text", "tokens", "pieces")
    sign = "a part of a character" if kind.name == "byte pairs" else "the unknown token"
    caption = f"The paragraph's four rarest words, and four that are foreign to most texts (� is {sign})."
    return Table(columns, rows, caption, f"rare-{kind.name.replace(' ', '-')}")


def curve(kind: Kind, by_text: bool) -> Series:
    """Bits per byte of the first seed against seconds, or bytes of text seen."""
    evaluations = kind.variant.curves[0]
    unit = kind.tokens_per_step * kind.train_bytes_per_token if by_text else kind.variant.step_seconds
    per_byte = (kind.tokens - 1) / kind.n_bytes / math.log(2)
    extra = kind.spelling / kind.n_bytes
    y = tuple(loss * per_byte + extra for loss in evaluations.losses)
    return Series(kind.name, tuple(step * unit for step in evaluations.steps), y)


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
                kind.variant.parameters,
                kind.embedding_share,
                kind.flops_per_byte / 1e6,
                kind.bytes_per_second,
                kind.bytes_seen / kind.train_bytes,
                kind.seconds,
                nats,
                kind.variant.baselines.bigram,
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
        "… of bigrams of the same tokens",
        "bits per byte",
        "… unknown words spelled",
        "± over seeds",
        "… at equal time",
        "± over seeds (time)",
    )
    seeds = len(f.kinds["characters"].bits)
    caption = (
        "The same body with three vocabularies. Time is steps × step time, the steps timed alone and in turn; equal "
        f"time is the {f.budget:.3g} s of the shortest training: of the others, finished trainings as long, or their "
        "shortest where none is. Spelled: an unknown word also costs its letters by their frequency. "
        f"{seeds} seed{'s' * (seeds > 1)}; whole validation split."
    )
    return Table(columns, tuple(rows), caption, "training")


def rare_compared(cheapest: Kind, second: Kind) -> Comparison:
    """What unseen words cost; no verdict on a model that does not beat a bigram of its own tokens."""
    found = compare(second.by_rarity[0], cheapest.by_rarity[0])
    taught = cheapest.variant.beats_bigram and second.variant.beats_bigram
    return found if taught else replace(found, verdict="untrained")


def checks(f: Findings) -> tuple[Check, ...]:
    """The claims."""
    characters, pairs, words = (f.kinds[name] for name in ("characters", "byte pairs", "words"))
    covered = sum(end - start for start, end in pairs.spans)
    recorded = [
        abs(nats - loss)
        for kind in f.kinds.values()
        for loss, nats in zip(kind.variant.losses, kind.nats_per_token, strict=True)
    ]
    lengths = [kind.paragraph for kind in f.kinds.values()]
    return (
        Check.equal("tokens of the paragraph as characters", characters.paragraph, len(f.text)),
        Check.at_least("characters of the paragraph that its byte pairs cover", covered, len(f.text)),
        Check.equal("byte pairs are those of Transformers' GPT-2 tokenizer", f.transformers_agrees, True),
        Check.equal("unknown words, found by looking each up", words.unknown, f.unknown_pieces),
        Check.equal("byte pairs give back a text with unseen signs", pairs.round_trips[1], True),
        Check.equal("size of GPT-2's vocabulary", pairs.vocabulary, 50_257),
        Check.at_most("losses per token against those recorded in training, nats", max(recorded), 2e-3),
        Check.equal(
            "lengths fall from characters to byte pairs to words", lengths == sorted(lengths)[::-1], True, "empirical"
        ),
        *(
            Check.close(
                f"training time of {kind.name} over characters'",
                kind.seconds / characters.seconds,
                1.0,
                0.5,
                "empirical",
            )
            for kind in (pairs, words)
        ),
        Check.at_most(
            "bits per byte at equal time: byte pairs against the best of the others",
            pairs.late_cost,
            min(characters.late_cost, words.late_cost),
            "empirical",
        ),
    )
