"""A storage that hiccups is waited for: minutes, with growing pauses that differ from process to process.

What would fail again is not tried again: what is not there, not allowed, or does not fit. fsspec's implementations tell
each in their own way: by an ``errno``, by the HTTP status of what they wrap, by a class of their HTTP library.
"""

import errno
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from tasks.cache.urls import without_credentials

T = TypeVar("T")
logger = logging.getLogger("chapter")

SECONDS = 600.0  # ten minutes: longer than a restart of a storage service, shorter than a night
FIRST, LONGEST = 0.5, 20.0  # seconds between two tries; a random part of them is waited

PASSING = {
    *(errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.EPIPE, errno.ESTALE, errno.ETIMEDOUT),
    *(errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET),
    *(errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH),
}
LASTING = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
LASTING_STATUS = {501, 505, 507, 511}  # of the 5xx: never done here, or no room
PASSING_STATUS = {408, 409, 425, 429}  # 409: two conditional writes at once, of which Amazon wants one again
# Classes of botocore, aiohttp, httpx, requests, urllib3 and Google's and Azure's clients, which are not imported here.
PASSING_CLASSES = {
    *("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError", "HTTPClientError"),
    *("IncompleteReadError", "IncompleteRead", "ResponseStreamingError", "ResponseParserError"),
    *("ClientConnectionError", "ClientPayloadError", "ServerDisconnectedError", "TransportError", "ProtocolError"),
    *("RequestException", "ChunkedEncodingError", "ServiceRequestError", "ServiceResponseError", "gaierror"),
}


class StoreUnreachable(OSError):
    """The store has not answered for minutes; the text is one sentence for a person."""

    def __str__(self) -> str:
        return str(self.args[0])


class StoreRefused(PermissionError):
    """The store answers, and will not do it; the text is one sentence for a person."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Patience:
    """How long is waited for a storage, and by which clock."""

    seconds: float = SECONDS
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def __call__(self, store: str, what: str, work: Callable[[], T]) -> T:
        """The result of ``work``, which may be done again, on ``store``; ``what`` says what it does.

        Raises:
            StoreUnreachable: it fails in passing ways, and has for ``seconds``.
            StoreRefused: the storage does not let us.
            Exception: whatever else ``work`` raises.
        """
        try:
            return work()
        except Exception as error:
            if not is_passing(error):
                _tell_refusal(error, store)
                raise
            first = error
        return self._again(store, what, work, first)

    def _again(self, store: str, what: str, work: Callable[[], T], first: Exception) -> T:
        from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

        begun, shown = self.clock(), without_credentials(store)
        logger.warning(
            "%s does not answer (%s): %s is tried again for up to %s", shown, _brief(first), what, _span(self.seconds)
        )

        def enough(state: RetryCallState) -> bool:
            return self.clock() - begun >= self.seconds

        wait = wait_random_exponential(multiplier=FIRST, max=LONGEST, min=FIRST / 5)
        self.sleep(wait(RetryCallState(None, None, (), {})))  # type: ignore[arg-type]
        tries = Retrying(retry=retry_if_exception(is_passing), stop=enough, wait=wait, sleep=self.sleep, reraise=True)
        try:
            return tries(work)
        except Exception as error:
            if not is_passing(error):
                _tell_refusal(error, store)
                raise
            raise StoreUnreachable(
                f"{shown} has not answered for {_span(self.seconds)} ({what}: {_brief(error)}); what is finished is "
                "kept, and the same command goes on from there when it answers again"
            ) from error


def is_passing(error: BaseException) -> bool:
    """Whether an exception of a storage says that a later try may succeed."""
    if isinstance(error, (StoreUnreachable, *LASTING)):
        return False
    for one in _chain(error):
        status = _status(one)
        if status is not None:
            return status in PASSING_STATUS or (status >= 500 and status not in LASTING_STATUS)
    return any(_passes(one) for one in _chain(error))


def _passes(error: BaseException) -> bool:
    if isinstance(error, LASTING):
        return False
    if isinstance(error, TimeoutError | ConnectionError) or getattr(error, "errno", None) in PASSING:
        return True
    return bool(PASSING_CLASSES & {base.__name__ for base in type(error).__mro__})


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and those that it says have led to it."""
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__


def status_of(error: BaseException) -> int | None:
    """The HTTP status that a storage's exception, or one that has led to it, holds."""
    return next((status for one in _chain(error) if (status := _status(one)) is not None), None)


def _status(error: BaseException) -> int | None:
    """The HTTP status that an exception holds, in the way of botocore, aiohttp, requests, httpx, gcsfs or Azure."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):
        return _as_status(response.get("ResponseMetadata", {}).get("HTTPStatusCode"))
    for owner, name in ((error, "status"), (error, "status_code"), (response, "status_code"), (error, "code")):
        if (status := _as_status(getattr(owner, name, None))) is not None:
            return status
    return None


def _as_status(value: object) -> int | None:
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    return value if type(value) is int and 400 <= value < 600 else None


def _tell_refusal(error: Exception, store: str) -> None:
    """Raise ``StoreRefused`` where somebody elsewhere has said no."""
    clients = ("botocore", "aiobotocore", "aiohttp", "gcsfs", "google", "azure")
    foreign = type(error).__module__.partition(".")[0] in clients
    if "://" in store and (isinstance(error, PermissionError) or foreign):
        raise refusal(store, error) from error


def refusal(store: str, error: Exception) -> StoreRefused:
    """What a person is told of a storage that will not do it."""
    return StoreRefused(
        f"{without_credentials(store)} refuses ({_brief(error)}); check the credentials of this machine and its name"
    )


def _brief(error: BaseException) -> str:
    return without_credentials(" ".join(str(error).split())[:160] or type(error).__name__)


def _span(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} s"
