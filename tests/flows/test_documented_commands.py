"""Every command in README and docs works: it is run here, or by a test that is named here, or says what it needs."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from flows.cli import app
from flows.shared_server import free_port
from tests.benchmarks.__main__ import parser as bench
from tests.documented import ROOT, Command, blocks, commands, mentioned
from tests.exercise_context import tiny_pretrained
from tests.flows.conftest import wait_until

# What is run elsewhere: how such a command begins, the file that runs it, and the words by which it does.
SEQUENCE, HERE = "tests/flows/test_readme_sequence.py", "tests/flows/test_documented_commands.py"
ELSEWHERE = {
    r"make report": (".ci/run", "make report PROFILE=smoke"),
    r"make test": (".ci/run", "make test-all"),
    r"make bench": (".ci/run", "make bench BENCH=--short"),
    r"chapter run .*--corpus ": ("tests/flows/test_chapter_run.py", '"--only", "21.11,21.12", "--corpus", str(text)'),
    r"chapter run --profile smoke --only 21.11$": ("tests/flows/test_silence.py", '"run", *SMOKE, "--only", "21.11"'),
    r"chapter report --reference": ("tests/flows/commands/test_reference.py", '"embedded", "--reference", str(kept)'),
    r"chapter ui": (SEQUENCE, '"flows", "ui"'),
    r"export PREFECT_API_URL": (SEQUENCE, "os.environ.update(exports)"),
    r"python -m flows.pools": (SEQUENCE, '"flows.pools"'),
    r"prefect --no-prompt deploy --all": (SEQUENCE, '"--no-prompt", "deploy", "--all"'),
    r"prefect worker start": ("tests/flows/conftest.py", '"worker", "start", "--pool", pool, "--limit", "1"'),
    r"CHAPTER_CORPORA=": ("tests/tasks/sources/test_limits.py", 'setenv("CHAPTER_CORPORA", f"/nowhere:{shelf}")'),
    r"prefect deployment run full-chapter": (SEQUENCE, '"deployment", "run", "full-chapter", *options'),
    r"prefect deployment run exercise/": (SEQUENCE, '"deployment", "run", "exercise/21-15"'),
    r"prefect deployment run train-model": (SEQUENCE, '"deployment", "run", "train-model", "-p", "recipe=small"'),
    r"prefect deployment schedule ls": (SEQUENCE, '"deployment", "schedule", "ls"'),
    r"PREFECT_SERVER_UI_API_URL=": (HERE, '("prefect server start", '),
    r"MLFLOW_DISABLE_TELEMETRY=": (HERE, '("mlflow server", '),
    r"python -m flows.deployments --write": ("tests/flows/test_deployments.py", 'main(["--write"])'),
}

# What stands for what a test has not the time for, and for what is left to the reader.
INSTEAD = {"laptop": "smoke", "gpu": "smoke", "21.27,21.32": "21.8,21.11", "21.22": "21.11", "DIR": "carry"}
SMALL = ["--profile", "smoke", "--sources", "embedded"]  # the last of several options of one name counts
# A part of what each command says, by its name: who writes about another one in the docs adds it here.
SAYS = {
    "run": "report.html",
    "plan": "21.11",
    "report": "report.html",
    "list": "ok",
    "open": "report.html#",
    "show": "21.",
    "models": "small",
    "doctor": "precision",
    "gc": "dropped",
    "pack": "packed",
    "unpack": "unpacked",
    "completion": "new shells have it",
}


def elsewhere(command: Command) -> str | None:
    return next((begin for begin in ELSEWHERE if re.match(begin, command.text)), None)


def test_who_is_said_to_run_a_command_runs_it() -> None:
    for begin, (file, words) in ELSEWHERE.items():
        assert words in (ROOT / file).read_text(), f"{file} does not run {begin}"
        assert any(elsewhere(command) == begin for command in commands()), f"nobody is told to type {begin}"


def test_each_command_is_run_somewhere_or_says_what_it_needs() -> None:
    lost = [c for c in commands() if not (c.is_marked or elsewhere(c) or c.text.startswith("chapter "))]
    assert not [f"{command.page}: {command.text}" for command in lost]


def test_the_options_of_what_is_run_elsewhere_or_nowhere_are_there() -> None:
    """Also of what stands within sentences: ``make`` has such a target, ``chapter`` takes such options."""
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    seen = 0
    for command in [*commands(), *mentioned()]:
        words = command.words
        if "chapter" in words[:-1]:
            _is_understood(words[words.index("chapter") + 1 :])
        elif words[0] == "make":
            assert set(words[1:2]) <= set(targets), f"{command.page}: {command.text}"
            for option in words[2:]:
                name, _, value = option.partition("=")
                assert re.search(rf"^{name} \?=|\$\({name}\)", (ROOT / "Makefile").read_text(), re.MULTILINE), option
                if name == "BENCH":
                    bench().parse_args(value.split())
        else:
            continue
        seen += 1
    assert seen > 60


def _is_understood(words: list[str]) -> None:
    words = ["21.35" if word == "21.36" else word for word in words]  # the one that the docs add
    if len(words) == 1 or words[0] == "COMMAND":  # its name alone, within a sentence: `chapter pack`
        words = ["run" if words[0] == "COMMAND" else words[0], "--help"]
    app.parse_args(words, exit_on_error=False, print_error=False)


# --- Commands of chapter, typed in a folder like a reader's ------------------------------------------------------


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the exercise that docs/add-an-exercise.md writes, and a model at path/to/model."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("flows", "tasks", "minigpt", "reports"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in blocks(ROOT / "docs" / "add-an-exercise.md").items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        with file.open("a", encoding="utf-8") as opened:
            opened.write(text)
    tiny = tiny_pretrained()
    tiny.model.save_pretrained(folder / "path" / "to" / "model")
    tiny.tokenizer.save_pretrained(folder / "path" / "to" / "model")
    return folder


# A terminal in which all is imported already: each command is a fork, so that none of them waits for imports.
TERMINAL = """
import gc, json, os, sys
from flows.cli import main
from flows.commands.local import _import_heavy
_import_heavy()
gc.freeze()
for line in sys.stdin:
    words, log = json.loads(line)
    child = os.fork()
    if not child:
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1), os.dup2(said, 2)
        status = main(words)
        sys.stderr.flush()
        os._exit(status)  # to take all apart that was imported would last longer than most commands
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Terminal:
    """Runs commands of ``chapter`` in a folder, one after the other."""

    def __init__(self, folder: Path, api: str) -> None:
        self.log = folder / "said"
        environment = {
            **os.environ,
            "HOME": str(folder),
            "SHELL": "/bin/bash",
            "BROWSER": "true",  # one that opens everything, and shows nothing
            "PYTHONPATH": str(folder),
            "PREFECT_API_URL": api,
            "MLFLOW_TRACKING_URI": "",
            "COLUMNS": "160",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", TERMINAL],
            cwd=folder,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def run(self, words: list[str]) -> str:
        """What a command says."""
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps([words, str(self.log)]), file=self.process.stdin, flush=True)
        status = self.process.stdout.readline().strip()
        assert status == "0", f"chapter {' '.join(words)}: {status}\n{self.log.read_text()}"
        return self.log.read_text()

    def close(self) -> None:
        self.process.communicate(timeout=60)


