"""The command line: ``chapter``, or ``python -m flows``.

Bad input is answered in one sentence and with exit status 2, before anything heavy is imported; only whether there is
a CUDA device must PyTorch be asked. A run that leaves a failed exercise ends with 1, one that was interrupted with 130.
"""

import os
import select
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from cyclopts import App, CycloptsError, Group, Parameter

from flows.arguments import NO_RUNS, NO_STORED, SPREAD, ExerciseId, ProfileName, Runs, Stored, read, sentence
from flows.options import Options, UsageError, check_places, exercise_id, nearest
from flows.surroundings import settle, settle_streams
from tasks.cache.urls import without_secrets
from tasks.folders import named_path, named_source, outputs_folder, store_url

if TYPE_CHECKING:
    from tasks.sources.resolve import Sources

RUN, LOOK, CARRY, MACHINE = (
    Group(name, sort_key=place)
    for place, name in enumerate(("Run", "Look at the answers", "Models and what is stored", "This machine"), 1)
)
Shell = Literal["bash", "zsh", "fish"]
SHELLS: tuple[Shell, ...] = get_args(Shell)
A_PORT = "a port is a number from 1 to 65535"
A_PART = "a part has at least 1 MiB"
SOME_DAYS = "a number of days is 0 or more"
PORT = read(int, A_PORT, help="if it is free, or else the next one", metavar="PORT", show_default=True)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"chapter {version('minigpt-chapter')}"
    except PackageNotFoundError:  # run from the folder of the sources
        import tomllib

        project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
        return f"chapter {project['project']['version']}"


app = App(
    name="chapter",
    help="All exercises of a chapter on decoder-only language models as one cached, tracked pipeline.",
    help_epilogue="CHAPTER_STORE (any fsspec URL) and CHAPTER_OUTPUTS say where results go; default: ./outputs.",
    help_format="plaintext",
    version=_version,
    group_commands=Group("Options", sort_key=9),
    default_parameter=Parameter(negative=(), allow_repeating=True, show_default=False),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    settle_streams()
    try:
        status = _obey(list(sys.argv[1:] if arguments is None else arguments))
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except BrokenPipeError:
        if _is_read():  # it is another pipe
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains when it ends
        return 1  # as Rich does, which ends a command that it cannot print for
    except KeyboardInterrupt:
        print("\nchapter: stopped; what was computed is kept, the same command goes on from there", file=sys.stderr)
        return 130


def _obey(tokens: list[str]) -> int:
    try:
        command, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False, verbose=False)
    except CycloptsError as error:
        return _refused(sentence(error))
    if command.__module__ != __name__:  # help, version: cyclopts' own
        command(*bound.args, **bound.kwargs)
        return 0
    from flows.shared_server import ServerError
    from tasks.cache.patience import StoreRefused, StoreUnreachable
    from tasks.sources.resolve import SourceError

    try:
        check_places()
        settle()
        return int(command(*bound.args, **bound.kwargs))
    except (UsageError, SourceError) as error:
        return _refused(str(error))
    except (ServerError, StoreUnreachable, StoreRefused) as error:
        print(f"chapter: {error}", file=sys.stderr)
        return 1


