"""Escaping of untrusted text for the formats that the package writes.

Names of studies, parameters and metrics, categories and attributes can contain anything. In a text that a
program interprets, they must not act as markup: they are shown literally, on one line.
"""

from __future__ import annotations

import html
import re
import reprlib
from typing import Any

_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
"""Control characters, characters that change the writing direction, and those that files cannot contain."""
_JOINER = "\u2060"
"""Word joiner: has no width and allows no line break."""
_LINKS = re.compile(r"(?<=/)(?=/)|(?<=www)(?=\.)|(?=@)", re.IGNORECASE)
"""Positions at which a word joiner prevents Markdown from turning an address into a link."""


def brief(value: Any) -> str:
    """Return a short text for any value, of a few dozen characters, for use in a sentence.

    Examples:
        >>> brief({"a": [1, 2]}), brief(10**5000)
        ("{'a': [1, 2]}", '<int instance>')
    """
    try:
        return reprlib.repr(value)
    except Exception:  # such as an integer with more digits than Python converts
        return f"<{type(value).__name__} instance>"


def plain(value: Any) -> str:
    r"""Return ``value`` as one line of text, with invisible characters replaced by U+FFFD.

    Examples:
        >>> plain("two\nlines\x00") == "two lines\ufffd"
        True
    """
    try:
        text = str(value)
    except ValueError:  # as in `brief`
        return brief(value)
    return _UNSEEN.sub("\ufffd", " ".join(text.split()))


def in_html(value: Any) -> str:
    """Return ``value`` escaped for HTML, XML or SVG, also within quotes.

    Examples:
        >>> in_html("<b>")
        '&lt;b&gt;'
    """
    return html.escape(plain(value))


def in_markdown(value: Any) -> str:
    r"""Return ``value`` escaped for a line or a table cell of Markdown, so that it has no markup.

    That is, it contains no emphasis, link, image, formula or HTML.

    Examples:
        >>> print(in_markdown("![a|b](http)"), in_markdown("n_units_l0"))
        \!\[a\|b\](http) n\_units\_l0
    """
    return _LINKS.sub(_JOINER, re.sub(r"([\\`*_\[\]<|$~!&^])", r"\\\1", plain(value)))


def in_plotly(value: Any) -> str:
    """Return ``value`` escaped for any text of plotly, which interprets TeX and some HTML tags.

    Examples:
        >>> in_plotly("<b>x</b>"), in_plotly("$x$")
        ('&lt;b>x&lt;/b>', '&#36;x&#36;')
    """
    return plain(value).replace("&", "&amp;").replace("<", "&lt;").replace("$", "&#36;")


def of_plotly(text: str) -> str:
    """Return a text of plotly as one line, with the escaping of `in_plotly` undone.

    Examples:
        >>> of_plotly("two lines:<br>&lt;b>")
        'two lines: <b>'
    """
    return html.unescape(text.replace("<br>", " "))


def in_matplotlib(value: Any) -> str:
    r"""Return ``value`` escaped for a text of matplotlib, which reads text between dollars as a formula.

    Examples:
        >>> print(in_matplotlib("$x$"))
        \$x\$
    """
    return plain(value).replace("$", r"\$")
