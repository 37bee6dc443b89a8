from dataclasses import replace

import pytest
import torch

from minigpt.config import GPTConfig
from minigpt.model import GPT
from tasks.exercises.ex05_weight_tying import experiment as ex05
from tests.exercise_context import answered, assert_sound, measured
from tests.exercises.formulas import assert_formulas, prose


@pytest.fixture(scope="module")
def findings():
    return measured(ex05.EXERCISE)


@pytest.fixture(scope="module")
def answer(findings):
    return answered(ex05.EXERCISE, findings)


def test_it_is_sound(answer):
    assert_sound(ex05.EXERCISE, answer)
    assert_formulas(answer)


def test_the_saving(answer):
    assert answer.metrics["saved_parameters"] == 38_597_376
    assert answer.metrics["saved_fp32_mib"] == pytest.approx(147.2373, abs=1e-4)
    assert answer.metrics["gpt2_small_parameters_tied"] == 124_439_808
    assert answer.metrics["gpt2_small_parameters_untied"] == 163_037_184


@pytest.mark.parametrize(
    ("own", "to_input", "to_output", "said"),
    [
        (0.1, 0.3, 0.5, "Hardly: in the models"),
        (0.4, 0.3, 0.5, "untied output matrix (0.50) more than the other (0.30; 95% interval +0.18 to +0.22, paired"),
        (0.7, 0.5, 0.3, "untied input matrix (0.50) more than the other (0.30; 95% interval −0.22 to −0.18, paired"),
    ],
)
def test_what_is_said_of_the_matrices_follows_the_correlations(findings, own, to_input, to_output, said):
    outputs = (to_output - 0.01, to_output, to_output + 0.01)
    likeness = dict(zip(findings.likeness, [(own,) * 3, (to_input,) * 3, outputs], strict=True))
    text = " ".join("\n".join(prose(answered(ex05.EXERCISE, replace(findings, likeness=likeness)))).split())
    assert said in text


def test_geometry_ignores_rotation_scale_and_shift(generator):
    a = torch.randn(20, 8, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=generator, dtype=torch.float64)).Q
    assert ex05.correlation(ex05.geometry(a), ex05.geometry(3 * a @ rotation + 1)) == pytest.approx(1)
    other = torch.randn(20, 8, generator=generator, dtype=torch.float64)
    assert abs(ex05.correlation(ex05.geometry(a), ex05.geometry(other))) < 0.3


def test_bigrams_by_hand():
    logs = ex05.log_bigrams(torch.tensor([0, 1, 0, 1, 1]), 2)
    rows = torch.tensor([[1 / 4, 3 / 4], [2 / 4, 2 / 4]]).log()
    torch.testing.assert_close(logs, rows - rows.mean(dim=1, keepdim=True))


def test_asymmetry(generator):
    a = torch.randn(9, 9, generator=generator)
    assert ex05.asymmetry(a + a.T) == 0
    assert ex05.asymmetry(a.triu(1)) == pytest.approx(1)


@pytest.mark.parametrize("tied", [True, False])
def test_the_direct_path_is_the_model_without_blocks(tied, generator):
    model = GPT(GPTConfig(n_layer=1, n_head=1, d_model=8, context=4, vocab_size=11, position="none", tie_weights=tied))
    model.blocks = torch.nn.ModuleList()
    model.final_norm = torch.nn.Identity()
    torch.testing.assert_close(model(torch.arange(11)[:, None])[:, 0], ex05.direct_path(model))
