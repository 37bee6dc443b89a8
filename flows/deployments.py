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
from reports.words import plural
from tasks.exercise import Exercise
from tasks.exercises import modules

FILE = Path(__file__).parent.parent / "prefect.yaml"

# Markdown, for flows and for their deployments.
ABOUT = {
    "full-chapter": (
        "The whole chapter: every model once, in the order in which they need each other, every exercise, and the "
        "report. What is in the store is not made again. Artifacts: the verdict, a table of all exercises, links to "
        "MLflow and to the report."
    ),
    "train-model": (
        "One model: a recipe of the catalogue with a seed, or a fine-tuning, with all that it needs. "
        "`chapter models` lists the recipes. The unit that a GPU worker takes; the chapter gives it several short ones."
    ),
    "exercise": (
        "One exercise with all that it needs, and the report anew. Each has a deployment, `exercise/21-01` and so on."
    ),
}

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
    description: {chapter}
    entrypoint: flows.chapter.full_chapter
    work_pool: *cpu
    schedules:
      - cron: "0 3 * * 1" # Mondays at three
        timezone: UTC
        active: false # until somebody wants it
    build:
      - flows.recovery.ensure_crash_detection: {}

  - name: train-model
    description: {model}
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
    head = HEAD.replace("{chapter}", _quoted(ABOUT["full-chapter"])).replace("{model}", _quoted(ABOUT["train-model"]))
    return head + "".join(_entries(load_exercises(tuple(modules()))))


def _quoted(text: str) -> str:
    """A text in YAML; JSON strings are YAML strings."""
    return json.dumps(text, ensure_ascii=False)


def _about(exercise: Exercise) -> str:
    """The exercise in its own words, and what running it takes. Markdown."""
    question = QUESTIONS[exercise.id]
    parts = [f"({letter}) {text}" for letter, text in question.parts.items()]
    trained = len(exercise.recipes) + len(exercise.finetunes)
    takes = [
        f"{plural(trained, 'recipe')} trained" if trained else "",
        "a pretrained model" if "pretrained" in exercise.sources else "",
    ]
    needs = " and ".join(filter(None, takes)) or "no model"
    lines = [f"**{exercise.id} {question.title}**", question.stem, *parts, question.closing, f"*Needs {needs}.*"]
    return "\n\n".join(filter(None, lines))


def _entries(exercises: Sequence[Exercise]) -> Iterator[str]:
    for exercise in exercises:
        # Quoted: 21.10 would be the number 21.1.
        yield f"""
  - name: {_quoted(deployment_name(exercise.id))}
    description: {_quoted(_about(exercise))}
    tags: [{_quoted(f"exercise:{exercise.id}")}]
    entrypoint: flows.chapter.exercise
    parameters: {{id: {_quoted(exercise.id)}}}
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
