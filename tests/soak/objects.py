"""An object store on the loopback address, and how fsspec reaches it: what S3 does, as far as a store of ours asks.

    python -m tests.soak.objects FOLDER PORT

Objects are there whole or not at all; ``If-None-Match: *`` creates one unless it is there. While FOLDER has a file
``busy`` every request is answered by 503. ``journal.jsonl`` says what was written, when, and its SHA-256.

    <FOLDER>/objects/     what is stored, by its path: a store in a folder, for whoever looks in afterwards
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import requests
from fsspec import AbstractFileSystem

PLUGIN = {
    "METADATA": "Metadata-Version: 2.1\nName: chapter-soak\nVersion: 1\n",
    "entry_points.txt": "[fsspec.specs]\nsoak = tests.soak.objects:SoakFileSystem\n",
}


def installed(folder: Path) -> Path:
    """A folder for ``PYTHONPATH`` by which fsspec finds the protocol ``soak://``, as it finds that of a package."""
    place = folder / "chapter_soak-1.dist-info"
    place.mkdir(parents=True)
    for name, content in PLUGIN.items():
        (place / name).write_text(content)
    return folder


# --- The server -------------------------------------------------------------------------------------------------


class Objects:
    """The objects of a server, on disk, so that they outlive it."""

    def __init__(self, folder: Path) -> None:
        self.root, self.incoming = folder / "objects", folder / "incoming"
        self.busy, self.refused, self._journal = folder / "busy", folder / "refused", folder / "journal.jsonl"
        shutil.rmtree(self.incoming, ignore_errors=True)  # of a server that was killed
        for made in (self.root, self.incoming):
            made.mkdir(parents=True, exist_ok=True)
        self._guard = threading.Lock()

    def note(self, name: str, content: bytes) -> None:
        """Before it is stored: should the server be killed in between, its client sends the same again."""
        line = json.dumps({"at": time.time(), "name": name, "sha256": hashlib.sha256(content).hexdigest()})
        with self._guard, self._journal.open("a") as file:
            file.write(line + "\n")

    def put(self, name: str, content: bytes, *, create: bool) -> bool:
        """Store an object; with ``create`` False if it is there already."""
        path = self.root / name
        handle, temporary = tempfile.mkstemp(dir=self.incoming)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        self.note(name, content)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if create:
                os.link(temporary, path)
            else:
                os.replace(temporary, path)
        except FileExistsError:
            return False
        finally:
            Path(temporary).unlink(missing_ok=True)
        return True

    def refuse(self) -> None:
        """Count a request that met a busy store."""
        with self._guard, self.refused.open("ab") as file:
            file.write(b".")


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    objects: Objects

    def _name(self) -> str:
        return unquote(self.path).strip("/")

    def _answer(self, status: HTTPStatus, content: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _is_busy(self) -> bool:
        if self.objects.busy.exists():
            self.objects.refuse()
            self.close_connection = True  # what it sends is not read
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE)
            return True
        return False

    def do_GET(self) -> None:
        if self.path == "/health":
            return self._answer(HTTPStatus.OK)
        if self._is_busy():
            return None
        path = self.objects.root / self._name()
        try:
            if path.is_dir():
                found = [_entry(one) for one in sorted(path.iterdir())]
                return self._answer(HTTPStatus.MULTI_STATUS, json.dumps([one for one in found if one]).encode())
            return self._answer(HTTPStatus.OK, path.read_bytes())
        except FileNotFoundError:
            return self._answer(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        """What is known of an object."""
        if not self._is_busy():
            found = _entry(self.objects.root / self._name())
            self._answer(HTTPStatus.OK if found else HTTPStatus.NOT_FOUND, json.dumps(found).encode())

    def do_PUT(self) -> None:
        if not self._is_busy():
            content = self.rfile.read(int(self.headers["Content-Length"]))
            done = self.objects.put(self._name(), content, create=self.headers.get("If-None-Match") == "*")
            self._answer(HTTPStatus.CREATED if done else HTTPStatus.PRECONDITION_FAILED)

    def do_DELETE(self) -> None:
        if not self._is_busy():
            (self.objects.root / self._name()).unlink(missing_ok=True)
            self._answer(HTTPStatus.NO_CONTENT)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: the journal says what matters."""


def _entry(path: Path) -> dict[str, Any] | None:
    try:
        about = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    kind = "directory" if path.is_dir() else "file"
    return {"name": path.name, "size": about.st_size, "type": kind, "mtime": about.st_mtime}


def serve(folder: Path, port: int) -> None:
    """Serve the objects of a folder until the process ends."""
    Handler.objects = Objects(folder)
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


# --- The client -------------------------------------------------------------------------------------------------


class SoakFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """``soak://127.0.0.1:PORT/path``: whole objects by requests of their own."""

    protocol = "soak"

    def _ask(self, method: str, path: str, **options: Any) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False  # the loopback address is for no proxy
            address = f"http://{quote(self._strip_protocol(path), safe='/:')}"
            answer = session.request(method, address, timeout=20, **options)
        if answer.status_code == HTTPStatus.NOT_FOUND:
            raise FileNotFoundError(path)
        if answer.status_code == HTTPStatus.PRECONDITION_FAILED:
            raise FileExistsError(path)
        answer.raise_for_status()
        return answer

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        return bytes(self._ask("GET", path).content[start:end])

    def get_file(self, rpath: str, lpath: str, **options: Any) -> None:
        Path(lpath).write_bytes(self.cat_file(rpath))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        headers = {"If-None-Match": "*"} if mode == "create" else {}
        self._ask("PUT", path, data=value, headers=headers)

    def put_file(self, lpath: str, rpath: str, mode: str = "overwrite", **options: Any) -> None:
        self.pipe_file(rpath, Path(lpath).read_bytes(), mode)

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        return {**self._ask("POST", path).json(), "name": path}

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        path = self._strip_protocol(path)
        answer = self._ask("GET", path)
        entries = answer.json() if answer.status_code == HTTPStatus.MULTI_STATUS else [self.info(path)]
        found = [{**entry, "name": f"{path}/{entry['name'].rpartition('/')[2]}"} for entry in entries]
        return found if detail else [entry["name"] for entry in found]

    def rm_file(self, path: str) -> None:
        self._ask("DELETE", path)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """There are no folders."""


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
