"""The watermark: parity with Transformers, a stable hash, and a detector that keeps its promises on real text."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.stats import binom, kstest
from transformers import GPT2Config, WatermarkDetector, WatermarkingConfig, WatermarkLogitsProcessor

from minigpt.config import GPTConfig
from minigpt.decoding.sampling import generate
from minigpt.decoding.watermark import KeyedGreenLists, Watermark, binomial_tail, detect, keyed_hash
from minigpt.model import GPT
from minigpt.tokenizers import CharTokenizer
from tests.exercise_context import bible

KEY = 20_230_124


def splitmix(x: int) -> int:
    """SplitMix64's finaliser on Python's whole numbers."""
    mask = 2**64 - 1
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


def python_hash(key: int, context: list[int]) -> int:
    mask, golden = 2**64 - 1, 0x9E3779B97F4A7C15
    state = splitmix((key + golden) & mask)
    for token in context:
        state = splitmix(((state ^ splitmix((token + golden) & mask)) + golden) & mask)
    return state - 2**64 if state >= 2**63 else state


def test_keyed_hash_equals_whole_number_arithmetic():
    contexts = torch.randint(50_257, (200, 4), generator=torch.Generator().manual_seed(0))
    for key in (0, 1, -5, KEY, 2**63 - 1):
        assert keyed_hash(key, contexts).tolist() == [python_hash(key, row) for row in contexts.tolist()]
    # The published first output of SplitMix64 seeded with 0 pins the constants.
    assert splitmix(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF


def test_hash_is_the_same_in_another_process():
    code = "import torch as t; from minigpt.decoding.watermark import keyed_hash\n"
    code += "print(keyed_hash(7, t.tensor([[1, 2, 3]])).item())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "1"}
    )
    assert int(done.stdout) == python_hash(7, [1, 2, 3])


def test_lists_have_their_size_and_are_fair():
    """Over many contexts every token is green equally often, and two tokens are so independently."""
    lists = KeyedGreenLists(KEY, vocab_size=20, size=5)
    contexts = torch.cartesian_prod(torch.arange(100), torch.arange(200))
    green = lists(contexts)
    assert (green.sum(1) == 5).all()
    # Indicators of one list sum to 5: the statistic has 19 degrees of freedom after dividing by 1 - γ.
    counts, expected = green.sum(0).double(), len(contexts) * 0.25
    statistic = ((counts - expected) ** 2 / expected).sum() / 0.75 * 19 / 20
    assert statistic < 50
    together = (green[:, 0] & green[:, 1]).double().mean().item()
    assert abs(together - 5 * 4 / (20 * 19)) < 4 * np.sqrt(0.05 / len(contexts))
    neighbours = (lists(contexts[:-1]) & lists(contexts[1:])).double().mean().item()  # successive contexts
    assert abs(neighbours - 0.0625) < 1e-3


def test_order_of_the_context_and_key_matter():
    lists = KeyedGreenLists(KEY, 50, 25)
    contexts = torch.tensor([[1, 2], [2, 1]])
    assert not torch.equal(*lists(contexts))
    other = KeyedGreenLists(KEY + 1, 50, 25)(contexts)
    assert 0.3 < (lists(contexts) == other).double().mean() < 0.7


class TheirLists:
    """Transformers' green lists behind our interface."""

    def __init__(self, processor: WatermarkLogitsProcessor) -> None:
        self.processor = processor

    def __call__(self, contexts):
        green = torch.zeros(len(contexts), self.processor.vocab_size, dtype=torch.bool)
        for row, context in zip(green, contexts, strict=True):
            row[self.processor._get_greenlist_ids(context)] = True
        return green


