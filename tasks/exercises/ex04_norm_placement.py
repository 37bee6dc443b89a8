"""Exercise 21.4: layer norm after or before each sub-block: gradients, training, and what depth is worth."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.analysis import depth
from minigpt.config import GPTConfig, Norm
from minigpt.evaluation.entropy import unigram_loss
from minigpt.evaluation.statistics import compare, describe, mean_std
from minigpt.model import GPT, Block
from reports.types import Answer, Check, Figure, Part, Prose, Series, Table
from reports.types import Block as Piece
from tasks.exercise import Context, Exercise
from tasks.recipes.catalogue import DEEP_POST, DEEP_POST_COLD, DEEP_PRE, DEEP_PRE_COLD
from tasks.study_legacy import Variant, metrics, table, variants

PLACEMENTS: tuple[Norm, ...] = ("pre", "post")
INITS = ("GPT-2", "Xavier")
WIDTH, BATCH = 64, 8
WARMUPS = ("warm-up", "none")
TRAINED = {
    ("pre", "warm-up"): DEEP_PRE,
    ("pre", "none"): DEEP_PRE_COLD,
    ("post", "warm-up"): DEEP_POST,
    ("post", "none"): DEEP_POST_COLD,
}
LABELLED = {f"{norm}-norm {'with' if w == 'warm-up' else 'without'} warm-up": r for (norm, w), r in TRAINED.items()}
Setting = tuple[str, str, int]  # initialisation, placement, layers
Runs = dict[tuple[str, str], Variant]


class AtStart:
    """Measurements on untrained models, one per seed."""

    def __init__(self) -> None:
        self.blocks: dict[Setting, list[list[float]]] = {}  # gradient norm of each block
        self.matrices: dict[Setting, list[list[float]]] = {}  # of each block's last matrix
        self.steps: dict[Setting, list[list[depth.Step]]] = {}
        self.survives: dict[Setting, list[float]] = {}
        self.logits: dict[Setting, list[tuple[float, float]]] = {}  # deviation with the final norm, and without

    def measure(self, setting: Setting, model: GPT, batch: Tensor) -> None:
        """Add one model."""
        blocks, matrices = depth.gradient_norms(model, batch)
        tokens = batch[:, :-1]
        with torch.no_grad():
            last = depth.residual_stream(model, tokens)[-1]
            spread = tuple(model.unembedding(h).std().item() for h in (model.final_norm(last), last))
        self.blocks.setdefault(setting, []).append(blocks)
        self.matrices.setdefault(setting, []).append(matrices)
        self.steps.setdefault(setting, []).append(depth.steps(model, tokens))
        self.survives.setdefault(setting, []).append(depth.surviving_share(model, tokens))
        self.logits.setdefault(setting, []).append((spread[0], spread[1]))

    def slope(self, init: str, norm: str) -> float:
        """Exponent with which the gradient of the last block's last matrix goes with depth (least squares, log-log)."""
        points = [
            (math.log(layers), math.log(norms[-1]))
            for (i, n, layers), seeds in self.matrices.items()
            if (i, n) == (init, norm)
            for norms in seeds
        ]
        x, y = torch.tensor(points, dtype=torch.float64).T
        return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


def measure_start(context: Context) -> AtStart:
    """All depths, placements, initialisations and seeds, on one batch of the corpus."""
    config = context.model(DEEP_PRE).model.config
    tokens = context.tokens(DEEP_PRE, "train").cpu()[: BATCH * (config.context + 1)].view(BATCH, -1)
    result, depths, seeds = AtStart(), context.numbers["depths"], context.numbers["seeds"]
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
            for seed in range(seeds):
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed)
                    model = GPT(shape)
                    result.measure(("GPT-2", norm, layers), model, tokens)
                    result.measure(("Xavier", norm, layers), depth.xavier(model), tokens)
    return result


