"""Intervals and permutation tests, against other computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from optuna_trlhpo.visualization._statistics import difference_within, spearman_within, wilson


@pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 20), (3, 7), (19, 20), (500, 1000)])
def test_wilson_is_that_of_scipy(k: int, n: int) -> None:
    theirs = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k, n) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_of_nothing_every_share_is_possible() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_in_one_stratum_it_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    x = rng.random(30)
    y = x + rng.random(30)
    found, theirs = spearman_within(x, y, [0] * 30), stats.spearmanr(x, y)
    assert found.statistic == pytest.approx(theirs.statistic)
    assert found.p < 0.01 and theirs.pvalue < 0.01
    assert abs(found.expected) < 0.05 and found.n == 30


def test_what_tells_the_strata_apart_is_no_correlation() -> None:
    """Within strata nothing is related; over all of them everything is."""
    rng = np.random.default_rng(1)
    strata = np.repeat(np.arange(10), 20)
    x, y = strata + 0.1 * rng.random(200), strata + 0.1 * rng.random(200)
    assert stats.spearmanr(x, y).statistic > 0.9
    found = spearman_within(x, y, strata.tolist())
    assert abs(found.statistic) < 0.15 and found.p > 0.05


def test_p_is_right_by_chance() -> None:
    """Where there is nothing, p below 0.1 comes in about a tenth of the cases."""
    rng = np.random.default_rng(2)
    ps = [spearman_within(rng.random(12), rng.random(12), [0, 1] * 6).p for _ in range(300)]
    assert 0.05 < np.mean(np.array(ps) < 0.1) < 0.16


def test_difference_by_hand() -> None:
    values, chosen = np.array([4.0, 2.0, 1.0, 1.0]), np.array([True, True, False, False])
    found = difference_within(values, chosen, "aabb")
    # Each stratum is all of one sort: the place explains everything, and nothing can be exchanged.
    assert (found.statistic, found.expected) == (2.0, 2.0) and math.isnan(found.p)
    found = difference_within(values, chosen, "aaaa")
    assert found.statistic == 2.0 and abs(found.expected) < 0.15 and 0.2 < found.p < 0.5  # 2 of 6


def test_a_difference_within_strata_is_found() -> None:
    rng = np.random.default_rng(3)
    chosen = rng.random(80) < 0.5
    strata = rng.integers(3, size=80)
    found = difference_within(10.0 * strata + chosen + 0.1 * rng.random(80), chosen, strata.tolist())
    assert found.p < 0.01 and found.statistic - found.expected == pytest.approx(1, abs=0.2)


def test_nothing_to_compare() -> None:
    assert math.isnan(difference_within(np.ones(2), np.array([True, True]), "ab").statistic)
    assert math.isnan(spearman_within(np.ones(3), np.arange(3.0), "aaa").statistic)
    nothing = spearman_within(np.zeros(0), np.zeros(0), [])
    assert math.isnan(nothing.statistic) and nothing.n == 0
