"""Texts and values of others, as they may stand in ours.

Names of studies, parameters and metrics, categories and attributes are anybody's. Where one stands in a text
that a program interprets, it has to mean nothing there: it is shown letter by letter, on one line.
"""

from __future__ import annotations

import html
import re
import reprlib
from typing import Any

_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
"""Control characters, those that turn the direction of what follows, and those that no file may hold."""
_JOINER = "\u2060"
"""Takes no room, and no line is broken there."""
_LINKS = re.compile(r"(?<=/)(?=/)|(?<=www)(?=\.)|(?=@)", re.IGNORECASE)
"""Where an address that readers of Markdown find by themselves is broken."""


def brief(value: Any) -> str:
    """A value, whatever it is, as it may stand in a sentence: a few dozen characters.

    Example:
        >>> brief({"a": [1, 2]}), brief(10**5000)
        ("{'a': [1, 2]}", '<int instance>')
    """
    try:
        return reprlib.repr(value)
    except Exception:  # such as an integer of more digits than Python writes
        return f"<{type(value).__name__} instance>"


def plain(value: Any) -> str:
    """A value as one line of text, in which what cannot be seen is a question mark.

    Example:
        >>> plain("two\\nlines\\x00")
        'two lines\ufffd'
    """
    try:
        text = str(value)
    except ValueError:  # as in `brief`
        return brief(value)
    return _UNSEEN.sub("\ufffd", " ".join(text.split()))


def in_html(value: Any) -> str:
    """`plain`, as it may stand in HTML, XML or SVG, also within quotes.

    Example:
        >>> in_html("<b>")
        '&lt;b&gt;'
    """
    return html.escape(plain(value))


def in_markdown(value: Any) -> str:
    """`plain`, as it may stand in a line or a cell of Markdown: no emphasis, link, image, formula or HTML.

    Example:
        >>> print(in_markdown("![a|b](http)"), in_markdown("n_units_l0"))
        \\!\\[a\\|b\\](http) n\\_units\\_l0
    """
    return _LINKS.sub(_JOINER, re.sub(r"([\\`*_\[\]<|$~!&^])", r"\\\1", plain(value)))


def in_plotly(value: Any) -> str:
    """`plain`, as it may stand in any text of plotly, which knows some tags of HTML, and TeX.

    Example:
        >>> in_plotly("<b>x</b>"), in_plotly("$x$")
        ('&lt;b>x&lt;/b>', '&#36;x&#36;')
    """
    return plain(value).replace("&", "&amp;").replace("<", "&lt;").replace("$", "&#36;")


def of_plotly(text: str) -> str:
    """A text of plotly, with `in_plotly` undone, as one line.

    Example:
        >>> of_plotly("two lines:<br>&lt;b>")
        'two lines: <b>'
    """
    return html.unescape(text.replace("<br>", " "))


def in_matplotlib(value: Any) -> str:
    """`plain`, as it may stand in any text of matplotlib, which takes for a formula what is between dollars.

    Example:
        >>> print(in_matplotlib("$x$"))
        \\$x\\$
    """
    return plain(value).replace("$", r"\$")
