"""The graph of the whole chapter: in order, within its budgets, and with keys that follow what matters."""

from dataclasses import replace

import pytest

from flows.execution.graph import Node, Request, build, load_exercises, training_seconds
from flows.execution.plan import plan
from tasks.cache.keys import code_digests
from tasks.cache.store import Store
from tasks.exercises import modules
from tasks.recipes.catalogue import SMALL, recipes
from tasks.recipes.profiles import PROFILES, Profile
from tasks.sources.resolve import OWN_MODEL, Sources, resolve_sources

CORES = 2
MINUTES = {"smoke": 4, "laptop": 30}
OVERHEAD_SECONDS = 50  # server, imports, hand-over of steps, report: 48 in a laptop run of 133 steps


@pytest.fixture(scope="module")
def sources() -> Sources:
    return resolve_sources("embedded")


def graph_of(profile: Profile, sources: Sources, *ids: str) -> dict[str, Node]:
    return build(Request(profile, sources, load_exercises(ids or tuple(modules()))))


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_every_node_stands_after_what_it_needs(profile: Profile, sources: Sources) -> None:
    seen: set[str] = set()
    for node in graph_of(profile, sources).values():
        assert set(node.needs.values()) <= seen
        seen.add(node.name)


@pytest.mark.parametrize("profile", MINUTES)
def test_the_declared_budgets_fit(profile: str, sources: Sources) -> None:
    asked = replace(sources, pretrained=OWN_MODEL) if PROFILES[profile].stand_in else sources  # as ``chapter run`` does
    # Two recipes that say the same are trained once.
    once = {
        str(node.inputs) if node.kind == "train" else node.name: node
        for node in graph_of(PROFILES[profile], asked).values()
    }
    nodes = once.values()
    alone = sum(node.seconds for node in nodes if node.alone)
    together = sum(node.seconds for node in nodes if not node.alone)
    assert OVERHEAD_SECONDS + alone + together / CORES <= MINUTES[profile] * 60


def test_every_recipe_is_used_and_can_be_resolved() -> None:
    used = {recipe.name for exercise in load_exercises(tuple(modules())) for recipe in exercise.recipes}
    used |= {recipe.teacher.name for recipe in recipes().values() if recipe.teacher}
    for name, recipe in recipes().items():
        for profile in PROFILES.values():
            assert profile.resolve(recipe).train.steps >= 1
            assert training_seconds(profile.resolve(recipe), profile.validation_characters) > 0
        assert name in used or name == "stand-in", f"no exercise uses the recipe {name}"


def test_exercises_declare_numbers_and_seconds_for_every_profile() -> None:
    """For one that follows another they may: what they do not is the other's. They never name a number that is new."""
    needed = {name for name, profile in PROFILES.items() if not profile.base}
    for exercise in load_exercises(tuple(modules())):
        for stated in (set(exercise.numbers), set(exercise.seconds)):
            assert needed <= stated <= set(PROFILES), exercise.id
        for name, profile in PROFILES.items():
            if profile.base and name in exercise.numbers:
                assert set(exercise.numbers[name]) <= set(exercise.numbers[profile.base]), exercise.id


def test_a_seed_and_a_budget_change_only_what_they_must(sources: Sources) -> None:
    profile = PROFILES["smoke"]
    one = graph_of(profile, sources, "21.22")
    half = graph_of(profile.scaled(0.5), sources, "21.22")
    assert one["tokens/main/char"].inputs == half["tokens/main/char"].inputs
    assert one["train/small/0"].inputs != half["train/small/0"].inputs


def test_an_exercise_depends_on_what_its_models_curves_depend_on(sources: Sources) -> None:
    """Weights do not tell how often a training was evaluated, and the answer quotes the evaluations."""
    profile = PROFILES["smoke"]
    scales = {group: replace(scale, train={**scale.train, "eval_every": 7}) for group, scale in profile.scales.items()}
    finetune = {**profile.finetune, "validation_tokens": 77}
    before = graph_of(profile, sources, "21.15", "21.21")
    after = graph_of(replace(profile, scales=scales, finetune=finetune), sources, "21.15", "21.21")
    for id in ("21.15", "21.21"):
        assert before[f"exercise/{id}"].inputs != after[f"exercise/{id}"].inputs


def test_what_reads_the_pretrained_model_is_in_the_keys_of_those_who_use_it(sources: Sources) -> None:
    graph = graph_of(PROFILES["smoke"], sources)
    users = {name for name, node in graph.items() if "tasks.models.reading" in code_digests(node.code)}
    pretrained = {f"exercise/{e.id}" for e in load_exercises(tuple(modules())) if "pretrained" in e.sources}
    assert users == pretrained | {name for name, node in graph.items() if node.kind == "finetune"}


def test_steps_between_evaluations_and_warm_ups_go_with_the_budget() -> None:
    profile = PROFILES["laptop"]
    half = profile.scaled(0.5)
    for group, scale in profile.scales.items():
        for field in ("steps", "warmup_steps", "eval_every"):
            if scale.train.get(field):
                assert half.scales[group].train[field] == pytest.approx(scale.train[field] / 2, abs=0.51)
    assert half.budget == 0.5
    assert half.scaled(2.0).budget == 1.0


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_any_seed_may_be_the_first(profile: Profile, sources: Sources) -> None:
    scales = {group: replace(scale, seeds=(7, 8)) for group, scale in profile.scales.items()}
    graph = graph_of(replace(profile, scales=scales), replace(sources, pretrained=OWN_MODEL))
    assert {node.seed for node in graph.values() if node.kind == "train"} == {7, 8}


def test_the_graph_for_gpu_workers_is_built_without_a_gpu(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    request = Request(PROFILES["gpu"], sources, load_exercises(tuple(modules())), device="cuda")
    assert any("hardware" in node.inputs for node in build(request).values())


def test_names_are_labels(sources: Sources) -> None:
    profile = PROFILES["smoke"]
    twin = replace(SMALL, name="twin")
    graph = build(Request(profile, sources, (), recipes=((SMALL, 0), (twin, 0))))
    records = {
        "text/main": {"key": "a", "artifacts": {}},
        "tokens/main/char": {"key": "b", "artifacts": {}},
    }
    assert graph["train/small/0"].step(records).key == graph["train/twin/0"].step(records).key


def test_a_cold_plan_runs_the_text_and_does_not_know_the_rest(sources: Sources, tmp_path: object) -> None:
    planned, records = plan(graph_of(PROFILES["smoke"], sources, "21.22"), Store(str(tmp_path)))
    assert not records
    assert {item.node.name for item in planned if item.state == "miss"} == {"text/main"}
    [training] = [item for item in planned if item.node.name == "train/small/0"]
    assert training.state == "unknown"
    assert "tokens main, char" in training.why
