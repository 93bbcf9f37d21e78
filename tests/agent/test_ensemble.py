"""The ensemble of networks: what it learns, what its members differ by, and how it grows."""

from __future__ import annotations

import pickle
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from optuna_trlhpo.agent.config import AgentConfig
from optuna_trlhpo.agent.ensemble import BODIES, Ensemble, ParameterTransformer, Perceptrons, Rows
from optuna_trlhpo.agent.gaussian_process import Features

M = 5
both = pytest.mark.parametrize("body", BODIES)


def features_of(
    n: int,
    *,
    column: Sequence[int] | None = None,
    group: Sequence[int] | None = None,
    base: Sequence[float] | None = None,
    mean: Sequence[float] | None = None,
) -> Features:
    """n features, each with a column and a group of its own, if nothing else is said."""
    return Features(
        np.zeros(n, dtype=np.int64),
        np.array(column if column is not None else range(n)),
        np.array(group if group is not None else range(n)),
        np.array(base if base is not None else [0.0] * n),
        np.array(mean if mean is not None else [0.0] * n),
    )


def ensemble_of(body: str, *, seed: int = 0, **settings: float) -> Ensemble:
    small = dict(n_candidates=0, width=16, heads=2, blocks=1, n_critics=M)
    return Ensemble(AgentConfig(**(small | settings)), body=body, seed=seed)  # type: ignore[arg-type]


