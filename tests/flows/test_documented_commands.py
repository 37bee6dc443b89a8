"""Every command in README and docs works: it is run here, or by the test that is named here, or says what it needs."""

import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from flows.shared_server import free_port
from tests.documented import ROOT, Command, blocks, commands
from tests.flows.conftest import wait_until

# How a command begins that is run elsewhere: the file that runs it, and the words by which it does.
ELSEWHERE = {
    "make report": (".ci/run", "make report PROFILE=smoke"),
    "make test": (".ci/run", "make test-all"),
    "make bench": (".ci/run", "make bench BENCH=--short"),
    "chapter ui": ("tests/flows/test_readme_sequence.py", '"flows", "ui"'),
    "export PREFECT_API_URL": ("tests/flows/test_readme_sequence.py", "os.environ.update(exports)"),
    "python -m flows.pools": ("tests/flows/test_readme_sequence.py", '"flows.pools"'),
    "prefect --no-prompt deploy --all": ("tests/flows/test_readme_sequence.py", '"--no-prompt", "deploy", "--all"'),
    "prefect worker start": ("tests/flows/conftest.py", '"worker", "start", "--pool", pool'),
    "prefect deployment run": ("tests/flows/test_readme_sequence.py", '"deployment", "run", '),
    "prefect deployment schedule ls": ("tests/flows/test_readme_sequence.py", '"deployment", "schedule", "ls"'),
    "PREFECT_SERVER_UI_API_URL=": ("tests/flows/test_documented_commands.py", '"prefect server start"'),
    "MLFLOW_DISABLE_TELEMETRY=": ("tests/flows/test_documented_commands.py", '"mlflow server"'),
    "python -m flows.deployments --write": ("tests/flows/test_deployments.py", 'main(["--write"])'),
}
SMALL = ["--profile", "smoke", "--sources", "embedded"]


def elsewhere(command: Command) -> str | None:
    return next((begin for begin in ELSEWHERE if command.text.startswith(begin)), None)


def test_who_runs_a_command_runs_it() -> None:
    for begin, (file, words) in ELSEWHERE.items():
        assert words in (ROOT / file).read_text(), f"{file} does not run {begin}"
        assert any(elsewhere(command) == begin for command in commands()), f"nobody is told to type {begin}"


def test_each_command_is_run_somewhere_or_says_what_it_needs() -> None:
    lost = [c for c in commands() if not (c.is_marked or elsewhere(c) or c.text.startswith("chapter "))]
    assert not [f"{command.page}: {command.text}" for command in lost]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the exercise that docs/add-an-exercise.md writes."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("flows", "tasks", "minigpt", "reports"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in blocks(ROOT / "docs" / "add-an-exercise.md").items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        with file.open("a", encoding="utf-8") as opened:
            opened.write(text)
    return folder


@pytest.fixture(scope="module")
def typed(project: Path, api: str) -> "Typed":
    return Typed(project, api)


class Typed:
    """A terminal in the project's folder."""

    def __init__(self, folder: Path, api: str) -> None:
        self.folder = folder
        (folder / "my-novel.txt").write_text("It was a dark and stormy night; the rain fell in torrents. " * 900)
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(folder),
            "PREFECT_API_URL": api,
            "MLFLOW_TRACKING_URI": "",
            "HF_HUB_OFFLINE": "1",
            "COLUMNS": "160",
        }

    def run(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "flows", *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"chapter {' '.join(arguments)}\n{done.stdout}{done.stderr}"
        return done.stdout


def small(words: list[str]) -> list[str]:
    """A command at a size that fits a test: the last of several options of one name counts."""
    if words[0] == "run":
        asked = "21.36" if "21.36" in words else "21.8,21.11"
        return [*words, *SMALL, "--only", asked]
    if words[0] == "plan":
        return [*words, *SMALL]
    return [*words, *SMALL] if words[0] in ("report", "models") else words


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.timeout(900)
def test_the_commands_of_readme_and_docs(typed: Typed) -> None:
    """In the order in which they stand there, each once; where a path is left open, one that is there."""
    typed.run("run", *SMALL, "--only", "21.8,21.11,21.36")
    done: set[tuple[str, ...]] = set()
    for command in commands():
        if not command.text.startswith("chapter ") or command.is_marked or elsewhere(command):
            continue
        words = [{"DIR": "carry", "path/to/model": "none"}.get(word, word) for word in command.words[1:]]
        words = small(words)
        if tuple(words) in done:
            continue
        done.add(tuple(words))
        if words[:2] == ["pack", "--to"]:
            shutil.rmtree(typed.folder / words[2], ignore_errors=True)
        typed.run(*words)
    assert len(done) > 15


@pytest.mark.slow
@pytest.mark.prefect
def test_the_exercise_that_the_docs_add(typed: Typed) -> None:
    typed.run("run", *SMALL, "--only", "21.36")
    shown = typed.run("show", "21.36")
    assert "Letters as a Code" in shown
    assert "equally likely" in shown


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.parametrize(("program", "health"), [("prefect server start", "/api/health"), ("mlflow server", "/health")])
def test_servers_that_are_started_by_hand(program: str, health: str, tmp_path: Path) -> None:
    [command] = [found for found in commands(ROOT / "docs" / "deploying.md") if program in found.text]
    port = free_port()
    text = command.text.replace("--host 0.0.0.0", f"--host 127.0.0.1 --port {port}")
    for name in ("server:4200", "server:5000"):
        text = text.replace(name, f"127.0.0.1:{port}")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    folder = str(Path(sys.executable).parent)
    environment = {**kept, "PATH": f"{folder}:{kept['PATH']}", "PREFECT_HOME": str(tmp_path), "DO_NOT_TRACK": "true"}
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            ["bash", "-c", text], cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True
        )

    def answers() -> bool:
        assert server.poll() is None, (tmp_path / "log").read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{health}", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    try:
        wait_until(answers, 120, f"{program} answers")
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
