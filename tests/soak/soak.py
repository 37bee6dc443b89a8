"""Chapters on two GPU workers, and a worker for each chapter, while all they rest on fails, until all have ended."""

import json
import os
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from flows import servers
from flows.execution.sweep import LOOK
from flows.surroundings import without
from reports.words import plural
from tests.flows.conftest import ROOT
from tests.soak.chapters import Chapter, Prefect, silence
from tests.soak.clock import Clock, built
from tests.soak.disk import fill, may_mount, small_disk
from tests.soak.faults import Fault, Outage
from tests.soak.machines import MARK, RETRIES, Host, MLflowServer, ObjectServer, PrefectServer, Service, marked
from tests.soak.network import Network, may_have_networks
from tests.soak.objects import installed

POLL_SECONDS = 0.5
GIVEN_UP = 6  # times that one chapter may be started again before the soak says that it never ends


@dataclass(frozen=True)
class Course:
    """What a soak is: its faults, and the chapters meanwhile."""

    faults: Sequence[Fault]
    only: Sequence[str] = ("21.5", "21.11", "21.15")
    budget: float = 4.0  # of the first chapter; the longest training then takes five to ten seconds
    at_once: int = 2  # chapters, each with a worker for itself
    silence: float | None = None  # see ``tests.soak.chapters.silence``
    patience: float = 3_600.0  # seconds for everything after the last fault, and for any fault to find its victim


@dataclass
class Told:
    """What happened."""

    kills: Counter[str] = field(default_factory=Counter)
    outages: Counter[str] = field(default_factory=Counter)
    away: Counter[str] = field(default_factory=Counter)  # seconds
    ended: Counter[str] = field(default_factory=Counter)  # workers and servers that nobody had killed
    swept: int = 0
    lines: list[str] = field(default_factory=list)


