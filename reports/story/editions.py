"""Editions of the report: the whole page, one page per exercise, without or with folded answers, for sharing.

An edition is the same page with something left out or put elsewhere; nothing is drawn again for it.
"""

import re
from dataclasses import dataclass, replace
from typing import Literal, get_args

from reports.run import RunInfo
from reports.types import Result

Answers = Literal["shown", "folded", "none"]
ANSWERS: tuple[Answers, ...] = get_args(Answers)
_FOLDERS = re.compile(r"(?<![\w:/.…-])(?:~|\.{1,2})?/(?:[^\s/'\"]+/)+")
_PLACES = re.compile(r'href="#((?:ex-(\d+)-(\d+))?[\w-]*)"')


@dataclass(frozen=True)
class Edition:
    """What a page shows and where it lies.

    ``split`` puts each exercise on a page of its own. ``answers`` "folded" lets a class try first, "none" is a sheet of
    questions. ``share`` leaves out what leads to, or tells of, the machine of the run.
    """

    split: bool = False
    answers: Answers = "shown"
    share: bool = False

    @property
    def name(self) -> str:
        """The file, or the folder of a split edition: "report.html", "teaching-share", "questions.html"."""
        stem = {"shown": "report", "folded": "teaching", "none": "questions"}[self.answers]
        stem = f"{stem}{'-share' if self.share else ''}"
        return stem if self.split else f"{stem}.html"

    @property
    def entry(self) -> str:
        """The file to open, from the folder of the run."""
        return f"{self.name}/index.html" if self.split else self.name

    @property
    def title(self) -> str:
        """What it is, as links call it."""
        parts = [
            {"shown": "", "folded": "answers folded, for teaching", "none": "questions only"}[self.answers],
            "one exercise per page" if self.split else "",
            "to share, without local links" if self.share else "",
        ]
        return ", ".join(part for part in parts if part) or "the whole report"

    def address_from(self, other: "Edition") -> str:
        """The way here from a page of another edition."""
        return f"../{self.entry}" if other.split else self.entry


WHOLE = Edition()


def page_of(exercise: str) -> str:
    """The file of an exercise in a split edition, "21.08.html"."""
    return f"{exercise}.html"


def relocated(html: str, exercise: str = "") -> str:
    """A page of a split edition: its links within the whole report, to the pages where their places are.

    ``exercise`` is the one on this page, "" for the index, which holds the references.
    """

    def moved(match: re.Match[str]) -> str:
        place, chapter, number = match.groups()
        if place == "main":  # of every page
            return match[0]
        page = page_of(f"{chapter}.{number}") if number else "index.html"
        here = page == (page_of(exercise) if exercise else "index.html")
        return match[0] if here else f'href="{page}#{place}"'

    return _PLACES.sub(moved, html)


def shared(run: RunInfo) -> RunInfo:
    """What is said of a run where the page leaves its machine: no links to servers, no paths."""
    models = tuple(replace(model, path="", mlflow_url="") for model in run.models)
    return replace(run, models=models, links={}, served_by="", command=_without_folders(run.command))


def shared_result(result: Result) -> Result:
    """A result without the addresses of its runs and the folders in a failure's traceback."""
    provenance = replace(result.provenance, mlflow_run_id=None, mlflow_url=None, prefect_run_id=None, prefect_url=None)
    return replace(result, provenance=provenance, error=_without_folders(result.error))


def _without_folders(text: str) -> str:
    """A text in which files are named without the folders they lie in; addresses stay."""
    return _FOLDERS.sub("…/", text)
