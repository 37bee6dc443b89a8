"""What a worker reads for others: nothing of its user's own, nothing of its own network, no code."""

import ast
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import httpcore
import pytest

from tasks.sources import hub
from tasks.sources.hub import NotThere
from tasks.sources.limits import Forbidden, check_path, fetch, public
from tasks.sources.references import SourceError
from tasks.sources.resolve import resolve_sources

ROOT = Path(__file__).parent.parent.parent.parent
TEXT = "A text of one's own, in many words. " * 300


def for_a_worker(corpus: str | None = None, pretrained: str | None = None, cache: Path | None = None) -> Any:
    return resolve_sources("embedded", corpus, pretrained, cache=cache, worker=True)


# --- Files ------------------------------------------------------------------------------------------------------


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of texts for workers, beside a file that is none of theirs."""
    shelf = tmp_path / "texts"
    shelf.mkdir()
    (shelf / "novel.txt").write_text(TEXT)
    (tmp_path / "secret.txt").write_text(TEXT)
    monkeypatch.setenv("CHAPTER_CORPORA", f"/nowhere:{shelf}")
    return shelf


def test_a_worker_reads_below_the_folders_that_are_named(shelf: Path) -> None:
    assert for_a_worker(str(shelf / "novel.txt")).main.name == "novel.txt"


@pytest.mark.parametrize("name", ["../secret.txt", "link.txt", "linked/secret.txt", "../texts2/novel.txt"])
def test_and_nowhere_else(shelf: Path, name: str) -> None:
    (shelf / "link.txt").symlink_to(shelf.parent / "secret.txt")
    (shelf / "linked").symlink_to(shelf.parent)
    (shelf.parent / "texts2").mkdir()
    (shelf.parent / "texts2" / "novel.txt").write_text(TEXT)
    with pytest.raises(SourceError, match="only below the folders that CHAPTER_CORPORA names"):
        for_a_worker(str(shelf / name))
    assert resolve_sources("embedded", str(shelf / name)).main.sha256, "who runs it himself may read it"


@pytest.mark.parametrize("name", ["/etc/hostname", "~/.ssh/id_rsa", "/proc/self/environ", "nothing.txt"])
def test_by_default_nothing(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And nothing is told of what is there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CHAPTER_CORPORA", raising=False)
    with pytest.raises(SourceError, match="a worker reads files only below"):
        for_a_worker(name)
    with pytest.raises(SourceError, match="a worker reads files only below"):
        check_path("--pretrained", name)


def test_a_model_in_a_folder_is_a_file_too(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shelf.parent / "model").mkdir()
    monkeypatch.chdir(shelf.parent)
    for name in ("model", "./model", str(shelf.parent / "model"), "~/model", "a/b/c"):
        with pytest.raises(SourceError, match=r"--pretrained .*: a worker reads files only below"):
            for_a_worker(pretrained=name)
    (shelf / "model").mkdir()
    with pytest.raises(SourceError, match=r"no readable config\.json"):
        for_a_worker(pretrained=str(shelf / "model"))


# --- Addresses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
        ),
        *("::1", "::", "fe80::1%eth0", "fc00::1", "fd12::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::"),
        *("224.0.0.1", "255.255.255.255", "ff02::1", "64:ff9b::a00:1"),
    ],
)
def test_what_is_not_public(address: str) -> None:
    with pytest.raises(Forbidden, match="host is not a public address"):
        public("host", ["93.184.216.34", address])


def test_what_is_public() -> None:
    assert public("host", ["93.184.216.34", "2606:2800:220:1::1"]) == ["93.184.216.34", "2606:2800:220:1::1"]


class Pages(http.server.BaseHTTPRequestHandler):
    """Texts, and redirects to wherever the path says."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(f"{self.headers['Host']}{self.path}")
        where = {
            "/inside": "http://inner.example/text",
            "/loopback": f"http://127.0.0.1:{self.server.server_port}/text",  # type: ignore[attr-defined]
            "/number": "http://2130706433/text",
            "/file": "file:///etc/hostname",
            "/circle": "/circle",
            "/moved": "/text",
        }.get(self.path)
        if where:
            self.send_response(302)
            self.send_header("Location", where)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        kinds = {"/page": {"Content-Type": "text/html"}, "/packed": {"Content-Encoding": "gzip"}}
        self.send_response(404 if self.path == "/missing" else 200)
        for name, value in {"Content-Type": "text/plain", **kinds.get(self.path, {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(TEXT)))
        self.end_headers()
        self.wfile.write(TEXT.encode())

    def log_message(self, *_: object) -> None: ...


NAMES = {
    "texts.example": ["93.184.216.34"],
    "inner.example": ["10.0.0.5"],
    "both.example": ["93.184.216.34", "127.0.0.1"],
    "2130706433": ["127.0.0.1"],
    "127.0.0.1": ["127.0.0.1"],
}


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Addresses that were connected to; all public ones lead to a server of the test."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    connected: list[str] = []
    connect = httpcore.SyncBackend.connect_tcp

    def to_the_test(self: Any, host: str, port: int, *rest: Any) -> Any:
        connected.append(host)
        return connect(self, "127.0.0.1", server.server_port, *rest)

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", to_the_test)
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, port, *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in NAMES[host]],
    )
    Pages.asked.clear()
    yield connected
    server.shutdown()
    server.server_close()


