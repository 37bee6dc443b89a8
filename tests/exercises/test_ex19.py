from dataclasses import replace

import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor

from minigpt.pretrained.causal_lm import row_losses
from tasks.exercises.ex19_repetition_penalty import experiment as ex19
from tasks.exercises.ex19_repetition_penalty.experiment import EXERCISE
from tasks.exercises.ex19_repetition_penalty.findings import GREEDY, NUCLEUS, STRENGTHS, Reading
from tests.exercise_context import answered, assert_sound, make_context, measured
from tests.exercises.formulas import assert_formulas, prose

KINDS = ["gpt2", "llama", "stand-in"]


@pytest.mark.parametrize("architecture", KINDS)
def test_it_is_sound(architecture):
    answer = answered(EXERCISE, measured(EXERCISE, make_context(EXERCISE, pretrained=architecture)))
    assert_sound(EXERCISE, answer)
    assert_formulas(answer)
    assert answer.metrics["new_tokens"] == 32
    letters = {part.letter: part for part in answer.parts}
    assert [table.name for table in letters["c"].blocks if table.type == "table"] == ["alpha_1.5"]


@pytest.mark.parametrize("architecture", KINDS)
def test_every_alpha_has_the_texts_of_transformers(architecture):
    """Greedy text of each α and prompt against ``generate``, one text at a time: rows, prompts, banned tokens."""
    context = make_context(EXERCISE, pretrained=architecture, samples=2, tokens=12)
    lab = ex19.prepare(context)
    for written in measured(EXERCISE, context).written:
        if written.key != GREEDY:
            continue
        for i, row in enumerate(lab.rows):
            theirs = lab.model.generate(
                row[None, : lab.length],
                attention_mask=torch.ones(1, lab.length, dtype=torch.long),
                max_new_tokens=lab.n_new,
                do_sample=False,
                repetition_penalty=written.alpha,
                suppress_tokens=ex19.special(lab) or None,
                eos_token_id=None,
                pad_token_id=0,
            )[0]
            assert written.texts[i] == lab.tokenizer.decode(theirs[lab.length :])
            expected = row_losses(lab.model, theirs[None])[0, lab.length - 1 :].mean().item()
            assert written.nats[i] == pytest.approx(expected, abs=1e-4)


def test_human_text_goes_on_after_its_prompt():
    context = make_context(EXERCISE, samples=4)
    lab = ex19.prepare(context)
    assert len({tuple(row) for row in lab.rows.tolist()}) == 4
    for row in lab.rows:
        assert lab.tokenizer.decode(row) in context.text()


def test_human_text_under_the_penalty():
    """Against one forward pass per token and Transformers' processor."""
    lab = ex19.prepare(make_context(EXERCISE, samples=2, tokens=10))
    found = ex19.read(lab)
    place = 0
    for row in lab.rows:
        for end in range(lab.length, len(row)):
            with torch.inference_mode():
                logits = lab.model(row[None, :end]).logits[:, -1]
            assert found["logits"][place] == pytest.approx(logits[0, row[end]].item(), abs=1e-4)
            seen = set(row[:end].tolist())
            best = max(seen, key=lambda token: logits[0, token].item())
            others = max(z for token, z in enumerate(logits[0].tolist()) if token not in seen)
            assert found["best_seen"][place] == pytest.approx(logits[0, best].item(), abs=1e-4)
            assert found["best_new"][place] == pytest.approx(others, abs=1e-4)
            assert found["seen"][place] == (row[end].item() in row[:end].tolist())
            for alpha, losses in zip(STRENGTHS, found["losses"], strict=True):
                held = RepetitionPenaltyLogitsProcessor(alpha)(row[None, :end], logits.clone())
                assert losses[place] == pytest.approx(-held.log_softmax(-1)[0, row[end]].item(), abs=1e-4)
            place += 1
    assert place == len(found["seen"]) == 2 * lab.n_new


def test_the_prompt_is_not_measured():
    lab = ex19.prepare(make_context(EXERCISE, samples=1, tokens=8))
    row = [7] * lab.length + [1, 2, 1, 2, 1, 2, 3, 7]
    found = ex19.examined(lab, NUCLEUS, 1.0, [row], [[0.5] * 8])
    assert found.repeated[2] == (1 - 4 / 7,)  # 12 21 23 37 of 7
    assert found.repeated[4] == (1 - 4 / 5,)  # 1212 2121 1212 2123 1237
    assert found.seen == (5 / 8,)  # 1 2 1 2 and the 7 of the prompt


