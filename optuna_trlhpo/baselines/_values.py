"""Values of single parameters: their validity, random values, neighbours and mutations.

The neighbours of a categorical value are all other choices. The neighbours of a number on a grid of at most
five values are the others. Those of any other number are drawn from a normal distribution around it, with a
standard deviation of 0.2 where its range is [0, 1] (on a logarithmic scale if its distribution is
logarithmic), as in Hutter, Hoos, Leyton-Brown, "Sequential Model-Based Optimization for General Algorithm
Configuration", LION 2011.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from optuna_trlhpo.trials.parameters import decode, encode

_SMALL_GRID = 5
_NEIGHBOUR_SD = 0.2
_DRAWS = 20


def n_values(distribution: BaseDistribution) -> float:
    """Number of values of a distribution; infinity if it is continuous."""
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if distribution.step is None:
        return 1 if distribution.single() else math.inf
    return round((distribution.high - distribution.low) / distribution.step) + 1


def all_values(distribution: BaseDistribution) -> Iterator[Any]:
    """Values of a distribution that has finitely many, in order."""
    if isinstance(distribution, CategoricalDistribution):
        yield from distribution.choices
    elif isinstance(distribution, IntDistribution):
        yield from range(distribution.low, distribution.high + 1, distribution.step)
    else:
        assert isinstance(distribution, FloatDistribution)
        for i in range(int(n_values(distribution))):
            yield min(distribution.low + i * (distribution.step or 0.0), distribution.high)


def is_valid(distribution: BaseDistribution, value: Any) -> bool:
    """Return whether ``value`` may be suggested from ``distribution`` without conversion."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if isinstance(distribution, IntDistribution) and not isinstance(value, int):
        return False
    return bool(distribution._contains(value))


def random_value(distribution: BaseDistribution, rng: np.random.Generator) -> Any:
    """Draw a value uniformly, on a logarithmic scale where the distribution is logarithmic."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[rng.integers(len(distribution.choices))]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if not distribution.log and distribution.step is not None:
        i = int(rng.integers(int(n_values(distribution))))
        return min(distribution.low + i * distribution.step, distribution.high)
    margin = 0.5 if isinstance(distribution, IntDistribution) else 0.0
    low, high = distribution.low - margin, distribution.high + margin
    if distribution.log:
        value = math.exp(rng.uniform(math.log(low), math.log(high)))
    else:
        value = float(rng.uniform(low, high))
    value = min(max(value, distribution.low), distribution.high)
    return round(value) if isinstance(distribution, IntDistribution) else value


def neighbours(
    name: str, distribution: BaseDistribution, value: Any, rng: np.random.Generator, *, n: int
) -> list[Any]:
    """Distinct neighbours of ``value``; at most ``n`` random ones for a number on no small grid."""
    if isinstance(distribution, CategoricalDistribution) or n_values(distribution) <= _SMALL_GRID:
        return [other for other in all_values(distribution) if other != value]
    found: list[Any] = []
    centre = encode(name, distribution, value)
    for _ in range(_DRAWS):
        if len(found) == n:
            break
        action = min(max(centre + _NEIGHBOUR_SD * rng.standard_normal(), 0.0), 1.0)
        other = decode(name, distribution, action)
        if other != value and other not in found:
            found.append(other)
    return found


def mutated(name: str, distribution: BaseDistribution, value: Any, rng: np.random.Generator) -> Any:
    """Draw another value: any other for a category, a neighbour or (half the time) any other for a number.

    The same value is returned only if there is no other.
    """
    if not isinstance(distribution, CategoricalDistribution) and rng.random() < 0.5:
        near = neighbours(name, distribution, value, rng, n=1)
        if near:
            return near[rng.integers(len(near))]
    for _ in range(_DRAWS):
        other = random_value(distribution, rng)
        if other != value:
            return other
    return value
