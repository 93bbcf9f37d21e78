"""Networks as rows of numbers: what stands where, what forgets its place, what leaves no trace."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from optuna_trlhpo.agent.features import FeatureMap
from optuna_trlhpo.agent.gaussian_process import LINEAR
from optuna_trlhpo.agent.sequences import Networks

Make = Callable[..., Networks]
KIND, UNITS, RATE = 0, 1, 2  # base names; the first is categorical, of three
CATEGORICAL = np.array([True, False, False, False])
A, B, C = 1 / 6, 3 / 6, 5 / 6
HALF = 1 / math.sqrt(2)


def layer(k: int, kind: float, units: float | None = None) -> list[tuple[int, int, int, float]]:
    return [(KIND, k, 3, kind), *([] if units is None else [(UNITS, k, 0, units)])]


def rate(value: float) -> list[tuple[int, int, int, float]]:
    return [(RATE, 0, 0, value)]


def learned(networks: Networks) -> FeatureMap:
    features = FeatureMap()
    features.learn(networks, CATEGORICAL)
    return features


def squared(x: np.ndarray, one: int, other: int) -> float:
    return float(((x[one] - x[other]) ** 2).sum())


def test_a_category_is_one_of_n(networks_of: Make) -> None:
    networks = networks_of([layer(0, A)], [layer(0, B)], [layer(0, C)], [layer(0, 1.0)], [layer(0, 0.0)])
    x = learned(networks)(networks)
    np.testing.assert_allclose(x, HALF * np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [1, 0, 0]]))
    assert squared(x, 0, 1) == pytest.approx(1) == squared(x, 0, 2)  # all are equally far from each other


def test_a_number_is_there_and_so_large(networks_of: Make) -> None:
    networks = networks_of([rate(0.0)], [rate(0.5)], [rate(1.0)], [])
    x = learned(networks)(networks)
    np.testing.assert_allclose(x, np.array([[HALF, -1], [HALF, 0], [HALF, 1], [0, 0]]))
    # What is not there is not taken for a number: it is far from all of them.
    assert all(squared(x, 3, other) > 0.49 for other in range(3))


def test_a_number_of_few_values_has_an_order(networks_of: Make) -> None:
    networks = networks_of(*([[(UNITS, 0, 4, (i + 0.5) / 4)]] for i in range(4)))
    x = learned(networks)(networks)
    assert x.shape == (4, 2)
    np.testing.assert_allclose(x[:, 1], [-0.75, -0.25, 0.25, 0.75])


def test_parameters_stand_in_columns_of_their_own(networks_of: Make) -> None:
    networks = networks_of([layer(0, A, 0.25), rate(0.5)])
    features = learned(networks)
    assert features(networks).tolist() == [pytest.approx([HALF, 0, 0, HALF, -0.5, HALF, 0])]
    described = features.features
    assert described.column.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert described.part.tolist() == [0] * 7
    assert len({*described.group.tolist()}) == 3
    # Networks that differ in every parameter are expected at one distance, however many parameters they have.
    assert described.base[0] == pytest.approx(np.log(2.4 / 3))


def test_what_comes_once_a_layer_forgets_its_place(networks_of: Make) -> None:
    """The same layers in another order are another network, and one of the same sort."""
    one = [layer(0, A, 0.25), layer(1, B, 0.75), layer(2, C)]
    other = [layer(0, C), layer(1, A, 0.25), layer(2, B, 0.75)]
    deeper = [layer(0, A, 0.25), layer(1, B, 0.75), layer(2, B, 0.75)]
    networks = networks_of(one, other, deeper)
    features = learned(networks)
    x, part = features(networks), features.features.part
    in_place, anywhere = x[:, part == 0], x[:, part == 1]
    assert squared(in_place, 0, 1) > 1 and squared(anywhere, 0, 1) == pytest.approx(0)
    # How many there are of each kind, each counting sqrt(2) * HALF / 3, and their values on the whole.
    np.testing.assert_allclose(3 * anywhere[:, :3], [[1, 1, 1], [1, 1, 1], [1, 2, 0]])
    np.testing.assert_allclose(3 * anywhere[:, 3], [2, 2, 3])
    np.testing.assert_allclose(3 * anywhere[:, 4] / math.sqrt(2), [-0.5 + 0.5, -0.5 + 0.5, -0.5 + 2 * 0.5])


def test_what_comes_once_has_a_place_alone(networks_of: Make) -> None:
    networks = networks_of([rate(0.5), layer(0, A), layer(1, A)])
    features = learned(networks)
    assert features.repeated(4).tolist() == [True, False, False, False]
    assert features.features.part.tolist().count(1) == 3  # of the kinds, none of the rate
    # A parameter of one base name shares a group in every layer; in place and anywhere are two.
    described = features.features
    kinds = {(part, group) for part, group in zip(described.part, described.group, strict=True)}
    assert len(kinds) == len({group for _, group in kinds}) == 3  # kinds in place, kinds anywhere, the rate


def test_what_was_never_learned_leaves_no_trace(networks_of: Make) -> None:
    features = learned(networks_of([layer(0, A), rate(0.5)]))
    known = networks_of([layer(0, B), rate(0.1)], [layer(0, B)])
    unknown = networks_of(
        [layer(0, B, 0.9), rate(0.1)],  # nobody had units
        [layer(0, B), layer(1, C)],  # nor a second layer
    )
    np.testing.assert_array_equal(features(unknown), features(known))
    reported = networks_of([layer(0, B), rate(0.1)], [layer(0, B)], context=[[0.3], [0.9]])
    np.testing.assert_array_equal(features(reported), features(known))


def test_columns_are_for_good(networks_of: Make) -> None:
    """What the kernel learned of a column may not become another column's."""
    first = networks_of([layer(0, A), rate(0.5)], [layer(0, C), rate(0.25)])
    features = learned(first)
    before, described = features(first), features.features
    features.learn(networks_of([layer(0, B, 0.5), layer(1, B, 0.5), layer(2, B)]), CATEGORICAL)
    n = before.shape[1]
    later = features(first)
    np.testing.assert_allclose(later[:, :n], before)
    for name in ("part", "column", "group"):
        np.testing.assert_array_equal(getattr(features.features, name)[:n], getattr(described, name))
    # The layer that had no other like it is now one of several: only what forgets the place is new of it.
    assert not later[:, n:][:, features.features.part[n:] == 0].any()
    again = features.features
    features.learn(first, CATEGORICAL)
    assert features.features.part.tolist() == again.part.tolist()


