"""What a simulated host is: a network of its own, that can be cut, and a date of its own."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.flows.conftest import ROOT
from tests.soak.clock import Clock, built
from tests.soak.network import Network, NoNamespace

ASK = "import sys, urllib.request as u; print(u.urlopen(f'http://127.0.0.1:{sys.argv[1]}', timeout=30).read().decode())"

# A program that says, whenever it is asked, its date, the same by another way, and how long three short waits took.
LOOKS = """
import asyncio, datetime, sys, threading, time
for _ in sys.stdin:
    begun = time.monotonic()
    time.sleep(0.2)
    threading.Event().wait(0.2)
    asyncio.run(asyncio.sleep(0.2))
    print(time.time(), datetime.datetime.now().timestamp(), time.monotonic() - begun, flush=True)
"""


class Answers(BaseHTTPRequestHandler):
    """A server of two words."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"it answers")

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def ports() -> Iterator[list[int]]:
    """Of two servers."""
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Answers) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield [server.server_port for server in servers]
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def network(ports: list[int]) -> Iterator[Network]:
    """In which the first of the servers can be reached."""
    try:
        made = Network(ports[:1], {**os.environ, "PYTHONPATH": str(ROOT)}, ROOT)
    except NoNamespace as error:
        pytest.skip(str(error))
    yield made
    made.close()


def asking(network: Network, port: int) -> subprocess.Popen[str]:
    command = [*network.prefix, sys.executable, "-c", ASK, str(port)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_host_reaches_the_servers_that_it_may(network: Network, ports: list[int]) -> None:
    assert asking(network, ports[0]).communicate() == ("it answers\n", "")
    _, error = asking(network, ports[1]).communicate()
    assert "Connection refused" in error


def test_what_a_cut_network_was_asked_arrives_afterwards(network: Network, ports: list[int]) -> None:
    network.cut(True)
    waiting = asking(network, ports[0])
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.communicate(timeout=3)
    network.cut(False)
    assert waiting.communicate() == ("it answers\n", "")


def test_a_date_is_wrong_for_one_host_and_its_monotonic_clock_is_not(tmp_path: Path) -> None:
    library = built(tmp_path)
    if library is None:
        pytest.skip("there is no C compiler")
    clock = Clock(library, tmp_path / "clock")
    clock.set(0.0)
    command = [sys.executable, "-c", LOOKS]
    environment = {**os.environ, **clock.environment()}
    looking = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert looking.stdin is not None
    assert looking.stdout is not None
    for off in (0.0, -3600.0, 3600.0):
        clock.set(off)
        looking.stdin.write("now\n")
        looking.stdin.flush()
        date, same_date, waited = map(float, looking.stdout.readline().split())
        assert date - time.time() == pytest.approx(off, abs=30)
        assert same_date == pytest.approx(date, abs=30)
        assert 0.6 <= waited < 30
    looking.stdin.close()
    looking.wait()
