"""What a run can be told, and one clear sentence for what it cannot. Light: imports neither torch nor Prefect."""

import difflib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from tasks.cache.urls import without_credentials
from tasks.exercises import modules
from tasks.folders import is_address, named_path, outputs_folder

PROFILE_NAMES = ("smoke", "laptop", "overnight", "gpu")
SOURCE_NAMES = ("auto", "embedded", "hub")
DEVICE_NAMES = ("auto", "cpu", "cuda")
PRECISION_NAMES = ("auto", "fp32", "bf16")
WHERE_NAMES = ("local", "pool")
MOST_BUDGET, MOST_JOBS = 1_000_000, 10_000  # beyond all use; without a bound, beyond all floats and machines


class UsageError(ValueError):
    """Something that was asked for cannot be done; the text is for the person who asked."""


def _option(
    default: Any,
    help: str,
    *,
    group: Literal["what", "sources", "how"],
    shown: str = "",
    names: tuple[str, ...] = (),
    metavar: str | None = None,
    parse: Callable[[str], Any] = str,
    wanted: str = "",
    identity: bool = True,
) -> Any:
    """A field of ``Options``, with what the command line says of it.

    ``group`` is the heading of the help that it stands under, ``shown`` how its default is put there. ``names`` are all
    values that it may have. What ``parse`` refuses is answered with what is ``wanted``. Without ``identity`` it only
    says how much to run, or how.
    """
    about: dict[str, Any] = {"help": help, "group": group, "names": names, "identity": identity}
    about |= {"shown": shown or (str(default) if default else ""), "metavar": metavar, "parse": parse, "wanted": wanted}
    return field(default=default, metadata=about)


def _split(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part.strip())


@dataclass(frozen=True, kw_only=True)
class Options:
    """The parameters of a run. The command line's options are made from these fields; flows have them by name.

    ``budget`` multiplies the steps of every training. ``jobs`` is the number of processes of a local run.
    ``precision`` "auto" is bf16 where products in bf16 pay on this machine; "fp32" gives equal bits on all machines.
    """

    only: tuple[str, ...] = _option(
        (),
        "exercises, such as 21.27,21.32",
        group="what",
        shown="all",
        metavar="IDS",
        parse=_split,
        identity=False,
    )
    jobs: int | None = _option(
        None,
        "processes of a local run; on pools, runs waited for at once",
        group="how",
        shown="one per core, or one on a GPU",
        metavar="N",
        parse=int,
        wanted="give a whole number",
        identity=False,
    )
    profile: str = _option("laptop", "how much is trained and measured", group="what", names=PROFILE_NAMES)
    sources: str = _option(
        "auto",
        "texts and model from packages, from the Hugging Face Hub, or from there where it can be reached",
        group="sources",
        names=SOURCE_NAMES,
    )
    corpus: str | None = _option(
        None, "your own text: a UTF-8 file, hf:NAME, or a URL", group="sources", metavar="TEXT"
    )
    pretrained: str | None = _option(
        None, "any causal language model: a Hub name or a directory", group="sources", metavar="MODEL"
    )
    where: Literal["local", "pool"] = _option(
        "local",
        "in processes of this machine, or on the work pools of a server",
        group="how",
        names=WHERE_NAMES,
    )
    device: str = _option("auto", "what computes; auto is a GPU where there is one", group="how", names=DEVICE_NAMES)
    precision: str = _option(
        "auto",
        "of trainings; auto is bf16 where it pays, fp32 gives equal bits on all machines",
        group="how",
        names=PRECISION_NAMES,
    )
    budget: float = _option(
        1.0,
        "multiplies all training steps",
        group="what",
        shown="1",
        metavar="FACTOR",
        parse=float,
        wanted="give a number, such as 0.5 for half the steps",
    )

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Options":
        """The validated options among named values: parsed arguments, or the parameters of a flow.

        What is absent or None has its default; what is no option is left aside.

        Raises:
            UsageError: see ``validated``.
        """
        given = {option.name: values.get(option.name) for option in fields(cls)}
        return cls(**{name: value for name, value in given.items() if value is not None}).validated()

    def validated(self) -> "Options":
        """These options with exercise ids in the chapter's spelling.

        Raises:
            UsageError: a value that cannot be; names the option, the value and the remedy.
        """
        for option in fields(self):
            value, names = getattr(self, option.name), option.metadata["names"]
            _check_kind(option.name, value)
            if names and value not in names:
                raise UsageError(f"--{option.name} {value}: there is no such {option.name}{nearest(value, names)}")
        if not 0 < self.budget <= MOST_BUDGET:  # NaN is neither
            shown = f"{self.budget:g}" if isinstance(self.budget, float) else self.budget
            raise UsageError(
                f"--budget {shown}: a budget is a factor above 0, such as 0.5 for half the steps, and at most "
                f"{MOST_BUDGET:,}"
            )
        if self.jobs is not None and not 1 <= self.jobs <= MOST_JOBS:
            raise UsageError(f"--jobs {self.jobs}: give 1 to {MOST_JOBS:,} processes, or leave it out")
        return replace(self, only=tuple(dict.fromkeys(exercise_id(text) for text in self.only)))

    def told(self, parameters: Collection[str]) -> dict[str, Any]:
        """The options among the ``parameters`` of a flow, as they are passed to it."""
        return {name: value for name, value in asdict(self).items() if name in parameters}


