"""`MetaQNNSampler`: its update, its states, and that it learns."""

import math
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution

from optuna_trlhpo import LayerSpace
from optuna_trlhpo.baselines import MetaQNNSampler, MetaQNNSpace
from optuna_trlhpo.baselines.q_learning.metaqnn import PUBLISHED_SCHEDULE, Transition, replay
from optuna_trlhpo.baselines.q_learning.position import TrialPosition
from optuna_trlhpo.baselines.q_learning.q_sampler import EpsilonSchedule
from optuna_trlhpo.baselines.q_learning.q_table import QTable
from optuna_trlhpo.baselines.q_learning.representation import Representation, representation_of
from optuna_trlhpo.layers import MaxPool
from tests.helpers import value_of

GREEDY = ((0.0, 1),)


def test_the_update_of_the_paper_by_hand():
    """Two replays of three choices with alpha = .01 and gamma = 1, the last transition first."""
    table = QTable(initial=0.5, learning_rate=0.01)
    rows = [table.row(k, (0, 1)) for k in range(3)]
    transitions = [Transition(row, 1, (0, 1)) for row in rows]
    replay(table, transitions, reward=0.9)
    # .5 + .01 (.9 - .5), then .5 + .01 (.504 - .5), then .5 + .01 (.50004 - .5)
    assert [row[1] for row in rows] == pytest.approx([0.5000004, 0.50004, 0.504])
    replay(table, transitions, reward=0.2)
    # .504 + .01 (.2 - .504) = .50096; .50004 + .01 (.50096 - .50004) = .5000492; and so on
    assert rows[2][1] == pytest.approx(0.50096)
    assert rows[1][1] == pytest.approx(0.5000492)
    assert rows[0][1] == pytest.approx(0.5000004 + 0.01 * (0.5000492 - 0.5000004))
    replay(table, transitions[2:], reward=-50.0)
    assert rows[2][1] == pytest.approx(0.50096 + 0.01 * (-50 - 0.50096)) and rows[2][1] < 0
    # The action that was never taken is now the best of the last state, and its value is the target.
    before = rows[1][1]
    replay(table, transitions, reward=-50.0)
    assert rows[1][1] == pytest.approx(before + 0.01 * (0.5 - before))


def test_only_actions_of_the_next_state_count():
    """What another trial could choose there, and this one could not, is not its future."""
    table = QTable(initial=0.5, learning_rate=0.1)
    first, last = table.row("first", (0, 1)), table.row("last", (0, 1, 2))
    last[2] = 0.9
    replay(table, [Transition(first, 0, (0, 1)), Transition(last, 0, (0, 1))], reward=0.0)
    assert last[0] == pytest.approx(0.45) and first[0] == 0.5


def test_the_published_schedule():
    schedule = EpsilonSchedule(PUBLISHED_SCHEDULE, None)
    starts = {0: 1.0, 1500: 0.9, 1600: 0.8, 1700: 0.7, 1800: 0.6, 1950: 0.5, 2100: 0.4, 2250: 0.3, 2400: 0.2}
    for start, epsilon in (starts | {2550: 0.1, 10**6: 0.1}).items():
        assert schedule(start) == epsilon
        assert start == 0 or start == 10**6 or schedule(start - 1) > epsilon
    scaled = EpsilonSchedule(PUBLISHED_SCHEDULE, 27)
    assert [scaled(n) for n in (0, 14, 15, 16, 17, 18, 26)] == [1.0, 1.0, 0.9, 0.8, 0.7, 0.6, 0.1]


def test_epsilon_counts_different_networks():
    """A greedy sampler repeats its favourite; its schedule goes on only with new ones."""
    schedule = ((0.0, 3), (1.0, 1))
    study = optuna.create_study(
        direction="maximize", sampler=MetaQNNSampler(n_trials=None, epsilon_schedule=schedule, seed=0)
    )
    study.enqueue_trial({"x": 0})
    study.optimize(lambda trial: 1 - trial.suggest_int("x", 0, 2) / 10, n_trials=15)
    assert {trial.params["x"] for trial in study.trials} == {0}


