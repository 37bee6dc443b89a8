"""How the command line is read: options with their values, and one sentence for what cannot be.

[cyclopts](https://cyclopts.readthedocs.io) parses, suggests and draws the help; Prefect's own command line is built on
it, too. A value is read by a function of ours, so that all that is wrong with it is said in our words.
"""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import field, fields, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from cyclopts import CycloptsError, Group, MissingArgumentError, Parameter, UnknownCommandError, UnknownOptionError
from cyclopts.exceptions import UnusedCliTokensError

from flows.options import PROFILE_NAMES, Options, UsageError
from tasks.exercises import modules

# Headings of the help, in this order.
WHAT, SOURCES, HOW = (
    Group(name, sort_key=place)
    for place, name in enumerate(("What is run", "On which text, with which model", "Where and how"), 1)
)
_GROUPS = {"what": WHAT, "sources": SOURCES, "how": HOW}


def read(parse: Callable[[str], Any], wanted: str = "", *, several: bool = False, **more: Any) -> Parameter:
    """What makes a value of a text; where it cannot, the sentence says what is ``wanted``, or what ``parse`` said.

    With ``several`` values of an option that may be given several times it makes a tuple. ``more`` is what else there
    is to say of the parameter: see ``cyclopts.Parameter``.
    """

    def convert(_: Any, tokens: Any) -> Any:
        values = []
        for token in tokens:
            try:
                values.append(parse(token.value))
            except UsageError:
                raise
            except ValueError as error:
                name = token.keyword or more.get("metavar") or "argument"
                raise UsageError(f"{name} {token.value}: {wanted or error}") from error
        return tuple(values) if several else values[-1]

    return Parameter(converter=convert, **more)


def _options(*, runs: bool) -> type:
    """The fields of ``Options`` as the command line takes them; what is not given is None.

    Those are what results are stored under; where a command ``runs`` something, also how much of it and how.
    """
    made = []
    for option in fields(Options):
        about = option.metadata
        if not (runs or about["identity"]):
            continue
        parameter = read(
            about["parse"],
            about["wanted"],
            help=about["help"],
            group=_GROUPS[about["group"]],
            metavar=about["metavar"] or option.name.upper(),
            show_choices=bool(about["names"]),
            show_default=about["shown"] or False,
        )
        # What a shell offers; what is taken is up to ``parse``. With Any, since cyclopts holds what was parsed against
        # these types where something has imported pydantic.
        offered = {"corpus": Path, "pretrained": Path, "only": ExerciseId}.get(option.name, str)
        kind = Literal[about["names"]] if about["names"] else offered
        made.append((option.name, Annotated[kind | Any, parameter], field(default=None)))
    namespace = {"__module__": __name__}  # cyclopts takes classes of no module for plain values
    return make_dataclass("Given", made, kw_only=True, frozen=True, namespace=namespace)


if TYPE_CHECKING:
    Runs: TypeAlias = Options
    Stored: TypeAlias = Options
    ExerciseId: TypeAlias = str
    ProfileName: TypeAlias = str
else:
    ExerciseId, ProfileName = Literal[tuple(modules())], Literal[PROFILE_NAMES]
    Runs, Stored = _options(runs=True), _options(runs=False)

NO_RUNS, NO_STORED = Runs(), Stored()  # nothing is given

# Where one of them is the type of a function's argument, its fields are options of the command.
SPREAD = Parameter(name="*")


def sentence(error: CycloptsError) -> str:
    """What is wrong with a command line, in one sentence that names it and what may have been meant."""
    if isinstance(error.__cause__, UsageError):
        return str(error.__cause__)
    chain = ["chapter", *(error.command_chain or ())]
    remedy = f"see `{' '.join(chain)} --help`"
    if isinstance(error, UnknownOptionError):
        name = (error.token.keyword or error.token.value).partition("=")[0]
        known = (known for argument in error.argument_collection if argument.parse for known in argument.names)
        return f"{name}: `{' '.join(chain)}` has no such option; {_meant(name, [*known, '--help']) or remedy}"
    if isinstance(error, UnknownCommandError):
        [name, *_] = error.unused_tokens or [""]
        dashed = name.startswith("-")
        names = [each for each in (error.app or ()) if each.startswith("-") == dashed]
        kind = "option" if dashed else "command"
        return f"{name}: there is no such {kind}; {_meant(name, names) or remedy}"
    if isinstance(error, UnusedCliTokensError):
        [name, *_] = error.unused_tokens or [""]
        return f"{name}: that is one argument too many; {remedy}"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        argument = error.argument
        name = error.keyword or argument.name
        if argument.index is not None:
            name = argument.parameter.metavar or name.lstrip("-").upper()
        return f"{name}: give a value; {remedy}"
    return " ".join(str(error).split())


def _meant(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]}?" if close else ""
