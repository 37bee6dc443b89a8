"""What is to happen, and when: a plan that a seed repeats."""

import random
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

Kill = Literal["training", "run", "worker", "host"]
Outage = Literal["prefect", "mlflow", "store away", "store busy", "disk", "network", "clock"]

KILLS: tuple[Kill, ...] = ("training", "run", "worker", "host")
OUTAGES: tuple[Outage, ...] = ("prefect", "mlflow", "store busy", "store away", "disk", "network", "clock")
SAID = {
    "training": "a process in the middle of a training",
    "run": "a process of any run, at any time",
    "worker": "a worker, its run lives on",
    "host": "a worker and its run",
    "prefect": "the Prefect server, killed",
    "mlflow": "the MLflow server, killed",
    "store busy": "the store answers 503",
    "store away": "the store, killed",
    "disk": "the disk of a host, full",
    "network": "the network of a host, cut",
    "clock": "the date of a host, wrong",
}
# Seconds. Those of Prefect's: shorter than its clients try by themselves (six seconds here, a minute as Prefect is
# set), longer, and ten times as long.
AWAY: dict[Outage, tuple[float, ...]] = {
    "prefect": (3.0, 9.0, 60.0),
    "mlflow": (5.0, 20.0, 60.0),
    "store busy": (5.0, 20.0, 40.0),
    "store away": (2.0, 10.0, 30.0),
    "disk": (3.0, 15.0),
    "network": (5.0, 20.0, 40.0),  # shorter than a lease lives without a beat, or two rightly do the same work
    "clock": (10.0, 30.0, 60.0),
}
JUMPS = (-3600.0, -90.0, 90.0, 3600.0)  # seconds by which a date goes wrong


@dataclass(frozen=True)
class Fault:
    """One of them: due so many seconds after the one before it; an outage lasts ``seconds``."""

    kind: Kill | Outage
    after: float
    seconds: float = 0.0
    pool: str = "gpu"  # of a worker or a host
    fresh: bool = False  # of a host: a new one takes its place, and its disk is gone
    pause: float = 0.0  # until a worker is started again
    jump: float = 0.0  # of a clock, seconds

    @property
    def is_kill(self) -> bool:
        """Whether it is a kill, and no outage."""
        return self.kind in KILLS


def planned(seed: int, minutes: float, kills: int, outages: int, *, without: Collection[Outage] = ()) -> list[Fault]:
    """So many faults of all kinds but those ``without``, in an order and at distances by chance, over some minutes.

    Each kind comes about as often as the others, and one worker in four is that of a chapter. The outages of one kind
    take each length in turn, and clocks each jump.
    """
    of_outages = [kind for kind in OUTAGES if kind not in without]
    chance = random.Random(seed)
    kinds: list[Kill | Outage] = [KILLS[i % len(KILLS)] for i in range(kills)]
    kinds += [of_outages[i % len(of_outages)] for i in range(outages)]
    chance.shuffle(kinds)
    lengths = {kind: iter(_in_turn(chance, seconds)) for kind, seconds in AWAY.items()}
    jumps = iter(_in_turn(chance, JUMPS))
    mean = 60 * minutes / max(1, len(kinds))
    faults = []
    for kind in kinds:
        after = mean * chance.uniform(0.4, 1.6)
        if kind in KILLS:
            pool, fresh = chance.choice(["gpu", "gpu", "gpu", "cpu"]), chance.random() < 0.5
            faults.append(Fault(kind, after, pool=pool, fresh=fresh, pause=chance.uniform(0.0, 5.0)))
        else:
            jump = next(jumps) if kind == "clock" else 0.0
            faults.append(Fault(kind, after, next(lengths[kind]), jump=jump))  # type: ignore[index]
    return faults


def _in_turn(chance: random.Random, seconds: tuple[float, ...]) -> list[float]:
    """The lengths again and again, each round in another order."""
    return [length for _ in range(100) for length in chance.sample(seconds, len(seconds))]
