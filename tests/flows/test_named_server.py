"""A server that ``PREFECT_API_URL`` names: used if it is Prefect's, or one sentence about what it is instead."""

import http.server
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from flows.named_server import NotThatServer, check
from flows.options import UsageError
from flows.shared_server import LOOPBACK, free_port

PAGE = "<!doctype html><title>Prefect Server</title>"


@contextmanager
def server(answers: Mapping[str, tuple[int, str]], default: tuple[int, str] = (404, "no")) -> Iterator[str]:
    """A server with these answers, by path; yields its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = answers.get(self.path, default)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer((LOOPBACK, 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://{LOOPBACK}:{running.server_port}"
        running.shutdown()


def test_prefects_api_is_used() -> None:
    with server({"/api/health": (200, "true")}, (200, PAGE)) as url:
        check(f"{url}/api")
        check(f"{url}/api/")


@pytest.mark.parametrize("status", [401, 403])
def test_one_that_wants_a_password_is_asked_again_by_prefect(status: int) -> None:
    with server({}, (status, "{}")) as url:
        check(f"{url}/api")


def test_without_api_at_its_end() -> None:
    with server({"/api/health": (200, "true")}, (200, PAGE)) as url, pytest.raises(NotThatServer) as caught:
        check(url)
    assert str(caught.value) == f"PREFECT_API_URL {url}: this is Prefect's page, not its API; write {url}/api"


@pytest.mark.parametrize("answer", [(200, "OK"), (200, PAGE), (200, "null"), (500, "true"), (404, "{}")])
def test_something_else(answer: tuple[int, str]) -> None:
    """The first is what MLflow answers."""
    with server({}, answer) as url, pytest.raises(NotThatServer, match="is not Prefect's API; correct it, or unset it"):
        check(f"{url}/api")


def test_nobody_and_something_that_speaks_another_language() -> None:
    with pytest.raises(NotThatServer, match="nothing answers there"):
        check(f"http://{LOOPBACK}:{free_port()}/api")


@pytest.mark.parametrize(
    "value", ["localhost:4200/api", "/api", "http://", "http://[::/api", "ftp://x/api", "http://h:x"]
)
def test_not_an_address(value: str) -> None:
    with pytest.raises(UsageError, match="not an address; write it like"):
        check(value)


def test_a_password_in_the_address_is_not_shown() -> None:
    with pytest.raises(NotThatServer) as caught:
        check(f"http://me:secret@{LOOPBACK}:{free_port()}/api")
    assert "secret" not in str(caught.value)


def test_a_proxy_is_not_asked_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://{LOOPBACK}:{free_port()}")
    monkeypatch.setenv("no_proxy", "")
    with server({"/api/health": (200, "true")}) as url:
        check(f"{url}/api")


@pytest.mark.parametrize("refused", ["/api/health", "/api/admin/version"])
def test_a_wrong_password_is_one_sentence(refused: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A Prefect server with a password says to everybody that it is well."""
    from flows import pools
    from flows.named_server import check_access
    from flows.servers import _environment

    answers = {"/api/health": (200, "true"), "/api/admin/version": (200, '"3.8.8"'), refused: (401, "{}")}
    with server(answers) as url, _environment({"PREFECT_API_URL": f"{url}/api", "PREFECT_API_AUTH_STRING": "me:no"}):
        said = "it wants another password \\(status 401\\); set PREFECT_API_AUTH_STRING"
        with pytest.raises(NotThatServer, match=said):
            check_access(f"{url}/api")
        assert pools.main() == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_right_password() -> None:
    from flows.named_server import check_access
    from flows.servers import _environment

    answers = {"/api/health": (200, "true"), "/api/admin/version": (200, '"3.8.8"')}
    with server(answers) as url, _environment({"PREFECT_API_URL": f"{url}/api"}):
        check_access(f"{url}/api")
