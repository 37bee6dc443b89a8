"""On a CUDA device: the same numbers as on the processor, the same bits after a stop, and every variant trains."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from minigpt.cache import KVCache
from minigpt.config import GPTConfig
from minigpt.decoding.beam import beam_search
from minigpt.decoding.sampling import GREEDY, generate
from minigpt.decoding.speculative import speculate
from minigpt.decoding.watermark import KeyedGreenLists, Watermark, detect
from minigpt.evaluation.evaluate import evaluate
from minigpt.model import GPT
from minigpt.pretrained.finetune import Wrapped
from minigpt.quantize import to_int8
from minigpt.train import TrainConfig, TrainResult, train
from tests.minigpt.test_train import Stopped, same_results, stop_before

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device"),
]

BASE = GPTConfig(n_layer=2, n_head=4, d_model=64, context=64, vocab_size=61)
VARIANTS = {
    "learned": BASE,
    "rope-gqa": replace(BASE, position="rope", n_kv_head=2),
    "rope-mqa-window": replace(BASE, position="rope", n_kv_head=1, window=16),
    "sinusoidal-post-untied": replace(BASE, position="sinusoidal", norm="post", tie_weights=False),
    "heads": replace(BASE, n_future=4),
}
OBJECTIVES = {
    "causal": BASE,
    "masked": BASE,
    "prefix": BASE,
    "distill": BASE,
    "multi_token": replace(BASE, n_future=4),
    "window": replace(BASE, position="rope", window=16),
}


@pytest.fixture(autouse=True)
def full_precision() -> Iterator[None]:
    """Parity in fp32 needs products in fp32, not TF32; it is PyTorch's default, and asserted here."""
    assert not torch.backends.cuda.matmul.allow_tf32
    yield
    torch.cuda.empty_cache()


def model_of(config: GPTConfig) -> GPT:
    torch.manual_seed(0)
    return GPT(config).eval()


