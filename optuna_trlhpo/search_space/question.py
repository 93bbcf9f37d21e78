"""Predictions of what an objective asks for next, each by a decision tree over the values so far.

One question is what follows the parameters of a template; another is which distribution these have.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from optuna_trlhpo.search_space.decision_tree import ABSENT, TreeNode, grow_tree, is_number
from optuna_trlhpo.trials.parameter_names import text_of
from optuna_trlhpo.trials.path import Path
from optuna_trlhpo.trials.values import value_key

_MOST_EXAMPLES = 300
"""Number of examples of each label from which a tree is grown."""
_SURE = 0.8
"""Smallest share of a leaf's examples that must agree for the leaf to give an answer."""
_MANY_LABELS, _WORTH_GROWING = 100, 0.02
"""With more labels than ``_MANY_LABELS`` there is hardly a rule, and trees are large. A tree is then grown
again only once it was wrong for a fraction ``_WORTH_GROWING`` of the examples."""
_FEW = 3
"""Number of different bounds from which a relation to another parameter is credible."""

Feature = tuple[Any, ...]
"""A feature that may decide: "value", "near", "left", "place" or "minus", and its arguments."""


class PathPosition(NamedTuple):
    """A position in a path: before its parameter number ``position`` was requested."""

    path: Path
    position: int
    places: tuple[int, ...]
    """Places of the last name; if a distribution is asked for, those of the name itself."""


def read(place: PathPosition, feature: Feature) -> Any:
    """Return the value of a feature at a position."""
    kind = feature[0]
    if kind == "place":
        return place.places[feature[1]]
    if kind == "minus":
        one, other = (read(place, ("value", template, ())) for template in feature[1:])
        return one - other if is_number(one) and is_number(other) else ABSENT
    template, path = feature[1], place.path
    if kind == "value":
        text = text_of(template, feature[2])
    else:
        m = template.count("\0")
        near = place.places[:m]
        if kind == "near":
            if m > len(place.places):
                return ABSENT
            near = (*near[:-1], near[-1] + feature[2])
        text = text_of(template, near)
    if path.positions.get(text, place.position) >= place.position:
        return ABSENT
    value = path.values[text]
    if kind == "left":
        return value - place.places[feature[2]] if is_number(value) else ABSENT
    return value


