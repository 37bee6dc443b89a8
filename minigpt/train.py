"""One recipe, one model: AdamW or Muon, a learning rate that ends low, gradient clipping, checkpoints.

The weights are a function of (configuration, training configuration, tokens, seed, device type, library version, and
the model to go on from, if there is one) and of nothing else: batches, dropout and the draws of an objective are
derived from (seed, step), so a training that was killed goes on from its last checkpoint and ends with the same bits.

A loss read in the middle of a schedule is that of a training which nobody would have ended there. A trapezoid gives
finished ones on its way: where a shorter training's rate would begin to fall, a copy does so, is evaluated and
forgotten, and the training goes on from where it was. The copy's weights are, bit for bit, those that a training of
so many steps (and the same warm-up) would have.
(On a GPU a given model may have operations that are not reproducible; PyTorch then says so in a warning.)
A batch that does not fit into memory is read in parts, whose gradients are added (``minigpt.accumulation``). That
changes the rounding, and so the bits; an objective that scores a random share of the tokens takes means over parts.
"""

import dataclasses
import hashlib
import itertools
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.accumulation import Accumulation
from minigpt.checkpoint import Checkpoints
from minigpt.checks import number, whole
from minigpt.config import GPTConfig
from minigpt.data import Windows, derive_seed
from minigpt.evaluation.evaluate import evaluate
from minigpt.files import load_state, model_state
from minigpt.model import GPT
from minigpt.objectives import OBJECTIVES
from minigpt.optimizers import make_optimizer
from minigpt.precision import computed_in
from minigpt.train_config import Shape as Shape
from minigpt.train_config import TrainConfig as TrainConfig

Curves = dict[str, list[float]]
Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class TrainResult:
    """A trained model, in evaluation mode, and how it came about.

    ``history`` has the columns step, tokens, train_loss (mean since the row before), learning_rate, gradient_norm
    (before clipping), seconds; ``evaluations`` has step, tokens, validation_loss, seconds. ``finished`` has the same
    columns with a row for each training that came to its end: those branched off, and this one. Losses are in nats
    per token, the validation loss is next-token loss under the causal mask whatever the objective. Seconds are of
    training alone: neither evaluation nor checkpoints count, compilation does. Branches count in ``finished`` alone,
    each as if it had been the only one.
    """

    model: Any  # a GPT, unless another model was given to go on from
    history: Curves
    evaluations: Curves
    finished: Curves
    snapshots: dict[int, dict[str, Tensor]]  # by step: the weights after each pass over the tokens, if asked for
    seconds: float
    tokens_per_second: float  # median over the rows of the history
    at_once: int  # sequences of a batch that were read at once at the end: fewer than all where memory ran out


