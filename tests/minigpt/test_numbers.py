"""Numbers that are not, tokens that are none: each is refused by name, or gets the right answer. Nothing in between."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from minigpt.cache import KVCache
from minigpt.config import GPTConfig
from minigpt.cost import counting, generation, scaling_laws
from minigpt.data import Windows
from minigpt.decoding import contrastive, infill, prefix, streaming, watermark
from minigpt.decoding.beam import beam_search
from minigpt.decoding.packed import pack
from minigpt.decoding.penalties import banned, repetition_penalty
from minigpt.decoding.sampling import GREEDY, Sampling, generate, sample, temperature_warp
from minigpt.decoding.self_speculation import self_speculate
from minigpt.decoding.speculative import draw, expected_speedup, expected_tokens, speculate
from minigpt.evaluation import curves, diversity, entropy, evaluate, excerpts, extrapolation, quality, statistics
from minigpt.masks import causal_mask, prefix_mask, window_mask
from minigpt.model import GPT
from minigpt.objectives import OBJECTIVES
from minigpt.optimizers import orthogonalized
from minigpt.positions import rope_tables, sinusoidal
from minigpt.quantize import quantize
from minigpt.train import Shape, TrainConfig, train
from tests.fuzz import junk

V = 7
CONFIG = GPTConfig(n_layer=1, n_head=2, d_model=8, context=12, vocab_size=V)
TOKENS = torch.arange(40) % V
NAN, INF = math.nan, math.inf
quiet = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


def made(config: GPTConfig = CONFIG, seed: int = 0) -> GPT:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT(config).eval()


MODEL, OTHER = made(), made(seed=1)
HEADS = made(replace(CONFIG, n_future=3))


# --- configurations ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("position", "alibi", "learned, rope, sinusoidal, none"),
        ("norm", "x", "pre, post"),
        ("activation", None, "gelu, relu2"),
        ("context", 10.5, "a whole number from 1 up"),
        ("context", True, "a whole number from 1 up"),
        ("n_layer", "2", "a whole number from 1 up"),
        ("d_ff", 0, "a whole number from 1 up"),
        ("d_ff", -4, "a whole number from 1 up"),
        ("n_kv_head", 1.0, "a whole number from 1 up"),
        ("window", 2.5, "a whole number from 1 up"),
        ("vocab_size", NAN, "a whole number from 0 up"),
        ("dropout", NAN, r"\[0, 1\)"),
        ("dropout", "0", r"\[0, 1\)"),
        ("rope_base", INF, "a positive finite number"),
        ("rope_scale", 0, "a positive finite number"),
        ("bias", 1, "True or False"),
        ("tie_weights", "no", "True or False"),
        ("qk_norm", None, "True or False"),
    ],
)
def test_a_shape_that_cannot_be_is_refused_by_name(field: str, value: object, allowed: str) -> None:
    with pytest.raises(ValueError, match=rf"{field}.*{allowed}") as refused:
        replace(CONFIG, **{field: value})
    assert str(value) in str(refused.value)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("steps", 10.0, "a whole number from 1 up"),
        ("steps", True, "a whole number from 1 up"),
        ("batch_size", None, "a whole number from 1 up"),
        ("warmup_steps", 0.5, "a whole number from 0 up"),
        ("eval_every", "3", "a whole number from 1 up"),
        ("learning_rate", "fast", "a finite number from 0 up"),
        ("muon_learning_rate", None, "a finite number from 0 up"),
        ("weight_decay", True, "a finite number from 0 up"),
        ("beta1", NAN, r"\[0, 1\)"),
        ("min_learning_rate_ratio", [], r"\[0, 1\]"),
        ("compile", 1, "True or False"),
        ("objective", [], ", ".join(OBJECTIVES)),
        ("optimizer", "sgd", "adamw, muon"),
        ("precision", "fp16", "fp32, bf16"),
        ("objective_args", 3, "pairs"),
        ("objective_args", [["tau", 1.0]], "tuple"),
        ("objective_args", (("tau", 0.0),), "a positive finite number"),
        ("objective_args", (("alpha", 1.5),), r"\[0, 1\]"),
        ("objective_args", (("rate", NAN),), r"\(0, 1\]"),
        ("objective_args", (("prefix", -1),), "a whole number from 0 up"),
        ("objective_args", (("reduction", "max"),), "sum, mean"),
        ("objective_args", (("alhpa", 0.5),), "alpha"),
    ],
)
def test_a_training_that_cannot_be_is_refused_by_name(field: str, value: object, allowed: str) -> None:
    with pytest.raises(ValueError, match=rf"{field.removesuffix('_args')}.*{allowed}"):
        TrainConfig(**({"steps": 1} | {field: value}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tc", "message"),
    [
        (TrainConfig(steps=1, objective="prefix", objective_args=(("prefix", 13),)), "from 0 to 12.*13"),
        (TrainConfig(steps=1, objective="masked", objective_args=(("mask_token", 7),)), "from 0 to 6.*7"),
    ],
)
def test_numbers_of_an_objective_that_do_not_fit_the_model(tc: TrainConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(CONFIG, tc, TOKENS, TOKENS, seed=0)


# --- logits -----------------------------------------------------------------------------------------------------

extremes = st.sampled_from([NAN, INF, -INF, 0.0, -0.0, 3.4e38, -3.4e38, 1e-45])
logit_rows = st.lists(
    st.lists(st.one_of(extremes, st.floats(-60, 60, width=32)), min_size=5, max_size=5), min_size=1, max_size=3
)
samplings = st.builds(
    Sampling,
    temperature=st.one_of(st.sampled_from([0.0, 1.0, 1e-38, 1e-45, 1e-320, 1e30]), st.floats(0, 10)),
    top_k=st.integers(0, 7),
    top_p=st.floats(0, 1),
)


@settings(quiet, max_examples=500)
@example([[NAN, 0.0, 0.0, 0.0, 0.0]], GREEDY)
@example([[-INF] * 5], GREEDY)
@example([[-INF] * 5], Sampling(1e-38))
@example([[0.0, 1.0, 2.0, 3.0, 4.0]], Sampling(1e-320))
@given(rows=logit_rows, sampling=samplings)
def test_a_token_is_drawn_from_every_distribution_and_from_nothing_else(
    rows: list[list[float]], sampling: Sampling
) -> None:
    logits = torch.tensor(rows)
    sound = not any(math.isnan(x) for row in rows for x in row) and all(max(row) > -INF for row in rows)
    try:
        drawn = sample(logits, sampling, torch.Generator().manual_seed(0))
    except ValueError as error:
        assert not sound, rows
        assert "logits must" in str(error)
        return
    assert sound, rows
    assert drawn.shape == (len(rows),)
    for row, token in zip(rows, drawn.tolist(), strict=True):
        assert row[token] > -INF
        if sampling.temperature < 1e-60 or max(row) == INF:
            assert np.float32(row[token]) == max(map(np.float32, row))  # the limit: a largest one


@pytest.mark.parametrize("temperature", [1e-37, 1e-38, 1e-44, 1e-300, 5e-324])
def test_a_tiny_temperature_takes_the_largest_and_shares_among_ties(temperature: float) -> None:
    logits = torch.tensor([[1.0, 3.0, 3.0, -2.0], [5.0, 1.0, -80.0, 4.999]])
    expected = torch.tensor([[0.0, 0.5, 0.5, 0.0], [1.0, 0.0, 0.0, 0.0]])
    assert torch.equal(temperature_warp(logits, temperature).softmax(-1), expected)
    assert torch.equal(temperature_warp(logits.double(), temperature).softmax(-1), expected.double())
    drawn = sample(logits.expand(500, 2, 4), Sampling(temperature), torch.Generator().manual_seed(0))
    assert set(drawn[:, 0].tolist()) == {1, 2}
    assert set(drawn[:, 1].tolist()) == {0}


@pytest.mark.parametrize("logits", [torch.zeros(2, 0), torch.zeros(2, 3, dtype=torch.long), torch.tensor(1.0)], ids=str)
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.5, 2, 0.5)])
def test_what_holds_no_logits(logits: Tensor, sampling: Sampling) -> None:
    with pytest.raises(ValueError, match="logits must be"):
        sample(logits, sampling)


@pytest.mark.parametrize("number", [NAN, INF, -INF, -1, "1", None, True])
@pytest.mark.parametrize("field", ["temperature", "top_k", "top_p"])
def test_how_to_sample(field: str, number: object) -> None:
    with pytest.raises(ValueError, match=f"^{field} must be .*, got "):
        Sampling(**{field: number})  # type: ignore[arg-type]


def broken() -> GPT:
    model = made()
    with torch.no_grad():
        model.final_norm.bias[3] = NAN
    return model


PROMPT = torch.tensor([[1, 2, 3]])
WRITERS: dict[str, Callable[[GPT, Tensor, Any], object]] = {
    "greedy": lambda m, p, n: generate(m, p, n, sampling=GREEDY),
    "sampled": lambda m, p, n: generate(m, p, n),
    "without cache": lambda m, p, n: generate(m, p, n, use_cache=False),
    "nucleus": lambda m, p, n: generate(m, p, n, sampling=Sampling(0.7, 3, 0.5)),
    "beams": lambda m, p, n: beam_search(m, p[0], n, beams=3),
    "target": lambda m, p, n: speculate(m, OTHER, p, n),
    "draft": lambda m, p, n: speculate(OTHER, m, p, n),
    "several heads": lambda m, p, n: self_speculate(m, p, n),
    "prefix": lambda m, p, n: prefix.complete(m, p, n),
    "left to right": lambda m, p, n: infill.write_left_to_right(m, p, n),
    "any order": lambda m, p, n: infill.write_in_any_order(m, p, n),
    "packed": lambda m, p, n: generate(pack(m), p, n),
    "contrasted": lambda m, p, n: generate(OTHER, p, n, processors=(contrastive.Contrastive(m, 0.5),)),
}


@pytest.mark.parametrize("way", WRITERS)
def test_a_broken_model_writes_nothing(way: str) -> None:
    with pytest.raises(ValueError, match=r"logits must be numbers.*nan"):
        WRITERS[way](broken(), PROMPT, 4)


@pytest.mark.parametrize("way", WRITERS)
@pytest.mark.parametrize("count", [-1, 1.5, None, NAN, "4", True])
def test_how_much_to_write(way: str, count: object) -> None:
    with pytest.raises(ValueError, match=r"^n_new must be a whole number from [01] up, got "):
        WRITERS[way](MODEL, PROMPT, count)


@pytest.mark.parametrize("way", WRITERS)
@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (torch.tensor([[1, 7]]), "from 0 to 6, got 7"),
        (torch.tensor([[-1, 2]]), "from 0 to 6, got -1"),
        (torch.tensor([[1.0, 2.0]]), "must be int64"),
        (torch.zeros(1, 0, dtype=torch.long), ">= 1"),
    ],
    ids=["beyond", "negative", "floats", "empty"],
)
def test_what_to_continue(way: str, prompt: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WRITERS[way](MODEL, prompt, 4)


@pytest.mark.parametrize("way", [way for way in WRITERS if way != "beams"])
def test_to_write_nothing_is_not_much(way: str) -> None:
    text: Any = WRITERS[way](MODEL, PROMPT, 0)
    assert torch.equal(getattr(text, "tokens", text), PROMPT)


@pytest.mark.parametrize("limit", [0, -2, 2.5, "3", True, NAN])
def test_a_limit_is_a_number_of_tokens(limit: Any) -> None:
    with pytest.raises(ValueError, match="limit must be a whole number from 1 up"):
        generate(MODEL, PROMPT, 3, limit=limit)
    with pytest.raises(ValueError, match="limit must be a whole number from 1 up"):
        beam_search(MODEL, PROMPT[0], 3, beams=2, limit=limit)


def test_a_limit_of_one_sees_one_token() -> None:
    text = generate(MODEL, PROMPT, 5, sampling=GREEDY, limit=1)[0]
    for before, after in itertools.pairwise(text[2:].tolist()):
        assert MODEL(torch.tensor([[before]]))[0, -1].argmax() == after


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"beams": 2.0}, "beams must be a whole number from 1 up"),
        ({"end": V}, "end must be a whole number from 0 to 6, got 7"),
        ({"end": -1}, "end must be"),
        ({"length_penalty": NAN}, "length_penalty must be"),
        ({"length_penalty": 1e6}, "length_penalty must be a number to which 4 can be raised, got"),
    ],
)
def test_how_to_search(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        beam_search(MODEL, PROMPT[0], 4, **({"beams": 2} | changed))


def test_beams_in_a_vocabulary_of_one() -> None:
    [only] = beam_search(made(replace(CONFIG, vocab_size=1)), torch.zeros(2, dtype=torch.long), 3, beams=4)
    assert only.tokens.tolist() == [0] * 5
    assert only.log_probability == 0.0


def test_all_tokens_banned() -> None:
    for sampling in (GREEDY, Sampling(), Sampling(0.5, 3, 0.9), Sampling(1e-38)):
        with pytest.raises(ValueError, match="leave one token to draw, got -inf for all"):
            generate(MODEL, PROMPT, 2, sampling=sampling, processors=(banned(range(V)),))
    for wrong in ([-1], [1.5], ["a"]):
        with pytest.raises(ValueError, match="each banned token must be a whole number from 0 up"):
            banned(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="each banned token must be from 0 to 6, got 7"):
        generate(MODEL, PROMPT, 2, processors=(banned([2, 7]),))


def test_what_the_expert_has_removed_stays_removed() -> None:
    expert, amateur = torch.tensor([[1.0, -INF, 2.0, -INF]]), torch.tensor([[0.0, -INF, 4.0, 1.0]])
    assert contrastive.contrast(expert, amateur, 0.5).tolist() == [[1.0, -INF, 0.0, -INF]]


def test_a_token_outside_the_vocabulary_is_named() -> None:
    for tokens, wrong in (([[1, V]], "7"), ([[-2, 1]], "-2")):
        with pytest.raises(ValueError, match=f"tokens must be from 0 to 6, got {wrong}"):
            MODEL(torch.tensor(tokens))


# --- everything else that takes numbers -------------------------------------------------------------------------

LISTS = watermark.KeyedGreenLists(3, V, 3)
RANDOM = torch.Generator().manual_seed(0)


def test_a_watermark_in_no_text_and_in_foreign_tokens() -> None:
    nothing = watermark.detect(torch.zeros(0, 9, dtype=torch.long), LISTS, 2, 3 / 7)
    assert [tuple(getattr(nothing, field).shape) for field in ("scored", "green", "z", "p_value")] == [(0,)] * 4
    for tokens, wrong in (([[0, 1, 2, 7]], 7), ([[0, -1, 2, 3]], -1)):
        with pytest.raises(ValueError, match=f"tokens must be from 0 to 6, got {wrong}"):
            watermark.detect(torch.tensor(tokens), LISTS, 2, 3 / 7)
    with pytest.raises(ValueError, match="tokens must be int64"):
        watermark.detect(torch.zeros(1, 9), LISTS, 2, 3 / 7)
    none = torch.zeros(0, dtype=torch.long)
    assert watermark.binomial_tail(none, none, 0.5).shape == (0,)


def test_divergence_from_what_is_no_number() -> None:
    p = torch.tensor([NAN, 0.5])
    assert entropy.kl_divergence(p, torch.tensor([0.5, 0.5])).isnan()
    assert entropy.kl_divergence(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0])) == 0


def test_a_loss_beyond_all_floats() -> None:
    assert evaluate.Evaluation(1e4, 3).perplexity == INF
    assert evaluate.Evaluation(2.0, 3).perplexity == math.exp(2.0)


CALLS: dict[str, Callable[[Any], object]] = {
    "KVCache batch": lambda x: KVCache(CONFIG, x, 4),
    "KVCache capacity": lambda x: KVCache(CONFIG, 1, x),
    "causal_mask": causal_mask,
    "causal_mask keys": lambda x: causal_mask(2, x),
    "window_mask": lambda x: window_mask(4, x),
    "prefix_mask": lambda x: prefix_mask(4, x),
    "Windows": lambda x: Windows(TOKENS, x, 0),
    "Windows step": lambda x: Windows(TOKENS, 5, 0).batch(x, 2),
    "Windows size": lambda x: Windows(TOKENS, 5, 0).batch(0, x),
    "Shape": lambda x: Shape(x, 4),
    "Shape dropout": lambda x: Shape(4, 4, x),
    "sinusoidal": lambda x: sinusoidal(torch.arange(3), x),
    "rope_tables": lambda x: rope_tables(torch.arange(3), x),
    "rope_tables base": lambda x: rope_tables(torch.arange(3), 4, x),
    "quantize": lambda x: quantize(torch.ones(2, 2), x),
    "quantize weight": lambda x: quantize(torch.tensor([[1.0, x if isinstance(x, float) else 0.0]]), 8),
    "orthogonalized": lambda x: orthogonalized(torch.ones(1, 2, 2), x),
    "token_losses context": lambda x: evaluate.token_losses(MODEL, TOKENS, x),
    "token_losses batch": lambda x: evaluate.token_losses(MODEL, TOKENS, None, x),
    "token_losses stride": lambda x: evaluate.token_losses(MODEL, TOKENS, stride=x),
    "losses_by_bucket length": lambda x: extrapolation.losses_by_bucket(MODEL, TOKENS, x, 2),
    "losses_by_bucket bucket": lambda x: extrapolation.losses_by_bucket(MODEL, TOKENS, 12, x),
    "losses_by_bucket restart": lambda x: extrapolation.losses_by_bucket(MODEL, TOKENS, 12, 4, restart=x),
    "continuation_nll": lambda x: quality.continuation_nll(MODEL, TOKENS[:12].view(2, 6), x),
    "continuation_nll batch": lambda x: quality.continuation_nll(MODEL, TOKENS[:12].view(2, 6), 2, x),
    "suffix_losses": lambda x: prefix.suffix_losses(MODEL, TOKENS[:12].view(2, 6), x),
    "fill_both_ways": lambda x: infill.fill_both_ways(MODEL, PROMPT, x),
    "fill_from_the_left": lambda x: infill.fill_from_the_left(MODEL, PROMPT, x),
    "fill_by_scoring": lambda x: infill.fill_by_scoring(MODEL, PROMPT, x),
    "speculate": lambda x: speculate(MODEL, OTHER, PROMPT, 2, gamma=x),
    "expected_tokens": lambda x: expected_tokens(x, 2),
    "expected_tokens gamma": lambda x: expected_tokens(0.5, x),
    "expected_speedup": lambda x: expected_speedup(0.5, 2, x),
    "expected_speedup cost": lambda x: expected_speedup(0.5, 2, 0.1, x),
    "draw": lambda x: draw(torch.tensor([[[1.0, float(x)]]]) if isinstance(x, float) else torch.zeros(1, 1, 2)),
    "repetition_penalty": lambda x: repetition_penalty(x if isinstance(x, float) else -1.0),
    "plausible": lambda x: contrastive.plausible(torch.zeros(1, 3), x),
    "contrast": lambda x: contrastive.contrast(torch.zeros(1, 3), torch.ones(1, 3), x),
    "contrast plausibility": lambda x: contrastive.contrast(torch.zeros(1, 3), torch.ones(1, 3), 0.5, x),
    "green key": lambda x: watermark.KeyedGreenLists(x, V, 3)(torch.zeros(1, 1, dtype=torch.long)),
    "green size": lambda x: watermark.KeyedGreenLists(1, V, x),
    "green vocabulary": lambda x: watermark.KeyedGreenLists(1, x, 3),
    "watermark width": lambda x: watermark.Watermark(LISTS, x, 1.0),
    "watermark delta": lambda x: watermark.Watermark(LISTS, 1, x),
    "detect width": lambda x: watermark.detect(TOKENS.view(4, 10), LISTS, x, 3 / 7),
    "detect fraction": lambda x: watermark.detect(TOKENS.view(4, 10), LISTS, 1, x),
    "SinkCache": lambda x: streaming.SinkCache([0], x, torch.ones(2)),
    "SinkCache sinks": lambda x: streaming.SinkCache([x], 8, torch.ones(2)),
    "compare": lambda x: statistics.compare([1.0, 2.0], [x, 1.0]) if isinstance(x, float) else None,
    "compare confidence": lambda x: statistics.compare([1.0, 2.0], [3.0, 5.0], confidence=x),
    "student_t_quantile": lambda x: statistics.student_t_quantile(0.9, x) if isinstance(x, float) else None,
    "smoothed": lambda x: curves.smoothed([1.0, 2.0], [3.0, 4.0], x),
    "ngrams": lambda x: diversity.ngrams("abc", x),
    "windows": lambda x: excerpts.windows(TOKENS, x, 3),
    "windows length": lambda x: excerpts.windows(TOKENS, 2, x),
    "places": lambda x: excerpts.places(0, 9, x),
    "places last": lambda x: excerpts.places(3, x, 2),
    "spread_starts": lambda x: excerpts.spread_starts("so many words here", x, 9),
    "unigram_loss": lambda x: entropy.unigram_loss(TOKENS, TOKENS, x),
    "attended_pairs": lambda x: counting.attended_pairs(2, x),
    "attended_pairs window": lambda x: counting.attended_pairs(2, 3, x),
    "forward_flops": lambda x: counting.forward_flops(CONFIG, 1, x),
    "forward_flops cached": lambda x: counting.forward_flops(CONFIG, 1, 2, cached=x),
    "kv_cache_bytes": lambda x: counting.kv_cache_bytes(CONFIG, 1, x),
    "generation_flops": lambda x: generation.generation_flops(CONFIG, x, 3),
    "kaplan_loss": lambda x: scaling_laws.kaplan_loss(x, 1e9),
    "hoffmann_loss": lambda x: scaling_laws.hoffmann_loss(1e9, x),
    "besiroglu_loss": lambda x: scaling_laws.besiroglu_loss(x, x),
}
LARGE = ("KVCache batch", "KVCache capacity", "causal_mask", "causal_mask keys", "Windows step", "Windows size")
LARGE += ("sinusoidal", "rope_tables", "orthogonalized", "green vocabulary", "excerpts", "attended_pairs", "SinkCache")
LARGE += (
    "places",
    "unigram_loss",
    "window_mask",
    "token_losses context",
    "token_losses batch",
    "expected_tokens gamma",
)
LARGE += ("continuation_nll batch", "generation_flops", "forward_flops", "forward_flops cached", "speculate")


@pytest.mark.parametrize("name", CALLS)
@settings(quiet, max_examples=40)
@example(value=NAN)
@example(value=-1)
@example(value=0)
@example(value="3")
@example(value=True)
@given(value=junk)
def test_any_value_gets_an_answer_or_a_sentence(name: str, value: Any) -> None:
    if name in LARGE and isinstance(value, int) and value > 1000:
        return  # a legal number, and more memory or time than there is
    try:
        answer = CALLS[name](value)
    except ValueError as error:
        assert 0 < len(str(error)) < 600  # a number of 400 digits is shown as it is
        return
    if isinstance(value, float) and math.isnan(value):
        assert answer is None, f"{name} took nan and gave {answer}"
