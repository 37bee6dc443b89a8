"""What the command line says of itself: help, version, completion, and what may have been meant."""

import os
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from flows import cli
from flows.cli import main
from flows.options import PROFILE_NAMES, Options
from tasks.exercises import modules
from tests.flows.conftest import ROOT

COMMANDS = ["run", "plan", "report", "list", "show", "open", "ui", "models", "pack", "unpack", "gc", "doctor"]
COMMANDS += ["completion"]


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command says on standard output, on one line; it must succeed and complain of nothing."""
    assert main(arguments) == 0
    output = capsys.readouterr()
    assert not output.err
    return " ".join(output.out.replace("│", " ").split())


def test_without_arguments_it_is_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    help = said(capsys, "--help")
    assert said(capsys) == help == said(capsys, "-h")
    assert "CHAPTER_STORE" in help


def test_the_help_names_every_command_once_under_a_heading(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    first = [line.split()[1] for line in lines if line.startswith("│") and not line.startswith("│  ")]
    assert [name for name in first if not name.startswith("--")] == COMMANDS
    assert sum(line.startswith("╭─") for line in lines) == 5, "four headings of commands, one of options"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    help = said(capsys, command, "--help")
    assert help.startswith(f"Usage: chapter {command}")
    assert "Given" not in help
    assert "GIVEN" not in help
    for option in fields(Options):
        takes = command in ("run", "plan") or (command in ("report", "models", "pack") and option.metadata["identity"])
        assert (f"--{option.name} " in help) == (takes or (command, option.name) == ("show", "profile"))


def test_options_stand_in_groups_with_choices_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    help = said(capsys, "run", "--help")
    order = [
        "What is run",
        "--only IDS",
        "--profile PROFILE",
        "On which text",
        "--corpus TEXT",
        "Where and how",
        "--jobs N",
    ]
    places = [help.index(words) for words in order]
    assert places == sorted(places)
    assert f"[choices: {', '.join(PROFILE_NAMES)}] [default: laptop]" in help
    assert "[default: one per core, or one on a GPU]" in help


def test_the_defaults_that_the_help_names_are_those_of_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    for option in fields(Options):
        if option.metadata["names"]:
            assert option.default in option.metadata["names"]
            assert option.metadata["shown"] == option.default
    assert float(next(o for o in fields(Options) if o.name == "budget").metadata["shown"]) == Options().budget


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert said(capsys, "--version") == f"chapter {project['version']}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "--porfile", "smoke"), "--porfile: `chapter run` has no such option; did you mean --profile?"),
        (("run", "--porfile=smoke"), "--porfile: `chapter run` has no such option; did you mean --profile?"),
        (("gc", "--dry"), "--dry: `chapter gc` has no such option; did you mean --dry-run?"),
        (("gc", "--xyz"), "--xyz: `chapter gc` has no such option; see `chapter gc --help`"),
        (("shwo", "21.8"), "shwo: there is no such command; did you mean show?"),
        (("train",), "train: there is no such command; see `chapter --help`"),
        (("--versoin",), "--versoin: there is no such option; did you mean --version?"),
        (("run", "--profile"), "--profile: give a value; see `chapter run --help`"),
        (("show",), "EXERCISE: give a value; see `chapter show --help`"),
        (("unpack",), "DIR: give a value; see `chapter unpack --help`"),
        (("pack",), "--to: give a value; see `chapter pack --help`"),
        (("show", "21.8", "21.9"), "21.9: that is one argument too many; see `chapter show --help`"),
        (("run", "--jobs", "two"), "--jobs two: give a whole number"),
        (("run", "--jobs", "2.5"), "--jobs 2.5: give a whole number"),
        (("run", "--budget", "half"), "--budget half: give a number, such as 0.5 for half the steps"),
        (("pack", "--to", "x", "--part-size", "0x10"), "--part-size 0x10: a part has at least 1 MiB"),
        (("ui", "--mlflow-port", "http"), "--mlflow-port http: a port is a number from 1 to 65535"),
        (("gc", "--grace-days", "week"), "--grace-days week: a number of days is 0 or more"),
        (("show", "21.8", "--profile", "lap"), "--profile lap: there is no such profile; did you mean laptop?"),
        (("completion", "bsh"), "completion bsh: it is there for other shells; did you mean bash?"),
        (("run", "--por\nfile"), "--por\\nfile: `chapter run` has no such option; did you mean --profile?"),
    ],
)
def test_what_was_meant(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr() == ("", f"chapter: {words}\n")


def test_the_last_of_two_counts_and_flags_have_no_opposite(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--profile", "labtop", "--profile", "smok"]) == 2
    assert "--profile smok: " in capsys.readouterr().err
    assert main(["gc", "--no-dry-run"]) == 2
    assert "--no-dry-run: `chapter gc` has no such option" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", ["--help", "list", "list --json"])
def test_nobody_reads_on(arguments: str) -> None:
    """As in ``chapter list | head -1``, where the reader is gone before the command writes."""
    command = f'"{sys.executable}" -m flows {arguments}; echo $? >&2'
    pipe = subprocess.Popen(["sh", "-c", command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert pipe.stdout is not None
    assert pipe.stderr is not None
    pipe.stdout.close()
    assert pipe.stderr.read() == "1\n", "no traceback"
    pipe.wait()


@pytest.mark.parametrize("given", [(), ("a/manifest.json",), ("a/manifest.json", "~/b.json")], ids=len)
def test_an_option_that_may_be_given_several_times(
    given: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[Any] = []
    monkeypatch.setenv("CHAPTER_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flows.commands.pack.pack", lambda *arguments: told.extend(arguments) or 0)
    options = [word for file in given for word in ("--only-new-since", file)]
    assert main(["pack", "--to", "there", *options, "--part-size", "2"]) == 0
    _, _, to, part_size, since, chosen = told
    assert (to, part_size, chosen) == (tmp_path / "there", 2 << 20, None)
    assert list(since) == [tmp_path / file.removeprefix("~/") for file in given]


# --- Completion ------------------------------------------------------------------------------------------------


def completed(script: Path, *words: str) -> set[str]:
    """What bash offers for the last of these words."""
    code = (
        f'source "{script}"\n'
        'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}\n'
        "name=$(complete -p chapter | sed 's/.*-F \\([^ ]*\\).*/\\1/')\n"
        '"$name" chapter "${COMP_WORDS[$COMP_CWORD]}" "${COMP_WORDS[$((COMP_CWORD - 1))]}"\n'
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", code, "bash", *words], capture_output=True, text=True, check=True)
    return {word.strip() for word in done.stdout.splitlines()}


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_options_and_values(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "chapter.bash"
    script.write_text(capsys.readouterr().out)
    assert set(COMMANDS) <= completed(script, "chapter", "")
    assert completed(script, "chapter", "mod") == {"models"}
    assert "--profile" in completed(script, "chapter", "run", "--p")
    assert completed(script, "chapter", "run", "--profile", "") == set(PROFILE_NAMES)
    assert completed(script, "chapter", "show", "") >= set(modules())


@pytest.mark.parametrize("shell", cli.SHELLS)
def test_completion_is_installed_where_the_shell_looks(
    shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ZSH", raising=False)
    monkeypatch.delenv("ZSH_CUSTOM", raising=False)
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out.strip()
    assert main(["completion", shell, "--install"]) == 0
    place, _, rest = capsys.readouterr().out.partition("; ")
    assert rest == "new shells have it\n"
    assert Path(place).is_relative_to(tmp_path)
    assert Path(place).read_text().strip() == script


def test_a_shell_that_cannot_be_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from cyclopts.completion import detect

    def nothing() -> None:
        raise detect.ShellDetectionError

    monkeypatch.setattr("cyclopts.completion.detect_shell", nothing)
    assert main(["completion"]) == 2
    error = capsys.readouterr().err
    assert error == "chapter: completion: which shell this is cannot be told; name it: bash, zsh, fish\n"


def test_help_needs_no_folder_and_writes_none(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "CHAPTER_OUTPUTS": "/dev/null/x"}
    environment["PYTHONPATH"] = str(ROOT)
    for arguments in ([], ["--help"], ["run", "--help"], ["--version"]):
        command = [sys.executable, "-m", "flows", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
    assert not list(tmp_path.iterdir())
