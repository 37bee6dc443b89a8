from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from minigpt.config import GPTConfig
from minigpt.cost.generation import CostModel, generation_flops, step_flops
from minigpt.model import GPT

CONFIG = GPTConfig(n_layer=2, n_head=4, d_model=16, context=32, vocab_size=11)


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, n_kv_head=2, d_ff=40)], ids=["plain", "grouped"])
def test_flops_in_closed_form_are_those_torch_counts(config):
    model = GPT(config).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 20, dtype=torch.long), last_only=True, maps=[])
    assert counter.get_total_flops() == step_flops(config, 20, 20)


def test_flops_of_a_generation_are_the_sum_of_its_steps():
    uncached, cached = generation_flops(CONFIG, 3, 2)
    assert uncached == step_flops(CONFIG, 3, 3) + step_flops(CONFIG, 4, 4)
    assert cached == step_flops(CONFIG, 3, 3) + step_flops(CONFIG, 1, 4)


def test_the_cost_model_recovers_the_machine_it_was_fitted_on():
    truth = CostModel(overhead=1e-3, rate=1e9)
    times = [truth.overhead + step_flops(CONFIG, *shape) / truth.rate for shape in ((1, 16), (32, 32))]
    fitted = CostModel.fit(CONFIG, *times)
    assert fitted.overhead == pytest.approx(truth.overhead)
    assert fitted.rate == pytest.approx(truth.rate)


def test_a_generation_takes_its_flops_and_a_machine_s_overhead_for_each_step():
    flops = generation_flops(CONFIG, 4, 20)
    assert CostModel(0.0, 1e9).seconds(CONFIG, 4, 20) == pytest.approx([f / 1e9 for f in flops])
    assert CostModel(1e-3, 1e9).seconds(CONFIG, 4, 20) == pytest.approx([0.02 + f / 1e9 for f in flops])
