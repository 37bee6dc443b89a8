"""Recorded losses against a second pass over the finished text."""

import pytest
import torch
import torch.nn.functional as F

from minigpt.config import GPTConfig
from minigpt.decoding.penalties import repetition_penalty
from minigpt.decoding.recording import Recorder
from minigpt.decoding.sampling import Sampling, generate
from minigpt.model import GPT


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_losses_are_the_models_own(temperature: float, generator: torch.Generator) -> None:
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=2, n_head=2, d_model=16, context=32, vocab_size=11)).eval()
    recorder, prompt = Recorder(), torch.randint(11, (3, 5), generator=generator)
    processors = (recorder, repetition_penalty(1.5))
    tokens = generate(model, prompt, 20, sampling=Sampling(temperature), generator=generator, processors=processors)
    with torch.inference_mode():
        logits = model(tokens[:, :-1])
    expected = F.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")[:, 4:]
    torch.testing.assert_close(recorder.losses(tokens), expected, rtol=1e-4, atol=1e-5)


def test_nothing_recorded() -> None:
    with pytest.raises(ValueError, match="no token"):
        Recorder().losses(torch.zeros(1, 3, dtype=torch.long))
