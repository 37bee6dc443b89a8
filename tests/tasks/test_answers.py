"""Answers that are kept from run to run: the same as those made anew, and none that anything has changed."""

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from reports.cache import DirectoryCache
from reports.types import Answer, Check, Part, Table
from tasks import answers
from tasks.cache.store import Store
from tasks.exercises.ex03_architectures.experiment import EXERCISE
from tests.exercise_context import measured

ID = "21.3"


@pytest.fixture(scope="module")
def findings() -> str:
    return answers.dump(measured(EXERCISE))


class Kept:
    """A store with the findings, a folder for answers, and how often an answer was made."""

    def __init__(self, folder: Path, findings: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self.cache = Store(str(folder / "store")), DirectoryCache(folder / "answers", suffix=".json")
        artifacts = {"findings": asdict(self.store.put(findings.encode()))}
        self.record: dict[str, Any] = {"artifacts": artifacts, "data": {"provenance": {"profile": "smoke"}}}
        self.made = 0
        compose = answers._composed

        def composed(*arguments: Any) -> Answer:
            self.made += 1
            return compose(*arguments)

        monkeypatch.setattr(answers, "_composed", composed)

    def ask(self) -> Any:
        """As a new process would: it remembers nothing."""
        answers._answer.cache_clear()
        return answers.result_of(ID, self.record, self.store, self.cache)


@pytest.fixture
def kept(tmp_path: Path, findings: str, monkeypatch: pytest.MonkeyPatch) -> Kept:
    return Kept(tmp_path, findings, monkeypatch)


def test_it_is_made_once(kept: Kept) -> None:
    first = kept.ask()
    assert kept.ask() == first
    assert kept.made == 1
    answers._answer.cache_clear()
    assert answers.result_of(ID, kept.record, kept.store) == first


@pytest.mark.parametrize(
    ("hardware", "said"),
    [
        (None, ""),
        ({"cpu": "Intel Xeon", "cores": 2}, "Intel Xeon, 2 cores"),
        ({"cpu": "AMD EPYC", "cores": 1, "gpu": "none"}, "AMD EPYC, 1 core"),
        ({"cpu": "AMD EPYC", "cores": 16, "gpu": "NVIDIA H100"}, "AMD EPYC, 16 cores, NVIDIA H100"),
    ],
)
def test_where_times_were_measured_is_said(kept: Kept, hardware: Any, said: str) -> None:
    inputs = {"profile": "smoke"} | ({"hardware": hardware} if hardware else {})
    kept.record["data"]["lineage"] = {"inputs": inputs}
    assert kept.ask().provenance.machine == said


@pytest.mark.parametrize("changed", ["_template", "code_digest"])
def test_an_edit_makes_it_anew(kept: Kept, monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    kept.ask()
    now = {
        "_template": lambda id: original(id).replace("# Summary\n", "# Summary\n\nEdited.\n"),
        "code_digest": lambda *of: original(*of)[::-1],
    }
    original = getattr(answers, changed)
    monkeypatch.setattr(answers, changed, now[changed])
    assert kept.ask().summary.startswith("Edited.") == (changed == "_template")
    assert kept.made == 2


@pytest.mark.parametrize("damage", ["", "[", "null", '{"summary": 1, "other": 2}', '{"summary": "It lacks the rest."}'])
def test_a_damaged_file_is_a_miss(kept: Kept, damage: str) -> None:
    first = kept.ask()
    [file] = kept.cache.directory.iterdir()
    file.write_text(damage)
    assert kept.ask() == first
    assert kept.ask() == first
    assert kept.ask() == first
    assert kept.made == 3, "the damaged file is replaced"


def test_what_json_cannot_say_is_not_kept(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(("loss",), ((math.nan,),))
    odd = Answer("Summary.", (Part("a", (table,)),), (Check.at_most("x", 0.0, 1.0),))
    monkeypatch.setattr(answers, "_composed", lambda *_: replace(odd))
    assert kept.ask().parts[0].blocks[0].rows == table.rows
    assert math.isnan(kept.ask().parts[0].blocks[0].rows[0][0])
