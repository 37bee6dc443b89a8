import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from flows.plugin import expanded, setup_environment
from tests.flows.conftest import ROOT, prefect

BARE = "deployment run full-chapter"
LONG = "deployment run full-chapter/full-chapter"
NOWHERE = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_CLIENT_MAX_RETRIES": "0"}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (BARE, LONG),
        (f"{BARE} --watch", f"{LONG} --watch"),
        ("deployments run full-chapter", "deployments run full-chapter/full-chapter"),
        ("--profile mine deployment run train-model", "--profile mine deployment run train-model/train-model"),
        ("deployment run --watch full-chapter", "deployment run --watch full-chapter/full-chapter"),
        ("deployment run -p profile=smoke full-chapter", "deployment run -p profile=smoke full-chapter/full-chapter"),
        ("deployment run --tag mine full-chapter", "deployment run --tag mine full-chapter/full-chapter"),
        ("deployment run --tag=mine full-chapter", "deployment run --tag=mine full-chapter/full-chapter"),
    ],
)
def test_a_bare_name_is_written_out(typed: str, meant: str) -> None:
    assert expanded(typed.split()) == meant.split()


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "version",
        "deployment",
        "deployment ls",
        "deployment run",
        "deployment run --help",
        "deployment run --id 6f1f3a2e-0000-0000-0000-000000000000",
        "deployment run a/b --param name=full-chapter",
        "deployment run exercise/21-22",
        "deployment inspect full-chapter",
        "flow-run ls --flow-name full-chapter",
        "work-pool create deployment",
    ],
)
def test_everything_else_is_left_alone(typed: str) -> None:
    assert expanded(typed.split()) == typed.split()


def test_other_programs_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/pytest", *BARE.split()])
    setup_environment(ctx=None)
    assert sys.argv[1:] == BARE.split()


def test_the_entry_point_is_installed() -> None:
    found = [point for point in entry_points(group="prefect.plugins") if point.value == "flows.plugin"]
    assert found, "run `pip install -e .`"


@pytest.mark.slow
@pytest.mark.parametrize("module", [False, True], ids=["prefect", "python -m prefect"])
def test_prefect_sees_the_long_name(module: bool, tmp_path: Path) -> None:
    """The server that is not there is asked for the deployment by both of its names."""
    code = (
        "import sys, runpy, httpx\n"
        "send = httpx.AsyncClient.send\n"
        "async def show(self, request, **kwargs):\n"
        "    print('ASKED', request.url.path, flush=True)\n"
        "    return await send(self, request, **kwargs)\n"
        "httpx.AsyncClient.send = show\n"
    )
    if module:
        code += f"sys.orig_argv = ['python', '-m', 'prefect']; sys.argv = ['-m', *{BARE.split()!r}]\n"
    else:
        code += f"sys.argv = ['/some/where/prefect', *{BARE.split()!r}]\n"
    code += "from prefect.cli import app; app()"
    environment = {**os.environ, **NOWHERE, "PREFECT_PLUGINS_ENABLED": "true"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "ASKED /api/deployments/name/full-chapter/full-chapter" in done.stdout


@pytest.mark.slow
def test_prefect_itself_is_not_disturbed(tmp_path: Path) -> None:
    version = prefect("version", PREFECT_HOME=str(tmp_path))
    assert version.returncode == 0
    assert version.stdout.startswith("Version:")
    assert version.stderr == ""
    # In another folder the setting is not found, and Prefect asks for the long form.
    done = prefect(*BARE.split(), cwd=tmp_path, **NOWHERE)
    assert "Expected format: <FLOW_NAME>/<DEPLOYMENT_NAME>" in done.stdout + done.stderr
    done = prefect(*BARE.split(), cwd=ROOT, **NOWHERE)
    assert "Expected format" not in done.stdout + done.stderr
