"""What holds of a reference and of an exercise that it is of: the same numbers under the same names."""

import re

from reports.beside.reference import Reference, Unreadable, load, wording
from reports.types import Answer

REFERENCES = load()
STRANGE_METRICS = 0.1  # at most: layers and positions depend on a profile's size
STRANGE_CLAIMS = 1 / 3  # at most: some name the pretrained model, some are made where there are enough data
SPREAD = ("_over_seeds", "_std")  # what only several seeds have
_SIZES = re.compile("small|medium|large")  # of which a small profile trains fewer on byte pairs


def _plain(name: str) -> str:
    """A metric's name without numbers, without its spread, and of whichever size."""
    for ending in SPREAD:
        name = name.removesuffix(ending)
    return _SIZES.sub("size", wording(name))


def assert_belongs(reference: Reference, answer: Answer) -> None:
    """Its metrics and claims are those of the exercise as it is now, which has answered at some small profile."""
    known = {_plain(name) for name in answer.metrics}
    looked_at = [name for name in reference.metrics if not name.endswith(SPREAD)]
    strange = [name for name in looked_at if _plain(name) not in known]
    assert len(strange) <= STRANGE_METRICS * len(looked_at), f"the exercise has no metrics {strange}"
    claims = {(wording(check.claim), check.kind) for check in answer.checks}
    unknown = [check.claim for check in reference.checks if (wording(check.claim), check.kind) not in claims]
    assert len(unknown) <= STRANGE_CLAIMS * len(reference.checks), f"the exercise has no checks {unknown}"


def assert_reference_belongs(id: str, answer: Answer) -> None:
    """What is kept in ``reports/reference`` for an exercise, if anything, is of the exercise as it is now."""
    kept = REFERENCES.get(id)
    assert not isinstance(kept, Unreadable), kept.reason
    if kept is not None:
        assert_belongs(kept, answer)