def train(
    config: GPTConfig | Shape,
    tc: TrainConfig,
    train_tokens: Tensor,
    validation_tokens: Tensor,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    teacher: GPT | None = None,
    start: nn.Module | None = None,
    checkpoint_dir: Path | None = None,
    checkpoint_seconds: float | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Train a model from scratch, or go on from the checkpoint of the same training in ``checkpoint_dir``.

    ``start`` is a model to train further, of whatever architecture: tokens (B, T) → logits (B, T, V) of the vocabulary
    and context that ``config`` states. It is changed in place.

    At least ``checkpoint_seconds`` lie between two checkpoints. None: a second or 30 times what the last one took to
    write, whichever is longer, so that little is lost with a killed process and little time goes into writing.

    ``progress(fraction, note)`` is called a few times a second. It may raise to stop the training, which is then
    saved first. The directory is left as it is at the end: the caller removes it once the result is safe.

    Raises:
        ValueError: too few tokens, token ids outside the vocabulary, numbers that do not fit the model, or an objective
            without its teacher.
        FloatingPointError: the loss is not a number any more.
        MemoryError: not even one sequence of a batch fits into memory.
    """
    if checkpoint_seconds is not None:
        number("checkpoint_seconds", checkpoint_seconds, lambda x: x >= 0, "a finite number from 0 up")
    # Up to PyTorch 2.13 at least, attention takes its reproducible backward pass only where nothing else is allowed, so
    # a model of ours is trained strictly. A model from elsewhere may have operations that have none.
    with _settings(torch.device(device), tc.threads, strict=start is None):
        run = _Training(config, tc, train_tokens, validation_tokens, seed, torch.device(device), teacher, start)
        checkpoints = Checkpoints(checkpoint_dir, run.identity()) if checkpoint_dir else None
        if checkpoints is None or not run.restore(checkpoints):
            run.evaluate()
        saved, told = time.monotonic(), 0.0
        wait = 1.0 if checkpoint_seconds is None else checkpoint_seconds

        def tell(step: int) -> None:
            nonlocal told
            if progress and (time.monotonic() - told >= 0.2 or step == tc.steps):
                try:
                    progress(step / tc.steps, run.note())
                except BaseException:
                    run.back_to_trunk()
                    if checkpoints:
                        run.save(checkpoints)
                    raise
                told = time.monotonic()

        while run.step < tc.steps:
            for budget in run.branches_due():
                run.finish(budget, tell)
            run.advance()
            if run.snapshot_due():
                run.snapshots[run.step] = model_state(run.model)
                if checkpoints:
                    checkpoints.save_snapshot(run.step, run.snapshots[run.step])
            if checkpoints and (begun := time.monotonic()) - saved >= wait:
                run.save(checkpoints)
                saved = time.monotonic()
                wait = max(1.0, 30 * (saved - begun)) if checkpoint_seconds is None else checkpoint_seconds
            tell(run.step)
        return run.result()


class _Training:
    """Everything that changes while a model is trained."""

    def __init__(
        self,
        config: GPTConfig | Shape,
        tc: TrainConfig,
        train_tokens: Tensor,
        validation_tokens: Tensor,
        seed: int,
        device: torch.device,
        teacher: GPT | None,
        start: nn.Module | None,
    ) -> None:
        whole("seed", seed, -(2**63), 2**63 - 1)
        _check(config, tc, train_tokens, validation_tokens, teacher)
        self.config, self.tc, self.seed, self.device = config, tc, seed, device
        torch.manual_seed(seed)
        self.model: Any = (start or _new(config)).to(device).train()
        self.began = {name: _digest(weight) for name, weight in start.named_parameters()} if start else {}
        self.teacher = teacher.to(device).eval().requires_grad_(False) if teacher else None
        self.optimizer = make_optimizer(self.model, tc)
        self.windows = Windows(train_tokens.to(device), config.context, seed)
        self.validation = validation_tokens.to(device)
        objective = OBJECTIVES[tc.objective]
        self.objective = torch.compile(objective) if tc.compile else objective
        self.generator = torch.Generator()
        self.log_every = max(1, tc.steps // 200)
        self.eval_every = tc.eval_every or max(1, -(-tc.steps // 8))
        self.accumulation = Accumulation(list(self.model.parameters()), tc.batch_size)
        self.step, self.seconds = 0, 0.0
        self.loss_sum, self.loss_count, self.last_loss = torch.zeros((), device=device), 0, math.nan
        self.history: Curves = {
            name: [] for name in ("step", "tokens", "train_loss", "learning_rate", "gradient_norm", "seconds")
        }
        self.evaluations: Curves = {name: [] for name in ("step", "tokens", "validation_loss", "seconds")}
        self.finished: Curves = {name: [] for name in self.evaluations}
        self.trunk: Callable[[], None] | None = None  # leads back to it, on a branch
        self.snapshots: dict[int, dict[str, Tensor]] = {}

    def advance(self) -> None:
        """One update of the weights, and what is due after it."""
        started = time.perf_counter()
        rate = self.tc.learning_rate_at(self.step)
        loss, norm = self._update(rate)
        self.loss_sum += loss
        self.loss_count += 1
        logged = self.step % self.log_every == 0 or self.step == self.tc.steps
        if logged:  # the only wait for the device
            self.last_loss, gradient_norm = (self.loss_sum / self.loss_count).item(), norm.item()
            self.loss_sum.zero_()
            self.loss_count = 0
        self.seconds += time.perf_counter() - started
        if logged:
            if not math.isfinite(self.last_loss):
                raise FloatingPointError(f"the training loss is {self.last_loss} at step {self.step}")
            row = (self.step, self.tokens, self.last_loss, rate, gradient_norm, self.seconds)
            for column, value in zip(self.history.values(), row, strict=True):
                column.append(value)
        if self.step % self.eval_every == 0 or self.step == self.tc.steps:
            self.evaluate()
        if self.step == self.tc.steps:
            for name, column in self.finished.items():
                column.append(self.evaluations[name][-1])

    def branches_due(self) -> list[int]:
        """Budgets whose warm-down begins with the next step, and which have not been finished yet."""
        budgets = [steps for steps in self.tc.early_budgets if steps not in self.finished["step"]]
        return [steps for steps in budgets if steps - self.tc.warmdown_steps(steps) == self.step]

    def finish(self, budget: int, tell: Callable[[int], None]) -> None:
        """Warm down to a training of ``budget`` steps, evaluate it, and return to where this one was."""
        self._leave_trunk()
        start, seconds = self.step, self.seconds
        while self.step < budget:
            started = time.perf_counter()
            self._update(self.tc.learning_rate_at(self.step, budget))
            seconds += time.perf_counter() - started
            tell(start)
        loss = evaluate(self.model, self.validation).nats_per_token
        if not math.isfinite(loss):
            raise FloatingPointError(f"the validation loss is {loss} after {budget} steps")
        for column, value in zip(self.finished.values(), (budget, self.tokens, loss, seconds), strict=True):
            column.append(value)
        self.back_to_trunk()

    def _leave_trunk(self) -> None:
        weights = {weight: weight.detach().clone() for weight in self.model.parameters()}
        state = {
            weight: {key: value.clone() for key, value in self.optimizer.state[weight].items()} for weight in weights
        }
        step = self.step

        def back() -> None:
            for weight, before in weights.items():
                weight.detach().copy_(before)
                self.optimizer.state[weight] = state[weight]
            self.step, self.trunk = step, None

        self.trunk = back

    def back_to_trunk(self) -> None:
        """Leave the branch, if this is one."""
        if self.trunk:
            self.trunk()

    def _update(self, rate: float) -> tuple[Tensor, Tensor]:
        """One step of the optimiser; the loss and the norm of its gradient."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("ratio", 1.0)
        batch = self.windows.batch(self.step, self.tc.batch_size)
        loss = self.accumulation.add_gradient(self._loss, batch, self._seed_draws)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.tc.grad_clip or math.inf)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return loss, norm

    def _seed_draws(self) -> None:
        if self.config.dropout:
            torch.manual_seed(derive_seed(self.seed, "dropout", self.step))
        self.generator.manual_seed(derive_seed(self.seed, "objective", self.step))

    def _loss(self, batch: Tensor) -> Tensor:
        with computed_in(self.tc.precision, self.device):
            loss: Tensor = self.objective(
                self.model, batch, teacher=self.teacher, generator=self.generator, args=dict(self.tc.objective_args)
            )
        return loss

    @property
    def tokens(self) -> int:
        """Targets seen so far."""
        return self.step * self.tc.batch_size * self.config.context

    def evaluate(self) -> None:
        """Add a row to the evaluations."""
        loss = evaluate(self.model, self.validation).nats_per_token
        for column, value in zip(self.evaluations.values(), (self.step, self.tokens, loss, self.seconds), strict=True):
            column.append(value)

    def snapshot_due(self) -> bool:
        """Whether a pass over the training tokens ended with this step, or the training did."""
        if self.tc.snapshots == "none":
            return False
        per_epoch, size = self.windows.per_epoch, self.tc.batch_size
        passed = self.step * size // per_epoch > (self.step - 1) * size // per_epoch
        return passed or self.step == self.tc.steps

    def note(self) -> str:
        """Loss and speed in a few words."""
        rate = self.tokens / self.seconds if self.seconds else 0.0
        return f"loss {self.last_loss:.2f}, {rate / 1000:.1f}k tokens/s{self.accumulation.note}"

    def identity(self) -> dict[str, Any]:
        """What the final weights depend on."""
        teacher = model_state(self.teacher) if self.teacher else {}
        return {
            "config": dataclasses.asdict(self.config),
            "train": dataclasses.asdict(self.tc),
            "seed": self.seed,
            "device": self.device.type,
            "torch": torch.__version__,
            "tokens": [_digest(self.windows.tokens), _digest(self.validation)],
            "teacher": {name: _digest(weight) for name, weight in teacher.items()},
            **({"start": self.began} if self.began else {}),
        }

    def save(self, checkpoints: Checkpoints) -> None:
        """Write all that ``restore`` reads."""
        tensors = {f"model.{name}": weight for name, weight in model_state(self.model).items()}
        for name, weight in self.model.named_parameters():
            state = self.optimizer.state[weight]
            tensors |= {f"optimizer.{name}.{key}": value.detach().cpu() for key, value in state.items()}
        facts = {name: getattr(self, name) for name in ("seconds", "loss_count", "history", "evaluations", "finished")}
        checkpoints.save(self.step, tensors, facts | {"loss_sum": self.loss_sum.item()}, sorted(self.snapshots))

    def restore(self, checkpoints: Checkpoints) -> bool:
        """Continue from the latest sound checkpoint; False where there is none."""
        found = checkpoints.latest()
        if found is None:
            return False
        tensors, facts, self.snapshots = found
        load_state(self.model, {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
        for name, weight in self.model.named_parameters():
            prefix = f"optimizer.{name}."
            state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            self.optimizer.state[weight] = {key: value.to(self.device) for key, value in state.items()}
        self.step, self.seconds, self.loss_count = facts["step"], facts["seconds"], facts["loss_count"]
        self.history, self.evaluations, self.finished = facts["history"], facts["evaluations"], facts["finished"]
        self.loss_sum.fill_(facts["loss_sum"])
        self.last_loss = self.history["train_loss"][-1] if self.history["train_loss"] else math.nan
        return True

    def result(self) -> TrainResult:
        """The finished training."""
        ends = [(0.0, 0.0), *zip(self.history["tokens"], self.history["seconds"], strict=True)]
        rates = [(t1 - t0) / max(s1 - s0, 1e-9) for (t0, s0), (t1, s1) in itertools.pairwise(ends)]
        speed = statistics.median(rates)
        curves = (self.history, self.evaluations, self.finished)
        return TrainResult(self.model.eval(), *curves, self.snapshots, self.seconds, speed, self.accumulation.at_once)


def _new(config: GPTConfig | Shape) -> GPT:
    if isinstance(config, Shape):
        raise ValueError("a shape alone makes no model: give the one to go on from as start")
    return GPT(config)


def _check(config: GPTConfig | Shape, tc: TrainConfig, train: Tensor, validation: Tensor, teacher: GPT | None) -> None:
    for name, tokens in (("training", train), ("validation", validation)):
        if tokens.ndim != 1 or len(tokens) < 2:
            raise ValueError(f"the {name} tokens must be one row of at least 2, got {tuple(tokens.shape)}")
        if tokens.dtype != torch.int64:
            raise ValueError(f"the {name} tokens must be int64, got {tokens.dtype}")
        if outside := [end for end in map(int, tokens.aminmax()) if not 0 <= end < config.vocab_size]:
            raise ValueError(f"{name} token {outside[0]} is outside the vocabulary of {config.vocab_size}")
    args = dict(tc.objective_args)
    if tc.objective == "prefix" and args.get("prefix", 0) > config.context:
        raise ValueError(f"objective_args prefix must be from 0 to {config.context}, the context: {args['prefix']}")
    if tc.objective == "masked" and args.get("mask_token", 0) >= config.vocab_size:
        raise ValueError(f"objective_args mask_token must be from 0 to {config.vocab_size - 1}: {args['mask_token']}")
    if tc.objective == "distill" and teacher is None:
        raise ValueError("the objective 'distill' needs a teacher")
    if teacher is not None and teacher.config.vocab_size != config.vocab_size:
        raise ValueError(f"teacher and student differ in vocabulary: {teacher.config.vocab_size}, {config.vocab_size}")


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


@contextmanager
def _settings(device: torch.device, threads: int, *, strict: bool) -> Iterator[None]:
    """Threads, reproducible kernels and random state for the duration.

    Unless ``strict``, what has no reproducible kernel is done by another one, and PyTorch warns.
    """
    before, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.set_num_threads(threads)
        if device.type == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=not strict)
            # A kernel launch for each new tensor (163 per step of the large model), against programs that read what
            # they have not written.
            memory.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.set_num_threads(before)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            memory.fill_uninitialized_memory = fill
