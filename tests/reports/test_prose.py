"""Markdown with formulas: TeX reaches the converter untouched, and nothing else reaches the page."""

from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports import prose
from reports.chapter import QUESTIONS
from reports.latex import LatexError, mathml, to_mathml, to_text

ALLOWED = """p em strong code pre a ul ol li blockquote h1 h2 h3 h4 h5 h6 hr br span math mrow mi mo mn mtext mspace
    mfrac msqrt mroot msub msup msubsup munder mover munderover mtable mtr mtd mstyle mpadded menclose"""


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {(name, value) for name, value in attrs}


def formulas(text: str) -> list[str]:
    """The TeX of every formula on the page, as the converter was given it."""
    found = []

    class Math(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag == "math":
                found.append(dict(attrs).get("alttext"))

    Math().feed(prose.html(text))
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$a_i * b_i * c_i$ and $x_{<t}$", ["a_i * b_i * c_i", "x_{<t}"]),
        ("_$a_1$ emphasis $b_2$_", ["a_1", "b_2"]),
        ("It costs $5 and $10.", []),
        ("From $5-$10 a piece", []),
        ("$5 for $x$", ["x"]),
        (r"\$x\$ is money, $x$ is not", ["x"]),
        (r"$\text{price in \$}$", [r"\text{price in \$}"]),
        ("`$x$` is code", []),
        ("$$a$$", ["a"]),
        ("inline $$a$$ display", ["a"]),
        ("$ a$, $a $ and $$ are no formulas", []),
        ("$$\n- a\n+ b\n= c\n$$", ["- a + b = c"]),
        ("1. one\n\n   $$\n   1. x\n   $$\n\n2. two", ["1. x"]),
        ("> $$\n> a\n> $$", ["a"]),
        ("$a$$b$", ["a", "b"]),
        ("$\\{1, 2\\}$", [r"\{1, 2\}"]),
    ],
)
def test_dollars(text, expected):
    assert formulas(text) == expected


def test_prices_are_shown_as_prices():
    assert prose.html("It costs $5 and $10; \\$3.") == "<p>It costs $5 and $10; $3.</p>\n"


@given(st.text(st.sampled_from("$\\ab_^{}*`<>&\"'[]()!-\n 1#|"), max_size=60))
def test_no_text_breaks_the_page(text):
    tags = Tags(prose.html(text))
    assert tags.tags <= set(ALLOWED.split())
    assert not {value for name, value in tags.attributes if name.startswith("on") or name in ("src", "style")}


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "a <img src=x onerror=alert(1)> b",
        "![x](http://a/b.png)",
        "<!-- c -->",
        "<http://a.b>",
    ],
)
def test_no_html_and_no_images(text):
    assert Tags(prose.html(text)).tags <= {"p", "a"}


def test_links_go_to_the_web_only():
    assert "href" not in prose.html("[x](javascript:alert(1)) [y](data:text/html,x) [z](file:///etc/passwd)")
    assert '<a href="https://arxiv.org/abs/1706.03762">' in prose.html("[x](https://arxiv.org/abs/1706.03762)")


def test_the_textbooks_formulas_are_all_read():
    for question in QUESTIONS.values():
        shown = "".join(map(prose.html, [question.stem, *question.parts.values(), question.closing]))
        assert "latex-error" not in shown
        assert "$" not in shown


