"""What 21.4 measures: untrained models of several depths, and trained ones over rates, with and without warm-up."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from minigpt.config import Norm
from minigpt.evaluation.ngrams import Baselines
from minigpt.evaluation.statistics import Comparison, compare_paired, holm, mean_std
from tasks.variants import baseline_metrics

PLACEMENTS: tuple[Norm, ...] = ("pre", "post")
INITS = ("GPT-2", "Xavier")
WIDTH = 64  # of the untrained models
SWEEP = 0  # the seed that chooses the learning rate


@dataclass(frozen=True)
class Step:
    """What one block does to the residual stream, mean over tokens."""

    size: float  # root mean square of what leaves it
    change: float  # ‖after - before‖ / ‖before‖
    cosine: float  # between before and after


@dataclass(frozen=True)
class Start:
    """Untrained models of one setting. The first index of each list is the seed."""

    init: str
    norm: Norm
    layers: int
    blocks: tuple[tuple[float, ...], ...]  # gradient norm of each block
    matrices: tuple[tuple[float, ...], ...]  # of each block's last matrix
    steps: tuple[tuple[Step, ...], ...]
    survives: tuple[float, ...]  # share of the gradient that goes straight through all norms
    logits: tuple[tuple[float, float], ...]  # deviation with the final norm, and without

    def gradient(self, block: int) -> tuple[float, float]:
        """Gradient norm of one block, mean and deviation over the seeds."""
        return mean_std([norms[block] for norms in self.blocks])

    @property
    def last_matrix(self) -> tuple[float, float]:
        """Gradient norm of the last block's last matrix, mean and deviation over the seeds."""
        return mean_std([norms[-1] for norms in self.matrices])

    @property
    def first_over_last(self) -> float:
        """Gradient of the first block over that of the last."""
        return self.gradient(0)[0] / self.gradient(-1)[0]

    @property
    def share(self) -> float:
        """Mean over the seeds of what goes straight through all norms."""
        return mean_std(self.survives)[0]

    @property
    def changes(self) -> list[float]:
        """Relative change of the stream by each block, mean over the seeds."""
        return [mean_std([run[i].change for run in self.steps])[0] for i in range(self.layers)]

    @property
    def fall(self) -> float:
        """The last block's change over the second's."""
        return self.changes[-1] / self.changes[1]

    @property
    def size(self) -> float:
        """Root mean square of the stream at the end, mean over the seeds."""
        return mean_std([run[-1].size for run in self.steps])[0]

    @property
    def spread(self) -> tuple[float, float]:
        """Deviation of the logits with the final norm and without, mean over the seeds."""
        with_norm, without = zip(*self.logits, strict=True)
        return mean_std(with_norm)[0], mean_std(without)[0]


@dataclass(frozen=True)
class Setting:
    """What is varied in training, beside the learning rate."""

    norm: Norm
    init: str
    warmup: bool

    @property
    def label(self) -> str:
        """As readers see it."""
        return f"{self.init}, {self.norm}-norm, {'with' if self.warmup else 'without'} warm-up"

    @property
    def key(self) -> str:
        """As part of a metric's name."""
        return f"{self.norm}_{self.init.lower().replace('-', '')}_{'warm' if self.warmup else 'cold'}"


@dataclass(frozen=True)
class Run:
    """One training of a setting."""

    setting: Setting
    rate: float  # learning rate
    seed: int  # 0: of the sweep over rates; others: fresh ones at the rate that was best in it
    loss: float  # validation, nats per token
    steps: tuple[float, ...]
    losses: tuple[float, ...]  # in training, at these steps


@dataclass(frozen=True)
class Trained:
    """The blocks of one placement's better models. The first index of each list is the seed."""

    costs: tuple[tuple[float, ...], ...]  # nats per token that leaving out a block costs
    steps: tuple[tuple[Step, ...], ...]  # on held-out text

    @property
    def mean_cost(self) -> float:
        """Over all blocks."""
        return mean_std([cost for run in self.costs for cost in run])[0]

    @property
    def mean_inner_cost(self) -> float:
        """Over blocks next to neither the embeddings nor the output."""
        return mean_std([cost for run in self.costs for cost in run[1:-1]])[0]

    @property
    def inner_costs(self) -> list[float]:
        """The same, of each seed."""
        return [mean_std(run[1:-1])[0] for run in self.costs]


