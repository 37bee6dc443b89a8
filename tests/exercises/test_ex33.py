from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from minigpt.config import GPTConfig
from minigpt.evaluation.entropy import unigram_loss
from minigpt.evaluation.evaluate import evaluate
from minigpt.evaluation.future_heads import score_heads
from minigpt.evaluation.timing import Timing
from minigpt.model import GPT
from reports.types import Prose
from tasks.exercises.ex33_multi_token_prediction.experiment import EXERCISE
from tasks.exercises.ex33_multi_token_prediction.findings import Drafting, Run
from tests.exercise_context import answered, assert_sound, measured


@pytest.fixture(scope="module")
def findings():
    return measured(EXERCISE)


def test_the_answer_is_sound(findings):
    answer = answered(EXERCISE, findings)
    assert_sound(EXERCISE, answer)
    assert answer.metrics["tokens_per_pass_greedy_n_4"] >= 1.0


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=1, n_head=1, d_model=8, context=8, vocab_size=5, n_future=3)).eval()
    for head in model.future:
        torch.nn.init.normal_(head.weight)
    return model


@torch.inference_mode()
def test_heads_are_scored_on_the_right_targets(model):
    tokens = torch.randint(5, (33,), generator=torch.Generator().manual_seed(1))
    found = score_heads(model, tokens, batch_size=3)
    assert found.losses[0] == pytest.approx(evaluate(model, tokens).nats_per_token, abs=1e-5)
    for step in (2, 3):
        nll = []
        for start in range(0, 32, 8):
            h = model.hidden(tokens[None, start : start + 8])[0]
            for place in range(8 - step + 1):
                target = tokens[start + place + step]
                nll.append(F.cross_entropy(model.unembedding(model.future[step - 2](h[place])), target))
        assert found.losses[step - 1] == pytest.approx(torch.stack(nll).mean().item(), abs=1e-5)


def test_blind_guessing_is_the_entropy_of_the_letters():
    tokens = torch.tensor([0, 0, 1, 2] * 50_000)
    assert unigram_loss(tokens, tokens, 3) == pytest.approx(1.5 * torch.log(torch.tensor(2.0)).item(), abs=1e-4)


def timing(median: float, spread: float) -> Timing:
    return Timing(median, median - spread, median + spread, 1)


@pytest.mark.parametrize(
    ("drafted", "spread", "said"),
    [(0.5, 0.01, "It pays here"), (0.98, 0.05, "By the clock no gain shows"), (1.2, 0.01, "It does not pay")],
)
def test_whether_drafting_pays_is_read_off_the_clock(findings, drafted, spread, said):
    runs = ((Run(passes=5, emitted=12, by_head=((4, 3), (0, 0))),),)
    found = Drafting("N = 4", runs, runs, 0, timing(1.0, spread), timing(drafted, spread))
    part = answered(EXERCISE, replace(findings, drafts=(found,))).parts[3]
    sentence = next(b.text for b in part.blocks if isinstance(b, Prose) and "Tokens per pass are" in b.text)
    assert sentence.startswith(said)
    assert "2.40 tokens a pass" in sentence
    assert found.acceptance(2) == 0.75
    assert found.acceptance(3) is None  # never tested is not never accepted
