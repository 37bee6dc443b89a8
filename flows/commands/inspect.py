"""The commands that look at the whole run and run nothing: plan, report, models."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path

from rich.table import Table
from rich.text import Text

from flows.commands.show import console_of_whole_lines, print_json
from flows.execution.kept import kept_graph
from flows.execution.nodes import Node
from flows.execution.plan import Planned, Total, Verdict, exercises_of, plan, stored, summary
from flows.options import Options
from flows.requests import place_here, processes, request_of
from reports.chapter import QUESTIONS
from reports.formats import duration
from reports.story.editions import WHOLE, Edition
from tasks.cache.keys import syntax_kept_in
from tasks.sources.resolve import Sources

SHARED = "For several exercises"


def print_plan(options: Options, sources: Sources, *, as_json: bool = False) -> int:
    """What a run would do, why, and how long it would take, by exercise; returns the exit status."""

    def make() -> tuple[Mapping[str, Node], str]:
        from flows.execution.graph import build

        request = request_of(options, sources)
        return build(request), request.device

    place = place_here("plan")
    with syntax_kept_in(place.syntax):
        graph, device = kept_graph(options, sources, Path(place.outputs), make)
        planned, _ = plan(graph, place.open_store())
    users, slots = exercises_of(graph), processes(options, device)
    if as_json:
        steps = [
            {
                "name": item.node.name,
                "title": item.node.title,
                "kind": item.node.kind,
                "exercises": users[item.node.name],
                "verdict": item.verdict,
                "why": item.reason,
                "seconds": round(item.seconds + item.seconds_ahead, 3),
                "key": item.key or None,
            }
            for item in planned
        ]
        total = asdict(Total.of(planned, slots))
        print_json({"profile": options.profile, "device": device, "processes": slots, **total, "steps": steps})
        return 0
    console_of_whole_lines().print(_by_exercise(planned, users))
    print(summary(planned, slots))
    return 0


def _by_exercise(planned: Sequence[Planned], users: Mapping[str, Sequence[str]]) -> Table:
    """A line per exercise, with the steps beneath that only it needs and that would run; what is cached is counted."""
    places = {question.number: place for place, question in enumerate(QUESTIONS.values(), 1)}
    owners = {name: ids[0] if len(ids) == 1 else "" for name, ids in users.items()}
    ordered = sorted(planned, key=lambda item: places.get(owners[item.node.name], 0))
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for _ in range(3):
        table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    for owner, group in groupby(ordered, key=lambda item: owners[item.node.name]):
        items = list(group)
        seconds = sum(item.seconds + item.seconds_ahead for item in items)
        own = [item for item in items if item.node.kind == "exercise"]
        others = [item for item in items if item.node.kind != "exercise"]
        cached = sum(item.verdict == "cached" for item in others)
        about = [own[0].reason if own else "", f"{cached} of {len(others)} cached" if cached else ""]
        table.add_row(
            Text(f"{owner}  {QUESTIONS[owner].title}" if owner else SHARED, style="bold"),
            _styled(own[0].verdict) if own else "",
            Text("; ".join(filter(None, about))),
            Text(duration(seconds) if seconds else "", style="bold"),
        )
        for title, verdict, why, each in _merged(item for item in others if item.verdict != "cached"):
            table.add_row(f"  {title}", _styled(verdict), Text(why), duration(each) if each else "")
    return table


def _styled(verdict: Verdict) -> Text:
    return Text(verdict, style={"cached": "green", "run": "yellow", "unknown": "cyan", "same": "dim"}[verdict])


def _merged(items: Iterable[Planned]) -> Iterator[tuple[str, Verdict, str, float]]:
    """Steps in lines: trainings of one recipe that differ by their seeds, and by nothing else, share one."""
    lines: dict[tuple[str, Verdict, str], list[Planned]] = {}
    for item in items:
        what = item.node.subject if item.node.kind == "train" else item.node.title
        lines.setdefault((what, item.verdict, item.reason), []).append(item)
    for (what, verdict, why), several in lines.items():
        seeds = ", ".join(str(item.node.seed) for item in several)
        title = what
        if several[0].node.kind == "train":
            title = f"train {what}, seed{'s' if len(several) > 1 else ''} {seeds}"
        yield title, verdict, why, sum(item.seconds for item in several)


def render_again(options: Options, sources: Sources, edition: Edition = WHOLE, reference: Path | None = None) -> int:
    """Render the report from what is stored, and from what the newest run of this profile has said of itself.

    ``edition`` is another one to write beside the whole report. With ``reference``, a folder, keep the metrics and
    checks there, for later reports to show beside theirs.
    """
    from flows.execution.publish import newest_run, publish
    from tasks.tracking.tracker import Tracker

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


def print_models(options: Options, sources: Sources, *, as_json: bool = False) -> int:
    """Trained models of a profile with a directory that ``minigpt`` can load, and ``transformers`` too where it can."""
    from flows.commands.models import exported
    from flows.execution.graph import build
    from tasks.recipes.catalogue import recipes, tunings

    request = request_of(options, sources)
    wanted = tuple((recipe, seed) for recipe in recipes().values() for seed in request.profile.seeds(recipe))
    graph = build(replace(request, exercises=(), recipes=wanted, tunings=tuple(tunings().values())))
    place = place_here("models")
    with syntax_kept_in(place.syntax):
        records = stored(graph, place.open_store())
    trained = []
    for name, record in records.items():
        if graph[name].makes_model:
            path, loaders = exported(graph[name], records, place)
            trained.append(
                {
                    "recipe": graph[name].subject,
                    "seed": graph[name].seed,
                    "parameters": record["data"]["parameters"],
                    "validation_loss": record["data"]["evaluations"]["validation_loss"][-1],  # nats per token
                    "loads_with": loaders.split(", "),
                    "path": str(path),
                }
            )
    missing: dict[str, list[int]] = {}
    for name, node in graph.items():
        if node.makes_model and name not in records:
            missing.setdefault(node.subject, []).append(node.seed)
    left_out = [name for name, recipe in recipes().items() if not request.profile.seeds(recipe)]
    if as_json:
        said = {"profile": options.profile, "trained": trained, "not_trained_yet": missing, "not_trained": left_out}
        print_json(said)
        return 0
    table = Table("model", "parameters", "validation loss", "loads with", "path", box=None, padding=(0, 2, 0, 0))
    for model in trained:
        table.add_row(
            f"{model['recipe']}, seed {model['seed']}",
            f"{model['parameters']:,}",
            f"{model['validation_loss']:.4f} nats",
            ", ".join(model["loads_with"]),
            Text(model["path"], overflow="fold"),
        )
    console = console_of_whole_lines()
    console.print(table)
    if missing:
        print(f"not trained yet at profile {options.profile}, with their seeds:")
        seeds = {name: " ".join(map(str, several)) for name, several in missing.items()}
        console.print(", ".join(f"{name} ({several})" for name, several in seeds.items()), highlight=False)
    if left_out:
        print(f"not trained at all at profile {options.profile}:")
        console.print(", ".join(left_out), highlight=False)
    return 0
