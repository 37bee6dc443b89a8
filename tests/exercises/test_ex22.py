import math
from dataclasses import replace

import pytest
from scipy import stats

from minigpt.config import GPTConfig
from minigpt.evaluation.craft import Source
from minigpt.evaluation.ngrams import Baselines
from minigpt.evaluation.statistics import compare_paired
from minigpt.evaluation.timing import Timing
from reports.types import Prose, flattened
from tasks.exercises.ex22_model_sizes import answer as ex22
from tasks.exercises.ex22_model_sizes.experiment import EXERCISE, LARGE, SIZES, SMALL, count, instantiated_parameters
from tasks.exercises.ex22_model_sizes.findings import Count, Findings, Run
from tasks.recipes.catalogue import LARGE_BPE, MEDIUM_BPE, SMALL_BPE
from tasks.recipes.profiles import PROFILES
from tasks.variants import LearningCurve, Variant
from tests.exercise_context import answered, assert_sound, make_context, measured


@pytest.fixture(scope="module")
def findings():
    return measured(EXERCISE)


@pytest.fixture(scope="module")
def answer(findings):
    return answered(EXERCISE, findings)


@pytest.mark.slow
def test_the_answer_is_sound(answer):
    assert_sound(EXERCISE, answer)


def test_parameters_of_the_small_model_by_hand():
    # 10,000 x 128 and 256 x 128 in the tables, 12 C² + 13 C in each block, a final norm.
    expected = 10_256 * 128 + 2 * (12 * 128**2 + 13 * 128) + 2 * 128
    assert count("small", "10,000 words", 10_000).closed_form == expected == 1_709_568
    assert instantiated_parameters(replace(SMALL.model, vocab_size=10_000)) == expected


@pytest.mark.slow
def test_the_vocabulary_that_would_agree_does(findings):
    for row in ex22.parameters(findings).rows:
        name, claimed, vocab_size = row[0], row[1], row[-2]
        closed = count(name, "", vocab_size).closed_form
        assert abs(closed - claimed) <= SIZES[name].model.d_model


@pytest.mark.slow
def test_time_per_epoch_is_that_of_a_step(answer):
    characters = make_context(EXERCISE).tokens(SMALL, "train").numel() - 1
    metrics = answer.metrics
    for name in ("small", "large", "small_longer"):
        seconds = characters / metrics[f"{name}_tokens_per_second"]
        assert metrics[f"{name}_seconds_per_epoch"] == pytest.approx(seconds)


@pytest.mark.slow
def test_the_lettered_parts_have_samples_of_every_run(findings, answer):
    samples = [block for block in answer.parts[3].blocks if block.type == "sample"]
    assert len(samples) == len(findings.runs)
    assert len({sample.prompt for sample in samples}) == 1


def test_the_book_sizes_are_the_book_s():
    shapes = [(r.model.n_layer, r.model.d_model, r.model.n_head) for r in SIZES.values()]
    assert shapes == [(2, 128, 4), (4, 256, 8), (6, 384, 12)]
    assert isinstance(LARGE.model, GPTConfig)


# --- What is said follows the numbers ---------------------------------------------------------------------------


KNOWN = Source("In the beginning God created the heaven and the earth, and the earth was without form and void.")
TEXTS = ("xx the earth was cremated and the hea", "th and void and the earth zz")
SHARED = Baselines(2.8, 2.2, 1.7, 5)
PAIRS = Baselines(6.0, 4.9, 4.5, 3)  # per byte pair


