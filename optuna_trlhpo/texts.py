"""Texts and values of others, as they may stand in ours."""

from __future__ import annotations

import reprlib
from typing import Any


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
