"""How a step can fail, as data: what is to be done about it does not hang on how a message is worded."""

import errno
import re
from dataclasses import dataclass
from typing import Literal

from tasks.cache.store import MissingArtifact

FailureKind = Literal["failed", "crashed", "lost artifact", "no room"]
# As the system says it, also through libraries that are not written in Python, and as SQLite does.
NO_ROOM = re.compile("No space left on device|Disk quota exceeded|database or disk is full")
# A device's memory, as PyTorch says it; and a process that the system has killed, as Python, Prefect's workers, Docker
# and Kubernetes say it. There memory is the usual reason, and nobody else names it.
NO_DEVICE_MEMORY = re.compile(r"out of memory|CUBLAS_STATUS_ALLOC_FAILED")
NO_MEMORY = re.compile(
    r"status code:? (137|-9)\b|OOMKilled|terminated abruptly|can't allocate memory|not enough memory"
)


@dataclass(frozen=True)
class Failure:
    """Why a step has no record.

    ``failed``: it would fail again. ``crashed``: its process died under it. ``lost artifact``: a blob that it needs
    vanished after it had been looked up, and has to be made again. ``no room``: a disk is full, for all other steps
    as well.
    """

    text: str
    kind: FailureKind = "failed"


class StepFailed(Exception):
    """A step's own code failed; the text is the traceback, which does not survive the way between processes."""

    def __init__(self, text: str, kind: FailureKind = "failed") -> None:
        super().__init__(text, kind)  # all that is pickled of an exception
        self.text, self.kind = text, kind

    def __str__(self) -> str:
        return self.text


class NoRoom(Exception):
    """A disk is full: nothing more can be done, and what is done is kept."""


def kind_of(error: BaseException) -> FailureKind:
    """What kind of failure an exception of a step's code is."""
    if isinstance(error, StepFailed):
        return error.kind
    if isinstance(error, MissingArtifact):
        return "lost artifact"
    return "no room" if is_no_room(error) else "failed"


def is_no_room(error: BaseException | None) -> bool:
    """Whether an exception, or one that led to it, says that a disk is full."""
    while error is not None:
        if isinstance(error, NoRoom) or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)):
            return True
        if NO_ROOM.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def memory_hint(text: str) -> str:
    """What to do about an error that comes of too little memory, to be put behind it; "" for any other."""
    if NO_DEVICE_MEMORY.search(text):
        return "; the GPU's memory is full: give it to fewer processes (--jobs 1, one worker), or use a smaller profile"
    if NO_MEMORY.search(text):
        return "; as a rule its memory ran out: use fewer --jobs, or give the container or the machine more of it"
    return ""
