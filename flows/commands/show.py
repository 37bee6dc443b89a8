"""``chapter show``: one answer in the terminal. Light, so that an edited sentence is there in a second."""

import json
import sys
from dataclasses import fields, replace
from pathlib import Path

from rich.console import Console

from reports.answers import AnswerError
from reports.terminal import show as print_result
from reports.types import Result, from_json


def show(outputs: Path, id: str, *, again: bool = False) -> int:
    """One answer of the latest report; ``again`` makes it anew from what was measured, as ``answer.md`` is now."""
    number = int(id.partition(".")[2])
    latest = outputs / "latest"
    file = latest / "results" / f"21.{number:02d}.json"
    if not file.exists():
        print(f"chapter: {id} has no result in {latest}; run `chapter run --only {id}`", file=sys.stderr)
        return 1
    result: Result = from_json(Result, json.loads(file.read_text()))
    if again:
        from pydantic import ValidationError

        from tasks.answers import answer_of, load

        found = latest / "findings" / file.name
        if not found.exists():
            print(f"chapter: {id} has no findings in {latest}; run `chapter run --only {id}`", file=sys.stderr)
            return 1
        try:
            answer = answer_of(id, load(id, found.read_text()))
        except AnswerError as error:
            print(f"chapter: the answer of {id}: {error}", file=sys.stderr)
            return 1
        except ValidationError:
            print(f"chapter: findings.py of {id} has changed; run `chapter run --only {id}`", file=sys.stderr)
            return 1
        made = {field.name: getattr(answer, field.name) for field in fields(answer)}
        result = replace(result, status="ok", error="", **made)
    print_result(result, Console())
    return 0 if result.status == "ok" else 1