def small(words: list[str]) -> list[str]:
    """A command at a size that fits a test."""
    words = [INSTEAD.get(word, word) for word in words]
    if words[0] == "run":
        words += [] if "--only" in words else ["--only", "21.1" if "--pretrained" in words else "21.8,21.11"]
    return [*words, *SMALL] if words[0] in ("run", "plan", "report", "models") else words


def meant(words: list[str]) -> frozenset[tuple[str, tuple[str, ...]]]:
    """What a command asks for: two that say the same in other words are run once."""
    found: dict[str, tuple[str, ...]] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, found[word] = word, ()
        else:
            found[name] = (*found.get(name, ()), word)
    return frozenset(found.items())


@pytest.fixture(scope="module")
def said(project: Path, api: str) -> Mapping[str, str]:
    """What each command of README and docs has said, in their order but for ``run``, which makes what others show."""
    ours = [c for c in commands() if c.text.startswith("chapter ") and not c.is_marked and not elsewhere(c)]
    done: dict[object, str] = {}
    found: dict[str, str] = {}
    with closing(Terminal(project, api)) as terminal:
        for command in sorted(ours, key=lambda command: command.words[1] != "run"):
            words = small(command.words[1:])
            if meant(words) not in done:
                done[meant(words)] = terminal.run(words)
            found[command.text] = done[meant(words)]
    return found


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.timeout(600)
def test_the_commands_of_readme_and_docs(said: Mapping[str, str]) -> None:
    assert len(said) > 20
    for command, text in said.items():
        assert SAYS[command.split()[1]] in text, f"{command}\n{text}"


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.timeout(600)
def test_the_exercise_that_the_docs_add(said: Mapping[str, str]) -> None:
    assert "1 of 1 exercises" in said["chapter run --profile smoke --only 21.36"]
    for command in ("chapter show 21.36", "chapter show 21.36 --again"):
        assert "Letters as a Code" in said[command]
        assert "equally likely" in said[command]


# --- Servers that are started by hand ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.parametrize(("program", "health"), [("prefect server start", "/api/health"), ("mlflow server", "/health")])
def test_servers_that_are_started_by_hand(program: str, health: str, tmp_path: Path) -> None:
    [command] = [found for found in commands() if f"{program} " in found.text and found.page == "docs/deploying.md"]
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
