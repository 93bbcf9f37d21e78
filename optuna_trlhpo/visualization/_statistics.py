"""Confidence intervals and permutation tests.

Notation: n observations. Only observations of the same *stratum* are comparable, so permutations exchange
observations only within strata.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

_PERMUTATIONS = 999
_Z = 1.959964
"""Normal quantile of a 95 % interval."""


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a proportion (Wilson, 1927) after ``successes`` of ``n``.

    Examples:
        >>> low, high = wilson(8, 10)
        >>> round(low, 3), round(high, 3)
        (0.49, 0.943)
    """
    if n == 0:
        return 0.0, 1.0
    share, z2 = successes / n, _Z**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n**2))
    return max(centre - half, 0.0), min(centre + half, 1.0)


class Tested(NamedTuple):
    """Result of a permutation test.

    Attributes:
        statistic: Observed statistic. NaN if it is undefined.
        expected: Mean of the statistic over permutations within the strata.
        p: Two-sided p-value: the fraction of permutations at least as far from ``expected``. NaN if no
            permutation is possible.
        n: Number of observations.
    """

    statistic: float
    expected: float
    p: float
    n: int


def spearman_within(x: np.ndarray, y: np.ndarray, strata: Sequence[Hashable]) -> Tested:
    """Test Spearman's rank correlation of ``x`` and ``y`` ``[n]`` within strata.

    Ranks are computed and centred within each stratum, so that differences between strata have no effect.
    """
    groups = _groups(strata)
    groups = [group for group in groups if len(group) > 1]
    a, b = np.zeros(len(x)), np.zeros(len(x))
    for group in groups:
        a[group], b[group] = _centred_ranks(x[group]), _centred_ranks(y[group])
    size = math.sqrt(float(a @ a) * float(b @ b))
    n = sum(map(len, groups))
    if size == 0:
        return Tested(math.nan, 0.0, math.nan, n)
    shuffled = _shuffled(b, groups) @ a / size
    return _tested(float(a @ b) / size, shuffled, n)


def difference_within(values: np.ndarray, chosen: np.ndarray, strata: Sequence[Hashable]) -> Tested:
    """Test the difference of the means of ``values`` ``[n]`` with and without ``chosen`` ``[n]``.

    The permutations exchange ``chosen`` within strata.
    """
    n = len(values)
    if not chosen.any() or chosen.all():
        return Tested(math.nan, math.nan, math.nan, n)
    weights = np.where(chosen, 1 / chosen.sum(), -1 / (~chosen).sum())
    groups = [group for group in _groups(strata) if 0 < chosen[group].sum() < len(group)]
    statistic = float(weights @ values)
    if not groups:
        return Tested(statistic, statistic, math.nan, n)
    return _tested(statistic, _shuffled(weights, groups) @ values, n)


def _groups(strata: Sequence[Hashable]) -> list[np.ndarray]:
    members: dict[Hashable, list[int]] = {}
    for i, stratum in enumerate(strata):
        members.setdefault(stratum, []).append(i)
    return [np.array(group) for group in members.values()]


def _centred_ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks from -0.5 to 0.5, where ties count half."""
    ordered = np.sort(values)
    below = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return below / (2 * len(values)) - 0.5


def _shuffled(values: np.ndarray, groups: Sequence[np.ndarray]) -> np.ndarray:
    """Return permutations of the values within each group, ``[permutations, n]``, from a fixed seed."""
    rng = np.random.default_rng(0)
    shuffled = np.tile(values, (_PERMUTATIONS, 1))
    for group in groups:
        shuffled[:, group] = rng.permuted(shuffled[:, group], axis=1)
    return shuffled


def _tested(statistic: float, shuffled: np.ndarray, n: int) -> Tested:
    expected = float(shuffled.mean())
    # A small tolerance, so that equal sums still count as equal after rounding.
    as_far = np.abs(shuffled - expected) >= abs(statistic - expected) - 1e-12
    return Tested(statistic, expected, float(1 + as_far.sum()) / (1 + _PERMUTATIONS), n)
