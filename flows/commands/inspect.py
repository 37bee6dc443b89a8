"""The commands that look at the whole run and run nothing: plan, report, models."""

import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flows.execution.graph import build
from flows.execution.plan import plan, stored, summary
from flows.execution.publish import newest_run, publish
from flows.options import Options
from flows.requests import place_here, processes, request_of
from reports.story.editions import WHOLE, Edition
from tasks.cache.keys import syntax_kept_in
from tasks.recipes.catalogue import recipes, tunings
from tasks.sources.resolve import Sources
from tasks.tracking.tracker import Tracker


def print_plan(options: Options, sources: Sources) -> int:
    """What a run would do, why, and how long it would take."""
    request = request_of(options, sources)
    place = place_here("plan")
    with syntax_kept_in(place.syntax):
        planned, _ = plan(build(request), place.open_store())
    table = Table("step", "", "why", "seconds", box=None, padding=(0, 2, 0, 0))
    marks = {"hit": "[green]cached[/]", "miss": "[yellow]run[/]", "unknown": "[dim]?[/]"}
    for item in planned:
        table.add_row(item.node.title, marks[item.state], item.why, f"{item.seconds:.0f}" if item.seconds else "")
    Console().print(table)
    print(summary(planned, processes(options, request.device)))
    return 0


def render_again(options: Options, sources: Sources, edition: Edition = WHOLE, reference: Path | None = None) -> int:
    """Render the report from what is stored, and from what the newest run of this profile has said of itself.

    ``edition`` is another one to write beside the whole report. With ``reference``, a folder, keep the metrics and
    checks there, for later reports to show beside theirs.
    """
    request, place = request_of(options, sources), place_here("report")
    outputs = Path(place.outputs)
    with syntax_kept_in(place.syntax):
        tracker, told = Tracker(outputs), newest_run(request, outputs)
        published = publish(request, place, tracker=tracker, editions=(edition,), **told)
    print(published.page)
    if edition != WHOLE:
        print(published.page.parent / edition.entry)
    if reference:
        from flows.commands.reference import write_references

        written = write_references(published.page.parent, reference, budget=request.profile.budget)
        print(f"{len(written)} references in {reference}")
    for id, error in published.faults.items():
        print(f"chapter: the answer of {id}: {error.strip().splitlines()[-1]}", file=sys.stderr)
    return 1 if published.faults else 0


def print_models(options: Options, sources: Sources) -> int:
    """Trained models of a profile with a directory that ``minigpt`` can load, and ``transformers`` too where it can."""
    from flows.commands.models import exported

    request = request_of(options, sources)
    wanted = tuple((recipe, seed) for recipe in recipes().values() for seed in request.profile.seeds(recipe))
    graph = build(replace(request, exercises=(), recipes=wanted, tunings=tuple(tunings().values())))
    place = place_here("models")
    with syntax_kept_in(place.syntax):
        records = stored(graph, place.open_store())
    table = Table("model", "parameters", "validation loss", "loads with", "path", box=None, padding=(0, 2, 0, 0))
    for name, record in records.items():
        if graph[name].makes_model:
            data = record["data"]
            path, loaders = exported(graph[name], records, place)
            loss = data["evaluations"]["validation_loss"][-1]
            table.add_row(
                f"{graph[name].subject}, seed {graph[name].seed}",
                f"{data['parameters']:,}",
                f"{loss:.4f} nats",
                loaders,
                str(path),
            )
    Console().print(table)
    missing: dict[str, list[str]] = {}
    for name, node in graph.items():
        if node.makes_model and name not in records:
            missing.setdefault(node.subject, []).append(str(node.seed))
    if missing:
        print(f"not trained yet at profile {options.profile}, with their seeds:")
        Console(highlight=False).print(", ".join(f"{name} ({' '.join(seeds)})" for name, seeds in missing.items()))
    if left_out := [name for name, recipe in recipes().items() if not request.profile.seeds(recipe)]:
        print(f"not trained at all at profile {options.profile}:")
        Console(highlight=False).print(", ".join(left_out))
    return 0