def problem(n: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three of six features matter, two of these together."""
    x = np.random.default_rng(seed).uniform(-1, 1, (n, 6))
    y = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] + x[:, 1]
    return x, y


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1])


# What is learned --------------------------------------------------------------------------------------


@pytest.mark.slow
@both
def test_a_function_is_learned(body: str) -> None:
    (x, y), (z, truth) = problem(60), problem(200, seed=1)
    ensemble = ensemble_of(body)
    ensemble.fit(x, y, features_of(6), steps=0)
    by_chance = rank_correlation(ensemble.predict(z)[0], truth)
    ensemble.fit(x, y, features_of(6), steps=60)
    mean, deviation = ensemble.predict(z)
    assert rank_correlation(mean, truth) > max(0.9, by_chance + 0.3)
    assert mean.shape == deviation.shape == (200,) and mean.dtype == deviation.dtype == np.float64


@pytest.mark.slow
@both
def test_learning_goes_on_where_it_ended(body: str) -> None:
    (x, y), (z, truth) = problem(60), problem(200, seed=1)
    ensemble, beginner = ensemble_of(body), ensemble_of(body)
    for n in range(10, 61, 5):
        ensemble.fit(x[:n], y[:n], features_of(6), steps=5)
    beginner.fit(x, y, features_of(6), steps=5)  # as many as the other had in the end, of the same data
    errors = [np.square(one.predict(z)[0] - truth).mean() for one in (ensemble, beginner)]
    assert errors[0] < 0.5 * errors[1]


@both
def test_without_steps_nothing_is_learned(body: str) -> None:
    x, y = problem(20)
    ensemble = ensemble_of(body)
    ensemble.fit(x, y, features_of(6), steps=2)
    before, noise = ensemble.predict(x), ensemble.noise
    ensemble.fit(np.concatenate([x, x]), np.concatenate([y, y + 9]), features_of(6), steps=0)
    np.testing.assert_array_equal(ensemble.predict(x), before)
    assert ensemble.noise == noise
    ensemble.fit(x, y, features_of(6), steps=1)
    assert not np.allclose(ensemble.predict(x)[0], before[0])


@both
def test_nothing_at_all_is_no_trouble(body: str) -> None:
    ensemble = ensemble_of(body)
    ensemble.fit(np.zeros((0, 2)), np.zeros(0), features_of(2), steps=1)
    mean, deviation = ensemble.predict(np.ones((3, 2)))
    assert np.isfinite(mean).all() and (deviation > 0).all() and ensemble.noise > 0
    assert ensemble.predict(np.ones((0, 2)))[0].shape == (0,)
    # A network of which nothing is known has no token but the one that asks.
    assert np.isfinite(ensemble.predict(np.zeros((2, 2)))[0]).all()


@pytest.mark.slow
@both
def test_the_noise_is_what_cannot_be_told(body: str) -> None:
    x, y = problem(40)
    found = []
    for spread in (0.0, 1.0):
        ensemble = ensemble_of(body)
        twice = np.concatenate([y - spread, y + spread])  # of equal networks
        ensemble.fit(np.concatenate([x, x]), twice, features_of(6), steps=80)
        found.append(ensemble.noise)
    assert found[0] < 0.5 < 0.7 < found[1] < 1.2


@both
def test_what_is_expected_from_elsewhere_comes_first(body: str) -> None:
    """So much the ensemble expects before it has seen a value: sqrt(weight) times mean times the feature."""
    x = problem(20)[0]
    means = []
    for mean in (0.0, 3.0):
        ensemble = ensemble_of(body)
        features = features_of(6, base=[np.log(4)] + [0.0] * 5, mean=[mean] + [0.0] * 5)
        ensemble.fit(np.zeros((0, 6)), np.zeros(0), features, steps=0)
        means.append(ensemble.predict(x)[0])
    np.testing.assert_allclose(means[1] - means[0], 2 * 3 * x[:, 0], atol=1e-5)


def test_what_is_expected_is_corrected_by_what_is_seen() -> None:
    (x, y), (z, truth) = problem(60), problem(200, seed=1)
    ensemble = ensemble_of("perceptron")
    ensemble.fit(x, y, features_of(6, mean=[-2.0] + [0.0] * 5), steps=0)
    assert rank_correlation(ensemble.predict(z)[0], truth) < 0  # which is wrong
    ensemble.fit(x, y, features_of(6, mean=[-2.0] + [0.0] * 5), steps=60)
    assert rank_correlation(ensemble.predict(z)[0], truth) > 0.8


@both
def test_a_feature_without_weight_does_not_matter(body: str) -> None:
    x, y = problem(20)
    ensemble = ensemble_of(body)
    ensemble.fit(x, y, features_of(6, base=[0.0, -60.0] + [0.0] * 4), steps=2)
    for k, matters in ((0, True), (1, False)):
        other = x.copy()
        other[:, k] = -other[:, k]
        assert np.allclose(ensemble.predict(x)[0], ensemble.predict(other)[0], atol=1e-5) != matters


# What the members differ by ---------------------------------------------------------------------------


@both
def test_members_disagree_more_where_nothing_is_known(body: str) -> None:
    x, y = problem(60)
    ensemble = ensemble_of(body)
    ensemble.fit(x, y, features_of(6), steps=60)
    away = 4 * np.sign(x)
    assert ensemble.predict(away)[1].mean() > 1.4 * ensemble.predict(x)[1].mean()


@both
def test_a_random_function_keeps_members_apart(body: str) -> None:
    x, y = problem(40)
    away = 4 * np.sign(x)
    deviations = []
    for scale in (0.0, 3.0):
        ensemble = ensemble_of(body, prior_scale=scale)
        ensemble.fit(x, y, features_of(6), steps=0)
        before = [parameter.clone() for parameter in ensemble.prior.parameters()]
        ensemble.fit(x, y, features_of(6), steps=20)
        assert all(map(torch.equal, before, ensemble.prior.parameters()))  # it learns nothing
        deviations.append(ensemble.predict(away)[1].mean())
    assert deviations[1] > 1.5 * deviations[0]


def test_the_random_function_is_not_what_learning_begins_with() -> None:
    ensemble = ensemble_of("perceptron")
    ensemble.fit(*problem(5), features_of(6), steps=0)
    assert isinstance(ensemble.body, Perceptrons)
    for one, other in zip(ensemble.body.parameters(), ensemble.prior.parameters(), strict=True):
        if one.any():  # else it is a bias that begins with 0
            assert np.corrcoef(one.detach().flatten(), other.detach().flatten())[0, 1] < 0.5


def test_members_learn_from_rows_of_their_own() -> None:
    """What a row says reaches the members that have it, and no other."""
    x, y = problem(20)
    values = []
    for row in (None, 3):
        ensemble = ensemble_of("perceptron")
        wrong = y.copy()
        if row is not None:
            wrong[row] += 5
        ensemble.fit(x, wrong, features_of(6), steps=3)
        values.append(ensemble.values(x))
    mask = ensemble.members(20)[3]
    assert 0 < mask.sum() < M  # else this shows nothing
    change = np.abs(values[1] - values[0]).max(axis=0)
    assert (change[mask] > 1e-2).all() and (change[~mask] < 1e-6).all()


def test_a_row_stays_with_its_members() -> None:
    ensemble = ensemble_of("perceptron")
    mask = ensemble.members(1_000)
    np.testing.assert_array_equal(ensemble.members(10), mask[:10])
    assert mask.shape == (1_000, M) and mask.any(axis=1).all()
    assert 0.65 < mask.mean() < 0.75 and not mask.all(axis=0).any()
    assert (ensemble_of("perceptron", seed=1).members(1_000) != mask).any()
    assert ensemble_of("perceptron", n_critics=1).members(1_000).all()


def test_a_single_member_has_a_deviation_that_can_be_divided_by() -> None:
    ensemble = ensemble_of("perceptron", n_critics=1)
    ensemble.fit(*problem(20), features_of(6), steps=1)
    assert (ensemble.predict(problem(20)[0])[1] > 0).all()


# Samples ----------------------------------------------------------------------------------------------


@both
def test_a_sample_is_what_one_member_expects(body: str) -> None:
    x, y = problem(30)
    ensemble = ensemble_of(body)
    ensemble.fit(x, y, features_of(6), steps=5)
    rng = np.random.default_rng(0)
    draws = np.unique([ensemble.sample(x, rng) for _ in range(60)], axis=0)
    assert len(draws) == M  # all of them, and no other
    mean, deviation = ensemble.predict(x)
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=1e-6)
    np.testing.assert_allclose(draws.std(axis=0, ddof=1), deviation, atol=1e-6)


# More features ----------------------------------------------------------------------------------------


@both
def test_new_features_change_nothing_where_they_are_0(body: str) -> None:
    x, y = problem(30)
    ensemble = ensemble_of(body)
    ensemble.fit(x, y, features_of(6), steps=20)
    before = ensemble.predict(x)
    padded = np.pad(x, [(0, 0), (0, 2)])
    ensemble.fit(padded, y, features_of(8, column=[*range(6), 6, 6], group=[*range(6), 2, 2]), steps=0)
    np.testing.assert_allclose(ensemble.predict(padded), before, atol=1e-5)
    assert not np.allclose(ensemble.predict(padded + np.eye(8)[6])[0], before[0], atol=1e-2)


@pytest.mark.slow
@both
def test_new_features_are_learned(body: str) -> None:
    x, y = problem(60)
    ensemble = ensemble_of(body)
    ensemble.fit(x[:30, :3], y[:30], features_of(3), steps=20)
    x[:30, 3:] = 0
    y = y + 2 * x[:, 5]
    ensemble.fit(x, y, features_of(6), steps=60)
    low, high = x[30:].copy(), x[30:].copy()
    low[:, 5], high[:, 5] = -0.7, 0.7
    gain = ensemble.predict(high)[0] - ensemble.predict(low)[0]
    assert 1.4 < gain.mean() < 3.5  # it is 2.8


def test_rows_are_the_same_whenever_they_come() -> None:
    at_once, one_by_one, other = Rows((2, 3), seed=(0,)), Rows((2, 3), seed=(0,)), Rows((2, 3), seed=(1,))
    at_once.grow(5)
    other.grow(5)
    for n in (1, 3, 2, 5):
        one_by_one.grow(n)
    assert at_once.weight.shape == (5, 2, 3) and at_once.weight.requires_grad
    assert torch.equal(at_once.weight, one_by_one.weight) and not torch.equal(at_once.weight, other.weight)


# The transformer's tokens -----------------------------------------------------------------------------


def test_a_token_is_values_group_and_column() -> None:
    body = ParameterTransformer(
        AgentConfig(n_candidates=0, width=4, heads=1, blocks=1, n_critics=2), seed=(0,)
    )
    body.grow(features_of(4, column=[0, 1, 0, 2], group=[1, 0, 1, 1]))
    x = torch.tensor([[2.0, 0.0, 3.0, 0.0], [0.0, 5.0, 0.0, 7.0], [0.0, 0.0, 0.0, 0.0]])
    feature, column, group = body.feature.weight, body.column.weight, body.group.weight
    tokens, there, which = body.tokens_of(x)
    assert which[0, 0] == 0 and which[1].tolist() == [1, 2]
    assert there.tolist() == [[True, False], [True, True], [False, False]]
    torch.testing.assert_close(tokens[0, 0], 2 * feature[0] + 3 * feature[2] + column[0] + group[1])
    torch.testing.assert_close(tokens[1, 0], 5 * feature[1] + column[1] + group[0])
    torch.testing.assert_close(tokens[1, 1], 7 * feature[3] + column[2] + group[1])


def test_parameters_that_a_network_lacks_do_not_matter() -> None:
    x, y = problem(30)
    x[:15, 4] = 0
    ensemble = ensemble_of("transformer")
    ensemble.fit(x, y, features_of(6), steps=5)
    before = ensemble.predict(x)[0]
    with torch.no_grad():
        ensemble.body.get_parameter("column.weight")[4] = 10 * torch.randn(
            16, generator=torch.Generator().manual_seed(0)
        )
    change = np.abs(ensemble.predict(x)[0] - before)
    assert (change[:15] < 1e-6).all() and (change[15:] > 1e-3).all()
    # Nor does the company of networks that have more.
    np.testing.assert_allclose(ensemble.predict(x[:5])[0], before[:5], atol=1e-5)


# Determinism ------------------------------------------------------------------------------------------


@both
def test_equal_seeds_give_equal_answers(body: str) -> None:
    x, y = problem(30)
    torch.manual_seed(3)
    before, legacy = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy()
    found = []
    for seed in (0, 0, 1):
        ensemble = ensemble_of(body, seed=seed)
        for n, k in ((20, 4), (30, 6)):
            ensemble.fit(x[:n, :k], y[:n], features_of(k), steps=2)
        found.append(ensemble.predict(x))
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.allclose(found[0][0], found[2][0])
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state(legacy=False)["state"]["key"], legacy)


@both
def test_a_pickled_ensemble_goes_on_alike(body: str) -> None:
    x, y = problem(30)
    ensemble = ensemble_of(body)
    ensemble.fit(x[:, :4], y, features_of(4), steps=2)
    other = pickle.loads(pickle.dumps(ensemble))
    for one in (ensemble, other):
        one.fit(x, y, features_of(6), steps=2)
    np.testing.assert_array_equal(ensemble.predict(x), other.predict(x))
    assert ensemble.noise == other.noise


def test_one_thread_is_used_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    forward = Perceptrons.forward

    def spy(self: Perceptrons, x: torch.Tensor) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return forward(self, x)

    monkeypatch.setattr(Perceptrons, "forward", spy)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        ensemble = ensemble_of("perceptron")
        ensemble.fit(*problem(5), features_of(6), steps=1)
        ensemble.predict(problem(5)[0])
        assert set(seen) == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(n_threads)


def test_another_body_is_refused() -> None:
    with pytest.raises(ValueError, match="body is 'tree'; it must be one of perceptron, transformer"):
        Ensemble(AgentConfig(), body="tree")


def test_attention_is_to_parameters_that_are_there() -> None:
    x, y = problem(30)
    x[:15, 4] = 0
    ensemble = ensemble_of("transformer")
    ensemble.fit(x, y, features_of(6), steps=5)
    weights = ensemble.attention(x)
    assert weights is not None
    assert weights.shape == (30, 2, 1 + 6)  # one block of two heads
    np.testing.assert_allclose(weights.sum(axis=2), 1, atol=1e-6)
    there = np.concatenate([np.ones((30, 1), dtype=bool), x != 0], axis=1)
    assert (weights.transpose(0, 2, 1)[~there] == 0).all() and (weights.transpose(0, 2, 1)[there] > 0).all()
    assert ensemble_of("perceptron").attention(x) is None