def test_a_public_text_is_read_from_the_address_that_was_looked_at(connected: list[str], tmp_path: Path) -> None:
    main = for_a_worker("http://texts.example/moved", cache=tmp_path).main
    assert (main.name, main.location) == ("moved", "http://texts.example/moved")
    assert (tmp_path / main.sha256).read_text() == TEXT
    assert set(connected) == {"93.184.216.34"}, "not the name, which may mean another one by now"
    assert Pages.asked == ["texts.example/moved", "texts.example/text"]
    asked = list(Pages.asked)
    assert hub.download(main.location, tmp_path, main.sha256)[1] == main.sha256
    assert Pages.asked == asked, "what the step reads later is there already"


@pytest.mark.parametrize("path", ["inside", "loopback", "number"])
def test_a_redirect_is_looked_at_again(connected: list[str], tmp_path: Path, path: str) -> None:
    with pytest.raises(SourceError, match="is not a public address, and a worker asks no other"):
        for_a_worker(f"http://texts.example/{path}", cache=tmp_path)
    assert connected == ["93.184.216.34"]
    assert len(Pages.asked) == 1


@pytest.mark.parametrize("host", ["inner.example", "both.example", "127.0.0.1", "2130706433"])
def test_no_host_of_its_own_network_is_asked(connected: list[str], tmp_path: Path, host: str) -> None:
    with pytest.raises(SourceError, match="is not a public address"):
        for_a_worker(f"http://{host}/text", cache=tmp_path)
    assert not connected


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("file", "is not an http or https address"),
        ("circle", "more than 5 redirects"),
        ("page", "is a web page"),
        ("packed", "is compressed"),
        ("missing", "answered with status 404"),
    ],
)
def test_what_is_no_text(connected: list[str], tmp_path: Path, path: str, said: str) -> None:
    with pytest.raises(NotThere, match=said):
        fetch(f"http://texts.example/{path}", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_text_has_its_limit(connected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "DOWNLOAD_BYTES", 1_000)
    with pytest.raises(NotThere, match="is larger than"):
        fetch("http://texts.example/text", tmp_path)


@pytest.mark.parametrize("url", ["ftp://texts.example/a", "file:///etc/hostname", "s3://bucket/a"])
def test_other_addresses_are_refused_as_ever(url: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="only http and https"):
        for_a_worker(url, cache=tmp_path)


# --- Code of others ----------------------------------------------------------------------------------------------


def test_nobody_trusts_code_of_others() -> None:
    for package in ("minigpt", "tasks", "flows", "reports"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                    assert isinstance(node.value, ast.Constant), path
                    assert node.value.value is False, path
                if isinstance(node, ast.Constant) and node.value == "trust_remote_code":
                    pytest.fail(f"{path} sets it in a way that nobody sees")
                if isinstance(node, ast.Attribute) and node.attr == "from_pretrained":
                    assert path.relative_to(ROOT).as_posix() == "tasks/models/reading.py", (
                        f"{path} reads a model without tasks.models.pretrained.load, which forbids its code"
                    )