class Soak:
    """The processes, the clock and the dice; a context manager."""

    def __init__(self, folder: Path, course: Course, seed: int, say: Callable[[str], None] = print) -> None:
        self.folder, self.course, self._say = folder, course, say
        self.mark = uuid.uuid4().hex
        self.told = Told()
        self.chapters: list[Chapter] = []
        self._chance = random.Random(seed)
        self._done_at_last_kill = 0
        self._due: list[tuple[float, Callable[[], None]]] = []  # what is to be done later, by the clock
        self._begun = self._sweep_at = time.monotonic()
        self.prefect = PrefectServer(folder / "prefect", self.mark)
        self.mlflow = MLflowServer(folder / "mlflow", self.mark)
        self.store = ObjectServer(folder / "store", self.mark)
        self.asked = Prefect(self.prefect.url)
        shared = {
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), str(installed(folder / "site"))]),
            "PREFECT_API_URL": self.prefect.url,
            "MLFLOW_TRACKING_URI": self.mlflow.root,
            "CHAPTER_STORE": self.store.url,
        }
        pools = {f"chapters-{n}": "cpu" for n in range(course.at_once)} | {"gpu-0": "gpu", "gpu-1": "gpu"}
        self.hosts = [Host(pool, folder / name, shared, self.mark) for name, pool in pools.items()]
        self._wanted = {host.folder.name: True for host in self.hosts}  # whether its worker is to be there
        self._down: set[str] = set()  # servers that are away on purpose
        self._undo = ExitStack()

    # --- Beginning and end ---

    def __enter__(self) -> "Soak":
        with ExitStack() as undo:
            undo.callback(self.kill_all)
            undo.enter_context(silence(self.course.silence))
            kinds = {fault.kind for fault in self.course.faults}
            if "disk" in kinds:
                undo.enter_context(small_disk(self.hosts[-1].folder))
            if "clock" in kinds:
                self._give_clocks()
            if "network" in kinds:
                self._give_networks()
            for service in self.services:
                service.start()
            for service in self.services:
                service.wait()
            undo.enter_context(self._environment())
            self.asked.set_up(self.course.only)
            for host in self.hosts:
                host.start()
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def _give_clocks(self) -> None:
        library = built(self.folder / "clocks")
        assert library, "no clock can be set here"
        for host in self.hosts:
            host.clock = Clock(library, self.folder / "clocks" / host.folder.name)
            host.clock.set(0.0)

    def _give_networks(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), MARK: self.mark}
        for host in self.hosts:
            host.network = Network([service.port for service in self.services], environment, self.folder)

    @property
    def services(self) -> tuple[Service, ...]:
        """The three servers."""
        return self.prefect, self.mlflow, self.store

    @contextmanager
    def _environment(self) -> Iterator[None]:
        ours = {"PREFECT_API_URL": self.prefect.url, "PREFECT_HOME": str(self.folder / "client"), **RETRIES}
        with servers._environment({**without(os.environ, "PREFECT_"), **ours}):
            yield

    def kill_all(self) -> None:
        """Whatever is left."""
        for process in marked(self.mark):
            process.kill()
        for owner in (*self.services, *self.hosts):
            if owner.process is not None:
                owner.process.wait()

    def close(self) -> None:
        """End workers, then servers, as their operator does."""
        for host in self.hosts:
            if host.process is not None:
                host.process.terminate()
        for host in self.hosts:
            host.stop()
        for service in self.services:
            service.kill()
        for host in self.hosts:
            if host.network is not None:
                host.network.close()

    # --- The loop ---

    def run(self) -> None:
        """All faults, and then peace until every chapter has completed.

        Raises:
            AssertionError: a chapter does not end, or a fault finds no victim.
        """
        faults = list(self.course.faults)
        due, limit = time.monotonic() + (faults[0].after if faults else 0.0), self._limit()
        while faults or self._due or not all(chapter.completed for chapter in self.chapters):
            assert time.monotonic() < limit, f"nothing more happens: {self._standing(faults)}"
            self._do_what_is_due()
            self._tend(more=bool(faults))
            if faults and time.monotonic() >= due and self._one_befalls(faults):
                due, limit = time.monotonic() + (faults[0].after if faults else 0.0), self._limit()
            time.sleep(POLL_SECONDS)

    def settle(self) -> None:
        """Wait until no run of ours is under way any more, of those either that nobody waits for."""
        limit = self._limit()
        while True:
            self._do_what_is_due()
            self._tend(more=False)
            if self._is_up(self.prefect) and not self._due:
                left = ["the server does not answer"]
                with self._server_may_be_slow():
                    left = [run.name for run in self.asked.unended()]
                if not left:
                    return
                assert time.monotonic() < limit, f"runs without end: {left}"
            time.sleep(2 * POLL_SECONDS)

    def again(self, chapter: Chapter) -> Chapter:
        """Another run of a chapter that has completed, in peace."""
        second, limit = Chapter(chapter.only, chapter.budget), self._limit()
        self.chapters.append(second)
        while not second.completed:
            assert time.monotonic() < limit, f"nothing more happens: {self._standing([])}"
            self._tend(more=False)
            time.sleep(POLL_SECONDS)
        return second

    def _limit(self) -> float:
        return time.monotonic() + self.course.patience

    def _standing(self, faults: Sequence[Fault]) -> str:
        left = [chapter for chapter in self.chapters if not chapter.completed]
        return f"{len(faults)} faults left, chapters {left}, in {self.folder}"

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        self._due.append((time.monotonic() + seconds, work))

    def _do_what_is_due(self) -> None:
        now = time.monotonic()
        ready = [entry for entry in self._due if entry[0] <= now]
        self._due = [entry for entry in self._due if entry[0] > now]
        for _, work in ready:
            work()

    # --- What an operator does ---

    def _tend(self, *, more: bool) -> None:
        """Workers and servers that have ended by themselves are started again, and chapters that were given up."""
        for host in self.hosts:
            if self._wanted[host.folder.name] and not host.is_alive():
                self._note(f"worker {host.folder.name} has ended by itself")
                self.told.ended["worker"] += 1
                host.start()
        for service in self.services:
            if service.name not in self._down and service.process and service.process.poll() is not None:
                self._note(f"server {service.name} has ended by itself")
                self.told.ended[service.name] += 1
                service.start()
        if self._is_up(self.prefect):
            with self._server_may_be_slow():
                self._tend_chapters(more=more)
                if time.monotonic() >= self._sweep_at:
                    self._sweep()

    def _tend_chapters(self, *, more: bool) -> None:
        if more and sum(not chapter.completed for chapter in self.chapters) < self.course.at_once:
            self._note("another chapter is asked for")
            self.chapters.append(Chapter(self.course.only, self.course.budget + len(self.chapters) / 4))
        for chapter in self.chapters:
            if chapter.completed:
                continue
            if chapter.run is None:
                self.asked.start(chapter)
                continue
            standing, said = self.asked.standing(chapter)
            if standing == "open":
                continue
            self._note(f"chapter of budget {chapter.budget:g}: {standing}")
            if standing == "completed":
                chapter.completed = True
                continue
            chapter.give_up(f"{standing}, {said}")
            assert len(chapter.given_up) <= GIVEN_UP, chapter.given_up

    def _is_up(self, service: Service) -> bool:
        return service.name not in self._down and service.answers()

    # --- Faults ---

    def _one_befalls(self, faults: list[Fault]) -> bool:
        """Let the first fault happen, or else the first of those after it for which somebody is there."""
        for place, fault in enumerate(faults):
            if self._befalls(fault):
                del faults[place]
                return True
        return False

    def _befalls(self, fault: Fault) -> bool:
        """Let a fault happen; False if there is nobody for it yet."""
        happened = self._kill(fault) if fault.is_kill else self._outage(fault)
        if happened:
            (self.told.kills if fault.is_kill else self.told.outages)[fault.kind] += 1
        return happened

    def _kill(self, fault: Fault) -> bool:
        """Not before something was done since the last one: on a slow machine nothing would ever come to its end."""
        done = self.store.work_done()
        if done == self._done_at_last_kill or not self._hit(fault):
            return False
        self._done_at_last_kill = done
        return True

    def _hit(self, fault: Fault) -> bool:
        if fault.kind == "training":
            return self._kill_process(fault, self._trainings())
        if fault.kind == "run":
            return self._kill_process(fault, self._runs())
        busy = [host for host in self.hosts if host.pool == fault.pool and host.is_alive() and host.runs()]
        if not busy:
            return False
        host = self._chance.choice(busy)
        self._note(f"{fault.kind} {host.folder.name} is killed{', its disk goes with it' * self._goes(fault)}")
        host.kill(with_runs=fault.kind == "host")
        if self._goes(fault):
            host.wipe()
        self._wanted[host.folder.name] = False
        self._later(fault.pause, lambda: self._begin(host))
        return True

    @staticmethod
    def _goes(fault: Fault) -> bool:
        return fault.kind == "host" and fault.fresh

    def _begin(self, host: Host) -> None:
        host.start()
        self._wanted[host.folder.name] = True

    def _kill_process(self, fault: Fault, found: Sequence[tuple[str, psutil.Process]]) -> bool:
        if not found:
            return False
        name, process = self._chance.choice(found)
        try:
            process.kill()
        except psutil.NoSuchProcess:
            return False
        self._note(f"{name} is killed")
        return True

    def _trainings(self) -> list[tuple[str, psutil.Process]]:
        """Trainings between a tenth and nine tenths, and their processes."""
        found = []
        for host in self.hosts:
            for file in sorted(host.outputs.glob("progress/*/*.json")):
                try:
                    state = json.loads(file.read_text())
                    process = psutil.Process(state["pid"])
                except (OSError, ValueError, psutil.NoSuchProcess):
                    continue
                if state["name"].startswith("train ") and 0.1 <= state["fraction"] <= 0.9:
                    found.append((f"{state['name']} at {state['fraction']:.0%}", process))
        return found

    def _runs(self) -> list[tuple[str, psutil.Process]]:
        """The processes of all runs, of those also whose worker has died."""
        return [("a run", process) for process in marked(self.mark) if _is_run(process)]

    def _outage(self, fault: Fault) -> bool:
        if fault.kind == "disk":
            return self._fill_the_disk(fault)
        if fault.kind in ("network", "clock"):
            return self._at_a_host(fault)
        name = fault.kind.split()[0]
        service = next(service for service in self.services if service.name == name)
        if not self._is_up(service) or self.store.is_busy or not self._runs():
            return False
        self._note(f"{fault.kind} for {fault.seconds:g} s")
        if fault.kind == "store busy":
            self.store.busy(True)
            self._later(fault.seconds, lambda before=self.store.refused: self._end_business(before))
        else:
            self._down.add(name)
            service.kill()
            self._later(fault.seconds, lambda: self._up(service))
        self.told.away[fault.kind] += fault.seconds  # type: ignore[assignment]
        return True

    def _fill_the_disk(self, fault: Fault) -> bool:
        """While something runs there; what fails of that is asked for again."""
        host = self.hosts[-1]
        if not host.is_alive() or not host.runs():
            return False
        self._note(f"the disk of {host.folder.name} is full for {fault.seconds:g} s")
        filler = fill(host.folder)
        self._later(fault.seconds, lambda: filler.unlink(missing_ok=True))
        self.told.away[fault.kind] += fault.seconds  # type: ignore[assignment]
        return True

    def _at_a_host(self, fault: Fault) -> bool:
        """Its network is cut, or its date is wrong, while something runs there."""
        busy = [host for host in self.hosts if host.is_alive() and host.runs()]
        if not busy:
            return False
        host = self._chance.choice(busy)
        if fault.kind == "network":
            assert host.network is not None
            self._note(f"the network of {host.folder.name} is cut for {fault.seconds:g} s")
            self._set(host.network.cut, True, False, fault.seconds)
        else:
            assert host.clock is not None
            self._note(f"the date of {host.folder.name} is {fault.jump:+g} s off for {fault.seconds:g} s")
            self._set(host.clock.set, fault.jump, 0.0, fault.seconds)
        self.told.away[fault.kind] += fault.seconds  # type: ignore[assignment]
        return True

    def _set(self, change: Callable[[Any], None], now: Any, then: Any, seconds: float) -> None:
        change(now)
        self._later(seconds, lambda: change(then))

    def _end_business(self, before: int) -> None:
        """Not before somebody has met it: there may be nobody for some seconds."""
        if self.store.refused > before:
            self.store.busy(False)
        else:
            self._later(POLL_SECONDS, lambda: self._end_business(before))

    def _up(self, service: Service) -> None:
        service.start()
        self._down.discard(service.name)
        if service is self.prefect:
            self.asked.sweeper.forget()

    def _sweep(self) -> None:
        """As ``chapter ui`` does for as long as its server is up."""
        self._sweep_at = time.monotonic() + LOOK.total_seconds()
        found = self.asked.sweep()
        self.told.swept += found
        if found:
            self._note(f"{plural(found, 'run')} found that no automation had noticed")

    @contextmanager
    def _server_may_be_slow(self) -> Iterator[None]:
        try:
            yield
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500:
                raise
            self._note(f"the Prefect server did not answer: {type(error).__name__}")

    def _note(self, line: str) -> None:
        line = f"{(time.monotonic() - self._begun) / 60:6.2f} min  {line}"
        self.told.lines.append(line)
        self._say(line)


def _is_run(process: psutil.Process) -> bool:
    try:
        return any("prefect.engine" in word for word in process.cmdline())
    except psutil.Error:
        return False


def cannot_be_had(folder: Path) -> list[Outage]:
    """Outages that this user, or this machine, does not allow; tried below ``folder``."""
    can: dict[Outage, bool] = {
        "disk": may_mount(folder / "disk"),
        "network": may_have_networks(ROOT),
        "clock": built(folder / "clocks") is not None,
    }
    return [kind for kind, there in can.items() if not there]
