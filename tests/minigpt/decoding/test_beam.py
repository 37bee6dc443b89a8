"""Beam search against exhaustive search, greedy decoding and Transformers' own."""

import itertools

import pytest
import torch
from torch import Tensor

from minigpt.config import GPTConfig
from minigpt.decoding.beam import beam_search
from minigpt.decoding.sampling import GREEDY, generate
from minigpt.evaluation.evaluate import token_losses
from minigpt.model import GPT
from minigpt.pretrained.export import to_gpt2


def random_model(vocab_size: int = 23, **changes: object) -> GPT:
    torch.manual_seed(3)
    shape = {"n_layer": 2, "n_head": 2, "d_model": 16, "context": 32, "vocab_size": vocab_size, **changes}
    model = GPT(GPTConfig(**shape)).eval()  # type: ignore[arg-type]
    with torch.no_grad():  # far from uniform, so that searches of different width differ
        for weight in model.parameters():
            weight.mul_(2.5)
    return model


def likely_token(model: GPT) -> int:
    """The token that the model writes most often, to serve as an end token that searches meet."""
    prompts = torch.randint(23, (64, 5), generator=torch.Generator().manual_seed(0))
    written = generate(model, prompts, 8, generator=torch.Generator().manual_seed(1))[:, 5:]
    return int(written.flatten().bincount().argmax())


@torch.inference_mode()
def log_probability(model: GPT, tokens: Tensor, prompt: int) -> float:
    """Of the tokens after the prompt, in one pass."""
    return -token_losses(model, tokens)[prompt - 1 :].sum().item()


@pytest.mark.parametrize("position", ["learned", "rope"])
def test_a_wide_beam_is_exhaustive_search(position: str) -> None:
    model, prompt = random_model(5, position=position), torch.tensor([1, 4, 2])
    every = [torch.cat([prompt, torch.tensor(new)]) for new in itertools.product(range(5), repeat=4)]
    exact = sorted(((log_probability(model, tokens, 3), tokens.tolist()) for tokens in every), reverse=True)
    found = beam_search(model, prompt, 4, beams=5**3)
    assert [h.tokens.tolist() for h in found[:50]] == [tokens for _, tokens in exact[:50]]
    assert [h.log_probability for h in found[:50]] == pytest.approx([value for value, _ in exact[:50]], abs=1e-4)


def test_one_beam_is_greedy() -> None:
    model, prompt = random_model(), torch.tensor([1, 4, 2])
    [found] = beam_search(model, prompt, 40, beams=1)  # beyond the context of 32, too
    assert torch.equal(found.tokens, generate(model, prompt[None], 40, sampling=GREEDY)[0])


@pytest.mark.parametrize("beams", [2, 3, 8])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("ending", [False, True])
def test_equals_transformers(beams: int, length_penalty: float, ending: bool) -> None:
    model = random_model()
    end = likely_token(model) if ending else None
    theirs = to_gpt2(model)
    for seed in range(12):
        prompt = torch.randint(23, (5,), generator=torch.Generator().manual_seed(seed))
        expected = theirs.generate(
            prompt[None],
            attention_mask=torch.ones(1, 5, dtype=torch.long),
            max_new_tokens=14,
            num_beams=beams,
            num_return_sequences=beams,
            do_sample=False,
            length_penalty=length_penalty,
            eos_token_id=end,
            pad_token_id=0,
            output_scores=True,
            return_dict_in_generate=True,
        )
        found = beam_search(model, prompt, 14, beams=beams, end=end, length_penalty=length_penalty)
        assert [h.score for h in found] == pytest.approx(expected.sequences_scores.tolist(), abs=1e-4)
        for ours, row in zip(found, expected.sequences, strict=True):
            assert ours.tokens.tolist() == row[: len(ours.tokens)].tolist()


def test_finished_beams_are_not_extended() -> None:
    model = random_model()
    end, lengths = likely_token(model), set()
    for seed in range(8):
        prompt = torch.randint(23, (5,), generator=torch.Generator().manual_seed(seed))
        for hypothesis in beam_search(model, prompt, 14, beams=4, end=end):
            new = hypothesis.tokens[5:].tolist()
            assert end not in new[:-1]
            assert hypothesis.log_probability == pytest.approx(log_probability(model, hypothesis.tokens, 5), abs=1e-4)
            lengths.add(len(new))
    assert len(lengths) > 2, "some ended early"


def test_wider_never_worse_than_greedy() -> None:
    """Not a theorem, but a search that loses its best beam or its cache fails it at once."""
    model = random_model()
    for seed in range(10):
        prompt = torch.randint(23, (4,), generator=torch.Generator().manual_seed(seed))
        greedy = beam_search(model, prompt, 12, beams=1)[0].log_probability
        assert beam_search(model, prompt, 12, beams=10)[0].log_probability >= greedy - 1e-5


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        (torch.zeros(0, dtype=torch.long), {"beams": 2}, "prompt"),
        (torch.zeros(1, 2, dtype=torch.long), {"beams": 2}, "prompt"),
        (torch.zeros(2, dtype=torch.long), {"beams": 0}, "beams"),
        (torch.zeros(2, dtype=torch.long), {"beams": 2, "limit": 64}, "limit 64"),
    ],
)
def test_bad_input(prompt: Tensor, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        beam_search(random_model(), prompt, 4, **options)
