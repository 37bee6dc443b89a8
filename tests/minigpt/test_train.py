"""Training learns, is a function of its arguments alone, and survives being killed at any moment."""

import itertools
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from minigpt.config import GPTConfig
from minigpt.data import Windows
from minigpt.evaluation.evaluate import evaluate
from minigpt.files import model_from_state, model_state
from minigpt.model import GPT
from minigpt.objectives import causal
from minigpt.optimizers import make_optimizer
from minigpt.tokenizers import CharTokenizer
from minigpt.train import TrainConfig, TrainResult, _Training, train
from tests.exercise_context import bible
from tests.minigpt.killed_training import VARIANTS, run

ROOT = Path(__file__).parents[2]
CONFIG = GPTConfig(n_layer=2, n_head=2, d_model=32, context=16, vocab_size=29)
TC = TrainConfig(steps=20, batch_size=4)
TOKENS = torch.randint(29, (500,), generator=torch.Generator().manual_seed(0))


def quick(tc: TrainConfig = TC, config: GPTConfig = CONFIG, **options: object) -> TrainResult:
    arguments: dict[str, object] = {"seed": 0, **options}
    return train(config, tc, TOKENS[:400], TOKENS[400:], **arguments)  # type: ignore[arg-type]


def same_weights(a: GPT, b: GPT) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


# --- what it does -------------------------------------------------------------------------------------------------


def test_a_text_is_learned_beyond_its_bigrams() -> None:
    """Better than the best possible predictor that sees one character only, on text that neither has seen."""
    text = bible()[:120_000]
    tokenizer = CharTokenizer.train(text)
    ids = torch.tensor(tokenizer.encode(text))
    train_ids, validation_ids = ids[:100_000], ids[100_000:110_000]
    config = GPTConfig(n_layer=2, n_head=4, d_model=48, context=32, vocab_size=tokenizer.vocab_size, position="rope")
    result = train(config, TrainConfig(steps=150, batch_size=16, eval_every=150), train_ids, validation_ids, seed=0)
    losses = result.evaluations["validation_loss"]
    assert losses[0] == pytest.approx(math.log(tokenizer.vocab_size), abs=0.3)
    pairs = Counter(zip(validation_ids[:-1].tolist(), validation_ids[1:].tolist(), strict=True))
    firsts = Counter(validation_ids[:-1].tolist())
    bigram = -sum(n * math.log(n / firsts[a]) for (a, _), n in pairs.items()) / (len(validation_ids) - 1)
    assert losses[-1] < bigram
    assert losses[-1] == evaluate(result.model, validation_ids).nats_per_token
    assert not result.model.training


def test_a_tiny_text_is_learned_by_heart() -> None:
    tokens = torch.randint(29, (33,), generator=torch.Generator().manual_seed(0))
    result = train(CONFIG, TrainConfig(steps=250, batch_size=8), tokens, tokens, seed=0)
    assert result.history["train_loss"][-1] < 0.3


def test_curves_have_their_columns_and_end_at_the_last_step() -> None:
    result = quick(TrainConfig(steps=450, batch_size=2, eval_every=200))
    history, evaluations = result.history, result.evaluations
    assert list(history) == ["step", "tokens", "train_loss", "learning_rate", "gradient_norm", "seconds"]
    assert list(evaluations) == ["step", "tokens", "validation_loss", "seconds"]
    assert result.finished == {name: column[-1:] for name, column in evaluations.items()}
    assert evaluations["step"] == [0, 200, 400, 450]
    assert history["step"] == list(range(2, 451, 2))
    assert history["tokens"] == [step * 2 * 16 for step in history["step"]]
    for curves in (history, evaluations):
        assert len({len(column) for column in curves.values()}) == 1
        assert curves["seconds"] == sorted(curves["seconds"])
    assert result.seconds == history["seconds"][-1] == evaluations["seconds"][-1]
    assert 0.2 < result.tokens_per_second / (450 * 32 / result.seconds) < 5


