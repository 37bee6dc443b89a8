from dataclasses import replace

import pytest
import torch

from minigpt.analysis.head_survey import HeadScores
from reports.types import AttentionMaps, Table
from tasks.exercises import ex17_attention_patterns as ex17
from tests.exercise_context import assert_sound, make_context, tiny_pretrained
from tests.exercises.formulas import assert_formulas

SMALL = {"windows": 2, "window": 32, "rows": 3, "length": 32, "draws": 1, "ablation_windows": 1}


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "stand-in"])
def test_it_is_sound(architecture):
    answer = ex17.EXERCISE.answer(make_context(ex17.EXERCISE, pretrained=architecture, **SMALL))
    assert_sound(ex17.EXERCISE, answer)
    assert_formulas(answer)
    maps = next(block for block in answer.parts[0].blocks if isinstance(block, AttentionMaps))
    assert len(maps.sentences) == 5
    assert len(maps.layers) == len(set(maps.layers)) == 4
    assert all(len(set(heads)) == 4 for heads in maps.heads)
    model = tiny_pretrained(architecture).model
    heads = next(b for b in answer.parts[1].blocks if isinstance(b, Table) and b.name == "heads")
    assert len(heads.rows) == model.config.num_hidden_layers * model.config.num_attention_heads
    assert any("maps times values" in check.claim for check in answer.checks)
    assert any(isinstance(b, Table) and b.name == "ablation" for b in answer.parts[2].blocks)
    assert "None of the" in answer.parts[1].blocks[0].text or "Named:" in answer.parts[1].blocks[0].text


@pytest.fixture(scope="module")
def context():
    return make_context(ex17.EXERCISE, pretrained="llama", **SMALL)


@pytest.fixture(scope="module")
def findings(context):
    return ex17.measure(context)


def test_the_maps_shown_are_those_of_the_model(context, findings):
    """Sentence, layer and head are where the block says they are."""
    maps = next(block for block in ex17.part_a(findings).blocks if isinstance(block, AttentionMaps))
    pretrained = context.pretrained()
    for s, text in enumerate(ex17.SENTENCES.values()):
        ids = pretrained.tokenizer(text, return_tensors="pt")["input_ids"]
        assert "".join(maps.sentences[s]) == text
        with torch.inference_mode():
            whole = pretrained.model(ids, output_attentions=True).attentions
        for la, layer in enumerate(maps.layers):
            for h, head in enumerate(maps.heads[la]):
                shown = torch.tensor(maps.weights[s][la][h])
                torch.testing.assert_close(shown, whole[layer][0, head], atol=1e-4, rtol=0)


def test_punctuation_is_found_where_it_stands(context):
    tokenizer = context.pretrained().tokenizer
    ids = tokenizer('He said, "Stop!"', return_tensors="pt")["input_ids"]
    pieces = [tokenizer.decode([token]) for token in ids[0].tolist()]
    assert [piece for piece, mark in zip(pieces, ex17.marks(tokenizer, ids)[0], strict=True) if mark] == [
        ",",
        ' "',
        '!"',
    ]


def test_removed_heads_are_the_best_and_random_ones_are_not(findings):
    none, best, before, random = findings.ablations
    assert none.heads == []
    assert none.repeated == findings.copying.rows.split(findings.copying.losses)[1]
    assert best.heads == findings.scores["induction"].ranked[:4]
    assert before.heads[0] in findings.scores["previous"].ranked[:5]
    assert not set(random.heads) & set(best.heads)
    assert best.repeated != none.repeated


def test_a_specialist_is_reported_with_its_place(findings):
    """A head planted into the scores is named in the tables and sentences, at its own layer and number."""
    rows = findings.scores["previous"].rows.clone()
    rows[:, 2, 1] = 0.91
    scores = findings.scores | {"previous": HeadScores(rows, findings.scores["previous"].blind)}
    planted = replace(findings, scores=scores, drawn=ex17.heads_to_draw(list(scores.values())))
    assert "**previous token** L2H1 (0.91" in ex17.part_b(planted).blocks[0].text
    assert 1 in planted.drawn[2]
    table = ex17.specialists(planted)
    row = next(row for row in table.rows if row[0] == "previous token")
    assert (row[1], row[3], row[-2], row[-1]) == ("L2H1", pytest.approx(0.91), "1", "yes")
    every = {row[0]: row[-1] for row in ex17.every_head(planted).rows}
    assert every["L2H1"] == "previous token"
    assert ex17.metrics_of(planted)["share_previous_layer_2_head_1"] == pytest.approx(0.91)


def test_no_punctuation_no_score():
    context = make_context(ex17.EXERCISE, **SMALL)
    context.text = lambda split="validation": "some words and no mark at all\n" * 200
    scores = ex17.on_text(context, ex17.text_windows(context))
    assert list(scores) == ["previous", "first", "own", "same"]


def test_a_model_whose_heads_cannot_be_removed_says_so(context, findings, monkeypatch):
    def unknown(model):
        raise LookupError("no output projection is known")

    monkeypatch.setattr(ex17, "output_projections", unknown)
    again = ex17.measure(make_context(ex17.EXERCISE, pretrained="llama", **SMALL))
    assert again.ablations == "no output projection is known"
    part, checks = ex17.part_c(context, again)
    assert "Not tested: no output projection is known" in part.blocks[-1].text
    assert not any("removing" in check.claim for check in checks)


@pytest.mark.parametrize(
    ("previous", "induction", "expected"),
    [
        ([(0, 1)], [(1, 0)], "Below it lie previous-token heads (L0H1)"),
        ([(0, 1), (3, 3)], [(1, 0), (2, 2)], "Below all of them lie previous-token heads (L0H1)"),
        ([(1, 1)], [(1, 0), (3, 2)], "Below 1 of them lie previous-token heads (L1H1)"),
        ([(3, 1)], [(1, 0), (3, 2)], "Below none of them"),
        ([], [(1, 0)], "Below none of them"),
    ],
)
def test_the_circuit_needs_a_previous_token_head_below_each(findings, previous, induction, expected):
    def planted(heads):
        rows = torch.zeros_like(findings.scores["previous"].rows)
        for layer, number in heads:
            rows[:, layer, number] = 0.9
        return HeadScores(rows, 0.05)

    scores = findings.scores | {"previous": planted(previous), "induction": planted(induction)}
    assert expected in ex17.circuit(replace(findings, scores=scores))


def test_a_loss_that_falls_late_has_no_half_way(findings):
    """It falls where some rows have no losses any more: the others alone show nothing of it."""
    rows = findings.copying.rows
    shared = findings.copying.losses.shape[1] - max(rows.periods)
    losses = torch.full_like(findings.copying.losses, 5.0)
    for row, period in enumerate(rows.periods):
        losses[row, period + shared :] = 0.1
        losses[row, :period] = losses[row, period:].mean() + 0.6 + 0.01 * row
    told = ex17.prediction_said(replace(findings, copying=replace(findings.copying, losses=losses)))
    assert "The loss falls" in told
    assert "half of the way" not in told
