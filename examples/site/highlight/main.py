"""Colours code with Pygments, which its vendor/ folder brings along."""

from pygments import highlight as render
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_by_name
from pygments.util import ClassNotFound


def highlight(code: str, language: str) -> str:
    """The code as HTML spans with classes; as plain, escaped text in a language it doesn't know."""
    if language == "explode":
        raise ValueError("asked to explode")
    try:
        lexer = get_lexer_by_name(language)
    except ClassNotFound:
        lexer = TextLexer()
    return render(code, lexer, HtmlFormatter(nowrap=True))


def styles() -> str:
    """The CSS for those classes, in light and in dark."""
    light = HtmlFormatter(style="default").get_style_defs("pre")
    dark = HtmlFormatter(style="github-dark").get_style_defs("pre")
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n"
