"""When a study without expected gain stops: rows and the table."""

from __future__ import annotations

from typing import Any

import pytest

from optuna_trlhpo.benchmarks.harness.rows import Row
from optuna_trlhpo.benchmarks.search import stopping


def row_of(seed: int, gains: list[list[float]]) -> Row:
    return {
        **dict(problem="macro", form="terminal", sampler="trlhpo", seed=seed, budget=100),
        **dict(gains=gains, curve=[[1, 9.0], [30, 2.0], [80, 1.0]], trainings=100),
        **dict(versions={"optuna": "5.0.0"}, machine="one"),
    }


def test_a_study_is_a_row_and_is_not_run_again(tmp_path):
    arguments: dict[str, Any] = dict(seeds=[2000], budget=28, problems=["nb201-cifar10"], out=tmp_path)
    (row,) = stopping.run(**arguments)
    trainings, gains = zip(*row["gains"], strict=True)
    assert trainings[-1] == row["trainings"] == 28 and min(gains) >= 0
    assert stopping.run(**arguments) == []


def test_the_table_has_the_regret_at_which_a_study_stops():
    rows = [row_of(0, [[20, 0.5], [40, 0.0015], [60, 0.0004]]), row_of(1, [[20, 0.5], [90, 0.0005]])]
    text = stopping.report([*rows, row_of(5, [])], budget=100, seeds=range(2))
    assert "| macro | 2 | 1.50 after 65 | 1.50 after 75 | 1.50 after 80 | 1.00 after 100 | 1.00 |" in text
    assert "no complete study of 30 trainings" in stopping.report(rows, budget=30, seeds=range(2))


def test_unknown_problems_are_refused(tmp_path):
    with pytest.raises(ValueError, match="hpo-naval_propulsion"):
        stopping.run(seeds=[0], budget=3, out=tmp_path, problems=["hpo-naval_propulsion"])
