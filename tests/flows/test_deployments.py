from typing import Any, Literal, get_args, get_origin

import pytest
import yaml

from flows import names
from flows.deployments import FILE, deployment_name, main, pool_of, text
from flows.execution.graph import load_exercises
from flows.options import DEVICE_NAMES, PRECISION_NAMES, PROFILE_NAMES, SOURCE_NAMES, WHERE_NAMES
from flows.pools import POOLS
from reports.chapter import QUESTIONS
from tasks.exercises import modules


@pytest.fixture(scope="module")
def declared() -> dict[str, dict[str, Any]]:
    """The deployments in the file as Prefect reads them, by entrypoint and name."""
    file = yaml.safe_load(FILE.read_text())
    assert file["pull"] == []
    return {f"{entry['entrypoint'].rpartition('.')[2]}/{entry['name']}": entry for entry in file["deployments"]}


def test_the_file_is_in_step_with_the_exercises() -> None:
    assert FILE.read_text() == text(), "run python -m flows.deployments --write"


def test_names_sort_like_the_chapter() -> None:
    assert [deployment_name(id) for id in ("21.1", "21.7", "21.35")] == ["21-01", "21-07", "21-35"]


def test_each_exercise_has_a_deployment(declared: dict[str, dict[str, Any]]) -> None:
    exercises = load_exercises(tuple(modules()))
    expected = {f"exercise/{deployment_name(exercise.id)}" for exercise in exercises}
    assert set(declared) == expected | {"full_chapter/full-chapter", "train_model/train-model"}
    for exercise in exercises:
        entry = declared[f"exercise/{deployment_name(exercise.id)}"]
        assert entry["parameters"] == {"id": exercise.id}
        assert entry["work_pool"]["name"] == pool_of(exercise)
        assert entry["work_pool"]["name"] in POOLS


def test_prefect_accepts_entrypoints_and_parameters(declared: dict[str, dict[str, Any]]) -> None:
    from prefect.flows import load_flow_from_entrypoint

    for name, entry in declared.items():
        flow = load_flow_from_entrypoint(entry["entrypoint"])
        assert flow.name == name.split("/")[0].replace("_", "-")
        if "parameters" in entry:
            assert flow.validate_parameters(entry["parameters"])["id"] == entry["parameters"]["id"]


def test_each_deployment_says_what_it_is_and_what_its_parameters_are(declared: dict[str, dict[str, Any]]) -> None:
    from prefect.flows import load_flow_from_entrypoint
    from prefect.utilities.callables import parameter_schema

    for name, entry in declared.items():
        assert len(entry["description"]) > 60, name
        assert "{{" not in entry["description"], "Prefect would fill it in"
        flow = load_flow_from_entrypoint(entry["entrypoint"])
        assert flow.description
        assert "Args:" not in flow.description
        for parameter, about in parameter_schema(flow).properties.items():
            assert about.get("description"), f"{flow.name} says nothing of {parameter}"
    for id, question in QUESTIONS.items():
        entry = declared[f"exercise/{deployment_name(question.number)}"]
        assert question.title in entry["description"]
        assert all(part in entry["description"] for part in question.parts.values()), id
        assert entry["tags"] == [f"exercise:{question.number}"]


def test_menus_of_parameters_offer_what_the_command_line_takes() -> None:
    offered = {name: get_args(menu) for name, menu in vars(names).items() if get_origin(menu) is Literal}
    assert offered == {
        "ProfileName": PROFILE_NAMES,
        "SourceBundle": SOURCE_NAMES,
        "Device": DEVICE_NAMES,
        "Precision": PRECISION_NAMES,
        "Where": WHERE_NAMES,
    }


def test_the_schedule_is_weekly_and_sleeps(declared: dict[str, dict[str, Any]]) -> None:
    (schedule,) = declared["full_chapter/full-chapter"]["schedules"]
    assert schedule["active"] is False
    assert schedule["cron"].split()[2:4] == ["*", "*"]
    assert schedule["cron"].split()[4].isdigit()


def test_no_folder_of_a_machine_is_written_down(declared: dict[str, dict[str, Any]]) -> None:
    assert {entry["work_pool"]["job_variables"]["working_dir"] for entry in declared.values()} == {"."}
    assert str(FILE.parent) not in FILE.read_text()


def test_a_file_that_lags_behind_is_noticed(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lagging = tmp_path / "prefect.yaml"
    lagging.write_text(text().partition('\n  - name: "21-')[0])
    monkeypatch.setattr("flows.deployments.FILE", lagging)
    assert main([]) == 1
    assert main(["--write"]) == 0
    assert main([]) == 0
