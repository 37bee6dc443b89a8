"""The report: one self-contained HTML page. Nothing in it asks the network for anything."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from types import MappingProxyType
from typing import Any

from markupsafe import Markup

from reports import cache, prose
from reports.beside.glossary import linked, terms
from reports.beside.reference import Beside, Reference, References, Unreadable, origins
from reports.blocks import environment, render_all
from reports.cache import TextCache
from reports.chapter import CHAPTER, GROUPS, Chapter, Question
from reports.formats import duration, number
from reports.plain import to_json
from reports.run import ModelRow, RunInfo, Score, by_id
from reports.story.editions import WHOLE, Answers, Edition, page_of, relocated, shared, shared_result
from reports.story.opening import opening
from reports.story.references import cited
from reports.types import Part, Result

STYLES = (
    "base.css",
    "layout.css",
    "story.css",
    "blocks.css",
    "tables.css",
    "figures.css",
    "live.css",
    "beside.css",
    "print.css",
)
SCRIPTS = (
    *("page.js", "tables.js", "explore.js", "kit.js", "charts.js", "maps.js", "takeaway.js"),
    *("distribution.js", "mask.js", "speculation.js"),
)
STATUS = {"ok": "answered", "failed": "failed", "not-run": "not run"}
VERDICTS = {
    ("exact", True): "holds",
    ("exact", False): "does not hold",
    ("empirical", True): "confirmed",
    ("empirical", False): "not confirmed",
}


def render(
    chapter: Chapter = CHAPTER,
    results: Sequence[Result] = (),
    run: RunInfo | None = None,
    *,
    references: References = MappingProxyType({}),
    sections_cache: TextCache | None = None,
    edition: Edition = WHOLE,
    others: Sequence[Edition] = (),
) -> str:
    """The HTML page of these results.

    ``references`` are shown beside them. ``sections_cache`` remembers what was drawn
    (``reports.cache.DirectoryCache``): a page of which nothing changed is put together without drawing a figure.
    ``others`` are editions that lie beside this one, which are linked. The page depends on the arguments alone.

    Raises:
        ValueError: two results of one exercise, or one of an exercise that the chapter does not have.
    """
    parts = _Parts.of(chapter, results, run, references, sections_cache, edition, others)
    return parts.page(sections=list(parts.sections.values()))


def pages(
    chapter: Chapter = CHAPTER,
    results: Sequence[Result] = (),
    run: RunInfo | None = None,
    *,
    references: References = MappingProxyType({}),
    sections_cache: TextCache | None = None,
    edition: Edition,
    others: Sequence[Edition] = (),
) -> dict[str, str]:
    """The pages of a split edition by file name: ``index.html`` and one per exercise.

    Raises:
        ValueError: see ``render``.
    """
    parts = _Parts.of(chapter, results, run, references, sections_cache, edition, others)
    made = {"index.html": relocated(parts.page(sections=[]))}
    ids = list(parts.sections)
    for before, id, after in zip(["", *ids[:-1]], ids, [*ids[1:], ""], strict=True):
        neighbours = tuple(chapter.questions[other] if other else None for other in (before, after))
        one = parts.page(sections=[parts.sections[id]], only=chapter.questions[id], neighbours=neighbours)
        made[page_of(id)] = relocated(one, id)
    return made


@dataclass(frozen=True)
class _Parts:
    """What the pages of an edition are put together from; sections by id."""

    edition: Edition
    values: Mapping[str, Any]
    sections: Mapping[str, Markup]

    @staticmethod
    def of(
        chapter: Chapter,
        results: Sequence[Result],
        run: RunInfo | None,
        references: References,
        sections_cache: TextCache | None,
        edition: Edition,
        others: Sequence[Edition],
    ) -> "_Parts":
        found = by_id(chapter, results)
        if edition.share:
            run, found = run and shared(run), {key: shared_result(result) for key, result in found.items()}
        sections = {
            key: section(
                question,
                found[key],
                reference=references.get(key),
                sections_cache=sections_cache,
                answers=edition.answers,
            )
            if key in found
            else _not_run(question)
            for key, question in chapter.questions.items()
        }
        script = _assets(SCRIPTS)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        rows = {key: _row(question, found.get(key)) for key, question in chapter.questions.items()}
        told = opening(chapter, found, run, sections_cache) if edition.answers == "shown" else None
        works = cited([*sections.values(), str(told.missed) if told else ""])
        values = {
            "title": chapter.title,
            "score": Score.of(results, len(chapter.questions)),
            "run": run,
            "machine": _machine(run) if run else "",
            "groups": [(group, [rows[q.id] for q in chapter.group(group)]) for group in GROUPS if chapter.group(group)],
            "models": _models(run.models) if run and run.models and edition.answers == "shown" else "",
            "opening": told,
            "references": works,
            "reading": _reading(references, run) if edition.answers == "shown" else "",
            "edition": edition,
            "others": [other for other in others if other != edition],
            "style": Markup(_assets(STYLES)),
            "script": Markup(script),
            "script_hash": f"sha256-{digest}",
            "section_id": section_id,
        }
        return _Parts(edition, values, sections)

    def page(
        self,
        sections: Sequence[Markup],
        only: Question | None = None,
        neighbours: tuple[Question | None, ...] = (None, None),
    ) -> str:
        """A page with these sections: all of them, none, or the ``only`` one that it is about."""
        template = environment().get_template("page.html")
        return template.render(**self.values, sections=sections, only=only, neighbours=neighbours)


def section(
    question: Question,
    result: Result,
    *,
    reference: Reference | Unreadable | None = None,
    sections_cache: TextCache | None = None,
    answers: Answers = "shown",
) -> Markup:
    """The section of one exercise. Calling this as results arrive fills the cache before the page is needed.

    What is remembered are the parts' blocks, which take the time: a result that differs in nothing but its seconds or
    its links draws no figure again.
    """
    uid = section_id(question)
    template = environment().get_template("section.html")
    return linked(
        template.render(
            uid=uid,
            question=question,
            result=result,
            status=result.status,
            status_label=STATUS[result.status],
            wording=_wording(question),
            error_line=(result.error.strip().splitlines() or [""])[-1],
            parts=_parts(question, result, uid, sections_cache) if answers != "none" else [],
            beside=Beside(result, reference),
            verdicts=VERDICTS,
            answers=answers,
        )
    )


def section_id(question: Question) -> str:
    """The id of an exercise's section, for templates."""
    return question.anchor


