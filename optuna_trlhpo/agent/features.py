"""Conversion of networks to rows of features, which a kernel can compare.

Notation: N networks, S steps, A action slots, F features.

There are three sets of features, and expectations. The first set has a column for each parameter by its full
name, such as "filters of layer 2", with its category or its value. The second set ignores the position of
parameters that repeat in each layer: it holds the number of layers of each kind, and the mean of their
values. So the first set describes the network in detail, and the second its general structure. The third set
holds descriptors of the network as a whole, such as its depth and size, where they are known. Expectations
are the predictions of earlier studies, or of a prior for layers, where there are any.
"""

from __future__ import annotations

import numpy as np

from optuna_trlhpo.agent.gaussian_process import LINEAR, Features
from optuna_trlhpo.agent.sequences import Networks
from optuna_trlhpo.layers.bins import bins_of

N_PARTS = 3
_IN_PLACE, _ANYWHERE, _DESCRIPTORS = range(N_PARTS)
_DESCRIPTOR, _EXPECTED = -10, -1000
"""Base names of descriptors and of expectations; each descriptor and expectation is a group of its own."""
_DESCRIPTOR_WEIGHT = 0.3
_DISTANCE = 2.4
"""Expected weighted squared distance between networks that differ in every parameter."""


class FeatureMap:
    """Feature map that gives each parameter its own columns, permanently.

    Examples:
        >>> one = np.zeros((1, 1, 1), dtype=np.int64)
        >>> nothing = np.zeros((1, 0))
        >>> network = Networks(one + 0.5, one, one, one * 0, np.full((1, 1), np.nan), nothing, nothing)
        >>> features = FeatureMap()
        >>> features.learn(network, categorical=np.array([False]))
        >>> features(network).shape
        (1, 2)
    """

    def __init__(self) -> None:
        self._columns: dict[tuple[int, int], int] = {}  # (base name, index) -> column
        self._anywhere: dict[int, int] = {}  # base name -> column that ignores the position
        self._first: list[int] = []  # by column: its first feature
        self._n: list[int] = []  # by column: its number of categories, 0 for a numerical parameter
        self._part: list[int] = []  # by feature
        self._column: list[int] = []
        self._group: list[int] = []
        self._groups: dict[tuple[int, int], int] = {}  # (part, base name) -> group
        self._means: dict[int, float] = {}  # by column: the mean of its weight, in deviations
        self._n_slots = 1.0
        self._n_steps = 1

    def __len__(self) -> int:
        return len(self._part)

    def learn(self, networks: Networks, categorical: np.ndarray, means: np.ndarray | None = None) -> None:
        """Add columns for new parameters.

        Args:
            networks: Networks whose parameters are to have columns.
            categorical: Whether the values of a base name have no order, by its number.
            means: ``[X]`` means of the weights of ``networks.expected``.
        """
        filled = networks.names >= 0
        self._n_slots = max(float(filled.sum(axis=(1, 2)).mean()), 1.0)
        self._n_steps = max(self._n_steps, int(networks.lengths.max(initial=1)))
        names, indices, counts = (array[filled] for array in networks[1:4])
        # As one number, which sorts faster than three.
        bases = int(indices.max(initial=0)) + 1, int(counts.max(initial=0)) + 1
        for number in np.unique((names * bases[0] + indices) * bases[1] + counts).tolist():
            rest, count = divmod(number, bases[1])
            name, index = divmod(rest, bases[0])
            if (name, index) not in self._columns:
                repeated = any(other == name for other, _ in self._columns)
                n = int(count) if categorical[name] else 0
                self._columns[name, index] = self._add(_IN_PLACE, name, n)
                if repeated and name not in self._anywhere:
                    self._anywhere[name] = self._add(_ANYWHERE, name, n)
        for number in range(networks.network_descriptor.shape[1]):
            if (_DESCRIPTOR, number) not in self._columns:
                self._columns[_DESCRIPTOR, number] = self._add(_DESCRIPTORS, _DESCRIPTOR - number, 0)
        for number in range(networks.expected.shape[1]):
            if (_EXPECTED, number) not in self._columns:
                column = self._add(LINEAR, _EXPECTED - number, 1)
                self._columns[_EXPECTED, number] = column
                self._means[column] = 0.0 if means is None else float(means[number])
        for step in np.flatnonzero(~np.isnan(networks.context).all(axis=0)):
            if (-1, step) not in self._columns:
                self._columns[-1, int(step)] = self._add(_IN_PLACE, -1, 0)

    def _add(self, part: int, name: int, n: int) -> int:
        column = len(self._first)
        group = self._groups.setdefault((part, int(name)), len(self._groups))
        self._first.append(len(self._part))
        self._n.append(n)
        width = n or 2  # a numerical parameter: whether it is present, and its value
        self._part += [part] * width
        self._column += [column] * width
        self._group += [group] * width
        return column

    def repeated(self, n: int) -> np.ndarray:
        """``[n]`` whether a base name occurs once per layer, by its number; the last entry is for no name."""
        return np.array([name in self._anywhere for name in range(n - 1)] + [False])

    def column_of(self, name: int, index: int) -> int:
        """Column of a parameter at its position; -1 if it is unknown."""
        return self._columns.get((name, index), -1)

    @property
    def features(self) -> Features:
        """Properties of the columns of the feature matrix."""
        part = np.array(self._part)
        column = np.array(self._column)
        # In the order of the parts; the last is LINEAR.
        weights = np.array([_DISTANCE / self._n_slots, _DISTANCE, _DESCRIPTOR_WEIGHT, 1.0])
        means = np.array([self._means.get(number, 0.0) for number in range(len(self._first))])
        return Features(part, column, np.array(self._group), np.log(weights)[part], means[column])

    def __call__(self, networks: Networks) -> np.ndarray:
        """Features ``[N, F]``; unknown parameters are ignored."""
        N = len(networks.names)
        x = np.zeros((N, len(self._part)))
        n, s, a = np.nonzero(networks.names >= 0)
        names, indices, actions = (
            networks.names[n, s, a],
            networks.indices[n, s, a],
            networks.actions[n, s, a],
        )
        first, categories = np.array([*self._first, -1]), np.array([*self._n, 0])
        pairs = zip(names.tolist(), indices.tolist(), strict=True)
        in_place = np.array([self._columns.get(pair, -1) for pair in pairs], dtype=np.int64)
        _write(x, n, first[in_place], categories[in_place], actions, 1.0)
        anywhere = np.array([self._anywhere.get(name, -1) for name in names.tolist()], dtype=np.int64)
        _write(x, n, first[anywhere], categories[anywhere], actions, np.sqrt(2.0) / self._n_steps)
        n, s = np.nonzero(~np.isnan(networks.context))
        context = np.array([self._columns.get((-1, step), -1) for step in s.tolist()], dtype=np.int64)
        _write(x, n, first[context], categories[context], networks.context[n, s], 2.0)
        for number, values in enumerate(networks.network_descriptor.T):
            if (_DESCRIPTOR, number) in self._columns:
                x[:, self._first[self._columns[_DESCRIPTOR, number]] + 1] = 2 * np.nan_to_num(values)
        for number, values in enumerate(networks.expected.T):
            x[:, self._first[self._columns[_EXPECTED, number]]] = np.nan_to_num(values)
        return x


def _write(
    x: np.ndarray, rows: np.ndarray, first: np.ndarray, n: np.ndarray, actions: np.ndarray, size: float
) -> None:
    """Add parameters to rows of ``x``: a category is one of n features, a number takes two."""
    known, counted = first >= 0, n > 0
    bins = bins_of(actions, n).astype(np.int64)
    here = known & counted
    np.add.at(x, (rows[here], (first + bins)[here]), size / np.sqrt(2))
    here = known & ~counted
    np.add.at(x, (rows[here], first[here]), size / np.sqrt(2))
    np.add.at(x, (rows[here], first[here] + 1), size * (2 * actions[here] - 1))
