"""Actions in [0, 1]: equal bins, one for each of n values (paper, section IV), and reflection at the ends."""

from __future__ import annotations

import numpy as np


def bin_of(action: float, n: int) -> int:
    """Bin of an action among ``n``; actions beyond [0, 1] fall into the outermost bins.

    Examples:
        >>> [bin_of(action, 4) for action in (0.0, 0.24, 0.25, 1.0)]
        [0, 0, 1, 3]
    """
    return min(max(int(action * n), 0), n - 1)


def bins_of(actions: np.ndarray, n: np.ndarray | int) -> np.ndarray:
    """Bins of many actions, as floats; NaN stays NaN.

    Args:
        actions: Actions of any shape.
        n: Number of values of each, or of all.

    Examples:
        >>> bins_of(np.array([0.0, 0.25, 1.0]), 4).tolist()
        [0.0, 1.0, 3.0]
    """
    return np.clip(np.floor(actions * n), 0, n - 1)


def middle_of(index: int, n: int) -> float:
    """Middle of a bin: the action that encodes the value.

    Examples:
        >>> middle_of(1, 4)
        0.375
    """
    return (index + 0.5) / n


def reflect(action: float) -> float:
    """Reflect an action into [0, 1]: clipping would accumulate values at the ends.

    Examples:
        >>> reflect(-0.25), reflect(1.25), reflect(0.5)
        (0.25, 0.75, 0.5)
    """
    return min(max(1 - abs(1 - abs(action)), 0.0), 1.0)