def text(length: int) -> torch.Tensor:
    """A text with something to learn: 40 sorts of five-letter words in random order."""
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(61, (40, 5), generator=generator)
    return words[torch.randint(40, (length // 5,), generator=generator)].flatten()


def trained(config: GPTConfig, device: str, objective: str = "causal", **fields: object) -> TrainResult:
    tokens = text(20_000)
    tc = TrainConfig(**{"steps": 40, "batch_size": 8, "objective": objective, **fields})  # type: ignore[arg-type]
    teacher = model_of(replace(config, n_layer=3)) if objective == "distill" else None
    return train(config, tc, tokens[:18_000], tokens[18_000:], seed=3, device=device, teacher=teacher)


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_and_loss_are_those_of_the_processor(name: str) -> None:
    model, tokens = model_of(VARIANTS[name]), text(640).view(10, 64)
    expected, loss = model(tokens), evaluate(model, tokens.flatten()).nats_per_token
    model.cuda()
    torch.testing.assert_close(model(tokens.cuda()).cpu(), expected, atol=1e-4, rtol=1e-4)
    assert evaluate(model, tokens.flatten().cuda()).nats_per_token == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_cached_decoding_is_uncached_decoding(name: str) -> None:
    model, tokens = model_of(VARIANTS[name]).cuda(), text(160).view(4, 40).cuda()
    cache = KVCache(model.config, 4, 40, device="cuda")
    pieces = [model(piece, cache=cache) for piece in tokens.split([17, 1, 1, 21], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens), atol=1e-4, rtol=1e-4)


def test_greedy_speculation_and_beams_agree_with_the_processor() -> None:
    target, draft, prompt = model_of(BASE), model_of(replace(BASE, n_layer=1)), text(10)[None]
    greedy = generate(target, prompt, 30, sampling=GREEDY)
    best = [hypothesis.tokens for hypothesis in beam_search(target, prompt[0], 12, beams=3)]
    target.cuda(), draft.cuda()
    assert torch.equal(generate(target, prompt.cuda(), 30, sampling=GREEDY).cpu(), greedy)
    assert torch.equal(speculate(target, draft, prompt.cuda(), 30, sampling=GREEDY).tokens.cpu(), greedy)
    found = [hypothesis.tokens.cpu() for hypothesis in beam_search(target, prompt[0].cuda(), 12, beams=3)]
    assert all(torch.equal(a, b) for a, b in zip(found, best, strict=True))


def test_the_processor_detects_a_watermark_written_on_the_device() -> None:
    lists = KeyedGreenLists(key=1, vocab_size=61, size=30)
    marks, prompt = Watermark(lists, 1, 8.0), text(10)[None].cuda()
    marked = generate(model_of(BASE).cuda(), prompt, 50, processors=[marks])[:, 10:]
    for tokens in (marked, marked.cpu()):
        assert detect(tokens, lists, 1, lists.fraction).z.item() > 4


@pytest.mark.parametrize("rows", [1, 16, 17, 40])
def test_int8_products_are_those_of_the_processor(rows: int) -> None:
    model = to_int8(model_of(BASE))
    tokens = text(5 * 40)[:rows].view(1, rows)
    expected = model(tokens)
    torch.testing.assert_close(model.cuda()(tokens.cuda()).cpu(), expected, atol=2e-2, rtol=0)


def test_training_in_fp32_follows_the_processor() -> None:
    here, there = trained(BASE, "cuda"), trained(BASE, "cpu")
    assert here.history["train_loss"][:10] == pytest.approx(there.history["train_loss"][:10], abs=1e-3)
    assert here.evaluations["validation_loss"][-1] == pytest.approx(there.evaluations["validation_loss"][-1], abs=0.05)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.filterwarnings("error:.*determinis.*:UserWarning")
def test_every_objective_trains_compiled_in_bf16(name: str) -> None:
    objective = name if name != "window" else "causal"
    plain = trained(OBJECTIVES[name], "cuda", objective)
    fast = trained(OBJECTIVES[name], "cuda", objective, precision="bf16", compile=True)
    losses, expected = fast.history["train_loss"], plain.history["train_loss"]
    assert losses[-1] < losses[0] - 0.1  # hidden tokens are learned slowly
    assert losses[-1] == pytest.approx(expected[-1], abs=0.15)
    assert all(weight.dtype == torch.float32 and weight.is_cuda for weight in fast.model.parameters())


@pytest.mark.filterwarnings("error:.*determinis.*:UserWarning")
@pytest.mark.parametrize("fields", [{}, {"precision": "bf16"}, {"precision": "bf16", "compile": True}], ids=str)
def test_stopped_and_taken_up_again_it_ends_with_the_same_bits(
    fields: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, config = text(20_000), replace(BASE, dropout=0.1)
    tc = TrainConfig(steps=40, batch_size=8, **fields)  # type: ignore[arg-type]

    def run(directory: Path | None) -> TrainResult:
        data = (tokens[:18_000], tokens[18_000:])
        return train(config, tc, *data, seed=3, device="cuda", checkpoint_dir=directory, checkpoint_seconds=0.0)

    expected = run(None)
    with monkeypatch.context() as patch:
        stop_before(23, patch)
        with pytest.raises(Stopped):
            run(tmp_path)
    assert same_results(run(tmp_path), expected)


def test_a_model_of_transformers_is_trained_further() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    llama = LlamaForCausalLM(LlamaConfig(vocab_size=61, num_key_value_heads=2, max_position_embeddings=64, **sizes))
    wrapped, tokens = Wrapped(llama, 32), text(20_000)
    tc = TrainConfig(steps=40, batch_size=8, learning_rate=3e-3, precision="bf16")
    found = train(wrapped.config, tc, tokens[:18_000], tokens[18_000:], seed=0, device="cuda", start=wrapped)
    assert found.evaluations["validation_loss"][-1] < found.evaluations["validation_loss"][0] - 0.1
