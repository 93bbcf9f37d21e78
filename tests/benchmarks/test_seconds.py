"""What a budget in seconds is worth: the clock, rows, and the table."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from optuna_trlhpo.benchmarks.harness.rows import Row
from optuna_trlhpo.benchmarks.problems import tables
from optuna_trlhpo.benchmarks.search import seconds
from optuna_trlhpo.benchmarks.search.defaults import SECONDS_PROBLEMS, WEIGHED


def row_of(sampler: str, seed: int, curve: list[list[float]]) -> Row:
    return {
        **dict(problem="nb201-cifar10", form="terminal", sampler=sampler, seed=seed, budget=4),
        **dict(curve=curve, trainings=3, seconds=1.0, versions={"optuna": "5.0.0"}, machine="one"),
    }


@pytest.mark.parametrize("sampler", ["random", WEIGHED])
def test_a_study_lasts_as_long_as_its_budget_and_is_not_run_again(tmp_path, sampler):
    arguments: dict[str, Any] = dict(seeds=[2000], budget=12, samplers=[sampler], problems=["nb201-cifar10"])
    (row,) = seconds.run(out=tmp_path, **arguments)
    problem = tables.load("nb201-cifar10")
    assert 5 <= row["trainings"] <= 12 * problem.median_seconds() / 500  # the shortest takes 540 s
    starts = [start for start, _ in row["curve"]]
    assert starts == sorted(starts) and 0 < starts[0] and starts[-1] <= 1
    assert seconds.run(out=tmp_path, **arguments) == []


def test_the_table_has_regrets_by_share_of_the_budget():
    rows = [
        row_of(WEIGHED, 0, [[0.1, 3.0], [0.6, 1.0]]),
        row_of(WEIGHED, 1, [[0.1, 5.0], [0.4, 1.0]]),
        row_of("tpe", 0, [[0.3, 9.0]]),
        row_of("tpe", 7, [[0.3, 0.0]]),
    ]
    text = seconds.report(rows, budget=4, seeds=range(2))
    assert (
        "| nb201-cifar10 | trlhpo-seconds | 2 | 4.000 ± 1.000 | 2.000 ± 1.000 | 1.000 ± 0.000 |  | 3 |"
        in text
    )
    assert "| nb201-cifar10 | tpe | 1 | 9.000 | 9.000 | 9.000 | 1.000 | 3 |" in text
    assert "no complete study of 9 trainings" in seconds.report(rows, budget=9, seeds=range(2))


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match="hpo-car"):
        seconds.run(seeds=[0], budget=3, out=tmp_path, problems=["hpo-car"])
    with pytest.raises(ValueError, match="nothing"):
        seconds.run(seeds=[0], budget=3, out=tmp_path, samplers=["nothing"])


@pytest.mark.slow
@pytest.mark.parametrize("name", SECONDS_PROBLEMS)
def test_each_problem_knows_the_seconds_of_its_networks(name):
    problem = tables.load(name)
    objective = problem.objective(problem.forms[0], 2000, 10)

    optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).optimize(objective, n_trials=2)
    evaluator = objective.evaluator
    assert 0 < evaluator.cost / evaluator.trainings < 30 * problem.median_seconds()
