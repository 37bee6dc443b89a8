from dataclasses import replace

import pytest
import torch
from scipy import stats

from minigpt.evaluation.ngrams import Baselines
from minigpt.evaluation.statistics import compare, compare_blocks, compare_paired, holm
from minigpt.evaluation.timing import Timing
from minigpt.model import GPT
from tasks.comparison import curves, sentences, table
from tasks.exercise import TrainedModel
from tasks.recipes.catalogue import STUDY_MQA_WIDE, STUDY_ROPE
from tasks.recipes.profiles import PROFILES
from tasks.study import variant as of_models
from tasks.variants import (
    Variant,
    at_equal_time,
    comparisons,
    comparisons_at_equal_time,
    contrast,
    metrics,
)

BASELINES = Baselines(unigram=3.5, bigram=3.0, ngram=1.8, n=5)


def variant(
    label: str, finals: list[float], step_seconds: float, *, vary: float = 0.1, seeds: tuple[int, ...] = (0, 1, 2)
) -> Variant:
    """Losses that fall in a straight line from 4 at step 0 to their last value at step 100.

    Half way a training was branched off, which ended 0.4 higher than the whole one: lower than the trunk there.
    """
    recipe = replace(STUDY_ROPE, name=label, train=replace(STUDY_ROPE.train, steps=100))
    model = GPT(replace(STUDY_ROPE.model, vocab_size=5))
    models = tuple(
        TrainedModel(
            recipe=recipe.with_seed(seed),
            model=model,
            tokenizer=None,  # type: ignore[arg-type]
            history={},
            evaluations={"step": [0, 50, 100], "validation_loss": [4.0, (4.0 + final) / 2, final]},
            finished={"step": [50, 100], "validation_loss": [final + 0.4, final]},
            seconds=1.0,
            tokens_per_second=1.0,
            train_tokens=recipe.train.batch_size * recipe.model.context * 50,
            baselines=BASELINES,
            snapshot_steps=(),
            load_snapshot=lambda _: model,
        )
        for seed, final in zip(seeds, finals, strict=False)
    )
    return of_models(label, models, Timing(step_seconds, step_seconds * (1 - vary), step_seconds * (1 + vary), 7))


PARAMETERS = sum(w.numel() for w in GPT(replace(STUDY_ROPE.model, vocab_size=5)).parameters())
BASE = variant("base", [2.0, 2.01, 1.99], 0.1, vary=0.0)
SLOW = variant("slow", [1.9, 1.911, 1.89], 0.2, vary=0.0)


def test_equal_time_is_where_the_first_one_ends_and_reads_finished_trainings_only():
    base, slow = at_equal_time([BASE, SLOW])
    assert base == (2.0, 2.01, 1.99)
    assert slow == pytest.approx((2.3, 2.311, 2.29))  # half its steps, not half the way down the trunk
    assert SLOW.losses_after(50) == pytest.approx((2.95, 2.9555, 2.945))
    middle = variant("middle", [2.0], 2**0.5 * 0.1)
    assert at_equal_time([BASE, middle])[1] == pytest.approx((2.2,))  # straight in the logarithm of the steps
    assert at_equal_time([BASE, variant("slower", [2.0], 0.21)])[1] is None  # no training so short was finished


def test_pairs_where_seeds_are_shared():
    found = contrast(BASE, SLOW)
    pairs = compare_paired(BASE.losses, SLOW.losses)
    assert found.interval == pytest.approx(pairs.interval)
    assert found.paired
    expected = stats.ttest_rel(SLOW.losses, BASE.losses)
    assert found.p_value == pytest.approx(expected.pvalue)
    others = variant("others", [1.9, 1.911, 1.89], 0.2, seeds=(3, 4, 5))
    assert contrast(BASE, others) == compare(BASE.losses, others.losses)
    assert contrast(BASE, variant("one", [1.0], 0.1)).verdict == "one seed"


def test_several_comparisons_share_their_scatter_and_are_corrected_for_their_number():
    rows = [BASE, variant("barely", [1.97, 1.985, 1.965], 0.1), SLOW, variant("same", [2.0, 2.02, 1.985], 0.1)]
    found = comparisons(rows)
    assert found == holm(compare_blocks([row.losses for row in rows]))
    assert {one.freedom for one in found} == {6}
    assert {one.among for one in found} == {3}
    # One without a verdict of its own neither counts among them nor adds to the scatter.
    lost, single = variant("lost", [2.9, 3.1, 2.0], 0.1), variant("single", [1.0], 0.1)
    with_others = comparisons([*rows, lost, single])
    assert with_others[:3] == found
    assert [one.verdict for one in with_others[3:]] == ["untrained", "one seed"]


