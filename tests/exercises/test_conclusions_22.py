"""21.22 says of sizes what its losses carry: corrected after what timing leaves open, and of trained models only."""

from dataclasses import replace

import pytest

from minigpt.evaluation.ngrams import Baselines
from minigpt.evaluation.timing import Timing
from tests.exercise_context import answered
from tests.exercises.test_ex22 import EXERCISE, around, invented, made_of, said


@pytest.mark.parametrize("longer", [1.40, 1.44, 1.46, 1.47, 1.48])
@pytest.mark.parametrize("spread", [0.02, 0.1, 0.2])
def test_no_verdict_outlives_its_correction(longer, spread):
    """Timing widens first, then Holm corrects: p and interval are those of the same uncertainty."""
    for *_, found in made_of(longer=longer, spread=spread).at_equal_time.pairs:
        assert (found.verdict == "noise") == (found.interval[1] >= 0)
        assert (found.verdict == "lower") == (found.interval[1] < 0 and found.p_value <= 0.05)
        if found.interval[1] >= 0:
            assert found.p_value > 0.05, "p of the seeds alone, of an interval that holds zero"


def test_who_has_not_beaten_the_bigram_in_time_has_no_verdict_there():
    """Large does after all of its steps, and not after the few that equal time leaves it."""
    found = made_of()
    large = invented("large", around(1.4, 3), early=around(2.3, 3), second=4.0)
    found = replace(found, runs={**found.runs, "large": large})
    assert not found.untaught
    assert found.at_equal_tokens.decided
    assert found.at_equal_time.untaught == ("large",)
    verdicts = {frozenset(pair[:2]): pair[2].verdict for pair in found.at_equal_time.pairs}
    assert verdicts[frozenset(("small", "large"))] == "untrained"
    assert verdicts[frozenset(("small", "medium"))] == "lower"
    assert "after equal time, large does not beat a bigram: not trained far enough" in answered(EXERCISE, found).summary
    text = said(found, 2)
    assert "second for second this run cannot say: in so little time, large does not beat a bigram." in text
    assert "worth more than large" not in text


def test_two_sizes_that_are_alike_may_both_show_what_size_is_worth():
    found = made_of()
    runs = {
        **found.runs,
        "medium": invented("medium", around(1.5, 3), early=around(1.8, 3)),
        "large": invented("large", (1.495, 1.5, 1.502), early=around(1.9, 3), second=4.0),
    }
    found = replace(found, runs=runs)
    text = said(found, 2)
    assert "Here, token for token, large is lowest but cannot be told from medium;" in text
    assert "Beyond the noise large is below small and medium is below small." in text
    assert "does not show yet" not in text
    assert "what size is worth does not show yet" in said(made_of(large=(1.0, 1.5, 2.0)), 2)


def test_a_rate_that_changes_within_quartiles_stays():
    found = made_of()

    def rates(spread):
        runs = dict(found.runs)
        for name, second in (("small", 1.0), ("medium", 0.9), ("large", 0.8)):
            run = invented(name, around(1.5), early=around(1.9))
            step = Timing(second, second * (1 - spread), second * (1 + spread), 5)
            runs[name] = replace(run, variant=replace(run.variant, step=step))
        return said(replace(found, runs=runs), 4)

    assert "the rate rises (" in rates(0.01)
    assert "the rate stays (" in rates(0.2)


def test_byte_pairs_that_do_not_beat_their_bigrams_are_not_judged():
    found = made_of()
    run = found.runs["small, byte pairs"]
    poor = replace(run, variant=replace(run.variant, baselines=Baselines(5.0, 2.9, 2.8, 3)))
    text = said(replace(found, runs={**found.runs, poor.name: poor}), 2)
    assert "small, byte pairs does not beat a bigram of its own tokens" in text
    assert "want more text" not in text
    assert "does not beat" not in said(found, 2)
    assert "With one seed on a side, that carries no claim." in said(found, 2)


def test_the_branches_that_are_compared_are_told_from_the_row_of_the_table():
    """The table shows what is compared; the small model that writes may have other seeds, or other losses."""
    found = made_of()
    note = (
        "Of small these are branches of its longer training. The small model of (a) and (c) is a training of its own,"
    )
    assert f"{note} of 1 seed: 1.700.)" in said(found, 2)
    other = {**found.runs, "small": invented("small", around(1.75, 3), second=0.25)}
    assert f"{note} of 3 seeds: 1.75" in said(replace(found, runs=other), 2)
    same = {**found.runs, "small": invented("small", around(1.7, 3), second=0.25)}
    assert note not in said(replace(found, runs=same), 2)
