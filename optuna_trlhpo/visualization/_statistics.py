"""Intervals and permutation tests.

Notation: n observations; those of one *stratum* are comparable, and are exchanged among themselves alone.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

_PERMUTATIONS = 999
_Z = 1.959964
"""Of a 95 % interval."""


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, 1927): where ``successes`` of ``n`` leave it.

    Example:
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
    """A statistic against chance.

    Attributes:
        statistic: As it is observed; NaN where it is not defined.
        expected: Its mean where observations are exchanged within their strata.
        p: Two-sided: the share of exchanges that lie as far from ``expected``; NaN where nothing can be
            exchanged.
        n: Observations.
    """

    statistic: float
    expected: float
    p: float
    n: int


def spearman_within(x: np.ndarray, y: np.ndarray, strata: Sequence[Hashable]) -> Tested:
    """Spearman's rank correlation of ``x`` and ``y`` ``[n]`` within strata.

    Ranks are taken, and centred, within each stratum, so that what distinguishes the strata adds nothing.
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
    """The mean of ``values`` ``[n]`` where ``chosen`` ``[n]``, less that of the others, against exchanging
    within strata who is chosen."""
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
    """Ranks from -0.5 to 0.5, ties counted half."""
    ordered = np.sort(values)
    below = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return below / (2 * len(values)) - 0.5


def _shuffled(values: np.ndarray, groups: Sequence[np.ndarray]) -> np.ndarray:
    """``[permutations, n]`` the values, exchanged within each group; always by the same chances."""
    rng = np.random.default_rng(0)
    shuffled = np.tile(values, (_PERMUTATIONS, 1))
    for group in groups:
        shuffled[:, group] = rng.permuted(shuffled[:, group], axis=1)
    return shuffled


def _tested(statistic: float, shuffled: np.ndarray, n: int) -> Tested:
    expected = float(shuffled.mean())
    # A little leeway, lest sums that are equal count as less by how they are rounded.
    as_far = np.abs(shuffled - expected) >= abs(statistic - expected) - 1e-12
    return Tested(statistic, expected, float(1 + as_far.sum()) / (1 + _PERMUTATIONS), n)