def test_the_error_of_the_step_times_is_in_the_interval():
    exact = comparisons_at_equal_time([BASE, variant("other", [1.9, 1.911, 1.89], 0.12, vary=0.0)])[0]
    vague = comparisons_at_equal_time([BASE, variant("other", [1.9, 1.911, 1.89], 0.12, vary=0.2)])[0]
    assert exact.verdict == "higher"  # 0.4 · log2(1.2) = 0.105 later, and 0.1 lower at its end
    assert vague.difference == exact.difference
    assert vague.interval[0] < exact.interval[0] < exact.interval[1] < vague.interval[1]
    assert vague.verdict == "noise"
    assert vague.p_value > 0.05


def test_of_equals_the_quicker_is_not_known_and_nothing_is_claimed():
    twin = variant("twin", [2.0, 2.011, 1.99], 0.101, vary=0.1)
    found = comparisons_at_equal_time([BASE, twin])[0]
    assert found.verdict == "noise"
    assert found.interval[0] < -0.02 < 0.02 < found.interval[1]  # 10 % of time is 0.4 · log2(1.1) = 0.055 nats


def test_who_has_not_beaten_the_bigram_gets_no_verdict():
    lost = variant("lost", [2.9, 3.1, 2.8], 0.1)
    assert not lost.beats_bigram
    assert comparisons([BASE, lost])[0].verdict == "untrained"
    assert comparisons_at_equal_time([lost, BASE])[0].verdict == "untrained"
    assert table([BASE, lost], name="trained").rows[1][5] == "not trained far enough to say"
    assert sentences([BASE, lost]).startswith(
        "Not trained far enough to say: lost has not beaten the bigram (3.000 nats)"
    )
    both = sentences([lost, lost, BASE])
    assert "lost and lost have not beaten" in both
    assert "ended" not in both, "nothing is compared with a baseline that has no opinion"


@pytest.mark.parametrize("bigram", [2.2, 1.995, 2.35, 3.0])
def test_at_equal_time_the_losses_compared_are_those_that_must_beat_the_bigram(bigram):
    """Slow ends at 1.9, but at 2.3 in the time that base takes to end at 2.0."""
    rows = [replace(row, baselines=replace(row.baselines, bigram=bigram)) for row in (BASE, SLOW)]
    late = comparisons_at_equal_time(rows)[0]
    assert late.verdict == ("higher" if bigram > 2.32 else "untrained")
    if bigram == 2.2:
        assert comparisons(rows)[0].verdict == "lower"
        said = sentences(rows)
        assert "slow ended 0.100 nats lower" in said
        assert "At equal time: Not trained far enough to say of slow: so short a training has not beaten" in said
        assert table(rows, name="trained").rows[1][9] == "not trained far enough to say"


def test_a_baseline_that_has_not_beaten_the_bigram_at_equal_time_turns_no_verdict():
    rows = [replace(row, baselines=replace(row.baselines, bigram=2.2)) for row in (SLOW, BASE)]
    assert comparisons(rows)[0].verdict == "higher"
    said = sentences(rows)
    assert "At equal time: not trained far enough to say; so short a training of slow has not beaten the" in said
    assert said.count("ended") == 1


def test_the_table_says_what_the_data_say():
    rows = table([BASE, SLOW], name="trained").rows
    assert rows[0][5] == "baseline"
    assert rows[1][2] == pytest.approx(1.9003, abs=1e-4)
    assert rows[1][4] == pytest.approx(-0.0997, abs=1e-4)
    assert rows[1][5] == "lower"
    assert rows[1][6] == pytest.approx(200.0)
    assert rows[1][9] == "higher"
    assert [row[:3] for row in rows[2:]] == [("unigram", None, 3.5), ("bigram", None, 3.0), ("5-gram", None, 1.8)]
    single = table([variant("base", [2.0], 0.1), variant("other", [1.0], 0.1)], name="trained").rows
    assert single[1][3] is None
    assert single[1][5] == "open: there is one seed"
    assert "2.0 epochs" in table([BASE], name="trained").caption


