"""`LayerwiseQSampler`: its update, several objectives and constraints, and that it learns."""

import math

import numpy as np
import optuna
import pytest

from optuna_trlhpo.baselines import LayerwiseQSampler
from optuna_trlhpo.baselines.q_learning.layerwise import LinkedTables, replay_choices

GREEDY = ((0.0, 1),)


def test_the_update_by_hand():
    """Three layers, the second of two parameters, with a learning rate of .1 and a link of .25."""
    tables = LinkedTables(learning_rate=0.1)
    one = tables.cell("one", (), 1, (0, 1))
    two = tables.cell("two", (("one", 1),), 0, (0, 1))
    more = tables.cell("more", (("one", 1),), 1, (0, 1))
    three = tables.cell("three", (("two", 0), ("more", 1)), 0, (0, 1))
    choices = [one, two, more, three]
    replay_choices(tables, choices, reward=1.0, link=0.25)
    # The last: .5 + .1 (1 - .5) = .55. Target of the one before: .75 * 1 + .25 * .55 = .8875, so .53875.
    # Then .75 + .25 * .53875 = .8846875, so .53846875; then .75 + .25 * .53846875 = .8846171875.
    assert tables.values(three) == pytest.approx([0.55, 0.5])
    assert tables.values(more) == pytest.approx([0.5, 0.53875])
    assert tables.values(two) == pytest.approx([0.53846875, 0.5])
    assert tables.values(one) == pytest.approx([0.5, 0.53846171875])
    replay_choices(tables, choices, reward=0.0, link=0.25)
    # The last: .55 - .055 = .495; the other choice, .5, is now the better one, and the target of the one
    # before is .25 * .5.
    assert tables.values(three) == pytest.approx([0.495, 0.5])
    assert tables.values(more)[1] == pytest.approx(0.53875 + 0.1 * (0.25 * 0.5 - 0.53875))
    assert tables.values(more)[1] < 0.5
    assert tables.values(two)[0] == pytest.approx(0.53846875 + 0.1 * (0.25 * 0.5 - 0.53846875))


def test_without_a_link_each_choice_is_on_its_own():
    tables = LinkedTables(learning_rate=0.1)
    cells = [tables.cell(name, (), 0, (0, 1)) for name in "abc"]
    replay_choices(tables, cells, reward=1.0, link=0.0)
    assert [tables.values(cell) for cell in cells] == [[0.55, 0.5]] * 3


def test_the_own_table_speaks_where_the_linked_one_is_silent():
    tables = LinkedTables(learning_rate=0.1)
    behind_a, behind_b = (tables.cell("x", before, 1, (0, 1)) for before in "ab")
    tables.update(behind_a, 1.0)
    assert tables.values(behind_b) == [0.5, 0.55]
    tables.update(behind_b, 0.0)  # begins at .55
    assert tables.values(behind_b) == pytest.approx([0.5, 0.495])
    assert tables.values(behind_a) == pytest.approx([0.5, 0.55])
    assert tables.values(tables.cell("x", "c", 1, (0, 1))) == pytest.approx([0.5, 0.495])


# Learning ----------------------------------------------------------------------------------------------


def greedy_params(study, objective, **how):
    study.sampler = LayerwiseQSampler(epsilon_schedule=GREEDY, seed=1, **how)
    study.optimize(objective, n_trials=1)
    return study.trials[-1].params


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_its_greedy_policy_reaches_the_optimum(seed, direction):
    """Four layers, of which each has one right kind: one network of 3 ** 4."""

    def objective(trial):
        kinds = [trial.suggest_categorical(f"layer{k}", ["a", "b", "c"]) for k in range(4)]
        error = sum(kind != right for kind, right in zip(kinds, "abca", strict=True))
        return error if direction == "minimize" else -error

    study = optuna.create_study(direction=direction, sampler=LayerwiseQSampler(n_trials=100, seed=seed))
    study.optimize(objective, n_trials=100)
    assert list(greedy_params(study, objective).values()) == list("abca")


@pytest.mark.parametrize("seed", range(3))
def test_neighbouring_layers_are_linked(seed):
    """Equal neighbours are right: no agent can know its choice without the one before."""

    def objective(trial):
        kinds = [trial.suggest_categorical(f"layer{k}", ["a", "b", "c"]) for k in range(3)]
        return sum(one != other for one, other in zip(kinds, kinds[1:], strict=False))

    study = optuna.create_study(sampler=LayerwiseQSampler(n_trials=100, seed=seed))
    study.optimize(objective, n_trials=100)
    for first in "abc":
        study.enqueue_trial({"layer0": first})
    study.sampler = LayerwiseQSampler(epsilon_schedule=GREEDY, seed=1)
    study.optimize(objective, n_trials=3)
    assert [list(trial.params.values()) for trial in study.trials[-3:]] == [[kind] * 3 for kind in "abc"]


def test_several_objectives_and_a_constraint():
    """The weights decide where on the front, and infeasible networks lose."""

    def objective(trial):
        sizes = [trial.suggest_int(f"layer{k}", 0, 3) for k in range(3)]
        trial.set_constraint("memory", sizes[0] + sizes[1] - 4.5)
        return sum(sizes), -sum(sizes)  # a gain and a cost, which no network has both

    def learned(weights, seed):
        sampler = LayerwiseQSampler(n_trials=120, weights=weights, seed=seed)
        study = optuna.create_study(directions=["maximize", "maximize"], sampler=sampler)
        study.optimize(objective, n_trials=120)
        return list(greedy_params(study, objective, weights=weights).values())

    for seed in range(2):
        assert learned([1, 50], seed) == [0, 0, 0]
        large = learned([50, 1], seed)
        assert sum(large) >= 6 and large[0] + large[1] <= 4


def test_failed_trials_are_the_worst():
    def objective(trial):
        if trial.suggest_categorical("x", ["fails", "works"]) == "fails":
            raise ValueError
        return 1e9

    study = optuna.create_study(sampler=LayerwiseQSampler(epsilon_schedule=GREEDY, seed=0))
    study.enqueue_trial({"x": "fails"})
    study.enqueue_trial({"x": "works"})
    study.optimize(objective, n_trials=10, catch=(ValueError,))
    assert [trial.params["x"] for trial in study.trials[2:]] == ["works"] * 8


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("learning_rate", 0, "learning_rate is 0; it must be a positive number"),
        ("learning_rate", 1.5, "learning_rate is 1.5; it must be at most 1"),
        ("link", -0.1, "link is -0.1; it must be between 0 and 1"),
        ("link", math.nan, "link is nan; it must be between 0 and 1"),
        ("n_trials", 0, "n_trials is 0; it must be an integer of at least 1, or None"),
        ("weights", [], "weights is .*; it must be one positive number for each objective, or None"),
        ("weights", 3, "weights is 3; it must be one positive number for each objective, or None"),
        ("weights", [1, 0], "weights is .*; it must be one positive number for each objective, or None"),
        ("weights", "ab", "weights is 'ab'; it must be one positive number for each objective, or None"),
    ],
)
def test_bad_arguments_are_named(name, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        LayerwiseQSampler(**{name: value})


def test_weights_must_fit_the_study():
    study = optuna.create_study(sampler=LayerwiseQSampler(weights=np.array([1.0, 2.0])))
    with pytest.raises(ValueError, match="weights has 2 numbers; the study has 1 objective"):
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
