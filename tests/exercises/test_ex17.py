from collections import Counter
from dataclasses import replace

import pytest
import torch

from minigpt.analysis import head_survey
from minigpt.analysis.head_survey import HeadScores, heads_to_draw
from reports.types import AttentionMaps, Table, flattened
from tasks.exercises.ex17_attention_patterns import answer as said
from tasks.exercises.ex17_attention_patterns import findings as found
from tasks.exercises.ex17_attention_patterns import reading
from tasks.exercises.ex17_attention_patterns.experiment import EXERCISE, plain
from tests.exercise_context import answered, assert_sound, make_context, measured, tiny_pretrained
from tests.exercises.formulas import assert_formulas, prose

SMALL = {"windows": 2, "window": 32, "rows": 3, "length": 32, "draws": 1, "ablation_windows": 1}


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "stand-in"])
def test_it_is_sound(architecture):
    answer = answered(EXERCISE, measured(EXERCISE, make_context(EXERCISE, pretrained=architecture, **SMALL)))
    assert_sound(EXERCISE, answer)
    assert_formulas(answer)
    maps = next(block for block in answer.parts[0].blocks if isinstance(block, AttentionMaps))
    assert len(maps.sentences) == 5
    assert len(maps.layers) == len(set(maps.layers)) == 4
    assert all(len(set(heads)) == 4 for heads in maps.heads)
    model = tiny_pretrained(architecture).model
    heads = next(b for b in flattened(answer.parts[1].blocks) if isinstance(b, Table) and b.name == "heads")
    assert len(heads.rows) == model.config.num_hidden_layers * model.config.num_attention_heads
    assert any("maps times values" in check.claim for check in answer.checks)
    assert any(isinstance(b, Table) and b.name == "ablation" for b in answer.parts[2].blocks)
    assert "None of the" in answer.parts[1].blocks[0].text or "Named:" in answer.parts[1].blocks[0].text


@pytest.fixture(scope="module")
def context():
    return make_context(EXERCISE, pretrained="llama", **SMALL)


@pytest.fixture(scope="module")
def readings(context):
    return reading.read(context)


@pytest.fixture(scope="module")
def findings(context, readings):
    return plain(context, readings)


def told(findings):
    """All paragraphs in one line."""
    return " ".join(" ".join(prose(answered(EXERCISE, findings))).split())


def test_the_text_says_what_gives_a_head_a_name():
    assert (found.SHARE, found.TIMES) == (head_survey.SHARE, head_survey.TIMES)


def test_the_maps_shown_are_those_of_the_model(context, findings):
    """Sentence, layer and head are where the block says they are."""
    maps = said.maps(findings)
    pretrained = context.pretrained()
    for s, text in enumerate(reading.SENTENCES.values()):
        ids = pretrained.tokenizer(text, return_tensors="pt")["input_ids"]
        assert "".join(maps.sentences[s]) == text
        with torch.inference_mode():
            whole = pretrained.model(ids, output_attentions=True).attentions
        for la, layer in enumerate(maps.layers):
            for h, head in enumerate(maps.heads[la]):
                shown = torch.tensor(maps.weights[s][la][h])
                torch.testing.assert_close(shown, whole[layer][0, head], atol=1e-4, rtol=0)


def test_random_heads_are_of_the_layers_of_those_they_are_compared_with(context, readings):
    _, best, before, *_ = readings.removals
    [beside] = readings.beside_previous
    layers, others = (Counter(layer for layer, _ in one.heads) for one in (before, beside))
    free = Counter(layer for layer, _ in {*readings.scores["previous"].ranked} - {*best.heads, *before.heads})
    assert all(others[layer] >= min(free[layer], wanted) for layer, wanted in layers.items())
    assert not set(beside.heads) & {*best.heads, *before.heads}
    found = plain(context, readings)
    own = [b - a for a, b in zip(readings.removals[0].repeated, before.repeated, strict=True)]
    random = [b - a for a, b in zip(readings.removals[0].repeated, beside.repeated, strict=True)]
    assert found.previous_or_random.difference == pytest.approx(sum(own) / len(own) - sum(random) / len(random))
    assert "Random heads of the same layers were taken 1 time" in told(found)


def test_heads_that_chance_can_match_are_not_called_needed(context, readings):
    """Of three random sets one costs as much as the heads for the previous token."""
    whole, *_ = readings.removals
    of = [[loss + rise for loss in whole.repeated] for rise in (9.2, 9.4, 2.1, 1.3)]
    previous, *beside = (replace(readings.removals[2], repeated=losses) for losses in of)
    removals = [*readings.removals[:2], previous, *readings.removals[3:]]
    matched = plain(context, replace(readings, removals=removals, beside_previous=beside))
    assert "for 1.30 to 9.40 nats where tokens repeat" in told(matched)
    assert "is not shown, as chance can do as much harm" in told(matched)
    alone = plain(context, replace(readings, removals=removals, beside_previous=beside[1:]))
    assert alone.previous_or_random.difference == pytest.approx(7.1)
    assert "copying needs these more than others there." in told(alone)


def test_punctuation_is_found_where_it_stands(context):
    tokenizer = context.pretrained().tokenizer
    ids = tokenizer('He said, "Stop!"', return_tensors="pt")["input_ids"]
    pieces = [tokenizer.decode([token]) for token in ids[0].tolist()]
    assert [piece for piece, mark in zip(pieces, reading.marks(tokenizer, ids)[0], strict=True) if mark] == [
        ",",
        ' "',
        '!"',
    ]


