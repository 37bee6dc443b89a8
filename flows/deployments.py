"""The deployments: ``prefect.yaml`` is written from here, one entry per flow and per exercise.

python -m flows.deployments --write     after an exercise was added, renamed or given its first model
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from flows.execution.graph import load_exercises
from reports.chapter import QUESTIONS
from tasks.exercise import Exercise
from tasks.exercises import modules

FILE = Path(__file__).parent.parent / "prefect.yaml"

HEAD = """\
# Written by `python -m flows.deployments --write`; a test keeps it in step with tasks/exercises/.
#
#   prefect --no-prompt deploy --all
#
# Entrypoints are module paths and nothing is pulled: no folder of the machine that deploys is written down, and a
# worker needs only the installed package.

name: minigpt-chapter
pull: []

definitions:
  variables: &variables
    # Runs work where their worker was started; ./outputs is there, unless CHAPTER_OUTPUTS says otherwise.
    working_dir: .
    env:
      PREFECT_FLOWS_HEARTBEAT_FREQUENCY: "30" # flows/recovery.py counts on it
  cpu: &cpu
    name: cpu
    job_variables: *variables
  gpu: &gpu
    name: gpu
    job_variables: *variables

deployments:
  - name: full-chapter
    entrypoint: flows.chapter.full_chapter
    work_pool: *cpu
    schedules:
      - cron: "0 3 * * 1" # Mondays at three
        timezone: UTC
        active: false # until somebody wants it
    build:
      - flows.recovery.ensure_crash_detection: {}

  - name: train-model
    entrypoint: flows.chapter.train_model
    work_pool: *gpu
"""


def deployment_name(id: str) -> str:
    """The name of an exercise's deployment: "21-07" for "21.7"."""
    chapter, number = id.split(".")
    return f"{chapter}-{int(number):02d}"


def pool_of(exercise: Exercise) -> str:
    """The pool that an exercise runs on: "gpu" if it runs a model, else "cpu"."""
    return "gpu" if exercise.recipes or "pretrained" in exercise.sources else "cpu"


def text() -> str:
    """The whole of prefect.yaml."""
    return HEAD + "".join(_entries(load_exercises(tuple(modules()))))


def _entries(exercises: Sequence[Exercise]) -> Iterator[str]:
    for exercise in exercises:
        # JSON strings are YAML strings; unquoted, 21.10 would be the number 21.1.
        yield f"""
  - name: {json.dumps(deployment_name(exercise.id))}
    description: {json.dumps(QUESTIONS[exercise.id].title, ensure_ascii=False)}
    entrypoint: flows.chapter.exercise
    parameters: {{id: {json.dumps(exercise.id)}}}
    work_pool: *{pool_of(exercise)}
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file, or check it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m flows.deployments", description="Write or check prefect.yaml.")
    parser.add_argument("--write", action="store_true", help="write it; without this, only compare")
    parsed = parser.parse_args(arguments)
    wanted = text()
    if parsed.write:
        FILE.write_text(wanted, encoding="utf-8")
    elif FILE.read_text(encoding="utf-8") != wanted:
        print("prefect.yaml is not in step: run python -m flows.deployments --write", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
