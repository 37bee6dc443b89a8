import itertools
import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from minigpt.config import GPTConfig
from minigpt.evaluation.extrapolation import losses_by_bucket, readings
from minigpt.evaluation.ngrams import ngram_losses
from minigpt.model import GPT
from reports.types import flattened
from tasks.exercises.ex25_rotary_positions import rotation
from tasks.exercises.ex25_rotary_positions.experiment import EXERCISE
from tasks.exercises.ex25_rotary_positions.findings import Extrapolation, escape
from tasks.recipes.catalogue import POSITIONS_ROPE
from tests.exercise_context import answered, assert_sound, make_context, measured
from tests.exercises.formulas import assert_formulas


@pytest.fixture(scope="module")
def findings():
    return measured(EXERCISE)


def prose(answer, part):
    """The sentences of a part on one line."""
    texts = (block.text for block in flattened(answer.parts[part].blocks) if block.type == "prose")
    return " ".join(" ".join(texts).split())


def test_the_answer_is_sound(findings):
    answer = answered(EXERCISE, findings)
    assert_sound(EXERCISE, answer)
    assert_formulas(answer)
    assert "learned embedding" in next(b.text for b in answer.parts[3].blocks if b.type == "code")


def half_speed(positions, head_dim, base=10_000.0):
    return ORIGINAL(positions / 2, head_dim, base)


ORIGINAL = rotation.rope_tables


def test_the_checks_notice_a_rotation_at_another_speed(monkeypatch):
    monkeypatch.setattr(rotation, "rope_tables", half_speed)
    assert rotation.difference_from_matrix(20, torch.Generator().manual_seed(0)) > 0.1
    assert rotation.difference_from_llama(20, torch.Generator().manual_seed(0)) > 0.1


def test_buckets_are_means_of_the_right_positions():
    model = GPT(GPTConfig(n_layer=1, n_head=1, d_model=8, context=8, vocab_size=5, position="rope")).eval()
    tokens = torch.randint(5, (70,), generator=torch.Generator().manual_seed(0))
    found = losses_by_bucket(model, tokens, 32, 4)
    with torch.inference_mode():
        expected = [
            torch.nn.functional.cross_entropy(
                model(tokens[None, s : s + 32])[0], tokens[s + 1 : s + 33], reduction="none"
            )
            for s in (0, 32)
        ]
    assert found == pytest.approx(torch.stack(expected).mean(0).view(8, 4).mean(1).tolist(), abs=1e-5)


def test_the_interpolated_reading_stays_in_the_trained_range():
    model = GPT(GPTConfig(n_layer=1, n_head=1, d_model=8, context=16, vocab_size=5, position="rope")).eval()
    ways = readings(model, 64)
    assert ways["RoPE, positions interpolated"].config.rope_scale == 4.0
    for way in ways.values():
        assert all(torch.equal(a, b) for a, b in zip(way.parameters(), model.parameters(), strict=True))
    # The NTK-aware base turns the fastest pair as before and the slowest as interpolation does.
    base = ways["RoPE, NTK-aware base"].config.rope_base
    assert base ** (-6 / 8) == pytest.approx(10_000.0 ** (-6 / 8) / 4.0)


def test_a_restarted_model_scores_the_same_targets_bucket_by_bucket():
    torch.manual_seed(0)
    config = GPTConfig(n_layer=1, n_head=1, d_model=8, context=8, vocab_size=5)  # learned: 8 positions, no more
    model = GPT(config).eval()
    tokens = torch.randint(5, (70,), generator=torch.Generator().manual_seed(0))
    found = losses_by_bucket(model, tokens, 32, 4, restart=8)
    nll = []
    for start in range(0, 64, 8):
        with torch.inference_mode():
            logits = model(tokens[None, start : start + 8])[0]
        nll.append(torch.nn.functional.cross_entropy(logits, tokens[start + 1 : start + 9], reduction="none"))
    assert found == pytest.approx(torch.cat(nll).view(2, 8, 4).mean((0, 2)).tolist(), abs=1e-5)
    with pytest.raises(ValueError, match="windows of 32"):
        losses_by_bucket(model, tokens, 32, 4, restart=5)


def reading(*losses: float) -> tuple[tuple[float, ...], ...]:
    return losses, losses