@pytest.mark.parametrize(
    "formula",
    [
        r"\mathrm{softmax}(z/\tau)_i = \frac{e^{z_i/\tau}}{\sum_j e^{z_j/\tau}}",
        r"\begin{aligned} a &= b + c \\ &= d \end{aligned}",
        r"\begin{cases} 1 & \text{if } x > 0 \\ 0 & \text{else} \end{cases}",
        r"\begin{pmatrix} \cos m\theta & -\sin m\theta \\ \sin m\theta & \cos m\theta \end{pmatrix}",
        r"D_{\mathrm{KL}}(p \,\|\, q) = \mathbb{E}_{x \sim p}\left[\log \frac{p(x)}{q(x)}\right]",
        r"\operatorname*{argmax}_{y \in \mathcal{V}} p_\theta(y \mid x_{<t})",
        r"\lfloor W/2 \rfloor \le \lVert x \rVert_2 \cdot 10^{-5}",
        r"\underbrace{x + y}_{\text{5\% more}}",
        r"\hat{y}, \bar{x}, \tilde{q}, \dot{z}, \vec{v}",
        r"50{,}257 \times 768",
    ],
)
def test_formulas_of_the_field(formula):
    root = ElementTree.fromstring(to_mathml(formula))
    assert root.tag == "math"
    assert not [e for e in root.iter() if (e.text or "").startswith("\\") or "&" in (e.text or "")]


def test_names_are_upright_and_whole():
    assert "<mi>softmax</mi>" in to_mathml(r"\mathrm{softmax}(x)")


def test_functions_stand_apart_from_their_arguments():
    spaced = '<mspace width="0.167em" />'
    assert f"<mi>ln</mi>{spaced}<mi>n</mi>" in to_mathml(r"\ln n")
    assert f"</msub>{spaced}<mi>ln</mi>" in to_mathml(r"p_i \ln p_i")
    assert "mspace" not in to_mathml(r"\log(x) + \log\left(y\right)")


def test_long_formulas_break_between_lines():
    """The textbook's list of ten probabilities must fit a phone."""
    formula = "[0.35, 0.20, 0.15, 0.10, 0.08, 0.05, 0.03, 0.02, 0.01, 0.01]"
    pieces = mathml(formula).split(" <math")
    assert len(pieces) == 10
    whole = "".join(ElementTree.fromstring(to_mathml(formula)).itertext())
    broken = "".join(
        "".join(ElementTree.fromstring("<p>" + str(mathml(formula)).replace("<wbr>", "") + "</p>").itertext()).split()
    )
    assert broken == whole
    assert mathml(formula, True).count("<math") == 1
    assert mathml("a = b").count("<math") == 1


def test_numbers_as_python_prints_them_are_set_as_powers_of_ten():
    assert prose.html("about 5.35e+12, `1e-05` and 5e-5") == "<p>about 5.35×10¹², <code>1e-05</code> and 5e-5</p>\n"


def test_sums_carry_their_limits_in_displays():
    assert "<munderover>" in to_mathml(r"\left(\sum_{i=1}^n x_i\right)", display=True)
    assert 'movablelimits="true"' in to_mathml(r"\max_i x_i")


@pytest.mark.parametrize(
    "formula", [r"\frac{", r"\unknowncommand{x}", "a & b", r"\begin{nope} x \end{nope}", "}", "x^"]
)
def test_what_cannot_be_read_is_shown_as_source(formula):
    shown = mathml(formula)
    if "latex-error" not in shown:
        ElementTree.fromstring(shown)
    else:
        with pytest.raises(LatexError):
            to_mathml(formula)


def test_a_formula_cannot_carry_markup():
    for formula in (r"\href{javascript:alert(1)}{x}", r"\text{<script>}", r"\color{red\" onload=\"x}{y}", "a<b>c"):
        tags = Tags(mathml(formula))
        assert tags.tags <= set(ALLOWED.split())
        assert not {name for name, _ in tags.attributes} & {"href", "onload", "style"}


@pytest.mark.parametrize(
    ("formula", "shown"),
    [
        (r"\frac{a+b}{\sqrt{d_k}}", "(a+b)/√dₖ"),
        (r"p(x_t \mid x_{<t})", "p(xₜ ∣ x_(<t))"),
        (r"\tau \to 0^+", "τ → 0⁺"),
        (r"10^{-5}", "10⁻⁵"),
        (r"\text{logits}_{\text{large}} - \alpha \cdot x", "logits_(large) - α · x"),
        (r"\{1, 2\}", "{1, 2}"),
    ],
)
def test_formulas_in_the_terminal(formula, shown):
    assert to_text(formula) == shown
