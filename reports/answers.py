r"""From findings to an answer: the text of ``answer.md``, filled with what ``answer.py`` has made of the findings.

An ``answer.md`` is Markdown with TeX between dollar signs, and Jinja2 in it::

    # Summary

    Lowest at equal steps: {{ best.name }} ({{ best.loss | nats }}).

    # Finding

    Second for second the small model learns more. {{ picture("curves") }}

    # Not as predicted

    {% if not f.trained_long_enough %}None of them has left the plateau.{% endif %}

    # Notes

    {% if seeds == 1 %}One seed per model: small differences may be noise.{% endif %}

    # (a) Training loss curves

    All three see {{ f.characters | count }} characters.

    {{ show("curves") }}

    {% call details("How the time was measured") %}
    Medians of {{ f.repeats | plural("run") }}.
    {% endcall %}

A first-level heading begins a section. ``Summary`` is the sentence of the overview. ``Finding`` is one thought for the
page's opening, with the block that shows it, and empty where the run does not bear it out; ``Not as predicted`` says
why empirical checks fail, where some do; both may be left out. Each paragraph of ``Notes`` is a caveat under the title;
"(a)" and what follows is a part of the answer and its question in a few words; any other heading is a part without
letter. ``f`` is what was measured, ``show`` puts a table or a figure where it stands, and ``details`` folds what only
some readers want. Undefined names are errors, and so is evidence that is shown nowhere or twice. The filters are
those of ``reports.words``. What stands before the first heading (``{% set … %}``) holds for all sections.
"""

import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, wraps
from typing import Any

from jinja2 import Environment, StrictUndefined, Template, TemplateError, Undefined

from reports.types import Answer, Block, Check, Details, Part, Prose
from reports.words import FILTERS

_HEADING = re.compile(r"^# +(.+?) *$", re.MULTILINE)
_FENCE = re.compile(r"^(```+|~~~+).*?^\1", re.MULTILINE | re.DOTALL)
_LETTER = re.compile(r"\(([a-z])\)\s*(.*)", re.DOTALL)


_SENTENCES = ("Summary", "Finding", "Not as predicted")


class AnswerError(Exception):
    """An ``answer.md`` that cannot be filled; the text names the section and what is wrong with it."""


@dataclass(frozen=True)
class Draft:
    """What ``answer.py`` makes of the findings: everything but sentences.

    ``blocks`` are tables, figures, samples by the name under which ``answer.md`` shows them, one or several in a row.
    ``values`` are further names for the text.
    """

    blocks: Mapping[str, Block | Sequence[Block]] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)


def compose(template: str, findings: Any, draft: Draft) -> Answer:
    """Fill a template.

    Raises:
        AnswerError: an undefined name, a faulty expression, evidence that is missing, unused or shown twice.
    """
    preamble, sections = _sections(template)
    values = {**draft.values, "f": findings}
    evidence = _Evidence(draft.blocks)
    filled = _filled_at_once(preamble, sections, values, evidence)
    if filled is None:
        evidence = _Evidence(draft.blocks)
        filled = _filled_one_by_one(preamble, sections, values, evidence)
    told: set[str] = set()
    single = dict.fromkeys(_SENTENCES, "")
    notes: tuple[str, ...] = ()
    parts: list[Part] = []
    for title, heading, body in filled:
        label = heading.partition(")")[0] if heading.startswith("(") else heading
        if label in told:
            raise AnswerError(f"section {title!r}: it comes twice")
        told.add(label)
        if title in (*_SENTENCES, "Notes") and evidence.marks(body):
            raise AnswerError(f"section {title!r}: evidence and details belong into a part")
        if title in single:
            single[title] = " ".join(body.split())
        elif title == "Notes":
            notes = tuple(" ".join(note.split()) for note in re.split(r"\n\s*\n", body) if note.strip())
        else:
            letter = _LETTER.fullmatch(heading.strip())
            blocks = tuple(evidence.split(body))
            parts.append(Part(letter[1], blocks, letter[2]) if letter else Part("", blocks, heading.strip()))
    if not single["Summary"]:
        raise AnswerError("the section Summary is missing or empty")
    if unused := evidence.unused():
        raise AnswerError(f"shown nowhere: {', '.join(unused)}")
    return Answer(
        single["Summary"],
        tuple(parts),
        draft.checks,
        dict(findings.metrics),
        notes,
        finding=single["Finding"],
        picture=evidence.picture if single["Finding"] else (),
        unexpected=single["Not as predicted"],
    )


def _sections(template: str) -> tuple[str, list[tuple[str, str]]]:
    """What stands before the first heading, then each heading with its source.

    Sections are cut before they are filled: text that a model wrote can begin none.
    """
    fenced = _FENCE.sub(lambda fence: fence[0].replace("\n#", "\n\x01#"), template)  # no headings in listings
    preamble, *rest = (text.replace("\x01", "") for text in _HEADING.split(fenced))
    return preamble, list(zip(rest[::2], rest[1::2], strict=True))


