"""LaTeX to MathML for the page, and to plain Unicode for the terminal.

``latex2mathml`` does the conversion; its result is parsed again, so that only MathML reaches the page and a formula
it misreads is shown as source instead of as nonsense.
"""

import re
from functools import lru_cache
from xml.etree import ElementTree

from latex2mathml.converter import convert
from latex2mathml.symbols_parser import convert_symbol
from markupsafe import Markup

_NAMESPACE = "{http://www.w3.org/1998/Math/MathML}"
_TAGS = """math mrow mi mo mn mtext mspace mfrac msqrt mroot msub msup msubsup munder mover munderover mtable mtr mtd
    mstyle mpadded mphantom menclose mmultiscripts none mprescripts"""
_ATTRIBUTES = """display displaystyle scriptlevel mathvariant stretchy fence form separator minsize maxsize lspace
    rspace width height depth accent accentunder movablelimits columnalign columnspacing rowspacing linethickness
    notation largeop symmetric"""
_ENVIRONMENTS = {"aligned": "align*", "split": "align*", "gathered": "align*", "align": "align*"}


_KNOWN_TAGS, _KNOWN_ATTRIBUTES = frozenset(_TAGS.split()), frozenset(_ATTRIBUTES.split())
_LONGEST = 14  # symbols of a formula that stays on one line
_BREAKS = frozenset(",;=<>≤≥≈≡∼→∝")
_LIMITS = {"msub": "munder", "msup": "mover", "msubsup": "munderover"}
_LARGE = frozenset(["∑", "∏", "⋃", "⋂", "max", "min", "lim", "sup", "inf", "argmax", "argmin", "arg max", "arg min"])


_FUNCTIONS = "log ln exp cos sin tan cosh sinh tanh lg arg"


class LatexError(ValueError):
    """A formula that cannot be converted."""


@lru_cache(maxsize=4096)
def mathml(latex: str, display: bool = False) -> Markup:
    """MathML of a formula; one that cannot be converted is shown as its source, marked as such."""
    try:
        root = _converted(latex, display)
        return _serialized(root) if display else _breakable(root)
    except LatexError as error:
        return Markup('<code class="latex-error" title="{}">{}</code>').format(str(error), latex)


def to_mathml(latex: str, display: bool = False) -> Markup:
    """MathML of a formula.

    Raises:
        LatexError: the formula is malformed, or uses what the converter does not know.
    """
    return _serialized(_converted(latex, display))


def _converted(latex: str, display: bool) -> ElementTree.Element:
    try:
        source = _prepared(latex.replace("−", "-"))  # U+2212, as numbers in words have it, is no operator to TeX
        root = ElementTree.fromstring(convert(source, display="block" if display else "inline"))
    except Exception as error:  # the converter raises a dozen kinds, IndexError among them
        raise LatexError(f"cannot read the formula: {latex}") from error
    _clean(root, latex)
    root.set("alttext", " ".join(latex.split()))
    return root


def _serialized(root: ElementTree.Element) -> Markup:
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _breakable(root: ElementTree.Element) -> Markup:
    """A formula within a line; a long one in pieces, as browsers break no line within a formula.

    As TeX does, lines may break after commas and relations. The first piece carries the formula's source.
    """
    row = root[0]
    if sum(bool(element.text) for element in root.iter()) <= _LONGEST or row.tag != "mrow":
        return _serialized(root)
    pieces: list[list[ElementTree.Element]] = [[]]
    for child in row:
        pieces[-1].append(child)
        if child.tag == "mo" and child.text in _BREAKS:
            pieces.append([])
    shown = []
    for index, piece in enumerate(filter(None, pieces)):
        part = ElementTree.Element("math", root.attrib if index == 0 else {"display": "inline"})
        ElementTree.SubElement(part, "mrow").extend(piece)
        comma = piece[-1].text == ","
        shown.append(_serialized(part) + (Markup(" ") if comma else Markup("<wbr>")))
    return Markup("").join(shown).removesuffix("<wbr>").rstrip()


def _prepared(latex: str) -> str:
    """The formula with what the converter lacks replaced by what it has."""
    for name, known in _ENVIRONMENTS.items():
        latex = latex.replace(f"\\begin{{{name}}}", f"\\begin{{{known}}}").replace(
            f"\\end{{{name}}}", f"\\end{{{known}}}"
        )
    latex = latex.replace("\\operatorname*", "\\operatorname")
    # Inside \text{…} the converter keeps the backslash of an escaped character.
    return re.sub(r"\\text\{([^{}]*)\}", lambda match: "\\text{" + re.sub(r"\\([%#_$&])", r"\1", match[1]) + "}", latex)


def _clean(root: ElementTree.Element, latex: str) -> None:
    """Keep known elements and attributes, join the letters of an upright name, find unknown commands."""
    for element in root.iter():
        tag = element.tag = element.tag.removeprefix(_NAMESPACE)  # HTML needs no namespace
        if tag not in _KNOWN_TAGS:
            raise LatexError(f"not MathML, <{tag}>, in the formula: {latex}")
        for name in set(element.attrib) - _KNOWN_ATTRIBUTES:
            del element.attrib[name]
        if tag == "mi" and (element.text or "").startswith("\\"):
            raise LatexError(f"unknown command {element.text} in the formula: {latex}")
    for element in root.iter():
        if element.tag == "mrow":
            _join_upright(element)
            _space_functions(element)
        elif element.tag in _LIMITS and element[0].tag == "mo" and element[0].text in _LARGE:
            # As TeX: below and above in a display, beside the operator in a line. The browser decides which.
            element.tag = _LIMITS[element.tag]
            element[0].set("movablelimits", "true")


