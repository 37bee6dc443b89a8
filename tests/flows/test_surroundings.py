"""What of an environment reaches our own servers and what talks to them: nothing that is meant for others."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.surroundings import (
    REFUSING,
    change,
    direct_on_loopback,
    for_a_server,
    is_loopback,
    settle_streams,
    usable_proxy,
    without,
    work_in,
)

PROXIES = [
    "http://proxy:3128",
    "proxy:3128",
    "https://user:word@proxy:1",
    "socks5://proxy:1",
    "socks5h://proxy:1",
    "socks4://proxy:1",
    "foo://x",
    "http://[::1",
    "http://[::1]:80",
    ":::",
    "http://h:x",
    "http://h:999999",
    "ftp://h",
    "%%%",
    "://",
]
EXCEPTIONS = [
    "localhost,[::1]",
    "[::1]:8080",
    "fe80::/10",
    "*.example.com,.example.org",
    "10.0.0.0/8",
    "*",
    "<local>",
    "http://x:y",
    "foo:bar",
    "a:b:c",
    "é.com",
    "a,,b",
    " ",
]


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in ("NO_PROXY", "no_proxy"):  # what a test changes is set back
        monkeypatch.setenv(name, "")


def goes_direct(url: str) -> bool:
    """Whether the library that Prefect's client is made of would ask no proxy; fails as the client would."""
    with httpx.Client(verify=False) as client:  # certificates take time to load
        return client._transport_for_url(httpx.URL(url)) is client._transport


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("variable", ["ALL_PROXY", "http_proxy"])
def test_no_proxy_on_loopback(monkeypatch: pytest.MonkeyPatch, variable: str, proxy: str) -> None:
    monkeypatch.setenv(variable, proxy)
    change(direct_on_loopback(os.environ))
    assert goes_direct("http://127.0.0.1:4200/api")
    assert goes_direct("http://localhost:5000")
    assert goes_direct("http://[::1]:5000")
    assert not goes_direct("http://example.com"), "others are still reached through it, or not at all"
    assert os.environ[variable] == (proxy if usable_proxy(proxy) else REFUSING)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("exceptions", EXCEPTIONS)
@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_exceptions_in_any_form(monkeypatch: pytest.MonkeyPatch, variable: str, exceptions: str) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv(variable, exceptions)
    change(direct_on_loopback(os.environ))
    assert goes_direct("http://127.0.0.1:4200/api")
    assert goes_direct("http://example.com") == (exceptions == "*")


@pytest.mark.usefixtures("alone")
def test_the_users_own_exceptions_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "example.com, 10.0.0.1,[fd00::1]")
    change(direct_on_loopback(os.environ))
    for host in ("example.com", "10.0.0.1", "[fd00::1]"):
        assert goes_direct(f"http://{host}/")
    assert not goes_direct("http://example.org")


@given(st.text(st.characters(codec="ascii", exclude_characters="\x00"), max_size=30))
@settings(max_examples=100, deadline=None)
def test_whatever_stands_there_a_client_can_be_made(text: str) -> None:
    """Of proxies and exceptions that nobody has thought of."""
    for environ in ({"all_proxy": text}, {"no_proxy": text, "http_proxy": "http://proxy:3128"}):
        changed = {**environ, **direct_on_loopback(environ)}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("httpx._utils.getproxies", lambda changed=changed: _as_python_reads(changed))
            assert goes_direct("http://127.0.0.1:4200/api")


def _as_python_reads(environ: dict[str, str | None]) -> dict[str, str]:
    return {name.removesuffix("_proxy"): value for name, value in environ.items() if value and name.islower()}


def test_a_key_log_that_cannot_be_written_goes(tmp_path: Path) -> None:
    assert direct_on_loopback({"SSLKEYLOGFILE": str(tmp_path)})["SSLKEYLOGFILE"] is None
    assert "SSLKEYLOGFILE" not in direct_on_loopback({"SSLKEYLOGFILE": str(tmp_path / "keys")})


def test_a_server_of_ours_gets_what_it_needs_and_nothing_else() -> None:
    kept = {"PATH": "/bin", "HOME": "/home/me", "LC_ALL": "C", "PYTHONPATH": "/code", "TMPDIR": "/t"}
    theirs = {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:///mine.db",
        "prefect_api_url": "http://elsewhere/api",
        "MLFLOW_BACKEND_STORE_URI": "sqlite:///mine.db",
        "WEB_CONCURRENCY": "many",
        "ALL_PROXY": "socks5://h:1",
        "SSL_CERT_FILE": "/nowhere",
        "OTEL_TRACES_EXPORTER": "x",
        "PYTHONWARNINGS": "error",
    }
    assert for_a_server(kept | theirs) == kept | {"PYTHONWARNINGS": "ignore"}


def test_a_programs_settings_in_capitals_and_in_small_letters() -> None:
    names = ["PREFECT_API_URL", "prefect_logging_level", "PREFECT__FLOW_RUN_ID", "PERFECT", "MY_PREFECT_X"]
    assert set(without(names, "PREFECT_")) == set(names[:3])


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:4200/api", True),
        ("http://localhost/api", True),
        ("https://[::1]:1/api", True),
        ("http://127.8.8.8/api", True),
        ("http://10.0.0.1/api", False),
        ("http://localhost.example.com", False),
        ("http://[::", False),
        ("", False),
    ],
)
def test_loopback(url: str, here: bool) -> None:
    assert is_loopback(url) is here


def test_what_is_named_from_here_has_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHAPTER_OUTPUTS", "out")
    monkeypatch.setenv("CHAPTER_STORE", "st")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mine.db")
    work_in(tmp_path / "out" / "prefect")
    assert Path.cwd() == tmp_path / "out" / "prefect"
    assert os.environ["CHAPTER_OUTPUTS"] == str(tmp_path / "out")
    assert os.environ["CHAPTER_STORE"] == str(tmp_path / "st")
    assert os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path}/mine.db"


def test_closed_streams_are_opened(tmp_path: Path) -> None:
    """Or the first file that a run opens, a lock perhaps, is what its children take for standard input."""
    code = "import flows.surroundings as s; s.settle_streams(); print(open('f', 'w').fileno(), file=open('g', 'w'))"
    command = f'exec {sys.executable} -c "{code}" <&- >&- 2>&-'
    root = Path(__file__).parents[2]
    subprocess.run(["sh", "-c", command], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root)}, check=True)
    assert int((tmp_path / "g").read_text()) > 2
    settle_streams()  # a second time does nothing


@pytest.mark.parametrize("named", ["", "http://127.0.0.1:4200/api"])
def test_the_home_that_prefect_makes_when_it_is_imported(tmp_path: Path, named: str) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    environment |= {"PREFECT_API_URL": named, "PREFECT_LOGGING_LEVEL": "ERROR"} if named else {}
    (tmp_path / "home").mkdir()
    code = "import sys; from pathlib import Path; from flows.surroundings import keep_prefect_in\n" + (
        "keep_prefect_in(Path(sys.argv[1])); import prefect.context, os; print(os.environ.get('PREFECT_LOGGING_LEVEL'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "ours")],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("ERROR\n" if named else "None\n", "")
    assert (tmp_path / "ours").exists() != bool(named)
    assert (tmp_path / "home" / ".prefect").exists() == bool(named), (
        "with a server that is named, it is as the user has it"
    )
