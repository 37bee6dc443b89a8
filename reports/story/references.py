"""References: citations in running text become links, and the page ends with the works that it cites.

The works are in ``data/references.toml``. A citation is a name of one and its year, "Kaplan et al. (2020)" or "(Kaplan
et al., 2020, section 3.1)"; "exercise 21.4" leads to that exercise.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from markupsafe import Markup, escape

from reports.text import visible_html

CITED = re.compile(r'href="(?:[\w.-]+\.html)?#(ref-[\w-]+)"')


@dataclass(frozen=True)
class Work:
    """A published work. ``names`` are how texts call its authors, the first one usually "Kaplan et al."."""

    key: str
    names: tuple[str, ...]
    year: int
    authors: str
    title: str
    venue: str
    arxiv: str = ""
    doi: str = ""
    url: str = ""

    @property
    def address(self) -> str:
        """Where it can be read."""
        if self.arxiv:
            return f"https://arxiv.org/abs/{self.arxiv}"
        return f"https://doi.org/{self.doi}" if self.doi else self.url

    @property
    def identifier(self) -> str:
        """Its arXiv number or DOI, as it is cited."""
        return f"arXiv:{self.arxiv}" if self.arxiv else f"doi:{self.doi}" if self.doi else ""


@lru_cache(maxsize=1)
def works() -> Mapping[str, Work]:
    """All works by the id of their place in the list, "ref-kaplan-2020"."""
    text = resources.files("reports").joinpath("data/references.toml").read_text(encoding="utf-8")
    read = [Work(**{**entry, "names": tuple(entry["names"])}) for entry in tomllib.loads(text)["work"]]
    return {f"ref-{work.key}": work for work in read}


@lru_cache(maxsize=1)
def _pattern() -> tuple[re.Pattern[str], Mapping[tuple[str, str], str]]:
    """What finds a citation, and its id by name and year."""
    places = {(name, str(work.year)): id for id, work in works().items() for name in work.names}
    names = sorted({name for name, _ in places}, key=len, reverse=True)
    spaced = "|".join(re.escape(name).replace(r"\ ", r"\s+") for name in names)
    pattern = (
        rf"\b(?P<name>{spaced})(?:,\s+|\s+\(|\s+)(?P<year>(?:19|20)\d\d)|\b[Ee]xercises?\s+21\.(?P<number>\d{{1,2}})\b"
    )
    return re.compile(pattern), places


def target(match: re.Match[str]) -> str:
    """The id that a citation leads to; "" where no work has that name and year."""
    if match["number"]:
        return f"ex-21-{int(match['number']):02d}"
    return _pattern()[1].get((" ".join(match["name"].split()), match["year"]), "")


def linked(text: str) -> Markup:
    """Plain text as HTML, its citations as links."""
    pieces: list[str] = []
    end = 0
    for match in _pattern()[0].finditer(text):
        if place := target(match):
            pieces += [
                visible_html(text[end : match.start()]),
                f'<a class="cite" href="#{place}">{escape(match[0])}</a>',
            ]
            end = match.end()
    pieces.append(visible_html(text[end:]))
    return Markup("".join(pieces))


def cited(html: Iterable[str]) -> list[tuple[str, Work]]:
    """The works that pieces of HTML lead to, by author and year, with their ids."""
    found = {place for piece in html for place in CITED.findall(piece)}
    return sorted(
        ((id, works()[id]) for id in found if id in works()), key=lambda item: (item[1].authors.lower(), item[1].year)
    )
