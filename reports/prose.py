"""CommonMark with LaTeX to HTML. No raw HTML, no images; ``$…$`` and ``$$…$$`` are read before Markdown sees them."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markupsafe import Markup, escape

from reports.formats import powers
from reports.latex import mathml
from reports.story.references import linked
from reports.text import visible


def html(text: str) -> Markup:
    """Paragraphs of HTML, citations in them as links."""
    return Markup(_parser().render(visible(text), {"cite": True}))


def html_inline(text: str, *, cite: bool = False) -> Markup:
    """HTML without the paragraph around it, for a sentence within another element.

    Citations become links where ``cite``: not in a heading, which is a link itself.
    """
    return Markup(_parser().renderInline(visible(text), {"cite": cite}))


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).disable(["image", "html_block", "html_inline"])
    parser.block.ruler.before("fence", "math_block", _math_block, {"alt": ["paragraph", "blockquote", "list"]})
    parser.inline.ruler.before("escape", "math", _math_inline)
    parser.renderer.rules["math_block"] = lambda tokens, i, options, env: mathml(tokens[i].content, True) + "\n"  # type: ignore[attr-defined]
    parser.renderer.rules["math"] = lambda tokens, i, options, env: mathml(tokens[i].content, bool(tokens[i].meta))  # type: ignore[attr-defined]
    parser.renderer.rules["text"] = _text  # type: ignore[attr-defined]
    parser.core.ruler.push("whole_lines", _whole_lines)
    parser.validateLink = lambda url: url.startswith(("https://", "http://", "#"))  # type: ignore[method-assign]
    return parser


def _whole_lines(state: StateCore) -> None:
    """Lines of a paragraph as one text: a citation may be broken over two."""
    for block in state.tokens:
        merged: list[Token] = []
        for token in block.children or []:
            if token.type == "softbreak":
                token = Token("text", "", 0, content="\n")
            if token.type == "text" and merged and merged[-1].type == "text":
                merged[-1].content += token.content
            else:
                merged.append(token)
        if block.children is not None:
            block.children = merged


def _text(tokens: Sequence[Token], i: int, options: object, env: Mapping[str, bool]) -> str:
    text = powers(tokens[i].content)
    depth = sum(token.nesting for token in tokens[:i] if token.type in ("link_open", "link_close"))
    return linked(text) if env.get("cite") and not depth else escape(text)


def _closing(text: str, start: int, end: int, mark: str) -> int:
    """Position of the next unescaped ``mark`` in text[start:end], or -1."""
    position = text.find(mark, start, end)
    while position > 0 and text[position - 1] == "\\":
        position = text.find(mark, position + 1, end)
    return position


def _math_inline(state: StateInline, silent: bool) -> bool:
    """``$…$`` by Pandoc's rule, so that prices stay prices: no space inside the dollars, no digit after them."""
    source, start = state.src, state.pos
    if source[start] != "$":
        return False
    mark = "$$" if source.startswith("$$", start) else "$"
    begin = start + len(mark)
    end = _closing(source, begin, state.posMax, mark)
    if end < 0:
        return False
    content, after = source[begin:end], source[end + len(mark) : end + len(mark) + 1]
    if not content.strip() or (mark == "$" and (content != content.strip() or after.isdigit())):
        return False
    if not silent:
        token = state.push("math", "math", 0)
        token.content = content.strip()
        token.meta = {"display": True} if mark == "$$" else {}
    state.pos = end + len(mark)
    return True


def _math_block(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    """``$$…$$`` that begins and ends a line; its lines are no list, heading or table to Markdown."""
    begin = state.bMarks[first] + state.tShift[first]
    if state.is_code_block(first) or not state.src.startswith("$$", begin):
        return False
    for line in range(first, last):
        stop = state.eMarks[line]
        if line > first and (state.isEmpty(line) or state.sCount[line] < state.blkIndent):
            return False
        end = _closing(state.src, begin + 2 if line == first else state.bMarks[line], stop, "$$")
        if end >= 0:
            if state.src[end + 2 : stop].strip():
                return False
            if not silent:
                token = state.push("math_block", "math", 0)
                lines = state.getLines(first, line + 1, state.blkIndent, False)
                token.content = lines.strip().removeprefix("$$").removesuffix("$$").strip()
                token.map = [first, line + 1]
                state.line = line + 1
            return True
    return False
