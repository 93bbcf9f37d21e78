"""Values of parameters, and their distributions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

MOST_COUNTED = 10**12
"""A range with more values is treated as continuous."""


def n_values(distribution: BaseDistribution) -> int:
    """Return how many values a distribution has; 0 if they are continuous or too many to count.

    Examples:
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
    """Return the choices that Optuna distinguishes: of equal ones a trial always gets the first.

    Examples:
        >>> distinct_choices(CategoricalDistribution([1, True, "1", 1.0, 0]))
        [1, '1', 0]
    """
    found: dict[Any, Any] = {}
    for choice in distribution.choices:
        found.setdefault(value_key(choice), choice)
    return list(found.values())


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Return whether ``value`` is in a distribution, on its grid.

    Examples:
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
    """Return the value of ``distribution`` nearest to ``value``.

    Examples:
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
    """Return the fixed value of a parameter as a list of one, which it has whatever is suggested.

    The list is empty if the parameter is not fixed or cannot have the value.

    Examples:
        >>> fixed_value({"n": 2.0}, "n", IntDistribution(1, 4)), fixed_value({}, "n", IntDistribution(1, 4))
        ([2], [])
    """
    if name not in fixed:
        return []
    try:
        return [distribution.to_external_repr(distribution.to_internal_repr(fixed[name]))]
    except (TypeError, ValueError, OverflowError):
        return []


def value_key(value: Any) -> Any:
    """Return a key that is equal for values which Optuna treats as the same choice.

    True, 1 and 1.0 have the same key, since a trial gets the first of them. NaN equals itself. A list equals
    the tuple of its members, because storages keep tuples as JSON lists.

    Examples:
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


def still_holds(distribution: BaseDistribution, value: Any) -> bool:
    """Return whether a planned value is valid although the distribution has changed."""
    if isinstance(distribution, CategoricalDistribution):
        return any(value_key(choice) == value_key(value) for choice in distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # Bounds that follow from other values may differ from the expected ones by rounding.
    return abs(on_grid(distribution, value) - value) <= 1e-9 * (1 + abs(value))
