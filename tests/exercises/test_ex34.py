from dataclasses import replace

import pytest
import torch

from minigpt.evaluation.evaluate import evaluate
from minigpt.quantize import fake_quantize
from reports.types import Prose
from tasks.exercise import TrainedModel
from tasks.exercises.ex34_quantization.experiment import EXERCISE, curve, saved_size, torchao_dynamic
from tasks.exercises.ex34_quantization.findings import BITS, CHANNEL, Curve
from tasks.recipes.catalogue import LARGE, STUDENT
from tests.exercise_context import answered, assert_sound, make_context, measured


@pytest.fixture(scope="module")
def findings():
    return measured(EXERCISE)


def test_the_answer_is_sound(findings):
    answer = answered(EXERCISE, findings)
    assert_sound(EXERCISE, answer)
    assert answer.metrics["file_mib_int8"] < 0.5 * answer.metrics["file_mib_fp32"]


def test_noticeable_means_from_there_on_down():
    def first(*ratios: float) -> int | None:
        return Curve("", "", 10.0, {"m": tuple(10.0 * r for r in ratios)}).first_noticed("m")

    assert first(1.0, 1.0, 1.0, 1.01, 1.03, 1.5, 9.0) == 4
    assert first(1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0) is None
    assert first(1.03, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0) == 2  # a bump at 8 bits is noise
    assert first(2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0) == 8


def test_a_curve_over_seeds_is_the_mean_and_its_spread_that_of_the_ratios():
    context = make_context(EXERCISE)
    tokens = context.tokens(STUDENT)[:600]
    one = context.model(STUDENT)
    other = TrainedModel(**{**vars(one), "model": fake_quantize(one.model, 5)})  # as if of another seed
    found = curve([one, other], "two", [CHANNEL], tokens)
    four = BITS.index(4)
    whole = [evaluate(m.model, tokens).perplexity for m in (one, other)]
    coarse = [evaluate(fake_quantize(m.model, 4), tokens).perplexity for m in (one, other)]
    assert found.fp32 == pytest.approx(sum(whole) / 2)
    assert found.methods[CHANNEL][four] == pytest.approx(sum(coarse) / 2)
    ratios = torch.tensor([c / w for c, w in zip(coarse, whole, strict=True)], dtype=torch.float64)
    assert found.spread[CHANNEL][four] == pytest.approx(ratios.std().item())
    assert curve([one], "one", [CHANNEL], tokens).spread == {}


@pytest.mark.parametrize(("change", "said"), [(-6e-6, "less than 0.01%"), (0.0123, "+1.23%"), (-0.0123, "−1.23%")])
def test_small_changes_are_not_minus_nothing(findings, change, said):
    d = findings.deployment
    fp32, library, own, *others = d.versions
    own = replace(own, perplexity=fp32.perplexity * (1 + change))
    answer = answered(EXERCISE, replace(findings, deployment=replace(d, versions=(fp32, library, own, *others))))
    assert f"perplexity changes by {said}" in answer.summary


def test_speed_and_processor_in_words(findings):
    d = findings.deployment
    fp32, library, own = d.versions

    def said(ratio: float, *, slow_products: bool) -> str:
        timed = replace(own, read=replace(fp32.read, median=fp32.read.median / ratio))
        deployment = replace(d, versions=(fp32, library, timed), slow_products=slow_products)
        answer = answered(EXERCISE, replace(findings, deployment=deployment))
        return " ".join(block.text for block in answer.parts[1].blocks if isinstance(block, Prose)).replace("\n", " ")

    assert "and as fast as in fp32 (1.02) with this" in said(1.02, slow_products=True)
    assert "and 2.00 times as fast with this" in said(2.0, slow_products=True)
    assert "VNNI" not in said(2.0, slow_products=True)
    assert "and slower (0.50 times the speed) with this" in said(0.5, slow_products=False)
    assert "VNNI" not in said(0.5, slow_products=False)
    assert "VNNI" in said(0.5, slow_products=True)


@pytest.mark.parametrize(("high", "said"), [(2.1, True), (1.9, False)])
def test_overlapping_quartiles_of_decoding_are_a_hint(findings, high, said):
    d = findings.deployment
    fp32, library, own = d.versions[:3]
    timing = replace(fp32.decode, low=2.0, median=3.0, high=4.0)
    versions = (
        replace(fp32, decode=timing),
        replace(library, decode=replace(timing, low=0.5, median=0.6, high=0.7)),
        replace(own, decode=replace(timing, low=1.5, median=1.8, high=high)),
    )
    answer = answered(EXERCISE, replace(findings, deployment=replace(d, versions=versions, torchao=None)))
    text = " ".join(" ".join(b.text for b in answer.parts[1].blocks if isinstance(b, Prose)).split())
    assert ("decoding with this project's layer overlap with those of fp32" in text) == said


def test_torchao_stands_beside_where_it_is_installed(findings):
    d = findings.deployment
    fp32, library, own = d.versions[:3]
    newer = replace(library, key="torchao", label="torchao, dynamic int8", perplexity=1.5 * fp32.perplexity)
    absent = answered(EXERCISE, replace(findings, deployment=replace(d, versions=(fp32, library, own), torchao=None)))
    versions = (fp32, library, own, newer)
    present = answered(EXERCISE, replace(findings, deployment=replace(d, versions=versions, torchao="0.0")))
    texts = [
        " ".join(b.text for part in a.parts for b in part.blocks if isinstance(b, Prose)) for a in (absent, present)
    ]
    assert "is not installed here" in texts[0]
    assert "with torchao by +50.00%" in " ".join(texts[1].split())
    assert "perplexity_large_torchao" in present.metrics
    assert len(present.checks) == len(absent.checks) + 2


def test_torchao_quantises_each_block_matrix():
    pytest.importorskip("torchao")
    model = make_context(EXERCISE).model(LARGE).model
    quantised = torchao_dynamic(model)
    tokens = torch.arange(32)[None] % model.config.vocab_size
    with torch.inference_mode():
        off = (quantised(tokens) - model(tokens)).abs().max().item()
    assert 0 < off < 0.1 * model(tokens).std().item()
    assert saved_size(quantised) < 0.5 * saved_size(model)
