"""The Gaussian process: its formulas against numpy's, and what it learns of its kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from optuna_trlhpo.agent.gaussian_process import JITTER, LINEAR, Features, GaussianProcess


def features_of(
    n: int,
    *,
    part: Sequence[int] | None = None,
    column: Sequence[int] | None = None,
    group: Sequence[int] | None = None,
    base: Sequence[float] | None = None,
    mean: Sequence[float] | None = None,
) -> Features:
    """n features, each with a column and a group of its own, if nothing else is said."""
    return Features(
        np.array(part if part is not None else [0] * n),
        np.array(column if column is not None else range(n)),
        np.array(group if group is not None else range(n)),
        np.array(base if base is not None else [0.0] * n),
        np.array(mean if mean is not None else [0.0] * n),
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
VARIANCES = [0.8, 0.5, 1.0, 0.2, 0.05]  # of the parts, of the constant, of the noise
X = np.array([[0.0, 0.5, 1.0], [1.0, 0.0, 0.2], [0.3, 0.9, 0.4]])
Y = np.array([-1.0, 0.4, 0.9])


def fixed(variances: Sequence[float] = VARIANCES, *, n_parts: int = 2) -> GaussianProcess:
    posterior = GaussianProcess(n_parts=n_parts)
    posterior.log_variances = torch.tensor(variances, dtype=torch.float64).log()
    posterior.column_weights = torch.tensor(COLUMNS, dtype=torch.float64)
    posterior.group_weights = torch.tensor(GROUPS, dtype=torch.float64)
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
    inverse = np.linalg.inv(covariance(X, X) + (0.05 + JITTER) * np.eye(3))
    across = covariance(z, X)
    mean, deviation = posterior.predict(z)
    np.testing.assert_allclose(mean, across @ inverse @ Y, atol=1e-5)
    variance = np.diag(covariance(z, z) - across @ inverse @ across.T)
    np.testing.assert_allclose(deviation, np.sqrt(variance), atol=1e-5)
    # Far from everything only the constant is shared: the deviation is almost that of the prior.
    assert math.sqrt(1.3) < deviation[3] < math.sqrt(1.5)
    assert posterior.noise == pytest.approx(math.sqrt(0.05 + JITTER))


def test_a_part_without_features_is_a_constant() -> None:
    posterior = GaussianProcess(n_parts=2)
    posterior.log_variances = torch.tensor([0.8, 0.5, 1.0, 0.2, 0.05], dtype=torch.float64).log()
    posterior.fit(np.zeros((1, 1)), np.ones(1), features_of(1), steps=0)
    mean, deviation = posterior.predict(np.array([[100.0]]))
    # Covariance 0.5 + 0.2 with the one that is known, whose variance is 1.5 and the noise.
    assert mean[0] == pytest.approx(0.7 / (1.55 + JITTER), abs=1e-5)
    assert deviation[0] == pytest.approx(math.sqrt(1.5 - 0.7**2 / (1.55 + JITTER)), abs=1e-5)


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
    posterior = GaussianProcess(n_parts=1)
    posterior.fit(np.zeros((40, 2)), np.tile([-1.0, 1.0], 20), features_of(2), steps=60)
    mean, deviation = posterior.predict(np.zeros((1, 2)))
    assert mean[0] == pytest.approx(0, abs=1e-6) and deviation[0] < 0.5
    assert posterior.noise > 0.7  # the values' deviation is 1
    assert np.isfinite(posterior.sample(np.zeros((5, 2)), np.random.default_rng(0))).all()


# What is expected from elsewhere: the linear part --------------------------------------------------------


TRUST, NOISE = 0.6, 0.05 + JITTER
EXPECTING = features_of(
    3, part=[LINEAR] * 3, column=[0, 0, 1], group=[0, 0, 1], base=[0.3, -0.2, 0.1], mean=[1.5, -0.5, 0.0]
)


def expecting() -> GaussianProcess:
    """Nothing but a linear part and a constant of variance 0.5 + 0.3."""
    return fixed([0.5, TRUST, 0.3, 0.05], n_parts=1)


def regression(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bayesian linear regression on weights and a constant, by their posterior: mean and deviation at z.

    Bishop, Pattern Recognition and Machine Learning, 2006, equations 3.49 to 3.51 and 3.58.
    """
    phi, asked = (np.column_stack([np.sqrt(WEIGHTS) * rows, np.ones(len(rows))]) for rows in (x, z))
    mean = np.append(math.sqrt(TRUST) * EXPECTING.mean, 0.0)
    precision = np.diag(1 / np.array([TRUST] * 3 + [0.8]))
    covariance = np.linalg.inv(precision + phi.T @ phi / NOISE)
    weights = covariance @ (precision @ mean + phi.T @ y / NOISE)
    return asked @ weights, np.sqrt(np.einsum("cf,fg,cg->c", asked, covariance, asked))