def test_processor_and_detector_equal_transformers():
    """The same green lists: equal biased logits, z-scores, p-values and verdicts, with and without a watermark."""
    V, ratio, bias = 40, 0.25, 2.0
    theirs = WatermarkLogitsProcessor(V, "cpu", greenlist_ratio=ratio, bias=bias, context_width=1)
    ours = Watermark(TheirLists(theirs), width=1, delta=bias)
    g = torch.Generator().manual_seed(0)
    tokens = torch.randint(V, (6, 3), generator=g)
    for _ in range(60):
        logits = torch.randn(6, V, generator=g)
        marked = ours(tokens, logits)
        assert torch.equal(marked, theirs(tokens, logits))
        tokens = torch.cat([tokens, torch.multinomial(marked.softmax(-1), 1, generator=g)], dim=1)
    tokens = torch.cat([tokens, torch.randint(V, tokens.shape, generator=g)])
    config = WatermarkingConfig(greenlist_ratio=ratio, bias=bias, context_width=1)
    model = GPT2Config(vocab_size=V, bos_token_id=V + 1)
    detector = WatermarkDetector(model, "cpu", config, ignore_repeated_ngrams=True)
    expected = detector(tokens, z_threshold=3.0, return_dict=True)
    found = detect(tokens, ours.green_lists, 1, ratio)
    assert found.scored.tolist() == expected.num_tokens_scored.tolist()
    assert found.green.tolist() == expected.num_green_tokens.tolist()
    np.testing.assert_allclose(found.z.numpy(), expected.z_score, rtol=1e-6)
    assert (found.z > 3.0).tolist() == expected.prediction.tolist()
    assert expected.prediction.tolist() == [True] * 6 + [False] * 6


def test_detection_by_a_plain_loop():
    """Distinct n-grams by a Python set, green ones by asking for each list alone."""
    g = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, (30, 40), generator=g)
    for width in (1, 2, 3):
        lists = KeyedGreenLists(KEY, 5, 2)
        found = detect(tokens, lists, width, lists.fraction)
        for row, text in enumerate(tokens.tolist()):
            grams = {tuple(text[i : i + width + 1]) for i in range(len(text) - width)}
            green = sum(bool(lists(torch.tensor([gram[:-1]]))[0, gram[-1]]) for gram in grams)
            assert (int(found.scored[row]), int(found.green[row])) == (len(grams), green)
            z = (green - 0.4 * len(grams)) / np.sqrt(len(grams) * 0.24)
            assert found.z[row].item() == pytest.approx(z, rel=1e-5)


def test_repeating_a_text_does_not_raise_its_score():
    tokens = torch.randint(40, (8, 50), generator=torch.Generator().manual_seed(0))
    lists = KeyedGreenLists(KEY, 40, 20)
    once = detect(torch.cat([tokens, tokens[:, :2]], dim=1), lists, 2, 0.5)
    thrice = detect(torch.cat([tokens, tokens, tokens, tokens[:, :2]], dim=1), lists, 2, 0.5)
    assert torch.equal(once.z, thrice.z)


def test_binomial_tail_equals_scipy():
    trials = torch.randint(1, 400, (300,), generator=torch.Generator().manual_seed(0))
    successes = (trials * torch.rand(300, generator=torch.Generator().manual_seed(1))).long()
    for p in (0.1, 0.25, 0.5):
        expected = binom.sf(successes.numpy() - 1, trials.numpy(), p)
        np.testing.assert_allclose(binomial_tail(successes, trials, p).numpy(), expected, rtol=1e-9, atol=1e-300)