def invented(name, losses, *, early=(), steps=100, second=1.0, spread=0.0, V=60, per_token=1.0, base=SHARED) -> Run:
    """A run with these final losses, one per seed, and ``early`` of trainings of a quarter of its steps."""
    ends, firsts = ((steps / 4, steps), early) if early else ((steps,), ())
    curves = tuple(
        LearningCurve(
            (0.0, steps / 2, float(steps)),
            (math.log(V), 3.0, loss),
            tuple(float(end) for end in ends),
            (*firsts[i : i + 1], loss),
            seed=i,
        )
        for i, loss in enumerate(losses)
    )
    step = Timing(second, second * (1 - spread), second * (1 + spread), 5)
    return Run(
        name=name,
        variant=Variant(name, name, steps, 1_000, curves, step, 1_000, 50_000, base),
        tokens_per_step=1_000,
        vocab_size=V,
        characters_per_token=per_token,
        flops_per_token=6_000,
        trained_steps=(steps / 2, float(steps)),
        trained_losses=(3.0, losses[0]),
        rescored=losses[0],
        targets=5_000,
        texts=TEXTS,
        craft=KNOWN.judge(TEXTS),
    )


def around(mean, n=3):
    """Seeds of a mean, which vary a little."""
    return tuple(mean + 0.01 * (i - (n - 1) / 2) * (1 + 0.1 * i) for i in range(n))


def made_of(*, large=None, spread=0.0, longer=1.3, seeds=3) -> Findings:
    """After 100 steps small ends at 1.7, medium at 1.5, large at 1.4; in 100 seconds small at 1.3, large at 1.9."""
    runs = (
        invented("small", around(1.7, 1), second=0.25),
        invented("medium", around(1.5, seeds), early=around(1.8, seeds)),
        invented(
            "large", around(1.4, seeds) if large is None else large, early=around(1.9, seeds), second=4.0, spread=spread
        ),
        invented(
            "small, longer",
            around(longer, seeds),
            early=around(1.7, seeds),
            steps=400,
            second=0.25,
            spread=spread,
        ),
        invented("small, byte pairs", around(4.2, 1), V=500, per_token=3.0, base=PAIRS),
    )
    return Findings(
        runs={run.name: run for run in runs},
        missing=("medium, byte pairs", "large, byte pairs"),
        counts=tuple(Count(size, "60 characters", 60, 1_000, 1_000, 16) for size in SIZES)
        + tuple(Count(size, "GPT-2's 50,257", 50_257, 9_000, 9_000, 16) for size in SIZES),
        heldout=KNOWN.judge((KNOWN.text,)),
        epoch=50_000,
        prompts=("In the", "And the"),
        characters=40,
        temperature=0.8,
        device="cpu",
    )


def said(findings: Findings, part: int) -> str:
    blocks = answered(EXERCISE, findings).parts[part].blocks
    return " ".join(" ".join(block.text.split()) for block in blocks if isinstance(block, Prose))


def test_the_order_is_a_conclusion_where_all_intervals_exclude_zero():
    found = made_of()
    assert list(found.at_equal_tokens.losses) == ["large", "medium", "small"]
    assert found.at_equal_tokens.decided
    assert list(found.at_equal_time.losses) == ["small", "medium", "large"]
    assert found.at_equal_time.decided
    text = said(found, 2)
    assert "Here large is lowest token for token, and small second for second" in text
    assert "it reads 16 times as much text as large does" in text
    close = made_of(large=(1.3, 1.6, 1.63))
    assert not close.at_equal_tokens.decided
    assert "None of that is a conclusion" in said(close, 2)


