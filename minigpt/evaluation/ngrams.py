"""What counting can do: smoothed n-gram models, the baselines that stand beside every loss.

An n-gram model knows the last n - 1 tokens and nothing else, so that a network that does not beat the bigram has not
learned to use its context, and one that beats the best n-gram knows more than which short strings are frequent.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]
LONGEST = 8


@dataclass(frozen=True)
class Baselines:
    """Held-out losses of smoothed n-grams, in nats per token, over the targets that a model's validation loss has."""

    unigram: float
    bigram: float
    ngram: float  # of the n below
    n: int  # of 1 … 8, the best on a tenth of the training tokens that was kept apart for that


def baselines(train: Sequence[int] | Ids, validation: Sequence[int] | Ids, vocab_size: int) -> Baselines:
    """Fit on the training tokens, scored on the validation tokens.

    Which n is best is asked of the last tenth of the training tokens and a model of the rest, so that the validation
    tokens choose nothing.

    Raises:
        ValueError: fewer than 20 training or 2 validation tokens, or an id outside the vocabulary.
    """
    train, validation = np.asarray(train, dtype=np.int64), np.asarray(validation, dtype=np.int64)
    if len(train) < 20:
        raise ValueError(f"n-grams need at least 20 training tokens, got {len(train)}")
    cut = len(train) * 9 // 10
    chosen = int(np.argmin(ngram_losses(train[:cut], train[cut:], vocab_size))) + 1
    losses = ngram_losses(train, validation, vocab_size, max(2, chosen))
    return Baselines(losses[0], losses[1], losses[chosen - 1], chosen)


def ngram_losses(
    train: Sequence[int] | Ids, held_out: Sequence[int] | Ids, vocab_size: int, longest: int = LONGEST
) -> list[float]:
    """Mean negative log-likelihood of held-out tokens 1 … N - 1 for n = 1 … ``longest``, in nats per token.

    Witten and Bell's interpolation (1991, method C; Chen & Goodman, 1999, section 2.5), from the uniform
    distribution up:

        p_n(w | h) = (c(h w) + T(h) p_{n-1}(w | h')) / (c(h) + T(h))

    with c(h) how often the n - 1 tokens h were followed by anything, T(h) by how many different ones, and h' the same
    without its first token. Where h was never seen, p_n = p_{n-1}.

    Raises:
        ValueError: no training or fewer than 2 held-out tokens, or an id outside the vocabulary.
    """
    train, held_out = np.asarray(train, dtype=np.int64), np.asarray(held_out, dtype=np.int64)
    if len(train) < 1 or len(held_out) < 2:
        raise ValueError(f"n-grams need a training token and 2 held-out ones, got {len(train)} and {len(held_out)}")
    if min(train.min(), held_out.min()) < 0 or max(train.max(), held_out.max()) >= vocab_size:
        raise ValueError(f"token ids must be from 0 to {vocab_size - 1}")
    p = np.full(len(held_out), 1 / vocab_size)
    losses = []
    for seen, asked in itertools.islice(_histories(train, held_out, vocab_size), longest):
        p = _interpolated(p, seen, train, asked, held_out, vocab_size)
        losses.append(float(-np.log(p[1:]).mean()))
    return losses


def _interpolated(
    p: npt.NDArray[np.float64], seen: Ids, train: Ids, asked: Ids, held_out: Ids, V: int
) -> npt.NDArray[np.float64]:
    """p_n of each held-out token from p_{n-1}; ``seen`` and ``asked`` number the histories before each token."""
    known = seen >= 0  # the first tokens of a text have no history of this length
    grams, counts = np.unique(seen[known] * V + train[known], return_counts=True)
    histories = int(max(seen.max(), asked.max())) + 1
    c_h = np.bincount(grams // V, weights=counts, minlength=histories)
    T_h = np.bincount(grams // V, minlength=histories)
    place = np.minimum(np.searchsorted(grams, wanted := asked * V + held_out), len(grams) - 1)
    c_hw = np.where(grams[place] == wanted, counts[place], 0)
    weight = c_h[asked] + T_h[asked]  # of a history that is not known, -1, this is of the last and not used
    return np.where((asked >= 0) & (weight > 0), (c_hw + T_h[asked] * p) / np.maximum(weight, 1), p)


def _histories(train: Ids, held_out: Ids, V: int) -> Iterator[tuple[Ids, Ids]]:
    """Numbers of the histories before each token, of 0, 1, 2 … tokens; -1 where the training text has none such."""
    seen, asked = np.zeros_like(train), np.zeros_like(held_out)
    for length in itertools.count(1):
        yield seen, asked
        # A longer history is the shorter one of the token before, and that token. Numbers stay below the text's length,
        # so that a number and a token always fit into 64 bits together.
        longer, wanted = (_with_token_before(*pair, V) for pair in ((seen, train), (asked, held_out)))
        found = np.unique(longer[longer >= 0])
        if not len(found):
            return
        seen, asked = (_places(found, numbers) for numbers in (longer, wanted))
        seen[:length], asked[:length] = -1, -1


def _with_token_before(numbers: Ids, tokens: Ids, V: int) -> Ids:
    longer = np.full_like(numbers, -1)
    longer[1:] = np.where(numbers[:-1] >= 0, numbers[:-1] * V + tokens[:-1], -1)
    return longer


def _places(found: Ids, numbers: Ids) -> Ids:
    place = np.minimum(np.searchsorted(found, numbers), len(found) - 1)
    return np.where(found[place] == numbers, place, -1)
