"""What the evaluator counts, what it draws, and how a study ends on it."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from optuna_trlhpo.benchmarks.problems.problem import BudgetExhausted, Evaluator, Problem


class Told(Problem):
    """A problem with observed and true values that are given, so that all can be said in advance."""

    def __init__(self, values, direction="maximize"):
        self.values = values  # network -> (observed, regret)
        self.direction = direction

    def observe(self, network, rng):
        return self.values[network][0]

    def true_value(self, network):
        raise NotImplementedError

    def play(self, form, trial, train):
        raise NotImplementedError

    def regret(self, network):
        return self.values[network][1]


def test_only_the_first_training_of_a_network_costs():
    evaluator = Evaluator(Told({"a": (0.5, 3.0), "b": (0.4, 2.0)}), seed=0, budget=2)
    assert [evaluator.train(network) for network in "abba"] == [0.5, 0.4, 0.4, 0.5]
    assert (evaluator.trainings, evaluator.hits) == (2, 2)
    assert evaluator.exhausted


def test_beyond_the_budget_known_networks_are_free_and_others_refused():
    evaluator = Evaluator(Told({"a": (0.5, 3.0), "b": (0.4, 2.0)}), seed=0, budget=1)
    evaluator.train("a")
    with pytest.raises(BudgetExhausted, match="all 1 trainings"):
        evaluator.train("b")
    assert evaluator.train("a") == 0.5
    assert (evaluator.trainings, evaluator.hits) == (1, 1)


def test_the_curve_is_the_true_regret_of_the_best_observed():
    # c looks better than b and is worse; d changes nothing; e looks as good as c, but later; f looks best
    # and has the regret of c.
    values = {
        "a": (0.2, 9.0),
        "b": (0.5, 1.0),
        "c": (0.6, 4.0),
        "d": (0.3, 0.0),
        "e": (0.6, 2.0),
        "f": (0.7, 4.0),
    }
    evaluator = Evaluator(Told(values), seed=0, budget=6)
    for network in "abacdef":
        evaluator.train(network)
    assert evaluator.curve == [[1, 9.0], [2, 1.0], [3, 4.0]]


def test_a_loss_is_better_where_it_is_smaller():
    evaluator = Evaluator(Told({"a": (0.2, 1.0), "b": (0.5, 2.0), "c": (0.1, 0.5)}, "minimize"), 0, 3)
    for network in "abc":
        evaluator.train(network)
    assert evaluator.curve == [[1, 1.0], [3, 0.5]]


def test_a_value_depends_on_seed_and_network_alone(toy):
    def values(networks, seed):
        evaluator = Evaluator(toy, seed, budget=10)
        return {network: evaluator.train(network) for network in networks}

    assert values("0123", seed=1) == values("3210", seed=1)
    assert values("0123", seed=1)["3"] == values("3", seed=1)["3"]
    assert values("3", seed=1) != values("3", seed=2)
    noise = [value - toy.true_value(network) for network, value in values("0123456789", seed=1).items()]
    assert len(set(np.round(noise, 6))) == 10


def test_samplers_compared_on_one_seed_see_the_same_values(toy):
    seen = []
    for sampler in (optuna.samplers.RandomSampler(0), optuna.samplers.TPESampler(seed=5)):
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.optimize(toy.objective("terminal", seed=3, budget=10), n_trials=60)
        assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
        seen.append({trial.params["digit"]: trial.value for trial in study.trials})
    shared = seen[0].keys() & seen[1].keys()
    assert len(shared) > 3
    assert all(seen[0][digit] == seen[1][digit] for digit in shared)


def test_running_out_of_budget_prunes_the_trial_and_keeps_its_reports():
    class Deep(Told):
        forms = ("progressive",)

    problem = Deep({"a": (0.5, 3.0), "b": (0.6, 2.0)})
    evaluator = Evaluator(problem, seed=0, budget=1)

    def objective(trial):
        for k, network in enumerate("ab"):
            trial.report(evaluator.train(network), step=k)

    study = optuna.create_study(direction="maximize")
    study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    assert trial.state == TrialState.PRUNED
    assert (trial.value, trial.intermediate_values) == (0.5, {0: 0.5})


def test_wrong_arguments_are_named(toy):
    toy.forms = ("terminal",)
    with pytest.raises(ValueError, match="form is 'progressive'; toy has 'terminal'"):
        toy.objective("progressive", seed=0, budget=1)
    with pytest.raises(ValueError, match="budget is 0"):
        toy.objective("terminal", seed=0, budget=0)