@pytest.mark.parametrize("n", [0, 1, 3])
def test_the_linear_part_is_bayesian_linear_regression(n: int) -> None:
    posterior = expecting()
    posterior.fit(X[:n], Y[:n], EXPECTING, steps=0)
    z = np.array([[0.2, 0.2, 0.2], [0.9, 0.1, 0.5], [7.0, -8.0, 9.0]])
    mean, deviation = posterior.predict(z)
    expected, uncertain = regression(X[:n], Y[:n], z)
    np.testing.assert_allclose(mean, expected, atol=1e-9)
    np.testing.assert_allclose(deviation, uncertain, atol=1e-9)


def test_before_anything_is_known_the_mean_is_what_is_expected() -> None:
    posterior = expecting()
    posterior.fit(X[:0], Y[:0], EXPECTING, steps=0)
    z = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    mean, deviation = posterior.predict(z)
    np.testing.assert_allclose(mean, [math.sqrt(TRUST * WEIGHTS[0]) * 1.5, 0.0, 0.0], atol=1e-12)
    variance = [0.8 + TRUST * WEIGHTS[0], 0.8 + TRUST * WEIGHTS[2], 0.8]
    np.testing.assert_allclose(deviation, np.sqrt(variance))
    rng, n = np.random.default_rng(0), 1_000
    draws = np.stack([posterior.sample(z, rng) for _ in range(n)])
    assert (np.abs(draws.mean(axis=0) - mean) < 4 * deviation / math.sqrt(n)).all()
    np.testing.assert_allclose(draws.std(axis=0), deviation, rtol=4 / math.sqrt(2 * n))


def test_a_linear_part_beside_another() -> None:
    """The kernels add up, and the mean is that of the linear part alone."""
    features = FEATURES._replace(part=np.array([0, 0, LINEAR]), mean=np.array([9.0, 9.0, 2.0]))
    posterior = fixed([0.8, 0.5, TRUST, 0.2, 0.05])
    posterior.fit(X, Y, features, steps=0)

    def gram(x: np.ndarray, z: np.ndarray) -> np.ndarray:
        smooth = 0.8 * matern(squared_distances(x[:, :2], z[:, :2], WEIGHTS[:2]))
        return smooth + 0.5 + 0.2 + TRUST * WEIGHTS[2] * x[:, 2:] @ z[:, 2:].T

    def expected(x: np.ndarray) -> np.ndarray:
        return math.sqrt(TRUST * WEIGHTS[2]) * 2.0 * x[:, 2]

    z = np.array([[0.2, 0.2, 0.2], [0.9, 0.1, 3.0]])
    inverse = np.linalg.inv(gram(X, X) + NOISE * np.eye(3))
    mean, deviation = posterior.predict(z)
    np.testing.assert_allclose(mean, expected(z) + gram(z, X) @ inverse @ (Y - expected(X)), atol=1e-5)
    variance = np.diag(gram(z, z) - gram(z, X) @ inverse @ gram(X, z))
    np.testing.assert_allclose(deviation, np.sqrt(variance), atol=1e-5)


def test_without_linear_features_nothing_is_expected() -> None:
    """Neither the variance of the linear part nor the means of other features are of any consequence."""
    found = []
    for trust, mean in ((1.0, 0.0), (50.0, 7.0)):
        posterior = fixed([0.8, 0.5, trust, 0.2, 0.05])
        posterior.fit(X, Y, FEATURES._replace(mean=np.full(3, mean)), steps=0)
        found.append(posterior.predict(Y[:, None] * X))
    np.testing.assert_array_equal(found[0], found[1])


def test_expectations_are_believed_as_far_as_they_are_borne_out() -> None:
    """A place and an expectation, which the values follow, follow by half, do not follow, or defy."""
    (x, wavy), expected = wave(30), np.random.default_rng(0).standard_normal(30)
    features = features_of(2, part=[0, LINEAR], mean=[0.0, 1.0])
    trusted = {}
    for share in (1.0, 0.5, 0.0, -1.0):
        posterior = GaussianProcess(n_parts=1)
        y = share * expected + math.sqrt(1 - share**2) * wavy
        posterior.fit(np.column_stack([x[:, 0], expected]), y, features, steps=60)
        mean, _ = posterior.predict(np.array([[0.5, -2.0], [0.5, 2.0]]))
        assert (mean[1] - mean[0]) / 4 == pytest.approx(share, abs=0.1)
        trusted[share] = math.exp(posterior.log_variances[-3]) * float(posterior.scale[1]) ** 2
    assert trusted[1.0] > 1.5 * trusted[0.0]


def test_what_is_learned_counts_in_what_was_expected() -> None:
    """Values that are just as expected leave the variances where they are: nothing is to be explained."""
    expected = np.random.default_rng(0).standard_normal(30)
    features = features_of(1, part=[LINEAR], mean=[3.0])
    posterior = GaussianProcess(n_parts=1)
    posterior.fit(expected[:, None], 3 * expected, features, steps=60)
    trusted = math.exp(posterior.log_variances[-3]) * float(posterior.scale[0]) ** 2
    assert math.sqrt(trusted) == pytest.approx(1, abs=0.1) and posterior.noise < 0.1


