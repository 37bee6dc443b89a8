"""Words completed from one pass, against writing them letter by letter."""

import pytest
import torch

from minigpt.config import GPTConfig
from minigpt.decoding.prefix import complete
from minigpt.decoding.sampling import GREEDY
from minigpt.evaluation.cloze import Word, completed, words_after
from minigpt.model import GPT

LETTERS = torch.tensor([False, True, True, False, True])  # tokens 0 and 3 end words


def test_words_by_hand() -> None:
    windows = torch.tensor([[1, 2, 0, 4, 1, 3, 3, 2, 0, 1, 1], [0, 1, 2, 4, 1, 0, 1, 0, 0, 0, 0]])
    assert words_after(windows, LETTERS, 1, 1) == [Word(0, 3, 5), Word(0, 7, 8), Word(1, 1, 5), Word(1, 6, 7)]
    assert words_after(windows, LETTERS, 4, 1) == [Word(0, 7, 8), Word(1, 6, 7)], "none that began before"
    assert words_after(windows, LETTERS, 1, 2) == [Word(0, 3, 5), Word(1, 1, 5)]
    assert words_after(windows[:, :0], LETTERS, 1, 1) == []


@pytest.fixture(scope="module")
def model() -> GPT:
    """Small enough to agree with random text now and then."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=2, n_head=2, d_model=16, context=32, vocab_size=5, position="rope")).eval()
    with torch.no_grad():
        for name, weight in model.blocks.named_parameters():
            if "norm" not in name:
                weight.mul_(4)
    return model


@pytest.mark.parametrize(("prefix", "given"), [(0, None), (10, None), (0, 6), (6, 6)])
def test_completed_is_what_greedy_writing_gives(model: GPT, prefix: int, given: int | None) -> None:
    windows = torch.randint(5, (150, 33), generator=torch.Generator().manual_seed(1))
    words = words_after(windows, LETTERS, 10, 1)
    found = completed(model, windows, words, prefix=prefix, given=given, batch_size=7)
    expected = []
    for word in words:
        row = windows[word.row]
        known = row[: word.first] if given is None else row[word.first - given : word.first]
        for target in row[word.first : word.end + 1]:
            logits = model(known[None], prefix=prefix)[0, -1]
            known = torch.cat([known, logits.argmax()[None]])
            if known[-1] != target:
                break
        else:
            expected.append(True)
            continue
        expected.append(False)
    assert found == expected
    assert 3 < sum(found) < len(found) - 3


def test_a_prefix_read_at_once_agrees_with_the_writer(model: GPT) -> None:
    """A word right after the prefix, against the decoder of prefix models."""
    windows = torch.randint(5, (200, 20), generator=torch.Generator().manual_seed(2))
    windows[:, 9], windows[:, 10], windows[:, 11] = 0, 1, 0
    words = [Word(row, 10, 11) for row in range(200)]
    written = complete(model, windows[:, :10], 2, sampling=GREEDY)[:, 10:]
    assert completed(model, windows, words, prefix=10) == (written == windows[:, 10:12]).all(dim=1).tolist()


def test_what_is_given_must_be_there(model: GPT) -> None:
    windows = torch.zeros(1, 20, dtype=torch.long)
    with pytest.raises(ValueError, match="before 8 tokens are given"):
        completed(model, windows, [Word(0, 5, 7)], given=8)
    assert completed(model, windows, []) == []