def answer(context: Context) -> Answer:
    """All three parts."""
    start = measure_start(context)
    context.progress(0.5, "timing the steps of the trained models")
    runs = dict(zip(TRAINED, variants(context, LABELLED), strict=True))
    best = {norm: min((runs[norm, w] for w in WARMUPS), key=lambda row: mean_std(row.losses)[0]) for norm in PLACEMENTS}
    context.progress(0.7, "leaving out blocks")
    tokens = context.tokens(DEEP_PRE)[: context.numbers["tokens"]]
    costs = {norm: [depth.cost_of_removal(m.model, tokens) for m in best[norm].models] for norm in PLACEMENTS}
    deepest = context.numbers["depths"][-1]
    numbers: dict[str, float | int] = metrics(list(runs.values()))
    for norm in PLACEMENTS:
        for init in INITS:
            key, setting = f"{norm}_{init.lower().replace('-', '')}", (init, norm, deepest)
            first, last = across(start.blocks[setting], 0)[0], across(start.blocks[setting], -1)[0]
            numbers |= {
                f"gradient_depth_exponent_{key}": start.slope(init, norm),
                f"gradient_first_block_{key}_{deepest}_layers": first,
                f"gradient_last_block_{key}_{deepest}_layers": last,
                f"gradient_first_over_last_block_{key}_{deepest}_layers": first / last,
                f"residual_path_share_{key}_{deepest}_layers": mean_std(start.survives[setting])[0],
            }
        numbers[f"mean_cost_of_removing_a_block_{norm}_nats"] = mean_std([c for run in costs[norm] for c in run])[0]
        inner = [cost for run in costs[norm] for cost in run[1:-1]]
        numbers[f"mean_cost_of_removing_an_inner_block_{norm}_nats"] = mean_std(inner)[0]
    vocabulary = best["pre"].models[0].model.config.vocab_size
    unigram = unigram_loss(context.tokens(DEEP_PRE, "train"), context.tokens(DEEP_PRE), vocabulary)
    numbers["unigram_loss_nats"] = unigram
    return Answer(
        summary="With Xavier weights the last layer's gradient goes with depth L as "
        f"L^{start.slope('Xavier', 'pre'):.2f} in pre-norm and L^{start.slope('Xavier', 'post'):.2f} in post-norm. "
        + describe(
            compare(best["post"].losses, best["pre"].losses), "pre-norm", "post-norm, each at its better warm-up"
        ),
        parts=(
            Part("a", part_a(), "the two blocks"),
            Part(
                "b",
                (
                    *gradients(start, context),
                    *training(runs, {norm: start.slope("GPT-2", norm) for norm in PLACEMENTS}, unigram),
                ),
                "why pre-norm is more stable",
            ),
            Part("c", part_c(start, best, costs, tokens, deepest), "what pre-norm may cost"),
        ),
        checks=checks(start, runs),
        metrics=numbers,
    )


def across(seeds: Sequence[Sequence[float]], index: int) -> tuple[float, float]:
    """Mean and deviation over seeds of one entry of each list."""
    return mean_std([values[index] for values in seeds])


def part_a() -> tuple[Piece, ...]:
    """Equations, and what the code computes for them."""
    return (
        Prose(
            r"With $\operatorname{LN}$ the layer norm, $A$ self-attention and $M$ the feed-forward layer, a "
            "**post-norm** block (Vaswani et al., 2017; GPT-1) is\n\n"
            r"$$y_\ell = \operatorname{LN}(x_\ell + A(x_\ell)), \qquad x_{\ell+1} = \operatorname{LN}(y_\ell + "
            r"M(y_\ell))$$"
            "\n\nand a **pre-norm** block (GPT-2)\n\n"
            r"$$y_\ell = x_\ell + A(\operatorname{LN}(x_\ell)), \qquad x_{\ell+1} = y_\ell + "
            r"M(\operatorname{LN}(y_\ell)).$$"
            "\n\nPost-norm normalises the sum, so the residual stream itself passes through every norm. Pre-norm "
            "normalises what each sub-block reads and leaves the stream alone; nothing then bounds it, and one more "
            "norm stands before the output: "
            r"$\text{logits} = W \operatorname{LN}(x_L)$."
        ),
        Table(
            columns=("", "post-norm (GPT-1)", "pre-norm (GPT-2)"),
            rows=(
                ("attention reads", "x", "LN(x)"),
                ("the residual stream is", "normalised twice in each block", "only ever added to"),
                ("after the last block", "nothing: it ends in a norm", "a final norm"),
                ("norms in L layers", "2L", "2L + 1"),
            ),
            caption="What differs",
            name="placements",
        ),
    )


