"""Names, grids and axes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from optuna_trlhpo.agent.configurations.columns import Columns
from optuna_trlhpo.trials.axes import LabelAxis, NumberAxis, family_of
from optuna_trlhpo.trials.parameter_names import parse_name
from optuna_trlhpo.trials.values import on_grid

ALIKE = [
    *("num_of_units_l0", "num_of_units_l1", "fraction_of_1", "fraction_of_2", "p0", "p1000", "x1", "x01"),
    *("1x", "x001", "x10", "x_1_2", "x_12", "x_1002", "x_1_002", "x", "a1b2c3d4e5", "a2b2c3d4e5"),
    *("x" + 5000 * "1", "x" + 4999 * "1", "x1000000", "x0", "x00", "layer1_of_a", "layer1_of_b"),
]


def test_no_two_names_are_taken_for_one() -> None:
    columns = Columns()
    numbers = [columns.learn(name, FloatDistribution(0, 1)) for name in ALIKE]
    assert len(set(numbers)) == len(ALIKE)
    for one, other in itertools.combinations(ALIKE, 2):
        assert parse_name(one) != parse_name(other)


@given(st.text(max_size=12))
def test_a_name_is_found_again(name: str) -> None:
    assert parse_name(name).text == name


@pytest.mark.parametrize(
    ("low", "high", "step"), [(0, 15_000_000, 3), (0, 1_000_000_000, 100), (-7, 8, 5), (5, 5, 1)]
)
def test_integers_come_back_on_their_grid(low: int, high: int, step: int) -> None:
    distribution = IntDistribution(low, high, step=step)
    axis = NumberAxis([distribution])
    for action in np.random.default_rng(0).random(200):
        value = axis.value(float(action), distribution)
        assert type(value) is int and (value - low) % step == 0 and low <= value <= distribution.high
        assert axis.value(float(axis.actions(np.array([float(value)]))[0]), distribution) == value


@pytest.mark.parametrize(("low", "high", "step"), [(0.0, 100.0, 1e-5), (0.0, 0.5, 0.1), (1.0, 2.0, 0.25)])
def test_numbers_come_back_on_their_grid(low: float, high: float, step: float) -> None:
    distribution = FloatDistribution(low, high, step=step)
    axis = NumberAxis([distribution])
    for action in np.random.default_rng(0).random(200):
        value = axis.value(float(action), distribution)
        k = (value - low) / step
        assert abs(k - round(k)) < 1e-6 and low <= value <= high


@given(st.floats(-1e308, 1e308), st.floats(-1e308, 1e308), st.floats(0, 1))
def test_the_widest_ranges_do_not_overflow(one: float, other: float, action: float) -> None:
    distribution = FloatDistribution(min(one, other), max(one, other))
    value = NumberAxis([distribution]).value(action, distribution)
    assert math.isfinite(value) and distribution.low <= value <= distribution.high
    assert np.isfinite(NumberAxis([distribution]).actions(np.array([value]))).all()


def test_a_value_of_an_earlier_range_stays_where_it_was() -> None:
    columns = Columns()
    column = columns.learn("x", FloatDistribution(0, 100))
    assert columns.actions(np.array([[50.0]]))[0, column] == 0.5
    columns.learn("x", FloatDistribution(0, 5))
    assert columns.version == 1
    assert columns.actions(np.array([[2.5]]))[0, column] == 0.5
    assert columns.actions(np.array([[50.0]]))[0, column] > 1


def test_where_a_range_follows_from_values_earlier_ones_count() -> None:
    columns = Columns()
    column = columns.learn("x", IntDistribution(1, 4), dependent=True)
    columns.learn("x", IntDistribution(1, 10), dependent=True)
    columns.learn("x", IntDistribution(1, 4), dependent=True)
    axis = columns.axis(column)
    assert axis.n_values == 10 and axis.value(0.95, IntDistribution(1, 4)) == 4


def test_labels_that_optuna_cannot_tell_apart_are_one() -> None:
    """Of equal choices a storage keeps the first."""
    axis, choices = LabelAxis(), CategoricalDistribution([True, 1, 1.0, float("nan"), None, "1"])
    axis.learn(choices)
    assert axis.n_values == 4 and axis.raw(1.0) == axis.raw(True) == 0
    for place, choice in enumerate(choices.choices[i] for i in (0, 3, 4, 5)):
        assert axis.value((place + 0.5) / 4, choices) is choice and axis.raw(choice) == place
    assert axis.knows(float("nan")) and not axis.knows("new")


def test_an_axis_of_a_single_value_has_a_single_action() -> None:
    axis = NumberAxis([FloatDistribution(2.0, 2.0)])
    assert axis.settle(np.array([0.1, 0.9])).tolist() == axis.actions(np.array([2.0, 2.0])).tolist()


def test_masked_choices_are_one_question() -> None:
    columns = Columns()
    whole = columns.learn("op_conv_fc_pool_1", CategoricalDistribution(["conv", "fc", "pool"]))
    masked = columns.learn("op_fc_pool_1", CategoricalDistribution(["fc", "pool"]))
    assert whole == masked
    assert columns.axis(whole).value(0.1, CategoricalDistribution(["fc", "pool"])) in ("fc", "pool")
    kept = CategoricalDistribution(["adam", "sgd"])
    assert family_of("optimizer_adam", kept) == parse_name("optimizer_adam").template


def test_on_grid_of_an_integer_range_that_its_step_does_not_divide() -> None:
    assert on_grid(IntDistribution(0, 9, step=3), 100) == 9
