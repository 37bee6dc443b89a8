"""The command line: ``chapter``, or ``python -m flows``.

Bad input is answered in one sentence and with exit status 2, before anything heavy is imported; only whether there is
a CUDA device must PyTorch be asked. A run that leaves a failed exercise ends with 1, one that was interrupted with 130.
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from flows.options import Options, UsageError, check_places, exercise_id, nearest
from flows.surroundings import settle, settle_streams
from tasks.folders import named_path, outputs_folder, store_url

if TYPE_CHECKING:
    from tasks.sources.resolve import Sources


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    settle_streams()
    parsed = _parser().parse_args(arguments)
    from flows.shared_server import ServerError
    from tasks.cache.patience import StoreRefused, StoreUnreachable
    from tasks.sources.resolve import SourceError

    try:
        check_places()
        settle()
        return int(parsed.command(parsed))
    except (UsageError, SourceError) as error:
        print(f"chapter: {_one_line(error)}", file=sys.stderr)
        return 2
    except (ServerError, StoreUnreachable, StoreRefused) as error:
        print(f"chapter: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nchapter: stopped; what was computed is kept, the same command goes on from there", file=sys.stderr)
        return 130


def _one_line(error: Exception | str) -> str:
    """The sentence, with the characters of a value in it that would not be seen, or move what is seen, spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(error))


