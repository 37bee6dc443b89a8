import itertools
import math
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from minigpt.evaluation.word_losses import CONTENT, sentence_starts
from reports.types import Table, TokenScores, flattened
from tasks.exercises.ex24_loss_decomposition.answer import token_table
from tasks.exercises.ex24_loss_decomposition.experiment import EXERCISE, measure, read
from tasks.exercises.ex24_loss_decomposition.findings import FLAGS, share
from tests.exercise_context import answered, assert_sound, make_context, measured, tiny_pretrained
from tests.exercises.formulas import assert_formulas

SMALL = {"tokens": 512, "passage": 120, "draws": 100}


def prose(answer, part):
    """The sentences of a part on one line."""
    texts = (block.text for block in flattened(answer.parts[part].blocks) if block.type == "prose")
    return " ".join(" ".join(texts).split())


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "stand-in"])
def test_it_is_sound(architecture):
    answer = answered(EXERCISE, measured(EXERCISE, make_context(EXERCISE, pretrained=architecture, **SMALL)))
    assert_sound(EXERCISE, answer)
    assert_formulas(answer)
    passage = next(block for block in answer.parts[0].blocks if isinstance(block, TokenScores))
    assert passage.scores[0] is None
    assert len(passage.tokens) == len(passage.scores) == 121
    for part, order in ((1, -1), (2, 1)):
        table = next(b for b in answer.parts[part].blocks if isinstance(b, Table) and b.name in ("highest", "lowest"))
        scored = sorted(passage.scores[1:], key=lambda loss: order * loss)[:10]
        assert [row[4] for row in table.rows] == scored
        assert [answer.metrics[f"loss_{table.name}_{rank}_nats"] for rank in range(1, 11)] == scored
        for row in table.rows:
            assert row[5] == pytest.approx(math.exp(-row[4]))
            assert row[4] == passage.scores[row[3]]  # the position is that of the coloured passage
            assert row[1].replace("↵", "\n").replace("␣", " ") == passage.tokens[row[3]]


class Knowing(torch.nn.Module):
    """A model that knows a text and gives its next token the logit 10, or a decoy in the places where it errs."""

    def __init__(self, ids, errs, decoy, size):
        super().__init__()
        self.config = SimpleNamespace(n_positions=512)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.ids, self.errs, self.decoy, self.size = ids.tolist(), errs, decoy, size

    def forward(self, ids, labels=None, use_cache=False):
        logits = torch.zeros(*ids.shape, self.size)
        for b, row in enumerate(ids.tolist()):
            start = next((i for i in range(len(self.ids)) if self.ids[i : i + len(row)] == row), None)
            if start is None:  # of another text, about which it knows nothing
                continue
            for t in range(len(row)):
                place = start + t + 1
                if place < len(self.ids):
                    logits[b, t, self.decoy if place in self.errs else self.ids[place]] = 10.0
        loss = None
        if labels is not None:
            loss = torch.nn.functional.cross_entropy(logits[0, :-1], labels[0, 1:])
        return SimpleNamespace(logits=logits, loss=loss)


def knowing(errs_of):
    """A context with such a model; ``errs_of`` chooses the places among the ids from the tokens' texts."""
    context = make_context(EXERCISE, **SMALL | {"tokens": 480})
    tokenizer = tiny_pretrained("gpt2").tokenizer
    text = context.text()
    start = next(iter(sentence_starts(text[:5_000])))
    ids = torch.tensor(tokenizer(text[start:])["input_ids"][:500])
    errs = errs_of([tokenizer.decode([token]) for token in ids.tolist()])
    decoy = tokenizer(" zebra")["input_ids"][0]
    model = Knowing(ids, errs, decoy, len(tokenizer))
    context._pretrained = replace(tiny_pretrained("gpt2"), model=model)
    return context, ids, errs, tokenizer.decode([decoy])


