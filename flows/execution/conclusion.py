"""What a run came to: for the terminal and for whoever waits for it, and for the chapter's run on MLflow."""

from collections.abc import Mapping
from dataclasses import dataclass

from flows.execution.engine import Outcome
from flows.execution.graph import Node, Request
from flows.execution.publish import Published
from reports.words import plural
from tasks.tracking.tracker import Tracker


@dataclass(frozen=True)
class Summary:
    """What a run has to say for itself."""

    report: str
    exercises: int
    answered: int
    failed: tuple[str, ...]
    reasons: tuple[str, ...]
    trained: int
    ran: int
    cached: int
    seconds: float

    @property
    def done(self) -> str:
        """How much was done."""
        trained, ran = plural(self.trained, "model"), plural(self.ran, "step")
        return f"{trained} trained, {ran} run, {self.cached} cached, {self.seconds / 60:.1f} minutes"


def conclude(tracker: Tracker, request: Request, published: Published, command: str, seconds: float) -> None:
    """What the chapter's run on MLflow says of it."""
    score, folder = published.score, published.page.resolve().parent
    about = {
        "profile": request.profile.name,
        "device": request.device,
        "precision": request.profile.precision or "as recipes say",
        "budget": request.profile.budget,
        "exercises": len(request.exercises),
        "command": command,
        **{f"source.{what}": text for what, text in request.sources.summary().items()},
    }
    counts = {
        "answered": score.answered,
        "failed": score.failed,
        "exact_checks": score.exact,
        "exact_checks_held": score.exact_held,
        "empirical_checks": score.empirical,
        "empirical_checks_confirmed": score.empirical_confirmed,
        "seconds": seconds,
    }
    files = {name: folder / name for name in ("report.html", "summary.json")}
    tracker.conclude(score.sentence, params=about, metrics=counts, files=files)


def summary_of(
    request: Request, graph: Mapping[str, Node], outcome: Outcome, published: Published | None, seconds: float
) -> Summary:
    """What a run of a request has to say for itself."""
    asked = {exercise.id for exercise in request.exercises}
    faults = {id: error for id, error in published.faults.items() if id in asked} if published else {}
    unanswered = tuple(e.id for e in request.exercises if f"exercise/{e.id}" not in outcome.records or e.id in faults)
    return Summary(
        report=str(published.page) if published else "",
        exercises=len(request.exercises),
        answered=len(request.exercises) - len(unanswered),
        failed=unanswered + tuple(name for name in outcome.errors if graph[name].kind != "exercise"),
        reasons=(
            *(f"{graph[name].title}: {error}" for name, error in outcome.errors.items()),
            *(f"the answer of {id}: {error.strip().splitlines()[-1]}" for id, error in faults.items()),
        ),
        trained=sum(graph[name].makes_model for name in outcome.ran),
        ran=len(outcome.ran),
        cached=len(outcome.records) - len(outcome.ran),
        seconds=seconds,
    )
