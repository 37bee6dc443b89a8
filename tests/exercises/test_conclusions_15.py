"""21.15: a check that failed has its own reason, and overfitting is of one seed."""

from types import SimpleNamespace as Any

import pytest

from tests.exercises.test_conclusions import said

REASONS = ("equal logits", "of bigrams", "learn its text by heart", "may be chance")


@pytest.mark.parametrize(
    ("start", "end", "words", "reason"),
    [
        (4.1, 1.5, 0.6, None),
        (4.9, 1.5, 0.6, REASONS[0]),
        (4.1, 2.3, 0.6, REASONS[1]),
        (4.1, 1.9, 0.6, REASONS[2]),
        (4.1, 1.5, 0.4, REASONS[3]),
    ],
)
def test_each_failed_check_has_its_own_reason(start, end, words, reason):
    last = Any(nats=end, real_words=words)
    early = Any(nats=1.8 if reason != REASONS[1] else 2.5, real_words=0.5)
    text = said(
        "ex15_mini_gpt_training",
        "{% if abs(first.nats - base.uniform) > near %}",
        "may be chance.\n{% endif %}",
        near=0.3,
        first=Any(nats=start),
        last=last,
        base=Any(uniform=4.0, bigram=2.2),
        f=Any(epochs=(Any(nats=start), early, last), setting=Any(vocab_size=60)),
    )
    assert [one for one in REASONS if one in text] == ([reason] if reason else [])


def test_overfitting_is_of_one_training():
    text = said(
        "ex15_mini_gpt_training",
        "{% if f.rise > max(0.005, f.wobble) %}",
        "{% endif %}",
        f=Any(rise=0.1, wobble=0.0, gap=0.3, best=Any(number=2.0, nats=1.4)),
    )
    assert "in this training, of one seed, overfitting has begun" in text