def test_trainings_of_one_seed_are_pairs():
    """What a seed does to all sizes cancels: small is below large by 0.018 and 0.020, where seeds vary by 0.01.

    Medium is below large by 0.017 and 0.021 in the mean as far, but its own two pairs alone cannot show it.
    """
    found = made_of(seeds=2)
    for name, losses in (("medium", (1.7416, 1.7305)), ("large", (1.7586, 1.7510))):
        found.runs[name] = invented(name, losses, early=around(1.9, 2), second=1.0)
    found.runs["small, longer"] = invented(
        "small, longer", around(1.3, 2), early=(1.7405, 1.7315), steps=400, second=0.25
    )
    verdicts = {pair[:2]: pair[2].verdict for pair in found.at_equal_tokens.pairs}
    assert verdicts[("small", "large")] == "lower"
    assert stats.ttest_rel((1.7405, 1.7315), (1.7586, 1.7510)).confidence_interval().high < 0
    assert verdicts[("medium", "large")] == "noise"
    assert stats.ttest_rel((1.7416, 1.7305), (1.7586, 1.7510)).confidence_interval().high > 0
    text = said(found, 2)
    assert "cannot be told from medium" in text
    assert "Beyond the noise small is below large." in text
    assert "trainings of one seed, which read the same batches, are pairs" in text
    rows = {
        row[0]: row
        for block in answered(EXERCISE, found).parts[2].blocks
        if block.type == "table"
        for row in block.rows
        if block.name == "validation"
    }
    assert rows["small"][4:6] == (2, pytest.approx(1.736)), "as many seeds as are compared"
    found.runs["large"] = invented("large", (1.7586, 1.7510, 1.76), early=around(1.9), second=1.0)
    assert not found.in_pairs
    assert {pair[2].paired for pair in found.at_equal_tokens.pairs} == {False}


def test_how_a_loss_is_read_between_two_finished_lengths_is_in_the_interval():
    """A quarter of 100 steps ends at 1.9 and all at 1.4: halfway in steps, or at √(25·100) in their logarithm."""
    found = made_of()
    assert found.reading_error("large", 25.0) == found.reading_error("large", 100.0) == 0.0
    straight, logarithmic = 1.9 - 0.5 * 25 / 75, 1.65
    assert found.reading_error("large", 50.0) == pytest.approx(straight - logarithmic)
    twice = invented("large", around(1.4), early=around(1.9), second=2.0)  # 50 steps in small's hundred seconds
    found.runs["large"] = twice
    assert found.at_equal_time.steps["large"] == 50.0
    pairs = {pair[:2]: pair[2] for pair in found.at_equal_time.pairs}
    exact = compare_paired(twice.variant.finished_after(50.0), found.at_equal_time.losses["small"])
    half = pairs["small", "large"].interval[1] - pairs["small", "large"].difference
    assert half == pytest.approx(straight - logarithmic), "the seeds of both vary alike"
    assert pairs["small", "large"].difference == pytest.approx(exact.difference)
    with pytest.raises(ValueError, match="large has finished no training as short as 10 steps"):
        found.reading_error("large", 10.0)


def test_what_is_open_besides_the_seeds_is_in_the_pairs_own_interval_too():
    """Small is 0.018 and 0.020 below large: that may be off by 0.009 by its two pairs alone, and 0.012 by the time."""
    losses = {"small": (1.7405, 1.7315), "large": (1.7586, 1.7510), "medium": (1.7416, 1.7325)}
    found = made_of(seeds=2)
    alone = compare_paired(losses["large"], losses["small"])
    for error, verdict in ((0.0, "lower"), (0.012, "noise")):
        judged = found._compared(losses, "large", "small", error)
        assert judged.verdict == verdict
        assert (alone.interval[1] + error < 0) == (verdict == "lower")


def test_a_size_that_has_learned_nothing_does_not_say_how_far_the_others_scatter():
    wild = invented("large", around(1.4), early=(2.3, 2.9, 2.6), second=4.0)
    found, calm = made_of(), made_of()
    found.runs["large"] = wild
    assert found.at_equal_time.untaught == ("large",)
    assert "In the time of the shortest training large does not beat a bigram" in str(answered(EXERCISE, found))
    assert "In the time of the shortest training" not in str(answered(EXERCISE, calm))
    between = [{p[:2]: p[2] for p in f.at_equal_time.pairs}["small", "medium"] for f in (found, calm)]
    assert between[0].verdict == "lower"
    losses = found.at_equal_time.losses
    ours = compare_paired(losses["medium"], losses["small"])
    assert between[0].interval == pytest.approx(ours.interval), "of two groups, blocks are pairs"


