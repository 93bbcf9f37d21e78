"""Which configurations a study has tried: a tree of values, so that none is suggested twice.

A node stands for the parameters so far. It is *exhausted* where everything behind it has been tried: a trial
ended there, or each value of its parameter leads to an exhausted node. A continuous parameter is never
exhausted, and nothing behind it is kept.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from optuna_trlhpo.parameters import n_values, on_grid, value_key

_MOST_LISTED = 100_000
"""A parameter of more values counts as continuous here: nobody tries them all."""
_DRAWS = 50

Step = tuple[str, BaseDistribution, Any]
"""Name, distribution and value of one parameter."""


class _Node:
    __slots__ = ("name", "distribution", "children", "ended", "exhausted")

    def __init__(self) -> None:
        self.name: str | None = None
        self.distribution: BaseDistribution | None = None
        self.children: dict[Any, _Node] = {}
        self.ended = False
        self.exhausted = False


class Explored:
    """The configurations that finished trials had, or running ones are about to have.

    Example:
        >>> explored, bit = Explored(), IntDistribution(0, 1)
        >>> explored.add([("a", bit, 0)])
        >>> explored.is_exhausted([], "a", bit, 0), explored.is_exhausted([], "a", bit, 1)
        (True, False)
        >>> explored.add([("a", bit, 1)])
        >>> explored.all_tried
        True
    """

    def __init__(self) -> None:
        self._root = _Node()

    @property
    def all_tried(self) -> bool:
        """Whether nothing is left to try."""
        return self._root.exhausted

    def add(self, path: Sequence[Step]) -> None:
        """A trial had these parameters, in this order, and asked for no more."""
        nodes = [self._root]
        for name, distribution, value in path:
            node = nodes[-1]
            node.name, node.distribution = name, distribution
            if _count(distribution) == 0:
                break
            nodes.append(node.children.setdefault(value_key(value), _Node()))
        else:
            nodes[-1].ended = True
        for node in reversed(nodes):
            if node.name is None:
                node.exhausted = node.ended
            else:  # where a trial went on, others may too, although some ended here
                assert node.distribution is not None
                n = sum(child.exhausted for child in node.children.values())
                node.exhausted = bool(n) and n >= _count(node.distribution) > 0

    def is_exhausted(
        self, path: Sequence[tuple[str, Any]], name: str, distribution: BaseDistribution, value: Any
    ) -> bool:
        """Whether all is tried that begins with ``path``, names and values, and goes on with this value."""
        node = self._find(path)
        if node is None or node.name != name:
            return False
        child = node.children.get(value_key(value))
        return child is not None and child.exhausted

    def least_open(self, path: Sequence[tuple[str, Any]]) -> float:
        """How many configurations that begin with ``path``, names and values, are left to try, at least;
        infinite where that is not known.

        Example:
            >>> explored, bit = Explored(), IntDistribution(0, 1)
            >>> explored.add([("a", bit, 0), ("b", bit, 1)])
            >>> explored.least_open([("a", 0)]), explored.least_open([("a", 1)]), explored.least_open([])
            (1, inf, 2)
        """
        node = self._find(path)
        return math.inf if node is None else _open(node)

    def open_value(
        self,
        path: Sequence[tuple[str, Any]],
        name: str,
        distribution: BaseDistribution,
        wanted: Any,
        rng: np.random.Generator,
        taken: Collection[Any] = (),
    ) -> Any:
        """``wanted`` if something behind it is left to try; else a random value of which that holds.

        ``wanted``, too, where nothing is left.

        Args:
            path: Names and values of the parameters so far.
            name: Of the parameter.
            distribution: Its distribution.
            wanted: A value of it.
            rng: The generator.
            taken: Values that other running trials are trying, with nothing behind them.
        """
        node = self._find(path)
        closed = {value_key(value) for value in taken}
        if node is not None and node.name == name:
            closed.update(key for key, child in node.children.items() if child.exhausted)
        n = _count(distribution)
        if n == 0 or value_key(wanted) not in closed:
            return wanted
        for _ in range(_DRAWS):
            value = _value_at(distribution, int(rng.integers(n)))
            if value_key(value) not in closed:
                return value
        left = [value for value in all_values(distribution) if value_key(value) not in closed]
        return left[rng.integers(len(left))] if left else wanted

    def _find(self, path: Sequence[tuple[str, Any]]) -> _Node | None:
        node: _Node | None = self._root
        for name, value in path:
            if node is None or node.name != name:
                return None
            node = node.children.get(value_key(value))
        return node


def _open(node: _Node) -> float:
    if node.exhausted or node.ended and node.name is None:
        return 0
    if node.distribution is None or (n := _count(node.distribution)) == 0:
        return math.inf
    return n - len(node.children) + sum(_open(child) for child in node.children.values())


def all_values(distribution: BaseDistribution) -> Iterator[Any]:
    """The values of a distribution that has finitely many, in order."""
    for place in range(_count(distribution)):
        yield _value_at(distribution, place)


def _count(distribution: BaseDistribution) -> int:
    n = n_values(distribution)
    if n == 0 and isinstance(distribution, IntDistribution):  # on a logarithmic scale
        n = distribution.high - distribution.low + 1
    return n if n <= _MOST_LISTED else 0


def _value_at(distribution: BaseDistribution, place: int) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[place]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if isinstance(distribution, IntDistribution):
        return distribution.low + place * distribution.step
    if distribution.single():
        return distribution.low
    assert distribution.step is not None
    return on_grid(distribution, distribution.low + place * distribution.step)
