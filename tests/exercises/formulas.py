"""Every formula of an answer must become MathML, and every dollar sign must belong to a formula."""

import re
from collections.abc import Iterator

from reports.latex import to_mathml
from reports.types import Answer, Prose, flattened

_FORMULA = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$", re.DOTALL)


def prose(answer: Answer) -> Iterator[str]:
    """The text of every paragraph."""
    for part in answer.parts:
        for block in flattened(part.blocks):
            if isinstance(block, Prose):
                yield block.text


def assert_formulas(answer: Answer) -> None:
    """Convert all formulas.

    Raises:
        LatexError: a formula cannot be converted.
    """
    for text in prose(answer):
        for match in _FORMULA.finditer(text):
            formula = match[1] or match[2]
            assert match[1] or formula == formula.strip(), f"space inside the dollars: ${formula}$"
            assert not text[match.end() : match.end() + 1].isdigit(), f"digit after ${formula}$"
            to_mathml(formula)
        assert "$" not in _FORMULA.sub("", text), f"a lone dollar sign: {text}"
