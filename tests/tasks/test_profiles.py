"""Profiles that follow others: scaled by stated factors, and an exercise's numbers taken over where it states none."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from flows import sizes as readme
from flows.execution.graph import Request, build, load_exercises
from minigpt.precision import Precision
from tasks.exercises import modules
from tasks.recipes.catalogue import LARGE, SMALL_LONG, STUDY, TEACHER, TIMING, VERSE, recipes
from tasks.recipes.profiles import LAPTOP, OVERNIGHT, PROFILES, Profile, Scale
from tasks.recipes.sizes import CHARACTERS, GPT2, NAMES, of_run, rounded, sizes, where_trained
from tasks.sources.resolve import resolve_sources

CORES = 2
HOURS = (1.6, 2.4)  # "about two hours"


@pytest.fixture
def longer() -> Profile:
    return LAPTOP.longer("longer", times=3, but={"timing": 1}, seeds=(0, 1), once=("teacher",), train_characters=7)


def test_steps_follow_by_the_stated_factors(longer: Profile) -> None:
    for recipe in recipes().values():
        before, after = LAPTOP.resolve(recipe), longer.resolve(recipe)
        factor = 1 if recipe.group == "timing" else 3
        assert after.train.steps == factor * before.train.steps
        stated = "warmup_steps" in LAPTOP._scale(recipe.group).train
        assert after.train.warmup_steps == (factor * before.train.warmup_steps if stated else before.train.warmup_steps)
        assert replace(after.model) == before.model, "widths are laptop's"
    assert longer.train_characters == 7
    assert longer.validation_characters == LAPTOP.validation_characters
    assert (longer.name, longer.base) == ("longer", "laptop")


def test_equal_time_in_bf16_stays_equal_time(longer: Profile) -> None:
    fast, before = longer.computed_in("bf16"), LAPTOP.computed_in("bf16")
    for recipe in recipes().values():
        if recipe.group.endswith("-long"):
            assert fast.resolve(recipe).train.steps == 3 * before.resolve(recipe).train.steps


def test_seeds_are_more_and_never_fewer(longer: Profile) -> None:
    assert longer.seeds(LARGE) == (0, 1), "one at laptop"
    assert longer.seeds(STUDY) == LAPTOP.seeds(STUDY) == (0, 1, 2), "three at laptop"
    assert longer.seeds(TEACHER) == LAPTOP.seeds(TEACHER)


def test_a_group_that_is_not_trained_stays_so_unless_it_is_told_how() -> None:
    none = replace(LAPTOP, scales={**LAPTOP.scales, "large": replace(LAPTOP.scales["large"], seeds=())})
    told = Scale(train={"steps": 9}, seeds=(4,))
    assert none.longer("longer", times=2, but={}, seeds=(0, 1)).seeds(LARGE) == ()
    longer = none.longer("longer", times=2, but={}, seeds=(0, 1), instead={"large": told})
    assert (longer.resolve(LARGE).train.steps, longer.seeds(LARGE)) == (9, (4,))


def test_the_books_sizes_have_gpt2s_vocabulary_overnight() -> None:
    found = {(size.name, size.vocabulary): size.recipe for size in sizes(OVERNIGHT)}
    assert all(found[name, NAMES[GPT2]] for name in ("small", "medium", "large"))


@pytest.mark.parametrize("given", [{"but": {"gone": 2.0}}, {"once": ("gone",)}, {"instead": {"gone": Scale()}}])
def test_a_group_that_is_gone_is_named(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="profile longer: laptop has no groups gone"):
        LAPTOP.longer("longer", times=2, seeds=(0,), **{"but": {}, **given})


def test_what_an_exercise_does_not_state_is_the_followed_profiles() -> None:
    stated = {"laptop": {"texts": 3, "tokens": 50}, "gpu": {"texts": 9, "tokens": 99}}
    assert OVERNIGHT.numbers(stated) == {"texts": 3, "tokens": 50}
    assert OVERNIGHT.numbers({**stated, "overnight": {"texts": 30}}) == {"texts": 30, "tokens": 50}
    assert OVERNIGHT.seconds({"laptop": 4.0}) == 4.0
    assert OVERNIGHT.seconds({"laptop": 4.0, "overnight": 40.0}) == 40.0
    assert PROFILES["gpu"].numbers(stated) == {"texts": 9, "tokens": 99}
    for nothing in (lambda: PROFILES["gpu"].numbers({"laptop": {}}), lambda: PROFILES["smoke"].seconds({"laptop": 1})):
        with pytest.raises(KeyError):
            nothing()


def test_overnight_is_laptop_with_more_of_everything() -> None:
    assert OVERNIGHT.base == "laptop"
    assert OVERNIGHT.train_characters > LAPTOP.train_characters
    assert set(LAPTOP.scales) <= set(OVERNIGHT.scales)
    for recipe in recipes().values():
        assert OVERNIGHT.resolve(recipe).train.steps >= LAPTOP.resolve(recipe).train.steps
        assert set(OVERNIGHT.seeds(recipe)) >= set(LAPTOP.seeds(recipe))
        few = ("teacher", "target", "timing", "small-bpe", "medium-bpe", "large-bpe")
        assert len(OVERNIGHT.seeds(recipe)) >= 3 or recipe.group in few
    assert OVERNIGHT.resolve(TIMING) == LAPTOP.resolve(TIMING), "what is timed need not be trained well"
    tunings = [profile.resolve_tuning(VERSE) for profile in (LAPTOP, OVERNIGHT)]
    assert tunings[1].train_tokens > tunings[0].train_tokens
    kept = {"scales", "name", "base", "finetune", "train_characters", "validation_characters"}
    for field in fields(Profile):
        assert field.name in kept or getattr(OVERNIGHT, field.name) == getattr(LAPTOP, field.name)


def test_overnight_takes_about_two_hours() -> None:
    """On two cores with bf16 instructions, by the times that ``chapter plan`` shows."""
    profile = OVERNIGHT.computed_in("bf16")
    nodes = build(Request(profile, resolve_sources("embedded"), load_exercises(tuple(modules())))).values()
    alone = sum(node.seconds for node in nodes if node.alone)
    together = sum(node.seconds for node in nodes if not node.alone)
    assert HOURS[0] <= (alone + together / CORES) / 3600 <= HOURS[1]


# --- Which sizes a profile trains ------------------------------------------------------------------------------------


def test_the_books_sizes_have_its_parameters_only_with_gpt2s_vocabulary() -> None:
    """V·C + T·C for the tables; 12C² + 13C for a block with its biases and norms; 2C for the last norm."""
    found = {(size.name, size.vocabulary): size.parameters for size in sizes(PROFILES["gpu"])}
    for name, layers, width in (("small", 2, 128), ("medium", 4, 256), ("large", 6, 384)):
        blocks = layers * (12 * width**2 + 13 * width) + 2 * width
        assert found[name, NAMES[GPT2]] == (50_257 + 256) * width + blocks
        assert found[name, NAMES[CHARACTERS]] == (65 + 256) * width + blocks


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_a_size_is_said_to_be_trained_exactly_if_a_step_trains_it(profile: Profile) -> None:
    graph = build(Request(profile, resolve_sources("embedded"), load_exercises(tuple(modules()))))
    trained = {(node.subject, node.seed) for node in graph.values() if node.kind == "train"}
    for size in sizes(profile):
        recipe = size.recipe
        assert of_run(size, ()) == ("not trained in this run yet" if recipe else of_run(size, trained))
        if recipe:
            assert {(recipe.name, seed) for seed in size.seeds} <= trained
            assert of_run(size, trained).startswith("trained: ")
            assert size.tokens == recipe.train.steps * recipe.train.batch_size * recipe.model.context
        else:
            assert of_run(size, trained).startswith("not trained at ")
            assert profile.name not in where_trained(size)


def test_the_longest_training_of_a_size_is_shown() -> None:
    [small] = [size for size in sizes(LAPTOP) if (size.name, size.vocabulary) == ("small", NAMES[CHARACTERS])]
    assert small.recipe == LAPTOP.resolve(SMALL_LONG)


def test_a_size_that_is_not_trained_names_the_profiles_that_train_it() -> None:
    only = replace(LAPTOP, scales={**LAPTOP.scales, "large": replace(LAPTOP.scales["large"], seeds=())})
    [large] = [size for size in sizes(only) if (size.name, size.vocabulary) == ("large", NAMES[CHARACTERS])]
    assert large.recipe is None
    assert of_run(large, ()) == "not trained at this profile; trained at `smoke`, `laptop`, `overnight` and `gpu`"


@pytest.mark.parametrize(
    ("count", "text"), [(7, "7"), (15_360, "15 k"), (128_000, "128 k"), (2_176_000, "2.2 M"), (147_456_000, "147 M")]
)
def test_counts_are_said_in_two_digits_or_three(count: int, text: str) -> None:
    assert rounded(count) == text


def test_readmes_table_is_in_step_with_the_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert readme.main([]) == 0, "run python -m flows.sizes --write"


def test_another_table_is_not_in_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "README.md"
    file.write_text(readme.FILE.read_text().replace("| small, ", "| tiny, ", 1))
    monkeypatch.setattr(readme, "FILE", file)
    assert readme.main([]) == 1
    assert "flows.sizes --write" in capsys.readouterr().err
    assert readme.main(["--write"]) == 0
    assert file.read_text() == (Path(readme.__file__).parent.parent / "README.md").read_text()
    file.write_text("no marks")
    with pytest.raises(ValueError, match="no table of sizes"):
        readme.main([])


def test_the_readmes_words_on_laptop_are_its_numbers() -> None:
    """Two passes over so many characters in bf16, and less than one where a step takes too long for that."""
    text = (Path(readme.__file__).parent.parent / "README.md").read_text()
    said = f"for two passes over {LAPTOP.train_characters:,} characters (less than one where bf16 does not pay)"
    assert said in text
    for recipe in (recipes()[name] for name in ("small", "medium", "large")):
        passes = {}
        for precision in ("bf16", "fp32"):
            found = LAPTOP.computed_in(precision).resolve(recipe)
            passes[precision] = found.train.steps * found.train.batch_size * found.model.context
        assert passes["bf16"] / LAPTOP.train_characters == pytest.approx(2, abs=0.05)
        assert passes["fp32"] < LAPTOP.train_characters


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_small_model_is_a_branch_of_its_longer_training(profile: Profile, precision: Precision) -> None:
    """What 21.22 checks: one training, until the small one's rate goes down."""
    small, longer = (profile.computed_in(precision).resolve(recipes()[name]) for name in ("small", "small-long"))
    assert small.train.steps in longer.train.early_budgets
    for field in ("warmup_steps", "batch_size", "learning_rate", "schedule", "optimizer"):
        assert getattr(small.train, field) == getattr(longer.train, field), field
    assert small.model == longer.model
