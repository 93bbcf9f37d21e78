"""A budget in seconds: what is cheap comes first, as long as there is much time."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import optuna
import pytest
from optuna import Study, Trial

from optuna_trlhpo import AgentConfig, LayerSpace, TRLHPOSampler
from optuna_trlhpo.agent.time_budget import LogSeconds, TimeBudget
from optuna_trlhpo.trials.attributes import SAMPLER_ATTRIBUTE, read_from_study
from optuna_trlhpo.trials.durations import seconds_of

SPACE = LayerSpace(max_layers=3, min_accuracy=None, min_improvement=None)


def depth_costs(trial: Trial) -> float:
    """What follows the depth is as good at any depth, and each place takes ten times as long."""
    n = trial.suggest_int("depth", 1, 4)
    values = [trial.suggest_float(f"w{i}", 0, 1) for i in range(n)]
    trial.set_user_attr("seconds", 10.0**n)
    return statistics.fmean((value - 0.3) ** 2 for value in values)


def switch_costs(trial: Trial) -> float:
    slow = trial.suggest_categorical("slow", [True, False])
    trial.set_user_attr("seconds", 1000.0 if slow else 10.0)
    return (trial.suggest_float("rate", 1e-4, 1, log=True) - 0.1) ** 2


def layers_cost(trial: Trial) -> float:
    layers = SPACE.suggest(trial)
    trial.set_user_attr("seconds", SPACE.macs(layers) / 1e3)
    return sum(float(row.mean()) for row in SPACE.encode(layers)) / len(layers)


def spent(play: Any, budget: float | None, seed: int) -> float:
    study = optuna.create_study(sampler=TRLHPOSampler(seed=seed, time_budget=budget, layer_prior=False))
    study.optimize(play, n_trials=30)
    return sum(trial.user_attrs["seconds"] for trial in study.trials[10:])


@pytest.mark.parametrize(
    "play", [depth_costs, switch_costs, pytest.param(layers_cost, marks=pytest.mark.slow)]
)
def test_with_much_time_left_trials_take_less(play: Any) -> None:
    assert spent(play, 1e9, 0) < 0.7 * spent(play, None, 0)


@pytest.mark.parametrize("play", [depth_costs, pytest.param(layers_cost, marks=pytest.mark.slow)])
def test_a_budget_that_is_spent_changes_nothing(play: Any) -> None:
    def played(**arguments: Any) -> list[dict[str, Any]]:
        study = optuna.create_study(sampler=TRLHPOSampler(seed=4, **arguments))
        study.optimize(play, n_trials=14)
        return [trial.params for trial in study.trials]

    assert played(time_budget=1e-6) == played()


@pytest.mark.parametrize("play", [depth_costs, pytest.param(layers_cost, marks=pytest.mark.slow)])
def test_a_new_sampler_continues_as_the_uninterrupted_one(play: Any) -> None:
    def played(sessions: list[int]) -> list[dict[str, Any]]:
        study = optuna.create_study()
        for n_trials in sessions:
            study.sampler = TRLHPOSampler(seed=4, time_budget=5e5)
            study.optimize(play, n_trials=n_trials)
        return [trial.params for trial in study.trials]

    assert played([9, 1, 8]) == played([18])


def test_the_gain_that_is_stored_is_not_divided_by_seconds() -> None:
    def gains(budget: float | None) -> list[float]:
        study = optuna.create_study(sampler=TRLHPOSampler(seed=0, time_budget=budget))
        study.optimize(switch_costs, n_trials=12)
        return [
            trial.system_attrs["trlhpo:agent"]["gain"]
            for trial in study.trials
            if "gain" in trial.system_attrs["trlhpo:agent"]
        ]

    assert 0 < max(gains(1e9)) < 10 and 0 < max(gains(None)) < 10


def test_it_works_with_several_objectives_and_with_failures() -> None:
    def play(trial: Trial) -> tuple[float, float]:
        value = depth_costs(trial)
        if trial.number % 5 == 4:
            raise RuntimeError
        return value, trial.user_attrs["seconds"]

    study = optuna.create_study(
        directions=["minimize", "minimize"], sampler=TRLHPOSampler(seed=0, time_budget=1e5)
    )
    study.optimize(play, n_trials=20, catch=RuntimeError)
    assert len(study.trials) == 20


def test_seconds_are_those_of_the_trial_or_those_that_it_tells() -> None:
    def told(value: Any) -> float:
        return seconds_of(optuna.create_trial(value=1.0, user_attrs={"seconds": value}))

    assert told(3) == 3.0
    assert all(np.isnan(told(value)) for value in ("3", -1, 0, float("nan"), None, True))
    study = optuna.create_study()
    study.optimize(lambda trial: sum(range(10**6)) * 0.0, n_trials=1)
    assert 1e-4 < seconds_of(study.trials[0]) < 60
    running = study.ask()
    assert np.isnan(seconds_of(study.trials[running.number]))


def test_the_budget_is_the_share_that_is_left() -> None:
    budget = TimeBudget(10.0)
    for seconds in (4.0, "damaged", 5.0, 7.0):
        budget.spend(optuna.create_trial(value=1.0, user_attrs={"seconds": seconds}))
    assert budget.left == 0.0 and TimeBudget(None).left == 0.0


def test_equal_seconds_are_no_cost() -> None:
    assert LogSeconds(np.full(3, 20.0)).of(np.array([-5.0, 0.0, 5.0])).tolist() == [0.0, 0.0, 0.0]


def test_it_is_stored_with_the_study() -> None:
    study: Study = optuna.create_study(sampler=TRLHPOSampler(seed=0, time_budget=60))
    study.optimize(switch_costs, n_trials=2)
    assert read_from_study(study, SAMPLER_ATTRIBUTE)["time_budget"] == 60.0


@pytest.mark.parametrize("wrong", [0, -1, "60", float("inf"), float("nan"), True])
def test_a_wrong_budget_is_named(wrong: Any) -> None:
    with pytest.raises(ValueError, match=f"time_budget is {wrong!r}; it must be a positive number"):
        TRLHPOSampler(time_budget=wrong)


@pytest.mark.parametrize("agent", [AgentConfig(acquisition="thompson"), AgentConfig.paper()])
def test_it_needs_an_agent_that_expects_gains(agent: AgentConfig) -> None:
    with pytest.raises(
        ValueError, match=r"time_budget is 60; it must be None for an agent that expects no gain"
    ):
        TRLHPOSampler(time_budget=60, agent=agent)
