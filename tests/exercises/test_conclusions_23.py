"""21.23: a model that does not beat a bigram of its own tokens earns no verdict on its tokenizer."""

from dataclasses import replace
from pathlib import Path

from minigpt.evaluation.ngrams import Baselines
from minigpt.evaluation.timing import Timing
from reports.answers import compose
from reports.types import flattened
from tasks.exercises.ex23_tokenizers import answer as ex23
from tasks.exercises.ex23_tokenizers.findings import Findings, Kind, Pieces
from tasks.variants import LearningCurve, Variant

TEMPLATE = Path(ex23.__file__).with_name("answer.md").read_text(encoding="utf-8")
COUNTED = Baselines(5.0, 4.0, 3.5, 3)
SEEDS = (-0.010, 0.001, 0.009)  # what a seed adds


def kind(name, loss, tokens) -> Kind:
    losses = tuple(loss + one for one in SEEDS)
    curves = tuple(LearningCurve((0.0, 100.0), (6.0, end), (100.0,), (end,), seed=i) for i, end in enumerate(losses))
    variant = Variant(name, name, 100, 1_000, curves, Timing(1.0, 1.0, 1.0, 9), 100, 10_000, COUNTED)
    return Kind(
        name=name,
        variant=variant,
        late=losses,
        vocabulary=50,
        d_model=8,
        context=64,
        tokens_per_step=100,
        flops_per_token=1e6,
        logits_share=0.5,
        spans=((0, 3), (3, 6)),
        tokens=tokens,
        unknown=0,
        spelling=0.0,
        train_tokens=10_000,
        bits=losses,
        nats_per_token=losses,
        by_rarity=tuple(tuple(rare + one for one in SEEDS) for rare in (loss, 3.0, 2.0, 1.0)),
        entries_below={1: 0.5, 10: 0.6},
        rare=(Pieces(1, "so"),),
        round_trips=(True, False),
        n_bytes=1_000,
        train_bytes=10_000,
    )


def found(**losses) -> Findings:
    kinds = {name.replace("_", " "): kind(name.replace("_", " "), *values) for name, values in losses.items()}
    return Findings(kinds, "so be", (("so", 0),), (5, 5, 5, 5), 0, True)


TAUGHT = found(characters=(3.0, 1_001), byte_pairs=(3.8, 501), words=(3.9, 401))


def told(f, part=3):
    answer = compose(TEMPLATE, f, ex23.answer(f))
    blocks = flattened(answer.parts[part].blocks)
    return answer.summary, " ".join(" ".join(block.text for block in blocks if block.type == "prose").split())


def test_trained_models_are_compared_in_their_order():
    summary, text = told(TAUGHT)
    assert "at equal training time words cost least, " in " ".join(summary.split())
    assert "does not beat a bigram" not in text
    assert "cost of words is" in text
    assert "cost of byte pairs is" in text
    assert "lower than that of characters" in text


def test_who_does_not_beat_the_bigram_has_no_verdict():
    """The least bits per byte of all, by a model that has learned less than pairs of tokens say."""
    kinds = {**TAUGHT.kinds, "byte pairs": kind("byte pairs", 4.2, 201)}
    f = replace(TAUGHT, kinds=kinds)
    assert f.by_late_cost[0].name == "byte pairs"
    summary, text = told(f)
    least = "at equal training time words cost least of those whose model beats a bigram of its own tokens"
    assert least in " ".join(summary.split())
    assert "the model on byte pairs does not beat a bigram of its own tokens (4.20 against 4.00 nats per token)" in text
    assert "cost of byte pairs is" not in text
    assert "cost of words is" in text


def test_no_trained_model_no_verdict():
    f = found(characters=(4.1, 1_001), byte_pairs=(4.2, 501), words=(4.3, 401))
    summary, text = told(f)
    assert "no model beats a bigram of its own tokens" in " ".join(summary.split())
    assert "cost least." in text
    assert "Whether the model on characters or the model on byte pairs has the lower per-byte cost" in text
