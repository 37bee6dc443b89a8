"""Hosts with a network each, which reaches some ports of this machine and nothing else; where this user may make one.

    python -m tests.soak.network PORT…

is such a network. It prints where its namespace is, which ``nsenter --net=`` takes. In the namespace each port of
127.0.0.1 leads to the same port outside. After SIGUSR1 nothing gets through any more, as if a cable were pulled: what
is sent is not lost but waits, and nobody is told. After SIGUSR2 it goes on.
"""

import asyncio
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1


class NoNamespace(RuntimeError):
    """This user may have no network namespace."""


class Network:
    """The process that is a network; a host's processes are started with ``prefix``."""

    def __init__(self, ports: Sequence[int], environment: Mapping[str, str], root: Path) -> None:
        command = [sys.executable, "-m", "tests.soak.network", *map(str, ports)]
        self.process = subprocess.Popen(
            command, env=dict(environment), cwd=root, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.process.stdout is not None
        self.place = self.process.stdout.readline().strip()
        if not self.place or shutil.which("nsenter") is None:
            self.close()
            raise NoNamespace("network namespaces are not allowed here")

    @property
    def prefix(self) -> list[str]:
        """What stands before a command that is to run in it."""
        return ["nsenter", f"--net={self.place}"]

    def cut(self, cut: bool) -> None:
        """Let nothing through, or everything again."""
        self.process.send_signal(signal.SIGUSR1 if cut else signal.SIGUSR2)

    def close(self) -> None:
        """Nobody reaches anything in it any more."""
        self.process.kill()
        self.process.wait()


def may_have_networks(root: Path) -> bool:
    """Whether there can be one."""
    try:
        Network([], os.environ, root).close()
    except NoNamespace:
        return False
    return True


# --- The process ------------------------------------------------------------------------------------------------


def _listeners(ports: Sequence[int]) -> tuple[str, list[socket.socket]]:
    """A new namespace, and sockets in it that listen. A namespace is a thread's, and this one keeps its thread."""
    made: list[tuple[str, list[socket.socket]]] = []
    ready = threading.Event()

    def inside() -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
                raise NoNamespace(os.strerror(ctypes.get_errno()))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
                fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
            listening = [socket.create_server(("127.0.0.1", port), backlog=512) for port in ports]
            made.append((f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net", listening))
        finally:
            ready.set()
        threading.Event().wait()

    threading.Thread(target=inside, daemon=True).start()
    ready.wait()
    if not made:
        raise NoNamespace("network namespaces are not allowed here")
    return made[0]


async def _serve(place: str, listening: Sequence[socket.socket]) -> None:
    through, open_ones = asyncio.Event(), set[asyncio.Task[None] | None]()
    through.set()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, through.clear)
    loop.add_signal_handler(signal.SIGUSR2, through.set)

    async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(1 << 16):
                await through.wait()
                target.write(data)
                await target.drain()
            await through.wait()
            target.write_eof()
        except (OSError, RuntimeError):  # either side is gone
            target.transport.abort()

    def joined(port: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            open_ones.add(asyncio.current_task())  # the loop itself would let go of it
            try:
                await join(reader, writer)
            finally:
                open_ones.discard(asyncio.current_task())

        async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await through.wait()
            try:
                outer_reader, outer_writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:  # nobody listens there: the same as without this
                writer.transport.abort()
                return
            await asyncio.gather(carry(reader, outer_writer), carry(outer_reader, writer))
            for one in (writer, outer_writer):
                one.close()
                with suppress(OSError):
                    await one.wait_closed()

        return connection

    for one in listening:
        await asyncio.start_server(joined(one.getsockname()[1]), sock=one)
    print(place, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        asyncio.run(_serve(*_listeners([int(port) for port in sys.argv[1:]])))
    except NoNamespace as error:
        sys.exit(str(error))
