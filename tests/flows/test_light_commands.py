"""What a command does not need, it does not import: that, and no clock, is what keeps it quick."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flows.machine import gpu, processor
from reports.run import RunInfo
from reports.types import Part, Prose, Provenance, Result
from reports.write import write_outputs
from tests.flows.conftest import ROOT

HEAVY = {"torch", "prefect", "mlflow", "transformers", "datasets", "scipy", "pandas", "matplotlib"}


def imported_by(outputs: Path, *arguments: str) -> set[str]:
    """The heavy packages that a command imports in a process of its own."""
    code = (
        "import sys; from flows.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print('imported:', *sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(outputs),
        "CHAPTER_OUTPUTS": str(outputs),
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    *_, last = done.stdout.strip().splitlines() or [""]
    assert last.startswith("imported: "), done.stderr
    return HEAVY & set(last.split())


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Outputs with one answered exercise, on a machine whose precision is known."""
    result = Result("21.3", "Title", "ok", Provenance("smoke"), summary="s", parts=(Part("a", (Prose("Said."),)),))
    folder = write_outputs(tmp_path / "runs" / "one", [result], RunInfo("smoke"))
    (tmp_path / "latest").symlink_to(folder)
    from importlib.metadata import version

    facts = {"processor": processor(), "torch": version("torch"), "bf16_gain": 1.0}
    (tmp_path / "machine.json").write_text(json.dumps(facts))
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("run", "--help"),
        ("list",),
        ("show", "21.3"),
        ("show", "21.3", "--checks"),
        ("open", "21.3", "--print"),
        ("run", "--profile", "labtop"),
        ("run", "--porfile", "laptop"),
        ("completion", "bash"),
    ],
    ids=" ".join,
)
def test_help_answers_and_refusals_import_nothing_heavy(outputs: Path, arguments: tuple[str, ...]) -> None:
    assert not imported_by(outputs, *arguments)


@pytest.mark.skipif(gpu() is not None, reason="where there is a GPU, PyTorch is asked what it is")
def test_doctor_imports_nothing_heavy(outputs: Path) -> None:
    assert not imported_by(outputs, "doctor")


def test_a_plan_imports_pytorch_and_nothing_else_that_is_heavy(outputs: Path) -> None:
    assert imported_by(outputs, "plan", "--profile", "smoke", "--sources", "embedded") <= {"torch"}
    assert (outputs / "syntax.json").exists(), "the next one parses nothing"
    assert not imported_by(outputs, "plan", "--profile", "smoke", "--sources", "embedded"), "and needs no PyTorch"


def test_the_driver_and_pytorch_agree_on_the_gpu() -> None:
    import torch

    assert gpu() == (torch.cuda.get_device_name() if torch.cuda.is_available() else None)


def test_models_import_no_prefect(outputs: Path) -> None:
    assert "prefect" not in imported_by(outputs, "models", "--profile", "smoke", "--sources", "embedded")