def gradients(start: AtStart, context: Context) -> tuple[Piece, ...]:
    """Gradients at initialisation."""
    deepest, seeds = context.numbers["depths"][-1], context.numbers["seeds"]
    rows = []
    for (init, norm, layers), values in start.blocks.items():
        first, last = across(values, 0), across(values, -1)
        matrix = across(start.matrices[init, norm, layers], -1)
        survives = mean_std(start.survives[init, norm, layers])[0]
        rows.append(
            (init, f"{norm}-norm", layers, first[0], last[0], first[0] / last[0], matrix[0], matrix[1], survives)
        )
    pre, post = (start.slope("Xavier", norm) for norm in PLACEMENTS)
    agrees = abs(pre + 0.5) < 0.25 and abs(post) < 0.25
    verdict = "as the theory says" if agrees else "not what the theory says for great width and depth"
    share = {init: mean_std(start.survives[init, "post", deepest])[0] for init in INITS}
    own = {norm: start.slope("GPT-2", norm) for norm in PLACEMENTS}
    return (
        Prose(survival_prose(deepest, share)),
        gradient_figure(start, "Xavier", deepest),
        gradient_figure(start, "GPT-2", deepest),
        Table(
            columns=(
                *("initial weights", "placement", "layers", "gradient, first block", "gradient, last block"),
                *("first / last", "last matrix, mean", "last matrix, std", "share of the residual path"),
            ),
            rows=tuple(rows),
            caption=f"Gradient norms before training, width {WIDTH}, mean over {seeds} seeds",
            name="gradients",
        ),
        Prose(
            f"{by_block_prose(start, deepest)} "
            "Xiong et al. (2020, theorem 1) derive for Xavier weights that the gradient of the last feed-forward "
            r"matrix is $O(1)$ in depth for post-norm and $O(1/\sqrt{L})$ for pre-norm: large steps near the output, "
            "with everything below them untrained, are what warm-up protects post-norm from. Fitted over the depths "
            f"here it goes as $L^{{{post:.2f}}}$ in post-norm and $L^{{{pre:.2f}}}$ in pre-norm, {verdict}. GPT-2's "
            r"initialisation, which divides the layers that write into the stream by $\sqrt{2L}$, gives "
            f"exponents of {own['post']:.2f} and {own['pre']:.2f}."
        ),
    )


def survival_prose(deepest: int, share: dict[str, float]) -> str:
    """The equations of the gradient, and the measured share of the straight path."""
    return (
        "The gradient reaches block $\\ell$ through the residual stream. With $J_k$ the Jacobians of the sub-blocks "
        "above it and $N_k$ those of the norms behind them,\n\n"
        r"$$\text{pre: } \frac{\partial x_L}{\partial x_\ell} = \prod_k (I + J_k) = I + \sum_k J_k + \dots, \qquad "
        r"\text{post: } \frac{\partial x_L}{\partial x_\ell} = \prod_k N_k (I + J_k).$$"
        "\n\nIn pre-norm one term is the identity, whatever the depth. In post-norm no path avoids the norms, and "
        r"each divides by the standard deviation $\sigma_k$ of its input, so that what goes straight through is "
        r"scaled by $\prod_k 1/\sigma_k$. Where sub-blocks add as much as the stream holds, $\sigma_k > 1$ and this "
        f"share falls exponentially with depth. Measured in {deepest} layers it is {share['Xavier']:.2g} with Xavier "
        f"weights and {share['GPT-2']:.2g} with GPT-2's, whose residual layers are small on purpose; in pre-norm it "
        "is 1."
    )