class _Parser(argparse.ArgumentParser):
    """Says what it cannot parse on one line, whatever is in the argument."""

    def error(self, message: str) -> NoReturn:
        super().error(_one_line(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="chapter",
        description="All exercises of a chapter on decoder-only language models as one cached, tracked pipeline.",
        epilog="CHAPTER_STORE (any fsspec URL) and CHAPTER_OUTPUTS say where results go; default: ./outputs.",
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(name: str, function: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(command=function)
        return sub

    _add_options(command("run", _run, "run the chapter, or some of its exercises, and write the report"), runs=True)
    _add_options(command("plan", _plan, "say what a run would do, why, and how long it would take"), runs=True)
    report = command("report", _report, "render the report again from stored results, or another edition of it")
    report.add_argument("--split", action="store_true", help="one page per exercise, in a folder")
    report.add_argument(
        "--answers",
        default="shown",
        metavar="HOW",
        help="shown, folded for a class to try first, or none (default: shown)",
    )
    report.add_argument("--share", action="store_true", help="leave out links to, and paths on, this machine")
    report.add_argument(
        "--reference",
        type=named_path,
        metavar="DIR",
        help="keep metrics and checks there, to be shown by later reports",
    )
    _add_options(report, runs=False)
    show = command("show", _show, "show one answer in the terminal")
    show.add_argument("exercise", help="its id, such as 21.08")
    show.add_argument("--again", action="store_true", help="made anew: shows an edited answer.md at once")
    _add_options(
        command("models", _models, "list recipes, and trained models with paths to load them from"), runs=False
    )
    ui = command("ui", _ui, "serve the Prefect and MLflow pages on 127.0.0.1 until Ctrl-C")
    ui.add_argument("--prefect-port", type=int, default=4200)
    ui.add_argument("--mlflow-port", type=int, default=5000)
    command("doctor", _doctor, "say what this machine has, what is missing, and what would be used")
    pack = command("pack", _pack, "write what is stored as files to carry away, all of it or what some options name")
    pack.add_argument("--to", type=named_path, required=True, metavar="DIR", help="an empty folder, or one to be made")
    pack.add_argument("--part-size", type=int, default=16, metavar="MIB", help="size of a file at most (default: 16)")
    pack.add_argument(
        "--only-new-since",
        type=named_path,
        action="append",
        default=[],
        metavar="MANIFEST",
        help="leave out what is in the pack of this manifest.json; may be given several times",
    )
    _add_options(pack, runs=False)
    pack.set_defaults(**{option.name: None for option in fields(Options)})
    unpack = command("unpack", _unpack, "take into the store what chapter pack has written")
    unpack.add_argument("folder", type=named_path, metavar="DIR", help="with manifest.json and all parts")
    gc = command("gc", _gc, "drop artifacts that no current recipe needs")
    gc.add_argument("--grace-days", type=float, default=7.0, help="keep what is younger (default: 7)")
    gc.add_argument("--user-corpora", action="store_true", help="drop results on your own corpora, too")
    gc.add_argument("--dry-run", action="store_true", help="only say what would go")
    return parser


def _add_options(parser: argparse.ArgumentParser, *, runs: bool) -> None:
    """What results are stored under; where a command ``runs`` something, also how much of it and how."""
    for option in fields(Options):
        about = option.metadata
        if runs or about["identity"]:
            parser.add_argument(
                f"--{option.name}",
                default=option.default,
                type=about["parse"],
                metavar=about["metavar"],
                help=about["help"],
            )


def _checked(parsed: argparse.Namespace) -> "tuple[Options, Sources]":
    """The options, and the sources they mean: the last check before the heavy imports."""
    from tasks.sources.resolve import resolve_sources

    options = Options.of(vars(parsed))
    return options, resolve_sources(options.sources, options.corpus, options.pretrained)


def _run(parsed: argparse.Namespace) -> int:
    options, sources = _checked(parsed)
    from flows.commands.local import run_here

    check_places(writes=True)
    return run_here(options, sources, command=shlex.join(["chapter", *sys.argv[1:]]))


def _plan(parsed: argparse.Namespace) -> int:
    options, sources = _checked(parsed)
    from flows.commands.inspect import print_plan

    return print_plan(options, sources)


def _report(parsed: argparse.Namespace) -> int:
    from reports.story.editions import ANSWERS, Edition

    if parsed.answers not in ANSWERS:
        raise UsageError(f"--answers {parsed.answers}: there is no such way{nearest(parsed.answers, ANSWERS)}")
    options, sources = _checked(parsed)
    from flows.commands.inspect import render_again

    check_places(writes=True)
    return render_again(options, sources, Edition(parsed.split, parsed.answers, parsed.share), parsed.reference)


def _show(parsed: argparse.Namespace) -> int:
    id = exercise_id(parsed.exercise, "exercise")
    from flows.commands.show import show

    return show(outputs_folder(), id, again=parsed.again)


def _models(parsed: argparse.Namespace) -> int:
    options, sources = _checked(parsed)
    from flows.commands.inspect import print_models

    return print_models(options, sources)


def _ui(parsed: argparse.Namespace) -> int:
    for option, port in (("prefect", parsed.prefect_port), ("mlflow", parsed.mlflow_port)):
        if not 1 <= port <= 65535:
            raise UsageError(f"--{option}-port {port}: a port is a number from 1 to 65535")
    from flows.servers import ui

    check_places(writes=True)
    return ui(outputs_folder(), prefect_port=parsed.prefect_port, mlflow_port=parsed.mlflow_port)


def _doctor(parsed: argparse.Namespace) -> int:
    from flows.commands.doctor import print_findings

    return print_findings(outputs_folder(), store_url())


def _pack(parsed: argparse.Namespace) -> int:
    if parsed.part_size < 1:
        raise UsageError(f"--part-size {parsed.part_size}: a part has at least 1 MiB")
    chosen = None
    if any(getattr(parsed, option.name) is not None for option in fields(Options)):
        chosen = _checked(parsed)
    from flows.commands.pack import pack

    return pack(outputs_folder(), store_url(), parsed.to, parsed.part_size << 20, parsed.only_new_since, chosen)


def _unpack(parsed: argparse.Namespace) -> int:
    from flows.commands.pack import unpack

    check_places(writes=True)
    return unpack(outputs_folder(), store_url(), parsed.folder)


def _gc(parsed: argparse.Namespace) -> int:
    if not parsed.grace_days >= 0:  # NaN neither
        raise UsageError(f"--grace-days {parsed.grace_days:g}: a number of days is 0 or more")
    from flows.commands.garbage import collect

    check_places(writes=True)
    return collect(Path(outputs_folder()), store_url(), parsed.grace_days, parsed.user_corpora, parsed.dry_run)


if __name__ == "__main__":
    sys.exit(main())