def test_the_table_says_where_counting_is_ahead_of_all():
    said = "No row beats the 5-gram: verdicts are those of an early stage of learning."
    assert table([BASE, SLOW], name="trained").caption.endswith(said)
    assert said not in table([BASE, variant("better", [1.7, 1.8, 1.7], 0.1)], name="trained").caption


def test_sentences_tell_when_time_turns_the_verdict():
    said = sentences([BASE, SLOW])
    assert "Against base, slow ended 0.100 nats lower (95% interval −0.1" in said
    assert "At equal time: Against base, slow ended 0.300 nats higher" in said
    better = sentences([BASE, variant("better", [1.5, 1.511, 1.49], 0.1)])
    assert better.endswith("At equal time the verdicts are the same.")
    slower = sentences([BASE, variant("slower", [1.5, 1.511, 1.49], 0.21)])
    assert "Slower has finished no training as short as that of base." in slower


def test_sentences_group_what_is_alike():
    noisy = [variant(name, [2.0, 1.9, 2.2], 0.1) for name in ("x", "y")]
    said = sentences([BASE, *noisy, variant("z", [2.7], 0.1)])
    assert said.count("cannot be told from base") == 1
    assert "X and y cannot be told from base: 0.033 nats apart, inside the noise of 3 seeds." in said
    assert "Z has one seed, which carries no claim: +0.700 nats against base, whose seeds vary by 0.010 nats." in said
    said = sentences([BASE, variant("y", [1.9], 0.1), variant("z", [2.7], 0.1)])
    assert said.count("carries no claim") == 1
    assert "Y and z have one seed each, which carries no claim: −0.100 and +0.700 nats against base, whose" in said


def test_a_row_whose_own_pairs_would_decide_is_named():
    """Three differences of about 0.02, lost in the scatter of a third row, whose seeds vary by 0.06."""
    close, wild = variant("close", [2.0226, 2.0318, 2.0087], 0.1), variant("wild", [2.3, 2.4, 2.25], 0.1)
    assert stats.ttest_rel(close.losses, BASE.losses).pvalue < 0.05
    assert comparisons([BASE, close, wild])[0].verdict == "noise"
    said = sentences([BASE, close, wild])
    assert "Close cannot be told from base" in said
    assert "By its own pairs alone close would be higher, by 0.021 nats (95% interval" in said
    assert "it is the scatter of all rows that leaves this open" in said
    assert "own pairs" not in sentences([BASE, close])
    assert "own pairs" not in sentences([BASE, variant("equal", [2.0, 1.99, 2.01], 0.1), wild])


def test_noise_at_equal_time_is_that_of_the_step_times_too():
    """Lower at equal steps; the quartiles of the step times leave more open than that."""
    said = sentences([BASE, variant("loose", [1.9, 1.911, 1.89], 0.1, vary=0.5)])
    assert "loose ended 0.100 nats lower" in said
    late = said.partition("At equal time: ")[2]
    assert late.startswith("Loose cannot be told from base: ")
    assert late.endswith("inside the noise of 3 seeds and of the step times.")


def test_curves_and_metrics():
    series = curves([BASE, SLOW]).series
    assert series[1].x == (50.0, 100.0)
    assert series[1].y == pytest.approx((2.95, 1.9), abs=1e-3)
    assert series[1].error[1] == pytest.approx(0.0105, abs=1e-3)
    assert [(one.name, one.x, one.y) for one in series[2:]] == [
        ("bigram", (50.0, 100.0), (3.0, 3.0)),
        ("5-gram", (50.0, 100.0), (1.8, 1.8)),
    ]
    found = metrics([BASE, SLOW])
    assert found["validation_loss_nats_slow_equal_time"] == pytest.approx(2.3, abs=1e-3)
    assert found["step_ms_slow"] == pytest.approx(200.0)
    assert found["parameters_base"] == PARAMETERS
    assert found["epochs_slow"] == 2.0
    assert (found["bigram_nats"], found["ngram_n"]) == (3.0, 5)
    assert "validation_loss_nats_slower_equal_time" not in metrics([BASE, variant("slower", [2.0], 0.21)])


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_wider_multi_query_attention_has_the_parameters_of_multi_head_attention(profile):
    with torch.device("meta"):
        wide, whole = (
            sum(w.numel() for w in GPT(replace(profile.resolve(recipe).model, vocab_size=70)).parameters())
            for recipe in (STUDY_MQA_WIDE, STUDY_ROPE)
        )
    assert abs(wide - whole) / whole < 0.005
