"""How a step can fail, as data: what is to be done about it does not hang on how a message is worded."""

from dataclasses import dataclass
from typing import Literal

from tasks.cache.store import MissingArtifact

FailureKind = Literal["failed", "crashed", "lost artifact"]


@dataclass(frozen=True)
class Failure:
    """Why a step has no record.

    ``failed``: it would fail again. ``crashed``: its process died under it. ``lost artifact``: a blob that it needs
    vanished after it had been looked up, and has to be made again.
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


def kind_of(error: BaseException) -> FailureKind:
    """What kind of failure an exception of a step's code is."""
    return "lost artifact" if isinstance(error, MissingArtifact) else "failed"
