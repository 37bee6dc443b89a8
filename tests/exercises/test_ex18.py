import math

import pytest
import torch
import torch.nn.functional as F

from minigpt.decoding.sampling import Sampling
from minigpt.pretrained.causal_lm import continue_text
from tasks.exercises.ex18_beam_search import experiment as ex18
from tasks.exercises.ex18_beam_search.experiment import EXERCISE, judged, write
from tasks.exercises.ex18_beam_search.findings import BEAMS, COOL, GREEDY, HUMAN, NUCLEUS, PLAIN, PROMPT, TOP_K, WRITING
from tasks.exercises.ex18_beam_search.lab import own_loss, prepare
from tasks.exercises.ex18_beam_search.pretrained_writing import kept, prompts, written
from tests.exercise_context import answered, assert_sound, make_context, measured
from tests.exercises.formulas import assert_formulas, prose

KINDS = ["gpt2", "llama", "stand-in"]


@pytest.fixture(scope="module")
def lab():
    return prepare(make_context(EXERCISE, prompts=2, new=40, runs=3))


@pytest.mark.parametrize("architecture", KINDS)
def test_it_is_sound(architecture):
    answer = answered(EXERCISE, measured(EXERCISE, make_context(EXERCISE, pretrained=architecture)))
    assert_sound(EXERCISE, answer)
    assert_formulas(answer)
    assert {f"perplexity_{s.key}" for s in (HUMAN, *WRITING)} <= set(answer.metrics)
    tables = [block.name for part in answer.parts for block in part.blocks if block.type == "table"]
    assert tables == [
        "strategies",
        "greedy",
        "top_k_50",
        "pretrained_strategies",
        "nucleus_0.92",
        "temperature_0.7",
    ]


def test_human_text_goes_on_after_its_prompt(lab):
    text = lab.context.text()
    for prompt, human in zip(lab.prompts, lab.decode(lab.rows), strict=True):
        assert (len(prompt), len(human)) == (PROMPT, 40)
        place = text.index(prompt + human)
        assert place == 0 or text[place - 1].isspace()
        assert human[0] == " "


@torch.inference_mode()
def test_the_pretrained_model_writes_with_the_strategies_it_is_said_to(lab):
    rows = prompts(lab.context)
    texts, cut = written(lab, rows), kept(lab, rows)
    assert torch.equal(texts[HUMAN.key], rows)
    lone = continue_text(lab.judge.model, rows[:, :PROMPT], rows.shape[1] - PROMPT, sampling=Sampling(temperature=0.0))
    assert torch.equal(texts[GREEDY.key], lone)
    for key in (BEAMS[5].key, TOP_K.key, NUCLEUS.key, COOL.key, PLAIN.key):
        assert torch.equal(texts[key][:, :PROMPT], rows[:, :PROMPT])
        assert texts[key].shape == rows.shape
    logits = lab.judge.model(texts[TOP_K.key][:, :-1]).logits[:, PROMPT - 1 :]
    ranks = (logits > logits.gather(2, texts[TOP_K.key][:, PROMPT:, None])).sum(dim=-1)
    assert ranks.max() < 50
    assert cut[TOP_K.key][0] == 50
    assert cut[PLAIN.key] == (logits.shape[-1], pytest.approx(0.0, abs=1e-5))
    assert cut[NUCLEUS.key][1] == pytest.approx(0.08, abs=2e-3)


@torch.inference_mode()
def test_own_loss_is_of_what_the_model_saw(lab):
    """A pass of its own for each character, over the last 64 before it."""
    model, text = lab.model, lab.rows[0]
    context = model.config.context
    assert len(text) > context
    losses = [
        F.cross_entropy(model(text[None, max(0, end - context) : end])[0, -1:], text[end : end + 1]).item()
        for end in range(PROMPT, len(text))
    ]
    assert own_loss(model, text) == pytest.approx(sum(losses) / len(losses), abs=1e-4)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@torch.inference_mode()
def test_only_the_continuation_is_judged(architecture):
    lab = prepare(make_context(EXERCISE, pretrained=architecture, prompts=2, new=40))
    found = judged(lab, HUMAN)
    for i, prompt in enumerate(lab.prompts):
        ids = torch.tensor([lab.judge.tokenizer(prompt + found.texts[i])["input_ids"]])
        read = len(lab.judge.tokenizer(prompt)["input_ids"])  # human text goes on with a space: no token straddles
        losses = F.cross_entropy(lab.judge.model(ids).logits[0, read - 1 : -1], ids[0, read:], reduction="none")
        assert found.nats[i] == pytest.approx(losses.mean().item(), abs=1e-4)
        assert found.bits[i] == pytest.approx(losses.sum().item() / math.log(2) / 40, abs=1e-4)
        assert found.perplexities[i] == pytest.approx(losses.mean().exp().item(), rel=1e-4)


def test_what_differs_between_runs(lab):
    prompts = lab.rows[:1, :PROMPT].repeat(3, 1)
    for strategy in (GREEDY, BEAMS[2], NUCLEUS):
        texts = set(lab.decode(write(lab, strategy, prompts)))
        assert len(texts) == (3 if strategy.drawn else 1)
    assert judged(lab, GREEDY).again == ()
    cool, greedy = judged(lab, COOL), judged(lab, GREEDY)
    assert len(set(cool.again)) == 3
    assert cool.runs == (pytest.approx(sum(cool.again) / 3), pytest.approx(torch.tensor(cool.again).std().item()))
    assert greedy.runs == (greedy.perplexities[0], 0.0)


def test_a_strategy_writes_what_it_is_called(lab):
    """Greedy text is likelier under the model than cool text, and that than plain."""
    prompts = lab.rows[:, :PROMPT]
    own = {}
    for strategy in (GREEDY, COOL, PLAIN):
        own[strategy.key] = sum(own_loss(lab.model, row) for row in write(lab, strategy, prompts))
    assert own["greedy"] < own["temperature_0.7"] < own["plain"]


def test_truncation_on_held_out_text(lab):
    found = ex18.truncation(lab)
    size = lab.model.config.vocab_size
    assert (found["plain"].kept, found["plain"].removed) == (size, pytest.approx(0, abs=1e-6))
    assert found["top_k_50"].kept == pytest.approx(min(50, size), abs=0.5)
    assert 0 < found["nucleus_0.92"].removed <= 0.08
    assert found["temperature_0.7"].kept == size
    assert found["temperature_0.7"].entropy < found["plain"].entropy


def test_rank_correlation():
    assert ex18.rank_correlation([1, 2, 3], [10, 20, 900]) == pytest.approx(1)
    assert ex18.rank_correlation([1, 2, 3], [5, 5, 5]) == 0


def test_one_prompt_reads_well():
    answer = answered(EXERCISE, measured(EXERCISE, make_context(EXERCISE, prompts=1, runs=1)))
    told = " ".join(" ".join(prose(answer)).split())
    assert "continues 1 prompt of 32 characters" in told
    assert "That makes 1 run of each strategy" in told
    assert "there is 1 more run, all" not in told
    assert "inf " not in told
