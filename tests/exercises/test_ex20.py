import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from minigpt.pretrained.gpt2_published import POSITION_TABLE
from reports.types import Figure, Heatmap, Prose
from tasks.exercise import Pretrained
from tasks.exercises.ex20_position_embeddings.experiment import EXERCISE, study
from tests.exercise_context import MemoryContext, answered, assert_sound, make_context, measured
from tests.exercises.formulas import assert_formulas


def with_table(table: torch.Tensor) -> MemoryContext:
    """A context whose pretrained model has these positions."""
    length, width = table.shape
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=width, n_positions=length, vocab_size=31)).eval()
    model.transformer.wpe.weight.data = table.float()
    context = make_context(EXERCISE)
    context._pretrained = Pretrained("planted", model, None, False, "")
    return context


@pytest.fixture(scope="module")
def findings():
    """Of a pretrained model without learned positions: the project's own table is in question."""
    return measured(EXERCISE, make_context(EXERCISE, pretrained="llama"))


def told_of(findings, table):
    """Part (c) of findings whose table in question is this one."""
    planted = study("learned", "planted", table)
    return prose(answered(EXERCISE, replace(findings, tables=(planted, *findings.tables[1:]))), "c")


def prose(answer, letter):
    part = next(part for part in answer.parts if part.letter == letter)
    return " ".join(" ".join(block.text.split()) for block in part.blocks if isinstance(block, Prose))


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "stand-in"])
def test_it_is_sound(architecture):
    context = make_context(EXERCISE, pretrained=architecture)
    answer = answered(EXERCISE, measured(EXERCISE, context))
    assert_sound(EXERCISE, answer)
    assert_formulas(answer)
    learned = architecture != "llama"
    assert ("learned_positions" in answer.metrics) == learned
    assert answer.metrics["learned_positions" if learned else "own_positions"] == (
        512 if architecture == "gpt2" else 64
    )
    assert any("has no learned positions" in note for note in answer.notes) != learned


def test_an_untrained_table_has_no_pattern():
    answer = answered(EXERCISE, measured(EXERCISE, make_context(EXERCISE, pretrained="gpt2")))
    assert answer.metrics["learned_nearest_is_adjacent_share"] < 0.05
    assert "No similarity of nearby positions beyond chance" in prose(answer, "c")
    assert "no clear rotation" in prose(answer, "c")
    assert not any(check.passed for check in answer.checks if check.kind == "empirical")


def test_a_planted_pattern_is_described():
    """A helix of 4 turns, its first row three times as long."""
    t = torch.arange(200).double()
    angle = 2 * torch.pi * 4 * t / 200
    table = torch.zeros(200, 32, dtype=torch.float64)
    table[:, 3], table[:, 9], table[:, 20] = 6 * angle.cos(), 6 * angle.sin(), t / 50 - 2
    table[0] *= 3
    answer = answered(EXERCISE, measured(EXERCISE, with_table(table)))
    assert_sound(EXERCISE, answer)
    told = prose(answer, "c")
    assert "Yes, nearby positions are similar" in told
    assert "a helix" in told
    assert "The first position is special" in told
    assert "The last position is not special" in told
    assert answer.metrics["learned_rotation_turns"] == pytest.approx(4, abs=0.2)
    assert answer.metrics["learned_variance_three_components"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (torch.ones(64, 8) + 0.01 * torch.randn(64, 8, generator=torch.Generator().manual_seed(0)), "never falls"),
        (torch.randn(64, 8, generator=torch.Generator().manual_seed(0)), "is at most a half even between"),
    ],
)
def test_a_mean_cosine_that_does_not_fall_to_a_half_is_not_said_to(findings, table, expected):
    told = told_of(findings, table)
    assert expected in told
    assert "has fallen to a half" not in told


def test_similarity_that_does_not_depend_on_distance_is_no_similarity_of_neighbours(findings):
    """All rows are alike, and most alike are those half the table apart."""
    row = torch.randn(1, 64, generator=torch.Generator().manual_seed(0))
    alike = row + 0.3 * torch.randn(64, 64, generator=torch.Generator().manual_seed(1))
    alike[32:] = alike[:32]  # pairs half the table apart are equal
    assert "**No, nearby positions are no more" in told_of(findings, alike)


def test_an_arc_is_no_helix(findings):
    t = torch.arange(200).double() / 200
    angle = 2 * torch.pi * 0.8 * t
    table = torch.stack([6 * angle.cos(), 6 * angle.sin(), 2 * t - 1], dim=1)
    assert "an arc, not a helix" in told_of(findings, table)


def test_one_frequency_that_stands_out(findings):
    """The first component is a wave of one cycle, the other two are noise."""
    t = torch.arange(200).double() / 200
    noise = 0.1 * torch.randn(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    told = told_of(findings, torch.cat([(2 * torch.pi * t).cos()[:, None], noise], dim=1))
    assert "In one of the first three components a frequency stands out" in told
    assert "component 1 with 1 cycle over the table (period 200.0 positions" in told


def test_periods_as_long_as_words_are_found():
    context = make_context(EXERCISE, pretrained="llama")
    context.text = lambda split="validation": "four " * 200  # five characters with the space
    findings = measured(EXERCISE, context)
    t = torch.arange(60).double()
    waves = [3 * (2 * torch.pi * t / 20).cos(), 2 * (2 * torch.pi * t / 5).cos(), (2 * torch.pi * t / 10).cos()]
    none = [waves[0], waves[2], t / 99]
    for columns, expected in ((waves, "below, number 2 has a period"), (none, "below, none has a period")):
        told = told_of(findings, torch.stack(columns, dim=1))
        assert "has 5.0 of them on average" in told
        assert expected in told


def test_long_tables_are_thinned_for_display_only():
    context = make_context(EXERCISE, pretrained="gpt2")
    table = context.pretrained().model.transformer.wpe.weight.detach()
    part = answered(EXERCISE, measured(EXERCISE, context)).parts[0]
    shown = next(block for block in part.blocks if isinstance(block, Heatmap))
    assert len(shown.values) == 128
    assert "Every 4th position of 512" in shown.caption
    expected = torch.cosine_similarity(table[4:5], table[8:9]).item()
    assert shown.values[1][2] == pytest.approx(expected, abs=1e-4)


def test_every_position_is_in_the_cloud_once():
    context = make_context(EXERCISE, pretrained="llama")
    part = answered(EXERCISE, measured(EXERCISE, context)).parts[1]
    cloud = next(block for block in part.blocks if isinstance(block, Figure) and block.kind == "scatter")
    assert sum(len(series.x) for series in cloud.series) == 64
    assert cloud.series[0].name == "positions 0–7"


def test_gpt2s_own_table():
    """What the exercise says where GPT-2 can be had."""
    if not (file := os.environ.get("CHAPTER_GPT2_WPE")):
        pytest.skip("CHAPTER_GPT2_WPE names no file")
    answer = answered(EXERCISE, measured(EXERCISE, with_table(torch.from_numpy(np.load(file, allow_pickle=False)))))
    assert_sound(EXERCISE, answer)
    assert all(check.passed for check in answer.checks)
    told = prose(answer, "c")
    assert "Yes, nearby positions are similar" in told
    assert "a helix" in told
    assert "The first position is special" in told
    assert "The last position is special" in told
    for name, stored in POSITION_TABLE.items():
        assert answer.metrics[f"learned_{name}"] == pytest.approx(stored.value, rel=1e-4), name
