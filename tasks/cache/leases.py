"""Who works on a key, across machines that share nothing but a store: a small object per key that is made once.

    leases/<sha256 of the key>-<turn>     there while somebody works on the key; what it says changes with each beat

Who makes it has the key: object stores let one of several succeed who make the same object at once. It is renewed while
its holder lives and removed afterwards. One that nobody renews is left behind by a machine that has vanished; whoever
has watched it for long enough makes the one of the next turn. No clocks are compared: each waits by its own, and time
in which the store did not answer does not count. A server of Prefect's is not asked, and can be away meanwhile.

Should a machine be frozen for so long that another one has taken its key, both do the same work, to the same bits.
"""

import hashlib
import json
import logging
import random
import re
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from tasks.cache.objects import Objects

logger = logging.getLogger("chapter")

SECONDS = 60.0  # without a beat: then its holder is gone
BEATS = 4  # in that time
POLL_SECONDS = 0.2, 5.0  # between two looks of who waits: at first, and at last


@dataclass
class Lease:
    """The lease of one key, wanted or held by one holder. Not for several threads at once."""

    objects: Objects
    key: str
    seconds: float = SECONDS
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    holder: str = field(default_factory=lambda: uuid.uuid4().hex)
    turn: int = 0  # 0: not held
    beat: int = 0

    @property
    def _stem(self) -> str:
        return _stem(self.key)

    def _name(self, turn: int) -> str:
        return f"leases/{self._stem}-{turn:09d}"

    def _turns(self) -> list[int]:
        """The turns that there are, the current one last."""
        found = (re.fullmatch(rf"{self._stem}-([0-9]{{9}})", name) for name in self.objects.names("leases"))
        return sorted(int(match[1]) for match in found if match)

    def _content(self) -> bytes:
        return json.dumps({"holder": self.holder, "beat": self.beat}).encode()

    def _read(self, turn: int) -> bytes | None:
        try:
            return self.objects.read(self._name(turn))
        except FileNotFoundError:
            return None

    def acquire(self, timeout: float | None = None) -> bool:
        """Wait for the key, at most ``timeout`` seconds (None: for ever). True if it is ours."""
        begun, seen, unchanged, looked, pause = self.clock(), None, 0.0, self.clock(), POLL_SECONDS[0]
        while True:
            turns = self._turns()
            now = self.clock()
            current = (turns[-1], self._read(turns[-1])) if turns else None
            if current is None or (current == seen and unchanged >= self.seconds):
                if self._take(turns):
                    return True
            elif current == seen:
                unchanged += min(now - looked, 2 * pause)
            else:
                seen, unchanged, pause = current, 0.0, POLL_SECONDS[0]
            looked = now
            left = None if timeout is None else begun + timeout - self.clock()
            if left is not None and left <= 0:
                return False
            self.sleep(min(pause * random.uniform(0.5, 1.0), left if left is not None else pause))
            pause = min(2 * pause, POLL_SECONDS[1], max(self.seconds / 8, POLL_SECONDS[0]))

    def _take(self, turns: list[int]) -> bool:
        """Make the lease of the turn after ``turns``, which are over; False if somebody else has."""
        turn = (turns[-1] if turns else 0) + 1
        if not self.objects.create(self._name(turn), self._content()) and self._read(turn) != self._content():
            return False  # it says that it was there already also when the answer to our own was lost
        if set(self._turns()) - {*turns, turn}:  # who had the key came back, gave it up, and another one has it
            self.objects.delete(self._name(turn))
            return False
        self.turn = turn
        for old in turns:
            self.objects.delete(self._name(old))
        return True

    def renew(self) -> bool:
        """Show that we live; False if another one has taken the key meanwhile."""
        if self._turns()[-1:] != [self.turn] or not self._is_ours():
            return False
        self.beat += 1
        self.objects.write(self._name(self.turn), self._content())
        return True

    def release(self) -> None:
        """Give the key back."""
        if self.turn:
            if self._is_ours():
                self.objects.delete(self._name(self.turn))
            self.turn = 0

    def _is_ours(self) -> bool:
        """Whether our turn is still ours: they begin with 1 again once a key was given back."""
        content = self._read(self.turn)
        return content is not None and self.holder.encode() in content


def drop_leases(objects: Objects, keys: Collection[str]) -> None:
    """Remove all leases of keys that nobody has to take any more, whoever holds them."""
    stems = {_stem(key) for key in keys}
    for name in objects.names("leases"):
        if name.rpartition("-")[0] in stems:
            objects.delete(f"leases/{name}")


def _stem(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