class Choices(tuple[Any, ...]):
    """Choices of any type, made comparable and hashable."""

    def __hash__(self) -> int:
        return hash(tuple(map(value_key, self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Choices) and [*map(value_key, self)] == [*map(value_key, other)]

    def __ne__(self, other: object) -> bool:
        return not self == other


class Question:
    """The prediction of one tree: what follows a template, or the distribution of one.

    The latest examples of each label are kept. While there is only one label, there is nothing to decide.
    """

    def __init__(self, features: Callable[[Sequence[PathPosition]], list[Feature]]) -> None:
        self._features = features
        self._relative: dict[Any, list[PathPosition]] = defaultdict(list)
        self._absolute: dict[Any, list[Any]] = defaultdict(list)  # absolute labels of the same examples
        self._latest: Any = None  # latest label
        self._tree: tuple[TreeNode, bool] | None = None  # the tree, and whether its labels are absolute
        self._n_misfits = 0  # examples since it was grown that the tree got wrong, or was unsure of
        self._relations: Mapping[str, Any] | None = None

    def add(self, place: PathPosition, relative: Any, absolute: Any) -> None:
        """Add an example, with its label relative to the position and its absolute label."""
        if self._tree is not None:
            leaf = self._decide(place)
            if leaf is None or leaf.label != (absolute if self._tree[1] else relative) or leaf.share < 1:
                self._n_misfits += 1
                n = sum(map(len, self._relative.values()))
                if len(self._relative) <= _MANY_LABELS or self._n_misfits > _WORTH_GROWING * n:
                    self._tree = None
        self._relations = None
        self._relative[relative].append(place)
        self._absolute[relative].append(absolute)
        if len(self._relative[relative]) > _MOST_EXAMPLES:
            del self._relative[relative][0], self._absolute[relative][0]
        self._latest = relative

    def settle(self) -> None:
        """Grow the tree, if it is to be grown anew."""
        if len(self._relative) > 1:
            self._root()

    def answer(self, place: PathPosition) -> Any:
        """Return the label at a position; None if it is unknown."""
        if len(self._relative) == 1:
            return next(iter(self._relative))
        leaf = self._decide(place)
        return leaf.label if leaf is not None and leaf.share >= _SURE else None

    def chance(self, place: PathPosition, agrees: Callable[[Any], bool]) -> float:
        """Return the probability that the label at a position is one for which ``agrees`` is true."""
        if len(self._relative) == 1:
            return float(agrees(next(iter(self._relative))))
        return self._root().chance(place, read, agrees)

    def chance_in_range(self, place: PathPosition, value: Any) -> float:
        """Return the probability that the distribution contains ``value``."""
        related = self._related(place) if len(self._relative) > 1 else None
        if related is not None:
            return float(_holds(range_label(related), value))
        return self.chance(place, lambda label: _holds(label, value))

    def asked(self) -> list[Feature]:
        """Return the features that the tree tests, from the root down."""
        if len(self._relative) == 1:
            return []
        found, nodes = [], [self._root()]
        while nodes:
            node = nodes.pop(0)
            if node.feature is not None:
                found.append(node.feature)
                nodes += [n for n in (node.low, node.high, *node.branches.values()) if n is not None]
        return found

    def _decide(self, place: PathPosition) -> TreeNode | None:
        return self._root().decide(place, read)

    def _root(self) -> TreeNode:
        if self._tree is None:
            self._tree, self._n_misfits = self._grow(), 0
        return self._tree[0]

    def _grow(self) -> tuple[TreeNode, bool]:
        places = [place for kept in self._relative.values() for place in kept]
        relative = [label for label, kept in self._relative.items() for _ in kept]
        features = self._features(places)
        tree = grow_tree(places, relative, features, read)
        if _is_pure(tree):
            return tree, False
        absolute = [label for relative in self._relative for label in self._absolute[relative]]
        if len(set(absolute)) < len(set(relative)):
            other = grow_tree(places, absolute, features, read)
            if _is_pure(other):
                return other, True
        return tree, False

    # Distributions ------------------------------------------------------------------------------------

    def answer_range(self, place: PathPosition) -> tuple[BaseDistribution, bool] | None:
        """Return the distribution at a position, and whether it is certain."""
        if len(self._relative) == 1:
            return _distribution_of(next(iter(self._relative))), True
        related = self._related(place)
        if related is not None:
            return related, True
        leaf = self._decide(place)
        if leaf is None:
            return _distribution_of(self._latest), False
        label: Any = leaf.label
        return _distribution_of(label), leaf.share >= _SURE

    def _related(self, place: PathPosition) -> BaseDistribution | None:
        """Return the distribution if its bounds are functions of other parameters; else None."""
        if self._relations is None:
            self._relations = self._find_relations()
        if not self._relations:
            return None
        label = dict(self._relations)
        kind, step, log = label.pop("fixed")
        bounds = {}
        for bound, (feature, how, constant, otherwise) in label.items():
            value = ABSENT if feature is None else read(place, feature)
            if value is ABSENT:
                if otherwise is None:
                    return None
                bounds[bound] = otherwise
                continue
            if not is_number(value):
                return None
            bounds[bound] = value + constant if how == "plus" else value * constant
        low, high = bounds["low"], bounds["high"]
        if not (math.isfinite(low) and math.isfinite(high) and low <= high) or log and low <= 0:
            return None
        if kind == "int":
            low, high = int(round(low)), int(round(high))
            if log and low < 1:
                return None
            return IntDistribution(low, low + (high - low) // step * step, log=log, step=step)
        if step is not None:
            high = _end_of_grid(low, high, step)
        return FloatDistribution(float(low), float(high), log=log, step=step)

    def _find_relations(self) -> Mapping[str, Any]:
        labels = list(self._relative)
        if (
            any(label[0] == "categorical" for label in labels)
            or len({(kind, step, log) for kind, _, _, step, log in labels}) > 1
        ):
            return {}
        kind, _, _, step, log = labels[0]
        places = [place for kept in self._relative.values() for place in kept[-20:]]
        features = [f for f in self._features(places) if f[0] in ("value", "near")]
        found: dict[str, Any] = {"fixed": (kind, step, log)}
        for bound, column in (("low", 1), ("high", 2)):
            values = [label[column] for label, kept in self._relative.items() for _ in kept[-20:]]
            if bound == "high" and step and max(values) - min(values) < step:
                values = [max(values)] * len(values)  # Optuna rounds it to the grid that starts at "low"
            if len(set(values)) == 1:
                found[bound] = None, "", 0, values[0]
                continue
            if len(set(values)) < _FEW:
                return {}
            relation = _relation(places, values, features)
            if relation is None:
                return {}
            found[bound] = relation
        return found


def _relation(places: Sequence[PathPosition], values: Sequence[float], features: Sequence[Any]) -> Any:
    """Return a parameter that equals the bound up to one constant, and the bound where it is absent."""
    for feature in features:
        theirs = [read(place, feature) for place in places]
        otherwise = {value for value, other in zip(values, theirs, strict=True) if other is ABSENT}
        pairs = [(value, other) for value, other in zip(values, theirs, strict=True) if other is not ABSENT]
        if (
            len(otherwise) > 1
            or not all(is_number(other) for _, other in pairs)
            or len({other for _, other in pairs}) < _FEW
        ):
            continue
        rest = otherwise.pop() if otherwise else None
        differences = [value - other for value, other in pairs]
        if max(differences) - min(differences) <= 1e-9 * (1 + abs(differences[0])):
            constant = differences[0] if isinstance(differences[0], int) else round(differences[0], 12)
            return feature, "plus", constant, rest
        if all(other for _, other in pairs):
            ratios = [value / other for value, other in pairs]
            if max(ratios) - min(ratios) <= 1e-9 * abs(ratios[0]):
                return feature, "times", float(f"{ratios[0]:.12g}"), rest
    return None


def _end_of_grid(low: float, high: float, step: float) -> float:
    """Return the last value of a grid, computed in decimal numbers as Optuna does."""
    first, by = Decimal(str(low)), Decimal(str(step))
    return float(first + (Decimal(str(high)) - first) // by * by)


def _is_pure(node: TreeNode) -> bool:
    if node.feature is None:
        return node.share == 1
    children = [child for child in (node.low, node.high, *node.branches.values()) if child is not None]
    return all(map(_is_pure, children))


def range_label(distribution: BaseDistribution) -> tuple[Any, ...]:
    """Return a distribution as a hashable label."""
    if isinstance(distribution, CategoricalDistribution):
        return "categorical", Choices(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    kind = "int" if isinstance(distribution, IntDistribution) else "float"
    return kind, distribution.low, distribution.high, distribution.step, distribution.log


def _holds(label: Any, value: Any) -> bool:
    """Return whether the distribution with this label contains a value."""
    if label[0] == "categorical":
        return value_key(value) in map(value_key, label[1])
    return is_number(value) and label[1] <= value <= label[2]


def _distribution_of(label: tuple[Any, ...]) -> BaseDistribution:
    if label[0] == "categorical":
        return CategoricalDistribution(tuple(label[1]))
    kind, low, high, step, log = label
    if kind == "int":
        return IntDistribution(low, high, log=log, step=step)
    return FloatDistribution(low, high, log=log, step=step)
