"""`MultiAgentSampler`: its update, its turns, what the master combines, workers, and that it learns."""

import math

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_trlhpo.baselines import MultiAgentSampler
from optuna_trlhpo.baselines._planned import note_of
from optuna_trlhpo.baselines.q_learning.multi_agent import DEFAULT_ORDER, MultiAgentLearner, agents_in_turns
from optuna_trlhpo.baselines.q_learning.q_table import QTable
from tests.helpers import value_of

NAMES = ("fc_units", "conv1_filters", "conv1_kernel", "conv2_filters", "conv2_kernel", "lr")
TURNS = [["conv1_kernel", "conv2_kernel"], ["conv1_filters", "conv2_filters"], ["fc_units"], ["lr"]]


def sizes(trial):
    """Each of six parameters has its best value at 2, of 0 to 4."""
    return -sum(abs(trial.suggest_int(name, 0, 4) - 2) for name in NAMES)


def changes(trial, base):
    return {name for name in base.params if trial.params[name] != base.params[name]}


def test_the_update_by_hand():
    """Ranks of three trials, and two updates with a learning rate of .5 and a discount of .9."""
    choices: dict[str, BaseDistribution] = {"x": IntDistribution(0, 2)}
    learner = MultiAgentLearner(
        QTable(initial=0.0, learning_rate=0.5), direction=StudyDirection.MAXIMIZE, discount=0.9, n_bins=8
    )

    trials: list[FrozenTrial] = []

    def learn(number, value, x, **note):
        trial = optuna.trial.create_trial(
            params={"x": x}, distributions=choices, value=value, system_attrs={"baselines:note": note}
        )
        trial.number = number
        trials.append(trial)
        learner.learn(trial, ("study", number, None), lambda *purpose: np.random.default_rng(0))

    learn(0, 0.5, 1)
    learn(1, 0.2, 0, turn=0, agent="x", **{"from": 0})
    # The ranks of .5 and .2 are .75 and .25: a gain of -.5, and the master stays at 1.
    assert learner.table.rows["x", 1] == {0: -0.25, 1: 0.0, 2: 0.0}
    assert learner.best == trials[0] and learner.best_values(0) == {}
    learn(2, 0.9, 2, turn=0, agent="x", **{"from": 0})
    # The ranks are 5/6 and 1/2: a gain of 1/3. The state behind it is new, and its best value 0.
    assert learner.table.rows["x", 1] == {0: -0.25, 1: 0.0, 2: pytest.approx(1 / 6)}
    assert learner.best == trials[2] and learner.best_values(0) == {"x": 2}
    learn(3, 0.1, 1, turn=1, agent="x", **{"from": 2})
    # The ranks of .9 and .1 among four are 7/8 and 1/8: a gain of -.75.
    assert learner.table.rows["x", 2] == {0: 0.0, 1: pytest.approx(-0.375), 2: 0.0}
    learn(4, 0.4, 0, turn=2, agent="x", **{"from": 0})
    # The ranks of .5 and .4 among five are .7 and .5; the best value of the old state is 1/6.
    assert learner.table.rows["x", 1][0] == pytest.approx(-0.25 + 0.5 * (-0.2 + 0.9 / 6 + 0.25))


def test_agents_act_in_the_order_of_the_paper():
    """Filter sizes, filters, fully connected, and the rest; one change at a time from one configuration."""
    study = optuna.create_study(direction="maximize", sampler=MultiAgentSampler(n_startup_trials=1, seed=0))
    study.optimize(sizes, n_trials=25)
    first, *others = study.trials
    assert note_of(first) == {} and agents_in_turns(first, DEFAULT_ORDER) == TURNS
    by_turn: dict[int, list[str]] = {}
    for trial in others:
        note = note_of(trial)
        base = study.trials[note["from"]]
        if note["turn"] not in by_turn:  # a turn begins with the best so far
            assert base.value == max(value_of(it) for it in study.trials[: trial.number])
        if note["agent"]:
            assert changes(trial, base) == {note["agent"]}
        else:
            assert len(changes(trial, base)) > 1  # a combination by the master
        by_turn.setdefault(note["turn"], []).append(note["agent"])
    for turn, agents in list(by_turn.items())[:-1]:
        assert [agent for agent in agents if agent] == TURNS[turn % 4]


def test_the_master_combines_the_gains_of_a_turn():
    """Both filter sizes are better at another value, each alone and both together."""
    order = [["kernel"]]

    def objective(trial):
        return sum(trial.suggest_int(f"kernel{k}", 0, 1) for k in range(3))

    study = optuna.create_study(
        direction="maximize", sampler=MultiAgentSampler(n_startup_trials=1, order=order, seed=0)
    )
    study.enqueue_trial({f"kernel{k}": 0 for k in range(3)})
    study.optimize(objective, n_trials=5)
    assert [trial.value for trial in study.trials] == [0, 1, 1, 1, 3]
    assert [note_of(trial).get("agent") for trial in study.trials] == [
        None,
        "kernel0",
        "kernel1",
        "kernel2",
        "",
    ]
    assert [note_of(trial)["from"] for trial in study.trials[1:]] == [0] * 4


