"""Numbers of a longer run, kept in ``reports/reference/`` and shown beside those of this one, never in their place.

``chapter report --reference DIR`` writes the files, one per exercise, from a run's results; the page reads them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated

from markupsafe import Markup
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from reports.blocks import environment
from reports.chapter import CHAPTER, exercise_id
from reports.types import Check, Result

FOLDER = Path(str(resources.files("reports"))) / "reference"
_NUMBER = re.compile(r"\d[\d.,]*")

Text = Annotated[str, Field(min_length=1)]


def _known(id: str) -> str:
    if id not in CHAPTER.questions or exercise_id(id) != id:
        raise ValueError(f"the chapter has no exercise {id}")
    return id


def _moment(text: str) -> str:
    datetime.fromisoformat(text)
    return text


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What one exercise measured in a longer run, and where: a number without a machine and a date is a rumour."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    id: Annotated[str, AfterValidator(_known)]  # with two digits, "21.08"
    profile: Text
    budget: float = 1.0  # the profile's trainings had so many times its steps
    commit: Text  # of this project
    date: Annotated[str, AfterValidator(_moment)]  # of the run, ISO 8601
    machine: Text
    sources: dict[str, str]  # name -> what was used
    seeds: tuple[int, ...]
    code_version: Text  # of the code that measured; see ``Provenance``
    metrics: dict[str, float | int]
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Unreadable:
    """A file that is no reference, with the reason: it costs its exercise a remark, and the others nothing."""

    id: str
    reason: str


References = Mapping[str, Reference | Unreadable]
"""By two-digit id."""


class ReferenceFileError(ValueError):
    """A file that is no reference; the text names it, the field and the value."""


def load(folder: Path = FOLDER) -> References:
    """The references in a folder, which may be absent or hold some exercises only."""
    found: dict[str, Reference | Unreadable] = {}
    for file in sorted(folder.glob("*.json")):
        try:
            found[file.stem] = parse(file)
        except ReferenceFileError as error:
            found[file.stem] = Unreadable(file.stem, str(error))
    return found


def parse(file: Path) -> Reference:
    """The reference in a file that is called by its exercise, ``21.08.json``.

    Raises:
        ReferenceFileError: it cannot be read, or does not fit ``Reference``.
    """
    try:
        reference = TypeAdapter(Reference).validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ReferenceFileError(f"{file.name}: {where}: {first['msg']}; write it again or remove it") from error
    except OSError as error:
        raise ReferenceFileError(f"{file.name}: {error.strerror}") from error
    if file.stem != reference.id:
        raise ReferenceFileError(f"{file.name}: id: it holds exercise {reference.id}; rename it {reference.id}.json")
    return reference


def of(result: Result, *, commit: str, date: str, machine: str, budget: float = 1.0) -> Reference:
    """What is kept of a result. Sources without their descriptions."""
    provenance = result.provenance
    return Reference(
        id=exercise_id(result.id),
        profile=provenance.profile,
        budget=budget,
        commit=commit,
        date=date,
        machine=machine,
        sources={name: _named(line) for name, line in provenance.sources.items()},
        seeds=tuple(provenance.seeds),
        code_version=provenance.code_version,
        metrics=dict(result.metrics),
        checks=result.checks,
    )


def _named(source: str) -> str:
    """A source's name: what its description says before the colon."""
    return source.partition(": ")[0]


# --- Beside a result -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Beside:
    """One exercise's result with its reference, as the page's section shows them; without one it shows nothing."""

    result: Result
    reference: Reference | Unreadable | None = None

    @property
    def there(self) -> bool:
        """Whether there is a reference to be shown."""
        return isinstance(self.reference, Reference)

    @property
    def line(self) -> Markup:
        """Where the reference comes from, and what to mind when comparing."""
        if self.reference is None or self.result.status != "ok":
            return Markup("")
        return Markup(environment().get_template("reference.html").render(beside=self, reference=self.reference))

    def check(self, check: Check, verdicts: Mapping[tuple[str, bool], str]) -> Markup:
        """What the reference measured for a check, and its verdict there, in the words of ``verdicts``."""
        found = self._checks.get(check.claim)
        if found is None:
            return Markup("")
        verdict = verdicts[found.kind, found.passed]
        template = environment().get_template("reference_check.html")
        return Markup(template.render(here=check, there=found, verdict=verdict))

    def metric(self, name: str) -> float | int | None:
        """The reference's value of a metric."""
        return self.reference.metrics.get(name) if isinstance(self.reference, Reference) else None

    @property
    def another_version(self) -> bool:
        """Whether the code that measures has changed since."""
        return isinstance(self.reference, Reference) and (
            self.reference.code_version != self.result.provenance.code_version
        )

    @property
    def other_sources(self) -> list[tuple[str, str, str]]:
        """Name, what is used here and what was used there, of the sources that differ."""
        if not isinstance(self.reference, Reference):
            return []
        here = {name: _named(line) for name, line in self.result.provenance.sources.items()}
        there = self.reference.sources
        names = [*here, *(name for name in there if name not in here)]
        pairs = [(name, here.get(name, "none"), there.get(name, "none")) for name in names]
        return [(name, one, other) for name, one, other in pairs if one != other]

    @property
    def alone(self) -> list[str]:
        """Claims and metrics of the reference that have no counterpart here."""
        if not isinstance(self.reference, Reference):
            return []
        matched = {id(found) for found in self._checks.values()}
        claims = [check.claim for check in self.reference.checks if id(check) not in matched]
        return claims + [name for name in self.reference.metrics if name not in self.result.metrics]

    @cached_property
    def _checks(self) -> dict[str, Check]:
        return matches(self.result.checks, self.reference.checks) if isinstance(self.reference, Reference) else {}


def matches(here: Sequence[Check], there: Sequence[Check]) -> dict[str, Check]:
    """The check of ``there`` that makes the same claim, by claim of ``here``, of one kind.

    A claim may name how much was measured ("chi-square of 50,000 draws"): one that is left over is matched by its words
    alone, if it is the only one with them on either side.
    """
    exact = {(check.claim, check.kind): check for check in there}
    found = {check.claim: exact[check.claim, check.kind] for check in here if (check.claim, check.kind) in exact}
    left_here = _by_words([check for check in here if check.claim not in found])
    left_there = _by_words([check for check in there if check not in found.values()])
    for words, mine in left_here.items():
        theirs = left_there.get(words, [])
        if len(mine) == len(theirs) == 1:
            found[mine[0].claim] = theirs[0]
    return found


def _by_words(checks: Sequence[Check]) -> dict[tuple[str, str], list[Check]]:
    grouped: dict[tuple[str, str], list[Check]] = {}
    for check in checks:
        grouped.setdefault((wording(check.claim), check.kind), []).append(check)
    return grouped


def wording(text: str) -> str:
    """A claim or a metric's name without the numbers in it."""
    return _NUMBER.sub("#", text)


# --- The whole page --------------------------------------------------------------------------------------------


def origins(references: References) -> list[tuple[Reference, int]]:
    """The runs that the references come from, each by one of its references, and how many exercises it has."""
    runs: dict[tuple[str, float, str, str, str], list[Reference]] = {}
    for one in references.values():
        if isinstance(one, Reference):
            runs.setdefault((one.profile, one.budget, one.commit, one.date, one.machine), []).append(one)
    return [(found[0], len(found)) for found in runs.values()]
