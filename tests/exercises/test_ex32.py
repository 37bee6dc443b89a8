from dataclasses import replace

import pytest
import torch

from tasks.exercises.ex32_watermarking.experiment import EXERCISE, Lab, edited
from tasks.exercises.ex32_watermarking.findings import USUAL
from tests.exercise_context import answered, assert_sound, make_context, measured


@pytest.fixture(scope="module")
def findings():
    return measured(EXERCISE)


def prose(answer, letter):
    part = next(part for part in answer.parts if part.letter == letter)
    return " ".join(" ".join(block.text for block in part.blocks if block.type == "prose").split())


def test_the_answer_is_sound(findings):
    answer = answered(EXERCISE, findings)
    assert_sound(EXERCISE, answer)
    found = [value for name, value in answer.metrics.items() if name.startswith("detection_rate_delta_4")]
    assert max(found) > 0.9
    assert answer.metrics["false_positive_rate_human"] < 0.05


def test_the_score_runs_to_the_detectors(findings):
    """Counted from the colours alone, the score after every token is the detector's of the text up to it."""
    fraction = findings.fraction
    for marked in findings.marked:
        assert "".join(marked.tokens) == marked.text
        assert sum(green is not None for green in marked.green) == marked.text_scored
        assert sum(green is True for green in marked.green) == marked.text_green
        assert marked.running_z[-1] == pytest.approx(marked.text_z, abs=1e-5)
        scored = found = 0
        for green, z in zip(marked.green, marked.running_z, strict=True):
            scored, found = scored + (green is not None), found + (green is True)
            if z is not None:
                spread = (scored * fraction * (1 - fraction)) ** 0.5
                assert z == pytest.approx((found - fraction * scored) / spread, abs=1e-4)


def test_edits_change_the_share_they_should():
    lab = Lab(make_context(EXERCISE), 60, 100, 100, torch.zeros(1, 1))
    tokens = torch.full((200, 100), 59)
    assert abs((edited(lab, tokens, 0.1) != tokens).double().mean() - 0.1 * 59 / 60) < 0.01


def test_the_text_says_which_bias_is_enough(findings):
    missed = replace(findings, marked=tuple(replace(m, rates=(0.0, 0.1, 0.2)) for m in findings.marked))
    assert "No $\\delta$ tried gives a mark that is detected in 95%" in prose(answered(EXERCISE, missed), "d")
    rates = {0.0: (0.0, 0.0, 0.0), USUAL: (0.25, 0.5, 0.96)}
    marked = tuple(replace(m, known=0.5, rates=rates.get(m.delta, (1.0, 1.0, 1.0))) for m in findings.marked)
    text = prose(answered(EXERCISE, replace(findings, marked=marked)), "d")
    assert "characters is 2, and it costs" in text
    assert "the share of known words stays at 50%." in text
    assert "A quarter of the length is enough in 25% of cases." in text


def test_the_text_counts_who_keeps_the_rate(findings):
    good, bad = replace(findings.human, flagged=0.0), replace(findings.human, flagged=0.5)

    def text(human, others):
        marked = tuple(replace(m, right=others, wrong=others) for m in findings.marked)
        changed = replace(findings, human=human, human_wrong=others, marked=marked)
        return prose(answered(EXERCISE, changed), "c")

    assert "nothing to find, all keep the false-positive rate of 0.01 up to" in text(good, good)
    assert "nothing to find, one keeps the false-positive rate" in text(good, bad)
    assert "nothing to find, none keeps the false-positive rate" in text(bad, bad)


def test_a_wide_context_is_called_fragile_only_where_it_is(findings):
    narrow, wide = findings.widths[0], findings.widths[-1]

    def text(share):
        widths = (replace(narrow, detected_edited=0.5), replace(wide, detected_edited=share))
        return prose(answered(EXERCISE, replace(findings, widths=widths)), "c")

    assert "detection at $k = 6$ is 40% instead of the 50% at $k = 1$." in text(0.4)
    assert "detection at $k = 6$ is 50%, no less than the 50% at $k = 1$." in text(0.5)


def test_the_best_width_is_honest_first_and_robust_then(findings):
    """Four widths: the most robust one flags too much under one key, two are honest, the most fragile one as well."""
    shares = {1: (0.9, 0.2), 2: (0.7, 0.0), 3: (0.8, 0.0), 4: (0.1, 0.0)}
    one = findings.widths[0]

    def best(shares):
        widths = tuple(
            replace(one, width=k, detected_edited=kept, flagged=(0.0, worst)) for k, (kept, worst) in shares.items()
        )
        changed = replace(findings, widths=widths)
        return changed.best.width, prose(answered(EXERCISE, changed), "c")

    width, text = best(shares)
    assert width == 3
    assert "k = 2, 3 and 4 keep the false-positive rate" in text
    width, text = best({k: (kept, 0.5 if k != 2 else 0.0) for k, (kept, _) in shares.items()})
    assert width == 2
    assert "it alone keeps the false-positive rate" in text
    width, text = best({k: (kept, 0.5 + k / 10) for k, (kept, _) in shares.items()})
    assert width == 1
    assert "**None of them is honest.**" in text
