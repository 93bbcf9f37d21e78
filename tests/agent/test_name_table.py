"""`NameTable`: numbers of names, which of them are shared, and values on their grid."""

from __future__ import annotations

import numpy as np
from optuna.distributions import IntDistribution
from optuna.study import StudyDirection

from optuna_trlhpo.agent.config import AgentConfig
from optuna_trlhpo.agent.name_table import NameTable
from optuna_trlhpo.agent.replay import Replay
from optuna_trlhpo.trials.episode import episode_of
from optuna_trlhpo.trials.parameters import ParameterSpec, parameter_spec

X, Y, C = ParameterSpec("x", 0, 0, False), ParameterSpec("y", 0, 5, False), ParameterSpec("c", 0, 3, True)
LAYERS = np.array([[0.1, 0.3, 0.5, 0.5], [0.9, 0.2, 0.5, 0.25]])


def test_numbers_come_in_order_and_stay() -> None:
    names = NameTable()
    assert [names.learn(slot) for slot in (C, X, C, Y, X)] == [0, 1, 0, 2, 1]
    assert [names.number(slot) for slot in (X, Y, C)] == [1, 2, 0]
    assert names.categorical.tolist() == [True, False, False, False]  # the last is that of no name
    # What is looked up is not learned.
    assert names.number(ParameterSpec("z", 0, 0, False)) == names.number(ParameterSpec("x", 0, 3, True)) == -1
    assert names.numbers([Y, ParameterSpec("z", 0, 0, False), X]).tolist() == [2, -1, 1, -1]
    assert len(names.categorical) == 4


def test_a_base_name_has_one_number_wherever_it_stands_and_however_many_values_it_has() -> None:
    names = NameTable()
    numbers = [
        names.learn(ParameterSpec("units_l", index, n, False)) for index, n in ((0, 5), (1, 5), (7, 0))
    ]
    assert numbers == [0, 0, 0]
    assert names.learn(ParameterSpec("units_l", 0, 5, True)) == 1  # with and without an order it is two


def test_codes_follow_the_numbers() -> None:
    names, others = NameTable(), NameTable()
    for slot in (X, Y):
        names.learn(slot)
    for slot in (Y, C, X):
        others.learn(slot)
    assert names.codes.shape[0] == 3 and not names.codes[-1].any() and not others.codes[-1].any()
    for slot in (X, Y):
        assert names.codes[names.number(slot)].tolist() == others.codes[others.number(slot)].tolist()
    assert names.codes[0].tolist() != names.codes[1].tolist()


def test_an_episode_in_numbers() -> None:
    names = NameTable()
    names.learn(X)
    assert names.category("layer_kind") == -1
    numbers, indices, n_values = names.learn_all(episode_of(LAYERS, max_layers=6))
    # The depth; a Conv and what it has; an FCL and what it has.
    assert numbers.tolist() == [[1, -1, -1, -1], [2, 3, 4, 5], [2, 6, 7, 8]]
    assert indices.tolist() == [[0, -1, -1, -1], [1] * 4, [2] * 4]
    assert n_values.tolist() == [[6, 0, 0, 0], [3, 16, 3, 3], [3, 63, 7, 2]]
    assert names.category("layer_kind") == 2
    again = names.learn_all(episode_of(LAYERS, max_layers=6))
    assert all((one == other).all() for one, other in zip(again, (numbers, indices, n_values), strict=True))


def test_experiences_that_share_names_share_numbers() -> None:
    names = NameTable()
    one, other = (
        Replay(AgentConfig(), [StudyDirection.MAXIMIZE], seed=0, names=shared) for shared in (names, names)
    )
    one.add(0, episode_of(LAYERS), np.full((2, 1), 0.5))
    other.add(0, episode_of(LAYERS[:1], max_layers=3), np.full((2, 1), 0.5))
    rng = np.random.default_rng(0)
    first, second = one.trials(rng, 1), other.trials(rng, 1)
    np.testing.assert_array_equal(first.names[0, 0], second.names[0, 1])
    # What one has seen the other has a number for, and does not know.
    depth = ParameterSpec("n_layers", 0, 3, False)
    assert one.names.number(depth) >= 0 and not one.knows([depth]) and other.knows([depth])
    alone = Replay(AgentConfig(), [StudyDirection.MAXIMIZE], seed=0)
    assert alone.names.number(depth) == -1


def test_what_is_uneven_is_settled() -> None:
    names = NameTable()
    uneven = parameter_spec("n3", IntDistribution(1, 64, log=True))
    n, x = names.learn(uneven), names.learn(X)
    for action in (0.0, 0.3, 0.77, 1.0):
        assert names.settle(n, 3, action) == uneven.settle(action)
        assert names.settle(n, 4, action) == names.settle(x, 0, action) == action
    assert names.settle(n, 3, 0.3) != 0.3
    wider = parameter_spec("n3", IntDistribution(1, 1024, log=True))  # the range that was learned last counts
    names.learn(wider)
    assert names.settle(n, 3, 0.3) == wider.settle(0.3) != uneven.settle(0.3)