def _refused(said: str) -> int:
    """Say it on one line, with the characters in it that would not be seen, or move what is seen, spelled out."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in said)
    print(f"chapter: {line}", file=sys.stderr)
    return 2


def _is_read() -> bool:
    """Whether somebody reads on: in ``chapter list | head`` nobody does in the end."""
    output = select.poll()
    output.register(1, 0)
    return not any(event & select.POLLERR for _, event in output.poll(0))


def _checked(told: Options) -> "tuple[Options, Sources]":
    """The options, and the sources they mean: the last check before the heavy imports."""
    from tasks.sources.resolve import resolve_sources

    options = Options.of(asdict(told))
    sources = resolve_sources(options.sources, options.corpus, options.pretrained)
    # A run works in a folder of its own, and sends these to workers.
    return replace(options, corpus=named_source(options.corpus), pretrained=named_source(options.pretrained)), sources


# --- The commands, in the order of the help --------------------------------------------------------------------


def _command(group: Group, name: str = "") -> Callable[[Callable[..., int]], Callable[..., int]]:
    """A function as a command, with its docstring as help."""

    def add(function: Callable[..., int]) -> Callable[..., int]:
        app.command(function, name=name or function.__name__, group=group, sort_key=len(list(app)), help_epilogue="")
        return function

    return add


def _profile(name: str) -> str:
    return replace(Options(), profile=name).validated().profile


Json = Annotated[bool, Parameter(help="as JSON, for programs")]
Id = Annotated[
    ExerciseId,
    read(lambda text: exercise_id(text, "exercise"), help="its id, such as 21.08", show_choices=False),
]


@_command(RUN)
def run(*, told: Annotated[Runs, SPREAD] = NO_RUNS) -> int:
    """Run the chapter, or some of its exercises, and write the report."""
    options, sources = _checked(told)
    from flows.commands.local import run_here

    check_places(writes=True)
    return run_here(options, sources, command=without_secrets(shlex.join(["chapter", *sys.argv[1:]])))


@_command(RUN)
def plan(*, told: Annotated[Runs, SPREAD] = NO_RUNS, json: Json = False) -> int:
    """Say what a run would do, why, and how long it would take."""
    options, sources = _checked(told)
    from flows.commands.inspect import print_plan

    return print_plan(options, sources, as_json=json)


@_command(RUN)
def report(
    *,
    told: Annotated[Stored, SPREAD] = NO_STORED,
    split: Annotated[bool, Parameter(help="one page per exercise, in a folder")] = False,
    answers: Annotated[
        str, Parameter(help="shown, folded for a class to try first, or none", metavar="HOW", show_default=True)
    ] = "shown",
    share: Annotated[bool, Parameter(help="leave out links to, and paths on, this machine")] = False,
    reference: Annotated[
        Path | None,
        read(named_path, help="keep metrics and checks there, to be shown by later reports", metavar="DIR"),
    ] = None,
) -> int:
    """Render the report again from stored results, or another edition of it."""
    from reports.story.editions import ANSWERS, Edition

    if answers not in ANSWERS:
        raise UsageError(f"--answers {answers}: there is no such way{nearest(answers, ANSWERS)}")
    options, sources = _checked(told)
    from flows.commands.inspect import render_again

    check_places(writes=True)
    return render_again(options, sources, Edition(split, answers, share), reference)


@_command(LOOK, "list")
def list_(*, json: Json = False) -> int:
    """List the exercises, with what the latest report says of each."""
    from flows.commands.show import print_exercises

    return print_exercises(outputs_folder(), as_json=json)


@_command(LOOK)
def show(
    exercise: Id,
    /,
    *,
    profile: Annotated[
        ProfileName | None,
        read(_profile, help="of the newest run of that profile, not of the latest run", metavar="PROFILE"),
    ] = None,
    checks: Annotated[bool, Parameter(help="the checks alone")] = False,
    again: Annotated[bool, Parameter(help="made anew: shows an edited answer.md at once")] = False,
    json: Json = False,
) -> int:
    """Show one answer in the terminal."""
    from flows.commands.show import show as show_answer

    return show_answer(outputs_folder(), exercise, profile=profile, checks=checks, again=again, as_json=json)


@_command(LOOK, "open")
def open_(
    exercise: Id | None = None,
    /,
    *,
    print_: Annotated[bool, Parameter(name="--print", help="say the address, open nothing")] = False,
) -> int:
    """Open the latest report in a browser, at one exercise if you name it."""
    from flows.commands.open import open_report

    return open_report(outputs_folder(), exercise, only_print=print_)


@_command(LOOK)
def ui(
    *,
    prefect_port: Annotated[int, PORT] = 4200,
    mlflow_port: Annotated[int, PORT] = 5000,
) -> int:
    """Serve the Prefect and MLflow pages on 127.0.0.1 until Ctrl-C."""
    for option, port in (("prefect", prefect_port), ("mlflow", mlflow_port)):
        if not 1 <= port <= 65535:
            raise UsageError(f"--{option}-port {port}: {A_PORT}")
    from flows.servers import ui as serve

    check_places(writes=True)
    return serve(outputs_folder(), prefect_port=prefect_port, mlflow_port=mlflow_port)


@_command(CARRY)
def models(*, told: Annotated[Stored, SPREAD] = NO_STORED, json: Json = False) -> int:
    """List recipes, and trained models with paths to load them from."""
    options, sources = _checked(told)
    from flows.commands.inspect import print_models

    return print_models(options, sources, as_json=json)


@_command(CARRY)
def pack(
    *,
    told: Annotated[Stored, SPREAD] = NO_STORED,
    to: Annotated[Path, read(named_path, help="an empty folder, or one to be made", metavar="DIR")],
    part_size: Annotated[
        int,
        read(int, A_PART, help="size of a file at most", metavar="MIB", show_default=True),
    ] = 16,
    only_new_since: Annotated[
        tuple[Path, ...],
        read(
            named_path,
            several=True,
            help="leave out what is in the pack of this manifest.json; may be given several times",
            metavar="MANIFEST",
        ),
    ] = (),
) -> int:
    """Write what is stored as files to carry away, all of it or what some options name."""
    if part_size < 1:
        raise UsageError(f"--part-size {part_size}: {A_PART}")
    chosen = _checked(told) if told != NO_STORED else None
    from flows.commands.pack import pack as write

    return write(outputs_folder(), store_url(), to, part_size << 20, only_new_since, chosen)


@_command(CARRY)
def unpack(folder: Annotated[Path, read(named_path, help="with manifest.json and all parts", metavar="DIR")], /) -> int:
    """Take into the store what chapter pack has written."""
    from flows.commands.pack import unpack as take_in

    check_places(writes=True)
    return take_in(outputs_folder(), store_url(), folder)


@_command(CARRY)
def gc(
    *,
    grace_days: Annotated[
        float, read(float, SOME_DAYS, help="keep what is younger", metavar="DAYS", show_default=True)
    ] = 7.0,
    user_corpora: Annotated[bool, Parameter(help="drop results on your own corpora, too")] = False,
    dry_run: Annotated[bool, Parameter(help="only say what would go")] = False,
) -> int:
    """Drop artifacts that no current recipe needs; what was trained with another budget than 1 goes, too."""
    if not grace_days >= 0:  # NaN neither
        raise UsageError(f"--grace-days {grace_days:g}: {SOME_DAYS}")
    from flows.commands.garbage import collect

    check_places(writes=True)
    return collect(Path(outputs_folder()), store_url(), grace_days, user_corpora, dry_run)


@_command(MACHINE)
def doctor() -> int:
    """Say what this machine has, what is missing, and what would be used."""
    from flows.commands.doctor import print_findings

    return print_findings(outputs_folder(), store_url())


@_command(MACHINE)
def completion(
    shell: Annotated[str | None, Parameter(help="bash, zsh or fish; without it, the one that this runs in")] = None,
    /,
    *,
    install: Annotated[bool, Parameter(help="put it where the shell looks for it, instead of printing it")] = False,
) -> int:
    """Print what makes a shell complete commands, options and their values, or install it."""
    from cyclopts.completion import detect_shell
    from cyclopts.completion.detect import ShellDetectionError

    if shell is None:
        try:
            shell = detect_shell()
        except ShellDetectionError as error:
            raise UsageError(f"completion: which shell this is cannot be told; name it: {', '.join(SHELLS)}") from error
    known = next((one for one in SHELLS if one == shell), None)
    if known is None:
        raise UsageError(f"completion {shell}: it is there for other shells{nearest(shell, SHELLS)}")
    if not install:
        print(app.generate_completion(shell=known))
        return 0
    print(f"{app.install_completion(shell=known)}; new shells have it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
