"""21.10: a reason for what failed, no verdict of models that learned nothing, and no best way inside the noise."""

from dataclasses import replace

import pytest

from minigpt.evaluation.ngrams import Baselines
from reports.answers import compose
from tasks.exercises.ex10_causal_bidirectional.answer import FEATURES, answer
from tasks.exercises.ex10_causal_bidirectional.findings import TASKS, Findings, Gap, Model
from tests.exercises.test_conclusions import EXERCISES

LOW, SAME, HIGH = (0.60, 0.61, 0.62), (0.61, 0.60, 0.62), (0.80, 0.811, 0.819)
WAYS = ("masked, both sides", "causal, left side only", "causal, scoring")


def made(masked=HIGH, gaps=((1.5, 1.51, 1.52), (1.9, 1.91, 1.93), (1.2, 1.21, 1.23)), bigram=3.0, causal=2.0):
    """Findings with these accuracies of the masked model's probes and losses of the ways to fill a gap."""
    features = dict.fromkeys((*FEATURES, "half, read once", "half, masked"), LOW)
    features |= {"masked, mean": masked, "half, read twice": HIGH, "causal large, mean": LOW[:1]}
    features = {name: values[: len(masked)] for name, values in features.items()}
    return Findings(
        causal=Model("small", 1000, 10, (causal,) * 3),
        masked=Model("small", 1000, 10, (causal,) * 3),
        larger={"large": Model("large", 2000, 10, (causal + 1,))},
        baselines=Baselines(unigram=4.0, bigram=bigram, ngram=2.8, n=5),
        vocab_size=30,
        length=32,
        masking_rate=0.15,
        accuracy=dict.fromkeys(TASKS, features),
        gaps={way: Gap(LOW, nats) for way, nats in zip(WAYS, gaps, strict=True)},
        next={"causal": (1.0, 1.01, 1.02), "masked": (0.5, 0.511, 0.519)},  # so that one check always fails
        written=(),
        leaks=(0, 31),
        scoring_error=0.0,
        moved=dict.fromkeys(TASKS, 0.0),
        corrupted=dict.fromkeys(TASKS, 0.9),
    )


def answered(f):
    return compose((EXERCISES / "ex10_causal_bidirectional" / "answer.md").read_text(encoding="utf-8"), f, answer(f))


def part(f, index):
    return " ".join(" ".join(b.text for b in answered(f).parts[index].blocks if b.type == "prose").split())


@pytest.mark.parametrize(
    ("masked", "expected"),
    [
        (HIGH, ""),
        ((0.40, 0.411, 0.419), "A likely reason for the probes: in equal steps"),
        (
            (0.60, 0.62, 0.60),
            "on spelling and word order is not shown, and not refuted either: the two models differ there by no more",
        ),
        ((0.5,), "One seed cannot confirm or refute"),
    ],
)
def test_the_reason_is_that_of_the_check_that_failed(masked, expected):
    found = answered(made(masked))
    assert [c.claim for c in found.checks if not c.passed and c.kind == "empirical"]
    assert expected in " ".join(found.unexpected.split())
    assert bool(found.unexpected) == bool(expected)
    assert ("the fewer targets" in found.unexpected) == expected.startswith("A likely")


@pytest.mark.parametrize(
    "untrained", [{"causal": 3.5}, {"gaps": ((3.5, 3.6, 3.7), (1.9, 1.91, 1.93), (1.2, 1.3, 1.2))}]
)
def test_readers_that_do_not_beat_the_bigram_get_no_verdict(untrained):
    found = made(**untrained)
    assert "neither can be called the better reader" in part(found, 1)
    assert "bidirectional model is the better reader" not in part(found, 1)
    assert "On both tasks the bidirectional model is the better reader" in part(made(), 1)
    assert "other windows would give is not in them" in part(found, 1)
    text = part(found, 2)
    assert ("Whether two readings or one has the lower accuracy cannot be said" in text) == ("causal" in untrained)
    cannot = "Whether the causal model that scores candidates or the masked model has the lower loss cannot be said"
    assert (cannot in text) == ("gaps" in untrained)
    worse = replace(made((0.4, 0.41, 0.42)), **{k: v for k, v in vars(found).items() if k in ("causal", "gaps")})
    assert "not put to the test" in answered(worse).unexpected


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        (((1.5, 1.51, 1.52), (1.9, 1.91, 1.93), (1.2, 1.21, 1.23)), "The best way to fill a gap: causal, scoring."),
        (((1.2, 1.3, 1.25), (1.9, 1.91, 1.93), (1.22, 1.2, 1.24)), "which cannot be told from “masked, both sides”."),
        (((1.5,), (1.9,), (1.2,)), "Lowest loss in filling a gap, with one seed: causal, scoring."),
        (((3.5, 3.6), (3.9, 3.8), (3.2, 3.3)), "No way to fill a gap beats the bigram."),
    ],
)
def test_the_best_way_is_best_beyond_noise(gaps, expected):
    summary = answered(made(gaps=gaps)).summary
    assert expected in summary
    assert ("The best way" in summary) == expected.startswith("The best way")


def test_what_noise_gives_confirms_nothing():
    found = answered(made((0.60, 0.62, 0.625)))
    probes = [check for check in found.checks if "probe accuracy of the masked model" in check.claim]
    assert [(check.measured > 0, check.passed) for check in probes] == [(True, False)] * len(TASKS)
    assert "the two models differ there by no more than noise" in " ".join(found.unexpected.split())
    gap = answered(made(gaps=((1.5, 1.51, 1.52), (1.3, 1.2, 1.25), (1.2, 1.3, 1.2)))).checks[-1]
    assert gap.measured < 0
    assert not gap.passed
