"""The files of a run: complete, exact, whole or not there."""

import csv
import json
import math
from dataclasses import replace

import pytest

from reports import write
from reports.chapter import QUESTIONS
from reports.plain import from_json, to_json
from reports.types import Figure, Part, Result, Series, Table
from tests.reports import sample


@pytest.fixture(scope="module")
def outputs(tmp_path_factory, cache):
    directory = tmp_path_factory.mktemp("outputs") / "run-1"
    assert write.write_outputs(directory, sample.results(), sample.RUN, sections_cache=cache) == directory
    return directory


def test_the_contract_of_files(outputs, html):
    assert (outputs / "report.html").read_text() == html
    assert {path.name for path in (outputs / "results").iterdir()} == {
        f"21.{number}.json" for number in ("01", "02", "17", "21", "22", "24", "27")
    }
    assert {path.name for path in (outputs / "tables").iterdir()} == {
        "21.02c-sizes.csv",
        "21.17b-table-1.csv",
        "21.22b-sizes.csv",
    }
    assert not [path for path in outputs.parent.iterdir() if path != outputs]  # nothing half-written beside it


def test_the_contract_of_a_result(outputs):
    data = json.loads((outputs / "results" / "21.01.json").read_text())
    assert data["id"] == "21.01"
    assert set(data) >= {"id", "title", "status", "parts", "checks", "metrics", "provenance"}
    assert [part["letter"] for part in data["parts"]] == [""]
    assert set(data["checks"][0]) == {"claim", "kind", "measured", "bound", "passed"}
    assert set(data["provenance"]) >= {
        "profile",
        "sources",
        "seeds",
        "fingerprint",
        "code_version",
        "device",
        "seconds",
        "mlflow_run_id",
    }
    assert data["metrics"] == sample.METRICS
    assert json.loads((outputs / "results" / "21.27.json").read_text())["status"] == "failed"


def test_results_are_read_back_as_they_were(outputs):
    for result in sample.results():
        path = outputs / "results" / f"{write.exercise_id(result.id)}.json"
        again = from_json(Result, json.loads(path.read_text()))
        assert to_json(again) == to_json(replace(result, id=path.stem))


def test_json_is_the_standard_librarys_own(outputs):
    """The formatter changes the layout alone."""
    for data in (to_json(sample.results()[1]), {"a": [], "b": {}, "c": [[], [1, [2.5, None]]], 'd"\\': "x\n\ud800é"}):
        assert json.loads(write.dumps(data)) == data
        write.dumps(data).encode()
    with pytest.raises(ValueError, match="JSON"):
        write.dumps({"a": math.nan})


def test_the_summary(outputs):
    summary = json.loads((outputs / "summary.json").read_text())
    assert summary["profile"] == "laptop"
    assert summary["score"]["answered"] == 6
    assert len(summary["exercises"]) == len(QUESTIONS)
    by_id = {exercise["id"]: exercise for exercise in summary["exercises"]}
    assert by_id["21.01"]["exact_checks"] == {"held": 2, "total": 2}
    assert by_id["21.27"]["error"] == "ValueError: γ <must> be positive"
    assert by_id["21.35"]["status"] == "not run"
    assert summary["models"][0]["parameters"] == 420_000
    assert summary["models"][1]["validation_loss"] == "NaN"


def test_tables_are_exact_csv(outputs):
    with open(outputs / "tables" / "21.22b-sizes.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["model", "layers", "parameters", "loss (nats)", "mean ± std", "tied", "p-value"],
        ["small", "2", "420000", "1.8731234", "1.873 ± 0.012", "True", "0.03"],
        ["medium", "4", "3300000", "1.7012", "1.701 ± 0.030", "True", "3.2e-09"],
        ["large <b>", "6", "10800000", "1.65", "1.65 ± 0.1", "False", ""],
        ["failed", "6", "", "", "", "", "1.0"],
    ]


def test_hostile_cells_and_names_stay_in_their_file(tmp_path):
    rows = (('a,"b"\nc', 0.1 + 0.2), ("\ud800", 10**17 + 1))
    table = Table(("x", "y,z"), rows, name="../../etc/passwd")
    result = Result("21.1", "t", "ok", sample.PROVENANCE, parts=(Part("", (table, table, Table(("a",), ()))),))
    directory = write.write_outputs(tmp_path / "out", [result], sample.RUN)
    names = sorted(path.name for path in (directory / "tables").iterdir())
    assert names == ["21.01-etc-passwd-2.csv", "21.01-etc-passwd.csv", "21.01-table-3.csv"]
    with open(directory / "tables" / names[1], newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["x", "y,z"],
            ['a,"b"\nc', "0.30000000000000004"],
            ["\\ud800", "100000000000000001"],
        ]


def test_charts_as_files():
    figure = Figure("line", (Series("s", (1, 2), (1.0, 2.0)),), "x", "y")
    result = Result("21.1", "t", "ok", sample.PROVENANCE, parts=(Part("a", (figure,)), Part("b", (figure, figure))))
    drawings = write.drawings(result)
    assert list(drawings) == ["21.01a-figure-1", "21.01b-figure-1", "21.01b-figure-2"]
    assert all(text.startswith("<svg") for text in drawings.values())


def test_an_older_run_is_never_overwritten(outputs):
    before = (outputs / "report.html").read_bytes()
    with pytest.raises(FileExistsError, match="exists already"):
        write.write_outputs(outputs, [], sample.RUN)
    assert (outputs / "report.html").read_bytes() == before
    assert [path.name for path in outputs.parent.iterdir()] == [outputs.name]


def test_what_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(write, "_write", fail)
    with pytest.raises(OSError, match="disk full"):
        write.write_outputs(tmp_path / "out", [], sample.RUN)
    assert not list(tmp_path.iterdir())
