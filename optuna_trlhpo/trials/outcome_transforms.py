"""Transforms of outcomes to ranks and to scores that are robust to outliers."""

from __future__ import annotations

import bisect
import itertools
from statistics import NormalDist

import numpy as np


def share_below(known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Share of the ascending ``known`` ``[N]`` that lies below each value, ties counted half.

    Examples:
        >>> share_below(np.array([1, 2, 3, 4]), np.array([0, 2.5, 4])).tolist()
        [0.0, 0.5, 0.875]
    """
    below = np.searchsorted(known, values, "left") + np.searchsorted(known, values, "right")
    return below / (2 * len(known))


def ranks_of(values: np.ndarray) -> np.ndarray:
    """Ranks in (0, 1) of ``values`` ``[N]`` among themselves: the share below each, ties counted half."""
    return share_below(np.sort(values), values)


class EmpiricalCDF:
    """The empirical distribution of the numbers seen so far, which maps numbers to [0, 1]."""

    def __init__(self) -> None:
        self._sorted: list[float] = []
        self._array = np.empty(0)  # the same as an array, updated on demand

    def add(self, value: float) -> None:
        """Add a number."""
        bisect.insort(self._sorted, value)

    def rank(self, values: np.ndarray) -> np.ndarray:
        """Return the fraction of the numbers seen that are lower, ties counted half. NaN stays NaN.

        Examples:
            >>> scale = EmpiricalCDF()
            >>> for value in (1, 2, 3, 4):
            ...     scale.add(value)
            >>> scale.rank(np.array([0.0, 2.5, 4.0])).tolist()
            [0.0, 0.5, 0.875]
        """
        if not self._sorted:
            return np.where(np.isnan(values), np.nan, 0.5)
        if len(self._array) != len(self._sorted):
            self._array = np.asarray(self._sorted)
        return np.where(np.isnan(values), np.nan, share_below(self._array, values))

    def unit(self, values: np.ndarray) -> np.ndarray:
        """Return the values mapped to [0, 1].

        Accuracies in [0, 1], and negated errors, are kept as accuracies if all numbers seen are of this kind;
        otherwise values become ranks.
        """
        low, high = (self._sorted[0], self._sorted[-1]) if self._sorted else (0.0, 1.0)
        if 0 <= low and high <= 1:
            return np.clip(values, 0, 1)
        if -1 <= low and high <= 0:
            return np.clip(values + 1, 0, 1)
        return self.rank(values)


_GRID = np.linspace(0.001, 0.999, 999)
_QUANTILES = np.array([NormalDist().inv_cdf(p) for p in _GRID])
HIGHEST_SCORE = float(_QUANTILES[-1])


def normal_scores(ranks: np.ndarray) -> np.ndarray:
    """Return the standard normal quantiles of ranks in [0, 1], which separate the best ranks more clearly.

    After Salinas et al., "A quantile-based approach for hyperparameter transfer learning", 2020.
    """
    return np.interp(ranks, _GRID, _QUANTILES)


def ranks_of_scores(scores: np.ndarray) -> np.ndarray:
    """The inverse of `normal_scores`.

    Examples:
        >>> ranks_of_scores(normal_scores(np.array([0.5, 0.9]))).round(6).tolist()
        [0.5, 0.9]
    """
    return np.interp(scores, _QUANTILES, _GRID)


class OutcomeTransform:
    """Transforms outcomes to scores for a regression: about 1 from the median to the good ones.

    An outcome is an objective's value with its sign such that more is better. Accuracies, and negated errors,
    are transformed by the logarithm of the error, so that halving the error counts the same everywhere.
    Outcomes below the median are compressed logarithmically: how bad a bad network is tells little.

    Args:
        outcomes: ``[N]`` outcomes seen, in this order. Infinite ones count as the worst or the best of the
            others. Those far below all others (a penalty for invalid configurations) count as the worst of
            the others.
        unit: Prior unit of accuracies, in logarithms of the error. None if there is no prior.

    Attributes:
        unit: Difference that a score of 1 stands for.
        lowest: Worst outcome that is distinguished from still worse ones.
        of_errors: Whether ``unit`` is in logarithms of the error.

    Examples:
        >>> scores = OutcomeTransform(np.array([-100.0, 1.0, 2.0, 3.0]))
        >>> scores(np.array([-100.0, 1.5, 3.0])).round(2).tolist()
        [-4.41, 0.0, 1.2]
    """

    def __init__(self, outcomes: np.ndarray, unit: float | None = None) -> None:
        finite = np.sort(outcomes[np.isfinite(outcomes)])
        small = finite[np.abs(finite) <= _LARGEST]
        finite = small if len(small) else finite
        self.lowest, self._high = (float(finite[0]), float(finite[-1])) if len(finite) else (0.0, 0.0)
        self._best = self._best_possible()
        if self._best is None:
            self.lowest = _lowest(finite)
            self._best = self._best_possible()
        self._factor = max(abs(self.lowest), abs(self._high)) / _LARGEST
        self._factor = self._factor if self._factor > 1 else 1.0
        self.of_errors = self._best is not None
        values = self._spread(outcomes)
        self._median = float(np.median(values)) if len(values) else 0.0
        expected = unit if self.of_errors else None
        units = [_unit_of(values[:n], expected) for n in _lengths(len(values))]
        # The unit never shrinks: once a search has converged, most differences are noise, and a unit as small
        # as the noise would suggest that there is nothing better elsewhere.
        self.unit = max(units, default=expected or 0.0) or 1.0

    def _best_possible(self) -> float | None:
        return next((best for best in (1.0, 0.0) if best - 1 <= self.lowest <= self._high <= best), None)

    def __call__(self, outcomes: np.ndarray) -> np.ndarray:
        """Return the scores of outcomes."""
        z = (self._spread(outcomes) - self._median) / self.unit
        return np.where(z < 0, -np.log1p(-np.minimum(z, 0)), z)

    def inverse(self, scores: np.ndarray) -> np.ndarray:
        """Return the outcomes with these scores, the inverse of the call; at most the best possible one."""
        z = np.where(scores < 0, 1 - np.exp(-np.minimum(scores, 0)), scores)
        spread = z * self.unit + self._median
        if self._best is None:
            return spread * self._factor
        return np.minimum(self._best + _LEAST_ERROR - np.exp(-spread), self._best)

    def _spread(self, outcomes: np.ndarray) -> np.ndarray:
        outcomes = np.clip(outcomes, self.lowest, self._high)
        if self._best is None:
            return outcomes / self._factor
        return -np.log(self._best - outcomes + _LEAST_ERROR)


def _lowest(outcomes: np.ndarray) -> float:
    """Return the lowest of ``outcomes``, ascending, without those that are far below all others."""
    low = 0
    while (cut := _gap(-outcomes[low:][::-1])) is not None:
        low = len(outcomes) - cut
    return float(outcomes[low]) if len(outcomes) else 0.0


def _gap(values: np.ndarray) -> int | None:
    """Return how many of ``values``, ascending, precede the last gap that is many times their range."""
    gaps, ranges = np.diff(values), values[:-1] - values[:1]
    n = np.arange(1, len(values))
    apart = np.flatnonzero((ranges > 0) & (gaps > np.where(n < _ENOUGH, _FAR, _NEAR) * ranges))
    return int(apart[-1]) + 1 if len(apart) else None


def _unit_of(values: np.ndarray, expected: float | None) -> float:
    median = float(np.median(values))
    above = values[values > median] - median
    unit = _MEAN_OF_HALF * float(above.mean()) if len(above) else float(np.std(values))
    if expected is None:
        return unit
    return (len(above) * unit + _UNIT_COUNTS * expected) / (len(above) + _UNIT_COUNTS)


def _lengths(n: int) -> list[int]:
    """Return 8, 16, 32, ..., ``n``."""
    doubled = itertools.takewhile(lambda m: m < n, (8 * 2**k for k in itertools.count()))
    return [*doubled, n] if n else []


_LARGEST = 1e100
"""Larger outcomes count as infinite, or are scaled down if all are, so that their squares are finite."""
_MEAN_OF_HALF = 1.25
"""Ratio of the standard deviation of a normal distribution to the mean of its upper half."""
_UNIT_COUNTS = 4
"""Weight of the prior unit, in outcomes."""
_LEAST_ERROR = 1e-3
"""Added to an error rate before the logarithm."""


def scalarise(ranks: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return ranks ``[..., K]`` of several objectives as one number in [0, 1].

    It is the weighted Chebyshev distance from the best, subtracted from 1. ``weights`` ``[..., K]`` are
    positive. New random weights for every trial cover the whole Pareto front (Knowles, ParEGO, 2006).
    """
    if ranks.shape[-1] == 1:
        return ranks[..., 0]
    return 1 - np.max(weights * (1 - ranks), axis=-1) / np.max(weights, axis=-1)


_ENOUGH, _FAR, _NEAR = 5, 1000.0, 30.0
"""A gap separates outliers if it exceeds ``_FAR`` times the range of fewer than ``_ENOUGH`` values, else
``_NEAR`` times."""