def best_rate(runs: Sequence[Run], setting: Setting) -> float:
    """The rate with the lowest loss in the sweep."""
    sweep = [run for run in runs if run.setting == setting and run.seed == SWEEP]
    return min(sweep, key=lambda run: run.loss).rate


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    start: tuple[Start, ...]
    slopes: dict[str, dict[str, float]]  # by initial weights and placement; see ``slope``
    runs: tuple[Run, ...]
    trained: dict[Norm, Trained]  # of each placement's best setting in the sweep
    chosen: dict[Norm, Setting]  # which that is
    baselines: Baselines
    layers: int  # of the trained models
    width: int
    steps: int  # of the training
    warmup_steps: int
    block_differences: dict[Norm, float]  # from torch's own layer

    @property
    def depths(self) -> list[int]:
        """Layers of the untrained models."""
        return sorted({found.layers for found in self.start})

    @property
    def seeds(self) -> int:
        """How many untrained models of each setting."""
        return len(self.start[0].survives)

    def at(self, init: str, norm: str, layers: int) -> Start:
        """Untrained models of one setting."""
        return next(s for s in self.start if (s.init, s.norm, s.layers) == (init, norm, layers))

    def shallowest(self, init: str, norm: str) -> Start:
        """Those of the smallest depth."""
        return self.at(init, norm, self.depths[0])

    def deepest(self, init: str, norm: str) -> Start:
        """Those of the greatest depth."""
        return self.at(init, norm, self.depths[-1])

    def slope(self, init: str, norm: str) -> float:
        """Exponent with which the gradient of the last block's last matrix goes with depth."""
        return self.slopes[init][norm]

    @property
    def settings(self) -> list[Setting]:
        """In the order of the trainings."""
        return list(dict.fromkeys(run.setting for run in self.runs))

    @property
    def rates(self) -> list[float]:
        """Of the sweep."""
        return sorted({run.rate for run in self.runs if run.seed == SWEEP})

    def swept(self, setting: Setting) -> list[float]:
        """Losses of the sweep, by rate."""
        found = {run.rate: run.loss for run in self.runs if run.setting == setting and run.seed == SWEEP}
        return [found[rate] for rate in self.rates]

    def fresh(self, setting: Setting) -> list[Run]:
        """Trainings with seeds that chose nothing, at the best rate."""
        return [run for run in self.runs if run.setting == setting and run.seed != SWEEP]

    def losses(self, setting: Setting) -> list[float]:
        """Of the fresh trainings, in the order of their seeds."""
        return [run.loss for run in self.fresh(setting)]

    def past_bigram(self, setting: Setting) -> int:
        """How many of the fresh trainings have learned to look further back than one token."""
        return sum(loss < self.baselines.bigram for loss in self.losses(setting))

    def trained_of(self, init: str, norm: Norm) -> tuple[int, int]:
        """Fresh trainings past the bigram, with and without warm-up together, and how many there are."""
        both = [Setting(norm, init, warmup) for warmup in (True, False)]
        return sum(map(self.past_bigram, both)), sum(len(self.losses(setting)) for setting in both)

    def band(self, init: str, norm: Norm) -> tuple[int, int]:
        """Trainings of the sweep past the bigram, over all rates, with and without warm-up; and how many there are."""
        losses = [loss for warmup in (True, False) for loss in self.swept(Setting(norm, init, warmup))]
        return sum(loss < self.baselines.bigram for loss in losses), len(losses)

    @property
    def warmup_effects(self) -> dict[tuple[str, str], Comparison]:
        """With warm-up against without, each at its best rate: by initial weights and placement, corrected for all."""
        pairs = [(init, norm) for init in INITS for norm in PLACEMENTS]
        found = [self._contrast(Setting(norm, init, False), Setting(norm, init, True)) for init, norm in pairs]
        return dict(zip(pairs, holm(found), strict=True))

    @property
    def placement(self) -> Comparison:
        """Pre-norm against post-norm, each at its best setting."""
        return self._contrast(self.chosen["post"], self.chosen["pre"])

    def _contrast(self, baseline: Setting, other: Setting) -> Comparison:
        found = compare_paired(self.losses(baseline), self.losses(other))
        # One side below the bigram and one not is an answer: what was compared is whether they train.
        learned = self.past_bigram(baseline) + self.past_bigram(other)
        return found if learned else replace(found, verdict="untrained")

    def picture(self, init: str) -> str:
        """Whether the textbook's picture appears: post-norm needs the warm-up, pre-norm does not.

        "yes", "no", or "open" where neither is decided: one seed, or models that have not beaten the bigram.
        """
        post, pre = (self.warmup_effects[init, norm].verdict for norm in ("post", "pre"))
        if {post, pre} & {"one seed", "untrained"}:
            return "open"
        return "yes" if post == "lower" and pre != "lower" else "no"

    @property
    def inner_blocks(self) -> Comparison:
        """What an inner block is worth, pre-norm against post-norm."""
        return compare_paired(self.trained["post"].inner_costs, self.trained["pre"].inner_costs)

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        numbers: dict[str, float | int] = baseline_metrics(self.baselines)
        for setting in self.settings:
            mean, spread = mean_std(self.losses(setting))
            numbers[f"validation_loss_nats_{setting.key}"] = mean
            if len(self.losses(setting)) > 1:
                numbers[f"validation_loss_nats_{setting.key}_std"] = spread
            numbers[f"best_rate_{setting.key}"] = best_rate(self.runs, setting)
            numbers[f"past_bigram_{setting.key}"] = self.past_bigram(setting)
        layers = self.depths[-1]
        for norm in PLACEMENTS:
            for init in INITS:
                key, found = f"{norm}_{init.lower().replace('-', '')}", self.deepest(init, norm)
                numbers |= {
                    f"gradient_depth_exponent_{key}": self.slope(init, norm),
                    f"gradient_first_block_{key}_{layers}_layers": found.gradient(0)[0],
                    f"gradient_last_block_{key}_{layers}_layers": found.gradient(-1)[0],
                    f"gradient_first_over_last_block_{key}_{layers}_layers": found.first_over_last,
                    f"residual_path_share_{key}_{layers}_layers": found.share,
                }
            numbers[f"mean_cost_of_removing_a_block_{norm}_nats"] = self.trained[norm].mean_cost
            numbers[f"mean_cost_of_removing_an_inner_block_{norm}_nats"] = self.trained[norm].mean_inner_cost
        return numbers
