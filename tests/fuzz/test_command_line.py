"""Command lines and parameters of runs, up to the point where the work would begin."""

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flows import cli
from flows.options import Options, UsageError
from tasks.recipes import catalogue
from tasks.recipes.profiles import PROFILES
from tasks.recipes.recipe import FineTune, Recipe
from tests.fuzz import arguments, fuzzed, json_values

OPTIONS = [f"--{option.name}" for option in dataclasses.fields(Options)]
OTHERS = ["--to", "--part-size", "--only-new-since", "--grace-days", "--dry-run", "--again", "--help", "--prefect-port"]
OTHERS += ["--json", "--checks", "--print", "--version", "--no-json", "--"]
COMMANDS = ["run", "plan", "report", "show", "models", "ui", "doctor", "pack", "unpack", "gc", "list", "open"]
# What a command does once everything it was told is in order.
WORK = {
    "flows.commands.local.run_here",
    "flows.commands.inspect.print_plan",
    "flows.commands.inspect.render_again",
    "flows.commands.inspect.print_models",
    "flows.commands.doctor.print_findings",
    "flows.commands.open.open_report",
    "flows.commands.garbage.collect",
    "flows.commands.pack.pack",
    "flows.commands.pack.unpack",
    "flows.servers.ui",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that everything is in, as home and as current folder; the work itself is left out."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "here").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "here")
        patch.setenv("HOME", str(folder / "home"))
        patch.setenv("CHAPTER_OUTPUTS", str(folder / "outputs"))
        patch.delenv("CHAPTER_STORE", raising=False)
        for name in WORK:
            patch.setattr(name, _accepted)
        yield folder


def _accepted(*told: Any, **_: Any) -> int:
    for options in told:
        if isinstance(options, Options):
            assert options == options.validated()
    return 0


def files(folder: Path) -> set[str]:
    return {os.path.join(where, name) for where, _, names in os.walk(folder) for name in names}


def command_lines() -> st.SearchStrategy[list[str]]:
    pair = st.tuples(st.sampled_from([*OPTIONS, *OTHERS]), arguments).map(list)
    rest = st.lists(st.one_of(pair, arguments.map(lambda one: [one])), max_size=4)
    return st.tuples(st.one_of(st.sampled_from(COMMANDS), arguments), rest).map(
        lambda parts: [parts[0], *(word for piece in parts[1] for word in piece)]
    )


@fuzzed
@example(["run", "--only", "21.²"])
@example(["run", "--porfile\n", "x"])
@example(["run", "--profile", "smoke", "--profile"])
@example(["show", "21.8", "21.9"])
@example(["\u202erun"])
@example(["run", "--only", "9" * 5000])
@example(["run", "--budget", "1e308"])
@example(["run", "--jobs", "9" * 30])
@example(["run", "--profile", "a\nb"])
@example(["run", "--corpus", "a" * 10_000])
@example(["show", "\udcff"])
@example(["gc", "--grace-days", "nan"])
@example(["pack", "--to", "x", "--part-size", "9" * 30])
@example(["run", "--pretrained", " "])
@example(["unpack", "\ud800"])
@given(line=command_lines())
def test_a_command_line(place: Path, line: list[str]) -> None:
    before = files(place / "here") | files(place / "home")
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("sys.stderr", _Stream(said.append))
        patch.setattr("sys.stdout", _Stream(lambda _: None))
        status = cli.main(line)
    text = "".join(said)
    assert "Traceback" not in text
    assert status in (0, 1, 2), (status, text)
    if status == 2:
        assert text.count("\n") == 1, text
        assert text.startswith("chapter: "), text
    assert files(place / "here") | files(place / "home") == before


class _Stream:
    """Takes every character, as a terminal's stream does with ``errors="backslashreplace"``."""

    encoding, errors = "utf-8", "backslashreplace"

    def __init__(self, take: Callable[[str], object]) -> None:
        self.take = take

    def write(self, text: str) -> int:
        self.take(text)
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


@fuzzed
@example({"only": "21.8"})
@example({"profile": ["smoke"]})
@example({"budget": True})
@example({"budget": 10**400})
@example({"jobs": 2.5})
@given(values=st.dictionaries(st.sampled_from([option.name for option in dataclasses.fields(Options)]), json_values))
def test_parameters_of_a_run(values: dict[str, Any]) -> None:
    try:
        options = Options.of(values)
    except UsageError as error:
        assert any(f"--{name} " in str(error) for name in values)
        return
    assert Options.of(dataclasses.asdict(options)) == options


@fuzzed
@example("smoke", 5e-324)
@example("laptop", 1e6)
@given(name=st.sampled_from(sorted(PROFILES)), budget=st.floats(0, 1e6, exclude_min=True))
def test_a_budget_scales_every_training(name: str, budget: float) -> None:
    profile = PROFILES[name].scaled(Options(budget=budget).validated().budget)
    for recipe in vars(catalogue).values():
        if isinstance(recipe, Recipe):
            assert profile.resolve(recipe).train.steps >= 1
        elif isinstance(recipe, FineTune):
            assert profile.resolve_tuning(recipe).train_tokens > 0