def _check_kind(name: str, value: Any) -> None:
    """Refuse a value of another type, as only a flow's parameters can have."""
    number = not isinstance(value, bool)
    fits, wanted = {
        "only": (isinstance(value, list | tuple) and all(isinstance(id, str) for id in value), "a list of exercises"),
        "jobs": (value is None or (isinstance(value, int) and number), "a whole number"),
        "budget": (isinstance(value, int | float) and number, "a number"),
    }.get(name, (isinstance(value, str) or (value is None and name in ("corpus", "pretrained")), "a text"))
    if not fits:
        raise UsageError(f"--{name} {value!r}: this is a {type(value).__name__}, give {wanted}")


def exercise_id(text: str, option: str = "--only") -> str:
    """The id of an exercise as the chapter writes it: "21.8" for "21.08", "21-08" or "8".

    Raises:
        UsageError: there is no such exercise; names the nearest.
    """
    known = modules()
    chapter, dot, number = text.strip().replace("-", ".").rpartition(".")
    if (chapter == "21" or not dot) and f"21.{number.lstrip('0')}" in known:
        return f"21.{number.lstrip('0')}"
    raise UsageError(f"{option} {text}: there is no such exercise{nearest(text, tuple(known))}")


def nearest(text: str, names: Sequence[str]) -> str:
    """The end of a sentence that says there is no ``text``: the most similar name, or what to choose from."""
    close = difflib.get_close_matches(text, names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]}?"
    shown = ", ".join(names) if len(names) <= 6 else f"{names[0]} to {names[-1]}"
    return f"; choose from {shown}"


def check_places(*, writes: bool = False) -> None:
    """Refuse outputs and a store that cannot be, or, for a command that ``writes``, cannot be written.

    Raises:
        UsageError: names the variable, its value and the remedy.
    """
    _check_folder("CHAPTER_OUTPUTS", os.environ.get("CHAPTER_OUTPUTS") or "outputs", outputs_folder, writes)
    name = os.environ.get("CHAPTER_STORE")
    if not name:
        return
    if not is_address(name):
        _check_folder("CHAPTER_STORE", name, lambda: named_path(name), writes)
        return
    from fsspec.implementations.local import LocalFileSystem

    from tasks.cache.store import opened

    try:
        fs, root = opened(name)
    except (ValueError, ImportError) as error:
        reason = without_credentials(" ".join(str(error).split()))
        raise UsageError(
            f"CHAPTER_STORE {without_credentials(name)}: {reason}; install what it needs, or name a folder or another "
            "fsspec URL"
        ) from error
    if isinstance(fs, LocalFileSystem):
        _check_folder("CHAPTER_STORE", name, lambda: Path(root), writes)


def _check_folder(variable: str, value: str, find: Callable[[], Path], writes: bool) -> None:
    """Raises ``UsageError`` unless a folder is there or can be made; where a command writes, unless it may write."""
    shown = value.encode(errors="backslashreplace").decode()
    try:
        value.encode()  # the page, the records and Prefect's database hold it as UTF-8
        folder = find()
        there = next(path for path in (folder, *folder.parents) if path.exists())
        locked = _locked(folder) if there == folder else None if _takes_files(there) else there
    except UnicodeEncodeError as error:
        raise UsageError(f"{variable} {shown}: the name is not UTF-8; name another folder") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{variable} {shown}: {reason}; name a folder that is there or can be made") from error
    if not there.is_dir():
        raise UsageError(f"{variable} {shown}: {there} is not a folder; name one that is there or can be made")
    if writes and locked:
        raise UsageError(f"{variable} {shown}: {locked} cannot be written; name another folder, or change its owner")


def _locked(folder: Path) -> Path | None:
    """The first place within an existing folder of results that this user may not write, if there is one."""
    parts = (".", "prefect", "prefect/prefect.db", "prefect/server", "mlflow", "mlflow/mlflow.db", "runs", "progress")
    shelves = ("store", "store/records", "store/latest", "store/locks", "records", "blobs", "latest", "locks")
    places = (folder / part for part in (*parts, *shelves))
    return next((place for place in places if place.exists() and not _takes_files(place)), None)


def _takes_files(place: Path) -> bool:
    """Whether this user may write there, and the file system is one that holds files: /proc and /sys do not."""
    return os.access(place, os.W_OK) and os.statvfs(place).f_blocks > 0
