"""21.18: what is said of likelier text, of repetition and of being nearest to people follows from intervals."""

from dataclasses import replace
from pathlib import Path

import pytest

from reports.answers import compose
from reports.types import flattened
from tasks.exercises.ex18_beam_search import answer as ex18
from tasks.exercises.ex18_beam_search.findings import (
    BEAM,
    BEAMS,
    COOL,
    GREEDY,
    HUMAN,
    NUCLEUS,
    PLAIN,
    STRATEGIES,
    TOP_K,
    Accuracy,
    ByPretrained,
    Findings,
    Truncation,
    Writer,
    Written,
    different,
)
from tasks.nearness import as_low, as_near, few

TEMPLATE = Path(ex18.__file__).with_name("answer.md").read_text(encoding="utf-8")
TEXTS = ("so it was so", "and it was day", "let there be")


def written(key, nats=(3.0, 3.1, 3.2), **values):
    same = {"own": (1.0, 1.1, 1.2), "repeated": (0.1, 0.12, 0.11), "known": (0.9, 0.9, 0.9)} | values
    return Written(key=key, texts=TEXTS, nats=nats, bits=nats, **same)


@pytest.fixture
def findings():
    pretrained = (HUMAN, BEAMS[BEAM], GREEDY, TOP_K, NUCLEUS, COOL, PLAIN)
    return Findings(
        writer=Writer(2, 8, 60, 64, 1.5),
        judge="GPT-2",
        note="",
        prompts=("in the", "and the", "then he"),
        n_new=12,
        runs=2,
        written={key: written(key) for key in STRATEGIES},
        truncation={key: Truncation(9.0, 0.01, 1.2) for key in STRATEGIES},
        by_pretrained={
            s.key: ByPretrained(s.key, TEXTS, (3.0, 3.1, 3.2), (0.1, 0.1, 0.2), (0.9, 0.9, 0.9), 50, 0.1)
            for s in pretrained
        },
        pretrained_vocabulary=50_257,
        pretrained_prompt="in the",
        correlation=-0.8,
        accuracy=Accuracy(625, True, 5, 0.0, 2, 2, True, True, -3.0, -3.0, 2.0, 2.0),
        source="",
    )


def told(f, part):
    answer = compose(TEMPLATE, f, ex18.answer(f))
    blocks = flattened(answer.parts[part].blocks)
    return " ".join(" ".join(block.text for block in blocks if block.type == "prose").split())


def with_written(f, **changed):
    return replace(f, written={**f.written, **{key: written(key, **values) for key, values in changed.items()}})


def test_what_is_shown_uncorrected_is_counted(findings):
    tables = [b for p in compose(TEMPLATE, findings, ex18.answer(findings)).parts for b in flattened(p.blocks)]
    shown = sum(len(b.rows) for b in tables if b.type == "table" and "95 % from" in b.columns)
    assert f"This page has {shown + 2} intervals of 95%" in told(findings, 0)
    assert f"about {0.05 * (shown + 2):.2g} of them would be expected to exclude zero" in told(findings, 0)


def test_greedy_decoding_is_compared_with_beam_search_only(findings):
    """Greedy decoding repeats more than K = 5, but K = 10 most of all."""
    f = with_written(
        findings,
        beam_5={"own": (0.9, 0.9, 0.9), "nats": (4.0, 4.1, 4.2)},
        greedy={"repeated": (0.5, 0.6, 0.5)},
        beam_10={"repeated": (0.9, 0.9, 0.9)},
    )
    assert "greedy decoding goes round in circles more than beam search (K = 5)" in told(f, 1)
    assert "circles most" not in told(f, 1)


def test_means_of_loss_and_of_perplexity_may_disagree(findings):
    """Greedy losses are higher after all prompts but one, and lower after the one that rules the mean perplexity."""
    note = "That goes by the mean loss"
    f = with_written(findings, beam_5={"nats": (2.0, 2.1, 9.0)}, greedy={"nats": (2.9, 3.0, 8.99)})
    assert f.beam.perplexity > f.of(GREEDY).perplexity
    assert note not in told(f, 1), "within noise nothing is called likelier"
    prompts = 40
    many = {"own": (1.0,) * prompts, "repeated": (0.1,) * prompts, "known": (0.9,) * prompts}
    low = written("beam_5", nats=(2.0, 2.1) * 19 + (2.0, 9.0), **many)
    high = written("greedy", nats=(2.4, 2.6) * 19 + (2.5, 8.9), **many)
    f = replace(
        findings,
        prompts=("in",) * prompts,
        written={
            key: high if key == "greedy" else low if key == "beam_5" else replace(low, key=key) for key in STRATEGIES
        },
    )
    assert f.by_loss(high).verdict == "higher"
    assert high.perplexity < f.beam.perplexity
    assert note in told(f, 1)
    assert note not in told(f, 2)


def test_the_nearest_has_its_rivals(findings):
    assert "comes nearest to the loss of human text (but cannot be told in this from 7 of the others);" in told(
        findings, 0
    )
    assert "not to be told from 5 of the others" in told(findings, 2)
    far = {key: {"nats": (9.0, 9.1, 9.2)} for key in STRATEGIES if key not in ("human", "plain")}
    alone = with_written(findings, **far)
    assert "Plain sampling comes nearest to the loss of human text; " in told(alone, 0)


