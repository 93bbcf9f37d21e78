"""Values of trials as ranks and as scores that no outlier can flatten."""

from __future__ import annotations

import bisect
import itertools
from statistics import NormalDist

import numpy as np


def share_below(known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Share of the ascending ``known`` ``[N]`` that lies below each value, ties counted half.

    Example:
        >>> share_below(np.array([1, 2, 3, 4]), np.array([0, 2.5, 4])).tolist()
        [0.0, 0.5, 0.875]
    """
    below = np.searchsorted(known, values, "left") + np.searchsorted(known, values, "right")
    return below / (2 * len(known))


def ranks_of(values: np.ndarray) -> np.ndarray:
    """Ranks in (0, 1) of ``values`` ``[N]`` among themselves: the share below each, ties counted half."""
    return share_below(np.sort(values), values)


class EmpiricalCDF:
    """Turns raw numbers into numbers in [0, 1], by what was seen before."""

    def __init__(self) -> None:
        self._sorted: list[float] = []
        self._array = np.empty(0)  # the same, made anew when it is asked for

    def add(self, value: float) -> None:
        bisect.insort(self._sorted, value)

    def rank(self, values: np.ndarray) -> np.ndarray:
        """The share of what was seen that lies below, ties counted half; NaN stays NaN.

        Example:
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
        """The values themselves where all that was seen is an accuracy, or a negated error, in [0, 1]; else
        ranks."""
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
    """Ranks in [0, 1] to quantiles of the standard normal distribution, so that the best stand well apart.

    After Salinas et al., "A quantile-based approach for hyperparameter transfer learning", 2020.
    """
    return np.interp(ranks, _GRID, _QUANTILES)


def ranks_of_scores(scores: np.ndarray) -> np.ndarray:
    """The inverse of `normal_scores`.

    Example:
        >>> ranks_of_scores(normal_scores(np.array([0.5, 0.9]))).round(6).tolist()
        [0.5, 0.9]
    """
    return np.interp(scores, _QUANTILES, _GRID)


class OutcomeTransform:
    """Turns worths into scores that a regression can learn: about 1 from the median to the good ones.

    Accuracies, and negated errors, are taken by the logarithm of the error, for what halves it counts alike
    wherever it stands. What is worse than the median is drawn near, by a logarithm too: how bad a bad
    network is tells little.

    Args:
        worths: ``[N]``, what was seen, in this order; infinite ones count as the worst or the best of the
            others, and those far below all others (a penalty for what is invalid) as the worst of these.
        unit: What the unit of accuracies is held to be before any is seen, in logarithms of the error; None:
            nothing is known.

    Attributes:
        unit: What counts as 1.
        lowest: The worst that is told apart from what is worse.
        of_errors: Whether that is in logarithms of the error.

    Example:
        >>> scores = OutcomeTransform(np.array([-100.0, 1.0, 2.0, 3.0]))
        >>> scores(np.array([-100.0, 1.5, 3.0])).round(2).tolist()
        [-4.41, 0.0, 1.2]
    """

    def __init__(self, worths: np.ndarray, unit: float | None = None) -> None:
        finite = np.sort(worths[np.isfinite(worths)])
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
        values = self._spread(worths)
        self._median = float(np.median(values)) if len(values) else 0.0
        expected = unit if self.of_errors else None
        units = [_unit_of(values[:n], expected) for n in _lengths(len(values))]
        # Never smaller than it was: where a search has settled, most of what differs is noise, and a unit of
        # noise would make it look as if nothing better could be anywhere else.
        self.unit = max(units, default=expected or 0.0) or 1.0

    def _best_possible(self) -> float | None:
        return next((best for best in (1.0, 0.0) if best - 1 <= self.lowest <= self._high <= best), None)

    def __call__(self, worths: np.ndarray) -> np.ndarray:
        z = (self._spread(worths) - self._median) / self.unit
        return np.where(z < 0, -np.log1p(-np.minimum(z, 0)), z)

    def worths(self, scores: np.ndarray) -> np.ndarray:
        """The worths that have these scores, the inverse of calling it; none is beyond the best possible."""
        z = np.where(scores < 0, 1 - np.exp(-np.minimum(scores, 0)), scores)
        spread = z * self.unit + self._median
        if self._best is None:
            return spread * self._factor
        return np.minimum(self._best + _LEAST_ERROR - np.exp(-spread), self._best)

    def _spread(self, worths: np.ndarray) -> np.ndarray:
        worths = np.clip(worths, self.lowest, self._high)
        return worths / self._factor if self._best is None else -np.log(self._best - worths + _LEAST_ERROR)


def _lowest(worths: np.ndarray) -> float:
    """The lowest of ``worths``, ascending, without those that are far below all others."""
    low = 0
    while (cut := _gap(-worths[low:][::-1])) is not None:
        low = len(worths) - cut
    return float(worths[low]) if len(worths) else 0.0


def _gap(values: np.ndarray) -> int | None:
    """How many of ``values``, ascending, lie before the last gap that is many times their range."""
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
    """8, 16, 32, ..., ``n``."""
    doubled = itertools.takewhile(lambda m: m < n, (8 * 2**k for k in itertools.count()))
    return [*doubled, n] if n else []


_LARGEST = 1e100
"""Larger worths count as infinite, or are divided where all are, so that their squares are finite."""
_MEAN_OF_HALF = 1.25
"""What the mean of the better half of a normal distribution has to be multiplied with to be its deviation."""
_UNIT_COUNTS = 4
"""What is known of the unit counts as much as so many values."""
_LEAST_ERROR = 1e-3
"""Added to an error rate before its logarithm is taken."""


def scalarise(ranks: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Ranks ``[..., K]`` of several objectives to one number in [0, 1], by the weighted Chebyshev distance
    from the best.

    ``weights`` ``[..., K]`` are positive; with weights drawn anew for every trial, all of the Pareto front is
    aimed at (Knowles, ParEGO, 2006).
    """
    if ranks.shape[-1] == 1:
        return ranks[..., 0]
    return 1 - np.max(weights * (1 - ranks), axis=-1) / np.max(weights, axis=-1)


_ENOUGH, _FAR, _NEAR = 5, 1000.0, 30.0
"""Of fewer values than the first, a gap must be so many times their range; else so many times."""
