"""Who is away is waited for, or done without: Prefect's server by who needs it, a worker by the runs it has started."""

import logging
import threading
from collections.abc import Callable, Iterator
from functools import partial

import httpx
from prefect.logging.handlers import PrefectConsoleHandler
from tenacity import Retrying, retry_if_exception, wait_random_exponential

OUTAGE_SECONDS = 3_600.0  # that a server may be away


def outlasting(stop: threading.Event, sleep: Callable[[float], None] | None = None) -> Retrying:
    """Calls to the server that wait for one that is away, up to ``OUTAGE_SECONDS`` or until ``stop`` is set."""

    def wait(seconds: float) -> None:
        stop.wait(seconds)

    return Retrying(
        retry=retry_if_exception(_is_outage),
        stop=lambda state: stop.is_set() or state.idle_for >= OUTAGE_SECONDS,
        wait=wait_random_exponential(multiplier=1, max=15, min=0.5),
        sleep=sleep or wait,
        reraise=True,
    )


def _is_outage(error: BaseException) -> bool:
    """Whether a call failed because the server is away, or not itself."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500 or error.response.status_code in (408, 429)
    return isinstance(error, httpx.TransportError)


def outlive_the_console() -> None:
    """Have this process go on when nobody reads any more what Prefect prints: its worker, which did, may be killed.

    Rich, which prints for Prefect, otherwise ends whoever writes a log line then, by ``SystemExit``.
    """
    for handler in _console_handlers():
        silence = partial(setattr, handler.console, "quiet", True)
        handler.console.on_broken_pipe = silence  # type: ignore[method-assign]


def _console_handlers() -> Iterator[PrefectConsoleHandler]:
    loggers = [logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))]
    yield from {h for logger in loggers for h in logger.handlers if isinstance(h, PrefectConsoleHandler)}
