"""Where values decide which parameters there are: which sorts of configurations are looked at."""

from __future__ import annotations

from collections import Counter

import optuna
import pytest

from optuna_trlhpo import AgentConfig, TRLHPOSampler


def two_models(trial):
    """Nearly all of "rough" is worse than "smooth", and its best is much better."""
    if trial.suggest_categorical("model", ["smooth", "rough"]) == "smooth":
        return 1.0 + (trial.suggest_float("depth", 0, 1) - 0.3) ** 2
    width, rate = trial.suggest_float("width", 0, 1), trial.suggest_float("rate", 0, 1)
    return min(3.0, 8 * abs(width - 0.4) + 8 * abs(rate - 0.7))


def _slow(seed):
    return pytest.param(seed, marks=pytest.mark.slow)


def optimized(objective, seed, n_trials=60, **settings):
    sampler = TRLHPOSampler(seed=seed, agent=AgentConfig(**settings))
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=n_trials)
    return study


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2000, _slow(2001), _slow(2002)])
def test_a_sort_that_looks_worse_is_not_given_up(seed):
    trials = optimized(two_models, seed).trials[20:]
    assert Counter(trial.params["model"] for trial in trials)["rough"] >= 10


@pytest.mark.slow
def test_a_sort_that_is_rarely_good_is_found():
    best = sorted(optimized(two_models, seed).best_value for seed in (2000, 2001, 2002))
    assert best[1] < 1.0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2000, _slow(2001)])
def test_a_loop_that_ends_early_is_not_counted_again(seed):
    def objective(trial):
        n, units = trial.suggest_int("n", 1, 6), []
        for i in range(n):
            units.append(trial.suggest_int(f"units_{i}", 1, 8))
            if units[0] >= 5:
                break
        networks.append(tuple(units))
        return abs(sum(u * (i + 1) for i, u in enumerate(units)) - 13)

    networks: list[tuple[int, ...]] = []
    optimized(objective, seed)
    assert len(networks) - len(set(networks)) <= 6  # at random, or before it is known; 20 otherwise