@lru_cache(maxsize=1)
def _environment() -> Environment:
    made = Environment(  # Markdown: it is escaped when it becomes HTML
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    made.filters.update({name: _defined(filter) for name, filter in FILTERS.items()})
    made.globals.update(zip=zip, enumerate=enumerate, abs=abs, min=min, max=max, len=len, round=round, sum=sum)
    return made


def _defined(filter: Callable[..., str]) -> Callable[..., str]:
    """The filter, which names an undefined value instead of failing over its type."""

    @wraps(filter)
    def checked(value: Any, *arguments: Any, **options: Any) -> str:
        if isinstance(value, Undefined):
            str(value)  # says which name or attribute it is
        return filter(value, *arguments, **options)

    return checked


@lru_cache(maxsize=512)
def _compiled(source: str) -> Template:
    return _environment().from_string(source)


Filled = Iterator[tuple[str, str, str]]  # title as it is written; heading and body, filled


def _filled_at_once(
    preamble: str, sections: Sequence[tuple[str, str]], values: Mapping[str, Any], evidence: "_Evidence"
) -> Filled | None:
    """All sections by one template, or None if anything is wrong with any of them.

    Compiling is what takes time, and with a template per heading and section the preamble is compiled for each. What a
    section sets stays in it, as in a template of its own: ``with`` sees to that.
    """
    border = evidence.mark("border", "")
    pieces = "".join(
        f"{{% with %}}{text}{{% endwith %}}{{{{ border_of_sections }}}}" for section in sections for text in section
    )
    template = f"{preamble}{{{{ border_of_sections }}}}{pieces}"
    try:
        before, *texts, _ = (
            _compiled(template).render({**values, **evidence.names(), "border_of_sections": border}).split(border)
        )
    except Exception:  # in which section it is, and what to say of it, is found by filling them one by one
        return None
    if before.strip() or len(texts) != 2 * len(sections):
        return None
    return ((title, *texts[2 * i : 2 * i + 2]) for i, (title, _) in enumerate(sections))  # type: ignore[misc]


def _filled_one_by_one(
    preamble: str, sections: Sequence[tuple[str, str]], values: Mapping[str, Any], evidence: "_Evidence"
) -> Filled:
    """Every heading and section by a template of its own.

    Raises:
        AnswerError: names the section.
    """
    names = {**values, **evidence.names()}
    for title, source in sections:
        heading, body = (_fill(title, preamble, text, names) for text in (title, source))
        yield title, heading, body


def _fill(title: str, preamble: str, source: str, names: Mapping[str, Any]) -> str:
    try:
        return _compiled(preamble + source).render(names)
    except AnswerError as error:
        raise AnswerError(f"section {title!r}: {error}") from error
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        where = f", line {line - preamble.count(chr(10))} of it" if line else ""
        raise AnswerError(f"section {title!r}{where}: {error.message or type(error).__name__}") from error
    except Exception as error:
        raise AnswerError(f"section {title!r}: {type(error).__name__}: {error}") from error


class _Evidence:
    """Hands out marks for blocks while text is filled, and finds the blocks again in the filled text."""

    def __init__(self, blocks: Mapping[str, Block | Sequence[Block]]) -> None:
        self._blocks = blocks
        self._nonce = secrets.token_hex(8)  # nobody can write a mark who has not been handed it
        self._folded: list[tuple[str, str]] = []
        self._shown: set[str] = set()
        self.picture: tuple[Block, ...] = ()
        self._marks = re.compile(rf"\x02{self._nonce} (show|fold) (.+?)\x03")

    def names(self) -> dict[str, Callable[..., str]]:
        """What the text may call."""
        return {"show": self.show, "details": self.details, "picture": self.depict}

    def mark(self, kind: str, name: object) -> str:
        """A mark that no text can hold which was not given it."""
        return f"\x02{self._nonce} {kind} {name}\x03"

    def show(self, name: str) -> str:
        """The mark of a table, a figure, …; it stands on a line of its own."""
        if name not in self._blocks:
            raise AnswerError(f"show({name!r}): answer.py makes {', '.join(self._blocks) or 'nothing'}")
        if name in self._shown:
            raise AnswerError(f"show({name!r}): it is shown twice")
        self._shown.add(name)
        return f"\n\n{self.mark('show', name)}\n\n"

    def depict(self, name: str) -> str:
        """Takes a block as the picture of the finding; it leaves nothing in the text."""
        if name not in self._blocks:
            raise AnswerError(f"picture({name!r}): answer.py makes {', '.join(self._blocks) or 'nothing'}")
        found = self._blocks[name]
        self.picture = tuple(found[:1]) if isinstance(found, Sequence) else (found,)
        return ""

    def details(self, title: str, caller: Callable[[], str]) -> str:
        """The mark of what is folded under a title: the text between ``call details`` and ``endcall``."""
        self._folded.append((title, caller()))
        return f"\n\n{self.mark('fold', len(self._folded) - 1)}\n\n"

    def marks(self, text: str) -> bool:
        """Whether a text shows or folds something."""
        return bool(self._marks.search(text))

    def split(self, text: str) -> Iterator[Block]:
        """Prose, evidence, prose, … in the order of the text."""
        end = 0
        for mark in self._marks.finditer(text):
            yield from _prose(text[end : mark.start()])
            end = mark.end()
            if mark[1] == "fold":
                title, inner = self._folded[int(mark[2])]
                yield Details(title, tuple(self.split(inner)))
            else:
                found = self._blocks[mark[2]]
                yield from found if isinstance(found, Sequence) else (found,)
        yield from _prose(text[end:])

    def unused(self) -> list[str]:
        """Names of blocks that no text shows, but for empty ones."""
        return [name for name, found in self._blocks.items() if name not in self._shown and found != ()]


def _prose(text: str) -> Iterator[Prose]:
    if text.strip():
        yield Prose(re.sub(r"\n{3,}", "\n\n", text.strip()))
