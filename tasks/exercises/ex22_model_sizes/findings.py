"""What 21.22 measures: losses, times and texts of three sizes, after equal tokens and after equal time."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from minigpt.evaluation.craft import Craft
from minigpt.evaluation.curves import mean_between
from minigpt.evaluation.ngrams import Baselines
from minigpt.evaluation.pooled import compare_pooled
from minigpt.evaluation.statistics import (
    Comparison,
    compare_blocks,
    compare_paired,
    holm,
    mean_std,
    unanimous,
    widened,
)
from minigpt.evaluation.timing import Timing
from tasks.variants import Variant

SIZES = ("small", "medium", "large")
TRUNKS = {"small": "small, longer", "medium": "medium", "large": "large"}  # the runs that finished several budgets
CHARACTERS = (*SIZES, "small, longer")
BYTE_PAIRS = tuple(f"{size}, byte pairs" for size in SIZES)
LEAST_CHANGE = 0.05  # of a rate: less counts as none


@dataclass(frozen=True)
class Run:
    """One recipe with all its seeds."""

    name: str
    variant: Variant  # curves of all seeds, steps, parameters, and the time of a step measured alone
    tokens_per_step: int  # targets in a batch
    vocab_size: int
    characters_per_token: float  # of the validation text
    flops_per_token: float  # of a training step
    trained_steps: tuple[float, ...]  # of the first seed
    trained_losses: tuple[float, ...]
    rescored: float  # loss of the first seed on the whole validation split, once more, nats per token
    targets: int  # tokens scored
    texts: tuple[str, ...]  # of the first seed, one per prompt
    craft: Craft  # of these

    @property
    def size(self) -> str:
        """Of the model: its name up to the comma."""
        return self.name.partition(",")[0]

    @property
    def steps(self) -> int:
        """Updates of the weights."""
        return self.variant.steps

    @property
    def parameters(self) -> int:
        """Trained numbers, shared ones once."""
        return self.variant.parameters

    @property
    def losses(self) -> list[float]:
        """Validation loss of each seed, nats per character."""
        return [loss / self.characters_per_token for loss in self.variant.losses]

    @property
    def loss(self) -> float:
        """Mean over the seeds."""
        return mean_std(self.losses)[0]

    @property
    def lowest_on_the_way(self) -> tuple[float, float]:
        """Step and validation loss where that was lowest, nats per token; of the first seed."""
        curve = self.variant.curves[0]
        return min(zip(curve.steps, curve.losses, strict=True), key=lambda at: at[1])

    @property
    def training_loss(self) -> float:
        """Mean over the last tenth of the steps, nats per token; of the first seed."""
        return mean_between(self.trained_steps, self.trained_losses, 0.9 * self.steps, self.steps)

    @property
    def tokens(self) -> int:
        """Seen in training, repetitions included."""
        return self.steps * self.tokens_per_step

    @property
    def characters(self) -> float:
        """The same in characters."""
        return self.tokens * self.characters_per_token

    @property
    def step(self) -> Timing:
        """Time of a training step."""
        return self.variant.step

    @property
    def rate(self) -> float:
        """Tokens per second of training."""
        return self.tokens_per_step / self.step.median

    @property
    def gflops(self) -> float:
        """Arithmetic of the training per second of it, in 10⁹."""
        return self.flops_per_token * self.rate / 1e9

    @property
    def seconds(self) -> float:
        """Of the training: steps times the time of one."""
        return self.steps * self.step.median


def course(runs: Sequence[Run]) -> str:
    """How the rates go: "rises", "rises and then falls", …; neither a small change nor one within quartiles is one."""

    def rises(before: Run, after: Run) -> bool:
        slowest, fastest = (
            run.gflops * run.step.median / end for run, end in ((after, after.step.high), (before, before.step.low))
        )
        return after.gflops > (1 + LEAST_CHANGE) * before.gflops and slowest > fastest

    ways = [
        "rises" if rises(*pair) else "falls" if rises(*reversed(pair)) else "stays" for pair in itertools.pairwise(runs)
    ]
    return " and then ".join(way for i, way in enumerate(ways) if i == 0 or way != ways[i - 1])


@dataclass(frozen=True)
class Count:
    """Parameters of one of the book's sizes with some vocabulary, whatever the profile trains."""

    size: str
    vocabulary: str  # in words
    vocab_size: int
    closed_form: int
    built: int  # counted on a model that is really built
    d_model: int


