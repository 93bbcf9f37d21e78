"""How the policy of the paper's agent improves: rows, what they hold, and the table."""

from __future__ import annotations

import pytest

from optuna_trlhpo.benchmarks.harness.rows import Row, read_rows
from optuna_trlhpo.benchmarks.search import policy

TRIALS = 10


def row_of(seed: int, **values: float) -> Row:
    row = dict(first=0.5, last=0.6, best=0.9, random=0.8, distinct=0.75, kind_deviation=0.25, seconds=7.0)
    where = {"versions": {"optuna": "5.0.0"}, "machine": "one"}
    key = dict(problem="synthetic-layers", form="progressive", sampler="paper", seed=seed, budget=TRIALS)
    return {**key, **row, **values, **where}


@pytest.mark.slow
def test_a_study_is_a_row_and_is_not_run_again(tmp_path):
    (row,) = policy.run(seeds=[3], trials=TRIALS, out=tmp_path)
    assert "error" not in row and row["seed"] == 3
    assert all(0 < row[name] < 1 for name in ("first", "last", "best", "random"))
    assert row["best"] >= max(row["first"], row["last"])
    assert 0 < row["distinct"] <= 1 and row["kind_deviation"] > 0
    assert policy.run(seeds=[3], trials=TRIALS, out=tmp_path) == []
    assert read_rows(tmp_path) == [row]


def test_the_table_compares_with_random_search():
    rows = [row_of(seed, best=0.9 + 0.01 * seed, last=0.6 - 0.11 * (seed == 1)) for seed in range(5)]
    text = policy.report([*rows, row_of(9)], trials=TRIALS, seeds=range(5))
    assert "| 4 | 0.500 | 0.600 | 0.940 | 0.800 | 0.750 | 0.250 | 7 |" in text
    assert "| 9 |" not in text
    assert "rose in 4 of 5 studies" in text and "p = 0.031" in text
    assert "no complete study of 500 trials" in policy.report(rows, trials=500, seeds=range(5))


@pytest.mark.parametrize("trials", [0, -1])
def test_a_study_has_trials(tmp_path, trials):
    with pytest.raises(ValueError, match=f"^trials is {trials}; it must be at least 1$"):
        policy.run(seeds=[0], trials=trials, out=tmp_path)
