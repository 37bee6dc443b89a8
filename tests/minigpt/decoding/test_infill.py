import pytest
import torch

from minigpt.config import GPTConfig
from minigpt.decoding import infill
from minigpt.evaluation.evaluate import token_losses
from minigpt.model import GPT


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=2, n_head=2, d_model=16, context=12, vocab_size=7, position="rope")).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    return model


@pytest.fixture
def tokens(generator):
    return torch.randint(1, 7, (3, 10), generator=generator)


def test_scoring_is_bayes_rule_over_whole_texts(model, tokens):
    logs = infill.fill_by_scoring(model, tokens, 4)
    for row, log in zip(tokens, logs, strict=True):
        whole = []
        for candidate in range(1, 7):
            text = row.clone()
            text[4] = candidate
            whole.append(-token_losses(model, text).sum())
        torch.testing.assert_close(log[1:], torch.stack(whole).log_softmax(dim=0), rtol=1e-4, atol=1e-4)


def test_the_last_position_has_nothing_to_its_right(model, tokens):
    torch.testing.assert_close(infill.fill_by_scoring(model, tokens, 9), infill.fill_from_the_left(model, tokens, 9))


@pytest.mark.parametrize("fill", [infill.fill_both_ways, infill.fill_from_the_left, infill.fill_by_scoring])
def test_filling_does_not_look_at_the_answer(model, tokens, fill):
    other = tokens.clone()
    other[:, 4] = tokens[:, 4] % 6 + 1
    torch.testing.assert_close(fill(model, tokens, 4), fill(model, other, 4))
    logs = fill(model, tokens, 4)
    torch.testing.assert_close(logs.exp().sum(dim=-1), torch.ones(3))
    assert (logs[:, infill.HIDDEN] == float("-inf")).all()


def test_only_the_causal_model_ignores_what_comes_later(model, tokens):
    other = tokens.clone()
    other[:, 9] = tokens[:, 9] % 6 + 1
    assert torch.equal(infill.fill_from_the_left(model, tokens, 4), infill.fill_from_the_left(model, other, 4))
    assert not torch.allclose(infill.fill_both_ways(model, tokens, 4), infill.fill_both_ways(model, other, 4))
    assert not torch.allclose(infill.fill_by_scoring(model, tokens, 4), infill.fill_by_scoring(model, other, 4))


@pytest.mark.parametrize("write", [infill.write_left_to_right, infill.write_in_any_order])
def test_writing_keeps_the_prompt_and_fills_everything(model, tokens, write):
    written = write(model, tokens[:, :5], 6, torch.Generator().manual_seed(0))
    assert written.shape == (3, 11)
    assert torch.equal(written[:, :5], tokens[:, :5])
    assert (written != infill.HIDDEN).all()
    again = write(model, tokens[:, :5], 6, torch.Generator().manual_seed(0))
    assert torch.equal(written, again)


@pytest.mark.parametrize("write", [infill.write_left_to_right, infill.write_in_any_order])
def test_an_unknown_token_of_the_prompt_is_no_gap(model, tokens, write):
    prompt = tokens[:, :5].clone()
    prompt[1, 2] = prompt[2, 4] = infill.HIDDEN  # a character that the training text does not have
    written = write(model, prompt, 6, torch.Generator().manual_seed(0))
    assert torch.equal(written[:, :5], prompt)
    assert (written[:, 5:] != infill.HIDDEN).all()


def test_the_next_token_is_the_gap_at_the_end(model, tokens):
    appended = torch.cat([tokens, tokens[:, :1]], dim=1)
    torch.testing.assert_close(infill.next_both_ways(model, tokens), infill.fill_both_ways(model, appended, 10))
