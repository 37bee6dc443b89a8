"""Words that the answers use again and again: explained once on the page, and linked from where they first occur.

``data/how-to-read.md`` has a heading per term, the words that lead to it, and the explanation. Links are put into the
rendered section of an exercise: only there is it known what comes first. They stand in prose and captions, never in
code, tables, formulas, links, questions or text that a model wrote.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from markupsafe import Markup, escape

_LINKED_IN = frozenset(("p", "li", "dd", "figcaption"))
_NEVER_IN = frozenset(("a", "button", "code", "h1", "h2", "h3", "h4", "summary"))
_SKIPPED = "math|pre|script|select|svg|table"  # with all that is in them, which is most of a page
_NEVER_OF_CLASS = re.compile(r'class="(?:[^"]* )?(?:question|tokens|sentence|error-card)[" ]')
_VOID = frozenset(("br", "hr", "img", "input", "link", "meta", "wbr"))
_LABEL = '<span class="kind">'  # the kind of a check, which is a term in itself


@dataclass(frozen=True)
class Term:
    """One explanation. ``words`` lead to it from prose, ``label`` from a check that is marked with it."""

    name: str
    words: tuple[str, ...]
    text: str  # Markdown
    label: str = ""

    @property
    def anchor(self) -> str:
        """The id of the explanation on the page."""
        return "read-" + re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


def parse(text: str) -> tuple[Term, ...]:
    """Terms from Markdown: ``## Name``, lines ``label: …`` and ``words: …, …``, the explanation.

    Raises:
        ValueError: a term without words or explanation, a word that leads to two terms.
    """
    terms: list[Term] = []
    for chunk in re.split(r"^## +", text, flags=re.MULTILINE)[1:]:
        name, _, body = chunk.partition("\n")
        head, _, explanation = body.strip().partition("\n\n")
        fields = {name: rest.strip() for name, _, rest in (line.partition(":") for line in head.splitlines())}
        words = tuple(word.strip() for word in fields.get("words", "").split(",") if word.strip())
        if not words or not explanation.strip():
            raise ValueError(f"term {name.strip()!r} needs a line 'words: …' and an explanation")
        terms.append(Term(name.strip(), words, explanation.strip(), fields.get("label", "")))
    led = [word.lower() for term in terms for word in term.words]
    if twice := {word for word in led if led.count(word) > 1}:
        raise ValueError(f"words that lead to two terms: {', '.join(sorted(twice))}")
    return tuple(terms)


@lru_cache(maxsize=1)
def terms() -> tuple[Term, ...]:
    """The terms of the page, in the order in which it explains them."""
    return parse(resources.files("reports").joinpath("data/how-to-read.md").read_text(encoding="utf-8"))


@lru_cache(maxsize=4)
def _pattern(found: tuple[Term, ...]) -> re.Pattern[str]:
    """What is skipped; tags, whole, so that nothing is found in their attributes; words, the longest first."""
    words = sorted((word for term in found for word in (*term.words, term.label) if word), key=len, reverse=True)
    shapes = "|".join(r"\s+".join(map(_escaped, word.split())) for word in words)
    skipped, tag = rf"<({_SKIPPED})\b.*?</\1\s*>", r"</?([a-zA-Z][\w-]*)[^>]*>"
    return re.compile(rf"{skipped}|{tag}|(?<![\w-])(?:{shapes})(?![\w-])", re.IGNORECASE | re.DOTALL)


def _escaped(word: str) -> str:
    """A word as it stands in HTML, where an apostrophe may be written in several ways."""
    return re.escape(str(escape(word))).replace(re.escape("&#39;"), "(?:'|’|&#39;|&#x27;)")


def linked(html: str, found: Sequence[Term] | None = None, *, page: str = "") -> Markup:
    """A section with a link to the explanation where each term first occurs in it.

    ``page`` is the address of the page that explains, where that is another one.
    """
    known = terms() if found is None else tuple(found)
    by_word = {" ".join(word.lower().split()): term for term in known for word in term.words}
    by_label = {term.label: term for term in known if term.label}
    seen: set[str] = set()
    pieces: list[str] = []
    end = 0
    nest: list[tuple[str, bool | None]] = []  # open elements with a say: links may stand in them, or must not
    label = False
    for match in _pattern(known).finditer(html):
        if match[1]:
            continue
        tag = (match[2] or "").lower()
        if tag:
            label = match[0] == _LABEL
            _follow(nest, tag, match[0])
            continue
        plain = " ".join(re.sub("’|&#39;|&#x27;", "'", match[0]).lower().split())
        allowed = nest and all(says is not False for _, says in nest) and any(says for _, says in nest)
        term = (by_label if label else by_word).get(plain) if allowed else None
        if term is None or term.name in seen:
            continue
        seen.add(term.name)
        pieces += [html[end : match.start()], f'<a class="term" href="{page}#{term.anchor}">{match[0]}</a>']
        end = match.end()
    return Markup("".join([*pieces, html[end:]]))


def _follow(nest: list[tuple[str, bool | None]], tag: str, whole: str) -> None:
    """Keep ``nest`` in step with one tag. Elements without a say are kept only inside of one that has some."""
    if whole.startswith("</"):
        for place in range(len(nest) - 1, -1, -1):
            if nest[place][0] == tag:
                del nest[place:]
                break
    elif tag not in _VOID and not whole.endswith("/>"):
        never = tag in _NEVER_IN or bool(_NEVER_OF_CLASS.search(whole))
        says = False if never else True if tag in _LINKED_IN else None
        if says is not None or nest:
            nest.append((tag, says))