def test_one_seed_decides_nothing():
    found = made_of(seeds=1)
    assert {pair[2].verdict for pair in found.at_equal_tokens.pairs} == {"one seed"}
    assert not found.at_equal_tokens.decided
    assert any("One seed per model" in note for note in answered(EXERCISE, found).notes)


def test_one_that_does_not_beat_the_bigram_has_no_verdict():
    found = made_of(large=(2.3, 2.31, 2.32))
    verdicts = {frozenset(pair[:2]): pair[2].verdict for pair in found.at_equal_tokens.pairs}
    assert verdicts[frozenset(("large", "small"))] == verdicts[frozenset(("large", "medium"))] == "untrained"
    assert not found.at_equal_tokens.decided
    assert "not trained far enough" in answered(EXERCISE, found).summary
    assert "This run cannot say: large does not beat a bigram" in said(found, 2)


def test_equal_time_is_read_off_finished_trainings_alone():
    """Large takes 400 seconds; a training of a quarter of its steps was finished in small's hundred."""
    found = made_of()
    assert found.budget == pytest.approx(100.0)
    assert found.at_equal_time.steps == pytest.approx({"small": 400.0, "medium": 100.0, "large": 25.0})
    assert found.at_equal_time.losses["large"] == pytest.approx(around(1.9))
    run = invented("large", around(1.4), second=4.0)  # none so short
    lost = replace(found, runs={**found.runs, "large": run})
    assert lost.at_equal_time is None
    assert lost.none_so_short == ["large"]
    assert "*Equal time* cannot be compared: in 100.0 seconds, the time of the shortest" in said(lost, 2)
    assert "of the three trainings, large has finished none." in said(lost, 2)
    assert "equal time was not measured" in answered(EXERCISE, lost).summary


def test_what_timing_leaves_open_is_in_the_interval():
    sure, unsure = (made_of(longer=1.47, spread=spread) for spread in (0.0, 0.5))
    assert sure.at_equal_time.decided
    assert not unsure.at_equal_time.decided, "half a step more or less is worth more than 0.03 nats"
    assert unsure.timing_error("small") == pytest.approx(0.23 / math.log(4) * math.log(3) / 2)
    assert sure.timing_error("small") == 0.0


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ((47, 71, 63), "the rate rises and then falls (47, 71 and 63 GFLOP/s): both effects show"),
        ((40, 50, 60), "the rate rises (40, 50 and 60 GFLOP/s), so that the first"),
        ((40, 50, 51), "the rate rises and then stays (40, 50 and 51 GFLOP/s), so that the first"),
        ((60, 50, 40), "the rate falls (60, 50 and 40 GFLOP/s), so that the second"),
        ((60, 50, 60), "the rate falls and then rises (60, 50 and 60 GFLOP/s), as neither"),
        ((50, 51, 50), "the rate stays (50, 51 and 50 GFLOP/s): the two effects cancel"),
    ],
)
def test_what_is_said_of_the_rate_is_what_the_table_shows(rates, words):
    found = made_of()
    runs = dict(found.runs)
    for name, rate in zip(SIZES, rates, strict=True):
        second = 6_000 * 1_000 / (rate * 1e9)
        runs[name] = invented(name, around(1.5), early=around(1.9), second=second)
    assert words in said(replace(found, runs=runs), 4)


@pytest.mark.slow
def test_runs_on_byte_pairs_are_compared_per_character_and_those_that_are_missing_named(findings, answer):
    run = findings.runs["small, byte pairs"]
    assert run.characters_per_token > 1.5
    assert run.losses[0] == pytest.approx(run.variant.losses[0] / run.characters_per_token)
    assert findings.missing == ("medium, byte pairs", "large, byte pairs")
    assert any("has not trained: medium and large" in note for note in answer.notes)


