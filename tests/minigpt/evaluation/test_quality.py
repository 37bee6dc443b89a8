"""Scores of written text against one probability at a time."""

import pytest
import torch

from minigpt.config import GPTConfig
from minigpt.evaluation.quality import continuation_nll
from minigpt.model import GPT


def test_continuation_nll_is_of_the_continuation_only(generator):
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=2, n_head=2, d_model=16, context=40, vocab_size=30))
    texts = torch.randint(30, (5, 20), generator=generator)
    found = continuation_nll(model, texts, 8, batch_size=2)
    for row, value in zip(texts, found, strict=True):
        with torch.inference_mode():
            p = [model(row[None, :i])[0, -1].softmax(-1)[row[i]] for i in range(8, 20)]
        assert value.item() == pytest.approx(-torch.stack(p).log().mean().item(), abs=1e-5)
    for start in (0, 20):
        with pytest.raises(ValueError, match="start"):
            continuation_nll(model, texts, start)
