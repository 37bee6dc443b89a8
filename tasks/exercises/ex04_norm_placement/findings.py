"""What 21.4 measures: untrained models of several depths, and trained ones with and without warm-up."""

from dataclasses import dataclass

from minigpt.config import Norm
from minigpt.evaluation.statistics import Comparison, compare, mean_std
from tasks.variants import Variant, metrics

PLACEMENTS: tuple[Norm, ...] = ("pre", "post")
INITS = ("GPT-2", "Xavier")
WIDTH = 64  # of the untrained models


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
class Run:
    """Trained models of one placement, with warm-up or without."""

    norm: str
    warmup: str
    variant: Variant
    trained_steps: tuple[float, ...]
    trained_losses: tuple[tuple[float, ...], ...]  # one tuple per seed, nats per token


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


def better(runs: tuple[Run, ...], norm: str) -> Variant:
    """The models of a placement at the warm-up with the lower mean loss."""
    return min((run.variant for run in runs if run.norm == norm), key=lambda row: row.loss)


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    start: tuple[Start, ...]
    slopes: dict[str, dict[str, float]]  # by initial weights and placement; see ``slope``
    runs: tuple[Run, ...]
    trained: dict[Norm, Trained]  # of the better models
    layers: int  # of the trained models
    width: int
    steps: int  # of the training
    warmup_steps: int
    unigram: float  # nats per token of letter frequencies
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

    def run(self, norm: str, warmup: str) -> Run:
        """Trained models by placement and warm-up."""
        return next(run for run in self.runs if (run.norm, run.warmup) == (norm, warmup))

    def better(self, norm: str) -> Variant:
        """A placement's models at the warm-up with the lower mean loss."""
        return better(self.runs, norm)

    @property
    def placement(self) -> Comparison:
        """Pre-norm against post-norm, each at its better warm-up."""
        return compare(self.better("post").losses, self.better("pre").losses)

    def warmup_effect(self, norm: str) -> Comparison:
        """With warm-up against without."""
        return compare(self.run(norm, "none").variant.losses, self.run(norm, "warm-up").variant.losses)

    @property
    def inner_blocks(self) -> Comparison:
        """What an inner block is worth, pre-norm against post-norm."""
        return compare(self.trained["post"].inner_costs, self.trained["pre"].inner_costs)

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        numbers: dict[str, float | int] = metrics([run.variant for run in self.runs])
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
        numbers["unigram_loss_nats"] = self.unigram
        return numbers