# States ------------------------------------------------------------------------------------------------


def test_the_state_in_a_layer_space_is_the_published_one():
    """Depth, the layer before, the bucket of the image, and what belongs to no layer."""
    space = LayerSpace(input_shape=(1, 12, 12), max_layers=4)
    study = optuna.create_study()

    def states(params):
        trial = optuna.trial.FixedTrial({"lr": 0.5, "n_layers": 4} | params)
        position = TrialPosition(n_bins=4)
        found: dict[str, Any] = {}

        def pushed(name, distribution, value):
            found[name] = representation.state(position, name, distribution)
            position.push(name, distribution, value)

        trial.suggest_float("lr", 0, 1)
        space.suggest(trial)
        for name, value in trial.params.items():
            pushed(name, trial.distributions[name], value)
        return found

    trial = study.ask()
    space.suggest(trial)
    representation = representation_of(study)
    conv = {"kind": "Conv", "conv_filters": 8, "conv_kernel": 3, "conv_stride": 1}
    pool = {"kind": "MaxPool", "pool_kernel": 2, "pool_stride": 2, "pool_padding": 0}
    first, second, third, fourth = (
        {f"layer{k}_{name}": value for name, value in layer.items()}
        for k, layer in enumerate((conv, conv, conv, pool), start=1)
    )
    usual = states(first | second | third | fourth)
    # The image has 12, 10, 8 and 6 pixels before layers 1 to 4.
    assert [usual[f"layer{k}_kind"][-1] for k in (2, 3, 4)] == [8, 8, 4]
    wider = states(first | {"layer1_conv_filters": 128} | second | third | fourth)
    assert all(usual[name] != wider[name] for name in ("layer2_kind", "layer2_conv_kernel"))
    assert usual["layer3_kind"] == wider["layer3_kind"]  # the layer before last is forgotten
    assert usual["layer3_kind"] != usual["layer4_kind"]  # depth
    smaller = states(first | {"layer1_conv_kernel": 5} | second | third | fourth)
    assert usual["layer3_kind"] != smaller["layer3_kind"]  # the image has 6 pixels there
    other = states(first | second | third | fourth | {"lr": 0.9})
    assert usual["layer3_kind"] != other["layer3_kind"]


def test_elsewhere_a_state_has_all_choices_so_far():
    position, choices = TrialPosition(n_bins=4), CategoricalDistribution(["a", "b"])
    for name in ("x1", "x2", "x3"):
        position.push(name, choices, "b")
    assert Representation(None).state(position, "x4", choices) == ("x4", (("x1", 1), ("x2", 1), ("x3", 1)))


@pytest.mark.parametrize("settings", [None, 3, {}, {"input_shape": [1, -8, 8]}, {"input_shape": "abc"}])
def test_damaged_settings_of_a_space_are_ignored(settings):
    study = optuna.create_study(sampler=MetaQNNSampler(n_trials=5, seed=0))
    study.set_user_attr("layer_space", settings)
    study.optimize(
        lambda trial: float(trial.suggest_categorical("layer1_kind", ["Conv"]) == "Conv"), n_trials=5
    )
    assert len(study.get_trials(states=[optuna.trial.TrialState.COMPLETE])) == 5


# Learning ----------------------------------------------------------------------------------------------


