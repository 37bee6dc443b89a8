"""What 21.33 says of time is of the one text that was timed, and of a number of heads that gains."""

from types import SimpleNamespace as Any

from minigpt.evaluation.timing import Timing
from tasks.exercises.ex33_multi_token_prediction.findings import Drafting, Findings, Run
from tests.exercises.test_conclusions import said


def run_of(label: str, speedup: float, spread: float) -> Drafting:
    """Plain decoding takes a second; drafting has quartiles that far from its median."""
    runs = ((Run(passes=5, emitted=12, by_head=((4, 3), (0, 0))),) * 2,) * 3
    time = 1 / speedup
    return Drafting(label, runs, runs, 0, Timing(1.0, 1.0, 1.0, 9), Timing(time, time - spread, time + spread, 9))


def timed(*drafts: Drafting) -> str:
    f = Any(drafts=drafts)
    f.fastest = Findings.fastest.fget(f)
    return said("ex33_multi_token_prediction", "{% set best = f.fastest %}", "seeds would gain.", f=f)


def test_a_loose_fastest_does_not_hide_one_that_gains():
    """N = 4 is fastest by its median with quartiles that reach below 1; N = 2 gains by its quartiles, too."""
    text = timed(run_of("N = 2", 1.2, 0.01), run_of("N = 4", 1.3, 0.3), run_of("N = 8", 0.8, 0.01))
    assert "It pays here: N = 2 has 1.20 times the speed of plain decoding, and 1.19 times by the less" in text
    assert "no gain shows" not in text
    assert "By the clock no gain shows here: the fastest, N = 4" in timed(run_of("N = 4", 1.3, 0.3))


def test_what_was_timed_is_told():
    text = timed(run_of("N = 2", 1.2, 0.01), run_of("N = 4", 1.25, 0.01))
    assert "Tokens per pass are of 3 seeds with 2 texts each." in text
    assert "The clock saw one text by the first seed's model, 9 times, for each of 2 models" in text
    four = run_of("N = 4", 1.25, 0.01)
    summary = said("ex33_multi_token_prediction", "# Summary", "plain decoding.", f=Any(rows=[]), four=four)
    assert summary.endswith("a pass; the one text that was timed took it 0.80 times as long as plain decoding.")
