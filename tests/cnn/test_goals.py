"""Search where cost counts: hard limits, goals that weigh a cost, and several objectives."""

from __future__ import annotations

import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from optuna_trlhpo import TRLHPOSampler
from optuna_trlhpo.cnn import best_network, goals
from optuna_trlhpo.cnn import objective as module
from optuna_trlhpo.cnn.goals import Counts, count, mixture, weighted_product
from optuna_trlhpo.cnn.timing_lock import TimingLock
from optuna_trlhpo.cnn.training.trainer import Trainer
from optuna_trlhpo.layers import describe, parse
from optuna_trlhpo.layers.kinds import CNN
from tests.cnn.test_objective import THREE, make, make_params, run, with_accuracies

COUNTS = Counts(macs=2_000_000, parameters=10_000, activation_bytes=5_000, layers=3)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A latency is measured in a moment: no test is about how exact it is."""
    monkeypatch.setattr(best_network, "SECONDS_OF_LATENCY", 0.002)


# Goals


def test_mnasnets_product_by_hand() -> None:
    goal = weighted_product("macs", 1e6)
    assert goal(0.9, COUNTS) == pytest.approx(0.9 * 2**-0.07)
    assert goal(0.9, COUNTS._replace(macs=500_000)) == pytest.approx(0.9 * 2**0.07)
    assert weighted_product("parameters", 10_000, exponent=-1)(0.8, COUNTS) == pytest.approx(0.8)


def test_numbers_of_numpy_are_numbers() -> None:
    target, exponent = np.int64(10**6), np.float32(-0.5)
    goal = weighted_product("macs", target, exponent=exponent)  # type: ignore[arg-type]
    assert goal(0.9, COUNTS) == pytest.approx(0.9 * 2**-0.5)
    make(max_latency=np.float64(1.0))


def test_the_mixture_by_hand() -> None:
    goal = mixture("parameters", 20_000, weight=0.75)
    assert goal(0.8, COUNTS) == pytest.approx(0.75 * 0.8 - 0.25 * 0.5)
    assert goal(0.8, COUNTS._replace(parameters=10**9)) == pytest.approx(0.75 * 0.8 - 0.25)


@pytest.mark.parametrize(
    ("make_goal", "message"),
    [
        (lambda: weighted_product("energy", 1), "cost is 'energy'; it must be one of macs, parameters"),
        (lambda: weighted_product("macs", 0), "target is 0; it must be a positive number"),
        (
            lambda: weighted_product("macs", 1, exponent=0.1),
            "exponent is 0.1; it must be a number of at most 0",
        ),
        (
            lambda: weighted_product("macs", 1, exponent="x"),  # type: ignore[arg-type]
            "exponent is 'x'; it must be a number of at most 0",
        ),
        (lambda: weighted_product("macs", True), "target is True; it must be a positive number"),
        (
            lambda: mixture("macs", 1, weight="x"),  # type: ignore[arg-type]
            "weight is 'x'; it must be between 0 and 1",
        ),
        (lambda: mixture("macs", 1, weight=1.5), "weight is 1.5; it must be between 0 and 1"),
    ],
)
def test_a_goal_that_cannot_be(make_goal: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_goal()


def test_a_trial_is_worth_what_the_goal_says(monkeypatch: pytest.MonkeyPatch) -> None:
    with_accuracies(monkeypatch, 0.8, 0.9, 0.95)
    objective = make(goal=lambda accuracy, counts: accuracy - 0.1 * counts.layers)
    trial = run(objective, network=THREE).best_trial
    assert [round(value, 6) for value in trial.intermediate_values.values()] == [0.7, 0.7, 0.65]
    assert trial.value == pytest.approx(0.7) and trial.user_attrs["accuracy"] == 0.8
    assert trial.user_attrs["architecture"] == "Conv(8,3,1)"  # of equals the smaller


def test_the_table_shows_accuracies_whatever_the_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    with_accuracies(monkeypatch, 0.5, 0.8, 0.95)
    objective = make(goal=lambda accuracy, counts: accuracy / 2)
    table = objective.table(run(objective, network=THREE).best_trial).splitlines()
    assert [line.split()[2:4] for line in table[2:5]] == [
        ["0.5000", "+0.5000"],
        ["0.8000", "+0.3000"],
        ["0.9500", "+0.1500"],
    ]
    assert "0.9500" in table[-1]


def test_growth_stops_where_a_layer_costs_more_than_it_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    with_accuracies(monkeypatch, 0.8, 0.82, 0.95)
    objective = make(goal=lambda accuracy, counts: accuracy - 0.1 * counts.layers, min_improvement=0.0)
    assert list(run(objective, network=THREE).best_trial.intermediate_values) == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "goal", [weighted_product("macs", 1e6), mixture("macs", 1e3, weight=0.3), mixture("macs", 1e5)], ids=str
)
def test_any_goal_is_searched_for_with_the_papers_stop_rules(
    goal: goals.Goal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_accuracies(monkeypatch, 0.8, 0.95, 1.0)
    study = run(make(goal=goal, min_improvement=0.001, min_accuracy=0.6), 8, sampler=TRLHPOSampler(seed=0))
    assert len(study.trials) == 8
    values = [value for trial in study.trials for value in trial.intermediate_values.values()]
    assert not all(0 <= value <= 1 for value in values) or goal == mixture("macs", 1e5)


def test_min_accuracy_is_held_against_the_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    with_accuracies(monkeypatch, 0.7, 0.5, 0.9)
    objective = make(goal=lambda accuracy, counts: 10 + counts.layers, min_accuracy=0.6)
    assert list(run(objective, network=THREE).best_trial.intermediate_values.values()) == [11, 12]


def test_a_network_is_looked_up_by_its_accuracy_whatever_the_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    with_accuracies(monkeypatch, 0.8, 0.9, 0.95)
    study = run(make(goal=lambda accuracy, counts: accuracy / 2), network=THREE)
    study.enqueue_trial(make_params(THREE))
    study.optimize(make(), n_trials=1)
    assert list(study.trials[1].intermediate_values.values()) == [0.8, 0.9, 0.95]


def test_leaders_are_confirmed_by_the_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = make(goal=weighted_product("macs", 1e4, exponent=-1.0), max_layers=1)
    study = run(objective, 6)
    rows = objective.confirm(study, top=4, repeats=1)
    values = [row.mean * 1e4 / row.macs for row in rows]
    assert values == sorted(values, reverse=True) and len(set(values)) > 2
    assert {row.observed for row in rows} <= {trial.user_attrs["accuracy"] for trial in study.trials}


def test_an_objective_with_a_goal_goes_to_other_processes() -> None:
    objective = make(goal=weighted_product("macs", 1e4))
    assert pickle.loads(pickle.dumps(objective)).goal == objective.goal


# Limits


@pytest.mark.slow
@pytest.mark.parametrize(
    "limits",
    [
        {"max_parameters": 600},
        {"max_parameters": 300, "max_macs": 3e3},
        {"max_activation_bytes": 1500, "max_parameters": 900},
        {"max_parameters": 900, "vocabulary": CNN},
    ],
    ids=str,
)
def test_no_trained_network_exceeds_a_limit(limits: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[Any] = []
    with_accuracies(monkeypatch, 0.5, 0.6, 0.7)
    fake = Trainer.validate

    def noting(self: Trainer, layers: Any, **more: Any) -> Any:
        trained.append(layers)
        return fake(self, layers, **more)

    monkeypatch.setattr(Trainer, "validate", noting)
    for sampler in (optuna.samplers.RandomSampler(seed=1), TRLHPOSampler(seed=0)):
        objective = make(**{"max_macs": None} | limits)
        study = run(objective, 15, sampler=sampler)
        assert trained
        for layers in trained:
            counts = count(objective.space, layers)
            for name in ("macs", "parameters", "activation_bytes"):
                assert getattr(counts, name) <= (limits.get(f"max_{name}") or float("inf"))
        assert all(
            trial.state == TrialState.COMPLETE or trial.constraints["max_parameters"] > 0
            for trial in study.trials
        )


def test_a_network_on_the_way_may_exceed_the_parameters_by_its_classifier() -> None:
    """That of the convolution alone has 36 * 8 inputs for 2 classes; behind the pooling there are 8."""
    space = make(max_parameters=100).space
    layers = parse("Conv(8,3,1) > MaxPool(6,1,0)")
    assert space.parameters(layers[:1]) == 80 + 289 * 2 and space.parameters(layers) == 80 + 18
    study = optuna.create_study()
    study.enqueue_trial(space.to_params(layers))
    trial = study.ask()
    assert [len(network) for network in space.grow(trial)][:1] == [2]
    with pytest.raises(ValueError, match=r"has 658 parameters; at most 100 are allowed"):
        space.check(layers[:1])


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (
            {"max_parameters": 40},
            r"max_parameters is 40; the cheapest network of this space takes 98 parameters",
        ),
        (
            {"max_activation_bytes": 90},
            r"max_activation_bytes is 90; the cheapest first layer with a classifier takes 288 bytes",
        ),
        ({"max_parameters": 0}, "max_parameters is 0; it must be positive, or None"),
        ({"max_latency": "fast"}, "max_latency is 'fast'; it must be a positive number"),
        ({"vocabulary": "cnn"}, "vocabulary is 'cnn'; it must be a Vocabulary, such as TABLE_I"),
        ({"max_latency": -1.0}, "max_latency is -1.0; it must be a positive number"),
    ],
)
def test_a_limit_that_nothing_meets_is_refused_at_once(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**limits)


def with_latencies(monkeypatch: pytest.MonkeyPatch, *seconds: float) -> None:
    """From now on networks of 1, 2, ... layers take so long, and the least of all no time."""

    def fake(layers: Any, *_: Any) -> float:
        return 0.0 if layers == parse("Conv(8,3,3)") else seconds[len(layers) - 1]

    monkeypatch.setattr(best_network, "latency_of", fake)


def test_a_network_that_is_too_slow_is_not_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    with_accuracies(monkeypatch, 0.5, 0.6, 0.7)
    with_latencies(monkeypatch, 0.001, 0.002, 0.003)
    trial = run(make(max_latency=0.0025), network=THREE).trials[0]
    assert list(trial.intermediate_values) == [0, 1] and trial.state == TrialState.COMPLETE
    trial = run(make(max_latency=0.0005), network=THREE).trials[0]
    assert trial.state == TrialState.PRUNED and not trial.intermediate_values
    assert trial.constraints == {"latency": pytest.approx(0.0005)}


@pytest.mark.slow
def test_the_sampler_learns_from_infeasible_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    with_latencies(monkeypatch, 1.0, 1.0)
    study = run(make(max_latency=0.5, max_layers=2), 10, sampler=TRLHPOSampler(seed=0))
    infeasible = [trial for trial in study.trials if trial.state == TrialState.PRUNED]
    assert infeasible and all(trial.constraints["latency"] == 0.5 for trial in infeasible)


def test_a_latency_that_nothing_meets_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"max_latency is 1e-09 s; .* one layer, Conv\(8,3,3\), takes .* s"):
        make(max_latency=1e-9)


def test_a_network_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a trial is told to take is what it was let through with, though no two measurements are equal."""
    measured: list[str] = []

    def noting(layers: Any, *_: Any) -> float:
        measured.append(describe(layers))
        return 0.001 * len(measured)

    monkeypatch.setattr(best_network, "latency_of", noting)
    objective = make(objectives=("accuracy", "latency"), max_latency=0.03, epochs=1)
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=0)
    )
    for _ in range(2):
        study.enqueue_trial({"n_layers": 3, **make_params(THREE)})
    study.optimize(objective, n_trials=6)
    assert measured.count(THREE) == 1 and study.trials[0].values[1] == study.trials[1].values[1] <= 0.03
    study.enqueue_trial({"n_layers": 3, **make_params(THREE)})
    study.optimize(pickle.loads(pickle.dumps(objective)), n_trials=1)
    assert measured.count(THREE) == 2  # another machine measures its own


