"""Smoothed n-grams against Witten and Bell's formula taken literally, and against what must hold of any model."""

import math
from collections import Counter, defaultdict
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from minigpt.evaluation.ngrams import baselines, ngram_losses


def literal(train: list[int], history: tuple[int, ...], word: int, vocab_size: int) -> Fraction:
    """p(word | history) by the formula, with exact fractions and by reading the whole text for every count."""
    n = len(history)
    followers = Counter(train[i] for i in range(n, len(train)) if tuple(train[i - n : i]) == history)
    lower = literal(train, history[1:], word, vocab_size) if n else Fraction(1, vocab_size)
    if not followers:
        return lower
    return (followers[word] + len(followers) * lower) / (followers.total() + len(followers))


def text(seed: int, size: int, vocab_size: int = 4) -> list[int]:
    """Tokens that depend on the two before them, so that histories repeat and some are rare."""
    rng = np.random.default_rng(seed)
    found = [0, 1]
    while len(found) < size:
        likely = (found[-1] + found[-2]) % vocab_size
        found.append(int(likely if rng.random() < 0.7 else rng.integers(vocab_size)))
    return found


@pytest.mark.parametrize(("train_size", "vocab_size"), [(3, 4), (40, 4), (200, 3)])
def test_losses_are_those_of_the_formula(train_size: int, vocab_size: int) -> None:
    train, held_out = text(0, train_size, vocab_size), text(1, 60, vocab_size)
    found = ngram_losses(train, held_out, vocab_size, longest=5)
    for n, loss in enumerate(found, start=1):
        # The first held-out tokens have shorter histories than n - 1: the longest that there is.
        terms = [
            math.log(literal(train, tuple(held_out[max(0, i - n + 1) : i]), held_out[i], vocab_size))
            for i in range(1, len(held_out))
        ]
        assert loss == pytest.approx(-sum(terms) / len(terms), rel=1e-12)


def test_probabilities_of_all_continuations_sum_to_one() -> None:
    train, V = text(2, 80, 3), 3
    for history in product(range(V), repeat=3):
        # The last token's own term: losses are means over all but the first token, before and with it.
        alone = [(len(history) - 1) * x for x in ngram_losses(train, history, V, longest=4)]
        whole = [[len(history) * x for x in ngram_losses(train, [*history, w], V, longest=4)] for w in range(V)]
        for n in range(4):
            assert sum(math.exp(alone[n] - losses[n]) for losses in whole) == pytest.approx(1.0, rel=1e-10)


def test_on_a_source_of_known_order_the_loss_nears_its_entropy() -> None:
    """Tokens depend on the two before: trigrams reach the entropy rate, bigrams cannot, longer ones gain nothing."""
    V = 4
    train, held_out = text(3, 60_000, V), text(4, 20_000, V)
    high, low = 0.7 + 0.3 / V, 0.3 / V
    entropy = -(high * math.log(high) + (V - 1) * low * math.log(low))
    losses = ngram_losses(train, held_out, V, longest=6)
    assert losses[2] == pytest.approx(entropy, abs=0.02)
    assert losses[1] > entropy + 0.3
    assert min(losses[3:]) > entropy - 0.02
    found = baselines(train, held_out, V)
    assert found.n == 3
    assert (found.unigram, found.bigram, found.ngram) == (losses[0], losses[1], losses[2])


def test_held_out_tokens_do_not_choose_n() -> None:
    """Where the validation text would have another n, the training text's own stays."""
    train = text(5, 4_000)
    for held_out in (text(6, 500), list(np.random.default_rng(0).integers(4, size=500))):
        found = baselines(train, held_out, 4)
        assert found.n == 3
        assert found.ngram == ngram_losses(train, held_out, 4)[2]


def test_a_large_vocabulary_and_long_histories_do_not_overflow() -> None:
    """Histories are numbered, not packed: 8 tokens of 50,257 would need 125 bits."""
    rng = np.random.default_rng(7)
    train = rng.integers(50_257, size=3_000).tolist() * 2
    losses = ngram_losses(train, train[:1_000], 50_257, longest=8)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 1.0 < losses[0]
    counts = defaultdict(int)
    for token in train:
        counts[token] += 1
    types, N = len(counts), len(train)
    expected = -np.mean([math.log((counts[w] + types / 50_257) / (N + types)) for w in train[1:1_000]])
    assert losses[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("train", "held_out", "message"),
    [
        ([], [0, 1], "training token"),
        ([0, 1], [0], "2 held-out"),
        ([0, 9], [0, 1], "from 0 to 3"),
        ([0], [-1, 0], "0 to 3"),
    ],
)
def test_what_cannot_be_counted_is_refused(train: list[int], held_out: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ngram_losses(train, held_out, 4)
    with pytest.raises(ValueError, match="at least 20"):
        baselines(train, held_out, 4)
