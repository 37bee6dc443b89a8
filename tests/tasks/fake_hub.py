"""A local imitation of the Hugging Face Hub: its addresses, headers and file layout, over plain HTTP on 127.0.0.1.

    GET  /api/models/<name>/revision/<rev>            what repository information asks for
    GET  /api/models/<name>/tree/<rev>                file listing
    HEAD /<name>/resolve/<rev>/<file>                 metadata: commit, ETag, size
    GET  /<name>/resolve/<rev>/<file>                 content

and the same below ``/api/datasets/`` and ``/datasets/``.
"""

import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

ONE_COMMIT = "c0ffee" + "0" * 34


@dataclass
class Repo:
    """One repository: files by name, at one commit that also goes by the name ``main``."""

    files: dict[str, bytes]
    sha: str = ONE_COMMIT


@dataclass
class FakeHub:
    """What the server holds, and what it was asked."""

    models: dict[str, Repo] = field(default_factory=dict)
    datasets: dict[str, Repo] = field(default_factory=dict)
    plain: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # path → content type, body
    log: list[str] = field(default_factory=list)
    url: str = ""


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def answer(self, *, with_body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.log.append(f"{self.command} {path}")
            status, headers, body = respond(hub, path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

    return Handler


def respond(hub: FakeHub, path: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body for an address."""
    if path in hub.plain:
        kind, body = hub.plain[path]
        return 200, {"Content-Type": kind}, body
    if match := re.fullmatch(r"/api/(models|datasets)/(.+?)(?:/(revision|tree)/([^/]+)(?:/.*)?)?", path):
        kind, name, what, revision = match.groups()
        repo = getattr(hub, kind).get(name)
        if repo is None:
            return 404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b"{}"
        if revision not in (None, "main", repo.sha):
            return 404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"}, b"{}"
        return 200, {"Content-Type": "application/json"}, json.dumps(_listing(name, repo, what == "tree")).encode()
    if match := re.fullmatch(r"/(datasets/)?(.+?)/resolve/([^/]+)/(.+)", path):
        prefix, name, revision, file = match.groups()
        repo = (hub.datasets if prefix else hub.models).get(name)
        if repo is None:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        if revision not in ("main", repo.sha):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        if file not in repo.files:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": repo.sha}, b""
        body = repo.files[file]
        return 200, {"X-Repo-Commit": repo.sha, "ETag": f'"{_etag(body)}"', "Accept-Ranges": "bytes"}, body
    return 404, {}, b"{}"


def _listing(name: str, repo: Repo, tree: bool) -> object:
    if tree:
        return [
            {"type": "file", "path": file, "size": len(body), "oid": _etag(body)} for file, body in repo.files.items()
        ]
    config = json.loads(repo.files.get("config.json", b"{}"))
    siblings = [
        {
            "rfilename": file,
            "size": len(body),
            **({"lfs": {"sha256": _etag(body), "size": len(body), "pointerSize": 134}} if _large(file) else {}),
        }
        for file, body in repo.files.items()
    ]
    kept = {key: config[key] for key in ("architectures", "model_type") if key in config}
    return {"id": name, "modelId": name, "sha": repo.sha, "siblings": siblings, "config": kept, "private": False}


def _large(file: str) -> bool:
    return file.endswith((".safetensors", ".bin", ".parquet"))


def _etag(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@contextmanager
def serve() -> Iterator[FakeHub]:
    """A running imitation, empty at first."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def hang() -> Iterator[str]:
    """The address of a server that accepts connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(16)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def closed_port() -> str:
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"
