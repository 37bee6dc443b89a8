"""Answers: findings that a step has stored, and what an exercise's ``answer.py`` and ``answer.md`` make of them.

This takes milliseconds and needs no PyTorch. What it makes may be kept, but only until a file of this project changes:
an edited sentence is on the page at the next rendering, and nothing is measured again. A folder of ``tasks/exercises``
has

    findings.py     ``Findings``: what was measured, as plain data, with its ``metrics``
    experiment.py   ``EXERCISE``, whose ``measure`` returns them; a cached step
    answer.py       ``answer(findings) -> Draft``: tables, figures, samples, checks
    answer.md       every sentence; see ``reports.answers``
"""

import dataclasses
import functools
import hashlib
import importlib
import json
from collections.abc import Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from reports.cache import DirectoryCache, code_digest, key
from reports.chapter import QUESTIONS
from reports.plain import from_json, to_json
from reports.types import Answer, Provenance, Result
from reports.words import plural
from tasks.exercises import folders

if TYPE_CHECKING:  # Prefect comes with it, which takes longer than all the rest
    from tasks.cache.store import Store

PROJECT = ("minigpt", "reports", "tasks")  # all of it that an answer may use, or show as a listing
_LIBRARIES = ("jinja2", "markupsafe", "numpy", "regex", "scipy")


def dump(findings: Any) -> str:
    """Findings as JSON text, floats with all their digits; a float that is not finite becomes its name.

    Raises:
        TypeError: a tensor, or anything else that is not plain data.
    """
    return json.dumps(to_json(findings), ensure_ascii=False, allow_nan=False)


def load(id: str, text: str | bytes) -> Any:
    """The findings of an exercise from their JSON.

    Raises:
        pydantic.ValidationError: they do not fit the exercise's ``Findings``.
    """
    return _adapter(id).validate_python(json.loads(text))


def answer_of(id: str, findings: Any) -> Answer:
    """What an exercise says of its findings.

    Raises:
        reports.answers.AnswerError: its ``answer.md`` cannot be filled.
    """
    return _composed(id, findings, _template(id))


@functools.lru_cache(maxsize=64)  # a search of the disk for all of them
def _package(id: str) -> str:
    return folders()[id]


def _template(id: str) -> str:
    return resources.files(_package(id)).joinpath("answer.md").read_text(encoding="utf-8")


def _composed(id: str, findings: Any, template: str) -> Answer:
    from reports.answers import compose  # and with it Jinja, which a run does without that finds all its answers

    draft = importlib.import_module(f"{_package(id)}.answer").answer(findings)
    return compose(template, findings, draft)


@functools.lru_cache(maxsize=64)
def _answer(id: str, stored: str, template: str, kept: DirectoryCache | None) -> Answer:
    """Remembered, since a run asks twice, for MLflow and for the page. Its code cannot change in a process.

    ``kept`` has it as JSON of an earlier run, if nothing has changed that it is made of. All answers together take
    seconds to make: their code is imported, their templates are compiled.
    """
    if kept is None:
        return _composed(id, load(id, stored), template)
    name = key([code_digest(PROJECT, _LIBRARIES), template, id, stored])
    made = None

    def make() -> str:
        nonlocal made
        made = _composed(id, load(id, stored), template)
        return _as_json(made)

    text = kept(name, make)
    if made is not None:
        return made
    try:
        return _from_json(text)
    except (ValueError, TypeError):
        kept.drop(name)
        return _composed(id, load(id, stored), template)


def _as_json(answer: Answer) -> str:
    """The answer's JSON; nothing where it would be read back as another, such as a table with NaN."""
    text = json.dumps(to_json(answer), allow_nan=False)
    return text if _from_json(text) == answer else ""


def _from_json(text: str) -> Answer:
    made: Answer = from_json(Answer, json.loads(text))
    return made


def stored_findings(record: Mapping[str, Any], store: "Store") -> str:
    """What an exercise's step has stored: JSON text."""
    from tasks.cache.store import Artifact

    return store.fetch_bytes(Artifact(**record["artifacts"]["findings"])).decode()


def result_of(id: str, record: Mapping[str, Any], store: "Store", kept: DirectoryCache | None = None) -> Result:
    """An exercise's result from the record of its step; ``kept`` remembers answers from run to run."""
    stored = stored_findings(record, store)
    answer = _answer(id, stored, _template(id), kept)
    fields = {f.name: getattr(answer, f.name) for f in dataclasses.fields(answer)}
    provenance = from_json(Provenance, {**record["data"]["provenance"], "machine": _machine(record)})
    return Result(id, QUESTIONS[id].title, "ok", provenance, **fields)


def _machine(record: Mapping[str, Any]) -> str:
    """Where times were measured; "" for an exercise that measures none."""
    hardware = record["data"].get("lineage", {}).get("inputs", {}).get("hardware")
    if not hardware:
        return ""
    found = [str(hardware["cpu"]), plural(hardware["cores"], "core"), str(hardware.get("gpu", "none"))]
    return ", ".join(found[:2] if found[2] == "none" else found)


def tracking_key(key: str, result: Result) -> str:
    """The key under which a result is tracked: of its step, and of what is said of it.

    An edited answer is another run on MLflow; the step's own key does not know of it.
    """
    said = (result.summary, result.notes, result.parts, result.checks, result.metrics)
    return hashlib.sha256(json.dumps([key, to_json(list(said))], sort_keys=True).encode()).hexdigest()


def _adapter(id: str) -> TypeAdapter[Any]:
    kind: Any = importlib.import_module(f"{_package(id)}.findings").Findings
    return TypeAdapter(kind)
