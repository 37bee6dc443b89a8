"""``chapter run``: the flow ``full-chapter`` in this process, with a Prefect server of its own or a joined one."""

import os
import signal
import sys
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console

from flows.options import Options, outputs_folder
from tasks.sources.resolve import Sources

if TYPE_CHECKING:
    from flows.chapter import Summary


def run_here(options: Options, sources: Sources, command: str) -> int:
    """Run the options; returns the exit status: 0, or 1 if something failed."""
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")  # the display says it all
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", module="pydantic")
    signal.signal(signal.SIGTERM, _terminate)
    from flows.servers import prefect_server

    console = Console(stderr=True)
    status = console.status("starting or joining the Prefect server")
    status.start()
    try:
        # The server takes seconds to start, and so do imports: do both at once.
        with prefect_server(outputs_folder(), meanwhile=_import_heavy):
            status.stop()
            return _run(options, sources, command, console)
    finally:
        status.stop()


def _terminate(*_: object) -> None:
    """A polite request to end is answered as Ctrl-C is."""
    raise KeyboardInterrupt


def _import_heavy() -> None:
    """All that a run imports, even one that finds everything in the store."""
    import flows.chapter  # noqa: F401
    from flows.execution.graph import load_exercises
    from tasks.exercises import modules
    from tasks.tracking.client import import_mlflow

    load_exercises(tuple(modules()))
    import_mlflow()


def _run(options: Options, sources: Sources, command: str, console: Console) -> int:
    from flows.chapter import TERMINAL, ChapterFailed, Terminal, full_chapter, parameters_of

    terminal = Terminal(sources, console, command)
    token = TERMINAL.set(terminal)
    try:
        full_chapter(**replace(options, sources=sources.bundle).told(parameters_of(full_chapter)))
    except ChapterFailed as error:
        print(f"chapter: {error}", file=sys.stderr)
        return 1
    finally:
        TERMINAL.reset(token)
        if terminal.summary:
            print(sentence(terminal.summary))
    return 0


def sentence(summary: "Summary") -> str:
    """What a run has done, and where its report is."""
    return (
        f"{summary.answered} of {summary.exercises} exercises, {summary.trained} models trained, "
        f"{summary.ran} steps run, {summary.cached} cached, {summary.seconds / 60:.1f} minutes\n{summary.report}"
    )
