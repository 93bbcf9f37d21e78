"""Names, ranges and values of parameters, whatever objective asks for them.

A *template* is a name with a mark (NUL) instead of its numbers: ``n_units_l0`` and ``n_units_l1`` have one
template, and the places 0 and 1. Only the numbers 0 to 999,999 without leading zeros count as places. Any
other run of digits is part of the name, so that no two names are ever taken for one.

An *axis* is the scale on which all values of one parameter are compared. Optuna lets a range change from
trial to trial, so an action in [0, 1] means nothing without the axis it belongs to.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

MOST_COUNTED = 10**12
"""A range of more values is treated as a continuous one."""
_MOST_PLACES = 4
"""Numbers of a name that count as places, at most; those before them are part of the name."""
_PLACE = re.compile(r"(?<!\d)(?:0|[1-9]\d{0,5})(?!\d)")
_BEYOND = 2.0
"""How far outside [0, 1] a value of an earlier range may lie."""


class Name(NamedTuple):
    """A name, taken apart."""

    template: str
    places: tuple[int, ...]

    @property
    def text(self) -> str:
        """The name itself.

        Example:
            >>> parse_name("filters_1_2")._replace(places=(1, 3)).text
            'filters_1_3'
        """
        return text_of(self.template, self.places)


@functools.lru_cache(maxsize=65536)
def text_of(template: str, places: tuple[int, ...]) -> str:
    """The name with this template and these places."""
    parts = template.split("\0")
    if len(parts) != len(places) + 1:  # a name with a NUL of its own
        return template
    return "".join(part + str(place) for part, place in zip(parts, (*places, ""), strict=True))


@functools.lru_cache(maxsize=65536)
def parse_name(name: str) -> Name:
    """The template and the places of a name.

    Example:
        >>> parse_name("n_units_l12").places, parse_name("x01").places, parse_name("x1").places
        ((12,), (), (1,))
    """
    found = list(_PLACE.finditer(name))[-_MOST_PLACES:]
    if len(found) > 1:  # several small numbers are one index, see `episode.slot_of`
        found = [match for match in found if len(match[0]) <= 3]
    template, start = "", 0
    for match in found:
        template += name[start : match.start()] + "\0"
        start = match.end()
    return Name(template + name[start:], tuple(int(match[0]) for match in found))


def n_values(distribution: BaseDistribution) -> int:
    """How many values a distribution has; 0 where they are continuous or too many to count.

    Example:
        >>> n_values(IntDistribution(1, 9, step=2)), n_values(FloatDistribution(0, 1))
        (5, 0)
    """
    if isinstance(distribution, CategoricalDistribution):
        return len(distinct_choices(distribution))
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if distribution.single():
        return 1
    if distribution.step is None:
        return 0
    n = round((distribution.high - distribution.low) / distribution.step) + 1
    return n if n <= MOST_COUNTED else 0


def distinct_choices(distribution: CategoricalDistribution) -> list[Any]:
    """The choices that Optuna can tell apart: of equal ones a trial always gets the first.

    Example:
        >>> distinct_choices(CategoricalDistribution([1, True, "1", 1.0, 0]))
        [1, '1', 0]
    """
    found: dict[Any, Any] = {}
    for choice in distribution.choices:
        found.setdefault(value_key(choice), choice)
    return list(found.values())


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Whether ``value`` is one of a distribution's, on its grid.

    Example:
        >>> contains(IntDistribution(0, 8, step=4), 4), contains(IntDistribution(0, 8, step=4), 12)
        (True, False)
    """
    if isinstance(distribution, CategoricalDistribution):
        return value_key(value) in map(value_key, distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if not distribution.low <= value <= distribution.high:
        return False
    return distribution.step is None or on_grid(distribution, value) == value


def on_grid(distribution: IntDistribution | FloatDistribution, value: float) -> int | float:
    """The value of ``distribution`` nearest to ``value``.

    Example:
        >>> on_grid(IntDistribution(0, 15_000_000, step=3), 1000.4)
        999
    """
    low, high, step = distribution.low, distribution.high, distribution.step
    value = min(max(value, low), high)
    if isinstance(distribution, IntDistribution):
        return min(low + round((value - low) / distribution.step) * distribution.step, distribution.high)
    if step is None:
        return float(value)
    k = min(round((value - low) / step), math.floor((high - low) / step + 1e-8))
    return float(min(low + k * step, high))


def fixed_value(fixed: Mapping[str, Any], name: str, distribution: BaseDistribution) -> list[Any]:
    """The value that a parameter will have, whatever is suggested; none where it is not fixed, or cannot have
    the value.

    Example:
        >>> fixed_value({"n": 2.0}, "n", IntDistribution(1, 4)), fixed_value({}, "n", IntDistribution(1, 4))
        ([2], [])
    """
    if name not in fixed:
        return []
    try:
        return [distribution.to_external_repr(distribution.to_internal_repr(fixed[name]))]
    except (TypeError, ValueError, OverflowError):
        return []


class Axis:
    """The scale of one parameter: actions in [0, 1] over all that it may be.

    Attributes:
        categorical: Whether its values have no order.
        n_values: How many values there are; 0 where they are continuous.
    """

    categorical: bool
    n_values: int

    def actions(self, raw: np.ndarray) -> np.ndarray:
        """Actions of raw values; those of an earlier, wider range lie outside [0, 1]."""
        raise NotImplementedError

    def raw(self, value: Any) -> float:
        """The number that a value is kept as."""
        raise NotImplementedError

    def value(self, action: float, distribution: BaseDistribution) -> Any:
        """The value of ``distribution`` nearest to ``action``."""
        raise NotImplementedError

    def knows(self, value: Any) -> bool:
        """Whether a value has a place on the axis."""
        return True

    def settle(self, actions: np.ndarray) -> np.ndarray:
        """Actions in the middle of the values that they stand for."""
        raise NotImplementedError


class NumberAxis(Axis):
    """The axis of a number, from ``low`` to ``high``.

    Example:
        >>> axis = NumberAxis([IntDistribution(1, 4)])
        >>> axis.actions(np.array([1.0, 4.0])).tolist(), axis.value(0.9, IntDistribution(1, 2))
        ([0.125, 0.875], 2)
    """

    categorical = False

    def __init__(self, distributions: Sequence[BaseDistribution]) -> None:
        ranges = [d for d in distributions if isinstance(d, IntDistribution | FloatDistribution)]
        self.low, self.high = min(d.low for d in ranges), max(d.high for d in ranges)
        self.log = all(d.log for d in ranges) and self.low > 0
        steps = {d.step for d in ranges}
        self._is_integer = all(isinstance(d, IntDistribution) for d in ranges)
        self._step = steps.pop() if len(steps) == 1 and not self.log else None
        self.n_values = 0
        if self._step is not None:
            n = round((self.high - self.low) / self._step) + 1
            self.n_values = n if n <= MOST_COUNTED else 0
        margin = 0.5 if self.log and self._is_integer else 0.0  # each integer gets a stretch of its own
        low, high = self.low - margin, self.high + margin
        self._least = low
        self._low, self._high = (math.log(low), math.log(high)) if self.log else (float(low), float(high))

    def actions(self, raw: np.ndarray) -> np.ndarray:
        if self.n_values:
            assert self._step is not None
            actions = (np.rint((raw - self.low) / self._step) + 0.5) / self.n_values
        else:
            span = self._high - self._low
            if span <= 0:
                return np.full_like(raw, 0.5)
            moved = np.log(np.maximum(raw, 1e-3 * self._least)) if self.log else raw
            half = self._high / 2 - self._low / 2  # the whole span may be infinite
            actions = (moved / 2 - self._low / 2) / half
        return np.clip(actions, -_BEYOND, 1 + _BEYOND)

    def raw(self, value: Any) -> float:
        return float(value)

    def value(self, action: float, distribution: BaseDistribution) -> Any:
        assert isinstance(distribution, IntDistribution | FloatDistribution)
        if self.n_values:
            assert self._step is not None
            value = self.low + math.floor(action * self.n_values) * self._step
        elif self.log:
            value = math.exp(self._low + action * (self._high - self._low))
        else:
            value = self._low * (1 - action) + action * self._high
        return on_grid(distribution, value)

    def settle(self, actions: np.ndarray) -> np.ndarray:
        if self.n_values:
            bins = np.clip(np.floor(actions * self.n_values), 0, self.n_values - 1)
            return (bins + 0.5) / self.n_values
        if self.log and self._is_integer:
            raw = np.exp(self._low + actions * (self._high - self._low))
            return self.actions(np.clip(np.rint(raw), self.low, self.high))
        return actions if self._low < self._high else np.full_like(actions, 0.5)


class LabelAxis(Axis):
    """The axis of a category; labels that come later are appended.

    Example:
        >>> axis = LabelAxis()
        >>> axis.learn(CategoricalDistribution(("fc", "pool")))
        True
        >>> axis.value(0.9, CategoricalDistribution(("fc", "pool")))
        'pool'
    """

    categorical = True

    def __init__(self) -> None:
        self._labels: list[Any] = []
        self._numbers: dict[Any, int] = {}

    @property
    def n_values(self) -> int:  # type: ignore[override]
        return len(self._labels)

    def learn(self, distribution: CategoricalDistribution) -> bool:
        """Append labels that are new; returns whether there were any."""
        new = [label for label in distinct_choices(distribution) if value_key(label) not in self._numbers]
        for label in new:
            self._numbers[value_key(label)] = len(self._labels)
            self._labels.append(label)
        return bool(new)

    def actions(self, raw: np.ndarray) -> np.ndarray:
        return (raw + 0.5) / len(self._labels)

    def knows(self, value: Any) -> bool:
        return value_key(value) in self._numbers

    def raw(self, value: Any) -> float:
        return float(self._numbers[value_key(value)])

    def value(self, action: float, distribution: BaseDistribution) -> Any:
        assert isinstance(distribution, CategoricalDistribution)
        label = self._labels[min(max(int(action * len(self._labels)), 0), len(self._labels) - 1)]
        key = value_key(label)
        for choice in distribution.choices:
            if value_key(choice) == key:
                return choice
        # Not on offer: the same place among those that are.
        n = len(distribution.choices)
        return distribution.choices[min(max(int(action * n), 0), n - 1)]

    def settle(self, actions: np.ndarray) -> np.ndarray:
        n = len(self._labels)
        return (np.clip(np.floor(actions * n), 0, n - 1) + 0.5) / n


def value_key(value: Any) -> Any:
    """A value as a key, by which two are equal if Optuna takes them for the same choice.

    True, 1 and 1.0 are one, for a trial gets the first of them. NaN is equal to itself. A list is equal
    to the tuple of its members, as which it may have been given before a storage kept it as JSON.

    Example:
        >>> value_key(1) == value_key(True), value_key(math.nan) == value_key(math.nan)
        (True, True)
        >>> value_key([1, [2]]) == value_key((1, (2,))), value_key("1") == value_key(1)
        (True, False)
    """
    if type(value) is int or type(value) is str:
        return value
    if isinstance(value, list | tuple):
        return "list", tuple(map(value_key, value))
    if isinstance(value, dict):
        return "dict", tuple(sorted((str(name), repr(value_key(of))) for name, of in value.items()))
    try:
        hash(value)
        return value if value == value else ("NaN",)
    except (TypeError, ValueError):
        return type(value).__name__, repr(value)


def family_of(name: str, distribution: CategoricalDistribution) -> str:
    """The template of a categorical name without the labels that are written into it.

    Optuna forbids one name to have two sets of choices. So objectives that mask choices write what is left
    into the name, ``op_conv_fc_0`` and ``op_fc_0``: one question with different masks.

    Example:
        >>> family_of("op_conv_fc_0", CategoricalDistribution(("conv", "fc"))).replace("\\0", "#")
        'op_#'
    """
    template = parse_name(name).template
    labels = {str(choice).lower() for choice in distribution.choices if isinstance(choice, str) and choice}
    tokens = re.split(r"([_\-.,:/ ]+)", template)
    kept = [token for token in tokens if token.lower() not in labels]
    if not labels or len(kept) == len(tokens) or len(tokens) - len(kept) < min(len(labels), 1):
        return template
    if not labels <= {token.lower() for token in tokens}:  # only a part of the labels: a word of the name
        return template
    return re.sub(r"([_\-.,:/ ])[_\-.,:/ ]+", r"\1", "".join(kept))
