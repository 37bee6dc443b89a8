"""What a plan says of each step, held against what the engine does; and graphs that are kept for plans."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from flows.execution import kept
from flows.execution.graph import Request, build, load_exercises
from flows.execution.kept import PACKAGES, kept_graph
from flows.execution.nodes import Node
from flows.execution.plan import Planned, Total, exercises_of, plan, summary
from flows.options import Options
from tasks.cache.keys import Step
from tasks.cache.store import Store
from tasks.exercises import modules
from tasks.recipes.profiles import PROFILES
from tasks.sources.resolve import Sources, resolve_sources
from tests.flows.execution.test_engine import DIAMOND, FakeRunner, graph_of, node, run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture(scope="module")
def sources() -> Sources:
    return resolve_sources("embedded")


class Remembering(FakeRunner):
    """Leaves a note of each step, as ``tasks.steps`` does."""

    def submit(self, node: Node, step: Step) -> None:
        super().submit(node, step)
        self.store.remember(step.name, {"key": step.key, "ingredients": step.ingredients(), "seconds": 3.0})


def by_name(graph: Mapping[str, Node], store: Store) -> dict[str, Planned]:
    return {item.node.name: item for item in plan(graph, store)[0]}


def verdicts(graph: Mapping[str, Node], store: Store) -> dict[str, str]:
    return {name: item.verdict for name, item in by_name(graph, store).items()}


def test_in_an_empty_store_everything_runs_and_nothing_is_unknown(store: Store) -> None:
    planned = by_name(DIAMOND, store)
    assert {item.verdict for item in planned.values()} == {"run"}
    assert {item.reason for item in planned.values()} == {"never run"}
    runner = Remembering(store)
    run(DIAMOND, store, runner)
    assert len(runner.order) == Total.of(list(planned.values()), 1).to_run


def test_a_changed_input_is_named_and_what_needs_it_is_unknown(store: Store) -> None:
    run(DIAMOND, store, Remembering(store))
    assert set(verdicts(DIAMOND, store).values()) == {"cached"}
    text = replace(DIAMOND["text"], inputs={"of": "another"})
    planned = by_name({**DIAMOND, "text": text}, store)
    assert (planned["text"].verdict, planned["text"].reason) == ("run", "input of (text → another) changed")
    assert planned["left"].verdict == planned["end"].verdict == "unknown", (
        "if the text comes out as before, it is there"
    )
    assert planned["left"].reason == "unknown until train text is there"


def test_a_step_whose_own_inputs_have_changed_runs_whatever_comes_out_before(store: Store) -> None:
    run(DIAMOND, store, Remembering(store))
    changed = {name: replace(DIAMOND[name], inputs={"of": f"{name}, anew"}) for name in ("text", "left")}
    graph = {**DIAMOND, **changed}
    planned = by_name(graph, store)
    assert planned["left"].state == "unknown", "its key is not known yet"
    assert (planned["left"].verdict, planned["left"].reason) == ("run", "input of (left → left, anew) changed")
    assert planned["right"].verdict == "unknown"


@pytest.mark.parametrize("text_is_there", [True, False])
def test_the_same_work_under_two_names_counts_once(store: Store, text_is_there: bool) -> None:
    one, other = (node(name, "text", seconds=60.0, inputs="the same") for name in ("one", "other"))
    graph = graph_of(node("text", seconds=0.0), one, other, node("end", "one", "other", seconds=0.0))
    if text_is_there:
        run({"text": graph["text"]}, store, Remembering(store))
    planned = by_name(graph, store)
    assert planned["other"].verdict == "same"
    assert planned["other"].reason == "the same as train one"
    total = Total.of(list(planned.values()), 1)
    assert (total.same, total.seconds) == (1, 60.0)
    runner = Remembering(store)
    run(graph, store, runner)
    assert len(runner.order) == total.to_run
    assert set(verdicts(graph, store).values()) == {"cached"}


def test_the_long_small_model_is_not_counted_twice(store: Store, sources: Sources) -> None:
    """Where a profile says nothing of "position-table", it is "small-long" by another name."""
    profile = PROFILES["laptop"]
    assert "position-table" not in profile.scales
    graph = build(Request(profile, sources, load_exercises(("21.15", "21.20"))))
    planned = by_name(graph, store)
    twins = {name: item.twin for name, item in planned.items() if item.twin}
    assert twins == {
        f"train/position-table/{seed}": f"train small-long, seed {seed}" for seed in profile.scales["small-long"].seeds
    }
    without = {name: one for name, one in planned.items() if not name.startswith("train/position-table")}
    assert Total.of(list(planned.values()), 2).seconds == Total.of(list(without.values()), 2).seconds


def test_a_total_in_time_that_can_be_read(store: Store) -> None:
    graph = graph_of(node("a", seconds=101_604.0), node("b", seconds=10.0))
    planned, _ = plan(graph, store)
    assert summary(planned, 2) == (
        "2 steps: 0 cached, 2 to run, 0 unknown yet; at most 2 trainings; about 28 h 13 min in 2 processes"
    )


def test_a_total_in_two_processes_shares_what_is_done_ahead(store: Store) -> None:
    timed = replace(node("timed", seconds=10.0, alone=True), ahead=60.0)
    planned, _ = plan(graph_of(node("a", seconds=40.0), timed), store)
    assert Total.of(planned, 1).seconds == 110.0
    assert Total.of(planned, 2).seconds == 70.0, "60 beside 40, and 10 alone"


def test_who_needs_a_step() -> None:
    exercises = [
        replace(node(id, *needs), kind="exercise", subject=id) for id, *needs in (("x", "left"), ("y", "right"))
    ]
    graph = graph_of(*(DIAMOND[name] for name in ("text", "left", "right")), *exercises)
    assert exercises_of(graph) == {"text": ["x", "y"], "left": ["x"], "right": ["y"], "x": ["x"], "y": ["y"]}


# --- Graphs that are kept --------------------------------------------------------------------------------------


class Maker:
    """Builds a graph, and counts how often."""

    def __init__(self, profile: str, sources: Sources) -> None:
        self.request = Request(PROFILES[profile], sources, load_exercises(tuple(modules())))
        self.made = 0

    def __call__(self) -> tuple[dict[str, Node], str]:
        self.made += 1
        return build(self.request), "cpu"


def test_a_kept_graph_has_the_same_steps(tmp_path: Path, sources: Sources) -> None:
    maker, options = Maker("laptop", sources), Options(profile="laptop", sources="embedded")
    before, _ = kept_graph(options, sources, tmp_path, maker)
    after, device = kept_graph(options, sources, tmp_path, maker)
    assert (maker.made, device) == (1, "cpu")
    assert list(after) == list(before)
    for name, one in before.items():
        other = after[name]
        assert replace(other, inputs={}, local={}) == replace(one, inputs={}, local={})
        records = {need: {"key": "k", "artifacts": {"a": {"sha256": need}}} for need in one.needs.values()}
        assert other.step(records).key == one.step(records).key


def test_a_graph_is_made_anew_for_anything_else(
    tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker, options = Maker("smoke", sources), Options(profile="smoke", sources="embedded")

    def made(options: Options = options, sources: Sources = sources) -> int:
        before = maker.made
        kept_graph(options, sources, tmp_path, maker)
        return maker.made - before

    assert (made(), made()) == (1, 0)
    assert made(replace(options, jobs=7)) == 0, "processes make no other steps"
    assert made(replace(options, budget=2.0)) == 1
    assert made(replace(options, only=("21.1",))) == 1
    assert made(replace(options, precision="fp32")) == 1
    assert (made(), made()) == (1, 0)
    assert made(sources=replace(sources, main=replace(sources.main, sha256="another text"))) == 1
    for name, value in (("_version", "0.0"), ("_code", "other code"), ("gpu", "a GPU")):
        made()
        with monkeypatch.context() as patch:
            patch.setattr(kept, name, lambda *_, value=value: value)
            assert made() == 1, name
    made()
    file = tmp_path / "graphs" / "smoke.json"
    for damage in ("", "[]", json.dumps({**json.loads(file.read_text()), "nodes": [{}]})):
        file.write_text(damage)
        assert (made(), made()) == (1, 0), damage


def test_an_edit_of_any_module_is_another_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("minigpt", "tasks", "reports", "flows"):
        (tmp_path / package / "inner").mkdir(parents=True)
        (tmp_path / package / "inner" / "module.py").write_text("a = 1\n")
    monkeypatch.setattr(kept, "ROOT", tmp_path)
    seen = {kept._code()}
    for package in ("minigpt", "tasks", "reports", "flows"):
        (tmp_path / package / "inner" / "module.py").write_text("a = 2\n")
        seen.add(kept._code())
    (tmp_path / "flows" / "inner" / "module.py").rename(tmp_path / "flows" / "module.py")
    seen.add(kept._code())
    assert len(seen) == 6


@pytest.mark.parametrize("name", PROFILES)
def test_the_versions_that_keys_hold_are_those_that_are_looked_at(name: str, sources: Sources) -> None:
    graph, _ = Maker(name, sources)()
    held = {package for one in graph.values() for package in one.inputs.get("environment", {})}
    assert held - {"device", "threads", "precision"} <= set(PACKAGES)


def test_a_folder_that_cannot_be_written_costs_time_alone(tmp_path: Path, sources: Sources) -> None:
    (tmp_path / "graphs").write_text("a file")
    (tmp_path / "machine.json").write_text("{}")
    maker = Maker("smoke", sources)
    graph, _ = kept_graph(Options(profile="smoke", precision="fp32"), sources, tmp_path, maker)
    assert graph
    assert maker.made == 1