def test_the_first_step_by_hand() -> None:
    """One update equals AdamW of torch with its plain loop, and the loss is that of the fresh model."""
    tc = replace(TC, steps=1, warmup_steps=0, grad_clip=0.0)
    result = quick(tc)
    torch.manual_seed(0)
    model = GPT(CONFIG)
    loss = causal(model, Windows(TOKENS[:400], 16, 0).batch(0, 4))
    assert result.history["train_loss"] == [pytest.approx(loss.item(), abs=1e-6)]
    loss.backward()
    norm = math.sqrt(sum(float(w.grad.square().sum()) for w in model.parameters() if w.grad is not None))
    assert result.history["gradient_norm"] == [pytest.approx(norm, rel=1e-5)]
    matrices = [w for w in model.parameters() if w.ndim == 2]
    others = [w for w in model.parameters() if w.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    torch.optim.AdamW(groups, lr=tc.learning_rate, betas=(0.9, 0.99), foreach=False).step()
    for ours, expected in zip(result.model.parameters(), model.parameters(), strict=True):
        assert torch.allclose(ours, expected, atol=1e-6)


def test_decay_is_for_matrices_only() -> None:
    model = GPT(CONFIG)
    decayed, other = make_optimizer(model, TC).param_groups
    assert {w.ndim for w in decayed["params"]} == {2}
    assert {w.ndim for w in other["params"]} == {1}
    assert (decayed["weight_decay"], other["weight_decay"]) == (0.1, 0.0)
    assert sum(len(group["params"]) for group in (decayed, other)) == len(list(model.parameters()))


def test_learning_rate_warms_up_and_follows_a_cosine() -> None:
    tc = TrainConfig(steps=101, learning_rate=2.0, warmup_steps=10, min_learning_rate_ratio=0.1)
    rates = [tc.learning_rate_at(step) for step in range(101)]
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert max(rates) == rates[9] == pytest.approx(rates[10]) == 2.0
    assert rates[55] == pytest.approx(1.1)  # half way: the mean of 2.0 and 0.2
    assert rates[-1] == pytest.approx(0.2)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert TrainConfig(steps=1).learning_rate_at(0) > 0
    assert TrainConfig(steps=5, warmup_steps=0).learning_rate_at(0) == TrainConfig(steps=5).learning_rate


def test_learning_rate_of_a_trapezoid() -> None:
    tc = TrainConfig(steps=100, learning_rate=2.0, warmup_steps=10, schedule="trapezoid", warmdown=0.2)
    rates = [tc.learning_rate_at(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert set(rates[9:81]) == {2.0}
    assert rates[80:] == pytest.approx([2.0 * (20 - i) / 20 for i in range(20)])
    shorter = replace(tc, steps=50)
    assert [tc.learning_rate_at(step, 50) for step in range(50)] == [shorter.learning_rate_at(s) for s in range(50)]


BRANCHED = TrainConfig(
    steps=60, batch_size=4, warmup_steps=5, schedule="trapezoid", warmdown=0.25, budgets=(0.5, 0.2), eval_every=60
)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_branch_is_a_whole_training_of_fewer_steps(optimizer: str) -> None:
    """To the last bit: what it reads, its dropout, its learning rate and the optimiser's memory."""
    tc, config = replace(BRANCHED, optimizer=optimizer), replace(CONFIG, dropout=0.1)
    result = quick(tc, config)
    assert result.finished["step"] == [12, 30, 60]
    assert result.finished["tokens"] == [steps * 4 * 16 for steps in (12, 30, 60)]
    for steps, loss in zip(result.finished["step"], result.finished["validation_loss"], strict=True):
        alone = quick(replace(tc, steps=int(steps), budgets=()), config)
        assert loss == alone.evaluations["validation_loss"][-1]
        assert alone.finished["step"] == [steps]
    assert tc.updates == 60 + 3 + 8


def test_branches_do_not_touch_the_trunk() -> None:
    config = replace(CONFIG, dropout=0.1)
    with_branches, without = quick(BRANCHED, config), quick(replace(BRANCHED, budgets=()), config)
    assert same_weights(with_branches.model, without.model)
    assert with_branches.history["train_loss"] == without.history["train_loss"]
    assert with_branches.evaluations["validation_loss"] == without.evaluations["validation_loss"]


@pytest.mark.parametrize("update", [8, 10, 11, 12, 24, 30, 70])
def test_stopped_on_a_branch_it_ends_with_the_same_bits(update: int, tmp_path: Path) -> None:
    """The two branches begin after 9 and 22 steps: their 3 and 8 updates are numbers 10 … 12 and 26 … 33 of all 71."""
    expected, count = quick(BRANCHED), itertools.count(1)
    step = _Training._update

    def update_or_stop(self: _Training, rate: float) -> object:
        if next(count) == update:
            raise Stopped
        return step(self, rate)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Training, "_update", update_or_stop)
        with pytest.raises(Stopped):
            quick(BRANCHED, checkpoint_dir=tmp_path, checkpoint_seconds=0.0)
    assert same_results(quick(BRANCHED, checkpoint_dir=tmp_path), expected)


def test_an_exception_of_progress_on_a_branch_saves_the_trunk(tmp_path: Path) -> None:
    told = itertools.count(1)

    def enough(fraction: float, _: str) -> None:
        if fraction == 22 / 60 and next(told) == 3:  # after the 22nd step, and twice on the branch that begins there
            raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        ticks = itertools.count(1)  # a clock by which progress is told after every update
        clock = SimpleNamespace(monotonic=lambda: float(next(ticks)), perf_counter=time.perf_counter)
        patch.setattr("minigpt.train.time", clock)
        with pytest.raises(Stopped):
            quick(BRANCHED, checkpoint_dir=tmp_path, progress=enough)
    assert max(path.stem for path in tmp_path.glob("*.json")) == "step-000000022"
    assert same_results(quick(BRANCHED, checkpoint_dir=tmp_path), quick(BRANCHED))


def test_gradients_are_clipped() -> None:
    free, clipped = quick(replace(TC, grad_clip=0.0)), quick(replace(TC, grad_clip=1e-6))
    assert not same_weights(free.model, clipped.model)
    assert free.history["gradient_norm"][0] == clipped.history["gradient_norm"][0]  # before clipping


def test_snapshots_follow_the_epochs() -> None:
    result = quick(TrainConfig(steps=20, batch_size=4, snapshots="epoch"))
    per_epoch = 399 // 16 - 1  # windows
    ends = [math.ceil(per_epoch * epoch / 4) for epoch in range(1, 4)]
    assert sorted(result.snapshots) == sorted({*(end for end in ends if end <= 20), 20})
    assert same_weights(model_from_state(CONFIG, result.snapshots[20]), result.model)
    earlier = model_from_state(CONFIG, result.snapshots[ends[0]])
    assert not same_weights(earlier, result.model)
    assert quick().snapshots == {}


def test_progress_is_told_seldom_and_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[float, str]] = []
    ticks = itertools.count(1)  # a clock that moves by 10 ms whenever it is read, which is once a step
    clock = SimpleNamespace(monotonic=lambda: next(ticks) / 100, perf_counter=time.perf_counter)
    monkeypatch.setattr("minigpt.train.time", clock)
    quick(TrainConfig(steps=400, batch_size=1), progress=lambda *said: told.append(said))
    assert told[-1][0] == 1.0
    assert [fraction for fraction, _ in told] == sorted(fraction for fraction, _ in told)
    assert 400 // 25 < len(told) < 400 // 15, "every 0.2 s"
    assert "tokens/s" in told[-1][1]
    assert told[-1][1].startswith("loss ")


# --- what it depends on -------------------------------------------------------------------------------------------


def test_weights_are_a_function_of_the_arguments_alone() -> None:
    dropout = replace(CONFIG, dropout=0.2)
    first = quick(config=dropout)
    torch.manual_seed(99)
    torch.rand(7)
    second = quick(config=dropout, progress=lambda *_: torch.rand(3))
    assert same_weights(first.model, second.model)
    assert first.evaluations["validation_loss"] == second.evaluations["validation_loss"]
    assert not same_weights(first.model, quick(config=dropout, seed=1).model)


def test_evaluations_and_snapshots_do_not_touch_the_weights() -> None:
    dropout = replace(CONFIG, dropout=0.2)
    often = quick(replace(TC, eval_every=1, snapshots="epoch"), dropout)
    assert same_weights(often.model, quick(replace(TC, eval_every=100), dropout).model)


def test_global_state_is_put_back() -> None:
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    seen: list[int] = []
    quick(replace(TC, steps=2, threads=2), progress=lambda *_: seen.append(torch.get_num_threads()))
    assert seen
    assert set(seen) == {2}
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.are_deterministic_algorithms_enabled()


def test_bf16_trains_and_keeps_its_weights_in_fp32() -> None:
    result = quick(replace(TC, precision="bf16"))
    assert {w.dtype for w in result.model.parameters()} == {torch.float32}
    assert result.evaluations["validation_loss"][-1] < result.evaluations["validation_loss"][0]
    assert not same_weights(result.model, quick().model)


def test_the_teacher_is_left_alone_and_without_dropout() -> None:
    torch.manual_seed(1)
    teacher = GPT(replace(CONFIG, dropout=0.5)).train()
    before = model_state(teacher)
    results = [quick(replace(TC, objective="distill"), teacher=teacher) for _ in range(2)]
    assert same_weights(results[0].model, results[1].model)
    assert all(torch.equal(before[name], weight) for name, weight in teacher.named_parameters())


# --- what it survives ---------------------------------------------------------------------------------------------


class Stopped(Exception):
    """Raised in the place of a step."""


def stop_before(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every training stop when it has done so many steps."""
    advance = _Training.advance

    def advance_or_stop(self: _Training) -> None:
        if self.step == step:
            raise Stopped
        advance(self)

    monkeypatch.setattr(_Training, "advance", advance_or_stop)


def same_results(a: TrainResult, b: TrainResult) -> bool:
    """Equal in all but the time they took, bit for bit."""
    curves = all(a.history[n] == b.history[n] for n in a.history if n != "seconds")
    curves &= all(a.finished[n] == b.finished[n] for n in a.finished if n != "seconds")
    curves &= all(a.evaluations[n] == b.evaluations[n] for n in a.evaluations if n != "seconds")
    snapshots = a.snapshots.keys() == b.snapshots.keys() and all(
        torch.equal(a.snapshots[step][name], weight)
        for step in b.snapshots
        for name, weight in b.snapshots[step].items()
    )
    return curves and snapshots and same_weights(a.model, b.model)


@pytest.mark.parametrize(
    "variant", [pytest.param(v, marks=pytest.mark.slow) if v == "compiled" else v for v in VARIANTS if v != "long"]
)
def test_stopped_at_any_step_it_ends_with_the_same_bits(variant: str, tmp_path: Path) -> None:
    expected = run(None, variant)
    steps = (1, 24, 25, 26, 59) if variant != "compiled" else (26,)  # around an evaluation, the first, before the last
    for step in steps:
        with pytest.MonkeyPatch.context() as patch:
            stop_before(step, patch)
            with pytest.raises(Stopped):
                run(tmp_path, variant)
    assert same_results(run(tmp_path, variant), expected)
    assert len(list(tmp_path.glob("step-*.json"))) == 2


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    """SIGKILL at moments that nobody chose, some of them in the middle of writing a checkpoint."""
    reached = []
    for delay in (0.05, 0.3):
        command = [sys.executable, "-m", "tests.minigpt.killed_training", str(tmp_path), "long"]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        assert process.stdout.readline()  # it has begun to train
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        reached.append(max(int(path.stem.removeprefix("step-")) for path in tmp_path.glob("step-*.json")))
    assert 0 < reached[0] < reached[1] < 400
    assert same_results(run(tmp_path, "long"), run(None, "long"))


def test_an_exception_of_progress_stops_the_training_after_a_checkpoint(tmp_path: Path) -> None:
    def enough(fraction: float, _: str) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        quick(checkpoint_dir=tmp_path, progress=enough)  # told after the first step
    assert [path.stem for path in tmp_path.glob("*.json")] == ["step-000000001"]
    assert same_results(quick(checkpoint_dir=tmp_path), quick())


def interrupted(directory: Path, **options: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_before(15, patch)
        with pytest.raises(Stopped):
            quick(checkpoint_dir=directory, checkpoint_seconds=0.0, **options)


DAMAGES = {
    "truncated tensors": lambda path: path.with_suffix(".safetensors").write_bytes(b"\0" * 100),
    "flipped bit": lambda path: flip(path.with_suffix(".safetensors")),
    "no tensors": lambda path: path.with_suffix(".safetensors").unlink(),
    "truncated record": lambda path: path.write_text(path.read_text()[:-20]),
    "another record": lambda path: path.write_text("[]"),
}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_ignored_and_the_one_before_is_used(damage: str, tmp_path: Path) -> None:
    interrupted(tmp_path)
    _, second = sorted(tmp_path.glob("step-*.json"))
    DAMAGES[damage](second)
    steps: list[float] = []
    with pytest.warns(UserWarning, match="is damaged and is ignored"):
        result = quick(checkpoint_dir=tmp_path, progress=lambda fraction, _: steps.append(fraction * 20))
    assert min(steps) == 15  # the first step after checkpoint 14
    assert same_results(result, quick())


def test_where_all_are_damaged_it_starts_again(tmp_path: Path) -> None:
    interrupted(tmp_path)
    for path in tmp_path.glob("step-*.json"):
        DAMAGES["flipped bit"](path)
    with pytest.warns(UserWarning, match="damaged"):
        assert same_results(quick(checkpoint_dir=tmp_path), quick())


def test_a_damaged_snapshot_makes_it_start_again(tmp_path: Path) -> None:
    tc = replace(TC, snapshots="epoch")
    with pytest.MonkeyPatch.context() as patch:
        stop_before(15, patch)
        with pytest.raises(Stopped):
            quick(tc, checkpoint_dir=tmp_path, checkpoint_seconds=0.0)
    flip(min(tmp_path.glob("snapshot-*.safetensors")))
    with pytest.warns(UserWarning, match="damaged"):
        assert same_results(quick(tc, checkpoint_dir=tmp_path), quick(tc))


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"tc": replace(TC, learning_rate=1e-3)},
        {"config": replace(CONFIG, dropout=0.1)},
        {"train_tokens": TOKENS[:399]},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_checkpoint_of_another_training_is_ignored(other: dict[str, object], tmp_path: Path) -> None:
    interrupted(tmp_path)
    arguments: dict[str, object] = {"config": CONFIG, "tc": TC, "seed": 0, "train_tokens": TOKENS[:400]}
    arguments |= {"validation_tokens": TOKENS[400:], **other}
    with pytest.warns(UserWarning, match="belongs to another training"):
        result = train(checkpoint_dir=tmp_path, **arguments)  # type: ignore[arg-type]
    assert same_results(result, train(**arguments))  # type: ignore[arg-type]


def test_checkpoints_cannot_run_code(tmp_path: Path) -> None:
    interrupted(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


# --- what it refuses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"threads": 0},
        {"learning_rate": -1.0},
        {"learning_rate": math.nan},
        {"weight_decay": math.inf},
        {"grad_clip": -0.1},
        {"beta1": 1.0},
        {"beta2": -0.1},
        {"min_learning_rate_ratio": 1.5},
        {"warmup_steps": -1},
        {"eval_every": 0},
        {"objective": "casual"},
        {"precision": "fp8"},
        {"snapshots": "always"},
        {"schedule": "linear"},
        {"schedule": "trapezoid", "warmdown": 0.0},
        {"schedule": "trapezoid", "budgets": (1.0,)},
        {"schedule": "trapezoid", "budgets": [0.5]},
        {"budgets": None},
        {"budgets": []},
    ],
    ids=str,
)
def test_a_configuration_out_of_range_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"got|no objective|no schedule|unknown"):
        TrainConfig(**({"steps": 1} | bad))  # type: ignore[arg-type]


def test_a_cosine_ends_once() -> None:
    with pytest.raises(ValueError, match="need schedule='trapezoid'"):
        TrainConfig(steps=10, budgets=(0.5,))


def test_a_configuration_is_hashable() -> None:
    assert hash(replace(TC, objective_args=(("tau", 2.0),))) != hash(TC)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train_tokens": TOKENS[:16]}, "fewer than one window of 17"),
        ({"train_tokens": TOKENS[:400].view(2, 200)}, "one row"),
        ({"validation_tokens": TOKENS[:1]}, "at least 2"),
        ({"train_tokens": TOKENS + 10}, "outside the vocabulary of 29"),
        ({"validation_tokens": TOKENS - 1}, "outside the vocabulary"),
        ({"tc": replace(TC, objective="distill")}, "needs a teacher"),
        ({"teacher": GPT(replace(CONFIG, vocab_size=30))}, "differ in vocabulary"),
    ],
)
def test_what_cannot_be_trained_is_refused(arguments: dict[str, object], message: str) -> None:
    good: dict[str, object] = {
        "config": CONFIG,
        "tc": TC,
        "train_tokens": TOKENS,
        "validation_tokens": TOKENS,
        "seed": 0,
    }
    with pytest.raises(ValueError, match=message):
        train(**(good | arguments))  # type: ignore[arg-type]


def test_a_loss_that_is_no_number_ends_the_training() -> None:
    with pytest.raises(FloatingPointError, match="at step"):
        quick(replace(TC, learning_rate=1e30, warmup_steps=0, grad_clip=0.0))
