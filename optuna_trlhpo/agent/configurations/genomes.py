"""Variations of configurations, as rows of actions; whether they are possible is not decided here.

Notation: M parents, D columns.

A row has an action for each column, NaN where the parameter is absent. Values are drawn anew or perturbed;
where the same parameters repeat place after place, a place is copied, inserted, removed or appended.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from optuna_trlhpo.layers.bins import reflect

_SMALLEST, _LARGEST = 0.005, 0.25
"""Smallest and largest standard deviation by which a value in [0, 1] is perturbed."""
_N_BEST, _BEST_SHARE = 10, 0.5
"""Half of the variations are of this many best parents, the others of any parent."""
_RESTRUCTURED = 0.3
"""Share of the variations in which a place is copied, inserted, removed or appended."""
_ANEW = 0.2
"""Share of the changed numbers that are drawn anew."""
_MORE = 0.35
"""Probability of each further change."""


@dataclass(frozen=True)
class Loop:
    """Parameters that repeat place after place.

    Attributes:
        columns: By place, the columns of that place by template.
        counter: Column that counts the places; -1 if there is none.
    """

    columns: Mapping[int, Mapping[int, int]]
    counter: int

    @functools.cached_property
    def members(self) -> tuple[np.ndarray, np.ndarray]:
        """All columns, and the place of each."""
        pairs = [(c, place) for place, mine in self.columns.items() for c in mine.values()]
        return np.array([c for c, _ in pairs]), np.array([place for _, place in pairs])


class Genomes:
    """Generator of variations.

    Args:
        parents: ``[M, D]`` configurations, the best first.
        free: ``[D]`` whether a column may change.
        categorical: ``[D]`` whether a column is categorical.
        n_values: ``[D]`` number of values of a column; 0: continuous.
        loops: Parameters that repeat place after place.
    """

    def __init__(
        self,
        parents: np.ndarray,
        free: np.ndarray,
        categorical: np.ndarray,
        n_values: np.ndarray,
        loops: Sequence[Loop],
    ) -> None:
        self._free = free
        self._categorical = categorical.tolist()
        self._n_values = n_values.tolist()
        self._loops = loops
        self.parents = parents

    def mutate(self, parents: np.ndarray, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """``[n, D]`` variations of ``parents`` ``[M, D]``, of better ones more often; ``[n]`` of which."""
        out, chosen = np.empty((n, parents.shape[1])), np.empty(n, dtype=np.int64)
        active = [np.flatnonzero(row).tolist() for row in ~np.isnan(parents) & self._free]
        draws = rng.random((n, 4))
        for i in range(n):
            u, v, w, more = draws[i].tolist()
            M = min(_N_BEST, len(parents)) if u < _BEST_SHARE else len(parents)
            k = int(M * v**2)
            row = parents[k].copy()
            if self._loops and w < _RESTRUCTURED:
                self._restructure(row, rng)
            times = 1 + int(math.log(max(more, 1e-12)) / math.log(_MORE))
            columns = active[k]
            for _ in range(times if columns else 0):
                self._change(row, columns[int(len(columns) * rng.random())], rng)
            out[i], chosen[i] = row, k
        return out, chosen

    def resample(self, parents: np.ndarray, rng: np.random.Generator, n: int) -> np.ndarray:
        """``[n, D]`` random parents with all free values drawn anew."""
        out = parents[rng.integers(len(parents), size=n)]
        drawn = rng.random(out.shape)
        return np.where(np.isnan(out) | ~self._free, out, drawn)

    def _change(self, row: np.ndarray, column: int, rng: np.random.Generator) -> None:
        u, v = rng.random(2).tolist()
        if self._categorical[column] or v < _ANEW or math.isnan(row[column]):
            row[column] = u
            return
        size = math.exp(math.log(_SMALLEST) + u * (math.log(_LARGEST) - math.log(_SMALLEST)))
        n = self._n_values[column]
        if n:
            size = max(size, 0.7 / n)
        row[column] = reflect(row[column] + size * rng.standard_normal())

    def _restructure(self, row: np.ndarray, rng: np.random.Generator) -> None:
        loop = self._loops[int(rng.integers(len(self._loops)))]
        members, place_of = loop.members
        places = np.unique(place_of[~np.isnan(row[members]) & self._free[members]]).tolist()
        if not places:
            return
        operation = int(rng.integers(4))
        at = places[rng.integers(len(places))]
        if operation == 0:
            self._copy(row, self._some_parent(rng), loop, places[rng.integers(len(places))], at)
            return
        if loop.counter >= 0 and not self._free[loop.counter]:
            return
        if operation == 1:  # remove a place
            for place in places:
                if place >= at:
                    self._copy(row, row, loop, place + 1, place)
            self._count(row, loop, -1)
            return
        if operation == 2:  # insert a place
            for place in reversed(places):
                if place >= at:
                    self._copy(row, row, loop, place, place + 1)
            self._copy(row, self._some_parent(rng), loop, places[rng.integers(len(places))], at)
        self._count(row, loop, 1)  # operation 3: append a place

    def _some_parent(self, rng: np.random.Generator) -> np.ndarray:
        row: np.ndarray = self.parents[int(len(self.parents) * rng.random() ** 2)]
        return row

    def _copy(self, row: np.ndarray, origin: np.ndarray, loop: Loop, source: int, target: int) -> None:
        theirs = loop.columns.get(source, {})
        for template, column in loop.columns.get(target, {}).items():
            if self._free[column]:
                row[column] = origin[theirs[template]] if template in theirs else math.nan

    def _count(self, row: np.ndarray, loop: Loop, more: int) -> None:
        c = loop.counter
        if c >= 0 and not math.isnan(row[c]) and self._n_values[c]:
            row[c] = min(max(row[c] + more / self._n_values[c], 0.0), 1.0)


def loops_of(
    templates: Sequence[int],
    places: Sequence[int],
    outer: Sequence[tuple[int, ...]],
    counters: Mapping[int, int],
) -> list[Loop]:
    """Find the loops among columns.

    Args:
        templates: ``[D]`` template of each column.
        places: ``[D]`` last number in its name; -1 where there is none.
        outer: ``[D]`` numbers before the last one.
        counters: By column, the column that counts its places, where one is known.

    Examples:
        >>> (loop,) = loops_of([0, 1, 1], [-1, 0, 1], [(), (), ()], {1: 0})
        >>> loop.counter, sorted(loop.columns)
        (0, [0, 1])
    """
    several = defaultdict(set)
    for template, place, around in zip(templates, places, outer, strict=True):
        if place >= 0:
            several[template, around].add(place)
    grouped: dict[tuple[tuple[int, ...], int], dict[int, dict[int, int]]] = {}
    for column, (template, place, around) in enumerate(zip(templates, places, outer, strict=True)):
        if place < 0 or len(several[template, around]) < 2:
            continue
        counter = counters.get(column, -1)
        grouped.setdefault((around, counter), {}).setdefault(place, {})[template] = column
    counted = {around for around, counter in grouped if counter >= 0}
    found = []
    for (around, counter), columns in grouped.items():
        if counter < 0 and around in counted:  # parts of a loop whose end is decided by another parameter
            one = [key for key in grouped if key[0] == around and key[1] >= 0]
            if len(one) == 1:
                for place, mine in columns.items():
                    grouped[one[0]].setdefault(place, {}).update(mine)
                continue
        found.append(Loop(columns, counter))
    return found
