"""21.19: how many intervals nothing corrects, what is as near to people as the nearest, what is a likely reason."""

from dataclasses import replace
from pathlib import Path

import pytest

from reports.answers import compose
from reports.types import flattened
from tasks.exercises.ex19_repetition_penalty import answer as ex19
from tasks.exercises.ex19_repetition_penalty.findings import (
    ASKED,
    HUMAN,
    STRENGTHS,
    WAYS,
    Accuracy,
    Findings,
    Reading,
    Written,
)

TEMPLATE = Path(ex19.__file__).with_name("answer.md").read_text(encoding="utf-8")
TEXTS = ("and it was so",) * 3


def written(key, alpha, grams=(0.1, 0.12, 0.11), nats=(3.0, 3.1, 3.2)):
    share = (0.5, 0.6, 0.55)
    return Written(key, alpha, TEXTS, TEXTS, {2: share, 3: share, 4: grams}, share, nats, (0.9, 0.8, 0.9))


@pytest.fixture
def findings():
    return Findings(
        model="GPT-2",
        note="",
        prompt_length=4,
        n_new=2,
        written=tuple(written(key, alpha) for key in WAYS for alpha in STRENGTHS),
        human=written(HUMAN, 1.0),
        reading=Reading(((3.0,) * 6,) * len(STRENGTHS), (1.0,) * 6, (True, False) * 3, (2.0,) * 6, (1.5,) * 6),
        accuracy=Accuracy(True, True, 0.0, (1.5, -6.0), True, True, 3.0, 3.0, 0.1, 0.1, 0),
        source="",
    )


def composed(f):
    return compose(TEMPLATE, f, ex19.answer(f))


def told(f, part):
    blocks = flattened(composed(f).parts[part].blocks)
    return " ".join(" ".join(block.text for block in blocks if block.type == "prose").split())


def test_what_is_shown_uncorrected_is_counted_once(findings):
    blocks = [block for part in composed(findings).parts for block in flattened(part.blocks)]
    shown = sum(len(b.rows) for b in blocks if b.type == "table" and "95 % from" in b.columns)
    twice = len(WAYS) * len(ex19.STEPS)  # from no penalty to the first is a step, and against no penalty
    people, reading = len(WAYS) * (len(ASKED) - 1), 1  # said in the text only
    once = shown - twice + people + reading
    assert f"This answer has {once} intervals of 95%" in told(findings, 0)
    assert f"about {0.05 * once:.2g} of them would be expected to exclude zero" in told(findings, 0)


def test_the_closest_strength_has_its_rivals(findings):
    assert "α = 1 by repeated 4-grams (not to be told from any other in this) and" in told(findings, 0)
    far = {"grams": (0.8, 0.82, 0.81), "nats": (1.0, 1.1, 1.3)}
    alone = tuple(
        written(w.key, w.alpha, **({} if w.alpha == 1.2 else {**far, "nats": w.nats} if w.alpha == 1.1 else far))
        for w in findings.written
    )
    said = "for greedy text, α = 1.2 by repeated 4-grams and α = 1.1 by loss (not to be told from α = 1.2 in this)."
    assert said in told(replace(findings, written=alone), 0)


def test_why_drawn_text_repeats_more_was_not_tested(findings):
    more = tuple(written(w.key, w.alpha, grams=(0.8, 0.82, 0.81)) for w in findings.written)
    said = told(replace(findings, written=more), 1)
    assert "A likely reason that drawn text repeats more than people" in said
    assert "shows that" not in said


def test_what_noise_gives_confirms_nothing(findings):
    """Greedy text repeats more than drawn text after two prompts of three."""
    grams = {("greedy", 1.0): (0.3, 0.1, 0.2), ("greedy", 1.2): (0.05, 0.12, 0.05), ("nucleus", 2.0): (0.1, 0.12, 0.11)}
    some = tuple(written(w.key, w.alpha, grams.get((w.key, w.alpha), (0.1, 0.12, 0.11))) for w in findings.written)
    found = composed(replace(findings, written=some))
    first, second = (check for check in found.checks if "4-grams" in check.claim and check.kind == "empirical")
    assert (first.measured > 0, first.passed) == (True, False)
    assert (second.measured > 0, second.passed) == (True, False)
    said = " ".join(found.unexpected.split())
    assert (
        "greedy text repeats more 4-grams than drawn text (Holtzman et al., 2020) is not shown, and not refuted" in said
    )
    sure = tuple(written(w.key, w.alpha, (0.9, 0.92, 0.9)) if w.key == "greedy" else w for w in some)
    first, second = (
        c for c in composed(replace(findings, written=sure)).checks if "4-grams" in c.claim and c.bound[0] == ">"
    )
    assert (first.passed, second.passed) == (True, False)
