"""What has been tried is not tried again while something else is left."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from optuna_trlhpo.search_space.explored import Explored, all_values

BIT = CategoricalDistribution([False, True])


def test_all_of_a_grid_comes_once() -> None:
    explored, rng = Explored(), np.random.default_rng(0)
    grid = [("a", IntDistribution(0, 3)), ("b", FloatDistribution(0, 1, step=0.25)), ("c", BIT)]
    found = set()
    for _ in range(4 * 5 * 2):
        assert not explored.all_tried()
        path: list[tuple[str, object]] = []
        for name, distribution in grid:
            wanted = next(all_values(distribution))
            path.append((name, explored.open_value(path, name, distribution, wanted, rng)))
        found.add(tuple(path))
        explored.add([(name, d, value) for (name, d), (_, value) in zip(grid, path, strict=True)])
    assert explored.all_tried() and len(found) == 40


def test_a_trial_that_ended_early_closes_what_would_have_come() -> None:
    explored = Explored()
    explored.add([("a", BIT, True)])
    assert explored.open_value([], "a", BIT, True, np.random.default_rng(0)) is False
    explored.add([("a", BIT, True), ("b", BIT, True)])  # another went on there
    assert explored.open_value([], "a", BIT, True, np.random.default_rng(0)) is True


def test_what_another_trial_is_trying_is_left_to_it() -> None:
    explored, rng = Explored(), np.random.default_rng(0)
    assert explored.open_value([], "a", BIT, True, rng, taken=[True]) is False
    assert explored.open_value([], "a", BIT, True, rng, taken=[True, False]) is True  # nothing is left


@pytest.mark.parametrize("distribution", [FloatDistribution(0, 1), IntDistribution(0, 10**9)])
def test_what_nobody_can_exhaust_is_open(distribution: FloatDistribution | IntDistribution) -> None:
    explored = Explored()
    explored.add([("a", BIT, True), ("x", distribution, 1)])
    assert not explored.is_exhausted([], "a", BIT, True)
    assert explored.open_value([("a", True)], "x", distribution, 1, np.random.default_rng(0)) == 1


def test_integers_on_a_logarithmic_scale_are_counted() -> None:
    explored, log = Explored(), IntDistribution(1, 3, log=True)
    for value in all_values(log):
        explored.add([("n", log, value)])
    assert explored.all_tried()


def test_code_that_changes_leaves_open_what_it_asks_for_now() -> None:
    explored, few, more = Explored(), IntDistribution(0, 1), IntDistribution(0, 2)
    for a in (0, 1):
        explored.add([("a", few, a)])
    assert explored.all_tried()
    explored.meet([], "a", more)  # another range
    assert not explored.all_tried()
    explored.add([("a", more, 2)])
    assert explored.all_tried()
    explored.meet([("a", 1)], "b", few)  # another parameter behind; behind 0 it will be asked for, too
    assert not explored.all_tried() and not explored.is_exhausted([], "a", more, 0)
    explored.meet([], "c", few)  # another one in front
    assert explored.least_open([]) == 2


def test_what_ends_again_where_others_went_on_has_come_to_its_end() -> None:
    explored, few = Explored(), IntDistribution(0, 1)
    explored.add([("a", few, 0), ("b", few, 1)])
    explored.add([("a", few, 0)])
    assert not explored.is_exhausted([], "a", few, 0)
    explored.add([("a", few, 0)])
    assert explored.is_exhausted([], "a", few, 0)


def test_values_out_of_range_are_not_counted() -> None:
    explored, few = Explored(), IntDistribution(0, 2)
    for a in (-3, 100, 0):
        explored.add([("a", few, a)])
    assert explored.least_open([]) == 2 and not explored.all_tried()


@pytest.mark.filterwarnings("ignore:Choices for a categorical")
def test_choices_that_are_equal_count_once() -> None:
    explored = Explored()
    choices = CategoricalDistribution([1, True, "1", (1, 2)])  # type: ignore[list-item]
    explored.add([("a", choices, 1)])
    explored.add([("a", choices, [1, 2])])  # as a storage gives it back
    assert explored.least_open([]) == 1
    explored.add([("a", choices, "1")])
    assert explored.all_tried()


def test_a_deep_tree_can_be_copied() -> None:
    explored, flag = Explored(), CategoricalDistribution([True, False])
    path = [(f"flag_{i}", flag, i % 2 == 0) for i in range(1500)]
    explored.add(path)
    again = pickle.loads(pickle.dumps(explored))
    assert again.is_exhausted([(name, value) for name, _, value in path[:-1]], "flag_1499", flag, False)
    assert copy.deepcopy(again).least_open([]) == explored.least_open([])
