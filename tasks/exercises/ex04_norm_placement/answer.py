"""Tables, figures and checks of 21.4; the text is in answer.md."""

from dataclasses import replace

from minigpt.config import Norm
from minigpt.evaluation.statistics import Comparison, compare_paired, holm, mean_std
from reports.answers import Draft
from reports.types import Cell, Check, Figure, Series, Table
from reports.words import plural
from tasks.comparison import counted
from tasks.exercises.ex04_norm_placement.findings import INITS, PLACEMENTS, WIDTH, Findings, Setting, best_rate


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    return Draft(
        blocks={
            "placements": placements(),
            "gradients, Xavier": gradient_figure(f, "Xavier"),
            "gradients, GPT-2": gradient_figure(f, "GPT-2"),
            "gradients": gradients(f),
            "training": training(f),
            "sweep": sweep(f),
            "curves": curves(f),
            "changes": changes(f),
            "blocks": blocks(f),
            "final norm": final_norm(f),
        },
        checks=checks(f),
        values={
            "effects": f.warmup_effects,
            "seen": {init: seen(f, init) for init in reversed(INITS)},
            "interactions": interactions(f),
            "placements": by_placement(f),
            "inner": inner_blocks(f),
            "apart": apart(f),
            "fresh": len(f.fresh(f.settings[0])),
            "losses": {(init, norm): losses(f, init, norm) for init in INITS for norm in PLACEMENTS},
            "frequencies": {init: [norm for norm in PLACEMENTS if at_frequencies(f, init, norm)] for init in INITS},
        },
    )


def warmth(f: Findings, init: str, norm: Norm) -> list[tuple[float, float]]:
    """Losses of each fresh seed without warm-up and with it."""
    return list(zip(f.losses(Setting(norm, init, False)), f.losses(Setting(norm, init, True)), strict=True))


def interactions(f: Findings) -> dict[str, Comparison]:
    """What the warm-up changes in post-norm less what it changes in pre-norm, seed by seed; corrected for the inits."""
    found = []
    for init in INITS:
        pre, post = ([warm - cold for cold, warm in warmth(f, init, norm)] for norm in PLACEMENTS)
        found.append(compare_paired(pre, post))
    return dict(zip(INITS, holm(found), strict=True))


def seen(f: Findings, init: str) -> str:
    """``Findings.picture``, but "undecided" where the effects do not differ, or post-norm's is not one after Holm."""
    picture, post = f.picture(init), f.warmup_effects[init, "post"].verdict
    if picture == "yes" and interactions(f)[init].verdict != "lower":
        return "undecided"
    return "undecided" if picture == "no" and post == "one of many" else picture


def by_placement(f: Findings) -> dict[str, Comparison]:
    """Pre-norm against post-norm, per seed the mean with warm-up and without; corrected for the initial weights."""
    found = []
    for init in INITS:
        pre, post = ([mean_std(pair)[0] for pair in warmth(f, init, norm)] for norm in PLACEMENTS)
        found.append(compare_paired(post, pre))
    return dict(zip(INITS, holm(found), strict=True))


def inner_blocks(f: Findings) -> Comparison:
    """What an inner block is worth; no verdict unless all models of both placements beat the bigram."""
    learned = all(f.past_bigram(one) == len(f.losses(one)) for one in f.chosen.values())
    return f.inner_blocks if learned else replace(f.inner_blocks, verdict="untrained")


def apart(f: Findings) -> list[str]:
    """In what the best settings of the placements differ beside the placement."""
    pre, post = f.chosen["pre"], f.chosen["post"]
    names = {
        "initial weights": pre.init != post.init,
        "warm-up": pre.warmup != post.warmup,
        "learning rate": best_rate(f.runs, pre) != best_rate(f.runs, post),
    }
    return [name for name, differs in names.items() if differs]


def losses(f: Findings, init: str, norm: str) -> list[float]:
    """Of all trainings of one placement: every rate and seed, with warm-up and without."""
    return [run.loss for run in f.runs if (run.setting.init, run.setting.norm) == (init, norm)]


def at_frequencies(f: Findings, init: str, norm: str) -> bool:
    """Whether none of them has learned more than how frequent each token is; up to 0.05 nats."""
    return min(losses(f, init, norm)) > f.baselines.unigram - 0.05


def placements() -> Table:
    """The two blocks side by side."""
    return Table(
        columns=("setting", "post-norm (GPT-1)", "pre-norm (GPT-2)"),
        rows=(
            ("attention reads", "x", "LN(x)"),
            ("the residual stream is", "normalised twice in each block", "only ever added to"),
            ("after the last block", "nothing: it ends in a norm", "a final norm"),
            ("norms in L layers", "2L", "2L + 1"),
        ),
        caption="What differs",
        name="placements",
    )


def gradients(f: Findings) -> Table:
    """Gradients at initialisation, of every setting."""
    return Table(
        columns=(
            "initial weights",
            "placement",
            "layers",
            "gradient, first block",
            "gradient, last block",
            "first / last",
            "last matrix, mean",
            "last matrix, std",
            "share of the residual path",
        ),
        rows=tuple(
            (
                s.init,
                f"{s.norm}-norm",
                s.layers,
                s.gradient(0)[0],
                s.gradient(-1)[0],
                s.first_over_last,
                *s.last_matrix,
                s.share,
            )
            for s in f.start
        ),
        caption=f"Gradient norms before training, width {WIDTH}, mean over {plural(f.seeds, 'seed')}",
        name="gradients",
    )


