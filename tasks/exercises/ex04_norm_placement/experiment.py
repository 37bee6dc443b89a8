"""Measures 21.4: gradients of untrained models, and trained ones with one block left out."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.analysis import depth
from minigpt.config import GPTConfig, Init, Norm
from minigpt.evaluation.curves import smoothed
from minigpt.evaluation.evaluate import evaluate
from minigpt.model import GPT, Block, xavier
from minigpt.train import TrainResult, train
from minigpt.train_config import TrainConfig
from tasks.exercise import Context, Exercise
from tasks.exercises.ex04_norm_placement.findings import (
    INITS,
    PLACEMENTS,
    SWEEP,
    WIDTH,
    Findings,
    Run,
    Setting,
    Start,
    Step,
    Trained,
    best_rate,
)
from tasks.recipes.catalogue import STUDY_ROPE

BATCH = 8
CONFIGURED: dict[str, Init] = {"GPT-2": "gpt2", "Xavier": "xavier"}
SETTINGS = tuple(Setting(norm, init, warmup) for init in INITS for norm in PLACEMENTS for warmup in (True, False))


def measure(context: Context) -> Findings:
    """Everything the answer rests on."""
    start = measure_start(context)
    trainings = Trainings(context)
    runs = trainings.all()
    chosen = {norm: trainings.best_setting(runs, norm) for norm in PLACEMENTS}
    return Findings(
        start=start,
        slopes={init: {norm: slope(start, init, norm) for norm in PLACEMENTS} for init in INITS},
        runs=runs,
        trained={norm: trainings.removal(runs, setting) for norm, setting in chosen.items()},
        chosen=chosen,
        baselines=context.model(STUDY_ROPE).baselines,
        layers=context.numbers["layers"],
        width=context.numbers["width"],
        steps=context.numbers["steps"],
        warmup_steps=context.numbers["warmup_steps"],
        block_differences={norm: block_difference(norm) for norm in PLACEMENTS},
    )


class Trainings:
    """The deep models: every setting at every rate with one seed, then fresh seeds at each setting's best rate.

    They are trained here and not as recipes, because the sweep decides at which rate the others are. What chooses a
    rate is no evidence for it: the losses that are compared are those of the fresh seeds.
    """

    def __init__(self, context: Context) -> None:
        self.context, self.numbers = context, context.numbers
        self.tokens = {"train": context.tokens(STUDY_ROPE, "train"), "validation": context.tokens(STUDY_ROPE)}
        self.vocab_size = context.model(STUDY_ROPE).model.config.vocab_size
        count = len(SETTINGS) * (len(self.numbers["rates"]) + len(self.numbers["fresh_seeds"]))
        self.parts = iter(range(1, count + 1))
        self.count = count
        self.models: dict[tuple[Setting, int], GPT] = {}  # of the fresh seeds, as long as this process lives

    def all(self) -> tuple[Run, ...]:
        """The sweep, and the fresh trainings."""
        sweep = [self.run(setting, rate, SWEEP) for setting in SETTINGS for rate in self.numbers["rates"]]
        fresh = [
            self.run(setting, best_rate(sweep, setting), seed)
            for setting in SETTINGS
            for seed in self.numbers["fresh_seeds"]
        ]
        return (*sweep, *fresh)

    def run(self, setting: Setting, rate: float, seed: int) -> Run:
        """One training as plain data; found again if this exercise was killed after it."""
        name = f"{setting.label}, rate {rate:g}, seed {seed}"
        found = self.context.once(name, lambda: self._trained(setting, rate, seed))
        self.context.progress(0.2 + 0.75 * next(self.parts) / self.count, name)
        return Run(setting, rate, seed, found["loss"], tuple(found["steps"]), tuple(found["losses"]))

    def removal(self, runs: Sequence[Run], setting: Setting) -> Trained:
        """Blocks of a setting's fresh models, left out one at a time; and what each does to held-out text."""
        fresh = [run for run in runs if run.setting == setting and run.seed != SWEEP]
        parts = [
            self.context.once(f"blocks of {setting.label}, seed {run.seed}", functools.partial(self._blocks, run))
            for run in fresh
        ]
        return Trained(
            costs=tuple(tuple(part["costs"]) for part in parts),
            steps=tuple(tuple(Step(**step) for step in part["steps"]) for part in parts),
        )

    def best_setting(self, runs: Sequence[Run], norm: Norm) -> Setting:
        """Of a placement, by the sweep."""
        sweep = [run for run in runs if run.setting.norm == norm and run.seed == SWEEP]
        return min(sweep, key=lambda run: run.loss).setting

    def _train(self, setting: Setting, rate: float, seed: int) -> TrainResult:
        """Evaluated in passing on a piece of the validation text only: the whole is read once, at the end."""
        n = self.numbers
        config = GPTConfig(
            n_layer=n["layers"],
            n_head=min(4, n["width"] // 16),  # narrower heads than those of the studies take as long each
            d_model=n["width"],
            context=n["context"],
            vocab_size=self.vocab_size,
            position="rope",
            norm=setting.norm,
            init=CONFIGURED[setting.init],
        )
        tc = TrainConfig(
            steps=n["steps"],
            batch_size=n["batch_size"],
            learning_rate=rate,
            warmup_steps=n["warmup_steps"] if setting.warmup else 0,
            schedule="trapezoid",
            grad_clip=0.0,  # it would protect those who start too fast
            eval_every=n["steps"],
        )
        piece = self.tokens["validation"][: n["context"] + 1]
        result = train(config, tc, self.tokens["train"], piece, seed=seed, device=self.context.device)
        if seed != SWEEP:
            self.models[setting, seed] = result.model
        return result

    def _trained(self, setting: Setting, rate: float, seed: int) -> dict[str, Any]:
        result = self._train(setting, rate, seed)
        steps, losses = smoothed(result.history["step"], result.history["train_loss"], 40)
        loss = evaluate(result.model, self.tokens["validation"]).nats_per_token
        return {"loss": loss, "steps": steps, "losses": losses}

    def _blocks(self, run: Run) -> dict[str, Any]:
        if (run.setting, run.seed) not in self.models:  # killed after its training: the same bits again
            self._train(run.setting, run.rate, run.seed)
        model, T = self.models[run.setting, run.seed], self.numbers["context"]
        tokens = self.tokens["validation"][: self.numbers["tokens"]]
        windows = tokens[: len(tokens) // T * T].view(-1, T)[:BATCH]
        return {"costs": depth.cost_of_removal(model, tokens), "steps": list(steps(model, windows))}


@dataclass
class Collected:
    """Measurements of one setting, seed by seed."""

    blocks: list[tuple[float, ...]] = field(default_factory=list)
    matrices: list[tuple[float, ...]] = field(default_factory=list)
    steps: list[tuple[Step, ...]] = field(default_factory=list)
    survives: list[float] = field(default_factory=list)
    logits: list[tuple[float, float]] = field(default_factory=list)

    def add(self, model: GPT, batch: Tensor) -> None:
        """Measure one model."""
        blocks, matrices = depth.gradient_norms(model, batch)
        tokens = batch[:, :-1]
        with torch.no_grad():
            last = depth.residual_stream(model, tokens)[-1]
            spread = tuple(model.unembedding(h).std().item() for h in (model.final_norm(last), last))
        self.blocks.append(tuple(blocks))
        self.matrices.append(tuple(matrices))
        self.steps.append(steps(model, tokens))
        self.survives.append(depth.surviving_share(model, tokens))
        self.logits.append((spread[0], spread[1]))


def steps(model: GPT, tokens: Tensor) -> tuple[Step, ...]:
    """The change that each block makes, as plain data."""
    return tuple(Step(step.size, step.change, step.cosine) for step in depth.steps(model, tokens))


def measure_start(context: Context) -> tuple[Start, ...]:
    """All depths, placements, initialisations and seeds, on one batch of the corpus."""
    config = context.model(STUDY_ROPE).model.config
    tokens = context.tokens(STUDY_ROPE, "train").cpu()[: BATCH * (config.context + 1)].view(BATCH, -1)
    depths, seeds = context.numbers["depths"], context.numbers["seeds"]
    found: list[Start] = []
    for i, layers in enumerate(depths):
        context.progress(0.2 * i / len(depths), f"gradients of {layers} layers")
        for norm in PLACEMENTS:
            shape = GPTConfig(
                n_layer=layers,
                n_head=4,
                d_model=WIDTH,
                context=config.context,
                vocab_size=config.vocab_size,
                norm=norm,
            )
            settings = {"GPT-2": Collected(), "Xavier": Collected()}
            for seed in range(seeds):
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed)
                    model = GPT(shape)
                    settings["GPT-2"].add(model, tokens)
                    settings["Xavier"].add(xavier(model), tokens)
            found += [
                Start(
                    init=init,
                    norm=norm,
                    layers=layers,
                    blocks=tuple(seen.blocks),
                    matrices=tuple(seen.matrices),
                    steps=tuple(seen.steps),
                    survives=tuple(seen.survives),
                    logits=tuple(seen.logits),
                )
                for init, seen in settings.items()
            ]
    return tuple(found)


def slope(start: Sequence[Start], init: str, norm: str) -> float:
    """Exponent with which the gradient of the last block's last matrix goes with depth (least squares, log-log)."""
    points = [
        (math.log(found.layers), math.log(norms[-1]))
        for found in start
        if (found.init, found.norm) == (init, norm)
        for norms in found.matrices
    ]
    x, y = torch.tensor(points, dtype=torch.float64).T
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


def torch_block(config: GPTConfig, block: Block) -> nn.TransformerEncoderLayer:
    """torch's own layer with the weights of ours."""
    theirs = nn.TransformerEncoderLayer(
        config.d_model,
        config.n_head,
        config.ff_dim,
        dropout=0.0,
        activation=lambda x: F.gelu(x, approximate="tanh"),
        batch_first=True,
        norm_first=config.norm == "pre",
    )
    pairs = (
        (theirs.self_attn.out_proj, block.attn.proj),
        (theirs.linear1, block.mlp.up),
        (theirs.linear2, block.mlp.down),
        (theirs.norm1, block.norm1),
        (theirs.norm2, block.norm2),
    )
    for target, source in pairs:
        target.load_state_dict(source.state_dict())
    theirs.self_attn.in_proj_weight.data.copy_(block.attn.qkv.weight)
    theirs.self_attn.in_proj_bias.data.copy_(block.attn.qkv.bias)
    return theirs.train()  # in evaluation mode torch takes a fused path that ignores the activation given


@torch.no_grad()
def block_difference(norm: Norm) -> float:
    """Largest difference between our block and torch's on random input under a causal mask."""
    config = GPTConfig(n_layer=1, n_head=4, d_model=32, context=12, vocab_size=2, norm=norm)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = Block(config)
        for p in block.parameters():
            nn.init.normal_(p, std=0.3)
        x = torch.randn(2, 12, 32)
        theirs = torch_block(config, block)
    hidden = ~torch.ones(12, 12, dtype=torch.bool).tril()  # torch masks where True
    return float((block(x) - theirs(x, src_mask=hidden)).abs().max())


EXERCISE = Exercise(
    measure=measure,
    recipes=(STUDY_ROPE,),
    numbers={
        "smoke": {
            "depths": (2, 4, 8),
            "seeds": 2,
            "tokens": 512,
            "layers": 4,
            "width": 16,
            "context": 16,
            "rates": (3e-3, 1e-2),
            "fresh_seeds": (1,),
            "steps": 6,
            "warmup_steps": 2,
            "batch_size": 4,
        },
        "laptop": {
            "depths": (4, 8, 16, 32),
            "seeds": 3,
            "tokens": 8_192,
            "layers": 12,
            "width": 32,
            "context": 64,
            "rates": (3e-3, 1e-2),  # 1e-3 was tried, too, and best nowhere; the steps are better spent
            "fresh_seeds": (1, 2),
            "steps": 160,
            "warmup_steps": 32,
            "batch_size": 8,
        },
        "gpu": {
            "depths": (4, 8, 16, 32, 64),
            "seeds": 5,
            "tokens": 65_536,
            "layers": 16,
            "width": 128,
            "context": 64,
            "rates": (3e-4, 1e-3, 3e-3),
            "fresh_seeds": (1, 2, 3),
            "steps": 240,
            "warmup_steps": 48,
            "batch_size": 64,
        },
    },
    seconds={"smoke": 6, "laptop": 330, "gpu": 540},
)