def test_removed_heads_are_the_best_and_random_ones_are_not(readings):
    none, best, before, random = readings.removals
    assert none.heads == []
    assert none.repeated == readings.copying.rows.split(readings.copying.losses)[1]
    assert best.heads == readings.scores["induction"].ranked[:4]
    assert before.heads[0] in readings.scores["previous"].ranked[:5]
    assert not set(random.heads) & set(best.heads)
    assert best.repeated != none.repeated


def test_a_specialist_is_reported_with_its_place(context, readings):
    """A head planted into the scores is named in the tables and sentences, at its own layer and number."""
    rows = readings.scores["previous"].rows.clone()
    rows[:, 2, 1] = 0.91
    scores = readings.scores | {"previous": HeadScores(rows, readings.scores["previous"].blind)}
    planted = plain(context, replace(readings, scores=scores, drawn=heads_to_draw(list(scores.values()))))
    assert "**previous token** L2H1 (0.91" in told(planted)
    assert "(b) gives 1 of them a name: L2H1." in told(planted)
    assert 1 in planted.drawn[2]
    table = said.specialists(planted)
    row = next(row for row in table.rows if row[0] == "previous token")
    assert (row[1], row[3], row[-2], row[-1]) == ("L2H1", pytest.approx(0.91), "1", "yes")
    every = {row[0]: row[-1] for row in said.every_head(planted).rows}
    assert every["L2H1"] == "previous token"
    assert planted.metrics["share_previous_layer_2_head_1"] == pytest.approx(0.91)


def test_no_punctuation_no_score():
    context = make_context(EXERCISE, **SMALL)
    context.text = lambda split="validation": "some words and no mark at all\n" * 200
    scores = reading.on_text(context, reading.text_windows(context))
    assert list(scores) == ["previous", "first", "own", "same"]


def test_a_model_whose_heads_cannot_be_removed_says_so(monkeypatch):
    def unknown(model):
        raise LookupError("no output projection is known")

    monkeypatch.setattr(reading, "output_projections", unknown)
    again = measured(EXERCISE, make_context(EXERCISE, pretrained="llama", **SMALL))
    assert (again.ablations, again.untested) == ((), "no output projection is known")
    answer = answered(EXERCISE, again)
    assert "Not tested: no output projection is known" in answer.parts[2].blocks[-1].text
    assert not any("removing" in check.claim for check in answer.checks)


@pytest.mark.parametrize(
    ("previous", "induction", "expected"),
    [
        ([(0, 1)], [(1, 0)], "Below it lies a previous-token head (L0H1)"),
        ([(0, 1), (0, 2)], [(1, 0)], "Below it lie previous-token heads (L0H1, L0H2)"),
        ([(0, 1), (3, 3)], [(1, 0), (2, 2)], "Below all of them lies a previous-token head (L0H1)"),
        ([(1, 1)], [(1, 0), (3, 2)], "Below 1 of them lies a previous-token head (L1H1)"),
        ([(3, 1)], [(1, 0), (3, 2)], "Below none of them"),
        ([], [(1, 0)], "Below it lies no named previous-token head"),
    ],
)
def test_the_circuit_needs_a_previous_token_head_below_each(context, readings, previous, induction, expected):
    def planted(heads, **control):
        rows = torch.zeros_like(readings.scores["previous"].rows)
        for layer, number in heads:
            rows[:, layer, number] = 0.9
        return HeadScores(rows, 0.05, **control)

    control = torch.zeros_like(readings.scores["induction"].control)
    scores = readings.scores | {"previous": planted(previous), "induction": planted(induction, control=control)}
    assert expected in told(plain(context, replace(readings, scores=scores)))


def test_a_loss_that_falls_late_has_no_half_way(context, readings):
    """It falls where some rows have no losses any more: the others alone show nothing of it."""
    rows = readings.copying.rows
    shared = readings.copying.losses.shape[1] - max(rows.periods)
    losses = torch.full_like(readings.copying.losses, 5.0)
    for row, period in enumerate(rows.periods):
        losses[row, period + shared :] = 0.1
        losses[row, :period] = losses[row, period:].mean() + 0.6 + 0.01 * row
    text = told(plain(context, replace(readings, copying=replace(readings.copying, losses=losses))))
    assert "The loss falls" in text
    assert "half of the way" not in text


@pytest.mark.parametrize(
    ("late", "expected"),
    [(0, "it is 0.10, which is more than half"), (1, "it is 5.00; 1 token later it is"), (2, "; 2 tokens later it is")],
)
def test_a_loss_that_falls_is_followed_half_the_way(context, readings, late, expected):
    losses = torch.full_like(readings.copying.losses, 5.0)
    for row, period in enumerate(readings.copying.rows.periods):
        losses[row, :period] += 0.01 * row
        losses[row, period + late :] = 0.1
    assert expected in told(plain(context, replace(readings, copying=replace(readings.copying, losses=losses))))


def test_a_model_of_few_tokens_has_no_rows_that_repeat(monkeypatch):
    monkeypatch.setattr(reading, "FEWEST", 10**6)
    findings = measured(EXERCISE, make_context(EXERCISE, pretrained="stand-in", **SMALL))
    answer = answered(EXERCISE, findings)
    assert_sound(EXERCISE, answer, any_text=True)
    assert findings.copying is None
    assert "This part does not apply to this text" in told(findings)
    assert not any("induction" in check.claim for check in answer.checks)
