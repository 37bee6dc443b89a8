"""Where steps run: in this process, in a pool of processes on this machine, or on Prefect work pools."""

import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for_all
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from contextvars import copy_context
from itertools import count
from typing import Any
from uuid import UUID

from prefect import State, Task
from prefect.futures import PrefectFuture
from prefect.task_runners import ProcessPoolTaskRunner

from flows.execution.engine import Finished
from flows.execution.graph import Node
from flows.execution.outages import outlasting
from flows.execution.plan import measured_elsewhere
from tasks.cache.keys import Step
from tasks.cache.progress import STOP
from tasks.cache.urls import without_credentials
from tasks.failures import Failure, kind_of, memory_hint
from tasks.place import Place
from tasks.steps import cached_task, do_ahead, drop_checkpoints, save_storage

STOP_SECONDS = 20
CHILDREN = 256  # steps on pools that one run waits for at once; the largest chapter has fewer
# Of trainings that one flow run takes, as estimated; a process on a worker takes about as long to begin and to end.
TOGETHER_SECONDS = 20.0


def _finished(node: Node, step: Step, state: State[Any], place: Place) -> Finished:
    """What a task run's final state means.

    The record is read from the store rather than from the state: a state holds it only within one process.
    """
    if state.is_completed():
        record = place.open_store().record(step.key, kind=node.kind)
        if record is not None:
            drop_checkpoints(place, step.key)
            return Finished(node, record, shared=state.name == "Cached")
        where = without_credentials(place.store)
        return Finished(node, Failure(f"{node.title} completed, but its record cannot be read back from {where}"))
    return Finished(node, _failure(state))


def _ahead(state: State[Any], seconds: float) -> dict[str, Any] | Failure:
    return {"seconds": seconds} if state.is_completed() else _failure(state)


def _failure(state: State[Any]) -> Failure:
    try:
        result = state.result(raise_on_failure=False)
    except Exception as error:
        result = error
    text = str(result) if isinstance(result, Exception) and str(result) else state.message or repr(state)
    if state.is_crashed():
        return Failure(text, "crashed")
    return Failure(text, kind_of(result) if isinstance(result, Exception) else "failed")


def _ended_by(error: BaseException) -> Failure:
    """What became of a step whose watcher caught this.

    Whatever ends a thread must be told, or the chapter waits for ever. A ``SystemExit`` is Rich's, which cannot print,
    and a panic of code in Rust is no ``Exception`` either: another attempt may succeed.
    """
    return Failure(f"{type(error).__name__}: {error}", kind_of(error) if isinstance(error, Exception) else "crashed")


class Inline:
    """Runs each step in this process, one after the other. For workers, which are processes of their own."""

    def __init__(self, place: Place) -> None:
        self.place = place
        # A flow that fails stays failed, so a server that goes when one has just begun must not make it fail.
        self.storage = outlasting(threading.Event())(save_storage, place)
        self._done: list[Finished] = []

    def capacity(self) -> int:
        """One at a time."""
        return 0 if self._done else 1

    def submit(self, node: Node, step: Step) -> None:
        """Run the step to its end."""
        task: Any = cached_task(step, self.place, self.storage)
        state = task(step, dict(node.local), self.place, return_state=True)
        self._done.append(_finished(node, step, state, self.place))

    def wait(self) -> list[Finished]:
        """What has ended."""
        done, self._done = self._done, []
        return done


