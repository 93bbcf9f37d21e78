"""When `StopWithoutGain` ends a study, and what that costs: ``python -m optuna_trlhpo.benchmarks stopping``.

A study runs to its end, and what the callback sees is recorded after each trial. So one study tells for any
smallest gain when it would have been stopped.

A row is the outcome of one study:

==================  =======================================================================================
``problem`` ...     with ``form``, ``sampler``, ``seed`` and ``budget`` in trainings: the study
``gains``           pairs ``[trainings, gain]`` after each trial from which on the callback sees a gain
``curve``           pairs ``[trainings, regret]``, as in ``run``
``trainings``       networks trained
``versions``        versions of the packages, and ``machine``
``error``           cause of a failure, in place of all fields after ``budget``
==================  =======================================================================================
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from optuna_trlhpo.benchmarks.harness.command_line import print_report, select
from optuna_trlhpo.benchmarks.harness.rows import Row, check_names, read_rows, this_machine, versions
from optuna_trlhpo.benchmarks.harness.samplers import SAMPLERS
from optuna_trlhpo.benchmarks.harness.studies import (
    check_positive,
    collect,
    failures_text,
    latest,
    machines_text,
    table,
)
from optuna_trlhpo.benchmarks.problems import tables
from optuna_trlhpo.benchmarks.search.defaults import STOPPING_PROBLEMS
from optuna_trlhpo.benchmarks.search.runner import TRIALS_PER_TRAINING
from optuna_trlhpo.stopping import StopWithoutGain

POINTS = (0.2, 0.1, 0.05, 0.02)
"""Smallest gains that are compared, in percentage points."""
_SAMPLER = "trlhpo"


@dataclass(frozen=True)
class _StoppingRun:
    problem: str
    seed: int
    budget: int
    data_root: str | Path | None

    @property
    def key(self) -> Row:
        form = tables.load(self.problem, self.data_root).forms[0]
        return {
            "problem": self.problem,
            "form": form,
            "sampler": _SAMPLER,
            "seed": self.seed,
            "budget": self.budget,
        }


def run(
    *,
    seeds: Iterable[int],
    budget: int,
    out: str | Path,
    problems: Sequence[str] = STOPPING_PROBLEMS,
    jobs: int = 1,
    data_root: str | Path | None = None,
    progress: bool = False,
) -> list[Row]:
    """Run the missing studies.

    Args:
        seeds: Random seeds of the sampler and of the noise.
        budget: Number of trainings of a study.
        out: Folder of the rows.
        problems: Some of `STOPPING_PROBLEMS`.
        jobs: Number of processes, each with one thread.
        data_root: See `tables.problems`.
        progress: Whether to show a progress bar.

    Returns:
        The new rows.
    """
    check_positive(budget=budget, jobs=jobs)
    check_names("problem", problems, STOPPING_PROBLEMS)
    runs = [_StoppingRun(problem, seed, budget, data_root) for seed in seeds for problem in problems]
    return collect(_study, runs, out=out, jobs=jobs, progress=progress)


def _study(it: _StoppingRun) -> Row:
    problem = tables.load(it.problem, it.data_root)
    objective = problem.objective(problem.forms[0], it.seed, it.budget)
    evaluator = objective.evaluator
    callback = StopWithoutGain(1.0)
    gains: list[list[float]] = []

    def watch(study: optuna.Study, trial: FrozenTrial) -> None:
        gain = callback.expected_gain(study)
        if math.isfinite(gain):
            gains.append([evaluator.trainings, gain])
        if evaluator.exhausted:
            study.stop()

    study = optuna.create_study(direction=problem.direction, sampler=SAMPLERS[_SAMPLER](seed=it.seed))
    study.optimize(objective, n_trials=TRIALS_PER_TRAINING * it.budget, callbacks=[watch])
    return {
        "gains": gains,
        "curve": evaluator.curve,
        "trainings": evaluator.trainings,
        "versions": versions(),
        "machine": this_machine(),
    }


def stops_at(row: Row, min_gain: float) -> int:
    """Return the number of trainings at which the callback stops a study; its budget if it never does.

    Examples:
        >>> stops_at({"gains": [[20, 0.01], [22, 0.001]], "budget": 100}, 0.005)
        22
    """
    return next((int(n) for n, gain in row["gains"] if gain < min_gain), row["budget"])


def report(rows: Iterable[Row], *, budget: int, seeds: Sequence[int]) -> str:
    """Format the rows of one budget as a table in Markdown."""
    from optuna_trlhpo.benchmarks.search.results import regret_at  # needs the extra 'bench'

    rows, failed = latest(rows, {"budget": budget})
    rows = [row for row in rows if row["seed"] in seeds]
    lines = []
    for problem in STOPPING_PROBLEMS:
        own = [row for row in rows if row["problem"] == problem]
        if not own:
            continue
        cells = []
        for points in POINTS:
            stops = [stops_at(row, points / 100) for row in own]
            regrets = [regret_at(row["curve"], n) for row, n in zip(own, stops, strict=True)]
            cells.append(f"{np.mean(regrets):.2f} after {np.mean(stops):.0f}")
        end = np.mean([regret_at(row["curve"], budget) for row in own])
        lines.append([problem, str(len(own)), *cells, f"{end:.2f}"])
    if not lines:
        return f"There is no complete study of {budget} trainings.\n{failures_text(failed)}"
    heads = ["problem", "seeds", *(f"less than {points:g}" for points in POINTS), f"all {budget}"]
    return (
        "Mean regret, in percentage points of accuracy, and mean number of trainings where StopWithoutGain "
        f"stops a study that expects less than a gain, in points.\n\n{table(heads, lines)}\n\n"
        f"{machines_text(rows)}\n{failures_text(failed)}"
    )


def handle(arguments: argparse.Namespace) -> int:
    """Run the missing studies and print the table. Return 1 if a study failed."""
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    new = run(
        seeds=seeds,
        budget=arguments.budget,
        out=arguments.out,
        problems=select("problem", arguments.problems, STOPPING_PROBLEMS),
        jobs=arguments.jobs,
        data_root=arguments.data_root,
        progress=True,
    )
    print_report(report(read_rows(arguments.out), budget=arguments.budget, seeds=seeds), arguments.markdown)
    return int(any("error" in row for row in new))
