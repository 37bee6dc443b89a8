"""21.21: one fine-tuning carries no claim about others, and each failed check has a reason of its own."""

from dataclasses import replace
from pathlib import Path

import pytest

from reports.answers import compose
from reports.types import flattened
from tasks.exercises.ex21_fine_tuning import answer as ex21
from tasks.exercises.ex21_fine_tuning.findings import Findings, Recall, Score, Scores, Split, Training, Written

TEMPLATE = Path(ex21.__file__).with_name("answer.md").read_text(encoding="utf-8")
BEFORE = (2.0, 2.1, 2.2)


def scores(*changes):
    after = tuple(loss + change for loss, change in zip(BEFORE, changes, strict=True))
    return Scores(Score(96, 8.2, 1.0, BEFORE), Score(96, 8.1, 1.0, after))


FALLS, RISES, WAVERS = scores(-0.5, -0.6, -0.5), scores(0.5, 0.6, 0.5), scores(-0.5, 0.4, -0.2)


def findings(domain=FALLS, main=RISES, code=RISES):
    training = Training(3, 5e-5, 4, 32, "fp32", 30, 1000, 60.0, 99.0, (1.0,), (3.0,), (0.0, 10.0), (3.0, 2.9))
    recall = Recall(2, 4, 8, 0, 0, 0.1, 0.1)
    texts = ("and it was", "so it is")
    return Findings(
        model="GPT-2",
        note="",
        train=Split(900, 200, 300, 300, 300),
        held_out=Split(900, 200, 300, 300, 300),
        first_tokens=((1, "In"),),
        training=training,
        scores={"domain": domain, "main corpus": main, "Python source": code},
        written=tuple(Written(p, texts, texts, (0.5, 0.6), (0.6, 0.7)) for p in ("The", "And")),
        recall=dict.fromkeys(("domain", "main corpus", "Python source"), recall),
        own_loss=(3.0, 3.0),
        again=3.0,
        shared=0,
        overlap=0,
        lines=9,
        runs=8,
        shared_runs=0.0,
    )


def composed(f):
    return compose(TEMPLATE, f, ex21.answer(f))


def last(f):
    blocks = flattened(composed(f).parts[3].blocks)
    return " ".join(" ".join(block.text for block in blocks if block.type == "prose").split())


def test_intervals_cover_windows_of_one_fine_tuning():
    said = last(findings())
    assert "All this is of one fine-tuning with one seed: an interval covers the windows of a text" in said
    assert "This answer has 4 intervals of 95%, none corrected for the others" in said
    assert "about 0.2 of them would be expected to exclude zero" in said
    spaceless = tuple(replace(w, before=("道可道",), after=("道可道",)) for w in findings().written)
    assert "This answer has 3 intervals" in last(replace(findings(), written=spaceless))


@pytest.mark.parametrize(
    ("domain", "said"), [(FALLS, "falls from 8.20 to 8.10"), (WAVERS, "moves by no more than noise, from 8.20 to 8.10")]
)
def test_a_perplexity_falls_where_its_interval_excludes_zero(domain, said):
    assert f"On the held-out part of the domain the perplexity {said}" in last(findings(domain=domain))


def test_each_failed_check_has_its_own_reason():
    assert composed(findings()).unexpected == ""
    said = composed(findings(domain=RISES)).unexpected
    assert said.startswith("The loss on the domain itself did not fall: ")
    assert "Python" not in said
    said = composed(findings(code=FALLS)).unexpected
    assert said.startswith("Python was not forgotten. A possible reason, not tested: ")
    assert "Python was not forgotten, though the change may be noise." in composed(findings(code=WAVERS)).unexpected


def test_what_noise_gives_confirms_nothing():
    found = composed(findings(domain=WAVERS, code=scores(0.5, -0.4, 0.2)))
    changes = [check for check in found.checks if "(nats/token, change)" in check.claim]
    assert [(check.measured < 0, check.passed) for check in changes] == [(True, False), (False, False)]
    assert "On the domain itself the loss fell by no more than noise." in found.unexpected
    assert "On Python source the loss rose by no more than noise: that it was forgotten is not shown." in (
        " ".join(found.unexpected.split())
    )