def test_nothing_trains_while_latency_is_measured() -> None:
    machine, going, most = TimingLock(), [0, 0], [0, 0]

    def work(kind: int) -> None:
        for _ in range(20):
            with machine.measuring() if kind else machine.training():
                going[kind] += 1
                most[kind] = max(most[kind], going[kind])
                assert not (going[0] and going[1])
                time.sleep(0.001)
                going[kind] -= 1

    with ThreadPoolExecutor(5) as pool:
        for outcome in [pool.submit(work, kind) for kind in (0, 0, 0, 1, 1)]:
            outcome.result(timeout=60)
    assert most[0] > 1 == most[1]


def test_threads_search_within_a_latency() -> None:
    objective = make(max_latency=0.5, epochs=1)
    # The default pruner may end the sixth trial, by which have ended before.
    sampler, pruner = optuna.samplers.RandomSampler(seed=0), optuna.pruners.NopPruner()
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    study.optimize(objective, n_trials=6, n_jobs=3)
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)


# Several objectives


@pytest.mark.slow
def test_several_objectives_are_the_values_of_one_training(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = make(objectives=("accuracy", "macs", "parameters", "latency"))
    study = optuna.create_study(
        directions=["maximize", "minimize", "minimize", "minimize"], sampler=TRLHPOSampler(seed=0)
    )
    study.optimize(objective, n_trials=12)
    assert len(study.best_trials) >= 1
    for trial in study.trials:
        layers = parse(trial.user_attrs["architecture"])
        accuracy, macs, parameters, latency = trial.values
        assert (macs, parameters) == (objective.space.macs(layers), objective.space.parameters(layers))
        assert 0 <= accuracy <= 1 and 0 < latency < 1
    again = study.trials[0]
    study.enqueue_trial(again.params)
    study.optimize(objective, n_trials=1)
    assert study.trials[-1].values[:3] == again.values[:3]
    assert "=" in study.trials[-1].user_attrs["trainings"]


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        (("macs",), "objectives is .*; it must be accuracy, alone or with some of macs"),
        (None, "objectives is None; it must be accuracy, alone or with some of macs"),
        (("accuracy", "energy"), "it must be accuracy, alone or with some of macs"),
        (("accuracy", "macs", "macs"), "it must be accuracy, alone"),
    ],
)
def test_objectives_that_cannot_be(objectives: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(objectives=objectives)


def test_a_goal_and_several_objectives_exclude_one_another() -> None:
    with pytest.raises(ValueError, match="with a goal, .* the only objective must be accuracy"):
        make(objectives=("accuracy", "macs"), goal=weighted_product("macs", 1e6))
    with pytest.raises(ValueError, match="goal is 'small'; it must be a function"):
        make(goal="small")


def test_the_directions_must_be_those_of_the_objectives() -> None:
    with pytest.raises(ValueError, match=r"create it with directions=\['maximize', 'minimize'\]"):
        make(objectives=("accuracy", "macs"))(optuna.create_study(directions=["maximize"] * 2).ask())


def test_goals_are_where_the_docs_say() -> None:
    assert module.Goal is goals.Goal