class LocalPool:
    """A pool of processes on this machine.

    Each place of the pool is a Prefect process pool of one process: a process that is killed breaks the pool
    it is in and takes the futures of all its steps with it, so nobody else shares it. Use as a context manager.
    """

    def __init__(self, place: Place, slots: int) -> None:
        self.place = place
        self.storage = save_storage(place)
        self._slots, self._free = slots, list(range(slots))
        self._runners: dict[int, ProcessPoolTaskRunner] = {}
        self.task_runs: dict[str, UUID] = {}  # by node
        self._done: queue.Queue[tuple[int, Finished]] = queue.Queue()

    def __enter__(self) -> "LocalPool":
        (self.place.progress / STOP).unlink(missing_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is not None:  # let trainings write their checkpoints; a second Ctrl-C does not wait for them
                with suppress(OSError):  # on a full disk they are killed as they are, and go on from the last one
                    self.place.progress.mkdir(parents=True, exist_ok=True)
                    (self.place.progress / STOP).touch()
                end = time.monotonic() + STOP_SECONDS
                while len(self._free) < self._slots and time.monotonic() < end:
                    with suppress(queue.Empty):
                        self._free.append(self._done.get(timeout=0.5)[0])
        finally:
            for runner in self._runners.values():
                _close(runner, kill=kind is not None)
            (self.place.progress / STOP).unlink(missing_ok=True)

    def capacity(self) -> int:
        """Places that are free."""
        return len(self._free)

    def submit(self, node: Node, step: Step) -> None:
        """Hand a step to a free place."""
        task = cached_task(step, self.place, self.storage)
        future = self._send(task, node, step, lambda state: _finished(node, step, state, self.place))
        self.task_runs[node.name] = future.task_run_id

    def prepare(self, node: Node, step: Step) -> None:
        """Hand what can be done ahead of a step to a free place."""
        task, began = do_ahead.with_options(task_run_name=node.part_ahead.title), time.monotonic()
        self._send(task, node, step, lambda state: Finished(node, _ahead(state, time.monotonic() - began)))

    def _send(
        self, task: Task[..., Any], node: Node, step: Step, ended: Callable[[State[Any]], Finished]
    ) -> PrefectFuture[Any]:
        slot = self._free.pop(0)
        if slot not in self._runners:
            self._runners[slot] = ProcessPoolTaskRunner(max_workers=1, initializer=_begin)
            self._runners[slot].__enter__()
        parameters = {"step": step, "local": dict(node.local), "place": self.place}
        future: PrefectFuture[Any] = self._runners[slot].submit(task, parameters)
        threading.Thread(target=self._watch, args=(slot, node, future, ended), daemon=True).start()
        return future

    def _watch(
        self, slot: int, node: Node, future: PrefectFuture[Any], ended: Callable[[State[Any]], Finished]
    ) -> None:
        try:
            future.wait()
            finished = ended(future.state)
        except BrokenProcessPool as error:
            died = f"{node.title}: its process died ({error})"
            finished = Finished(node, Failure(died + memory_hint(died), "crashed"))
        except BaseException as error:
            finished = Finished(node, _ended_by(error))
        self._done.put((slot, finished))

    def wait(self) -> list[Finished]:
        """Wait for a step to end; a broken place is given up, the next step there gets a new process."""
        found = [self._get()]
        while not self._done.empty():
            found.append(self._get())
        return found

    def _get(self) -> Finished:
        while True:
            try:  # with a timeout, so that Ctrl-C gets through
                slot, finished = self._done.get(timeout=0.5)
                break
            except queue.Empty:
                continue
        crashed = isinstance(finished.result, Failure) and finished.result.kind == "crashed"
        if crashed and slot in self._runners:
            _close(self._runners.pop(slot), kill=True)
        self._free.append(slot)
        return finished


def _begin() -> None:
    """What each process of the pool does first.

    Ctrl-C goes to every process of the terminal, and the parent decides what to do about it. A parent that was killed
    decides nothing any more: without it the process ends, and what it was training goes on from the last checkpoint.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True, name="watch parent").start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _close(runner: ProcessPoolTaskRunner, *, kill: bool) -> None:
    """Shut a process pool down, without waiting for its step if it is to be killed."""
    if kill:
        for process in (getattr(runner._executor, "_processes", None) or {}).values():
            process.kill()
        messages = getattr(runner, "_subprocess_message_queue", None)
        if messages is not None:  # who was killed while writing to it holds its lock for ever
            messages.cancel_join_thread()
    runner.__exit__(None, None, None)


def _not_under_its_key(node: Node, step: Step) -> str:
    return (
        f"{node.title} was completed by a worker, but not under the key {step.key[:12]}: worker and parent "
        "must share the store, the code, the device type and the versions of Python and of the packages"
    )


Call = Callable[[Sequence[Node], threading.Event], Future[Any]]
"""Starts a flow run for one step, or for several trainings; its future raises if the run does not complete."""


class Deployed:
    """Hands steps that run models to the deployments ``train-model`` and ``exercise``; runs the others itself.

    ``call`` starts a flow run of a deployment. Once the event that it is given is set, the run is to be cancelled.
    Short trainings are handed over several at a time: a process takes longer to start than they take. At most
    ``limit`` steps are waited for at once; how many work at once is the pools' affair. Use as a context manager:
    whoever leaves it waits for no run, but for those to be cancelled that go on.
    """

    def __init__(self, place: Place, call: Call, limit: int = CHILDREN) -> None:
        self.place, self._call = place, call
        self._inline = Inline(place)
        self._here = ThreadPoolExecutor(1, "here")  # the pools work meanwhile
        self._for_here: queue.PriorityQueue[tuple[bool, int, Node, Step]] = queue.PriorityQueue()
        self._count = count()
        self._short: list[tuple[Node, Step]] = []
        self._free = limit
        self._done: queue.Queue[list[Finished]] = queue.Queue()
        self._stop = threading.Event()
        self._begun: set[Future[Any]] = set()

    def __enter__(self) -> "Deployed":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        wait_for_all(self._begun, STOP_SECONDS)
        self._here.shutdown(wait=False, cancel_futures=True)

    def capacity(self) -> int:
        """Steps that may be waited for beside those that are."""
        return self._free

    def submit(self, node: Node, step: Step) -> None:
        """Begin a step; a short training with the next ``wait``."""
        self._free -= 1
        if not node.models:
            # An exercise can wait; for a text, or its tokens, the pools may be waiting.
            self._for_here.put((node.kind == "exercise", next(self._count), node, step))
            self._here.submit(copy_context().run, self._run_here)  # as steps of this flow run
        elif node.makes_model and node.seconds < TOGETHER_SECONDS:
            self._short.append((node, step))
        else:
            self._begin([(node, step)])

    def _run_here(self) -> None:
        _, _, node, step = self._for_here.get()
        try:
            self._inline.submit(node, step)
            found = self._inline.wait()
        except BaseException as error:
            found = [Finished(node, _ended_by(error))]
        self._done.put(found)

    def _begin(self, steps: Sequence[tuple[Node, Step]]) -> None:
        future = self._call([node for node, _ in steps], self._stop)
        self._begun.add(future)
        future.add_done_callback(self._begun.discard)
        threading.Thread(target=self._watch, args=(steps, future), daemon=True).start()

    def _watch(self, steps: Sequence[tuple[Node, Step]], future: Future[Any]) -> None:
        failure = None
        try:
            future.result()
        except BaseException as error:
            # Never "crashed": the flow run has made lost artifacts again itself, and was started again in vain.
            failure = Failure(f"{type(error).__name__}: {error}")
        # All of them at once: as many places become free, and the trainings that take them share a run again.
        self._done.put([self._ended(node, step, failure) for node, step in steps])

    def _ended(self, node: Node, step: Step, failure: Failure | None) -> Finished:
        try:
            store = self.place.open_store()
            record = store.record(step.key, kind=node.kind) or measured_elsewhere(store, node, step)
        except Exception as error:
            return Finished(node, failure or Failure(f"{type(error).__name__}: {error}"))
        return Finished(node, record or failure or Failure(_not_under_its_key(node, step)))

    def wait(self) -> list[Finished]:
        """Wait for a step to end, with those that share its run."""
        for steps in together(self._short):
            self._begin(steps)
        self._short = []
        while True:
            try:
                finished = self._done.get(timeout=0.5)
                break
            except queue.Empty:
                continue
        self._free += len(finished)
        return finished


def together(steps: Sequence[tuple[Node, Step]]) -> Iterator[list[tuple[Node, Step]]]:
    """Short trainings in groups, in order, each of about ``TOGETHER_SECONDS``."""
    group: list[tuple[Node, Step]] = []
    for node, step in steps:
        group.append((node, step))
        if sum(member.seconds for member, _ in group) >= TOGETHER_SECONDS:
            yield group
            group = []
    if group:
        yield group
