"""Drawing from the largest logits only, and several ways in one batch, against the plain way to the same."""

import pytest
import torch
from scipy.stats import chisquare

from minigpt.decoding.penalties import repetition_penalty
from minigpt.decoding.recording import Recorder
from minigpt.decoding.sampling import GREEDY, PLAIN, Sampling, warp
from minigpt.decoding.side_by_side import CANDIDATES, draw, side_by_side
from minigpt.pretrained.causal_lm import continue_text, row_losses
from tests.exercise_context import tiny_pretrained

WAYS = [
    Sampling(top_k=50),
    Sampling(top_p=0.92),
    Sampling(top_p=0.7, temperature=0.9),
    Sampling(top_k=20, top_p=0.8, temperature=1.3),
    Sampling(temperature=0.7),
    PLAIN,
]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("spread", [0.5, 2.0])  # flat: no nucleus among the candidates; peaked: all of it there
@pytest.mark.parametrize("way", WAYS)
def test_it_draws_from_the_warped_distribution(way, spread):
    V, times = 2 * CANDIDATES, 4_000
    logits = spread * torch.randn(V, generator=generator())
    p = warp(logits, way).softmax(-1)
    drawn = draw(logits.expand(times, V).contiguous(), way, generator(1))
    assert bool((p[drawn] > 0).all()), "drawn from what is removed"
    counts = torch.bincount(drawn, minlength=V).double()
    large = p * times >= 5
    observed = torch.cat([counts[large], counts[~large].sum()[None]])
    expected = torch.cat([p[large].double(), p[~large].double().sum()[None]])
    kept = expected > 1e-9
    assert chisquare(observed[kept], expected[kept] / expected[kept].sum() * times).pvalue > 1e-3


def test_rows_whose_largest_do_not_hold_enough_are_drawn_all_the_same():
    V = 4 * CANDIDATES
    logits = torch.stack([torch.zeros(V), 10 * torch.randn(V, generator=generator())])
    drawn = torch.stack([draw(logits, Sampling(top_p=0.9), generator(seed)) for seed in range(200)])
    assert len(drawn[:, 0].unique()) > 150, "uniform over a nucleus beyond the candidates"
    assert set(drawn[:, 1].tolist()) <= set(warp(logits[1], Sampling(top_p=0.9)).isfinite().nonzero()[:, 0].tolist())


@pytest.mark.parametrize("way", [Sampling(top_p=0.0), Sampling(top_k=5, top_p=0.0), Sampling(1e-40, top_k=5)], ids=str)
def test_where_one_token_is_left_it_is_the_likeliest(way):
    logits = torch.randn(3, 2 * CANDIDATES, generator=generator())
    assert torch.equal(draw(logits, way, generator(1)), logits.argmax(dim=-1))


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_each_way_writes_what_it_writes_alone(architecture):
    """Greedy rows among others, with a penalty for one half of them, against one batch each."""
    model = tiny_pretrained(architecture).model
    prompt = torch.randint(1_000, (3, 7), generator=generator())
    strengths = torch.tensor([1.0, 1.3, 1.0]).repeat_interleave(3)
    recorder = Recorder()
    ways = [GREEDY, GREEDY, Sampling(top_p=0.9)]
    processors = [recorder, repetition_penalty(strengths)]
    found = side_by_side(model, prompt, 9, ways, generator=generator(), processors=processors)
    assert torch.equal(found[:3], continue_text(model, prompt, 9, sampling=GREEDY))
    assert torch.equal(
        found[3:6], continue_text(model, prompt, 9, sampling=GREEDY, processors=[repetition_penalty(1.3)])
    )
    assert torch.equal(found[6:, :7], prompt)
    torch.testing.assert_close(recorder.losses(found), row_losses(model, found)[:, 6:], atol=1e-4, rtol=0)


def test_texts_beyond_the_context_are_refused():
    model = tiny_pretrained("gpt2").model
    with pytest.raises(ValueError, match="beyond the context of 512"):
        side_by_side(model, torch.ones(1, 500, dtype=torch.long), 13, [GREEDY], generator=generator())
