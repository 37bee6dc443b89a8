"""What could not be delivered, as JSON lines that the next run delivers."""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(value, file)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


class Outbox:
    """Documents in order, one JSON object per line; several processes may add and deliver."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return len(self._read())

    def __bool__(self) -> bool:
        return self.path.exists()

    def add(self, document: dict[str, Any]) -> None:
        """Keep a document for later, unless one with the same ``key`` waits already."""
        with FileLock(self.path.with_suffix(".lock")), self.path.open("a+", encoding="utf-8") as file:
            file.seek(0)
            content = file.read()
            key = document.get("key")
            if key is not None and any(waiting.get("key") == key for waiting in _documents(content)):
                return
            if content and not content.endswith("\n"):
                file.write("\n")  # ends the line that a killed process left half-written
            file.write(json.dumps(document) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def deliver(self, send: Callable[[dict[str, Any]], Any], is_refusal: Callable[[Exception], bool]) -> None:
        """Send all documents, oldest first, and forget each that was taken.

        A document that is refused moves to ``*.refused.jsonl``. Any other failure is raised; it and what follows stay.
        """
        with FileLock(self.path.with_suffix(".lock")):
            waiting = self._read()
            try:
                while waiting:
                    try:
                        send(waiting[0])
                    except Exception as error:
                        if not is_refusal(error):
                            raise
                        with self.path.with_suffix(".refused.jsonl").open("a", encoding="utf-8") as file:
                            file.write(json.dumps({"error": str(error), **waiting[0]}) + "\n")
                    waiting.pop(0)
            finally:
                self._write(waiting)

    def _read(self) -> list[dict[str, Any]]:
        try:
            return _documents(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []

    def _write(self, documents: list[dict[str, Any]]) -> None:
        if not documents:
            self.path.unlink(missing_ok=True)
            return
        temporary = self.path.with_suffix(".part")
        temporary.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
        os.replace(temporary, self.path)


def _documents(content: str) -> list[dict[str, Any]]:
    documents = []
    for line in content.splitlines():
        with contextlib.suppress(ValueError, RecursionError):  # a line that a killed process left half-written
            document = json.loads(line)
            if isinstance(document, dict):
                documents.append(document)
    return documents
