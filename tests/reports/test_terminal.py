"""An answer in the terminal: everything is there, and nothing written by a model controls the terminal."""

import io
import math
import re
from dataclasses import replace

from rich.console import Console

from reports.terminal import plain, show, sparkline
from reports.types import Part, Prose, Result, Sample, Table, TokenScores
from tests.reports import sample


def shown(result: Result, *, colour: bool = False, width: int = 120) -> str:
    buffer = io.StringIO()
    show(result, Console(file=buffer, width=width, force_terminal=colour, color_system="standard" if colour else None))
    return buffer.getvalue()


def test_every_kind_of_block_is_shown():
    results = {result.id: shown(result) for result in sample.results()}
    assert "∏ₜ₌₁⁶" in results["21.1"]
    assert "2.3842×10⁻⁷" in results["21.1"]
    assert "not confirmed" in results["21.1"]
    assert "10,800,000" in results["21.22"]
    assert "█" in results["21.22"]
    assert "uniform model, ln V: 4.1897" in results["21.22"]
    assert "highest: " in results["21.24"]
    assert "my light and my salvation" in results["21.21"]
    assert "γ <must> be positive" in results["21.27"]
    assert "explore the maps in the report" in results["21.17"]
    assert "··" in results["21.2"]


def test_questions_stand_over_their_parts():
    assert "(a) Draw the causal attention mask matrix" in shown(sample.results()[1])


def test_text_of_a_model_neither_styles_nor_controls_the_terminal():
    hostile = "[bold red]x[/] \x1b[31mred\x1b]0;title\x07 \u202e"
    blocks = (
        Sample(hostile, hostile, hostile, hostile),
        Table((hostile,), ((hostile,),), hostile),
        TokenScores((hostile,), (1.0,), hostile),
        Prose("fine"),
    )
    text = shown(
        Result("21.1", "t", "ok", sample.PROVENANCE, parts=(Part("", blocks),), summary="s"), colour=True, width=300
    )
    assert "[bold red]x[/]" in text
    assert "\x1b]" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert "␛[31mred" in re.sub(r"\x1b\[[\d;]*m", "", text)


def test_formulas_become_unicode_and_prices_stay():
    assert plain(r"$\tau \to 0^+$ costs $5 and $10, \$3") == "τ → 0⁺ costs $5 and $10, $3"


def test_sparklines_follow_the_values():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([1, 10, 100, 1000, 10000, 100000, 1e6, 1e7], log=True) == "▁▂▃▄▅▆▇█"
    assert sparkline([1.0, math.nan, 2.0]) == "▁ █"
    assert len(sparkline(range(1000))) == 40
    assert sparkline([math.nan]) == " "


def test_tokens_of_two_kinds_are_told_apart_by_name():
    """A score is a place among the names, so that the highest is no more than the second kind."""
    block = TokenScores(("In", " the", " end"), (None, 1.0, 0.0), "list", sides=("red", "green"))
    text = shown(replace(sample.results()[0], parts=(Part("", (block,)),)))
    assert "list; underlined: green" in text
    assert "highest" not in text