def test_good_until_the_first_bucket_that_costs_too_much(findings):
    found = Extrapolation(
        bucket=8,
        context=16,
        length=40,
        losses={
            "RoPE, restarted": reading(1.5, 1.5, 1.5, 1.5, 1.5),
            "RoPE": reading(1.5, 1.4, 1.52, 1.7, 1.5),
            "RoPE, positions interpolated": reading(3.0, 2.9, 2.8, 2.7, 2.6),
            "RoPE, window of the training length": reading(1.5, 1.4, 1.4, 1.4, 1.4),
        },
        refusal="no",
    )
    assert [found.good_until(label) for label in found.losses] == [40, 24, 0, 40]
    said = prose(answered(EXERCISE, replace(findings, extrapolation=found)), 3)
    assert "up to position 24 (“positions interpolated” 0, “window of the training length” 40;" in said
    assert "“window of the training length” has the lowest loss at the end, 1.40 nats" in said
    assert "+1.50 nats" in said
    # Beyond position 16: 1.4 against 1.5 in each of three buckets.
    assert "The mean loss at all positions beyond 16 of “window of the training length” is 0.100 nats lower" in said


def test_a_model_of_fewer_seeds_is_compared_without_pairs(findings):
    found = Extrapolation(
        bucket=8,
        context=16,
        length=24,
        losses={
            "RoPE, restarted": reading(1.5, 1.5, 1.5),
            "RoPE": reading(1.5, 1.4, 1.75),
            "RoPE, positions interpolated": reading(3.0, 2.9, 2.8),
            "no positions": ((2.0, 2.0, 2.25),),
        },
        refusal="no",
    )
    tables = flattened(answered(EXERCISE, replace(findings, extrapolation=found)).parts[3].blocks)
    rows = {row[0]: row for block in tables if getattr(block, "name", "") == "remedies" for row in block.rows}
    assert rows["no positions"][1:6] == (2.25, 0.5, None, None, "one seed")


def test_a_training_loss_is_held_against_bigrams_of_the_training_text(findings):
    """The loss of the likeliest bigram model on the text that it was counted on, by hand and beside a smoothed one."""
    ctx = make_context(EXERCISE)
    tokens = ctx.tokens(POSITIONS_ROPE, "train").tolist()
    pairs, before = Counter(itertools.pairwise(tokens)), Counter(tokens[:-1])
    least = -sum(n * math.log(n / before[pair[0]]) for pair, n in pairs.items()) / (len(tokens) - 1)
    assert findings.training_bigram == pytest.approx(least)
    assert findings.training_bigram < ngram_losses(tokens, tokens, max(tokens) + 1, 2)[1], "smoothing costs a little"
    assert findings.training_bigram < findings.variants[0].baselines.bigram, "held-out text costs more"
    text = prose(
        answered(
            EXERCISE, replace(findings, training_bigram=9.0, escapes=dict.fromkeys(findings.escapes, (10.0, 12.0)))
        ),
        2,
    )
    assert "A training loss below 9.000 nats takes looking further back than one token" in text


def test_the_plateau_ends_where_five_rows_are_below_the_bigram_at_their_mean():
    steps = [float(10 * i) for i in range(1, 11)]
    losses = [3.0, 2.5, 2.4, 2.3, 2.3, 2.2, 1.0, 2.2, 2.2, 2.0]
    means = [sum(losses[i - 4 : i + 1]) / 5 for i in range(4, 10)]
    assert means[1] > 2.2 > means[2]
    assert escape(steps, losses, 2.2) == 50.0  # the middle of rows 3 … 7
    assert escape(steps, losses, 0.5) is None


def finished(row, early, late):
    """A variant whose trainings ended at these losses, after its shortest and all of its steps."""
    curves = tuple(
        replace(curve, losses=(*curve.losses[:-1], end), finished_losses=(start, *curve.finished_losses[1:-1], end))
        for curve, start, end in zip((row.curves[0],) * len(late), early, late, strict=True)
    )
    return replace(row, curves=curves, baselines=replace(row.baselines, bigram=3.0))


@pytest.mark.parametrize(
    ("early", "late", "said"),
    [
        ((1.5, 1.51, 1.49), (1.9, 1.911, 1.89), "the longer ones are closer together, by 0.4"),
        ((1.9, 1.91, 1.89), (1.5, 1.511, 1.49), "the longer ones are further apart, by 0.4"),
        ((2.5, 2.51, 2.49), (2.1, 2.111, 2.09), "the longer ones are closer together, by 0.4"),
        ((1.9, 1.91, 1.89), (1.9, 1.915, 1.887), "inside the noise"),
    ],
)
def test_a_head_start_is_told_from_a_better_end(findings, early, late, said):
    """Learned positions end at 2.0 after few steps and after all; RoPE at these."""
    learned, rope, *others = findings.variants
    learned = finished(learned, (2.0, 2.0, 2.0), (2.0, 2.0, 2.0))
    found = replace(findings, variants=(learned, finished(rope, early, late), *others))
    assert said in prose(answered(EXERCISE, found), 2)


def test_the_mistake_shows_in_a_real_text(findings):
    """An empirical check, since a text of two letters may not show it; in this one it must."""
    check = next(
        check
        for check in answered(EXERCISE, findings).checks
        if check.claim.startswith("a cache whose positions restart at 0 is noticed")
    )
    assert check.passed
