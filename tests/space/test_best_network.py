"""The best network of a study or trial, which is often a prefix of what was grown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import optuna
import pytest
from optuna.trial import Trial, TrialState

from optuna_trlhpo import LayerSpace
from optuna_trlhpo.kinds import CNN

SPACE = LayerSpace(max_layers=4, min_accuracy=None, min_improvement=None)


def played(
    reports: Sequence[Sequence[float]],
    *,
    returns: str = "best",
    direction: Literal["maximize", "minimize"] = "maximize",
    space: LayerSpace = SPACE,
) -> optuna.Study:
    """A study whose trials grow a layer for each of their reports."""
    best = max if direction == "maximize" else min

    def objective(trial: Trial) -> float:
        mine = reports[trial.number]
        for layers, value in zip(space.grow(trial), mine, strict=False):
            trial.report(value, step=len(layers) - 1)
        return {"best": best(mine), "last": mine[-1], "other": -7.0}[returns]

    study = optuna.create_study(direction=direction, sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=len(reports))
    return study


@pytest.mark.parametrize("space", [SPACE, LayerSpace(max_layers=4, min_improvement=None, vocabulary=CNN)])
def test_it_is_the_prefix_with_the_best_report(space: LayerSpace) -> None:
    study = played([[0.7, 0.8, 0.6, 0.5], [0.7, 0.75, 0.9, 0.8]], space=space)
    network = space.best_network(study)
    assert len(network) == 3
    assert network == space.from_params(study.trials[1].params)[:3]
    assert len(space.best_network(study, study.trials[0])) == 2


def test_of_errors_the_least_is_best() -> None:
    study = played([[0.3, 0.1, 0.2, 0.4]], direction="minimize")
    assert len(SPACE.best_network(study)) == 2


def test_an_objective_that_returns_the_last_report_has_the_last_network() -> None:
    assert len(SPACE.best_network(played([[0.7, 0.9, 0.8]], returns="last"))) == 3


def test_where_the_value_is_no_report_the_best_report_counts() -> None:
    assert len(SPACE.best_network(played([[0.7, 0.9, 0.8]], returns="other"))) == 2
    assert len(SPACE.best_network(played([[0.7, math.nan, 0.6]], returns="other"))) == 1


def test_of_equal_reports_the_smaller_network_counts() -> None:
    assert len(SPACE.best_network(played([[0.7, 0.9, 0.9, 0.9]]))) == 2


def test_without_reports_of_layers_it_is_the_whole_network() -> None:
    def suggested(trial: Trial) -> float:
        return 0.1 * len(SPACE.suggest(trial))

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(suggested, n_trials=5)
    assert SPACE.best_network(study) == SPACE.from_params(study.best_params)


@pytest.mark.parametrize("epochs", [3, 20])
def test_reports_of_epochs_are_not_of_prefixes(epochs: int) -> None:
    """A network that is suggested whole was trained whole, however few epochs there are."""

    def objective(trial: Trial) -> float:
        SPACE.suggest(trial)
        for epoch in range(epochs):
            trial.report(0.8 if epoch else 0.9, step=epoch)
        return 0.9

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=6)
    assert max(len(SPACE.from_params(trial.params)) for trial in study.trials) > 2
    for trial in study.trials:
        assert SPACE.best_network(study, trial) == SPACE.from_params(trial.params)


def test_the_best_of_a_pruned_trial_is_not_its_last() -> None:
    """Optuna takes the last report for its value."""
    space = LayerSpace(max_layers=4, min_accuracy=None, min_improvement=None, train_prefixes="all")

    def objective(trial: Trial) -> float:
        for layers, value in zip(space.grow(trial), [0.7, 0.9, 0.6], strict=False):
            trial.report(value, step=len(layers) - 1)
        raise optuna.TrialPruned

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=1)
    assert study.trials[0].value == 0.6
    assert len(space.best_network(study, study.trials[0])) == 2


def test_a_trial_of_several_objectives_is_named() -> None:
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=0)
    )
    study.optimize(lambda trial: (len(layers := SPACE.suggest(trial)), SPACE.macs(layers)), n_trials=3)
    with pytest.raises(ValueError, match="the study has 2 objectives; name a trial"):
        SPACE.best_network(study)
    trial = study.best_trials[0]
    assert SPACE.best_network(study, trial) == SPACE.from_params(trial.params)


def test_a_study_without_a_network_is_refused() -> None:
    empty = optuna.create_study()
    with pytest.raises(ValueError, match="No trials are completed yet"):
        SPACE.best_network(empty)
    empty.optimize(lambda trial: trial.suggest_float("lr", 0, 1), n_trials=1)
    with pytest.raises(ValueError, match="trial 0 has no layers; its parameters are .*lr"):
        SPACE.best_network(empty)


def test_other_parameters_and_pruned_trials_do_not_matter() -> None:
    def objective(trial: Trial) -> float:
        trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        value = 0.0
        for layers in SPACE.grow(trial):
            value = 0.5 if len(layers) == 2 else 0.4
            trial.report(value, step=len(layers) - 1)
            if trial.number == 1:
                trial.report(0.9, step=3)
                raise optuna.TrialPruned
        return 0.5

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1))
    study.optimize(objective, n_trials=2)
    assert study.trials[1].state == TrialState.PRUNED
    assert SPACE.best_network(study) == SPACE.from_params(study.trials[0].params)[:2]
