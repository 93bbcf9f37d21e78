from collections import Counter

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from optuna_trlhpo.baselines._values import (
    all_values,
    is_valid,
    mutated,
    n_values,
    neighbours,
    random_value,
)

DISTRIBUTIONS = [
    CategoricalDistribution(["a", None, 3]),
    IntDistribution(-3, 4),
    IntDistribution(0, 100, step=7),
    IntDistribution(1, 1000, log=True),
    FloatDistribution(-1, 1),
    FloatDistribution(1e-6, 1, log=True),
    FloatDistribution(-0.3, 0.7, step=0.1),
]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=str)
def test_all_that_is_drawn_is_valid(distribution, rng):
    value = random_value(distribution, rng)
    for _ in range(200):
        assert is_valid(distribution, value)
        for other in neighbours("x", distribution, value, rng, n=3):
            assert other != value and is_valid(distribution, other)
        before, value = value, mutated("x", distribution, value, rng)
        assert value != before


def test_counting():
    assert [n_values(d) for d in DISTRIBUTIONS] == [3, 8, 15, 1000, np.inf, np.inf, 11]
    assert list(all_values(IntDistribution(0, 100, step=7))) == list(range(0, 99, 7))
    assert list(all_values(FloatDistribution(0, 0.5, step=0.25))) == [0, 0.25, 0.5]
    assert n_values(FloatDistribution(1, 1)) == 1


@pytest.mark.parametrize(
    ("distribution", "value"),
    [
        (CategoricalDistribution(["a", "b"]), "c"),
        (IntDistribution(0, 4), 5),
        (IntDistribution(0, 4, step=2), 1),
        (IntDistribution(0, 4), 2.0),
        (IntDistribution(0, 4), True),
        (IntDistribution(0, 4), "a"),
        (FloatDistribution(0, 1), 1.5),
        (FloatDistribution(0, 1, step=0.5), 0.3),
        (FloatDistribution(0, 1), None),
    ],
)
def test_what_is_not_valid(distribution, value):
    assert not is_valid(distribution, value)


def test_random_values_are_uniform(rng):
    counts = Counter(random_value(IntDistribution(0, 9), rng) for _ in range(5000))
    assert set(counts) == set(range(10)) and min(counts.values()) > 400
    logs = np.log10([random_value(FloatDistribution(1e-4, 1, log=True), rng) for _ in range(2000)])
    assert np.mean(logs) == pytest.approx(-2, abs=0.1)
    ints = [random_value(IntDistribution(1, 100, log=True), rng) for _ in range(2000)]
    assert np.mean(np.array(ints) <= 10) == pytest.approx(np.log(10.5 / 0.5) / np.log(100.5 / 0.5), abs=0.05)


def test_neighbours(rng):
    assert neighbours("x", CategoricalDistribution("abc"), "b", rng, n=1) == ["a", "c"]  # all, whatever n
    assert neighbours("x", IntDistribution(0, 4), 1, rng, n=1) == [0, 2, 3, 4]
    near = [neighbours("x", FloatDistribution(0, 10), 5.0, rng, n=1)[0] for _ in range(2000)]
    assert np.std(near) == pytest.approx(2, abs=0.15)  # 0.2 of the range
    assert len(neighbours("x", IntDistribution(0, 9), 5, rng, n=4)) == 4


def test_half_of_the_mutations_of_a_number_are_near(rng):
    far = [abs(mutated("x", FloatDistribution(0, 1), 0.0, rng)) > 0.6 for _ in range(2000)]
    assert np.mean(far) == pytest.approx(0.2, abs=0.03)  # 0.4 of the uniform half, hardly any of the others


def test_what_has_no_other_value_stays(rng):
    assert mutated("x", CategoricalDistribution(["a"]), "a", rng) == "a"
    assert neighbours("x", IntDistribution(3, 3), 3, rng, n=4) == []