def by_block_prose(start: AtStart, deepest: int) -> str:
    """How the gradient changes on its way down, in the deepest models with Xavier weights."""
    norms = {norm: [across(start.blocks["Xavier", norm, deepest], i)[0] for i in (0, -1)] for norm in PLACEMENTS}
    pre, post = (norms[norm][0] / norms[norm][1] for norm in PLACEMENTS)
    reading = (
        "So before training the gradient does not die out on its way down in post-norm either: what the norms take "
        "from the straight path, the paths through the sub-blocks make up for. The placements differ in where it is "
        "large."
        if post >= 0.5
        else "In post-norm it fades on its way down."
    )
    return (
        f"In {deepest} layers with Xavier weights the gradient of the first block is {pre:.1f} times that of the last "
        f"in pre-norm and {post:.1f} times in post-norm. {reading}"
    )


def gradient_figure(start: AtStart, init: str, layers: int) -> Figure:
    """Gradient norm of every block of the deepest models."""
    series = []
    for norm in PLACEMENTS:
        columns = list(zip(*start.blocks[init, norm, layers], strict=True))
        means, stds = zip(*(mean_std(column) for column in columns), strict=True)
        series.append(Series(f"{norm}-norm", tuple(float(i) for i in range(layers)), means, stds))
    return Figure(
        kind="line",
        series=tuple(series),
        x_label="block, from 0",
        y_label="gradient norm of the block",
        y_log=True,
        caption=f"Gradients before training by block, {layers} layers, {init} weights",
    )


def training(runs: Runs, own: dict[str, float], unigram: float) -> tuple[Piece, ...]:
    """The training comparison."""
    effect = {norm: compare(runs[norm, "none"].losses, runs[norm, "warm-up"].losses) for norm in PLACEMENTS}
    said = " ".join(describe(effect[norm], f"{norm}-norm with warm-up", "the same without") for norm in PLACEMENTS)
    expected = effect["post"].verdict == "lower" and effect["pre"].verdict != "lower"
    scaled = abs(own["post"] - own["pre"]) < 0.25
    conclusion = (
        "That is the textbook's picture: post-norm needs the warm-up and pre-norm does not."
        if expected
        else "One seed cannot confirm or refute the textbook's picture, in which post-norm needs the warm-up and "
        "pre-norm does not."
        if effect["post"].verdict == "one seed"
        else "The textbook's picture, in which post-norm needs the warm-up and pre-norm does not, is not what these "
        f"models show{', whose post-norm even trains worse with it' if effect['post'].verdict == 'higher' else ''}. "
        "They are shallow and trained for few steps with clipped gradients"
        + (", and they start from GPT-2's weights, with which the cause named above is absent." if scaled else ".")
    )
    stuck = {row.label: sum(loss > unigram - 0.1 for loss in row.losses) for row in runs.values()}
    still = [f"{count} of {len(runs['pre', 'none'].models)} with {label}" for label, count in stuck.items() if count]
    plateau = (
        f"Not yet past letter frequencies ({unigram:.2f} nats, within 0.1) at the end: {', '.join(still) or 'none'}."
    )
    recipe = runs["pre", "warm-up"].models[0].recipe
    return (
        Prose(
            f"**In training.** Models of {recipe.model.n_layer} layers, width {recipe.model.d_model}, both "
            f"placements, with {recipe.train.warmup_steps} of {recipe.train.steps} steps of warm-up and with none; "
            f"data, learning rate and number of steps are the same. {said} {plateau} {conclusion}"
        ),
        table(list(runs.values()), name="training", caption="Placement and warm-up."),
        Figure(
            kind="line",
            series=tuple(Series(row.label, *mean_curve(row)) for row in runs.values()),
            x_label="step",
            y_label="training loss (nats/token)",
            caption="Training loss, mean over seeds",
            hlines=((unigram, "letter frequencies"),),
        ),
    )


