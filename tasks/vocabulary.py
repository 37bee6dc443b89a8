"""Words that count as English whatever the training text has."""

from minigpt.evaluation.words import whole_words
from tasks.exercise import Context


def common_words(context: Context) -> frozenset[str]:
    """Words that GPT-2's vocabulary has whole, in lower case; the exercise must list ``"bpe"``."""
    bpe = context.bpe()
    return whole_words(bpe.decode([token]) for token in range(bpe.vocab_size))