# --- A section -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _PartView:
    letter: str
    uid: str
    heading: Markup
    html: Markup


def _parts(question: Question, result: Result, uid: str, sections_cache: TextCache | None) -> list[_PartView]:
    """The answer's parts in its order, and a remark for each part of the question that has none."""
    views = []
    for index, part in enumerate(result.parts):
        part_uid = f"{uid}-{part.letter or 'answer'}-{index}"
        views.append(_part(question, part, part_uid, sections_cache))
    answered = {part.letter for part in result.parts}
    for letter, text in question.parts.items():
        if result.status == "ok" and letter not in answered:
            remark = Markup('<p class="muted">This part has no answer.</p>')
            views.append(_PartView(letter, f"{uid}-{letter}", prose.html_inline(text), remark))
    return sorted(views, key=lambda view: view.letter)


def _part(question: Question, part: Part, uid: str, sections_cache: TextCache | None) -> _PartView:
    heading = _capitalised(part.question or question.parts.get(part.letter, ""))
    remember = sections_cache or (lambda name, make: make())
    try:
        html = Markup(remember(cache.key([uid, to_json(part.blocks)]), lambda: render_all(part.blocks, uid)))
    except Exception:  # one block that cannot be drawn must not cost the report; what failed is not remembered
        html = render_all(part.blocks, uid, isolated=True)
    return _PartView(part.letter, uid, prose.html_inline(heading), html)


def _capitalised(heading: str) -> str:
    """The heading with a capital, unless its first word is a symbol or has capitals of its own."""
    word = heading.partition(" ")[0].replace("-", "")
    plain = word == "a" or (len(word) > 1 and word.isalpha() and word.islower())
    return heading[0].upper() + heading[1:] if plain else heading


def _wording(question: Question) -> Markup:
    return Markup(environment().get_template("question.html").render(question=question))


def _not_run(question: Question) -> Markup:
    template = environment().get_template("not_run.html")
    return Markup(template.render(uid=section_id(question), question=question, wording=_wording(question)))


# --- The overview --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    """One line of the overview."""

    question: Question
    uid: str
    status: str
    status_label: str
    summary: Markup
    exact: int
    exact_held: int
    empirical: int
    confirmed: int
    unconfirmed: bool
    time: str
    haystack: str  # what the filter searches


def _row(question: Question, result: Result | None) -> _Row:
    score = Score.of([result] if result else [], 1)
    status = result.status if result else "not-run"
    words = [question.id, question.number, question.title, question.stem, *question.parts.values()]
    return _Row(
        question=question,
        uid=section_id(question),
        status=status,
        status_label=STATUS[status],
        summary=prose.html_inline(_summary(result)) if result else Markup(""),
        exact=score.exact,
        exact_held=score.exact_held,
        empirical=score.empirical,
        confirmed=score.empirical_confirmed,
        unconfirmed=bool(result) and any(not check.passed for check in result.checks),  # type: ignore[union-attr]
        time=duration(result.provenance.seconds) if result else "",
        haystack=" ".join([*words, result.summary if result else ""]).lower(),
    )


def _summary(result: Result) -> str:
    if result.status == "failed":
        return f"`{(result.error.strip().splitlines() or ['no message'])[-1].replace('`', chr(39))[:200]}`"
    return result.summary


def _machine(run: RunInfo) -> str:
    machine = run.machine
    facts = [
        machine.device,
        f"trainings in {machine.precision}" if machine.precision else "",
        f"{machine.cores} cores" if machine.cores else "",
        f"{number(machine.memory_gib, 3)} GiB memory" if machine.memory_gib else "",
        machine.system,
        f"Python {machine.python}" if machine.python else "",
        f"PyTorch {machine.torch}" if machine.torch else "",
    ]
    return ", ".join(fact for fact in facts if fact)


def _models(models: Sequence[ModelRow]) -> Markup:
    """The models by their tokenizer: losses per token compare within a group alone."""
    columns = (
        ("Model", "text"),
        ("What it is", "text"),
        ("Parameters", "number"),
        ("Tokens seen", "number"),
        ("Validation loss (nats/token)", "number"),
        ("Training time", "number"),
        ("Path in the store", "text"),
    )
    names = dict.fromkeys(model.tokenizer for model in models)
    groups = [(name, [model for model in models if model.tokenizer == name]) for name in names]
    return Markup(environment().get_template("models.html").render(groups=groups, columns=columns))


def _reading(references: References, run: RunInfo | None) -> Markup:
    """The words explained, where the reference values come from, and which of the book's sizes were trained."""
    sizes = run.sizes if run else ()
    template = environment().get_template("reading.html")
    return Markup(template.render(terms=terms(), origins=origins(references), sizes=sizes))


@lru_cache(maxsize=8)
def _assets(names: tuple[str, ...]) -> str:
    """Style sheets or scripts, one after another."""
    folder = resources.files("reports").joinpath("assets")
    return "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)
