"""Features of configurations, which a kernel can compare.

Notation: N rows, D columns, F features.

Features are computed from the actions of a row in two parts. *In place*: the category or value of each
parameter. *Anywhere*: where the same parameter repeats, the number of repetitions and the sum of the values,
whatever their position; and the value of the last one. The critic learns which of them matter.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from optuna_trlhpo.agent.configurations.columns import Columns, padded
from optuna_trlhpo.agent.features import N_PARTS
from optuna_trlhpo.agent.gaussian_process import LINEAR, Features
from optuna_trlhpo.layers.bins import bins_of

_IN_PLACE, _ANYWHERE, _AFTER = range(3)
_CONTEXT = 2.0
"""Scale of a context: it weighs more than a parameter before any data."""
_DISTANCE = 2.4
"""Expected weighted squared distance between configurations that differ in every parameter."""
_MOST_COLUMNS = 400
"""Largest number of columns with features: the most frequent ones."""

assert _AFTER < N_PARTS


class Layout:
    """Features of a set of columns, fixed for one plan.

    Args:
        columns: All columns.
        used: Columns that get features.
        mean_size: Mean number of parameters of a configuration.
        varies: Whether configurations differ in their parameters.
        n_contexts: Number of reports of the running trial whose surprise is read, see `StateCritics`.
        after: Columns that only come after a report. With the contexts they form a part of the kernel of
            their own, for which is right after a report often does not depend on what came before it.
        means: ``[X]`` means of the weights of the expectations from elsewhere.
    """

    def __init__(
        self,
        columns: Columns,
        used: np.ndarray,
        *,
        mean_size: float,
        varies: bool,
        n_contexts: int = 0,
        after: Sequence[int] = (),
        means: Sequence[float] = (),
    ) -> None:
        places = columns.places
        self._used = used
        self.n_contexts = n_contexts
        part: list[int] = []
        column: list[int] = []
        group: list[int] = []
        mean: list[float] = []
        self._first = np.zeros(len(used), dtype=np.int64)
        self._labels = np.zeros(len(used), dtype=np.int64)

        def add(width: int, which: int, id_: int, of: int, expected: float = 0.0) -> int:
            first = len(part)
            part.extend([which] * width)
            column.extend([id_] * width)
            group.extend([of] * width)
            mean.extend([expected] * width)
            return first

        for i, c in enumerate(used.tolist()):
            self._labels[i] = places.n_values[c] if places.categorical[c] else 0
            of = columns.id_of("template", int(places.template[c]))
            self._first[i] = add(int(self._labels[i]) or 2, _IN_PLACE, columns.id_of("column", c), of)
        self._n_in_place = len(part)
        templates, counts = np.unique(places.template[used], return_counts=True)
        self._repeated: list[tuple[np.ndarray, np.ndarray, int, int]] = []
        for template in templates[counts > 1].tolist():
            mine = np.flatnonzero(places.template[used] == template)
            order = [(places.outer[c], places.place[c]) for c in used[mine].tolist()]
            mine = mine[sorted(range(len(mine)), key=order.__getitem__)]
            width = int(self._labels[mine[0]]) or 2
            of = columns.id_of("anywhere template", template)
            sums = add(width, _ANYWHERE, columns.id_of("anywhere", template), of)
            last = -1
            if varies:
                of = columns.id_of("last template", template)
                last = add(width, _ANYWHERE, columns.id_of("last", template), of)
            self._repeated.append((mine, self._first[mine], sums, last))
        self._n_steps = max((len(mine) for mine, *_ in self._repeated), default=1)
        self._contexts = [
            add(2, _IN_PLACE, columns.id_of("context", k), columns.id_of("context template", 0))
            for k in range(n_contexts)
        ]
        self._after: list[
            tuple[int, int, int]
        ] = []  # features in place, their number, the same after reports
        if n_contexts:
            later = [i for i, c in enumerate(used.tolist()) if c in set(after)]
            for i in later:
                c, width = int(used[i]), int(self._labels[i]) or 2
                of = columns.id_of("after template", int(places.template[c]))
                first = add(width, _AFTER, columns.id_of("after", c), of)
                self._after.append((int(self._first[i]), width, first))
            for k, first in enumerate(self._contexts):
                id_, of = columns.id_of("after context", k), columns.id_of("after context template", 0)
                self._after.append((first, 2, add(2, _AFTER, id_, of)))
        self._expected = [
            add(1, LINEAR, columns.id_of("expected", k), columns.id_of("expected template", k), float(m))
            for k, m in enumerate(means)
        ]
        n_after = max(len(self._after), 1)
        # In the order of the parts; the last is LINEAR.
        weights = np.log(np.array([_DISTANCE / max(mean_size, 1.0), _DISTANCE, _DISTANCE / n_after, 1.0]))
        parts = np.array(part, dtype=np.int64)
        self.features = Features(
            parts,
            np.array(column, dtype=np.int64),
            np.array(group, dtype=np.int64),
            weights[parts],
            np.array(mean),
        )

    @classmethod
    def of(
        cls,
        columns: Columns,
        actions: np.ndarray,
        *,
        mean_size: float,
        varies: bool,
        n_contexts: int = 0,
        after: Sequence[int] = (),
        means: Sequence[float] = (),
    ) -> Layout:
        """Layout of the columns that configurations ``[N, D]`` have; the most frequent ones if too many."""
        counts = (~np.isnan(padded(actions, len(columns)))).sum(axis=0)
        used = np.flatnonzero(counts)
        if len(used) > _MOST_COLUMNS:
            used = np.sort(used[np.argsort(-counts[used], kind="stable")[:_MOST_COLUMNS]])
        return cls(
            columns, used, mean_size=mean_size, varies=varies, n_contexts=n_contexts, after=after, means=means
        )

    def __call__(self, actions: np.ndarray, contexts: np.ndarray, expected: np.ndarray) -> np.ndarray:
        """Features ``[N, F]``.

        Args:
            actions: ``[N, D]``, NaN where there is no parameter.
            contexts: ``[N, n_contexts]``, NaN where nothing was reported.
            expected: ``[N, X]`` expectations from elsewhere, each with deviation 1.
        """
        a = actions[:, self._used]
        there = ~np.isnan(a)
        x = np.zeros((len(a), len(self.features.part)))
        size = 1 / np.sqrt(2)
        counted = self._labels > 0
        numbers = np.flatnonzero(~counted)
        x[:, self._first[numbers]] = size * there[:, numbers]
        x[:, self._first[numbers] + 1] = size * np.where(there[:, numbers], 2 * a[:, numbers] - 1, 0.0)
        rows, cols = np.nonzero(there & counted)
        n = self._labels[cols]
        bins = bins_of(a[rows, cols], n).astype(np.int64)
        x[rows, self._first[cols] + bins] = size
        for mine, starts, sums, last in self._repeated:
            width = int(self._labels[mine[0]]) or 2
            blocks = x[:, starts[:, None] + np.arange(width)]  # [N, places, width]
            x[:, sums : sums + width] = blocks.sum(axis=1) * (np.sqrt(2) / self._n_steps)
            if last >= 0:
                present = there[:, mine]
                at = present.shape[1] - 1 - np.argmax(present[:, ::-1], axis=1)
                x[:, last : last + width] = blocks[np.arange(len(x)), at] * present.any(axis=1)[:, None]
        for k, first in enumerate(self._contexts):
            known = ~np.isnan(contexts[:, k])
            x[:, first] = size * _CONTEXT * known
            x[:, first + 1] = np.where(known, size * _CONTEXT * (2 * np.nan_to_num(contexts[:, k]) - 1), 0.0)
        for start, width, first in self._after:
            x[:, first : first + width] = x[:, start : start + width]
        for k, first in enumerate(self._expected):
            x[:, first] = expected[:, k]
        return x