@dataclass(frozen=True)
class Standing:
    """The sizes after one budget, the lowest mean loss first, and each against each that comes after it."""

    losses: dict[str, tuple[float, ...]]  # of each size, one per seed, nats per character
    steps: dict[str, float]
    pairs: tuple[tuple[str, str, Comparison], ...]  # lower, higher, and what is between them
    untaught: tuple[str, ...]  # the sizes of which a seed does not beat the bigram after this budget

    @property
    def best(self) -> str:
        """The size with the lowest mean loss."""
        return next(iter(self.losses))

    @property
    def decided(self) -> bool:
        """Whether the whole order is a conclusion."""
        return all(found.verdict == "lower" for *_, found in self.pairs)

    @property
    def open(self) -> list[tuple[str, str, Comparison]]:
        """The pairs of which it is not."""
        return [pair for pair in self.pairs if pair[2].verdict != "lower"]

    @property
    def settled(self) -> list[tuple[str, str, Comparison]]:
        """The pairs of which it is."""
        return [pair for pair in self.pairs if pair[2].verdict == "lower"]

    @property
    def rivals(self) -> list[str]:
        """The sizes that the best of them is not below beyond the noise."""
        return [higher for lower, higher, _ in self.open if lower == self.best]

    @property
    def all_noise(self) -> bool:
        """Whether no pair is a conclusion, each being inside the noise."""
        return bool(self.pairs) and all(found.verdict == "noise" for *_, found in self.pairs)


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    runs: dict[str, Run]  # all that this profile trains
    missing: tuple[str, ...]  # runs on byte pairs that it does not
    counts: tuple[Count, ...]
    heldout: Craft  # of pieces of the held-out text, as long as the generated ones
    epoch: int  # training characters
    prompts: tuple[str, ...]
    characters: int  # of a text
    temperature: float
    device: str

    @property
    def base(self) -> Baselines:
        """What n-grams of characters pay."""
        return self.runs["small"].variant.baselines

    @property
    def trunks(self) -> dict[str, Run]:
        """By size."""
        return {size: self.runs[name] for size, name in TRUNKS.items()}

    @property
    def budget(self) -> float:
        """Seconds of equal time: the shortest of the three trainings."""
        return min(run.seconds for run in self.trunks.values())

    @property
    def furthest_start(self) -> float:
        """How far from ln V the loss of a training begins, at most."""
        runs = self.runs.values()
        return max(abs(curve.losses[0] - math.log(run.vocab_size)) for run in runs for curve in run.variant.curves)

    @property
    def untaught(self) -> list[Run]:
        """Those that do not beat the bigram, and have no opinion."""
        return [self.runs[name] for name in CHARACTERS if not self.runs[name].variant.beats_bigram]

    @property
    def at_equal_tokens(self) -> Standing:
        """The three sizes after as many characters: those of the shortest training."""
        steps = float(min(run.steps for run in self.trunks.values()))
        return self._standing(dict.fromkeys(SIZES, steps), dict.fromkeys(SIZES, 0.0))

    @property
    def at_equal_time(self) -> Standing | None:
        """Trainings that were finished in the time of the shortest; None where a size has finished none so short."""
        steps = self._steps_in_time
        if self.none_so_short:
            return None
        errors = {size: self.timing_error(size) + self.reading_error(size, steps[size]) for size in SIZES}
        return self._standing(steps, errors)

    @property
    def none_so_short(self) -> list[str]:
        """The sizes that have finished no training within equal time."""
        return [
            name for name, run in self.trunks.items() if run.variant.finished_after(self._steps_in_time[name]) is None
        ]

    @property
    def _steps_in_time(self) -> dict[str, float]:
        return {size: min(self.budget / run.step.median, float(run.steps)) for size, run in self.trunks.items()}

    def timing_error(self, size: str) -> float:
        """How far the quartiles of its step times leave a size's loss at a given time open, nats."""
        run = self.trunks[size]
        curves = run.variant.curves
        ends = [mean_std([c.finished_losses[place] for c in curves])[0] for place in (0, -1)]
        ratio = math.log(curves[0].finished_steps[-1] / curves[0].finished_steps[0])
        return abs((ends[1] - ends[0]) / ratio) * math.log(run.step.high / run.step.low) / 2 if ratio else 0.0

    def reading_error(self, size: str, steps: float) -> float:
        """What a straight line in the steps reads else than one in their logarithm, between two finished lengths, nats.

        Raises:
            ValueError: the size has finished no training so short.
        """
        variant = self.trunks[size].variant
        read = variant.finished_after(steps)
        if read is None:
            raise ValueError(f"{size} has finished no training as short as {steps:g} steps")
        line = [float(np.interp(steps, curve.finished_steps, curve.finished_losses)) for curve in variant.curves]
        return abs(mean_std(line)[0] - mean_std(read)[0])

    def _standing(self, steps: dict[str, float], errors: dict[str, float]) -> Standing:
        ended = {size: run.variant.finished_after(steps[size]) or () for size, run in self.trunks.items()}
        losses = dict(sorted(ended.items(), key=lambda item: mean_std(item[1])[0]))
        pairs = list(itertools.combinations(losses, 2))
        untaught = tuple(size for size in losses if max(losses[size], default=0.0) >= self.base.bigram)
        judged = []
        for pair in pairs:
            better, worse = pair
            in_view = {size: ended for size, ended in losses.items() if size in pair or size not in untaught}
            found = self._compared(in_view, worse, better, errors[better] + errors[worse])
            judged.append(replace(found, verdict="untrained") if set(pair) & set(untaught) else found)
        corrected = zip(pairs, holm(judged), strict=True)
        return Standing(losses, steps, tuple((*pair, found) for pair, found in corrected), untaught)

    def _compared(self, losses: dict[str, tuple[float, ...]], worse: str, better: str, error: float) -> Comparison:
        """Trainings of one seed read the same batches and are pairs, where all sizes have the same seeds."""

        def open_by(found: Comparison) -> Comparison:
            return widened(found, [found.difference - error, found.difference + error])

        if not self.in_pairs:
            return open_by(compare_pooled(losses, worse, better))
        rest = [ended for size, ended in losses.items() if size not in (worse, better)]
        together = compare_blocks([losses[worse], losses[better], *rest])[0]
        return unanimous(open_by(together), open_by(compare_paired(losses[worse], losses[better])))

    @property
    def in_pairs(self) -> bool:
        """Whether the sizes have their seeds in common."""
        return len({run.variant.seeds for run in self.trunks.values()}) == 1

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        metrics: dict[str, float | int] = {}
        for name, run in self.runs.items():
            key = name.replace(", ", "_").replace(" ", "_")
            craft = run.craft
            metrics |= {
                f"{key}_parameters": run.parameters,
                f"{key}_steps": run.steps,
                f"{key}_epochs": run.characters / self.epoch,
                f"{key}_training_loss_nats": run.training_loss,
                f"{key}_validation_loss_nats": mean_std(run.variant.losses)[0],
                f"{key}_validation_nats_per_character": run.loss,
                f"{key}_bits_per_character": run.loss / math.log(2),
                f"{key}_validation_perplexity_per_character": math.exp(run.loss),
                f"{key}_seconds_per_epoch": self.epoch / run.characters_per_token / run.rate,
                f"{key}_tokens_per_second": run.rate,
                f"{key}_training_seconds": run.seconds,
                f"{key}_real_words_share": mean_std(craft.spelled)[0],
                f"{key}_known_pairs_share": mean_std(craft.paired)[0],
                f"{key}_repeated_8grams_share": mean_std(craft.repeated)[0],
                f"{key}_longest_copied_run_characters": mean_std(craft.copied)[0],
            }
            if len(run.losses) > 1:
                metrics[f"{key}_validation_loss_nats_std"] = mean_std(run.variant.losses)[1]
        metrics |= {"bigram_nats": self.base.bigram, "best_ngram_nats": self.base.ngram, "best_n": self.base.n}
        for name, standing in (("tokens", self.at_equal_tokens), ("time", self.at_equal_time)):
            for size, losses in standing.losses.items() if standing else ():
                metrics[f"{size}_loss_at_equal_{name}_nats"], spread = mean_std(losses)
                metrics[f"{size}_steps_at_equal_{name}"] = standing.steps[size] if standing else 0.0
                if len(losses) > 1:
                    metrics[f"{size}_loss_at_equal_{name}_nats_std"] = spread
        metrics["heldout_known_pairs_share"] = mean_std(self.heldout.paired)[0]
        own = self.runs["small"].vocab_size
        for count in self.counts:
            if count.vocab_size != own:
                metrics[f"{count.size}_parameters_vocab_{count.vocab_size}"] = count.closed_form
        return metrics
