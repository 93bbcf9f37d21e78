"""Ornstein-Uhlenbeck noise: its recursion, its variance, its memory."""

from __future__ import annotations

import numpy as np
import pytest

from optuna_trlhpo.agent.noise import ornstein_uhlenbeck


def path(seed: int, n_steps: int, size: int = 4, theta: float = 0.15, sigma: float = 0.2) -> np.ndarray:
    return ornstein_uhlenbeck(np.random.default_rng(seed), n_steps, size=size, theta=theta, sigma=sigma)


def test_by_hand() -> None:
    draws = np.random.default_rng(0).standard_normal((3, 4))
    first = 0.2 * draws[0]
    second = 0.85 * first + 0.2 * draws[1]
    third = 0.85 * second + 0.2 * draws[2]
    np.testing.assert_allclose(path(0, 3), [first, second, third])


@pytest.mark.parametrize(("theta", "sigma"), [(0.15, 0.2), (0.5, 0.1), (1.0, 0.3)])
def test_stationary_variance_and_correlation(theta: float, sigma: float) -> None:
    """x' = (1 - theta) x + sigma N: var = sigma^2 / (1 - (1 - theta)^2) = sigma^2 / (2 theta - theta^2)."""
    x = path(0, 500, size=2_000, theta=theta, sigma=sigma)[-2:]
    variance = sigma**2 / (2 * theta - theta**2)
    assert x[1].var() == pytest.approx(variance, rel=0.1)
    assert abs(x[1].mean()) < 4 * np.sqrt(variance / 2_000)
    assert np.corrcoef(x)[0, 1] == pytest.approx(1 - theta, abs=0.1)


def test_equal_generators_and_longer_paths() -> None:
    np.testing.assert_array_equal(path(1, 6), path(1, 6))
    np.testing.assert_array_equal(path(1, 6)[:2], path(1, 2))
    assert not np.allclose(path(1, 6), path(2, 6))
    assert path(0, 0).shape == (0, 4)
    assert not path(0, 5, sigma=0.0).any()