def mean_curve(row: Variant) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Steps and the training loss averaged over seeds."""
    columns = zip(*(m.history["train_loss"] for m in row.models), strict=True)
    return tuple(row.models[0].history["step"]), tuple(mean_std(column)[0] for column in columns)


def part_c(
    start: AtStart, best: dict[Norm, Variant], costs: dict[Norm, list[list[float]]], tokens: Tensor, deepest: int
) -> tuple[Piece, ...]:
    """Effective depth: how much each block changes, and what it is worth."""
    change = {
        norm: [mean_std([run[i].change for run in start.steps["Xavier", norm, deepest]])[0] for i in range(deepest)]
        for norm in PLACEMENTS
    }
    fall = {norm: values[-1] / values[1] for norm, values in change.items()}
    return (
        Prose(
            "Because the pre-norm stream is only ever added to, it grows, while what a sub-block adds does not: it "
            "reads a normalised input. Later blocks therefore change the stream by less and less, and a deep "
            "pre-norm model is in effect shallower than its count of layers, closer to many short paths side by side "
            f"(Veit et al., 2016; Liu et al., 2020). Before training, in {deepest} layers with Xavier weights, the "
            f"last block changes the stream by {change['pre'][-1]:.2f} of its length, {fall['pre']:.2f} times what "
            f"the second does, against {change['post'][-1]:.2f} and {fall['post']:.2f} times in post-norm. (The "
            "first writes on embeddings, which are small.)"
        ),
        Figure(
            kind="line",
            series=tuple(
                Series(f"{norm}-norm", tuple(float(i) for i in range(deepest)), tuple(values))
                for norm, values in change.items()
            ),
            x_label="block, from 0",
            y_label="‖after - before‖ / ‖before‖",
            y_log=True,
            caption=f"Relative change of the residual stream by each block before training, {deepest} layers, Xavier",
        ),
        *removal(best, costs, tokens),
        *final_norm(start),
    )


def removal(best: dict[Norm, Variant], costs: dict[Norm, list[list[float]]], tokens: Tensor) -> tuple[Piece, ...]:
    """Trained models with one block left out."""
    whole = {norm: mean_std([cost for run in costs[norm] for cost in run])[0] for norm in PLACEMENTS}
    inner = {norm: [mean_std(run[1:-1])[0] for run in costs[norm]] for norm in PLACEMENTS}
    finding = {
        "lower": "Those of pre-norm are worth less, which is what a smaller effective depth looks like.",
        "higher": "Those of pre-norm are worth more: no smaller effective depth is seen here.",
        "noise": "That difference is inside the noise.",
        "one seed": "With one seed that is not more than a hint.",
    }[compare(inner["post"], inner["pre"]).verdict]
    return (
        Prose(
            "In the trained models a block can be left out and the loss measured again, without training anew; for "
            f"each placement, the schedule that trained better is taken. On average over all blocks that costs "
            f"{whole['pre']:.3f} nats in {best['pre'].label} and {whole['post']:.3f} in {best['post'].label}. An "
            "inner block, next to neither the embeddings nor the output, costs "
            f"{mean_std(inner['pre'])[0]:.4f} and {mean_std(inner['post'])[0]:.4f}, in the same order. {finding} "
            "What these models cannot show is the other side of the argument, that a post-norm model which is brought "
            "to train ends up better than a pre-norm one (Liu et al., 2020, on translation)."
        ),
        worth_table(best, costs, tokens),
    )


def final_norm(start: AtStart) -> tuple[Piece, ...]:
    """What the norm before the output is for."""
    rows: list[tuple[str, int, float, float, float]] = []
    for (init, norm, layers), values in start.logits.items():
        if norm == "pre":
            size = mean_std([run[-1].size for run in start.steps[init, norm, layers]])[0]
            with_norm, without = (mean_std(column)[0] for column in zip(*values, strict=True))
            rows.append((init, layers, size, with_norm, without))
    (first, last), (own_first, own_last) = (
        [[row for row in rows if row[0] == init][i] for i in (0, -1)] for init in ("Xavier", "GPT-2")
    )
    return (
        Prose(
            "And the growth must not reach the logits. With Xavier weights the untrained pre-norm stream has a root "
            f"mean square of {first[2]:.2f} after {first[1]} layers and {last[2]:.2f} after {last[1]}; without the "
            f"final norm the standard deviation of the logits would go from {first[4]:.2f} to {last[4]:.2f}, with it "
            f"it goes from {first[3]:.2f} to {last[3]:.2f}. GPT-2's weights keep it, before "
            f"training, at {own_first[2]:.2f} and {own_last[2]:.2f}."
        ),
        Table(
            columns=("initial weights", "layers", "RMS of the stream", "std of logits, final norm", "std without it"),
            rows=tuple(rows),
            caption="Why pre-norm needs a final norm: the end of untrained pre-norm models, mean over seeds",
            name="final_norm",
        ),
    )


def worth_table(best: dict[Norm, Variant], costs: dict[Norm, list[list[float]]], tokens: Tensor) -> Table:
    """Per block of the trained models: change, angle, cost of leaving it out."""
    rows = []
    for norm in PLACEMENTS:
        models = best[norm].models
        T = models[0].model.config.context
        windows = tokens[: len(tokens) // T * T].view(-1, T)[:BATCH]
        measured = [depth.steps(m.model, windows) for m in models]
        for i, column in enumerate(zip(*costs[norm], strict=True)):
            change = mean_std([run[i].change for run in measured])[0]
            cosine = mean_std([run[i].cosine for run in measured])[0]
            cost, spread = mean_std(column)
            rows.append((f"{norm}-norm", i, change, cosine, cost, spread if len(column) > 1 else None))
    return Table(
        columns=("placement", "block", "relative change", "cosine before/after", "cost of removal (nats)", "± std"),
        rows=tuple(rows),
        caption="Blocks of the trained models on held-out text, mean over seeds",
        name="blocks",
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


def checks(start: AtStart, runs: Runs) -> tuple[Check, ...]:
    """Both blocks against torch's; the gradients and the training against what theory and textbook predict."""
    sizes = [run[-1].size for (_, norm, _), seeds in start.steps.items() for run in seeds if norm == "post"]
    warm, cold = (mean_std(runs["post", warmup].losses)[0] for warmup in WARMUPS)
    return (
        *(
            Check.at_most(f"the {norm}-norm block equals torch's TransformerEncoderLayer", block_difference(norm), 1e-4)
            for norm in PLACEMENTS
        ),
        Check.at_most(
            "post-norm blocks leave a stream of root mean square 1 (largest difference)",
            max(abs(size - 1) for size in sizes),
            1e-3,
        ),
        Check.close(
            "Xavier, pre-norm: exponent of the last matrix's gradient in depth (Xiong et al., 2020)",
            start.slope("Xavier", "pre"),
            -0.5,
            0.25,
            "empirical",
        ),
        Check.close("Xavier, post-norm: the same", start.slope("Xavier", "post"), 0.0, 0.25, "empirical"),
        Check.at_most("post-norm: loss with warm-up minus loss without (nats)", warm - cold, 0.0, "empirical"),
    )


EXERCISE = Exercise(
    id="21.4",
    title="Pre-Norm vs. Post-Norm",
    answer=answer,
    recipes=tuple(TRAINED.values()),
    numbers={
        "smoke": {"depths": (2, 4, 8), "seeds": 2, "tokens": 512},
        "laptop": {"depths": (4, 8, 16, 32), "seeds": 3, "tokens": 8_192},
        "gpu": {"depths": (4, 8, 16, 32, 64), "seeds": 5, "tokens": 65_536},
    },
    timed=True,
    seconds={"smoke": 4, "laptop": 15, "gpu": 60},
)