def greedy_params(study, objective):
    study.sampler = MetaQNNSampler(epsilon_schedule=GREEDY, seed=1)
    study.optimize(objective, n_trials=1)
    return study.trials[-1].params


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_its_greedy_policy_reaches_the_optimum(seed, direction, scale):
    """The best last choice depends on the first; values are accuracies, errors, or of another unit."""

    def objective(trial):
        first = trial.suggest_categorical("first", [0, 1, 2])
        second = trial.suggest_int("second", 0, 2)
        third = trial.suggest_categorical("third", ["p", "q", "r"])
        error = 0.2 * abs(first - 2) + 0.1 * abs(second - 1) + 0.3 * ("pqr".index(third) != (first + 1) % 3)
        return scale * error if direction == "minimize" else scale * (1 - error)

    study = optuna.create_study(direction=direction, sampler=MetaQNNSampler(n_trials=80, seed=seed))
    study.optimize(objective, n_trials=80)
    assert greedy_params(study, objective) == {"first": 2, "second": 1, "third": "p"}


def test_it_learns_on_its_own_space():
    """Fully connected layers of 256 neurons on 7x7 images are right, and a wrong one costs."""
    space = MetaQNNSpace(input_shape=(1, 7, 7), max_layers=3)

    def accuracy(trial):
        names = [str(layer) for layer in space.suggest(trial)]
        return 0.3 + 0.3 * names.count("FCL(256,relu,bias)") - 0.1 * sum("Conv" in name for name in names)

    study = optuna.create_study(direction="maximize", sampler=MetaQNNSampler(n_trials=60, seed=0))
    study.optimize(accuracy, n_trials=300)
    best = greedy_params(study, accuracy)
    assert best == {
        "layer1_metaqnn_medium_start": "FCL(256,relu,bias)",
        "layer2_metaqnn_dense_256": "FCL(256,relu,bias)",
    }
    values = [value_of(trial) for trial in study.trials]
    assert np.mean(values[250:300]) > np.mean(values[:30]) + 0.2


@pytest.mark.parametrize("seed", range(2))
def test_it_learns_on_table_1(seed):
    """Pooling layers are right, and the late networks have more of them than the first ones."""
    space = LayerSpace(max_layers=4)

    def accuracy(trial):
        network = space.suggest(trial)
        return 0.5 + sum(isinstance(layer, MaxPool) for layer in network) / 8

    study = optuna.create_study(direction="maximize", sampler=MetaQNNSampler(n_trials=100, seed=seed))
    study.optimize(accuracy, n_trials=150)
    values = [value_of(trial) for trial in study.trials]
    assert np.mean(values[120:]) > np.mean(values[:50]) + 0.03


def test_failures_are_learned():
    """A greedy sampler leaves a choice that always fails."""

    def objective(trial):
        if trial.suggest_categorical("x", ["fails", "works"]) == "fails":
            raise ValueError
        return 0.6

    study = optuna.create_study(direction="maximize", sampler=MetaQNNSampler(epsilon_schedule=GREEDY, seed=0))
    study.enqueue_trial({"x": "fails"})
    study.optimize(objective, n_trials=10, catch=(ValueError,))
    assert [trial.params["x"] for trial in study.trials[1:]] == ["works"] * 9


def test_infeasible_trials_are_the_worst():
    def objective(trial):
        x = trial.suggest_categorical("x", ["large", "small"])
        trial.set_constraint("bytes", 1.0 if x == "large" else -1.0)
        return 0.9 if x == "large" else 0.6

    study = optuna.create_study(direction="maximize", sampler=MetaQNNSampler(epsilon_schedule=GREEDY, seed=0))
    study.enqueue_trial({"x": "large"})
    study.optimize(objective, n_trials=6)
    assert [trial.params["x"] for trial in study.trials[1:]] == ["small"] * 5


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("learning_rate", 0, "learning_rate is 0; it must be a positive number"),
        ("learning_rate", 1.5, "learning_rate is 1.5; it must be at most 1"),
        ("initial_value", -0.1, "initial_value is -0.1; it must be between 0 and 1"),
        ("initial_value", math.nan, "initial_value is nan; it must be between 0 and 1"),
        ("n_trials", 0, "n_trials is 0; it must be an integer of at least 1, or None"),
    ],
)
def test_bad_arguments_are_named(name, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        MetaQNNSampler(**{name: value})