def test_workers_make_different_experiments_of_a_turn():
    study = optuna.create_study(direction="maximize", sampler=MultiAgentSampler(n_startup_trials=1, seed=0))
    study.optimize(sizes, n_trials=1)
    running = [study.ask() for _ in range(4)]
    for trial in running:
        sizes(trial)
    trials = study.get_trials(states=[TrialState.RUNNING])
    assert [note_of(trial)["agent"] for trial in trials] == [*TURNS[0], *TURNS[1]]
    assert {note_of(trial)["from"] for trial in trials} == {0}


def test_nothing_is_tried_twice_and_then_it_is_random():
    study = optuna.create_study(direction="maximize", sampler=MultiAgentSampler(n_startup_trials=1, seed=0))
    study.enqueue_trial({"x": 0, "y": 0})
    study.optimize(
        lambda trial: -trial.suggest_int("x", 0, 2) - trial.suggest_categorical("y", [0, 1, 2]), n_trials=20
    )
    # The first is the best: two other values of each of two agents.
    assert len({str(trial.params) for trial in study.trials[:5]}) == 5
    assert all(note_of(trial)["agent"] in ("x", "y") for trial in study.trials[1:5])
    assert all(note_of(trial) == {} for trial in study.trials[5:])
    assert len({str(trial.params) for trial in study.trials[5:]}) > 4


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_its_greedy_agents_reach_the_optimum(seed, direction):
    """One configuration of 5 ** 6: without random actions, in as many trials as there are values."""

    def objective(trial):
        return sizes(trial) if direction == "maximize" else -sizes(trial)

    sampler = MultiAgentSampler(n_startup_trials=1, epsilon=0.0, seed=seed)
    study = optuna.create_study(direction=direction, sampler=sampler)
    study.optimize(objective, n_trials=60)
    assert study.best_params == dict.fromkeys(NAMES, 2)


def test_agents_keep_what_they_have_learned():
    """An agent tries first what was better before from the same value, whatever the others have by now."""
    distributions: dict[str, BaseDistribution] = {
        "kind": CategoricalDistribution(["good", "bad", "worse"]),
        "y": IntDistribution(0, 99),
    }

    def chosen(seed, *, with_notes):
        sampler = MultiAgentSampler(n_startup_trials=1, epsilon=0.0, order=[["kind"]], seed=seed)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for kind, y, value, turn, agent, base in [
            ("bad", 0, 1.0, 0, "", 77),  # of a trial that the study does not have
            ("good", 0, 3.0, 0, "kind", 0),
            ("worse", 0, 0.0, 0, "kind", 0),
            ("good", 5, 2.0, 1, "y", 1),
            ("bad", 99, 9.0, 1, "", 1),
        ]:
            note = {"turn": turn, "agent": agent, "from": base} if with_notes else {}
            study.add_trial(
                optuna.create_trial(
                    params={"kind": kind, "y": y},
                    distributions=distributions,
                    value=value,
                    system_attrs={"baselines:note": note},
                )
            )
        trial = study.ask()
        kind = trial.suggest_categorical("kind", ["good", "bad", "worse"])
        assert trial.suggest_int("y", 0, 99) == 99
        return kind

    assert {chosen(seed, with_notes=True) for seed in range(10)} == {"good"}
    assert {chosen(seed, with_notes=False) for seed in range(10)} == {"good", "worse"}


def test_failed_and_infeasible_trials_never_become_the_masters():
    def objective(trial):
        x = trial.suggest_int("x", 0, 4)
        if x == 4:
            raise ValueError
        trial.set_constraint("x", x - 2)
        return float(x)

    study = optuna.create_study(direction="maximize", sampler=MultiAgentSampler(n_startup_trials=1, seed=0))
    study.enqueue_trial({"x": 4})
    study.enqueue_trial({"x": 3})
    study.enqueue_trial({"x": 0})
    study.optimize(objective, n_trials=12, catch=(ValueError,))
    bases = {study.trials[note_of(trial)["from"]].params["x"] for trial in study.trials if note_of(trial)}
    assert bases <= {0, 1, 2} and 2 in {trial.params["x"] for trial in study.trials}


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("epsilon", 1.5, "epsilon is 1.5; it must be between 0 and 1"),
        ("discount", math.nan, "discount is nan; it must be between 0 and 1"),
        ("learning_rate", 0, "learning_rate is 0; it must be a positive number"),
        ("order", "kernel", "order is 'kernel'; it must have a list of words for each turn"),
        ("order", ["kernel"], "order is .*; it must have a list of words for each turn"),
        ("order", [["kernel", ""]], "order is .*; it must have a list of words for each turn"),
    ],
)
def test_bad_arguments_are_named(name, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        MultiAgentSampler(**{name: value})
