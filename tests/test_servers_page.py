"""docs/servers.md: its files name settings, programs and options that there are, and systemd understands its units."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documented import ROOT, blocks

FILES = blocks(ROOT / "docs" / "servers.md")
UNITS = {name: text for name, text in FILES.items() if name.endswith(".service")}
BIN = Path(sys.executable).parent


def settings(name: str) -> list[str]:
    return re.findall(r"^(\w+)=", FILES[name], re.MULTILINE)


def test_each_file_is_there() -> None:
    assert set(FILES) == {
        *("prefect.env", "mlflow.env", "mlflow-users.ini", "worker.env", "Caddyfile"),
        *(f"chapter-{name}.service" for name in ("prefect", "mlflow", "worker@")),
    }


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".env")])
def test_settings_are_there(name: str) -> None:
    from mlflow import environment_variables
    from mlflow.cli import server
    from prefect.settings import Settings
    from prefect.settings.legacy import _get_settings_fields

    known = {*_get_settings_fields(Settings), *vars(environment_variables), "CHAPTER_STORE"}
    known |= {str(option.envvar) for option in server.params if option.envvar}
    assert settings(name)
    assert not set(settings(name)) - known


@pytest.mark.slow
@pytest.mark.parametrize("name", UNITS)
def test_programs_and_options_are_there(name: str, tmp_path: Path) -> None:
    [line] = re.findall(r"^ExecStart=((?:.*\\\n)*.*)$", UNITS[name], re.MULTILINE)
    program, *words = shlex.split(line.replace("\\\n", " "))
    assert program.startswith("/srv/chapter/.venv/bin/")
    commands = words[: next(i for i, word in enumerate(words) if word.startswith("--"))]
    asked = [BIN / Path(program).name, *commands, "--help"]
    own = {"COLUMNS": "200", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(asked, capture_output=True, text=True, env=own)
    assert done.returncode == 0, done.stderr
    for option in (word for word in words if word.startswith("--")):
        assert re.search(rf"{option}\b", done.stdout), option


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    for name, text in UNITS.items():
        (tmp_path / name).write_text(text.replace("/srv/chapter/.venv/bin/", f"{BIN}/"))
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, sorted(tmp_path.iterdir()))], capture_output=True, text=True
    )
    ours = [line for line in done.stderr.splitlines() if "chapter-" in line]
    assert done.returncode == 0, done.stderr
    assert not ours
