"""The chapter's exercises in the textbook's own words, read from ``data/chapter-21.md``."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from types import MappingProxyType
from typing import Literal, get_args

Group = Literal["Conceptual", "Programming", "Challenge"]
GROUPS: tuple[Group, ...] = get_args(Group)

_HEADING = re.compile(r"Exercise (\d+\.\d+): (.+)")
_PART = re.compile(r"\(([a-z])\) (.+)")


def exercise_id(text: str) -> str:
    """The id with two digits after the point, by which results are filed: "21.8" and "21.08" give "21.08".

    Raises:
        ValueError: not of the form chapter.exercise.
    """
    chapter, point, number = text.strip().partition(".")
    if not (point and chapter.isdecimal() and number.isdecimal()):
        raise ValueError(f"not the id of an exercise: {text!r}")
    return f"{int(chapter)}.{int(number):02d}"


@dataclass(frozen=True)
class Question:
    """One exercise as the textbook words it. The texts are Markdown with LaTeX between dollar signs.

    ``stem`` comes before the lettered parts and ``closing`` after them; either may be empty.
    """

    id: str
    title: str
    group: Group
    stem: str
    parts: Mapping[str, str] = field(default_factory=dict)
    closing: str = ""

    @property
    def number(self) -> str:
        """The number as the textbook prints it, "21.8"."""
        chapter, _, number = self.id.partition(".")
        return f"{chapter}.{int(number)}"

    @property
    def anchor(self) -> str:
        """The id of the exercise's section on the page, "ex-21-08"."""
        return "ex-" + self.id.replace(".", "-")

    @property
    def letters(self) -> tuple[str, ...]:
        """Letters of the parts an answer has: ("",) where the exercise has none."""
        return tuple(self.parts) or ("",)


class Questions(Mapping[str, Question]):
    """Questions by id; "21.8" finds "21.08"."""

    def __init__(self, questions: Iterator[Question] | tuple[Question, ...]) -> None:
        self._by_id = {question.id: question for question in questions}

    def __getitem__(self, key: str) -> Question:
        try:
            return self._by_id[exercise_id(key)]
        except ValueError:
            raise KeyError(key) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_id)

    def __len__(self) -> int:
        return len(self._by_id)


@dataclass(frozen=True)
class Chapter:
    """A chapter's title and its exercises in order."""

    title: str
    questions: Questions

    def group(self, group: Group) -> tuple[Question, ...]:
        """The exercises of one group."""
        return tuple(question for question in self.questions.values() if question.group == group)

    @classmethod
    def parse(cls, text: str) -> "Chapter":
        """Read a chapter: ``# title``, ``## group``, ``### Exercise 21.1: title``, then the wording.

        A line that begins with "(a) " is a part; what follows the last part is the closing.

        Raises:
            ValueError: a heading of another form.
        """
        title = ""
        group: Group = "Conceptual"
        found: list[tuple[str, str, Group, list[str]]] = []
        for line in text.splitlines():
            level, _, heading = line.partition(" ")
            if level == "#":
                title = heading
            elif level == "##":
                group = _group(heading)
            elif level == "###":
                match = _HEADING.fullmatch(heading)
                if match is None:
                    raise ValueError(f"not a heading of an exercise: {line!r}")
                found.append((exercise_id(match[1]), match[2], group, []))
            elif found:
                found[-1][3].append(line)
        return cls(title, Questions(tuple(_question(*parts) for parts in found)))


def _group(heading: str) -> Group:
    for group in GROUPS:
        if heading.startswith(group):
            return group
    raise ValueError(f"not a group of exercises: {heading!r}")


def _question(identifier: str, title: str, group: Group, lines: list[str]) -> Question:
    stem: list[str] = []
    closing: list[str] = []
    parts: dict[str, str] = {}
    for line in lines:
        if match := _PART.fullmatch(line):
            parts[match[1]] = match[2]
        else:
            (closing if parts else stem).append(line)
    return Question(
        identifier, title, group, "\n".join(stem).strip(), MappingProxyType(parts), "\n".join(closing).strip()
    )


CHAPTER = Chapter.parse(resources.files("reports").joinpath("data/chapter-21.md").read_text(encoding="utf-8"))
QUESTIONS = CHAPTER.questions
