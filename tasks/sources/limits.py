"""What a worker may read for whoever sends it a run: less than the user whose name it works under may.

``chapter run`` reads what its user can read. A worker takes its parameters from a server, from anybody who may start a
run there. So it reads files only below the folders that ``CHAPTER_CORPORA`` names, and addresses only of hosts that are
public. The address that was checked is the one that is connected to, and each redirect is a new one. Proxies are not
asked: what a name means behind one cannot be checked here.
"""

import hashlib
import ipaddress
import os
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpcore
import httpx

from minigpt.atomic import write_atomic
from tasks.folders import named_path
from tasks.sources import hub
from tasks.sources.hub import NotThere, Unreachable
from tasks.sources.references import Reference, SourceError
from tasks.sources.user import text_at

VARIABLE = "CHAPTER_CORPORA"
REDIRECTS = 5


# --- Files ------------------------------------------------------------------------------------------------------


def check_path(option: str, value: str) -> None:
    """Make sure that a worker may read a file or a folder, whether it is there or not.

    Raises:
        SourceError: it is below none of the folders that ``CHAPTER_CORPORA`` names, links followed.
    """
    try:
        path = named_path(value)
        allowed = [named_path(name) for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]
    except ValueError as error:
        raise SourceError(f"{option} {value}: {error}; give a path that can be read.") from error
    if not any(path.is_relative_to(folder) for folder in allowed):
        raise SourceError(
            f"{option} {value}: a worker reads files only below the folders that {VARIABLE} names where it was started;"
            " put the file there, or run `chapter run` where it is."
        )


def is_path(value: str) -> bool:
    """Whether a name of a model is that of a folder, or can be no other: as ``tasks.sources.user`` takes it."""
    if value.startswith((".", "/", "~")) or value.count("/") > 1 or "\\" in value:
        return True
    return os.path.lexists(value)


# --- Addresses --------------------------------------------------------------------------------------------------


class Forbidden(Exception):
    """An address that is none of the public ones; the text says which."""


def public(host: str, addresses: Iterable[str]) -> list[str]:
    """The addresses of a host, in their order.

    Raises:
        Forbidden: one of them is of this machine, of a network of its own, or of no machine at all.
    """
    found = list(addresses)
    for address in found:
        ip = ipaddress.ip_address(address.partition("%")[0])
        ip = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None) or ip
        if not ip.is_global or ip.is_multicast or ip in ipaddress.ip_network("64:ff9b::/96"):
            raise Forbidden(f"{host} is not a public address")
    return found


class PublicHosts(httpcore.SyncBackend):
    """Connects to public hosts only, to the very address that was looked at."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:
        """See ``httpcore.NetworkBackend``; raises ``Forbidden`` as ``public`` does."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(f"{host} has no address") from error
        addresses = public(host, dict.fromkeys(str(entry[4][0]) for entry in found))
        failed: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return super().connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        raise failed


def fetch(url: str, cache: Path, backend: httpcore.NetworkBackend | None = None) -> tuple[Path, str]:
    """A text by its address, as ``tasks.sources.hub.download`` keeps it; returns its path and its SHA-256.

    Raises:
        Unreachable: not all of it has come within ``hub.DOWNLOAD_SECONDS``.
        NotThere: an error, a web page, more than ``hub.DOWNLOAD_BYTES``, or an address that a worker may not ask.
    """
    chosen = backend or PublicHosts()
    content = hub.within(hub.DOWNLOAD_SECONDS, lambda: b"".join(_chunks(url, chosen)), url)
    sha256 = hashlib.sha256(content).hexdigest()
    write_atomic(cache / sha256, content)
    return cache / sha256, sha256


def _chunks(url: str, backend: httpcore.NetworkBackend) -> Iterator[bytes]:
    end = time.monotonic() + hub.DOWNLOAD_SECONDS  # for a thread that nobody waits for any more
    seconds = hub.ANSWER_SECONDS + 1
    timeouts = dict.fromkeys(("connect", "read", "write", "pool"), seconds)
    headers: list[tuple[bytes | str, bytes | str]] = [
        ("Accept-Encoding", "identity"),
        ("User-Agent", "minigpt-chapter"),
    ]
    with httpcore.ConnectionPool(network_backend=backend) as pool:
        for _ in range(REDIRECTS + 1):
            target = _checked(url)
            try:
                request = pool.stream("GET", str(target), headers=headers, extensions={"timeout": timeouts})
                with request as response:
                    told = {name.decode().lower(): value.decode("latin-1") for name, value in response.headers}
                    if response.status in (301, 302, 303, 307, 308) and "location" in told:
                        url = str(target.join(told["location"]))
                        continue
                    yield from _body(url, response, told, end)
                    return
            except Forbidden as error:
                raise NotThere(f"{url}: {error}, and a worker asks no other") from error
            except httpcore.TimeoutException as error:
                raise Unreachable(f"{url} did not answer within {seconds:g} s") from error
            except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
                raise Unreachable(f"{url} cannot be reached ({type(error).__name__})") from error
    raise NotThere(f"{url} is the end of more than {REDIRECTS} redirects")


def _checked(url: str) -> httpx.URL:
    try:
        target = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise NotThere(f"{url[:200]} is not an address") from error
    if target.scheme not in ("http", "https") or not target.host:
        raise NotThere(f"{url[:200]} is not an http or https address")
    return target


def _body(url: str, response: httpcore.Response, told: dict[str, str], end: float) -> Iterator[bytes]:
    if response.status != 200:
        raise NotThere(f"{url} answered with status {response.status}")
    if told.get("content-type", "").startswith("text/html"):
        raise NotThere(f"{url} is a web page, not a plain text; give the address of the text itself")
    if told.get("content-encoding", "identity") != "identity":
        raise NotThere(f"{url} is compressed, though it was asked for as it is")
    size = 0
    for chunk in response.iter_stream():
        size += len(chunk)
        if size > hub.DOWNLOAD_BYTES:
            raise NotThere(f"{url} is larger than {hub.DOWNLOAD_BYTES >> 20} MiB")
        if time.monotonic() > end:
            raise Unreachable(f"{url} did not send it all within {hub.DOWNLOAD_SECONDS:g} s")
        yield chunk


def corpus_at(url: str, cache: Path) -> Reference:
    """The text at an address, for a worker; as ``tasks.sources.user.user_corpus`` describes it.

    Raises:
        SourceError: it cannot be had, or is no text to train on.
    """
    return text_at(url, cache, fetch)
