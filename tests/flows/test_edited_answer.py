"""An edited sentence is shown at once, and nothing is measured again for it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ANSWER = "tasks/exercises/ex03_architectures/answer.md"
pytestmark = [pytest.mark.slow, pytest.mark.prefect, pytest.mark.timeout(600)]


class Copy:
    """A copy of the sources that a test may edit, and outputs of its own."""

    def __init__(self, folder: Path, api: str) -> None:
        self.folder, self.outputs = folder, folder / "outputs"
        for package in ("minigpt", "tasks", "flows", "reports"):
            shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(folder),
            "CHAPTER_OUTPUTS": str(self.outputs),
            "PREFECT_API_URL": api,
            "MLFLOW_TRACKING_URI": "",
            "COLUMNS": "200",
        }

    def chapter(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "flows", *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=300
        )

    def edit(self, old: str, new: str) -> None:
        text = (self.folder / ANSWER).read_text()
        assert old in text
        (self.folder / ANSWER).write_text(text.replace(old, new))

    def summary(self) -> str:
        result = json.loads((self.outputs / "latest" / "results" / "21.03.json").read_text())
        return str(result["summary"])


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory, api: str) -> Copy:
    made = Copy(tmp_path_factory.mktemp("copy"), api)
    done = made.chapter("run", "--profile", "smoke", "--sources", "embedded", "--only", "21.3")
    assert done.returncode == 0, done.stdout + done.stderr
    return made


def test_an_edit_is_shown_in_two_seconds(copy: Copy) -> None:
    copy.edit("in an almost unchanged block", "in a block that hardly changed")
    seconds = []
    for _ in range(3):
        before = os.times()
        done = copy.chapter("show", "21.3", "--again")
        after = os.times()  # of the processor: the clock on the wall also counts what other tests do
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
        assert done.returncode == 0, done.stderr
        assert "in a block that hardly changed" in " ".join(done.stdout.split())
    assert min(seconds) <= 2.0
    assert "in an almost unchanged block" in " ".join(copy.chapter("show", "21.3").stdout.split()), (
        "as it was published"
    )


def test_a_warm_run_after_an_edit_measures_nothing(copy: Copy) -> None:
    copy.edit("# Summary\n", "# Summary\n\nEdited.\n")
    asked = ("--profile", "smoke", "--sources", "embedded", "--only", "21.3")
    assert "1 steps: 1 cached, 0 to run" in copy.chapter("plan", *asked).stdout
    done = copy.chapter("run", *asked)
    assert "0 steps run, 1 cached" in done.stdout, done.stdout + done.stderr
    assert copy.summary().startswith("Edited. From ")


def test_a_slip_costs_one_answer_and_is_said_in_a_sentence(copy: Copy) -> None:
    copy.edit("# Summary\n", "# Summary\n\n{{ f.nothing }}\n")
    shown = copy.chapter("show", "21.3", "--again")
    assert shown.returncode == 1
    assert len(shown.stderr.strip().splitlines()) == 1
    assert "section 'Summary'" in shown.stderr
    done = copy.chapter("run", "--profile", "smoke", "--sources", "embedded", "--only", "21.3")
    assert done.returncode == 1
    assert "1 failed: 21.3" in done.stderr
    assert json.loads((copy.outputs / "latest" / "results" / "21.03.json").read_text())["status"] == "failed"
    copy.edit("{{ f.nothing }}\n", "")
    assert copy.chapter("run", "--profile", "smoke", "--sources", "embedded", "--only", "21.3").returncode == 0
