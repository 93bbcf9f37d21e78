"""Exploration noise."""

from __future__ import annotations

import numpy as np


def ornstein_uhlenbeck(
    rng: np.random.Generator, n_steps: int, *, size: int, theta: float, sigma: float
) -> np.ndarray:
    """Ornstein-Uhlenbeck noise ``[n_steps, size]``.

    It starts at 0, with ``x += -theta x + sigma N(0, 1)`` (Lillicrap et al., 2015, section 3). With equal
    generators a longer path begins with the shorter one.

    Examples:
        >>> path = ornstein_uhlenbeck(np.random.default_rng(0), 3, size=4, theta=0.15, sigma=0.2)
        >>> shorter = ornstein_uhlenbeck(np.random.default_rng(0), 2, size=4, theta=0.15, sigma=0.2)
        >>> np.array_equal(path[:2], shorter)
        True
    """
    path = np.zeros((n_steps, size))
    x = np.zeros(size)
    for k in range(n_steps):
        x = x - theta * x + sigma * rng.standard_normal(size)
        path[k] = x
    return path
