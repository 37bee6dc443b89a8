"""The files of a finished run: results as JSON, tables as CSV, a summary, and the page."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from reports import cache, figures, page
from reports.beside.reference import References
from reports.chapter import CHAPTER, Chapter, exercise_id
from reports.plain import to_json
from reports.run import RunInfo, Score, by_id
from reports.story.editions import WHOLE, Edition
from reports.text import encodable
from reports.types import Figure, Result, Table, flattened

if TYPE_CHECKING:
    import pandas as pd


def write_outputs(
    directory: Path,
    results: Sequence[Result],
    run: RunInfo,
    *,
    chapter: Chapter = CHAPTER,
    findings: Mapping[str, str] | None = None,
    references: References = MappingProxyType({}),
    sections_cache: cache.TextCache | None = None,
    editions: Sequence[Edition] = (),
    content: str = "",
) -> Path:
    """Write ``report.html``, ``summary.json``, ``results/21.NN.json`` and ``tables/*.csv`` into a new directory.

    ``editions`` of the page are written beside it, linked with it and with one another. With ``findings``, JSON texts
    by exercise, also ``findings/21.NN.json``: what the results were made of.
    ``references`` are shown on the page beside the results. ``content`` is their digest, which the summary keeps.

    Everything is written beside it first and renamed at the end: the directory appears whole or not at all.

    Returns:
        The directory.

    Raises:
        FileExistsError: the directory exists and is not empty.
        ValueError: two results of one exercise, or one of an exercise that the chapter does not have.
    """
    directory = Path(directory)
    found = by_id(chapter, results)
    files: dict[str, str] = {"summary.json": dumps(summary(chapter, results, run) | {"content": content})}
    for key, result in found.items():
        files[f"results/{key}.json"] = dumps(result_json(result))
        files |= {f"tables/{name}.csv": frame.to_csv(index=False) for name, frame in tables(result).items()}
    files |= {f"findings/{exercise_id(id)}.json": text for id, text in (findings or {}).items()}
    written = [WHOLE, *(edition for edition in editions if edition != WHOLE)]
    for edition in written:
        beside = [other for other in written if other.share or not edition.share]
        files |= _pages(chapter, results, run, references, sections_cache, edition, beside)

    _appear(directory, files)
    return directory


def content_digest(
    results: Sequence[Result], run: RunInfo, *, findings: Mapping[str, str], references: References
) -> str:
    """Digest of what the files say, except when the run was, how long it took and what was trained in it.

    Two runs with the same digest have the same answers, drawn by the same code.
    """
    about = replace(run, started="", seconds=0.0, command="", trainings=0)
    return cache.key([to_json(list(results)), _plain(asdict(about)), dict(findings), to_json(dict(references))])


def _pages(
    chapter: Chapter,
    results: Sequence[Result],
    run: RunInfo,
    references: References,
    sections_cache: cache.TextCache | None,
    edition: Edition,
    others: Sequence[Edition],
) -> dict[str, str]:
    """The files of one edition. What is shared links to nothing that is not."""
    drawn: dict[str, Any] = {
        "references": references,
        "sections_cache": sections_cache,
        "edition": edition,
        "others": others,
    }
    if edition.split:
        several = page.pages(chapter, results, run, **drawn)
        return {f"{edition.name}/{name}": text for name, text in several.items()}
    return {edition.name: page.render(chapter, results, run, **drawn)}


def _appear(directory: Path, files: Mapping[str, str]) -> None:
    """Write files of a new directory beside it, then rename: it appears whole or not at all."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        for name in ("results", "tables", "findings"):
            (temporary / name).mkdir()
        for name, text in files.items():
            (temporary / name).parent.mkdir(exist_ok=True)
            _write(temporary / name, text)
        temporary.chmod(0o755)
        os.rename(temporary, directory)  # replaces an empty directory, refuses another
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError) and directory.exists() and any(directory.iterdir()):
            raise FileExistsError(f"{directory} exists already") from error
        raise


def _write(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def dumps(data: object) -> str:
    """JSON text for people and programs: indented, but a list of plain values on one line."""
    return encodable(_json(data, "")) + "\n"


def _json(data: object, indent: str) -> str:
    inner = indent + " "
    if isinstance(data, dict) and data:
        items = [f"{inner}{json.dumps(name, ensure_ascii=False)}: {_json(item, inner)}" for name, item in data.items()]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    if isinstance(data, list) and any(isinstance(item, dict | list) for item in data):
        return "[\n" + ",\n".join(inner + _json(item, inner) for item in data) + f"\n{indent}]"
    return json.dumps(data, ensure_ascii=False, allow_nan=False)


def result_json(result: Result) -> dict[str, Any]:
    """A result as plain JSON data, under its two-digit id."""
    data: dict[str, Any] = to_json(result)
    return data | {"id": exercise_id(result.id)}


def summary(chapter: Chapter, results: Sequence[Result], run: RunInfo) -> dict[str, Any]:
    """The run at a glance: score, sources, machine, models, and a line per exercise of the chapter."""
    found = by_id(chapter, results)
    score = Score.of(results, len(chapter.questions))
    exercises = []
    for key, question in chapter.questions.items():
        result = found.get(key)
        one = Score.of([result] if result else [], 1)
        exercises.append(
            {
                "id": key,
                "title": question.title,
                "group": question.group,
                "status": result.status if result else "not run",
                "summary": result.summary if result else "",
                "error": result.error.strip().splitlines()[-1] if result and result.error.strip() else "",
                "seconds": result.provenance.seconds if result else None,
                "exact_checks": {"held": one.exact_held, "total": one.exact},
                "empirical_checks": {"confirmed": one.empirical_confirmed, "total": one.empirical},
            }
        )
    about = {name: value for name, value in asdict(run).items() if name not in ("profile", "models")}
    return {
        "title": chapter.title,
        "profile": run.profile,
        "verdict": score.sentence,
        "score": asdict(score),
        "run": _plain(about),
        "models": [_plain(asdict(model)) for model in run.models],
        "exercises": exercises,
    }


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: to_json(dict(value) if isinstance(value, Mapping) else value) for name, value in data.items()}


def tables(result: Result) -> "dict[str, pd.DataFrame]":
    """Data frames of a result's tables by file name: id, part's letter, and the table's name or place.

    Columns are of dtype object: whole numbers stay whole beside gaps, floats keep every digit, text need not be
    valid Unicode. ``infer_objects`` gives narrower types where they fit.
    """
    import pandas as pd

    frames: dict[str, pd.DataFrame] = {}
    for part in result.parts:
        for place, block in enumerate(flattened(part.blocks), 1):
            if isinstance(block, Table):
                names = pd.Index(block.columns, dtype=object)
                frame = pd.DataFrame(list(block.rows), columns=names, dtype=object)
                name = _file_name(block.name or f"table-{place}")
                frames[_unique(f"{exercise_id(result.id)}{part.letter}-{name}", frames)] = frame
    return frames


def drawings(result: Result) -> dict[str, str]:
    """SVG files of a result's charts by file name, for places outside the page."""
    drawn: dict[str, str] = {}
    for part in result.parts:
        for place, block in enumerate(flattened(part.blocks), 1):
            if isinstance(block, Figure):
                drawn[_unique(f"{exercise_id(result.id)}{part.letter}-figure-{place}", drawn)] = figures.standalone(
                    block
                )
    return drawn


def _file_name(name: str) -> str:
    """A name of letters, digits, "-", "_" and "." that cannot leave its folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:80] or "table"


def _unique(name: str, taken: Mapping[str, object]) -> str:
    count, candidate = 2, name
    while candidate.lower() in {other.lower() for other in taken}:
        candidate, count = f"{name}-{count}", count + 1
    return candidate