def test_context_is_a_number_behind_its_step(networks_of: Make) -> None:
    steps = [layer(0, A), layer(1, A)]
    networks = networks_of(steps, steps, steps, context=[[0.0], [1.0], []])
    features = learned(networks)
    x, described = features(networks), features.features
    differing = x[:, described.group == described.group[np.flatnonzero(x[0] != x[1])[0]]]
    assert differing.shape == (3, 2)
    np.testing.assert_allclose(differing, np.array([[math.sqrt(2), -2], [math.sqrt(2), 2], [0, 0]]))
    np.testing.assert_array_equal(x[0][x[0] == x[2]], x[2][x[0] == x[2]])
    # Each step's has columns of its own.
    deeper = networks_of(steps, context=[[0.5, 0.75]])
    features.learn(deeper, CATEGORICAL)
    assert features(deeper).shape[1] == x.shape[1] + 2


def test_what_a_network_comes_to_is_a_part_of_its_own(networks_of: Make) -> None:
    networks = networks_of([layer(0, A)], [layer(0, B)], [layer(0, A), layer(1, A)])
    before = learned(networks)(networks)
    with_descriptors = networks._replace(
        network_descriptor=np.array([[0.5, 1.0], [0.5, 0.0], [np.nan, np.nan]])
    )
    features = learned(with_descriptors)
    x, part = features(with_descriptors), features.features.part
    np.testing.assert_array_equal(x[:, part < 2], before)
    columns = x[:, part == 2]
    assert len(set(features.features.group[part == 2].tolist())) == 2  # each number has a weight of its own
    assert squared(columns, 0, 1) == pytest.approx(
        2**2
    )  # the first number is the same, the second differs by 1
    assert not columns[2].any()
    # Columns stay where nobody can tell any more.
    np.testing.assert_array_equal(features(networks)[:, part == 2], np.zeros_like(columns))


