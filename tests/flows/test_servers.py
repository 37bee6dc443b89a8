import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.servers import _environment, prefect_server
from flows.shared_server import LOOPBACK, ServerError, free_port, shared_server
from tests.flows.conftest import ROOT, wait_until

# A server that starts quickly and answers with its process id, or as Prefect's API does that it is well.
FAKE = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        answer = "true" if self.path.endswith("/api/health") else str(os.getpid())
        self.send_response(200); self.end_headers(); self.wfile.write(answer.encode())
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
USER = """
import sys
from pathlib import Path
from tests.flows.test_servers import fake_server
with fake_server(Path(sys.argv[1])) as url:
    print(url, flush=True)
    sys.stdin.readline()
"""


@contextmanager
def fake_server(state: Path, port: int | None = None, code: str = FAKE) -> Iterator[str]:
    def command(port: int) -> Sequence[str]:
        return [sys.executable, "-c", code, str(port)]

    with shared_server(state, command, lambda port: os.environ, "/health", port) as (url, _):
        yield url


def user(state: Path) -> subprocess.Popen[str]:
    """Another process that uses the server until its stdin gets a line."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", USER, str(state)], cwd=ROOT, text=True, **pipes)  # type: ignore[call-overload,no-any-return]


def pid_of(url: str) -> int:
    with urllib.request.urlopen(f"{url}/pid", timeout=5) as response:
        return int(response.read())


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent's attention does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_last_one_out_stops_the_server(tmp_path: Path) -> None:
    with fake_server(tmp_path) as url:
        pid = pid_of(url)
        with fake_server(tmp_path) as again:
            assert again == url
        other = user(tmp_path)
        assert other.stdout is not None
        assert other.stdout.readline().strip() == url
        assert pid_of(url) == pid
    assert pid_of(url) == pid, "another process still uses it"
    other.communicate("\n", timeout=20)
    assert not is_alive(pid)


def test_many_at_once_start_one_server(tmp_path: Path) -> None:
    users = [user(tmp_path) for _ in range(4)]
    urls = {process.stdout.readline().strip() for process in users if process.stdout}
    assert len(urls) == 1
    pid = pid_of(urls.pop())
    for process in users:
        process.communicate("\n", timeout=20)
    assert not is_alive(pid)


def test_a_killed_user_takes_the_server_along(tmp_path: Path) -> None:
    other = user(tmp_path)
    assert other.stdout is not None
    pid = pid_of(other.stdout.readline().strip())
    other.kill()
    other.communicate()
    wait_until(lambda: not is_alive(pid), 5, "the guard stops the server")
    with fake_server(tmp_path) as url:
        assert pid_of(url) != pid


@pytest.mark.parametrize("victim", ["server", "guard", "both"])
def test_a_killed_server_is_not_in_the_way_of_the_next(tmp_path: Path, victim: str) -> None:
    with fake_server(tmp_path) as url:
        server, guard = pid_of(url), int((tmp_path / "pid").read_text())
        for pid in {"server": [server], "guard": [guard], "both": [guard, server]}[victim]:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(guard), 5, "the guard ends with its server")
    with fake_server(tmp_path) as url:
        assert pid_of(url) != server
    assert not is_alive(server)


def test_a_server_that_does_not_start_shows_its_log(tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(ServerError, match="ended at its start") as caught, fake_server(tmp_path, code="1 / 0"):
        pass
    assert "ZeroDivisionError" in str(caught.value)
    assert time.monotonic() - begun < 10
    with fake_server(tmp_path) as url:
        assert pid_of(url)


def test_a_taken_port_makes_way_for_the_next(tmp_path: Path) -> None:
    with fake_server(tmp_path / "a", free_port()) as one:
        port = int(one.rpartition(":")[2])
        with fake_server(tmp_path / "b", port) as two:
            assert two.startswith(f"http://{LOOPBACK}:")
            assert int(two.rpartition(":")[2]) > port


def test_a_server_of_somebody_elses_is_used(tmp_path: Path) -> None:
    with (
        fake_server(tmp_path / "theirs") as url,
        _environment({"PREFECT_API_URL": f"{url}/api"}),
        prefect_server(tmp_path / "ours") as api,
    ):
        assert api == f"{url}/api"
        assert not (tmp_path / "ours").exists()
    with (
        _environment({"PREFECT_API_URL": f"{url}/api"}),
        pytest.raises(ServerError, match="nothing answers"),
        prefect_server(tmp_path / "ours"),
    ):
        pass


@pytest.mark.prefect
def test_settings_hold_here_and_in_children(api: str, home: Path) -> None:
    from prefect.client.orchestration import get_client
    from prefect.settings import get_current_settings

    assert get_current_settings().api.url == os.environ["PREFECT_API_URL"] == api
    assert get_current_settings().home == home / "prefect"
    with get_client(sync_client=True) as client:
        server = client.request("GET", "/admin/settings").json()["server"]
    assert server["analytics_enabled"] is False
    assert server["concurrency"]["lease_storage"].endswith("filesystem")
    assert server["ui"]["api_url"] == api
    code = "from prefect.settings import get_current_settings as s; print(s().api.url, s().flows.heartbeat_frequency)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.split() == [api, "30"]


def test_the_guard_is_quick_to_start() -> None:
    """It runs beside every server: standard library only."""
    source = (ROOT / "flows" / "guard.py").read_text()
    code = textwrap.dedent(f"""
        import sys
        compile({source!r}, "guard.py", "exec")
        import runpy
        runpy.run_path({str(ROOT / "flows" / "guard.py")!r})
        assert not {{"prefect", "mlflow", "httpx"}} & set(sys.modules)
    """)
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
