"""The configurations that a study has tried, as a tree of values, so that none is suggested twice.

A node represents the parameters so far. It is *exhausted* if everything below it has been tried: a trial
ended there, or each value of its parameter leads to an exhausted node. The node of a continuous parameter is
never exhausted, and has no children unless the parameter was fixed.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from optuna_trlhpo.trials.values import contains, distinct_choices, fixed_value, n_values, on_grid, value_key

_MOST_LISTED = 100_000
"""A parameter with more values counts as continuous here, since no study tries them all."""
_DRAWS = 50
_ENDED_AGAIN = 2
"""Number of trials ending where others went on, after which no further parameter is expected."""

Step = tuple[str, BaseDistribution, Any]
"""Name, distribution and value of one parameter."""
Fixed = Mapping[str, Any]
"""Fixed values by parameter name, which the parameters have whatever is suggested."""
_NOTHING: Fixed = {}


class _Node:
    __slots__ = ("name", "distribution", "asked", "ended", "exhausted")

    def __init__(self) -> None:
        self.name: str | None = None  # name of the parameter requested here last
        self.distribution: BaseDistribution | None = None
        self.asked: dict[str, dict[Any, tuple[Any, _Node]]] = {}  # by name and value key: value and child
        self.ended = 0  # number of trials that ended here since one went on
        self.exhausted = False

    @property
    def children(self) -> dict[Any, tuple[Any, _Node]]:
        """The values tried for the parameter requested here, with their child nodes, by value key."""
        return {} if self.name is None else self.asked.setdefault(self.name, {})

    def ask(self, name: str, distribution: BaseDistribution) -> None:
        self.name, self.distribution, self.ended = name, distribution, 0

    def settle(self) -> bool:
        """Update whether the node is exhausted, and return whether this has changed."""
        before = self.exhausted
        if self.distribution is None:
            self.exhausted = self.ended > 0
        elif self.ended >= _ENDED_AGAIN:
            self.exhausted = True
        else:  # another trial may go on, as an earlier one did, even if one ended here
            n = _count(self.distribution)
            children = self.children
            self.exhausted = 0 < n <= len(children) and n <= sum(
                node.exhausted and contains(self.distribution, value) for value, node in children.values()
            )
        return self.exhausted != before


class Explored:
    """The configurations of finished trials, and the planned ones of running trials.

    Examples:
        >>> explored, bit = Explored(), IntDistribution(0, 1)
        >>> explored.add([("a", bit, 0)])
        >>> explored.is_exhausted([], "a", bit, 0), explored.is_exhausted([], "a", bit, 1)
        (True, False)
        >>> explored.add([("a", bit, 1)])
        >>> explored.all_tried()
        True
    """

    def __init__(self) -> None:
        self._root = _Node()

    def all_tried(self, fixed: Fixed = _NOTHING) -> bool:
        """Return whether nothing is left to try in a trial with the values ``fixed``."""
        return _is_done(self._root, fixed)

    def add(self, path: Sequence[Step], fixed: Collection[str] = ()) -> None:
        """Add a trial that had these parameters, in this order, and asked for no more.

        Args:
            path: The parameters.
            fixed: Names of parameters whose values the trial could not choose.
        """
        nodes = [self._root]
        for name, distribution, value in path:
            node = nodes[-1]
            node.ask(name, distribution)
            if _count(distribution) == 0 and name not in fixed:
                break
            nodes.append(node.children.setdefault(value_key(value), (value, _Node()))[1])
        else:
            nodes[-1].ended += 1
        for node in reversed(nodes):
            node.settle()

    def meet(self, path: Sequence[tuple[str, Any]], name: str, distribution: BaseDistribution) -> None:
        """Register that a running trial with ``path``, names and values, asks for a parameter.

        If the tree expected something else, it is corrected: the code may have changed, and may ask for
        another parameter, other values, or more parameters.
        """
        nodes = self._nodes(path)
        if nodes is None:
            return
        if self._root.exhausted and len(nodes) > 1 and nodes[-1].distribution is None:
            self._reopen(nodes[-2].name)
        node = nodes[-1]
        if node.name == name and (node.distribution is distribution or node.distribution == distribution):
            node.ended = 0
        else:
            node.ask(name, distribution)
        for node in reversed(nodes):
            if not node.settle():
                break

    def _reopen(self, last: str | None) -> None:
        """Register that trials which ended behind the parameter ``last`` would now go on."""
        nodes = [self._root]
        for node in nodes:
            for _, child in node.children.values():
                if node.name == last and child.distribution is None:
                    child.ended = 0
                nodes.append(child)
        for node in reversed(nodes):
            node.settle()

    def is_exhausted(
        self, path: Sequence[tuple[str, Any]], name: str, distribution: BaseDistribution, value: Any
    ) -> bool:
        """Return whether every configuration that starts with ``path`` and this value has been tried."""
        node = self._find(path)
        if node is None or node.name != name:
            return False
        child = node.children.get(value_key(value))
        return child is not None and child[1].exhausted

    def least_open(self, path: Sequence[tuple[str, Any]], fixed: Fixed = _NOTHING) -> float:
        """Return a lower bound of the number of untried configurations that start with ``path``.

        It is infinite if the number is unknown.

        Args:
            path: Names and values of the parameters so far.
            fixed: Fixed values of further parameters, by name.

        Examples:
            >>> explored, bit = Explored(), IntDistribution(0, 1)
            >>> explored.add([("a", bit, 0), ("b", bit, 1)])
            >>> explored.least_open([("a", 0)]), explored.least_open([("a", 1)]), explored.least_open([])
            (1, inf, 2)
        """
        node = self._find(path)
        return math.inf if node is None else _open(node, fixed)

    def open_value(
        self,
        path: Sequence[tuple[str, Any]],
        name: str,
        distribution: BaseDistribution,
        wanted: Any,
        rng: np.random.Generator,
        taken: Collection[Any] = (),
        fixed: Fixed = _NOTHING,
    ) -> Any:
        """Return ``wanted`` if something below it is untried; otherwise a random value for which this holds.

        If nothing is left, return ``wanted`` as well.

        Args:
            path: Names and values of the parameters so far.
            name: Name of the parameter.
            distribution: Distribution of the parameter.
            wanted: Preferred value of the parameter.
            rng: Random generator.
            taken: Values that other running trials are trying, with nothing left below them.
            fixed: Fixed values of further parameters, by name.
        """
        node = self._find(path)
        closed = {value_key(value) for value in taken}
        if node is not None and node.name == name:
            closed.update(key for key, (_, child) in node.children.items() if _is_done(child, fixed))
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
        nodes = self._nodes(path)
        return None if nodes is None else nodes[-1]

    def _nodes(self, path: Sequence[tuple[str, Any]]) -> list[_Node] | None:
        """Return the nodes from the root to the end of ``path``; None if no trial has been there."""
        nodes = [self._root]
        for name, value in path:
            found = nodes[-1].asked.get(name, {}).get(value_key(value))
            if found is None or nodes[-1].name != name:
                return None
            nodes.append(found[1])
        return nodes

    def __getstate__(self) -> list[Any]:
        # Nodes are stored as a flat list: pickle cannot recurse through a tree of a hundred levels.
        nodes, rows = [self._root], []
        for node in nodes:
            asked = []
            for name, children in node.asked.items():
                for value, child in children.values():
                    asked.append((name, value, len(nodes)))
                    nodes.append(child)
            rows.append((node.name, node.distribution, node.ended, node.exhausted, asked))
        return rows

    def __setstate__(self, state: list[Any]) -> None:
        nodes = [_Node() for _ in state]
        for node, (name, distribution, ended, exhausted, asked) in zip(nodes, state, strict=True):
            node.name, node.distribution, node.ended, node.exhausted = name, distribution, ended, exhausted
            for of, value, place in asked:
                node.asked.setdefault(of, {})[value_key(value)] = value, nodes[place]
        self._root = nodes[0]


def _open(node: _Node, fixed: Fixed, most: float = math.inf) -> float:
    """Return a lower bound of the number of untried configurations below a node.

    Counting stops at ``most``.
    """
    found: float = 0
    nodes = [node]
    while nodes and found < most:
        node = nodes.pop()
        if node.exhausted:
            continue
        if node.name is None or node.distribution is None:
            return math.inf
        if known := fixed_value(fixed, node.name, node.distribution):
            child = node.children.get(value_key(known[0]))
            if child is None:
                found += 1
            else:
                nodes.append(child[1])
            continue
        n = _count(node.distribution)
        if n == 0:
            return math.inf
        there = [child for value, child in node.children.values() if contains(node.distribution, value)]
        found += n - len(there)
        nodes += there
    return found


def _is_done(node: _Node, fixed: Fixed) -> bool:
    return node.exhausted or bool(fixed) and _open(node, fixed, most=1) == 0


def all_values(distribution: BaseDistribution) -> Iterator[Any]:
    """Yield the values of a distribution that has finitely many, in order."""
    if isinstance(distribution, CategoricalDistribution):
        yield from distinct_choices(distribution)
        return
    for place in range(_count(distribution)):
        yield _value_at(distribution, place)


def _count(distribution: BaseDistribution) -> int:
    n = n_values(distribution)
    if n == 0 and isinstance(distribution, IntDistribution):  # it has a logarithmic scale
        n = distribution.high - distribution.low + 1
    return n if n <= _MOST_LISTED else 0


def _value_at(distribution: BaseDistribution, place: int) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distinct_choices(distribution)[place]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if isinstance(distribution, IntDistribution):
        return distribution.low + place * distribution.step
    if distribution.single():
        return distribution.low
    assert distribution.step is not None
    return on_grid(distribution, distribution.low + place * distribution.step)