def test_what_is_expected_of_a_network_is_a_linear_part(networks_of: Make) -> None:
    networks = networks_of([layer(0, A)], [layer(0, B)], [layer(0, A), layer(1, A)])
    networks = networks._replace(network_descriptor=np.array([[0.5], [0.25], [0.0]]))
    before, plain = learned(networks)(networks), learned(networks).features
    expecting = networks._replace(expected=np.array([[2.5, 1.0], [-40.0, 0.0], [np.nan, 1.0]]))
    features = FeatureMap()
    features.learn(expecting, CATEGORICAL, means=np.array([0.75, -3.0]))
    x, described = features(expecting), features.features
    linear = described.part == LINEAR
    np.testing.assert_array_equal(x[:, linear], [[2.5, 1.0], [-40.0, 0.0], [0.0, 1.0]])  # as they are
    assert described.mean[linear].tolist() == [0.75, -3.0] and described.base[linear].tolist() == [0, 0]
    assert len(set(described.column[linear])) == len(set(described.group[linear])) == 2
    # All else is as it is without.
    np.testing.assert_array_equal(x[:, ~linear], before)
    for name in ("part", "base", "mean"):
        np.testing.assert_array_equal(getattr(described, name)[~linear], getattr(plain, name))
    assert not set(described.column[linear]) & set(described.column[~linear])
    assert not set(described.group[linear]) & set(described.group[~linear])
    # Nothing is expected of networks about which nothing is said.
    np.testing.assert_array_equal(features(networks), np.where(linear, 0.0, x))


def test_expectations_and_their_means_are_for_good(networks_of: Make) -> None:
    networks = networks_of([layer(0, A)])
    features = FeatureMap()
    features.learn(networks._replace(expected=np.array([[1.0]])), CATEGORICAL, means=np.array([0.5]))
    first = features.features
    more = networks_of([layer(0, A), rate(0.5)])._replace(expected=np.array([[3.0, 4.0]]))
    features.learn(more, CATEGORICAL, means=np.array([9.0, 0.25]))
    described = features.features
    n = len(first.part)
    for name in ("part", "column", "group", "mean"):
        np.testing.assert_array_equal(getattr(described, name)[:n], getattr(first, name))
    linear = described.part == LINEAR
    assert described.mean[linear].tolist() == [0.5, 0.25]
    np.testing.assert_array_equal(features(more)[:, linear], [[3.0, 4.0]])
    unsaid = FeatureMap()
    unsaid.learn(more, CATEGORICAL)
    assert not unsaid.features.mean.any()


def test_every_row_is_made_alone(networks_of: Make) -> None:
    networks = networks_of([layer(0, A, 0.1), layer(1, C)], [layer(0, B)], [rate(0.7), layer(1, A, 0.2)])
    features = learned(networks)
    x = features(networks)
    for n in range(3):
        np.testing.assert_array_equal(features(networks.rows(np.array([n])))[0], x[n])
    assert features(networks.rows(np.zeros(0, dtype=int))).shape == (0, x.shape[1])


def test_lengths(networks_of: Make) -> None:
    networks = networks_of([layer(0, A, 0.1), layer(1, C)], [layer(0, B)], [])
    assert networks.lengths.tolist() == [2, 1, 0]
    assert networks.rows(np.array([1, 0])).lengths.tolist() == [1, 2]