# Samples ----------------------------------------------------------------------------------------------


@pytest.mark.slow
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
    inverse = np.linalg.inv(covariance(X, X) + (0.05 + JITTER) * np.eye(3))
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


def log_likelihood(posterior: GaussianProcess, x: np.ndarray, y: np.ndarray, features: Features) -> float:
    """Of the data, by numpy, under what the posterior of one part has learned."""
    part, _, constant, noise = posterior.log_variances.exp().tolist()
    learned = (
        posterior.column_weights.numpy()[features.column] + posterior.group_weights.numpy()[features.group]
    )
    weights = np.exp(features.base + learned)
    gram = part * matern(squared_distances(x, x, weights)) + constant + (noise + JITTER) * np.eye(len(x))
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
        posterior = GaussianProcess(n_parts=1)
        posterior.fit(x, y, features, steps=steps)
        found.append(log_likelihood(posterior, x, y, features))
    assert found == sorted(found) and found[-1] > found[0] + 10
    assert posterior.noise < 0.3  # there was none


def test_learning_goes_on_where_it_ended() -> None:
    x, y = wave()
    whole, parts = GaussianProcess(n_parts=1), GaussianProcess(n_parts=1)
    whole.fit(x, y, features_of(2), steps=100)
    for _ in range(20):
        parts.fit(x, y, features_of(2), steps=5)
    z = np.random.default_rng(1).random((10, 2))
    np.testing.assert_allclose(parts.predict(z)[0], whole.predict(z)[0], atol=0.05)


def test_what_does_not_matter_loses_weight() -> None:
    x, y = wave()
    posterior = GaussianProcess(n_parts=1)
    posterior.fit(x, y, features_of(2), steps=80)
    relevant, irrelevant = posterior.scale.square().tolist()
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
    posterior = GaussianProcess(n_parts=1)
    posterior.fit(x, y, features_of(3, group=[0, 1, 0]), steps=80)
    relevant, irrelevant, alike = posterior.scale.square().tolist()
    assert relevant > alike > 3 * irrelevant


def test_features_of_one_column_have_one_weight() -> None:
    x, y = wave()
    posterior = GaussianProcess(n_parts=1)
    posterior.fit(x, y, features_of(2, column=[0, 0], group=[0, 0], base=[0.0, math.log(4)]), steps=30)
    one, other = posterior.scale.square().tolist()
    assert other == pytest.approx(4 * one)


def test_a_column_that_comes_later_does_not_undo_what_was_learned() -> None:
    x, y = wave()
    posterior = GaussianProcess(n_parts=1)
    posterior.fit(x, y, features_of(2), steps=80)
    before = posterior.scale.tolist()
    posterior.fit(np.column_stack([x, np.zeros(len(x))]), y, features_of(3), steps=0)
    assert posterior.scale.tolist() == [*before, 1.0]


def test_equal_fits_are_equal() -> None:
    x, y = wave()
    found = []
    for _ in range(2):
        posterior = GaussianProcess(n_parts=1)
        posterior.fit(x, y, features_of(2), steps=10)
        found.append(posterior.predict(x)[0])
    np.testing.assert_array_equal(found[0], found[1])


# Learning ---------------------------------------------------------------------------------------------


def test_the_gradients_are_those_of_the_evidence() -> None:
    """By central differences; columns share groups, and every part of the kernel has features."""
    rng = np.random.default_rng(0)
    part = np.array([0, 0, 0, 1, 1, LINEAR, LINEAR, 1])
    columns = np.array([0, 0, 1, 2, 2, 3, 4, 5])
    groups = np.array([0, 0, 0, 1, 1, 2, 2, 3])
    features = Features(part, columns, groups, np.full(8, -1.0), rng.standard_normal(8))
    x, y = rng.random((20, 8)), rng.standard_normal(20)
    posterior = GaussianProcess(n_parts=3)
    posterior.fit(x, y, features, steps=7)
    found = posterior.gradients(torch.from_numpy(y).unsqueeze(-1))
    for name, gradient in zip(("column_weights", "group_weights", "log_variances"), found, strict=True):
        for i in range(len(gradient)):
            losses = []
            for change in (1e-5, -2e-5):
                getattr(posterior, name)[i] += change
                posterior.fit(x, y, features, steps=0)
                losses.append(-posterior.evidence)
            getattr(posterior, name)[i] += 1e-5
            assert gradient[i].item() == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-4, abs=1e-6)


def test_the_fitted_means_are_the_predictions() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.random((15, 3)), rng.standard_normal(15)
    none = np.zeros(3, dtype=np.int64)
    posterior = GaussianProcess(n_parts=1)
    posterior.fit(x, y, Features(none, np.arange(3), none, np.zeros(3), np.zeros(3)), steps=5)
    np.testing.assert_allclose(posterior.fitted(), posterior.predict(x)[0], atol=1e-9)
