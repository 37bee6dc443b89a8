"""What Prefect calls a flow run, which tags it has, and what its page offers for a parameter."""

from collections.abc import Mapping
from typing import Any, Literal

from prefect.runtime import flow_run

from flows.execution.graph import Request
from tasks.exercises import modules

# The same names as in ``flows.options``; as types they are menus in the form that starts a run, and the server refuses
# others before there is a run.
ProfileName = Literal["smoke", "laptop", "overnight", "gpu"]
SourceBundle = Literal["auto", "embedded", "hub"]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]
Where = Literal["local", "pool"]

MOST_NAMED = 3  # exercises in the name of a run
MOST_TAGGED = 10  # and in its tags


def chapter_run_name() -> str:
    """The name of a run of ``full-chapter``: one that is of one exercise is called so."""
    return _named(flow_run.get_parameters())


def training_run_name() -> str:
    """The name of a run of ``train-model``: of its first model, and how many more it trains."""
    told = flow_run.get_parameters()
    more = f" and {len(also)} more" if (also := told.get("also")) else ""
    return f"train {told.get('recipe')}, seed {told.get('seed', 0)}{more}, {told.get('profile')}"


def _named(parameters: Mapping[str, Any]) -> str:
    """The name that goes with parameters: "full-chapter smoke", "exercise 21.22, smoke", "12 exercises, smoke"."""
    only, profile = parameters.get("only") or (), parameters.get("profile")
    if not only:
        return f"full-chapter {profile}"
    if len(only) > MOST_NAMED:
        return f"{len(only)} exercises, {profile}"
    return f"{'exercise' if len(only) == 1 else 'exercises'} {', '.join(map(str, only))}, {profile}"


def tags_of(request: Request) -> list[str]:
    """The tags of a flow run. Not of task runs: for each tag of one, Prefect asks the server for a limit first."""
    exercises = request.exercises if len(request.exercises) <= min(MOST_TAGGED, len(modules()) - 1) else ()
    return [
        f"profile:{request.profile.name}",
        *(f"exercise:{exercise.id}" for exercise in exercises),
        *(f"recipe:{recipe.name}" for recipe, _ in request.recipes),
        *(f"recipe:{tuning.name}" for tuning in request.tunings),
    ]