def test_the_penalty_against_the_lead():
    """Four places: two leads of 1 and 3 nats, one token behind, one with a negative logit, which α multiplies."""
    reading = Reading(((),), (), (), best_seen=(10.0, 12.0, 3.0, -4.0), best_new=(9.0, 9.0, 5.0, -4.5))
    assert reading.led == 3 / 4
    assert reading.lead == 1.0
    assert reading.penalty(1.0) == 0.0
    assert reading.penalty(1.25) == pytest.approx((2.0 + 2.4 + 0.6 + 1.0) / 4)
    assert reading.overtaken(1.25) == 2 / 3  # 8 < 9 and -5 < -4.5, but 9.6 > 9
    assert reading.overtaken(1.0) == 0.0


@pytest.fixture(scope="module")
def findings():
    return measured(EXERCISE, make_context(EXERCISE, pretrained="llama"))


def told(findings):
    """All paragraphs, each in one line."""
    return [" ".join(text.split()) for text in prose(answered(EXERCISE, findings))]


def with_4grams(f, human, plain, penalised):
    """Shares of repeated 4-grams per text: of people, without a penalty, and at α = 1.2."""
    planted = {1.0: plain, 1.2: penalised}
    written = tuple(replace(w, repeated={**w.repeated, 4: planted.get(w.alpha, w.repeated[4])}) for w in f.written)
    return replace(f, written=written, human=replace(f.human, repeated={**f.human.repeated, 4: human}))


FEW, SOME, MANY = (0.01, 0.02, 0.01), (0.11, 0.12, 0.12), (0.8, 0.9, 0.85)


@pytest.mark.parametrize(
    ("human", "plain", "penalised", "expected"),
    [
        (SOME, MANY, FEW, "repeats more 4-grams than people; at α = 1.2 it now repeats fewer 4-grams than they"),
        (SOME, MANY, MANY, "repeats more 4-grams than people; at α = 1.2 it still repeats more 4-grams than they"),
        (SOME, FEW, MANY, "repeats fewer 4-grams than people; at α = 1.2 it now repeats more 4-grams than they"),
        (
            SOME,
            SOME,
            SOME,
            "repeats neither more nor fewer 4-grams, beyond noise, than people; at α = 1.2 it still repeats neither",
        ),
    ],
)
def test_the_verdict_follows_the_data(findings, human, plain, penalised, expected):
    [verdict] = [
        text for text in told(with_4grams(findings, human, plain, penalised)) if "Verdict" in text and "α = 1.2" in text
    ]
    assert verdict.count(expected) == 2, verdict


@pytest.mark.parametrize(
    ("penalised", "expected"),
    [
        ((1.0, 1.1, 1.0), "α = 1.2 lowers the model's loss"),
        ((2.9, 3.1, 3.0), "α = 1.2 raises the model's loss"),
        ((1.0, 3.0, 2.0), "α = 1.2 changes the model's loss by no more than noise"),
    ],
)
def test_what_the_penalty_does_to_human_text(findings, penalised, expected):
    """Losses of three texts, 2 nats per token without a penalty."""
    losses = tuple(
        tuple(value for value in values for _ in range(findings.n_new)) for values in ((2.0, 2.0, 2.0), penalised)
    )
    kept = findings.reading.losses
    position = STRENGTHS.index(1.2)
    reading = replace(findings.reading, losses=(losses[0], *kept[1:position], losses[1], *kept[position + 1 :]))
    [text] = [text for text in told(replace(findings, reading=reading)) if "On human text" in text]
    assert expected in text
    assert ("a patch for decoding" in text) == ("raises" in expected)


def test_one_prompt_has_no_interval():
    findings = measured(EXERCISE, make_context(EXERCISE, pretrained="llama", samples=1))
    texts = " ".join(told(findings))
    assert "continues 1 prompt of" in texts
    assert "one text, so no interval" in texts
    assert "inf " not in texts
