"""Bad input on the command line: one clear sentence, exit status 2, before any work and before anything heavy."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.cli import main
from flows.options import Options, UsageError, exercise_id
from flows.shared_server import ServerError
from tasks.exercises import modules
from tasks.recipes.profiles import PROFILES


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("chapter: ")
    assert error.count("\n") == 1, "one sentence on one line"
    return error


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "binary.txt").write_bytes(b"some text\x00\xff\xfe and more" * 500)
    (tmp_path / "latin.txt").write_bytes(("caf\xe9 " * 2000).encode("latin-1"))
    (tmp_path / "one.txt").write_text("a")
    (tmp_path / "same.txt").write_text("a" * 10_000)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty.txt", "empty"),
        ("binary.txt", "byte offset 9"),
        ("latin.txt", "byte offset 3"),
        ("one.txt", "only 1 character"),
        ("same.txt", "one single character"),
        ("missing.txt", "no such file"),
        (".", "directory"),
    ],
)
def test_a_corpus_that_cannot_be_used(capsys: pytest.CaptureFixture[str], texts: Path, name: str, words: str) -> None:
    error = refused(capsys, "run", "--profile", "smoke", "--corpus", str(texts / name))
    assert words in error
    assert "--corpus" in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--profile", "labtop"), "--profile labtop: there is no such profile; did you mean laptop?"),
        (("--only", "21.99"), "--only 21.99"),
        (("--only", "21.11,22.11"), "did you mean 21.11?"),
        (("--only", "rope"), "there is no such exercise"),
        (("--budget", "-1"), "--budget -1"),
        (("--budget", "0"), "--budget 0"),
        (("--budget", "nan"), "--budget nan"),
        (("--jobs", "0"), "--jobs 0"),
        (("--sources", "embeded"), "did you mean embedded?"),
        (("--device", "gpu"), "--device gpu"),
        (("--where", "cloud"), "--where cloud"),
        (("--pretrained", "./nowhere"), "--pretrained ./nowhere"),
    ],
)
def test_options_that_cannot_be(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str) -> None:
    assert words in refused(capsys, "run", *arguments)


def test_a_negative_grace_period(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--grace-days" in refused(capsys, "gc", "--grace-days", "-1")


@pytest.mark.parametrize("port", ["70000", "0", "-1"])
@pytest.mark.parametrize("option", ["--prefect-port", "--mlflow-port"])
def test_a_port_that_cannot_be(capsys: pytest.CaptureFixture[str], option: str, port: str) -> None:
    assert f"{option} {port}: " in refused(capsys, "ui", option, port)


def test_a_server_that_cannot_be_started(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_free(*_: object, **__: object) -> int:
        raise ServerError("no port is free from 4200 on")

    monkeypatch.setenv("CHAPTER_OUTPUTS", str(tmp_path))
    monkeypatch.setattr("flows.servers.ui", none_free)
    assert main(["ui"]) == 1
    assert capsys.readouterr().err == "chapter: no port is free from 4200 on\n"


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("CHAPTER_OUTPUTS", "/dev/null/x", "/dev/null is not a folder"),
        ("CHAPTER_OUTPUTS", "/dev/null", "/dev/null is not a folder"),
        ("CHAPTER_STORE", "/dev/null/x", "/dev/null is not a folder"),
        ("CHAPTER_STORE", "file:///dev/null/x", "/dev/null is not a folder"),
        ("CHAPTER_STORE", "foo://x", "Protocol not known: foo"),
        ("CHAPTER_STORE", "s3://bucket", "s3fs"),
    ],
)
@pytest.mark.parametrize("command", ["ui", "run", "report", "gc"])
def test_places_that_cannot_be(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    variable: str,
    value: str,
    words: str,
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)  # as where it is not installed
    monkeypatch.setenv(variable, value)
    error = refused(capsys, command)
    assert f"{variable} {value}: " in error
    assert words in error


def test_bad_input_is_answered_within_five_seconds(texts: Path) -> None:
    started = time.monotonic()
    command = [sys.executable, "-X", "importtime", "-m", "flows", "run", "--corpus", str(texts / "empty.txt")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert time.monotonic() - started < 5
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time")}
    assert not imported & {"torch", "prefect", "mlflow", "transformers", "datasets"}


@pytest.mark.parametrize("text", ["21.11", "21-11", "11", " 21.11 "])
def test_spellings_of_an_id(text: str) -> None:
    assert exercise_id(text) == "21.11"


def test_leading_zeros_and_repetitions() -> None:
    assert Options(only=("21.06", "21.6", "11")).validated().only == ("21.6", "21.11")


def test_options_are_found_by_name_among_others() -> None:
    assert Options.of({"profile": "smoke", "only": None, "budget": 0.5, "recipe": "small"}) == Options(
        profile="smoke", budget=0.5
    )
    with pytest.raises(UsageError, match="--device gpu"):
        Options.of({"device": "gpu"})


def test_every_id_is_known() -> None:
    for id in modules():
        assert exercise_id(id) == id
    with pytest.raises(UsageError):
        exercise_id("21.0")


def test_profile_names_are_those_of_the_profiles() -> None:
    from flows.options import PROFILE_NAMES

    assert tuple(PROFILES) == PROFILE_NAMES
