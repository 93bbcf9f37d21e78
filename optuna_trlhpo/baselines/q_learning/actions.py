"""Actions: the values of a parameter as the columns of a Q-table.

Each choice of a category is an action. So is each value of a number that has at most ``n_bins`` values. The
range of any other number is divided into ``n_bins`` bins of equal width, on a logarithmic scale where its
distribution is logarithmic, and a bin is an action: its value is drawn uniformly from the bin. The values of
a `LayerSpace` have the bins of their full range, whatever is left of it at a position.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from optuna_trlhpo.baselines._values import all_values, n_values
from optuna_trlhpo.layers import hyperparameter_of
from optuna_trlhpo.layers.bins import bin_of
from optuna_trlhpo.trials.parameters import decode, encode

_COUNTABLE = 1000
"""The values of a number with more of them are not listed."""


def action_of(name: str, distribution: BaseDistribution, value: Any, n_bins: int) -> int:
    """Return the action that is the value of a parameter.

    Examples:
        >>> from optuna.distributions import FloatDistribution, IntDistribution
        >>> action_of("rate", FloatDistribution(0, 1), 0.6, n_bins=4)
        2
        >>> action_of("n", IntDistribution(1, 3), 3, n_bins=4)
        2
    """
    n = _n_actions(name, distribution, n_bins)
    if isinstance(distribution, IntDistribution) and distribution.log and n == n_values(distribution):
        return min(max(value - distribution.low, 0), n - 1)  # on the scale, two might share a bin
    return bin_of(encode(name, distribution, value), n)


def actions_of(name: str, distribution: BaseDistribution, n_bins: int) -> tuple[int, ...]:
    """Return the actions that have a value in the distribution, in ascending order."""
    try:
        return _cached_actions(name, distribution, n_bins)
    except TypeError:  # choices of any kind, which Optuna allows in memory, have no hash
        return _cached_actions.__wrapped__(name, distribution, n_bins)


def value_of(
    name: str, distribution: BaseDistribution, action: int, n_bins: int, rng: np.random.Generator
) -> Any:
    """Draw a value of an action, which must be one of `actions_of`."""
    if n_values(distribution) <= _COUNTABLE:
        values = [
            value
            for value in all_values(distribution)
            if action_of(name, distribution, value, n_bins) == action
        ]
        return values[rng.integers(len(values))] if len(values) > 1 else values[0]
    n = _n_actions(name, distribution, n_bins)
    return decode(name, distribution, (action + rng.random()) / n)


@functools.lru_cache(maxsize=4096)
def _cached_actions(name: str, distribution: BaseDistribution, n_bins: int) -> tuple[int, ...]:
    if n_values(distribution) <= _COUNTABLE:
        values = all_values(distribution)
        return tuple(sorted({action_of(name, distribution, value, n_bins) for value in values}))
    return tuple(range(_n_actions(name, distribution, n_bins)))


def _n_actions(name: str, distribution: BaseDistribution, n_bins: int) -> int:
    """Return the number of actions on the full scale of a parameter."""
    hyperparameter = hyperparameter_of(name, distribution)
    if hyperparameter is not None:
        n = len(hyperparameter.values)
        return n if hyperparameter.labels else min(n, n_bins)
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    return int(min(n_values(distribution), n_bins))