def test_the_book_s_sizes_are_trained_with_gpt2s_vocabulary_where_there_is_a_gpu():
    gpu, laptop = PROFILES["gpu"], PROFILES["laptop"]
    built = [count(r.group.removesuffix("-bpe"), "", 50_257).closed_form for r in (SMALL_BPE, MEDIUM_BPE, LARGE_BPE)]
    assert [round(n / 1e6, 1) for n in built] == [6.9, 16.1, 30.0]
    for recipe in (SMALL_BPE, MEDIUM_BPE, LARGE_BPE):
        assert gpu.resolve(recipe).tokenizer == "bpe"
        assert gpu.resolve(recipe).model.context == 256
        assert len(gpu.seeds(recipe)) == 3
        assert laptop.resolve(recipe).tokenizer == "bpe-2k"
    assert laptop.seeds(SMALL_BPE)


def test_byte_pairs_stand_beside_the_run_of_as_many_passes():
    """Three characters a token: 100 steps are six passes; of small's trainings one has eight, the other two."""
    text = said(made_of(), 2)
    assert "small pays 1.400 nats on byte pairs and 1.301 nats on characters, after 6 and 8 epochs" in text
    assert "byte pairs want more text" in text


def test_byte_pairs_that_were_learned_by_heart_are_told_from_those_that_were_not_learned():
    """A bigram of them costs 4.9: one training ends above it from above, the other after 4.5 on its way."""
    for middle, told in ((5.5, False), (4.5, True)):
        found = made_of()
        run = invented("small, byte pairs", (5.2,), V=500, per_token=3.0, base=PAIRS)
        curve = replace(run.variant.curves[0], losses=(6.2, middle, 5.2))
        found.runs[run.name] = replace(run, variant=replace(run.variant, curves=(curve,)))
        text = said(found, 2)
        assert ("says nothing of byte pairs yet" in text) != told
        heart = (
            "after 50 steps small, byte pairs was below a bigram of its own tokens (4.500 against 4.900 nats per token)"
        )
        assert (heart in text) == told


def test_texts_that_are_alike_are_called_so_and_the_examples_are_theirs():
    text = said(made_of(), 3)
    assert "Here all spell alike, with 92% known words where held-out text has 100%" in text
    assert "Of words that neither the training text nor GPT-2's vocabulary has whole, small writes `cremated`" in text
    assert "longest faultless stretch of large is `the earth was`" in text


def test_a_text_without_words_has_no_spelling():
    found = made_of()
    texts = ("abba" * 10, "baab" * 10)
    runs = {name: replace(run, texts=texts, craft=KNOWN.judge(texts)) for name, run in found.runs.items()}
    answer = answered(EXERCISE, replace(found, runs=runs))
    said = " ".join(" ".join(b.text for b in flattened(answer.parts[3].blocks) if b.type == "prose").split())
    assert "spelling and word pairs do not apply to this text: no model writes a whole word" in said
    assert "*Spelling.*" not in said
    assert "*Sense.*" not in said
    assert "*Repetition and copying.*" in said


def test_a_lead_inside_the_noise_is_not_called_the_lowest_loss():
    """Large is lowest by 0.2 nats, of seeds that vary by more; that hides which of it and medium is better."""
    close = made_of(large=(1.2, 1.3, 1.4))
    assert close.at_equal_tokens.best == "large"
    assert "which cannot be told from medium;" in answered(EXERCISE, close).summary
    assert "Here, token for token, large is lowest but cannot be told from medium;" in said(close, 2)
    assert "cannot be told from" not in answered(EXERCISE, made_of()).summary


def test_a_lead_in_time_inside_the_noise_has_no_reason():
    """Large is lowest token for token beyond the noise; in time small leads by less than the timing leaves open."""
    close = made_of(longer=1.47, spread=0.5)
    assert close.at_equal_tokens.decided
    assert close.at_equal_time.rivals
    text = said(close, 2)
    assert "Here large is lowest token for token; second for second, small is lowest but cannot be told from" in text
    assert "worth more than large" not in text
