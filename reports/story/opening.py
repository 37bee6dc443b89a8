"""The opening of the page: what was found, what did not come out as predicted, and what to beware of.

Nothing is written here. Findings are chosen by what the answers are: sentences, figures and checks of their own.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest
from textwrap import shorten

from markupsafe import Markup

from reports import cache, figures, heatmaps, prose
from reports.cache import TextCache
from reports.chapter import GROUPS, Chapter, Question
from reports.plain import to_json
from reports.run import RunInfo
from reports.style import Size
from reports.text import visible
from reports.types import Block, Check, Figure, Heatmap, Prose, Result, Table, flattened
from reports.words import ALONE

MOST = 6
SERIES, ROOM = 4, 44  # series of a small picture, and letters along its side
SMALL = Size("small", 330, 210, 11.5)


@dataclass(frozen=True)
class Finding:
    """One card: a sentence of an exercise and the figure that shows it."""

    question: Question
    sentence: Markup
    picture: Markup
    legend: tuple[figures.LegendEntry, ...]
    more: int  # series for which there is no room


@dataclass(frozen=True)
class Missed:
    """Predictions of one exercise that were not confirmed, and why."""

    question: Question
    checks: tuple[Check, ...]
    why: Markup


@dataclass(frozen=True)
class Opening:
    """All that comes before the list of exercises. ``single`` are those in which one seed carries a comparison."""

    findings: tuple[Finding, ...] = ()
    missed: tuple[Missed, ...] = ()
    broken: tuple[Missed, ...] = ()
    caution: str = ""
    single: tuple[Question, ...] = ()


def opening(
    chapter: Chapter, found: Mapping[str, Result], run: RunInfo | None, sections_cache: TextCache | None = None
) -> Opening:
    """The opening of a page with these results, by id."""
    caution = run.caution if run else ""
    chosen = select(chapter, found, computed_only=bool(caution))
    return Opening(
        findings=tuple(_finding(chapter.questions[key], found[key], sections_cache) for key in chosen),
        missed=tuple(_missed(chapter, found, "empirical")),
        broken=tuple(_missed(chapter, found, "exact")),
        caution=prose.html_inline(caution),
        single=tuple(chapter.questions[key] for key, result in found.items() if rests_on_one_seed(result)),
    )


def select(chapter: Chapter, found: Mapping[str, Result], *, computed_only: bool = False) -> list[str]:
    """The ids of the exercises whose findings open the page, at most ``MOST``, in the chapter's order.

    An exercise can open the page whose exact checks all hold. Those with a finding of their own come first, then those
    with a figure to show; the groups of exercises take turns, so that no one of them is all that is told. With
    ``computed_only`` only exercises that predict nothing are asked: nothing in them depends on how far a model is
    trained.
    """
    fit = {
        key: result
        for key, result in found.items()
        if result.status == "ok"
        and result.summary
        and all(check.passed for check in result.checks if check.kind == "exact")
        and not (computed_only and any(check.kind == "empirical" for check in result.checks))
    }
    queues = [
        sorted(
            (question.id for question in chapter.group(group) if question.id in fit),
            key=lambda id: (not fit[id].finding, picture_of(fit[id]) is None),
        )
        for group in GROUPS
    ]
    turns = [id for turn in zip_longest(*queues) for id in turn if id is not None]
    order = list(chapter.questions)
    return sorted(turns[:MOST], key=order.index)


def sentence_of(result: Result) -> str:
    """What a result says in one thought: its finding, else the first sentence of its summary."""
    if result.finding:
        return result.finding
    end = re.search(r"(?<!\be\.g)(?<!\bal)[.;](?=\s+[A-Za-z])", result.summary)
    return f"{result.summary[: end.start()]}." if end else result.summary


def picture_of(result: Result) -> Figure | Heatmap | None:
    """The figure that shows the finding: the one that the answer names, else its first chart, else its first map."""
    own = [*result.picture, *(block for part in result.parts for block in part.blocks)]
    named = [block for block in result.picture if isinstance(block, Figure | Heatmap)]
    charts = [block for block in own if isinstance(block, Figure) and block.series]
    maps = [block for block in own if isinstance(block, Heatmap) and not block.annotate]  # numbers need a page's room
    return next(iter([*named, *charts, *maps]), None)


def rests_on_one_seed(result: Result) -> bool:
    """Whether an answer compares models of which each was trained once."""
    return any(_says_so(block) for part in result.parts for block in flattened(part.blocks))


def _says_so(block: Block) -> bool:
    if isinstance(block, Prose):
        return ALONE in " ".join(block.text.split()) and "one seed" in block.text
    return isinstance(block, Table) and any("one seed" in row for row in block.rows)


def _finding(question: Question, result: Result, sections_cache: TextCache | None) -> Finding:
    block = picture_of(result)
    sentence = prose.html_inline(sentence_of(result))
    more = max(0, len(block.series) - SERIES) if isinstance(block, Figure) else 0
    try:
        picture = _drawn(block, sections_cache) if block else Markup("")
    except Exception:  # what cannot be drawn is said at its own place
        return Finding(question, sentence, Markup(""), (), 0)
    legend = figures.legend(_small(block)) if isinstance(block, Figure) else ()
    return Finding(question, sentence, picture, legend, more)


def _small(figure: Figure) -> Figure:
    """As much of a chart as a small picture has room for."""
    labels = [shorten(label, ROOM, placeholder=" …") for label in (figure.x_label, figure.y_label)]
    return replace(figure, series=figure.series[:SERIES], x_label=labels[0], y_label=labels[1])


def _drawn(block: Figure | Heatmap, sections_cache: TextCache | None) -> Markup:
    """The small picture, made or remembered."""
    remember = sections_cache or (lambda name, make: make())
    shown = _small(block) if isinstance(block, Figure) else block
    name = cache.key(["opening", to_json(shown)])
    uid = f"small-{name[:10]}"

    def make() -> str:
        return str(figures.draw(shown, SMALL, uid) if isinstance(shown, Figure) else heatmaps.draw(shown, uid))

    return Markup(remember(name, make))


def _missed(chapter: Chapter, found: Mapping[str, Result], kind: str) -> Iterator[Missed]:
    for key, result in found.items():
        checks = tuple(check for check in result.checks if check.kind == kind and not check.passed)
        if checks:
            yield Missed(chapter.questions[key], checks, prose.html_inline(visible(result.unexpected), cite=True))
