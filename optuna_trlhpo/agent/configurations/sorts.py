"""Sorts of configurations, where values decide which parameters there are; and when to try another sort.

A critic that has observed mostly one sort is overconfident about all others. So after several trials of the
best sort, one trial is of another sort; after each trial, where the best sort no longer improves.

Notation: T trials, N configurations with a value, C candidates, D columns.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_WAIT, _STAGNANT_WAIT = 3, 1
"""Trials of the best sort before one of another sort; and where the latest ones are not notably better."""
_LATEST, _NOTABLE = 10, 0.15
"""Number of latest trials, and the smallest notable improvement, in standard deviations of all values."""
_CREDIT = 2.0
"""Possible improvement over its best value of a sort that was tried once per parameter, in standard
deviations of all values."""


class Sort(NamedTuple):
    """Sort of a configuration."""

    exact: bool
    """Whether a sort is a set of parameters; otherwise it is a set of templates, whatever their numbers."""
    members: frozenset[int]
    """Numbers of columns, or of templates."""


def sorts_of(rows: np.ndarray, template: np.ndarray, *, exact: bool = False) -> list[Sort]:
    """Sort of each row ``[C, D]``, NaN where a parameter is absent.

    Args:
        rows: Configurations.
        template: ``[D]``, or longer: the number of each column's template.
        exact: Whether sorts are sets of parameters, see `Sort`.

    Examples:
        >>> rows = np.array([[0.5, 0.1, np.nan], [0.5, 0.1, 0.2]])
        >>> one, other = sorts_of(rows, np.array([0, 1, 1]))
        >>> one == other, sorted(one.members)
        (True, [0, 1])
    """
    D = rows.shape[1]
    member = np.arange(D) if exact else template[:D]
    if not rows.size:
        return [Sort(exact, frozenset())] * len(rows)
    there = ~np.isnan(rows)
    packed = np.packbits(there, axis=1)
    _, first, of_row = np.unique(
        packed.view(f"V{packed.shape[1]}")[:, 0], return_index=True, return_inverse=True
    )
    sorts = [Sort(exact, frozenset(member[there[k]].tolist())) for k in first.tolist()]
    return [sorts[k] for k in of_row.tolist()]


class SortHistory:
    """Sorts of all trials in their order, computed once for each trial.

    Attributes:
        sorts: Sort of each trial.
        visits: Number of trials of each sort.
        exact_visits: The same for sorts that are sets of parameters.
    """

    def __init__(self) -> None:
        self._version = -1
        self.sorts: list[Sort] = []
        self.visits: Counter[Sort] = Counter()
        self.exact_visits: Counter[Sort] = Counter()

    def update(self, configurations: np.ndarray, template: np.ndarray, version: int = 0) -> SortHistory:
        """Add the trials that are new among all ``[T, D]``, and return the history.

        Args:
            configurations: Configurations of all trials.
            template: Numbers of templates, as for `sorts_of`.
            version: Version of the columns; with another one all is computed again.
        """
        if version != self._version or len(configurations) < len(self.sorts):
            self._version, self.sorts = version, []
            self.visits, self.exact_visits = Counter(), Counter()
        new = configurations[len(self.sorts) :]
        latest = sorts_of(new, template)
        self.sorts += latest
        self.visits.update(latest)
        self.exact_visits.update(sorts_of(new, template, exact=True))
        return self


class Tried:
    """Statistics of the sorts that were tried.

    Args:
        history: Sorts of all trials.
        configurations: ``[T, D]`` configurations of all trials.
        trial: ``[N]`` trials that have a value.
        values: ``[N]`` values of these trials.
        template: Numbers of templates, as for `sorts_of`.
    """

    def __init__(
        self,
        history: SortHistory,
        configurations: np.ndarray,
        trial: Sequence[int],
        values: np.ndarray,
        template: np.ndarray,
    ) -> None:
        self._history, self._configurations, self._template = history, configurations, template
        self._sorts = history.sorts
        self._first = trial[int(np.argmax(values))]
        self._leading = self._sorts[self._first]
        self._usual = float(np.median(values))
        self._best: dict[Sort, float] = {}
        for t, value in zip(trial, values.tolist(), strict=True):
            self._best[self._sorts[t]] = max(value, self._best.get(self._sorts[t], -math.inf))
        latest = np.array(trial) >= len(configurations) - _LATEST
        self._stagnant = not latest.all() and bool(
            not latest.any() or values[latest].max() < values[~latest].max() + _NOTABLE
        )
        # Every second time that another sort is due.
        self._by_size = self._stagnant and len(configurations) % 4 == 3

    def is_time_for_another(self) -> bool:
        """Return whether the next trial should be of another sort than the best."""
        if self._by_size:
            return True
        wait = _STAGNANT_WAIT if self._stagnant else _WAIT
        latest = self._sorts[-wait:]
        return len(latest) == wait and all(sort == self._leading for sort in latest)

    def another(self, rows: np.ndarray) -> Sort | None:
        """Choose another sort than the best among candidates ``[C, D]``; None if none promises more.

        Each sort is credited with an upper confidence bound: its best value, plus a bonus that is larger the
        less often it was tried per parameter (UCB1; Auer, Cesa-Bianchi and Fischer, 2002). Where the best
        sort no longer improves, the least tried sort is next; and every second time a sort with the same
        templates in other numbers, such as a network of another depth.
        """
        offered = sorts_of(rows, self._template)
        if self._by_size and (chosen := self._of_another_size(rows, offered)) is not None:
            return chosen
        visits = self._history.visits
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
        """Sort with the best one's templates but other parameters: the least tried, then the smallest."""
        exact = sorts_of(rows, self._template, exact=True)
        visits = self._history.exact_visits
        (best,) = sorts_of(self._configurations[self._first : self._first + 1], self._template, exact=True)
        alike = [one for one, sort in zip(exact, offered, strict=True) if sort == self._leading]
        others = [sort for sort in dict.fromkeys(alike) if sort != best]
        return min(others, key=lambda sort: (visits[sort], len(sort.members)), default=None)
