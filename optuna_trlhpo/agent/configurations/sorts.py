"""Sorts of configurations, where values decide which parameters there are; and when to look at another one.

A critic that has met little but one sort is too sure of all others. So several trials of the best sort are
followed by one of another; or each, where they find nothing better.

Notation: T trials, N configurations with a value, C candidates, D columns.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_WAIT, _STAGNANT_WAIT = 3, 1
"""Trials of the best sort before one of another; and where the latest ones are not notably better."""
_LATEST, _NOTABLE = 10, 0.15
"""How many are the latest trials, and what is notable, in standard deviations of all values."""
_CREDIT = 2.0
"""What a sort may come to that was tried once for each of its parameters, above its best value, in standard
deviations of all values."""


class Sort(NamedTuple):
    """What sort of configuration one is."""

    exact: bool
    """Whether by its very parameters; else by their templates, however often it has each."""
    members: frozenset[int]
    """Numbers of columns, or of templates."""


def sorts_of(rows: np.ndarray, template: np.ndarray, *, exact: bool = False) -> list[Sort]:
    """The sort of each row ``[C, D]``, NaN where a parameter is absent.

    Args:
        rows: Configurations.
        template: ``[D]``, or longer: the number of each column's template.
        exact: See `Sort`.

    Example:
        >>> rows = np.array([[0.5, 0.1, np.nan], [0.5, 0.1, 0.2]])
        >>> one, other = sorts_of(rows, np.array([0, 1, 1]))
        >>> one == other, sorted(one.members)
        (True, [0, 1])
    """
    D = rows.shape[1]
    member = np.arange(D) if exact else template[:D]
    there = ~np.isnan(rows)
    found: dict[bytes, Sort] = {}
    for row in there:
        if (key := row.tobytes()) not in found:
            found[key] = Sort(exact, frozenset(member[row].tolist()))
    return [found[row.tobytes()] for row in there]


class Tried:
    """What is known of sorts.

    Args:
        whole: ``[T, D]`` the configurations of all trials.
        trial: ``[N]`` trials that have a value.
        values: ``[N]`` their values.
        template: As for `sorts_of`.
    """

    def __init__(
        self, whole: np.ndarray, trial: Sequence[int], values: np.ndarray, template: np.ndarray
    ) -> None:
        self._whole, self._template = whole, template
        self._sorts = sorts_of(whole, template)
        self._first = trial[int(np.argmax(values))]
        self._leading = self._sorts[self._first]
        self._usual = float(np.median(values))
        self._best: dict[Sort, float] = {}
        for t, value in zip(trial, values.tolist(), strict=True):
            self._best[self._sorts[t]] = max(value, self._best.get(self._sorts[t], -math.inf))
        latest = np.array(trial) >= len(whole) - _LATEST
        self._stagnant = not latest.all() and bool(
            not latest.any() or values[latest].max() < values[~latest].max() + _NOTABLE
        )
        # Every second time that one would look elsewhere.
        self._by_size = self._stagnant and len(whole) % 4 == 3

    def is_time_for_another(self) -> bool:
        """Whether the next trial should be of another sort than the best."""
        if self._by_size:
            return True
        latest = reversed(self._sorts)
        since = next((n for n, sort in enumerate(latest) if sort != self._leading), len(self._sorts))
        return since >= (_STAGNANT_WAIT if self._stagnant else _WAIT)

    def another(self, rows: np.ndarray) -> Sort | None:
        """A sort but the best, of those that candidates ``[C, D]`` offer; None where none promises more.

        Each is credited with what it may come to: its best value, and the more the less often it was tried
        for each of its parameters (UCB1; Auer, Cesa-Bianchi and Fischer, 2002). Where the best sort brings
        nothing more, the one that was tried the least is next; and every second time one that has the same
        templates in other numbers, such as a network of another depth.
        """
        offered = sorts_of(rows, self._template)
        if self._by_size and (chosen := self._of_another_size(rows, offered)) is not None:
            return chosen
        visits = Counter(self._sorts)
        sizes = (~np.isnan(rows)).sum(axis=1).tolist()
        credit = {
            sort: self._best.get(sort, self._usual) + _CREDIT * math.sqrt(size / (visits[sort] + 0.5))
            for sort, size in zip(offered, sizes, strict=True)
            if sort != self._leading
        }
        hopeful = [sort for sort in credit if credit[sort] > self._best[self._leading]]
        if not hopeful:
            return None
        if self._stagnant:
            return min(hopeful, key=visits.__getitem__)
        return max(hopeful, key=credit.__getitem__)

    def _of_another_size(self, rows: np.ndarray, offered: Sequence[Sort]) -> Sort | None:
        """Of the best sort, but of other parameters: those that were tried the least, and of these the
        fewest."""
        exact = sorts_of(rows, self._template, exact=True)
        visits = Counter(sorts_of(self._whole, self._template, exact=True))
        (best,) = sorts_of(self._whole[self._first : self._first + 1], self._template, exact=True)
        alike = [one for one, sort in zip(exact, offered, strict=True) if sort == self._leading]
        others = [sort for sort in dict.fromkeys(alike) if sort != best]
        return min(others, key=lambda sort: (visits[sort], len(sort.members)), default=None)
