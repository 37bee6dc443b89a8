"""A batch of all settings against each setting and text by itself, and against one pass over everything."""

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from minigpt.decoding.sampling import GREEDY, Sampling
from minigpt.decoding.streaming import ReencodingReader, SinkReader, stream_losses, stream_on
from minigpt.pretrained.causal_lm import row_losses
from tasks.exercises.ex29_attention_sinks.stream_study import (
    Bounded,
    StreamStudy,
    Unbounded,
    read_anew,
    read_cached,
    read_in_full,
)

V, T, N, W = 31, 50, 3, 12
SINKS = (0, 1, 4)


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape = LlamaConfig(**sizes, num_key_value_heads=2, vocab_size=V, initializer_range=0.3)
    return LlamaForCausalLM(shape).eval()


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    shape = GPT2Config(n_layer=2, n_head=2, n_embd=16, n_positions=24, vocab_size=V, initializer_range=0.4)
    return GPT2LMHeadModel(shape).eval()


def options(temperature: float = 0.0) -> dict:
    return {
        "sampling": Sampling(temperature),
        "generator": torch.Generator().manual_seed(3),
        "tell": lambda done, what: None,
    }


@pytest.fixture
def texts(generator: torch.Generator) -> Tensor:
    return torch.randint(V, (N, T), generator=generator)


def test_rows_of_the_batch_are_settings_and_texts(texts: Tensor) -> None:
    model = llama()
    found = read_cached(model, texts, SINKS, W, 6, samples=1, **options())
    assert found.places == list(range(1, T))
    losses = torch.tensor(found.losses)
    assert losses.shape == (3, N, T - 1)
    plain = row_losses(model, texts[:, :W]).expand(3, N, W - 1)  # so far the cache holds everything
    torch.testing.assert_close(losses[..., : W - 1], plain, rtol=1e-4, atol=1e-4)
    for s, sinks in enumerate(SINKS):
        for i in range(N):
            reader = SinkReader(model, [sinks], W)
            alone = stream_losses(reader, texts[i : i + 1], W)
            torch.testing.assert_close(losses[s, i, W - 1 :], alone[0], rtol=1e-4, atol=1e-4)
            reader = SinkReader(model, [sinks], W)
            reader.read(texts[i : i + 1, :W])
            for t in range(W, T - 1):
                reader.read(texts[i : i + 1, t : t + 1])
            written = stream_on(reader, texts[i : i + 1, -1:], 6, sampling=GREEDY)
            assert found.written[s][i] == written[0, 1:].tolist()


def test_reading_anew_scores_the_places_asked_for(texts: Tensor) -> None:
    model, places = gpt2(), [13, 30, 49]
    found = read_anew(model, texts, SINKS, W, 5, places=places, continued=2, **options())
    assert torch.tensor(found.written).shape == (3, 2, 5)
    for s, sinks in enumerate(SINKS):
        everywhere = stream_losses(ReencodingReader(model, [sinks] * N, W), texts, W)
        torch.testing.assert_close(
            torch.tensor(found.losses[s]), everywhere[:, [p - W for p in places]], rtol=1e-4, atol=1e-4
        )
        written = stream_on(ReencodingReader(model, [sinks] * 2, W), texts[:2], 5, sampling=GREEDY)
        assert found.written[s] == written[:, T:].tolist()


def test_everything_in_view(texts: Tensor, generator: torch.Generator) -> None:
    model = llama()
    written = torch.randint(V, (2, N, 6), generator=generator)
    found = read_in_full(model, texts, written, samples=1, **options())
    torch.testing.assert_close(torch.tensor(found.losses), row_losses(model, texts), rtol=1e-4, atol=1e-4)
    everything = {"attention_mask": torch.ones_like(texts), "pad_token_id": 0, "eos_token_id": None}
    own = model.generate(texts, max_new_tokens=6, do_sample=False, **everything)
    assert found.written == own[:, T:].tolist()
    for s, rows in enumerate([*written, torch.tensor(found.written)]):
        expected = row_losses(model, torch.cat([texts, rows], dim=1))[:, T - 1 :].mean(dim=1)
        torch.testing.assert_close(torch.tensor(found.judged[s]), expected, rtol=1e-4, atol=1e-4)


def test_a_context_shorter_than_the_text(texts: Tensor, generator: torch.Generator) -> None:
    """Losses up to the context; the judge reads the end of the text, as much as leaves room."""
    model = gpt2()
    written = torch.randint(V, (1, 2, 6), generator=generator)
    found = read_in_full(model, texts, written, samples=1, **options(1.0))
    torch.testing.assert_close(torch.tensor(found.losses), row_losses(model, texts[:, :24]), rtol=1e-4, atol=1e-4)
    whole = torch.cat([texts[:2, -18:], written[0]], dim=1)
    torch.testing.assert_close(
        torch.tensor(found.judged[0]), row_losses(model, whole)[:, 17:].mean(dim=1), rtol=1e-4, atol=1e-4
    )
    assert torch.tensor(found.written).shape == (2, 6)


def test_what_is_asked_of_a_study() -> None:
    """Losses that say where they come from: setting · 1000 + text · 100 + place."""
    places = list(range(4, 16))
    losses = [[[s * 1000.0 + i * 100 + p for p in places] for i in range(2)] for s in range(2)]
    full = [[5000.0 + i * 100 + p for p in range(1, 10)] for i in range(2)]
    bounded = Bounded(places, losses, [[[0]] * 2] * 2)
    study = StreamStudy((0, 2), 4, torch.zeros(2, 16), bounded, Unbounded(full, [[0]] * 2, [[0.0] * 2] * 3))
    assert study.places == list(range(5, 16)), "token 4 is the first after a full cache: nothing has gone yet"
    assert study.loss(2, [7]) == [1007, 1107]
    assert study.loss(0) == [10, 110]
    assert study.full_loss([7, 9]) == [5008, 5108]
    assert study.full_loss([9, 10]) is None
    assert study.full_loss() is None
    assert study.buckets() == [[5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15]]
    assert study.curve(2, 8) == [(3.5, [1005.5, 1105.5]), (11.5, [1011.5, 1111.5])]
    assert study.curve(None, 8) == [(3.5, [5004, 5104]), (11.5, [5008.5, 5108.5])]
