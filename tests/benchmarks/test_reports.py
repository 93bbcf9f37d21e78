"""Whether reports inform later choices: the problems, rows, and the table."""

from __future__ import annotations

from optuna_trlhpo.benchmarks.harness.rows import Row
from optuna_trlhpo.benchmarks.search import reports
from optuna_trlhpo.benchmarks.search.reports import PROBLEMS

TRIALS = 6


def row_of(problem: reports.SignpostProblem, sampler: str, seed: int, last: float) -> Row:
    return {
        **dict(problem=problem.name, form="progressive", sampler=sampler, seed=seed, budget=TRIALS),
        **dict(last=last, seconds=1.0, versions={"optuna": "5.0.0"}, machine="one"),
    }


def test_a_study_is_a_row_and_is_not_run_again(tmp_path):
    some, names = PROBLEMS[-2:], ("tpe", "random")
    rows = reports.run(seeds=[3], trials=TRIALS, out=tmp_path, samplers=names, problems=some)
    assert len(rows) == 4 and all(0 <= row["last"] <= 1 for row in rows)
    assert reports.run(seeds=[3], trials=TRIALS, out=tmp_path, samplers=names, problems=some) == []


def test_each_problem_has_a_name_of_its_own():
    assert len({problem.name for problem in PROBLEMS}) == len(PROBLEMS) == 48
    assert PROBLEMS[-1].name == "signpost-5-float-3-values"


def test_the_table_counts_the_problems_that_are_solved():
    first, second = PROBLEMS[0], PROBLEMS[-1]
    rows = [
        *(row_of(first, "trlhpo", seed, value) for seed, value in enumerate((0.9, 1.0))),
        row_of(second, "trlhpo", 0, 0.8),
        row_of(second, "tpe", 0, 0.25),
    ]
    text = reports.report([*rows, row_of(first, "trlhpo", 9, 0.0)], trials=TRIALS, seeds=range(5))
    assert "| 2 | category | 1 | no | 0.950, 0.90 |  |  | 0.50 | 2 |" in text
    assert "| 5 | float | 3 | yes | 0.800, 0.80 | 0.25 |  | 0.20 | 1 |" in text
    assert "At least .9 in 1 of 2 problems." in text
    assert "no complete study of 500 trials" in reports.report(rows, trials=500, seeds=range(5))
