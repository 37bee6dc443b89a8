"""Answers: findings that a step has stored, and what an exercise's ``answer.py`` and ``answer.md`` make of them.

This takes milliseconds, needs no PyTorch and is never cached: an edited sentence is on the page at the next rendering,
and nothing is measured again. A folder of ``tasks/exercises`` has

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

from reports.answers import compose
from reports.chapter import QUESTIONS
from reports.types import Answer, Provenance, Result, from_json, to_json
from tasks.exercises import folders

if TYPE_CHECKING:  # Prefect comes with it, which takes longer than all the rest
    from tasks.cache.store import Store


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


def _template(id: str) -> str:
    return resources.files(folders()[id]).joinpath("answer.md").read_text(encoding="utf-8")


def _composed(id: str, findings: Any, template: str) -> Answer:
    draft = importlib.import_module(f"{folders()[id]}.answer").answer(findings)
    return compose(template, findings, draft)


@functools.lru_cache(maxsize=64)
def _answer(id: str, stored: str, template: str) -> Answer:
    """Remembered, since a run asks twice, for MLflow and for the page. Its code cannot change in a process."""
    return _composed(id, load(id, stored), template)


def stored_findings(record: Mapping[str, Any], store: "Store") -> str:
    """What an exercise's step has stored: JSON text."""
    from tasks.cache.store import Artifact

    return store.fetch_bytes(Artifact(**record["artifacts"]["findings"])).decode()


def result_of(id: str, record: Mapping[str, Any], store: "Store") -> Result:
    """An exercise's result from the record of its step."""
    answer = _answer(id, stored_findings(record, store), _template(id))
    fields = {f.name: getattr(answer, f.name) for f in dataclasses.fields(answer)}
    provenance = from_json(Provenance, record["data"]["provenance"])
    return Result(id, QUESTIONS[id].title, "ok", provenance, **fields)


def tracking_key(key: str, result: Result) -> str:
    """The key under which a result is tracked: of its step, and of what is said of it.

    An edited answer is another run on MLflow; the step's own key does not know of it.
    """
    said = (result.summary, result.notes, result.parts, result.checks, result.metrics)
    return hashlib.sha256(json.dumps([key, to_json(list(said))], sort_keys=True).encode()).hexdigest()


def _adapter(id: str) -> TypeAdapter[Any]:
    kind: Any = importlib.import_module(f"{folders()[id]}.findings").Findings
    return TypeAdapter(kind)
