"""Documents wait once, in order, and a process that is killed while it writes costs none but its own."""

from pathlib import Path
from typing import Any

import pytest

from tasks.tracking.outbox import Outbox


def test_a_document_waits_once(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.jsonl")
    assert not outbox
    for key in ("a", "b", "a"):
        outbox.add({"key": key, "parent": "a"})
    outbox.add({"run": "a"})
    outbox.add({"run": "a"})
    assert [document.get("key") for document in outbox._read()] == ["a", "b", None, None]
    outbox.deliver(lambda document: None, lambda error: False)
    assert not outbox


def test_what_a_document_says_inside_is_not_its_key(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.jsonl")
    for key, tags in (("a", {"key": "b"}), ("b", {}), ("b", {})):
        outbox.add({"key": key, "tags": tags})
    assert [document["key"] for document in outbox._read()] == ["a", "b"]


def test_a_half_written_line_takes_no_other_document_along(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.jsonl")
    outbox.path.write_text('{"key": "half')
    outbox.add({"key": "whole"})
    assert outbox._read() == [{"key": "whole"}]


def test_the_outbox_survives_a_half_written_line_and_sets_refused_documents_aside(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.jsonl")
    for name in ("a", "bad", "b", "c"):
        outbox.add({"name": name})
    with outbox.path.open("a") as file:
        file.write('{"name": "half')
    sent: list[str] = []

    def send(document: dict[str, Any]) -> None:
        if document["name"] == "bad":
            raise ValueError("no")
        if document["name"] == "c":
            raise ConnectionError("gone")
        sent.append(document["name"])

    with pytest.raises(ConnectionError):
        outbox.deliver(send, lambda error: isinstance(error, ValueError))
    assert sent == ["a", "b"]
    assert [document["name"] for document in outbox._read()] == ["c"]
    assert '"bad"' in (tmp_path / "outbox.refused.jsonl").read_text()


def test_lines_that_are_no_documents_are_left_out(tmp_path: Path) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    outbox = Outbox(tmp_path / "outbox.jsonl")
    outbox.path.write_text("\n".join(["[1]", "3", "null", '"x"', deep, '{"key": "b"}']) + "\n")
    outbox.add({"key": "c"})
    sent: list[dict[str, Any]] = []
    outbox.deliver(sent.append, is_refusal=lambda _: False)
    assert [document["key"] for document in sent] == ["b", "c"]
    assert not outbox
