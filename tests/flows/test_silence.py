"""No command tells anybody of anything: no connection leaves this machine, no notice is printed, no home is written.

Each command runs as a new user does, with an empty home and nothing that would switch telemetry off. Python reports
every connection and every name that is looked up, in the command and in all that it starts (the audit events of
https://docs.python.org/3/library/audit_events.html); and what goes through a proxy meets one that writes it down.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.flows.conftest import ROOT

SMOKE = ("--profile", "smoke", "--sources", "embedded")
NOTICES = re.compile(r"telemetry|analytics|usage (data|statistics|tracking)|anonymous|opt.?out|DO_NOT_TRACK", re.I)
HOOK = """
import json, sys
def note(event, arguments):
    if event in ("socket.connect", "socket.sendto"):
        to = arguments[1]
    elif event == "socket.getaddrinfo":
        to = arguments[:2]
    else:
        return
    host = to[0] if isinstance(to, tuple) else None  # a socket in the file system is no host
    host = host.decode() if isinstance(host, bytes) else host
    with open(LOG, "a") as log:
        log.write(json.dumps([event, host, " ".join(sys.orig_argv[1:4])]) + "\\n")
sys.addaudithook(note)
"""
OWN = re.compile(rf"127(\.\d+){{3}}|::1|localhost|{re.escape(socket.gethostname())}")


@dataclass
class User:
    """Somebody new, with an empty home; all proxies are one that writes down what it is asked."""

    folder: Path
    proxy: int
    asked: list[str] = field(default_factory=list)  # first lines of requests to the proxy

    def environment(self) -> dict[str, str]:
        for name in ("home", "here", "tmp", "hook"):
            (self.folder / name).mkdir(exist_ok=True)
        (self.folder / "hook" / "sitecustomize.py").write_text(HOOK.replace("LOG", repr(str(self.folder / "log"))))
        address = f"http://127.0.0.1:{self.proxy}"
        proxies = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), address)
        return {
            "PATH": os.environ["PATH"],
            "HOME": f"{self.folder}/home",
            "TMPDIR": f"{self.folder}/tmp",
            "PYTHONPATH": f"{self.folder}/hook{os.pathsep}{ROOT}",
            "OMP_NUM_THREADS": "1",
            "CHAPTER_OUTPUTS": f"{self.folder}/outputs",
            **proxies,
            **{name.upper(): value for name, value in proxies.items()},
        }

    def runs(self, *arguments: str, status: int = 0) -> str:
        """Run a command and look for all that must not be; returns what it said."""
        command = [sys.executable, "-m", "flows", *arguments]
        place = self.folder / "here"
        done = subprocess.run(command, cwd=place, env=self.environment(), capture_output=True, text=True, timeout=600)
        text = done.stdout + done.stderr
        assert done.returncode == status, text
        self.was_silent(text)
        return text

    def alarms(self) -> list[tuple[str, str]]:
        """What went, or would have gone, elsewhere: the event and the host."""
        log = self.folder / "log"
        events = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return [(event, host) for event, host, _ in events if host and not OWN.fullmatch(host)]

    def was_silent(self, text: str) -> None:
        assert not self.alarms(), (self.folder / "log").read_text()
        assert not self.asked
        assert not NOTICES.search(text), text
        for name in ("home", "here"):
            assert not list((self.folder / name).rglob("*")), f"something was written into {name}"


@pytest.fixture(scope="module")
def proxy() -> Iterator[tuple[int, list[str]]]:
    """The port of a proxy that goes nowhere, and what it has been asked for."""
    asked: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(5)
                    try:
                        asked.append(connection.recv(4096).decode(errors="replace").partition("\r\n")[0])
                    except OSError:
                        asked.append("nothing")

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield listener.getsockname()[1], asked
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


@pytest.fixture
def user(tmp_path: Path, proxy: tuple[int, list[str]]) -> User:
    port, asked = proxy
    asked.clear()
    return User(tmp_path, port, asked)


def test_what_is_watched_is_seen(user: User) -> None:
    """A connection, a name, a request through the proxy, a child's: or silence would prove nothing."""
    code = (
        "import socket, subprocess, sys, urllib.request\n"
        "def tried(work):\n"
        "    try: work()\n"
        "    except OSError: pass\n"
        "def connect():\n"
        "    with socket.socket() as s:\n"
        "        s.settimeout(0.01)\n"
        "        s.connect(('192.0.2.1', 80))\n"
        "if len(sys.argv) > 1: tried(connect)\n"
        "else:\n"
        "    tried(lambda: socket.getaddrinfo('telemetry.invalid', 80))\n"
        "    tried(lambda: urllib.request.urlopen('http://api.invalid/usage', timeout=5))\n"
        "    subprocess.run([sys.executable, __file__, 'child'])\n"
    )
    program = user.folder / "program.py"
    program.write_text(code)
    environment = user.environment()
    subprocess.run([sys.executable, program], env=environment, check=True)
    assert user.alarms() == [("socket.getaddrinfo", "telemetry.invalid"), ("socket.connect", "192.0.2.1")]
    assert user.asked == ["GET http://api.invalid/usage HTTP/1.1"]


@pytest.mark.parametrize("arguments", [(), ("--help",), ("run", "--help"), ("--version",), ("list",)], ids=" ".join)
def test_light_commands(user: User, arguments: tuple[str, ...]) -> None:
    user.runs(*arguments)
    assert not (user.folder / "log").exists(), "not even this machine is asked"


def test_doctor_asks_whether_the_texts_can_be_had_and_nobody_anything_else(user: User) -> None:
    """By default texts and model come from the Hub where it can be reached; so it is asked."""
    command = [sys.executable, "-m", "flows", "doctor"]
    done = subprocess.run(command, env=user.environment(), cwd=user.folder / "here", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    hosts = ("huggingface.co", "raw.githubusercontent.com")
    assert set(user.asked) == {f"CONNECT {host}:443 HTTP/1.1" for host in hosts}
    user.asked.clear()
    user.was_silent(done.stdout + done.stderr)


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.timeout(1800)
def test_every_command_in_a_row(user: User) -> None:
    user.runs("plan", *SMOKE)
    assert "nothing is stored" in user.runs("report", *SMOKE, status=2)
    assert "1 of 1 exercises" in user.runs("run", *SMOKE, "--only", "21.11")
    assert (user.folder / "outputs" / "latest" / "report.html").exists()
    user.runs("show", "21.11")
    user.runs("show", "21.11", "--again")
    user.runs("open", "21.11", "--print")
    user.runs("plan", *SMOKE, "--json")
    user.runs("models", *SMOKE, "--json")
    user.runs("report", *SMOKE)
    user.runs("gc", "--dry-run")
    user.runs("pack", "--to", f"{user.folder}/pack")
    shutil.rmtree(user.folder / "outputs" / "store")
    user.runs("unpack", f"{user.folder}/pack")
    user.runs("gc")


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.timeout(900)
def test_the_servers_of_ui(user: User) -> None:
    command = [sys.executable, "-m", "flows", "ui", "--prefect-port", "4210", "--mlflow-port", "5010"]
    ui = subprocess.Popen(
        command,
        cwd=user.folder,
        env=user.environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert ui.stdout is not None
        said = "".join(iter(ui.stdout.readline, "Ctrl-C stops both.\n"))
        ui.send_signal(signal.SIGINT)
        rest, _ = ui.communicate(timeout=60)
    finally:
        ui.kill()
    assert ui.returncode == 0, said + rest
    user.was_silent(said + rest)
