"""Pools whose runs are containers: what Prefect's workers are given is what they understand."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from flows.containers import FOLDER, IMAGE, files, prefect_templates, template
from flows.recovery import SILENCE
from tasks.failures import memory_hint

ROOT = Path(__file__).parent.parent.parent
NAMES = [(type, pool) for type in ("docker", "kubernetes") for pool in ("cpu", "gpu")]


def placeholders(value: Any) -> set[str]:
    return set(re.findall(r"\{\{ *(\w+) *\}\}", json.dumps(value)))


def without_defaults(variables: dict[str, Any]) -> dict[str, Any]:
    return {name: {k: v for k, v in facts.items() if k != "default"} for name, facts in variables.items()}


def test_the_files_are_as_they_are_written() -> None:
    """``python -m flows.containers --write`` renews them, after a change there or of Prefect's version."""
    assert {path: path.read_text() for path in FOLDER.glob("*.json")} == files()


@pytest.mark.parametrize(("type", "pool"), NAMES)
def test_a_template_is_prefects_own_with_other_defaults(type: str, pool: str) -> None:
    ours, theirs = template(type, pool), prefect_templates()[type]
    assert ours.keys() == theirs.keys()
    variables = without_defaults(ours["variables"]["properties"])
    added = {"gpus"} if (type, pool) == ("kubernetes", "gpu") else set()
    assert variables.keys() - without_defaults(theirs["variables"]["properties"]).keys() == added
    for name, facts in without_defaults(theirs["variables"]["properties"]).items():
        assert variables[name] == facts
    assert placeholders(ours["job_configuration"]) - placeholders(theirs["job_configuration"]) == added
    assert placeholders(ours["job_configuration"]) <= variables.keys()


@pytest.mark.parametrize(("type", "pool"), NAMES)
def test_defaults_are_what_the_variables_allow(type: str, pool: str) -> None:
    """By JSON Schema, as Prefect's server checks job variables."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.utilities.schema_tools import validate

    ours = template(type, pool)
    defaults = {name: facts["default"] for name, facts in ours["variables"]["properties"].items() if "default" in facts}
    assert not list(validate(defaults, ours["variables"], preprocess=True, ignore_required=True) or ())
    made = WorkPoolCreate(name=pool, type=type, base_job_template=ours)
    assert made.base_job_template == ours
    assert defaults["image"] == IMAGE
    assert int(defaults["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) * 2 < SILENCE.total_seconds()


def test_a_run_on_a_gpu_asks_for_one() -> None:
    [container] = template("kubernetes", "gpu")["job_configuration"]["job_manifest"]["spec"]["template"]["spec"][
        "containers"
    ]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "{{ gpus }}"
    [container] = template("kubernetes", "cpu")["job_configuration"]["job_manifest"]["spec"]["template"]["spec"][
        "containers"
    ]
    assert "nvidia" not in json.dumps(container)


def test_the_image_holds_what_the_package_does() -> None:
    """Nothing runs a Docker daemon here; what can be known without one."""
    lines = (FOLDER / "Dockerfile").read_text().splitlines()
    copied = {word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]}
    assert all((ROOT / name).exists() for name in copied)
    packages = {name.rstrip("*") for name in _project()["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages <= copied
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied <= kept
    assert {"LICENSE", _project()["project"]["readme"]} <= kept


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "fewer processes"),
        ("Flow run process exited with non-zero status code -9.", "fewer --jobs"),
        ("Flow run infrastructure exited with non-zero status code 137.", "or give the container"),
        ("train small: its process died (A process in the process pool was terminated abruptly)", "fewer --jobs"),
        ("RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried", "the machine more"),
        ("Flow run process exited with non-zero status code 1.", ""),
        ("ValueError: 137 is no seed", ""),
        ("", ""),
    ],
)
def test_what_to_do_where_memory_ran_out(text: str, remedy: str) -> None:
    assert remedy in memory_hint(text)
    assert bool(memory_hint(text)) == bool(remedy)