def test_as_near_counts_distances_on_both_sides():
    people = (3.0, 3.1, 3.2, 3.3)
    ways = {"near": (3.2, 3.1, 3.5, 3.4), "below": (2.6, 3.1, 2.9, 3.2), "far": (9.0, 9.0, 9.1, 9.3)}
    assert as_near(people, ways, "near") == ["below"]
    assert as_near((3.0,), {"a": (3.1,), "b": (9.0,)}, "a") == ["b"], "one prompt tells nothing"
    assert (few([]), few("ab"), few("abcd")) == ("", "a and b", "4 of the others")


def test_likelier_per_token_need_not_be_likelier_per_character(findings):
    """Texts of as many characters: bits per character are what their likelihood is."""
    f = with_written(findings, greedy={"nats": (4.0, 4.1, 4.2)})
    note = "Per character, of which all have as many,"
    assert f.by_loss(f.of(GREEDY)).verdict == "higher"
    assert note not in told(f, 1)
    per_character = replace(f.of(GREEDY), bits=(2.0, 3.1, 4.2))
    f = replace(f, written={**f.written, "greedy": per_character})
    assert f"{note} the difference is inside the noise (95% interval" in told(f, 1)
    assert note not in told(f, 2)


def test_a_text_that_several_strategies_wrote_counts_once():
    one, other = written("plain", own=(1.0, 1.1, 1.2)), written("top_k_50")
    assert len(different([one, other])) == 3
    apart = replace(other, texts=(*TEXTS[:2], "so he went"), nats=(3.0, 3.1, 9.0))
    assert len(different([one, apart])) == 4
    assert (9.0, 0.11) in different([one, apart])


def test_likelier_to_the_writer_goes_by_an_interval(findings):
    """Greedy decoding is dearer to the writer by 0.2 on average, but by 0.1 to 0.3."""
    judge = {"nats": (4.0, 4.1, 4.2)}
    close = with_written(findings, beam_5={"own": (0.9, 0.9, 0.9), **judge})
    assert "as likely, up to noise, to the model that writes costs the judge more per token" in told(close, 1)
    clear = with_written(findings, beam_5={"own": (0.5, 0.6, 0.7), **judge})
    assert "So what is likelier to the model that writes costs the judge more per token" in told(clear, 1)


def test_likelier_is_said_where_tokens_and_characters_agree(findings):
    f = with_written(findings, greedy={"nats": (4.0, 4.1, 4.2)})
    assert "the text of beam search is likelier than that of greedy decoding" in told(f, 1)
    f = replace(f, written={**f.written, "greedy": replace(f.of(GREEDY), bits=(2.0, 3.1, 4.2))})
    assert "the text of beam search costs less per token than that of greedy decoding" in told(f, 1)


def test_a_step_inside_the_noise_confirms_no_prediction(findings):
    """Each wider beam is ahead on average, from K = 5 to K = 10 by 0.02 ± 0.08."""
    steps = {
        "greedy": {"own": (1.0, 1.1, 1.2)},
        "beam_2": {"own": (0.8, 0.91, 1.0)},
        "beam_5": {"own": (0.6, 0.7, 0.8)},
        "beam_10": {"own": (0.5, 0.7, 0.84)},
    }
    f = with_written(findings, **steps)
    found = compose(TEMPLATE, f, ex18.answer(f))
    check = next(c for c in found.checks if "a wider beam" in c.claim)
    assert check.measured == pytest.approx(0.02)
    assert not check.passed
    assert "one of the steps is inside the noise. Nothing guarantees it" in " ".join(found.unexpected.split())
    f = with_written(f, beam_10={"own": (0.4, 0.51, 0.6)})
    found = compose(TEMPLATE, f, ex18.answer(f))
    assert next(c for c in found.checks if "a wider beam" in c.claim).passed
    assert not found.unexpected


def test_the_lowest_loss_has_its_rivals(findings):
    low = with_written(findings, beam_2={"nats": (1.0, 1.1, 1.2)}, greedy={"nats": (1.1, 1.1, 1.15)})
    assert "Beam search (K = 2) has the lowest loss under GPT-2, not to be told from that of greedy decoding: " in told(
        low, 0
    )
    alone = with_written(findings, beam_2={"nats": (1.0, 1.1, 1.2)})
    assert "Beam search (K = 2) has the lowest loss under GPT-2: perplexity" in told(alone, 0)


def test_what_cannot_be_told_from_the_least_is_corrected_for_its_number():
    least, higher = (1.0, 1.1, 1.2), (2.0, 2.12, 2.19)
    near = (1.05, 1.08, 1.3)
    assert as_low(least, {"near": near, "higher": higher}) == ["near"]
    between = (1.1, 1.23, 1.38)  # beyond noise alone (p = 0.03), and no longer as one of two
    assert as_low(least, {"between": between}) == []
    assert as_low(least, {"between": between, "near": near}) == ["between", "near"]
    assert as_low(least[:1], {"higher": higher[:1]}) == ["higher"], "one prompt tells nothing"