def _join_upright(row: ElementTree.Element) -> None:
    """One <mi> for the letters of an upright name: a browser sets a name of several letters upright, well spaced."""
    letters = list(row)
    if len(letters) > 1 and all(letter.tag == "mi" and letter.get("mathvariant") == "normal" for letter in letters):
        joined = letters[0]
        joined.text = "".join(letter.text or "" for letter in letters)
        del joined.attrib["mathvariant"]
        for letter in letters[1:]:
            row.remove(letter)


_SCRIPTS = {
    "^": str.maketrans("0123456789+-=()niT", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱᵀ"),
    "_": str.maketrans("0123456789+-=()aehijklmnoprstuvx", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ"),
}


def _space_functions(row: ElementTree.Element) -> None:
    """Thin spaces between a function's name and its neighbours, as TeX sets "p ln p"; none before a parenthesis."""
    for child in list(row):
        base = child[0] if child.tag in (*_LIMITS, *_LIMITS.values()) else child
        if base.tag == "mo" and (base.text or "").replace(" ", "").isalpha():  # max, min, an operator's name
            following = row[list(row).index(child) + 1 :]
            base.set("lspace", "0" if child is row[0] else "0.167em")
            base.set("rspace", "0" if following and following[0].text in ("(", "[") else "0.167em")
        if base.tag != "mi" or base.text not in _FUNCTIONS.split():
            continue
        place = list(row).index(child)
        if place + 1 < len(row) and row[place + 1].tag not in ("mo", "mspace") and not _is_fenced(row[place + 1]):
            row.insert(place + 1, ElementTree.Element("mspace", width="0.167em"))
        if place and row[place - 1].tag not in ("mo", "mspace"):
            row.insert(place, ElementTree.Element("mspace", width="0.167em"))


def _is_fenced(element: ElementTree.Element) -> bool:
    return element.tag == "mrow" and len(element) > 0 and element[0].get("fence") == "true"


_MARKS = {"^": "\ue000", "_": "\ue001"}  # stand for marks that are read already
_RESTORED = str.maketrans({"\ue000": "^", "\ue001": "_", "{": "", "}": "", "❴": "{", "❵": "}"})
_WRAPPERS = re.compile(
    r"\\(?:text|mathrm|operatorname\*?|mathbf|mathcal|mathbb|mathit|mathsf|boldsymbol|textbf|textit)\s*\{([^{}]*)\}"
)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_ROOT = re.compile(r"\\sqrt\s*\{([^{}]*)\}")
_SCRIPT = re.compile(r"([_^])(?:\{([^{}]*)\}|(\\[A-Za-z]+|[^\s\\{}]))")
_SPACING = re.compile(r"\\(?:[,;:!> ]|quad\b|qquad\b|left\b|right\b|[bB]igg?[lrm]?\b|displaystyle\b|limits\b)")
_NAMES = "log ln exp max min cos sin tan softmax arg det lim Pr sup inf"


def to_text(latex: str) -> str:
    r"""A readable line of Unicode for a terminal: "\frac{a}{b}" gives "a/b", "x_{t}" gives "xₜ"."""
    text = re.sub(r"\\(?:begin|end)\{[^{}]*\}(?:\{[^{}]*\})?", "", latex)
    text = text.replace("\\\\", " ; ").replace("&", " ") if "\\\\" in text else text
    text = text.replace("\\|", "‖").replace("\\{", "❴").replace("\\}", "❵")
    text = _SPACING.sub(lambda match: "" if match[0] in ("\\!", "\\left", "\\right") else " ", text)
    previous = ""
    while previous != text:  # innermost braces first
        previous = text
        text = _WRAPPERS.sub(r"\1", text)
        text = _FRACTION.sub(lambda match: f"{_grouped(match[1])}/{_grouped(match[2])}", text)
        text = _ROOT.sub(lambda match: f"√{_grouped(match[1])}", text)
        text = _SCRIPT.sub(_script, text)
    text = re.sub(r"\\([A-Za-z]+)", lambda match: _symbol(match[1]), text)
    text = re.sub(r"\\([%#_$&])", r"\1", text)
    return " ".join(text.translate(_RESTORED).split())


def _script(match: re.Match[str]) -> str:
    content = match[2] if match[2] is not None else match[3]
    content = re.sub(r"\\([A-Za-z]+)", lambda command: _symbol(command[1]), content)
    raised = content.translate(_SCRIPTS[match[1]])
    if all(before != after or before.isspace() for before, after in zip(content, raised, strict=True)):
        return raised
    return _MARKS[match[1]] + (content if len(content) == 1 else f"({content})")


def _symbol(name: str) -> str:
    if name in _NAMES.split():
        return name
    code = convert_symbol("\\" + name)
    return chr(int(code, 16)) if code else name


def _grouped(text: str) -> str:
    return text if re.fullmatch(r"[\w.\\√]+", text) else f"({text})"
