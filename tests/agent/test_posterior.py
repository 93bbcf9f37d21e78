"""The Gaussian process: its formulas against numpy's, and what it learns of its kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from optuna_trlhpo._agent.posterior import _JITTER, Features, Posterior


def features_of(
    n: int,
    *,
    part: Sequence[int] | None = None,
    column: Sequence[int] | None = None,
    group: Sequence[int] | None = None,
    base: Sequence[float] | None = None,
) -> Features:
    """n features, each with a column and a group of its own, if nothing else is said."""
    return Features(
        np.array(part if part is not None else [0] * n),
        np.array(column if column is not None else range(n)),
        np.array(group if group is not None else range(n)),
        np.array(base if base is not None else [0.0] * n),
    )


def matern(squared: np.ndarray) -> np.ndarray:
    r = np.sqrt(squared)
    return (1 + math.sqrt(5) * r + 5 * squared / 3) * np.exp(-math.sqrt(5) * r)


def squared_distances(x: np.ndarray, z: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return (weights * (x[:, None] - z[None]) ** 2).sum(axis=-1)


# The posterior of given weights ------------------------------------------------------------------------


# Two parts; the weight of a feature is exp(base + what its column and its group learned).
FEATURES = features_of(3, part=[0, 0, 1], column=[0, 0, 1], group=[0, 0, 1], base=[0.3, -0.2, 0.1])
COLUMNS, GROUPS = [0.5, -0.4], [0.25, 1.0]
WEIGHTS = np.exp([0.3 + 0.75, -0.2 + 0.75, 0.1 + 0.6])
VARIANCES = [0.8, 0.5, 0.2, 0.05]  # of the parts, of the constant, of the noise
X = np.array([[0.0, 0.5, 1.0], [1.0, 0.0, 0.2], [0.3, 0.9, 0.4]])
Y = np.array([-1.0, 0.4, 0.9])


def fixed(variances: Sequence[float] = VARIANCES) -> Posterior:
    posterior = Posterior(n_parts=2)
    posterior._variances = torch.tensor(variances, dtype=torch.float64).log()
    posterior._columns = torch.tensor(COLUMNS, dtype=torch.float64)
    posterior._groups = torch.tensor(GROUPS, dtype=torch.float64)
    return posterior


def covariance(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    first = matern(squared_distances(x[:, :2], z[:, :2], WEIGHTS[:2]))
    second = matern(squared_distances(x[:, 2:], z[:, 2:], WEIGHTS[2:]))
    return 0.8 * first + 0.5 * second + 0.2


def test_the_posterior_is_the_textbooks() -> None:
    """Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, equations 2.23 and 2.24."""
    posterior = fixed()
    posterior.fit(X, Y, FEATURES, steps=0)
    z = np.array([[0.2, 0.2, 0.2], [0.9, 0.1, 0.5], [0.0, 0.5, 1.0], [7.0, -8.0, 9.0]])
    inverse = np.linalg.inv(covariance(X, X) + (0.05 + _JITTER) * np.eye(3))
    across = covariance(z, X)
    mean, deviation = posterior.predict(z)
    np.testing.assert_allclose(mean, across @ inverse @ Y, atol=1e-5)
    variance = np.diag(covariance(z, z) - across @ inverse @ across.T)
    np.testing.assert_allclose(deviation, np.sqrt(variance), atol=1e-5)
    # Far from everything only the constant is shared: the deviation is almost that of the prior.
    assert math.sqrt(1.3) < deviation[3] < math.sqrt(1.5)
    assert posterior.noise == pytest.approx(math.sqrt(0.05 + _JITTER))


def test_a_part_without_features_is_a_constant() -> None:
    posterior = Posterior(n_parts=2)
    posterior._variances = torch.tensor([0.8, 0.5, 0.2, 0.05], dtype=torch.float64).log()
    posterior.fit(np.zeros((1, 1)), np.ones(1), features_of(1), steps=0)
    mean, deviation = posterior.predict(np.array([[100.0]]))
    # Covariance 0.5 + 0.2 with the one that is known, whose variance is 1.5 and the noise.
    assert mean[0] == pytest.approx(0.7 / (1.55 + _JITTER), abs=1e-5)
    assert deviation[0] == pytest.approx(math.sqrt(1.5 - 0.7**2 / (1.55 + _JITTER)), abs=1e-5)


def test_where_noise_is_small_the_data_are_met() -> None:
    posterior = fixed([0.8, 0.5, 0.2, 1e-9])
    posterior.fit(X, Y, FEATURES, steps=0)
    mean, deviation = posterior.predict(X)
    np.testing.assert_allclose(mean, Y, atol=0.02)
    assert (deviation < 0.05).all()
    noisy = fixed([0.8, 0.5, 0.2, 4.0])
    noisy.fit(X, Y, FEATURES, steps=0)
    drawn, _ = noisy.predict(X)
    assert (np.abs(drawn - Y) > 0.2).all() and np.ptp(drawn) < np.ptp(Y)


def test_more_data_leave_less_to_be_uncertain_of() -> None:
    z = np.array([[0.5, 0.5, 0.5]])
    deviations = []
    for n in (1, 2, 3):
        posterior = fixed()
        posterior.fit(X[:n], Y[:n], FEATURES, steps=0)
        deviations.append(posterior.predict(z)[1][0])
    assert deviations[0] > deviations[1] > deviations[2]


def test_equal_networks_with_different_values_are_no_trouble() -> None:
    posterior = Posterior(n_parts=1)
    posterior.fit(np.zeros((40, 2)), np.tile([-1.0, 1.0], 20), features_of(2), steps=60)
    mean, deviation = posterior.predict(np.zeros((1, 2)))
    assert mean[0] == pytest.approx(0, abs=1e-6) and deviation[0] < 0.5
    assert posterior.noise > 0.7  # the values' deviation is 1
    assert np.isfinite(posterior.sample(np.zeros((5, 2)), np.random.default_rng(0))).all()


# Samples ----------------------------------------------------------------------------------------------


def test_samples_have_the_posteriors_mean_and_deviation() -> None:
    posterior = fixed()
    posterior.fit(X, Y, FEATURES, steps=0)
    z = np.array([[0.2, 0.2, 0.2], [0.9, 0.1, 0.5], [0.2, 0.2, 0.2], [7.0, -8.0, 9.0]])
    rng = np.random.default_rng(0)
    n = 2_000
    draws = np.stack([posterior.sample(z, rng) for _ in range(n)])
    mean, deviation = posterior.predict(z)
    # Within four standard errors.
    assert (np.abs(draws.mean(axis=0) - mean) < 4 * deviation / math.sqrt(n)).all()
    np.testing.assert_allclose(draws.std(axis=0), deviation, rtol=4 / math.sqrt(2 * n))
    # It is one function that is drawn, not one number for each: at one place it has one value.
    np.testing.assert_allclose(draws[:, 0], draws[:, 2], atol=0.03)
    cross = covariance(z[:1], X)
    inverse = np.linalg.inv(covariance(X, X) + (0.05 + _JITTER) * np.eye(3))
    together = (covariance(z[:1], z[1:2]) - cross @ inverse @ covariance(X, z[1:2]))[0, 0]
    assert np.cov(draws[:, 0], draws[:, 1])[0, 1] == pytest.approx(together, abs=0.05)


def test_samples_come_from_the_given_generator_alone() -> None:
    posterior = fixed()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    posterior.fit(X, Y, FEATURES, steps=3)
    one, two, other = (posterior.sample(X, np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, two)
    assert not np.allclose(one, other)
    assert torch.equal(torch.get_rng_state(), before)


# Learning ---------------------------------------------------------------------------------------------


def log_likelihood(posterior: Posterior, x: np.ndarray, y: np.ndarray, features: Features) -> float:
    """Of the data, by numpy, under what the posterior of one part has learned."""
    part, constant, noise = posterior._variances.exp().tolist()
    learned = posterior._columns.numpy()[features.column] + posterior._groups.numpy()[features.group]
    weights = np.exp(features.base + learned)
    gram = part * matern(squared_distances(x, x, weights)) + constant + (noise + _JITTER) * np.eye(len(x))
    return float(-0.5 * y @ np.linalg.solve(gram, y) - 0.5 * np.linalg.slogdet(2 * math.pi * gram)[1])


def wave(n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """A wave along the first column; the second means nothing."""
    x = np.random.default_rng(0).random((n, 2))
    y = np.sin(6 * x[:, 0])
    return x, (y - y.mean()) / y.std()


def test_learning_raises_the_likelihood() -> None:
    x, y = wave()
    features = features_of(2)
    found = []
    for steps in (0, 5, 20, 80):
        posterior = Posterior(n_parts=1)
        posterior.fit(x, y, features, steps=steps)
        found.append(log_likelihood(posterior, x, y, features))
    assert found == sorted(found) and found[-1] > found[0] + 10
    assert posterior.noise < 0.3  # there was none


def test_learning_goes_on_where_it_ended() -> None:
    x, y = wave()
    whole, parts = Posterior(n_parts=1), Posterior(n_parts=1)
    whole.fit(x, y, features_of(2), steps=100)
    for _ in range(20):
        parts.fit(x, y, features_of(2), steps=5)
    z = np.random.default_rng(1).random((10, 2))
    np.testing.assert_allclose(parts.predict(z)[0], whole.predict(z)[0], atol=0.05)


def test_what_does_not_matter_loses_weight() -> None:
    x, y = wave()
    posterior = Posterior(n_parts=1)
    posterior.fit(x, y, features_of(2), steps=80)
    relevant, irrelevant = posterior._scale.square().tolist()
    assert relevant > 10 * irrelevant
    # So a step aside is taken for nothing new, a step along is.
    here, along, aside = np.array([[0.5, 0.5]]), np.array([[1.4, 0.5]]), np.array([[0.5, 1.4]])
    deviations = [posterior.predict(z)[1][0] for z in (here, along, aside)]
    assert (
        deviations[1] > 2 * deviations[2]
        and abs(posterior.predict(aside)[0] - posterior.predict(here)[0]) < 0.3
    )


def test_what_is_learned_of_one_column_is_expected_of_its_group() -> None:
    """The third column is always the same; that the first, of its group, matters says that it will too."""
    x, y = wave()
    x = np.column_stack([x, np.full(len(x), 0.5)])
    posterior = Posterior(n_parts=1)
    posterior.fit(x, y, features_of(3, group=[0, 1, 0]), steps=80)
    relevant, irrelevant, alike = posterior._scale.square().tolist()
    assert relevant > alike > 3 * irrelevant


def test_features_of_one_column_have_one_weight() -> None:
    x, y = wave()
    posterior = Posterior(n_parts=1)
    posterior.fit(x, y, features_of(2, column=[0, 0], group=[0, 0], base=[0.0, math.log(4)]), steps=30)
    one, other = posterior._scale.square().tolist()
    assert other == pytest.approx(4 * one)


def test_a_column_that_comes_later_does_not_undo_what_was_learned() -> None:
    x, y = wave()
    posterior = Posterior(n_parts=1)
    posterior.fit(x, y, features_of(2), steps=80)
    before = posterior._scale.tolist()
    posterior.fit(np.column_stack([x, np.zeros(len(x))]), y, features_of(3), steps=0)
    assert posterior._scale.tolist() == [*before, 1.0]


def test_equal_fits_are_equal() -> None:
    x, y = wave()
    found = []
    for _ in range(2):
        posterior = Posterior(n_parts=1)
        posterior.fit(x, y, features_of(2), steps=10)
        found.append(posterior.predict(x)[0])
    np.testing.assert_array_equal(*found)