def test_surprises_are_found_where_they_are():
    """Off by one, and the neighbours of the planted tokens would be found."""
    again = partial(knowing, lambda pieces: set(range(5, 100, 9)))
    context, ids, errs, decoy = again()
    f, tokens = measure(context), read(again()[0]).tokens
    top = f.extremes(highest=True)
    assert {token.index + 1 for token in top} < errs  # index counts scored tokens, the first of which is ids[1]
    assert {token.index + 1 for token in tokens if token.loss > 5} == {place for place in errs if place <= 480}
    size = len(context.pretrained().tokenizer)
    assert top[0].loss == pytest.approx(10 + math.log(1 + (size - 1) * math.exp(-10)), abs=1e-3)
    for token in top:
        assert (token.choice, token.probability) == (
            decoy,
            pytest.approx(1 / (1 + (size - 1) * math.exp(-10)), abs=1e-4),
        )
        assert token.piece == context.pretrained().tokenizer.decode([ids[token.index + 1]])
    rows = token_table(top, "", "").rows
    for token, row in zip(top, rows, strict=True):
        before = context.pretrained().tokenizer.decode(ids[: token.index + 1].tolist())
        assert row[2].replace("↵", "\n").replace("␣", " ") == "…" + before[-32:]
        assert row[6].replace("␣", " ") == decoy
    assert all(check.passed for check in answered(EXERCISE, f).checks if check.kind == "exact")


def test_sentence_starts_that_surprise_are_said_to():
    """All that surprises is the word after a full stop: that must come out, and with the right sign."""

    def after_stops(pieces):
        texts = list(itertools.accumulate(pieces))
        return {
            i + 1
            for i, text in enumerate(texts[:-1])
            if text.rstrip()[-1:] in (".", "?", "!") and pieces[i + 1].strip()[:1].isupper()
        }

    again = partial(knowing, after_stops)
    context, *_ = again()
    f, tokens = measure(context), read(again()[0]).tokens
    effect = f.controlled("sentence start")
    assert effect is not None
    assert effect.verdict == "higher"
    assert effect.difference == pytest.approx(10, abs=0.5)
    answer = answered(EXERCISE, f)
    assert "beginning of sentences? At equal position, yes, it is higher" in prose(answer, 3)
    assert next(c for c in answer.checks if "sentences begin" in c.claim).passed
    assert all(FLAGS["begins a sentence"](token) for token in tokens if token.loss > 5)


def test_content_words_that_surprise_are_said_to():
    """All that surprises is tokens such as " waters", whole words of an open class."""
    open_class = {"land", "father", "money", "house", "god", "man", "years", "people", "days", "sons", "brought"}
    again = partial(
        knowing, lambda pieces: {i for i, piece in enumerate(pieces) if piece.strip().lower() in open_class}
    )
    context, *_ = again()
    f, tokens = measure(context), read(again()[0]).tokens
    effect = f.controlled("word class")
    assert effect is not None
    assert effect.verdict == "higher"
    surprising = [token for token in tokens if token.loss > 5]
    assert len(surprising) >= 5
    assert share(surprising, CONTENT) == 1.0


def test_a_text_without_sentences_can_be_answered():
    context = make_context(EXERCISE, **SMALL)
    context.text = lambda split="validation": "one two of three the four " * 200
    answer = answered(EXERCISE, measured(EXERCISE, context))
    assert "No sentence begins" in prose(answer, 3)
    assert not any("sentences begin" in check.claim for check in answer.checks)


@pytest.fixture(scope="module")
def of_the_stand_in():
    return measured(EXERCISE, make_context(EXERCISE, pretrained="stand-in", **SMALL))


def test_losses_moved_by_one_place_would_show_in_a_real_text(of_the_stand_in):
    """An empirical check, since a text that repeats two letters may not show it; in this one it must."""
    checks = answered(EXERCISE, of_the_stand_in).checks
    assert next(check for check in checks if check.claim.startswith("losses moved by one place")).passed


def test_function_words_are_english(of_the_stand_in):
    said = prose(answered(EXERCISE, of_the_stand_in), 3)
    assert "Higher at content words? At equal position" in said
    other = answered(EXERCISE, replace(of_the_stand_in, function_words=0.004))
    assert "That does not apply to this text.** The function words known here are English, and 0.4%" in prose(other, 3)