def gradient_figure(f: Findings, init: str) -> Figure:
    """Gradient norm of every block of the deepest models."""
    layers, series = f.depths[-1], []
    for norm in PLACEMENTS:
        found = f.deepest(init, norm)
        means, stds = zip(*(found.gradient(i) for i in range(layers)), strict=True)
        series.append(Series(f"{norm}-norm", tuple(float(i) for i in range(layers)), means, stds))
    return Figure(
        kind="line",
        series=tuple(series),
        x_label="block, from 0",
        y_label="gradient norm of the block",
        y_log=True,
        caption=f"Gradients before training by block, {layers} layers, {init} weights",
    )


def training(f: Findings) -> Table:
    """Every setting: its sweep over rates, and fresh trainings at the best."""
    rows: list[tuple[Cell, ...]] = []
    for one in f.settings:
        mean, spread = mean_std(f.losses(one))
        warmup = "with" if one.warmup else "without"
        several = len(f.losses(one)) > 1
        cells = (best_rate(f.runs, one), mean, spread if several else None, f.past_bigram(one))
        rows.append((one.init, f"{one.norm}-norm", warmup, *f.swept(one), *cells))
    for label, loss in counted(f.baselines):
        rows.append((label, *(None,) * (len(f.rates) + 3), loss, None, None))
    columns = (
        "initial weights",
        "placement",
        "warm-up",
        *(f"rate {rate:g}" for rate in f.rates),
        "best rate",
        "loss, fresh seeds",
        "± std",
        "of these past the bigram",
    )
    fresh = plural(len(f.fresh(f.settings[0])), "fresh seed")
    caption = (
        f"Validation loss, nats per token, of {f.layers} layers of width {f.width} after {f.steps} steps of AdamW "
        f"without clipping. One seed chooses the rate; {fresh} at it are compared."
    )
    return Table(columns, tuple(rows), caption, "training")


def sweep(f: Findings) -> Figure:
    """Loss by learning rate."""
    return Figure(
        kind="line",
        series=tuple(Series(one.label, tuple(f.rates), tuple(f.swept(one))) for one in f.settings),
        x_label="learning rate",
        y_label="validation loss (nats/token)",
        x_log=True,
        caption="The sweep that chooses the rate, one seed",
        hlines=((f.baselines.bigram, "bigram"),),
    )


def curves(f: Findings) -> Figure:
    """Training loss of the fresh seeds, averaged."""
    series = []
    for one in f.settings:
        runs = f.fresh(one)
        means = tuple(mean_std(column)[0] for column in zip(*(run.losses for run in runs), strict=True))
        series.append(Series(one.label, runs[0].steps, means))
    return Figure(
        kind="line",
        series=tuple(series),
        x_label="step",
        y_label="training loss (nats/token)",
        caption="Training loss at each setting's best rate, mean over fresh seeds",
        hlines=((f.baselines.bigram, "bigram"),),
    )


def changes(f: Findings) -> Figure:
    """How much each block of the deepest untrained models changes the stream."""
    layers = f.depths[-1]
    return Figure(
        kind="line",
        series=tuple(
            Series(f"{norm}-norm", tuple(float(i) for i in range(layers)), tuple(f.deepest("Xavier", norm).changes))
            for norm in PLACEMENTS
        ),
        x_label="block, from 0",
        y_label="‖after - before‖ / ‖before‖",
        y_log=True,
        caption=f"Relative change of the residual stream by each block before training, {layers} layers, Xavier",
    )


def blocks(f: Findings) -> Table:
    """Per block of the trained models: change, angle, cost of leaving it out."""
    rows = []
    for norm in PLACEMENTS:
        found = f.trained[norm]
        for i, column in enumerate(zip(*found.costs, strict=True)):
            change = mean_std([run[i].change for run in found.steps])[0]
            cosine = mean_std([run[i].cosine for run in found.steps])[0]
            cost, spread = mean_std(column)
            rows.append((f"{norm}-norm", i, change, cosine, cost, spread if len(column) > 1 else None))
    return Table(
        columns=("placement", "block", "relative change", "cosine before/after", "cost of removal (nats)", "± std"),
        rows=tuple(rows),
        caption="Blocks of the trained models on held-out text, mean over seeds",
        name="blocks",
    )


def final_norm(f: Findings) -> Table:
    """What the norm before the output is for."""
    return Table(
        columns=("initial weights", "layers", "RMS of the stream", "std of logits, final norm", "std without it"),
        rows=tuple((s.init, s.layers, s.size, *s.spread) for s in f.start if s.norm == "pre"),
        caption="Why pre-norm needs a final norm: the end of untrained pre-norm models, mean over seeds",
        name="final_norm",
    )


def checks(f: Findings) -> tuple[Check, ...]:
    """Both blocks against torch's; the gradients and the training against what theory and textbook predict."""
    sizes = [run[-1].size for found in f.start for run in found.steps if found.norm == "post"]
    warmed = f.warmup_effects["Xavier", "post"]
    return (
        *(
            Check.at_most(
                f"the {norm}-norm block equals torch's TransformerEncoderLayer", f.block_differences[norm], 1e-4
            )
            for norm in PLACEMENTS
        ),
        Check.at_most(
            "post-norm blocks leave a stream of root mean square 1 (largest difference)",
            max(abs(size - 1) for size in sizes),
            1e-3,
        ),
        Check.close(
            "Xavier, pre-norm: exponent of the last matrix's gradient in depth (Xiong et al., 2020)",
            f.slope("Xavier", "pre"),
            -0.5,
            0.25,
            "empirical",
        ),
        Check.close("Xavier, post-norm: the same", f.slope("Xavier", "post"), 0.0, 0.25, "empirical"),
        Check(
            "Xavier, post-norm: loss with warm-up minus loss without (nats)",
            "empirical",
            warmed.difference,
            "< 0 beyond the noise, of models better than the bigram",
            warmed.verdict == "lower",
        ),
    )
