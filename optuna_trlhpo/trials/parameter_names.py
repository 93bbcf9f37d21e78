"""Parsing of parameter names into a template and numbers."""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

_MOST_PLACES = 4
"""Largest number of places of a name. Numbers before them are part of the template."""
_PLACE = re.compile(r"(?<!\d)(?:0|[1-9]\d{0,5})(?!\d)")


class Name(NamedTuple):
    """A parsed name: its template, and its *places*, the numbers in it."""

    template: str
    places: tuple[int, ...]

    @property
    def text(self) -> str:
        """The name as text.

        Examples:
            >>> parse_name("filters_1_2")._replace(places=(1, 3)).text
            'filters_1_3'
        """
        return text_of(self.template, self.places)


@functools.lru_cache(maxsize=65536)
def text_of(template: str, places: tuple[int, ...]) -> str:
    """Return the name with this template and these places."""
    parts = template.split("\0")
    if len(parts) != len(places) + 1:  # the name itself contains a NUL
        return template
    return "".join(part + str(place) for part, place in zip(parts, (*places, ""), strict=True))


@functools.lru_cache(maxsize=65536)
def parse_name(name: str) -> Name:
    """Return the template and the places of a name.

    Examples:
        >>> parse_name("n_units_l12").places, parse_name("x01").places, parse_name("x1").places
        ((12,), (), (1,))
    """
    found = list(_PLACE.finditer(name))[-_MOST_PLACES:]
    if len(found) > 1:  # several small numbers form one index, see `parameters.parameter_spec`
        found = [match for match in found if len(match[0]) <= 3]
    template, start = "", 0
    for match in found:
        template += name[start : match.start()] + "\0"
        start = match.end()
    return Name(template + name[start:], tuple(int(match[0]) for match in found))
