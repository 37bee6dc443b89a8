"""Whether bf16 pays: measured once, kept, and measured again elsewhere; and what the choice changes in a run."""

import json
from pathlib import Path

import pytest

from flows import machine
from flows.execution.graph import Node, build
from flows.machine import bf16_gain, chosen_precision, measured_bf16_gain
from flows.options import Options, UsageError
from flows.requests import request_of
from tasks.recipes.catalogue import LARGE, SMALL, SMALL_LONG, STUDY, VERSE, recipes
from tasks.recipes.profiles import PROFILES


@pytest.fixture
def gains(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the next measurements find; an empty list forbids one."""
    found: list[float] = []
    monkeypatch.setattr(machine, "measured_bf16_gain", lambda: found.pop(0))
    return found


def test_the_probe_is_a_ratio_of_times() -> None:
    assert 0.001 < measured_bf16_gain() < 1000


def test_it_is_measured_once_per_machine(tmp_path: Path, gains: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    gains.append(6.5)
    assert bf16_gain(tmp_path / "outputs") == bf16_gain(tmp_path / "outputs") == 6.5
    monkeypatch.setattr(machine, "processor", lambda: "another")
    gains.append(0.3)
    assert bf16_gain(tmp_path / "outputs") == 0.3


@pytest.mark.parametrize("kept", ["", "[1, 2]", "null", '{"bf16_gain": 9}', "\udcff"])
def test_what_is_no_measurement_is_measured_again(tmp_path: Path, gains: list[float], kept: str) -> None:
    (tmp_path / "machine.json").write_bytes(kept.encode(errors="surrogateescape"))
    gains.append(1.5)
    assert bf16_gain(tmp_path) == 1.5
    assert json.loads((tmp_path / "machine.json").read_text())["bf16_gain"] == 1.5


@pytest.mark.parametrize(
    ("asked", "device", "gain", "chosen"),
    [
        ("auto", "cpu", 6.5, "bf16"),
        ("auto", "cpu", 0.3, "fp32"),
        ("auto", "cpu", 1.4, "fp32"),
        ("auto", "cuda", None, "bf16"),
        ("fp32", "cpu", None, "fp32"),
        ("fp32", "cuda", None, "fp32"),
        ("bf16", "cpu", None, "bf16"),
    ],
)
def test_the_choice(
    tmp_path: Path, gains: list[float], asked: str, device: str, gain: float | None, chosen: str
) -> None:
    gains.extend([gain] if gain is not None else [])
    assert chosen_precision(asked, device, tmp_path) == chosen


@pytest.mark.parametrize(("native", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_a_gpu_without_bf16_is_not_made_to_emulate_it(
    tmp_path: Path, gains: list[float], monkeypatch: pytest.MonkeyPatch, native: bool, chosen: str
) -> None:
    asked = list[bool]()

    def is_bf16_supported(including_emulation: bool = True) -> bool:
        asked.append(including_emulation)
        return native or including_emulation

    monkeypatch.setattr(machine, "gpu", lambda: "Tesla V100")
    monkeypatch.setattr("torch.cuda.is_bf16_supported", is_bf16_supported)
    assert chosen_precision("auto", "cuda", tmp_path) == chosen
    assert chosen_precision("bf16", "cuda", tmp_path) == "bf16", "who asks for it gets it"
    assert asked == [False]


def test_it_is_for_models_that_are_wide_enough() -> None:
    plain = PROFILES["laptop"]
    fast, slow = plain.computed_in("bf16"), plain.computed_in("fp32")
    found = {recipe: fast.resolve(recipe).train.precision for recipe in (SMALL, LARGE, STUDY)}
    assert found == {SMALL: "bf16", LARGE: "bf16", STUDY: "fp32"}
    assert {slow.resolve(recipe).train.precision for recipe in recipes().values()} == {"fp32"}
    assert (fast.resolve_tuning(VERSE).precision, slow.resolve_tuning(VERSE).precision) == ("bf16", "fp32")
    assert (fast.pretrained_precision, slow.pretrained_precision) == ("bf16", "fp32")
    assert plain.computed_in("fp32").resolve(LARGE) == plain.resolve(LARGE)
    assert fast.resolve(LARGE).train.steps > slow.resolve(LARGE).train.steps, "what it gains is time to read more"
    half = plain.scaled(0.5).computed_in("bf16").resolve(SMALL_LONG).train
    assert half.steps == fast.resolve(SMALL_LONG).train.steps // 2
    gpu = PROFILES["gpu"]
    assert {gpu.computed_in("bf16").resolve(recipe).train.precision for recipe in recipes().values()} == {"bf16"}
    assert {gpu.computed_in("fp32").resolve(recipe).train.precision for recipe in recipes().values()} == {"fp32"}


def test_smoke_is_the_same_on_every_machine() -> None:
    smoke = PROFILES["smoke"]
    for recipe in recipes().values():
        assert smoke.computed_in("bf16").resolve(recipe) == smoke.resolve(recipe)
    assert smoke.computed_in("bf16").resolve_tuning(VERSE) == smoke.resolve_tuning(VERSE)
    assert smoke.computed_in("bf16").pretrained_precision == "fp32"


def graph(precision: str) -> dict[str, Node]:
    return build(request_of(Options(profile="laptop", sources="embedded", precision=precision, device="cpu")))


def test_the_choice_is_in_the_keys() -> None:
    fast, slow = graph("bf16"), graph("fp32")
    assert {name for name in fast if fast[name].inputs != slow[name].inputs} >= {
        "train/large/0",
        "train/timing/0",
        "finetune/fine-tuned",
        "exercise/21.22",
        "exercise/21.18",
    }
    assert all(
        fast[name].inputs == slow[name].inputs for name in fast if name.startswith(("text", "tokens", "train/st"))
    )


def test_another_name_is_refused() -> None:
    with pytest.raises(UsageError, match="--precision fp16: there is no such precision; did you mean bf16"):
        Options(precision="fp16").validated()
