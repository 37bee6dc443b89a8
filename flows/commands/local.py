"""``chapter run``: the flow ``full-chapter`` in this process, with a Prefect server of its own or a joined one."""

import gc
import logging
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from flows.disks import check_room, full_disk
from flows.options import Options
from flows.surroundings import change, without, work_in
from tasks.folders import is_address, outputs_folder, store_url
from tasks.sources.resolve import Sources

if TYPE_CHECKING:
    from flows.chapter import ChapterFailed
    from flows.execution.conclusion import Summary

QUIET = {"PREFECT_LOGGING_LEVEL": "CRITICAL"}  # the display says it all


def run_here(options: Options, sources: Sources, command: str) -> int:
    """Run the options; returns the exit status: 0, or 1 if something failed.

    Raises:
        UsageError: the machine's settings, servers or disks do not allow it.
        ServerError: Prefect's server does not start.
    """
    outputs, store = outputs_folder(), store_url()
    folders = [outputs, Path(tempfile.gettempdir())] + ([] if is_address(store) else [Path(store)])
    check_room(folders)
    _keep_quiet()
    signal.signal(signal.SIGTERM, _terminate)
    if not os.environ.get("PREFECT_API_URL"):
        work_in(outputs / "prefect")
    if not os.environ.get("MLFLOW_TRACKING_URI"):  # what is set is for other servers
        change(without(os.environ, "MLFLOW_"))
    from flows.servers import prefect_server

    console = Console(stderr=True)
    status = console.status("starting or joining the Prefect server")
    status.start()
    try:
        # The server takes seconds to start, and so do imports: do both at once.
        with prefect_server(outputs, meanwhile=_import_heavy, settings=QUIET):
            status.stop()
            summary, failed = _run(options, sources, command, console)
    except Exception as error:
        if (full := full_disk(error, folders)) is not None:
            raise full from error
        raise
    finally:
        status.stop()
    if failed is not None:
        if (full := full_disk(failed, folders)) is not None:
            raise full from failed
        print(f"chapter: {failed}", file=sys.stderr)
    if summary:
        print(sentence(summary))
    return 0 if failed is None else 1


def _keep_quiet() -> None:
    """Warnings of libraries are for their programmers; also in the processes of the pool.

    In this one so is what Prefect writes, half a line, where the server could not keep a log line: what failed is told
    at the end.
    """
    logging.raiseExceptions = False
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ["PYTHONWARNINGS"] = "ignore"
    warnings.simplefilter("ignore")


def _terminate(*_: object) -> None:
    """A polite request to end is answered as Ctrl-C is."""
    raise KeyboardInterrupt


@contextmanager
def imports() -> Iterator[None]:
    """For many imports at once: garbage is not looked for meanwhile, nor later in what they have brought.

    They make hundreds of thousands of objects that stay, and Python goes through all of them again and again: a quarter
    of the time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _import_heavy() -> None:
    """All that a run imports, even one that finds everything in the store."""
    with imports():
        import flows.chapter  # noqa: F401
        from flows.execution.graph import load_exercises
        from tasks.exercises import modules
        from tasks.tracking.client import import_mlflow
        from tasks.tracking.tracker import Tracker

        load_exercises(tuple(modules()))
        import_mlflow(Tracker(outputs_folder()).uri)


def _run(
    options: Options, sources: Sources, command: str, console: Console
) -> "tuple[Summary | None, ChapterFailed | None]":
    """Run the flow; what it has done, and what it failed with."""
    from flows.chapter import TERMINAL, ChapterFailed, Terminal, full_chapter, parameters_of

    terminal = Terminal(sources, console, command)
    token = TERMINAL.set(terminal)
    try:
        full_chapter(**replace(options, sources=sources.bundle).told(parameters_of(full_chapter)))
    except ChapterFailed as error:
        return terminal.summary, error
    finally:
        TERMINAL.reset(token)
    return terminal.summary, None


def sentence(summary: "Summary") -> str:
    """What a run has done, and where its report is."""
    return (
        f"{summary.answered} of {summary.exercises} exercises, {summary.trained} models trained, "
        f"{summary.ran} steps run, {summary.cached} cached, {summary.seconds / 60:.1f} minutes\n{summary.report}"
    )
