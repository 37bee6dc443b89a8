"""What is asked of the network, each time with a deadline: a server that hangs counts as one that is not there.

``HF_ENDPOINT``, ``HF_HUB_OFFLINE`` and ``HF_HOME`` are respected. Deadlines are kept by a thread beside the request,
because the timeouts of HTTP libraries cover neither name resolution nor a server that sends a byte now and then.
"""

import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from tasks.folders import outputs_folder

T = TypeVar("T")
RepoType = Literal["model", "dataset"]

ANSWER_SECONDS = 3.0  # until a server's first answer
DOWNLOAD_SECONDS = 60.0  # for a whole text
DOWNLOAD_BYTES = 200 * 2**20


class Unreachable(OSError):
    """No usable answer in time; the text says what happened instead."""


class NotThere(LookupError):
    """The server answered: what was asked for does not exist, or is not for us."""


@dataclass(frozen=True)
class RepoInfo:
    """A repository of the Hub at one commit."""

    sha: str
    files: dict[str, int] = field(default_factory=dict)  # name → size in bytes, 0 where the Hub does not say
    sha256: dict[str, str] = field(default_factory=dict)  # of files in large-file storage
    config: dict[str, Any] = field(default_factory=dict)  # the part of config.json that the Hub keeps


def endpoint() -> str:
    """The Hub's address, without a slash at its end."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def offline() -> bool:
    """Whether the user has forbidden to ask the Hub."""
    values = (os.environ.get("HF_HUB_OFFLINE"), os.environ.get("TRANSFORMERS_OFFLINE"))
    return any((value or "").upper() in {"1", "ON", "YES", "TRUE"} for value in values)


def text_cache() -> Path:
    """Where texts that were fetched by address are kept."""
    return outputs_folder() / "sources"


def within(seconds: float, work: Callable[[], T], what: str) -> T:
    """The result of ``work``, or its exception.

    Raises:
        Unreachable: it took longer; it is left to a daemon thread, whose outcome is dropped.
    """
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["value"] = work()
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=run, daemon=True, name="deadline")
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise Unreachable(f"{what} did not answer within {seconds:g} s")
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]  # type: ignore[no-any-return]


def repo_info(kind: RepoType, name: str, revision: str | None = None) -> RepoInfo:
    """What the Hub knows of a repository at a revision (by default its main branch); one request.

    Raises:
        Unreachable: no usable answer, or offline mode.
        NotThere: no such repository or revision, or it is gated.
    """
    if offline():
        raise Unreachable("HF_HUB_OFFLINE forbids to ask the Hub")
    seconds = ANSWER_SECONDS
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    def ask() -> RepoInfo:
        api = HfApi(endpoint=endpoint())
        found = api.repo_info(name, repo_type=kind, revision=revision, timeout=seconds + 1, files_metadata=True)
        siblings = getattr(found, "siblings", None) or []
        large = {file.rfilename: file.lfs.sha256 for file in siblings if file.lfs is not None}
        return RepoInfo(
            sha=found.sha or "",
            files={file.rfilename: file.size or 0 for file in siblings},
            sha256=large,
            config=dict(getattr(found, "config", None) or {}),
        )

    try:
        return within(seconds, ask, endpoint())
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise NotThere(f"{endpoint()} has no {kind} {name!r}" + (f" at {revision}" if revision else "")) from error
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        raise Unreachable(f"{endpoint()} answered with status {status}") from error
    except Unreachable:
        raise
    except Exception as error:  # the HTTP library's own errors differ between versions of huggingface_hub
        raise Unreachable(f"{endpoint()} cannot be reached ({type(error).__name__})") from error


def cached_file(kind: RepoType, name: str, file: str, revision: str | None = None) -> Path | None:
    """A file of a repository from the Hub's local cache, or None; asks nobody."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        path = try_to_load_from_cache(name, file, repo_type=kind, revision=revision)
    except HFValidationError:
        return None
    return Path(path) if isinstance(path, str) else None


def newest_snapshot(kind: RepoType, name: str) -> Path | None:
    """The folder of the commit of a repository that was cached last, or None; asks nobody."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.file_download import repo_folder_name

    try:
        folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=kind) / "snapshots"
    except HFValidationError:
        return None
    return max(folder.glob("*"), key=lambda path: path.stat().st_mtime, default=None)


def download(url: str, cache: Path, sha256: str = "") -> tuple[Path, str]:
    """A text file by its address, kept in ``cache`` under its SHA-256; returns its path and its SHA-256.

    With ``sha256`` given, a file that is already there is not asked for again.

    Raises:
        Unreachable: no first byte within ``ANSWER_SECONDS``, or not all of it within ``DOWNLOAD_SECONDS``.
        NotThere: the server answered with an error, a web page, or with more than ``DOWNLOAD_BYTES``.
        ValueError: the content has another SHA-256.
    """
    if sha256 and (cache / sha256).is_file():
        if hashlib.sha256((cache / sha256).read_bytes()).hexdigest() == sha256:
            return cache / sha256, sha256
        (cache / sha256).unlink()
    content = _get(url)
    found = hashlib.sha256(content).hexdigest()
    if sha256 and found != sha256:
        raise ValueError(f"{url} has changed: its SHA-256 is {found[:12]}…, expected {sha256[:12]}…")
    cache.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=cache)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, cache / found)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return cache / found, found


def _get(url: str) -> bytes:
    """The body of an address, under both deadlines."""
    started, given_up = threading.Event(), threading.Event()
    chunks: list[bytes] = []
    outcome: dict[str, BaseException] = {}

    def run() -> None:
        try:
            for chunk in _chunks(url):
                started.set()
                chunks.append(chunk)
                if given_up.is_set():
                    return
        except BaseException as error:
            outcome["error"] = error
        finally:
            started.set()

    thread = threading.Thread(target=run, daemon=True, name="download")
    thread.start()
    first = started.wait(ANSWER_SECONDS)
    thread.join(DOWNLOAD_SECONDS if first else 0)
    if thread.is_alive():
        given_up.set()
        late = f"send it all within {DOWNLOAD_SECONDS:g} s" if first else f"answer within {ANSWER_SECONDS:g} s"
        raise Unreachable(f"{url} did not {late}")
    error = outcome.get("error")
    if isinstance(error, NotThere):
        raise error
    if error is not None:
        raise Unreachable(f"{url} cannot be reached ({type(error).__name__})") from error
    return b"".join(chunks)


def _chunks(url: str) -> Iterator[bytes]:
    """The body of an address as it comes; raises ``NotThere`` for anything but a text of a bearable size."""
    import httpx

    with httpx.stream("GET", url, timeout=ANSWER_SECONDS + 1, follow_redirects=True) as response:
        if response.status_code != 200:
            raise NotThere(f"{url} answered with status {response.status_code}")
        if response.headers.get("content-type", "").startswith("text/html"):
            raise NotThere(f"{url} is a web page, not a plain text; give the address of the text itself")
        size = 0
        for chunk in response.iter_bytes():
            size += len(chunk)
            if size > DOWNLOAD_BYTES:
                raise NotThere(f"{url} is larger than {DOWNLOAD_BYTES >> 20} MiB")
            yield chunk
