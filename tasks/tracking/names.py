"""Names of metrics, parameters and tags, in what MLflow takes: ASCII's letters and digits, and ``_-. :/``."""

import re
import unicodedata

LONGEST = 250
_SPELLED = {
    "×": "x", "−": "-", "–": "-", "→": " to ", "%": " percent", "+": " plus ", "<": " below ", ">": " above ",
    "≤": " at most ", "≥": " at least ", "&": " and ", "∞": " infinite ", "λ": "lambda",
}  # fmt: skip


def allowed_name(name: str) -> str:
    """A name as MLflow takes it, and as one would say it: "validation loss (nats)" as "validation loss nats".

    Greek letters and signs of arithmetic are spelled out, other characters that are not allowed leave a space. A slash
    parts groups, as in MLflow's charts.
    """
    said = unicodedata.normalize("NFKD", name)
    for sign, words in _SPELLED.items():
        said = said.replace(sign, words)
    said = "".join(map(_said, said))
    groups = (" ".join(group.split()) for group in said[:LONGEST].split("/"))
    return "/".join(group for group in groups if group.strip(".")) or "_"


def within_a_group(name: str) -> str:
    """The same for a part of a name that is no group of its own, as in "bits / byte"."""
    return allowed_name(name.replace("/", " per "))


def _said(character: str) -> str:
    if re.fullmatch(r"[\w\-. /:]", character, re.ASCII) or unicodedata.combining(character):
        return character if character.isascii() else ""  # an accent goes, its letter stays
    letter = re.fullmatch(r"GREEK (SMALL|CAPITAL) LETTER (?:FINAL )?(\w+)", unicodedata.name(character, ""))
    if letter is None:
        return " "
    return letter[2].lower() if letter[1] == "SMALL" else letter[2].capitalize()
