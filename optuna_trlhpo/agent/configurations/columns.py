"""Configurations as rows of numbers, with a column for each parameter of a study.

Notation: N rows, D columns.

A row holds actions on the axes of its columns, NaN where a parameter is absent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution

from optuna_trlhpo.trials.axes import Axis, LabelAxis, NumberAxis, family_of
from optuna_trlhpo.trials.parameter_names import parse_name

_KEPT_RANGES = 20
"""Number of latest ranges of a parameter that its axis covers, where its range follows from values."""


_UNDOING = frozenset({"_remove_column", "_remove_id", "_remove_name", "_set_axis", "_set_ranges", "_shorten"})
"""Methods that undo a tentative change."""


class Places(NamedTuple):
    """Properties of the columns."""

    template: np.ndarray  # [D] number of the template
    place: np.ndarray  # [D] last number in the name; -1 where there is none
    outer: list[tuple[int, ...]]  # [D] numbers before the last one
    categorical: np.ndarray  # [D]
    n_values: np.ndarray  # [D] 0: continuous


class Columns:
    """Columns of parameters, each with its axis.

    What a plan needs beyond them may never be asked for. So it is learned tentatively, and undone before the
    next finished trial is learned: the order of the columns must depend on finished trials alone.

    Attributes:
        version: Number of changes of axes: actions of different versions must not be compared.

    Examples:
        >>> from optuna.distributions import IntDistribution
        >>> columns = Columns()
        >>> columns.learn("units_0", IntDistribution(1, 4)), columns.learn("units_1", IntDistribution(1, 4))
        (0, 1)
        >>> columns.learn("units_0", IntDistribution(1, 4))
        0
    """

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, bool, tuple[int, ...]], int] = {}
        self._by_name: dict[tuple[str, bool], int] = {}
        self._templates: dict[tuple[str, bool], int] = {}
        self._labels: dict[str, LabelAxis] = {}
        self._axes: list[Axis] = []
        self._ranges: list[list[BaseDistribution]] = []
        self._template: list[int] = []
        self._places: list[tuple[int, ...]] = []
        self._names: list[list[str]] = []
        self._ids: dict[tuple[str, int], int] = {}  # numbers of the weights that the critic learns
        self._undo: list[tuple[str, tuple[Any, ...]]] | None = None  # calls that undo tentative changes
        self.version = 0

    def __len__(self) -> int:
        return len(self._axes)

    def begin_tentative(self) -> None:
        """Learn tentatively from now on."""
        if self._undo is None:
            self._undo = []

    def undo_tentative(self) -> None:
        """Forget what was learned tentatively, and learn permanently from now on."""
        calls, self._undo = self._undo or [], None
        for method, arguments in reversed(calls):
            if method not in _UNDOING:  # the name may come from a checkpoint
                raise ValueError(f"{method!r} undoes nothing; what does is {', '.join(sorted(_UNDOING))}")
            getattr(self, method)(*arguments)

    def _note_undo(self, method: str, *arguments: Any) -> None:
        """Note how a change is undone, if it is tentative: by name, since a sampler is pickled."""
        if self._undo is not None:
            self._undo.append((method, arguments))

    def learn(self, name: str, distribution: BaseDistribution, *, dependent: bool = False) -> int:
        """Column of a parameter, which is added if it is new.

        Args:
            name: Name of the parameter.
            distribution: Distribution of the parameter, which the axis will cover.
            dependent: Whether its range follows from other values, so that earlier ranges remain valid.
        """
        categorical = isinstance(distribution, CategoricalDistribution)
        column = self._by_name.get((name, categorical))
        if column is None:
            column = self._add(name, distribution, categorical)
        if isinstance(distribution, CategoricalDistribution):
            axis = self._axes[column]
            assert isinstance(axis, LabelAxis)
            n = axis.n_values
            if axis.learn(distribution):
                self.version += 1
                self._note_undo("_shorten", axis, n)
            return column
        ranges = self._ranges[column]
        if ranges[-1] is distribution or ranges[-1] == distribution:
            if dependent or len(ranges) == 1:
                return column
        self._note_undo("_set_ranges", column, [*ranges])
        if dependent:
            covered = [distribution, *(other for other in ranges if other != distribution)]
            ranges[:] = covered[:_KEPT_RANGES][::-1]
        else:
            ranges[:] = [distribution]
        self._set_axis(column, NumberAxis(ranges))
        return column

    def _set_axis(self, column: int, axis: NumberAxis) -> None:
        before = self._axes[column]
        assert isinstance(before, NumberAxis)
        if vars(axis) != vars(before):
            self._axes[column] = axis
            self.version += 1
            self._note_undo("_set_axis", column, before)

    def _set_ranges(self, column: int, ranges: list[BaseDistribution]) -> None:
        self._ranges[column][:] = ranges

    def _shorten(self, axis: LabelAxis, n: int) -> None:
        axis.shorten(n)
        self.version += 1

    def _add(self, name: str, distribution: BaseDistribution, categorical: bool) -> int:
        parsed = parse_name(name)
        template = parsed.template
        if isinstance(distribution, CategoricalDistribution):
            template = family_of(name, distribution)
        key = template, categorical, parsed.places
        if key not in self._numbers:
            self._add_column(key, distribution)
        column = self._numbers[key]
        self._by_name[name, categorical] = column
        self._names[column].append(name)
        self._note_undo("_remove_name", name, categorical)
        return column

    def _remove_name(self, name: str, categorical: bool) -> None:
        column = self._by_name.pop((name, categorical))
        self._names[column].pop()

    def _add_column(self, key: tuple[str, bool, tuple[int, ...]], distribution: BaseDistribution) -> None:
        template, categorical, places = key
        is_first = (template, categorical) not in self._templates
        number = self._templates.setdefault((template, categorical), len(self._templates))
        self._numbers[key] = len(self._axes)
        if categorical:
            self._axes.append(self._labels.setdefault(template, LabelAxis()))
        else:
            self._axes.append(NumberAxis([distribution]))
        self._ranges.append([distribution])
        self._template.append(number)
        self._places.append(places)
        self._names.append([])
        self._note_undo("_remove_column", key, is_first)

    def _remove_column(self, key: tuple[str, bool, tuple[int, ...]], is_first: bool) -> None:
        del self._numbers[key]
        for of_columns in (self._axes, self._ranges, self._template, self._places, self._names):
            of_columns.pop()
        if is_first:
            del self._templates[key[:2]]
            self._labels.pop(key[0], None)

    def find(self, name: str, distribution: BaseDistribution) -> int:
        """Column of a parameter; -1 if it has none."""
        return self._by_name.get((name, isinstance(distribution, CategoricalDistribution)), -1)

    def names(self, column: int) -> list[str]:
        """Names of a column; several where labels are part of a name, see `family_of`."""
        return self._names[column]

    def axis(self, column: int) -> Axis:
        """Axis of a column."""
        return self._axes[column]

    @property
    def places(self) -> Places:
        """Properties of the columns."""
        return Places(
            np.array(self._template, dtype=np.int64),
            np.array([places[-1] if places else -1 for places in self._places], dtype=np.int64),
            [places[:-1] for places in self._places],
            np.array([axis.categorical for axis in self._axes], dtype=bool),
            np.array([axis.n_values for axis in self._axes], dtype=np.int64),
        )

    def actions(self, raw: np.ndarray) -> np.ndarray:
        """Actions ``[N, D]`` of raw values ``[N, D]``."""
        out, there = np.full(raw.shape, np.nan), ~np.isnan(raw)
        for column in np.flatnonzero(there.any(axis=0)).tolist():
            rows = there[:, column]
            out[rows, column] = self._axes[column].actions(raw[rows, column])
        return out

    def settle(self, actions: np.ndarray, columns: Iterable[int]) -> None:
        """Replace actions ``[N, D]``, in place, by the canonical actions of the same values."""
        for column in columns:
            there = ~np.isnan(actions[:, column])
            actions[there, column] = self._axes[column].settle(actions[there, column])

    def id_of(self, kind: str, number: int) -> int:
        """Permanent number of the weight that the critic learns for a column or a template."""
        key = kind, number
        if key not in self._ids:
            self._ids[key] = len(self._ids)
            self._note_undo("_remove_id", key)
        return self._ids[key]

    def _remove_id(self, key: tuple[str, int]) -> None:
        del self._ids[key]


def padded(rows: Any, n: int) -> np.ndarray:
    """Pad rows of different lengths to ``[N, n]``, with NaN at their ends."""
    if isinstance(rows, np.ndarray) and rows.ndim == 2:
        return (
            rows
            if rows.shape[1] == n
            else np.pad(rows, [(0, 0), (0, n - rows.shape[1])], constant_values=np.nan)
        )
    out = np.full((len(rows), n), np.nan)
    for target, row in zip(out, rows, strict=True):
        target[: len(row)] = row
    return out
