"""Workers that decide at the same time: rows, what they know of each other, and the table."""

from __future__ import annotations

from typing import Any

import pytest

from optuna_trlhpo.benchmarks.harness.rows import Row
from optuna_trlhpo.benchmarks.search import parallel


def row_of(workers: int, seed: int, curve: list[list[float]]) -> Row:
    return {
        **dict(problem="nb201-cifar10", form=f"terminal, {workers} workers", sampler="trlhpo", seed=seed),
        **dict(budget=30, workers=workers, curve=curve, hits=workers - 1, seconds=1.0),
        **dict(versions={"optuna": "5.0.0"}, machine="one"),
    }


def test_workers_repeat_nothing_and_a_study_is_not_run_again(tmp_path):
    arguments: dict[str, Any] = dict(
        **dict(seeds=[2000], budget=16, samplers=["trlhpo"], problems=["nb201-cifar10"]),
        **dict(workers=[1, 4], out=tmp_path),
    )
    rows = parallel.run(**arguments)
    assert [row["workers"] for row in rows] == [1, 4]
    assert all(row["hits"] == 0 and row["curve"][-1][0] <= 16 for row in rows)
    assert parallel.run(**arguments) == []


def test_the_table_has_a_line_for_each_number_of_workers():
    rows = [
        row_of(1, 0, [[1, 9.0], [20, 1.0]]),
        row_of(8, 0, [[1, 9.0], [25, 2.0]]),
        row_of(8, 9, [[1, 0.0]]),
    ]
    text = parallel.report(rows, budget=30, seeds=range(2))
    assert "| nb201-cifar10 | trlhpo | 1 | 1 | 1.000 | 1.000 | 0.0 |" in text
    assert "| nb201-cifar10 | trlhpo | 8 | 1 | 9.000 | 2.000 | 7.0 |" in text
    assert "no complete study of 50 trainings" in parallel.report(rows, budget=50, seeds=range(2))


@pytest.mark.parametrize("wrong", [{"samplers": ["tpe"]}, {"problems": ["macro"]}, {"workers": [0]}])
def test_what_is_unknown_is_named(tmp_path, wrong):
    with pytest.raises(ValueError):
        parallel.run(seeds=[0], budget=3, out=tmp_path, **wrong)
