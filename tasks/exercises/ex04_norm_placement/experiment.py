"""Measures 21.4: gradients of untrained models, and trained ones with one block left out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.analysis import depth
from minigpt.config import GPTConfig, Norm
from minigpt.evaluation.entropy import unigram_loss
from minigpt.model import GPT, Block
from tasks.exercise import Context, Exercise, TrainedModel
from tasks.exercises.ex04_norm_placement.findings import (
    INITS,
    PLACEMENTS,
    WIDTH,
    Findings,
    Run,
    Start,
    Step,
    Trained,
    better,
)
from tasks.recipes.catalogue import DEEP_POST, DEEP_POST_COLD, DEEP_PRE, DEEP_PRE_COLD
from tasks.study import variants

BATCH = 8
TRAINED = {
    ("pre", "warm-up"): DEEP_PRE,
    ("pre", "none"): DEEP_PRE_COLD,
    ("post", "warm-up"): DEEP_POST,
    ("post", "none"): DEEP_POST_COLD,
}
LABELLED = {f"{norm}-norm {'with' if w == 'warm-up' else 'without'} warm-up": r for (norm, w), r in TRAINED.items()}


def measure(context: Context) -> Findings:
    """Everything the answer rests on."""
    start = measure_start(context)
    context.progress(0.5, "timing the steps of the trained models")
    rows = variants(context, LABELLED)
    models = {
        recipe.name: [context.model(recipe, seed) for seed in context.seeds(recipe)] for recipe in TRAINED.values()
    }
    runs = tuple(
        Run(
            norm=norm,
            warmup=warmup,
            variant=row,
            trained_steps=tuple(models[row.recipe][0].history["step"]),
            trained_losses=tuple(tuple(m.history["train_loss"]) for m in models[row.recipe]),
        )
        for (norm, warmup), row in zip(TRAINED, rows, strict=True)
    )
    context.progress(0.7, "leaving out blocks")
    tokens = context.tokens(DEEP_PRE)[: context.numbers["tokens"]]
    first = context.model(DEEP_PRE)
    schedule = first.recipe.train
    return Findings(
        start=start,
        slopes={init: {norm: slope(start, init, norm) for norm in PLACEMENTS} for init in INITS},
        runs=runs,
        trained={norm: removal(models[better(runs, norm).recipe], tokens) for norm in PLACEMENTS},
        layers=first.recipe.model.n_layer,
        width=first.recipe.model.d_model,
        steps=schedule.steps,
        warmup_steps=schedule.steps // 10 if schedule.warmup_steps is None else schedule.warmup_steps,
        unigram=unigram_loss(
            context.tokens(DEEP_PRE, "train"), context.tokens(DEEP_PRE), first.model.config.vocab_size
        ),
        block_differences={norm: block_difference(norm) for norm in PLACEMENTS},
    )


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
    config = context.model(DEEP_PRE).model.config
    tokens = context.tokens(DEEP_PRE, "train").cpu()[: BATCH * (config.context + 1)].view(BATCH, -1)
    depths, seeds = context.numbers["depths"], context.numbers["seeds"]
    found: list[Start] = []
    for i, layers in enumerate(depths):
        context.progress(i / len(depths), f"gradients of {layers} layers")
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
                    settings["Xavier"].add(depth.xavier(model), tokens)
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


def removal(models: list[TrainedModel], tokens: Tensor) -> Trained:
    """All seeds, with one block left out at a time; and what each block does to held-out text."""
    T = models[0].model.config.context
    windows = tokens[: len(tokens) // T * T].view(-1, T)[:BATCH]
    return Trained(
        costs=tuple(tuple(depth.cost_of_removal(m.model, tokens)) for m in models),
        steps=tuple(steps(m.model, windows) for m in models),
    )


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
    recipes=tuple(TRAINED.values()),
    numbers={
        "smoke": {"depths": (2, 4, 8), "seeds": 2, "tokens": 512},
        "laptop": {"depths": (4, 8, 16, 32), "seeds": 3, "tokens": 8_192},
        "gpu": {"depths": (4, 8, 16, 32, 64), "seeds": 5, "tokens": 65_536},
    },
    timed=True,
    seconds={"smoke": 4, "laptop": 15, "gpu": 60},
)
