"""Several heads: one head is the baseline bit for bit, and drafting for oneself changes nothing but the passes."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from minigpt.config import GPTConfig
from minigpt.decoding.sampling import GREEDY, PLAIN, Sampling, generate, warp
from minigpt.decoding.self_speculation import self_speculate
from minigpt.model import GPT
from minigpt.objectives import OBJECTIVES
from minigpt.train import TrainConfig, train

CONFIG = GPTConfig(n_layer=2, n_head=2, d_model=16, context=16, vocab_size=7, position="rope")


def lively(config: GPTConfig) -> GPT:
    """A model whose heads differ and whose text is not one token repeated."""
    torch.manual_seed(0)
    model = GPT(replace(config, tie_weights=False)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.normal_(std=0.4, generator=torch.Generator().manual_seed(len(name)))
    return model


def test_training_one_head_gives_the_weights_of_the_plain_objective() -> None:
    tokens = torch.randint(7, (400,), generator=torch.Generator().manual_seed(0))
    plain, one_mean, one_sum = (
        train(CONFIG, TrainConfig(steps=5, batch_size=4, objective=name, objective_args=args), tokens, tokens, seed=3)
        for name, args in [
            ("causal", ()),
            ("multi_token", (("reduction", "mean"),)),
            ("multi_token", (("reduction", "sum"),)),
        ]
    )
    for other in (one_mean, one_sum):
        assert plain.history["train_loss"] == other.history["train_loss"]
        for a, b in zip(plain.model.parameters(), other.model.parameters(), strict=True):
            assert torch.equal(a, b)


def test_a_sequence_shorter_than_what_the_heads_predict_is_refused() -> None:
    model = GPT(replace(CONFIG, n_future=4))
    assert torch.isfinite(OBJECTIVES["multi_token"](model, torch.zeros(2, 5, dtype=torch.long), args={}))
    with pytest.raises(ValueError, match="4 tokens per sequence are too few for 4 heads: n_future needs 5"):
        OBJECTIVES["multi_token"](model, torch.zeros(2, 4, dtype=torch.long), args={})


@pytest.mark.parametrize("heads", [2, 4, 8])
def test_more_heads_start_from_the_same_trunk(heads: int) -> None:
    torch.manual_seed(0)
    plain = GPT(CONFIG)
    torch.manual_seed(0)
    several = GPT(replace(CONFIG, n_future=heads))
    weights = dict(several.named_parameters())
    assert all(torch.equal(weight, weights[name]) for name, weight in plain.named_parameters())
    assert len(several.future) == heads - 1


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_the_loss_by_hand(heads: int, generator: torch.Generator) -> None:
    model = lively(replace(CONFIG, n_future=heads))
    batch = torch.randint(7, (3, 17), generator=generator)
    h = model.hidden(batch[:, :-1])
    means = []
    for step in range(1, heads + 1):
        nll = [
            F.cross_entropy(model.future_logits(h[row, t], step), batch[row, t + step])
            for row in range(3)
            for t in range(16 - step + 1)
        ]
        means.append(torch.stack(nll).mean())
    for reduction, expected in (("sum", torch.stack(means).sum()), ("mean", torch.stack(means).mean())):
        found = OBJECTIVES["multi_token"](model, batch, args={"reduction": reduction})
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("heads", [1, 2, 4, 8])
@pytest.mark.parametrize("n_new", [1, 2, 23])
def test_greedy_text_is_the_first_heads_own(heads: int, n_new: int, generator: torch.Generator) -> None:
    model = lively(replace(CONFIG, n_future=heads, context=64))
    prompts = torch.randint(7, (20, 1, 5), generator=generator)
    for prompt in prompts:
        found = self_speculate(model, prompt, n_new, sampling=GREEDY)
        assert torch.equal(found.tokens, generate(model, prompt, n_new, sampling=GREEDY))
        assert found.emitted == n_new
        assert found.accepted + found.passes == n_new  # each pass emits one token more than it accepts
        if heads == 1:
            assert found.passes == n_new
        assert found.tested == sum(tested for tested, _ in found.by_head)
        assert found.accepted == sum(accepted for _, accepted in found.by_head)


@torch.inference_mode()
def drafted_by_hand(model: GPT, tokens: torch.Tensor, n_new: int) -> tuple[int, int]:
    """Passes and accepted drafts of greedy self-speculation, reading everything again for each token."""
    text, passes, accepted = tokens, 0, 0
    drafts: list[torch.Tensor] = []
    end = tokens.shape[1] + n_new
    while text.shape[1] < end:
        passes += 1
        own = generate(model, text, 1, sampling=GREEDY, use_cache=False)
        for drafted in drafts[: end - text.shape[1] - 1]:
            if own[0, -1] != drafted:
                break
            accepted += 1
            own = generate(model, own, 1, sampling=GREEDY, use_cache=False)
        text = own
        h = model.hidden(text[:, :-1])[:, -1]  # the state that gave the last token
        drafts = [model.future_logits(h, step).argmax() for step in range(2, model.config.n_future + 1)]
    return passes, accepted


def test_drafts_come_from_the_state_that_gave_the_last_token(generator: torch.Generator) -> None:
    model = lively(replace(CONFIG, n_future=4, context=64))
    counts = []
    for prompt in torch.randint(7, (10, 1, 5), generator=generator):
        found = self_speculate(model, prompt, 20, sampling=GREEDY)
        assert (found.passes, found.accepted) == drafted_by_hand(model, prompt, 20)
        counts.append(found.accepted)
    assert 0 < sum(counts) < 10 * 15  # some are accepted and some are not


def test_a_batch_in_lockstep_is_the_rows_one_by_one(generator: torch.Generator) -> None:
    model = lively(replace(CONFIG, n_future=4, context=64, position="learned"))
    prompt = torch.randint(7, (5, 6), generator=generator)
    found = self_speculate(model, prompt, 30, sampling=GREEDY)
    assert torch.equal(found.tokens, generate(model, prompt, 30, sampling=GREEDY))


@pytest.mark.parametrize(
    ("sampling", "rows", "calls"),
    [
        (PLAIN, 2, 500),
        pytest.param(PLAIN, 1, 2_500, marks=pytest.mark.slow),
        pytest.param(PLAIN, 8, 6_400, marks=pytest.mark.slow),  # 51,200 texts
        pytest.param(Sampling(2.0, top_p=0.9), 2, 1_500, marks=pytest.mark.slow),
    ],
)
def test_sampled_text_has_the_first_heads_distribution(sampling: Sampling, rows: int, calls: int) -> None:
    """Chi-square of three new tokens against their exact probabilities."""
    V = 3
    model = lively(replace(CONFIG, n_future=3, vocab_size=V))
    prompt, generator, counts, accepted = (
        torch.tensor([[2, 1]]),
        torch.Generator().manual_seed(2),
        torch.zeros(V, V, V),
        0,
    )
    for _ in range(calls):  # few rows at a time: they share the place of the first rejection
        found = self_speculate(model, prompt.expand(rows, 2), 3, sampling=sampling, generator=generator)
        counts.index_put_(tuple(found.tokens[:, 2:].T), torch.ones(rows), accumulate=True)
        accepted += found.accepted
    assert accepted > calls / 10  # or it would not be put to the test
    exact = torch.zeros(V, V, V)
    with torch.inference_mode():
        first = warp(model(prompt)[0, -1], sampling).softmax(-1)
        for a in range(V):
            second = warp(model(torch.tensor([[2, 1, a]]))[0, -1], sampling).softmax(-1)
            for b in range(V):
                third = warp(model(torch.tensor([[2, 1, a, b]]))[0, -1], sampling).softmax(-1)
                exact[a, b] = first[a] * second[b] * third
    assert counts[exact == 0].sum() == 0
    expected, seen = (exact[exact > 0] * rows * calls).double(), counts[exact > 0].double()
    common = expected >= 5
    assert common.sum() >= 4
    seen = torch.cat([seen[common], seen[~common].sum()[None]])
    expected = torch.cat([expected[common], expected[~common].sum()[None]])
    seen, expected = seen[expected > 0], expected[expected > 0]
    assert stats.chisquare(seen.numpy(), (expected / expected.sum() * seen.sum()).numpy()).pvalue > 1e-3


def test_heads_that_know_the_future_are_all_accepted() -> None:
    """On a text that only counts, heads made by hand to know what comes are never wrong: N tokens a pass."""
    config = GPTConfig(
        n_layer=1, n_head=1, d_model=8, context=64, vocab_size=8, n_future=4, position="none", tie_weights=False
    )
    model = GPT(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        model.token_embedding.weight.copy_(8 * torch.eye(8))
        model.final_norm.weight.fill_(1)
        shift = torch.eye(8).roll(1, 0)  # token t -> t + 1
        model.unembedding.weight.copy_(shift)
        hidden = model.hidden(torch.arange(8)[None])[0]
        for step in range(2, 5):  # the linear map that takes each hidden state to the token step - 1 places on
            wanted = 50 * torch.eye(8).roll(step - 1, 1)
            solution = torch.linalg.lstsq(torch.cat([hidden, torch.ones(8, 1)], 1), wanted).solution
            model.future[step - 2].weight.copy_(solution[:8].T)
            model.future[step - 2].bias.copy_(solution[8])
    found = self_speculate(model, torch.tensor([[0]]), 41, sampling=GREEDY)
    assert torch.equal(found.tokens[0], torch.arange(42) % 8)
    assert found.acceptance_rate == 1.0
    assert found.passes == 11  # one for the prompt, then four tokens each


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="positions"):
        self_speculate(GPT(replace(CONFIG, position="learned")), torch.zeros(1, 10, dtype=torch.long), 8)
    with pytest.raises(ValueError, match="T >= 1"):
        self_speculate(GPT(CONFIG), torch.zeros(1, 0, dtype=torch.long), 3)
