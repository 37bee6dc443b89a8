"""The chapters of a soak on its Prefect server: deployed, started, asked for, started again where one was given up."""

import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType

from flows import recovery
from flows.deployments import deployment_name
from flows.execution import sweep as sweeping
from flows.pools import ensure_pools
from flows.recovery import FLOWS, RESTARTS, ensure_crash_detection
from tests.soak.undisturbed import PRECISION, PROFILE, SOURCES

RUNS = {"working_dir": ".", "env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}}  # as in prefect.yaml
TAKEN_UP = timedelta(minutes=3)  # after a crash, or at the latest after the sweep that follows an outage
Standing = Literal["open", "completed", "failed", "crashed too often", "forgotten"]
UNENDED = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]


@dataclass
class Chapter:
    """A run of ``full-chapter`` and, where it did not complete, those that took its place."""

    only: Sequence[str]
    budget: float
    run: uuid.UUID | None = None  # the latest one
    given_up: list[str] = field(default_factory=list)  # what those said that did not complete
    completed: bool = False
    name: str = field(default_factory=lambda: uuid.uuid4().hex)

    def give_up(self, why: str) -> None:
        """Another run is to take its place."""
        self.given_up.append(why)
        self.run = None

    @property
    def parameters(self) -> dict[str, Any]:
        """What it is asked for."""
        asked = {"profile": PROFILE, "sources": SOURCES, "precision": PRECISION}
        return {**asked, "only": list(self.only), "budget": self.budget}


@contextmanager
def silence(seconds: float | None) -> Iterator[None]:
    """Meanwhile a run counts as dead after so many seconds without a heartbeat, instead of ``recovery.SILENCE``."""
    before = recovery.SILENCE
    if seconds is not None:
        recovery.SILENCE = sweeping.SILENCE = timedelta(seconds=seconds)
    try:
        yield
    finally:
        recovery.SILENCE = sweeping.SILENCE = before


class Prefect:
    """What is asked of the server; each method may fail while it is away."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.sweeper = sweeping.Sweeper()

    def _client(self) -> SyncPrefectClient:
        return SyncPrefectClient(api=self.url)

    def set_up(self, only: Sequence[str]) -> None:
        """Pools, automations, and the deployments that a chapter of these exercises needs."""
        ensure_pools()
        with self._client() as client:
            ensure_crash_detection(client)
            wanted = [("full-chapter", "full-chapter", "cpu", "full_chapter", {})]
            wanted += [("train-model", "train-model", "gpu", "train_model", {})]
            wanted += [("exercise", deployment_name(id), "gpu", "exercise", {"id": id}) for id in only]
            for flow, name, pool, function, parameters in wanted:
                client.create_deployment(
                    flow_id=client.create_flow_from_name(flow),
                    name=name,
                    entrypoint=f"flows.chapter.{function}",
                    pull_steps=[],
                    work_pool_name=pool,
                    parameters=parameters,
                    job_variables=RUNS,
                    enforce_parameter_schema=False,
                )

    def start(self, chapter: Chapter) -> None:
        """Start a chapter, or start it again."""
        with self._client() as client:
            deployment = client.read_deployment_by_name("full-chapter/full-chapter")
            key = f"{chapter.name}-{len(chapter.given_up)}"  # one run, should the answer be lost
            run = client.create_flow_run_from_deployment(
                deployment.id, parameters=chapter.parameters, idempotency_key=key
            )
        chapter.run = run.id

    def standing(self, chapter: Chapter) -> tuple[Standing, str]:
        """How a chapter's latest run stands, and what is said of that."""
        assert chapter.run is not None
        with self._client() as client:
            run = client.read_flow_run(chapter.run)
        state = run.state
        if state is None or not state.is_final():
            return "open", ""
        said = f"{state.name}: {(state.message or '')[:300]}"
        if state.is_completed() or not state.is_crashed():
            return ("completed" if state.is_completed() else "failed"), said
        if run.run_count > RESTARTS:
            return "crashed too often", said
        if datetime.now(UTC) - state.timestamp < recovery.SILENCE + TAKEN_UP:
            return "open", said  # an automation or a sweep has still to take it up
        return "forgotten", said

    def unended(self) -> list[FlowRun]:
        """Runs of ours, of whatever flow, that have not come to an end."""
        with self._client() as client:
            return client.read_flow_runs(
                flow_filter=FlowFilter(name=FlowFilterName(any_=list(FLOWS))),
                flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=UNENDED))),
            )

    def of_all(self) -> Counter[str]:
        """How many runs there are of each flow, with their state."""
        with self._client() as client:
            flows = {flow.id: flow.name for flow in client.read_flows()}
            return Counter(f"{flows[run.flow_id]} {run.state_name}" for run in client.read_flow_runs(limit=200))

    def sweep(self) -> int:
        """As whoever starts a server or a chapter does; returns how many runs that has found."""
        with self._client() as client:
            silent, lost = self.sweeper.sweep(client)
        return len(silent) + len(lost)
