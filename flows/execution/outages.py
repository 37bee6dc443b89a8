"""A Prefect server that is away is waited for: by who waits for its runs, and by who begins one."""

import threading
from collections.abc import Callable

import httpx
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
        return error.response.status_code >= 500
    return isinstance(error, httpx.TransportError)