def human_texts(count: int, length: int) -> tuple[torch.Tensor, int]:
    """Pieces of real text from all over the corpus, a character per token, and the size of the vocabulary."""
    text = bible()
    tokens = torch.tensor(CharTokenizer.train(text).encode(text))
    starts = torch.arange(count) * ((len(tokens) - length) // count)
    return tokens[starts[:, None] + torch.arange(length)], int(tokens.max()) + 1


def allowed(rate: float, texts: int) -> float:
    """A false-positive rate plus three standard errors."""
    return rate + 3 * (rate * (1 - rate) / texts) ** 0.5


def test_binomial_null_when_the_scores_are_independent():
    """Uniform random tokens, a key per text: z is standard normal, p-values keep every level."""
    lists_of = [KeyedGreenLists(key, 200, 100) for key in range(400)]
    tokens = torch.randint(200, (400, 201), generator=torch.Generator().manual_seed(0))
    found = [detect(row[None], lists, 1, 0.5) for row, lists in zip(tokens, lists_of, strict=True)]
    z = np.array([f.z.item() for f in found])
    assert kstest(z + np.random.default_rng(0).uniform(-0.07, 0.07, 400), "norm").pvalue > 1e-3  # z is discrete
    p = np.array([f.p_value.item() for f in found])
    for level in (0.01, 0.05, 0.2):
        assert (p <= level).mean() <= level + 3 * np.sqrt(level * (1 - level) / 400)


@pytest.mark.slow
def test_stated_false_positive_rate_on_2400_human_texts():
    """Each of four keys by itself keeps its rate at a width of 6, where texts share few n-grams."""
    tokens, V = human_texts(2_400, 150)
    for key in (KEY, 1, 2, 3):
        lists = KeyedGreenLists(key, V, V // 2)
        p = detect(tokens, lists, 6, lists.fraction).p_value
        for rate in (0.01, 0.05):
            assert (p <= rate).double().mean() <= allowed(rate, len(p)), (key, rate)


@pytest.mark.slow
def test_narrow_contexts_keep_the_rate_only_on_average_over_keys():
    """At a width of 1 all texts share their bigrams: a key's luck is the same for all of them, as the report says."""
    tokens, V = human_texts(500, 150)
    lists = [KeyedGreenLists(key, V, V // 2) for key in range(40)]
    found = [detect(tokens, own, 1, own.fraction) for own in lists]
    assert np.mean([(f.p_value <= 0.01).double().mean().item() for f in found]) <= 0.01
    means = np.array([f.z.mean().item() for f in found])
    assert means.std() > 0.3  # 1/sqrt(500) = 0.04 if texts were independent


def test_right_and_wrong_key_on_2000_generated_texts():
    """Marked texts are found with the key that marked them; with another one they are unmarked text."""
    torch.manual_seed(0)
    V = 70
    model = GPT(GPTConfig(n_layer=1, n_head=2, d_model=16, context=64, vocab_size=V))
    right, wrong = KeyedGreenLists(KEY, V, V // 2), KeyedGreenLists(KEY + 1, V, V // 2)
    prompts = torch.randint(V, (2_000, 4), generator=torch.Generator().manual_seed(0))

    def written(delta: float) -> torch.Tensor:
        mark = (Watermark(right, 4, delta),) if delta else ()
        return generate(model, prompts, 60, generator=torch.Generator().manual_seed(1), processors=mark)[:, 4:]

    def share(texts: torch.Tensor, lists: KeyedGreenLists, rate: float) -> float:
        return (detect(texts, lists, 4, lists.fraction).p_value <= rate).double().mean().item()

    marked, unmarked = written(2.0), written(0.0)
    for rate in (0.01, 0.05):
        assert share(unmarked, right, rate) <= allowed(rate, 2_000)
        assert share(unmarked, wrong, rate) <= allowed(rate, 2_000)
        assert share(marked, wrong, rate) <= allowed(rate, 2_000)
        assert share(marked, right, rate) > 0.95


def test_green_tokens_become_more_likely_by_the_closed_form():
    """With a uniform model, P(green) = γ e^δ / (γ e^δ + 1 - γ) (Kirchenbauer et al., 2023, section 4)."""
    lists = KeyedGreenLists(KEY, 40, 10)
    contexts = torch.randint(40, (200, 3), generator=torch.Generator().manual_seed(0))
    marked = Watermark(lists, 3, 1.5)(contexts, torch.zeros(200, 40)).softmax(-1)
    share = (marked * lists(contexts)).sum(1)
    torch.testing.assert_close(share, torch.full((200,), 0.25 * np.exp(1.5) / (0.25 * np.exp(1.5) + 0.75)).float())


def test_short_texts_and_wrong_arguments():
    lists = KeyedGreenLists(KEY, 10, 5)
    logits = torch.randn(2, 10)
    assert torch.equal(Watermark(lists, 4, 2.0)(torch.zeros(2, 3, dtype=torch.long), logits), logits)
    with pytest.raises(ValueError, match="more than 4 tokens"):
        detect(torch.zeros(2, 4, dtype=torch.long), lists, 4, 0.5)
    with pytest.raises(ValueError, match="fraction"):
        detect(torch.zeros(2, 9, dtype=torch.long), lists, 4, 0.0)
    with pytest.raises(ValueError, match="green list"):
        KeyedGreenLists(KEY, 10, 10)
    with pytest.raises(ValueError, match="64 bits"):
        KeyedGreenLists(2**63, 10, 5)
