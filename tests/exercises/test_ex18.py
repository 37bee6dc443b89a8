import math

import pytest
import torch
import torch.nn.functional as F

from tasks.exercises import ex18_beam_search as ex18
from tests.exercise_context import assert_sound, make_context
from tests.exercises.formulas import assert_formulas

KINDS = ["gpt2", "llama", "stand-in"]


@pytest.fixture(scope="module")
def lab():
    return ex18.prepare(make_context(ex18.EXERCISE, prompts=2, new=40, runs=3))


@pytest.mark.parametrize("architecture", KINDS)
def test_it_is_sound(architecture):
    answer = ex18.EXERCISE.answer(make_context(ex18.EXERCISE, pretrained=architecture))
    assert_sound(ex18.EXERCISE, answer)
    assert_formulas(answer)
    assert {f"perplexity_{s.key}" for s in (ex18.HUMAN, *ex18.WRITING)} <= set(answer.metrics)
    tables = [block.name for part in answer.parts for block in part.blocks if block.type == "table"]
    assert tables == ["strategies", "greedy", "top_k_50", "nucleus_0.92", "temperature_0.7"]


def test_human_text_goes_on_after_its_prompt(lab):
    text = lab.context.text()
    for prompt, human in zip(lab.prompts, lab.decode(lab.rows), strict=True):
        assert (len(prompt), len(human)) == (ex18.PROMPT, 40)
        place = text.index(prompt + human)
        assert place == 0 or text[place - 1].isspace()
        assert human[0] == " "


@torch.inference_mode()
def test_own_loss_is_of_what_the_model_saw(lab):
    """A pass of its own for each character, over the last 64 before it."""
    model, text = lab.model, lab.rows[0]
    context = model.config.context
    assert len(text) > context
    losses = [
        F.cross_entropy(model(text[None, max(0, end - context) : end])[0, -1:], text[end : end + 1]).item()
        for end in range(ex18.PROMPT, len(text))
    ]
    assert ex18.own_loss(model, text) == pytest.approx(sum(losses) / len(losses), abs=1e-4)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@torch.inference_mode()
def test_only_the_continuation_is_judged(architecture):
    lab = ex18.prepare(make_context(ex18.EXERCISE, pretrained=architecture, prompts=2, new=40))
    found = ex18.judged(lab, ex18.HUMAN)
    for i, prompt in enumerate(lab.prompts):
        ids = torch.tensor([lab.judge.tokenizer(prompt + found.texts[i])["input_ids"]])
        read = len(lab.judge.tokenizer(prompt)["input_ids"])  # human text goes on with a space: no token straddles
        losses = F.cross_entropy(lab.judge.model(ids).logits[0, read - 1 : -1], ids[0, read:], reduction="none")
        assert found.nats[i] == pytest.approx(losses.mean().item(), abs=1e-4)
        assert found.bits[i] == pytest.approx(losses.sum().item() / math.log(2) / 40, abs=1e-4)
        assert found.perplexities[i] == pytest.approx(losses.mean().exp().item(), rel=1e-4)


def test_what_differs_between_runs(lab):
    prompts = lab.rows[:1, : ex18.PROMPT].repeat(3, 1)
    for strategy in (ex18.GREEDY, ex18.BEAMS[2], ex18.NUCLEUS):
        texts = set(lab.decode(ex18.write(lab, strategy, prompts)))
        assert len(texts) == (3 if strategy.drawn else 1)
    assert ex18.judged(lab, ex18.GREEDY).again == ()
    cool, greedy = ex18.judged(lab, ex18.COOL), ex18.judged(lab, ex18.GREEDY)
    assert len(set(cool.again)) == 3
    assert cool.runs == (pytest.approx(sum(cool.again) / 3), pytest.approx(torch.tensor(cool.again).std().item()))
    assert greedy.runs == (greedy.perplexities[0], 0.0)


def test_a_strategy_writes_what_it_is_called(lab):
    """Greedy text is likelier under the model than cool text, and that than plain."""
    prompts = lab.rows[:, : ex18.PROMPT]
    own = {}
    for strategy in (ex18.GREEDY, ex18.COOL, ex18.PLAIN):
        own[strategy.key] = sum(ex18.own_loss(lab.model, row) for row in ex18.write(lab, strategy, prompts))
    assert own["greedy"] < own["temperature_0.7"] < own["plain"]


def test_truncation_on_held_out_text(lab):
    found = ex18.truncation(lab)
    size = lab.model.config.vocab_size
    assert found["plain"][:2] == (size, pytest.approx(0, abs=1e-6))
    assert found["top_k_50"][0] == pytest.approx(min(50, size), abs=0.5)
    assert 0 < found["nucleus_0.92"][1] <= 0.08
    assert found["temperature_0.7"][0] == size
    assert found["temperature_0.7"][2] < found["plain"][2]


def test_rank_correlation():
    assert ex18.rank_correlation([1, 2, 3], [10, 20, 900]) == pytest.approx(1)
    assert ex18.rank_correlation([1, 2, 3], [5, 5, 5]) == 0
