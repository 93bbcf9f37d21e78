"""What it costs that workers decide at the same time: ``python -m optuna_trlhpo.benchmarks parallel``.

Workers share a study and know of each other only what is stored, as processes do: each has a sampler of its
own, with a seed of its own. In each round all ask for a trial, and all trials end together, so that each
worker decides without the results of the others. One worker is an ordinary study.

A row is the outcome of one study:

==================  =======================================================================================
``problem`` ...     with ``form``, ``sampler``, ``seed`` and ``budget`` in trainings: the study
``workers``         number of workers
``curve``           pairs ``[trainings, regret]``, as in ``run``
``hits``            trainings of networks that had been trained before, or that another worker trained
``seconds``         wall-clock seconds
``versions``        versions of the packages, and ``machine``
``error``           cause of a failure, in place of all fields after ``workers``
==================  =======================================================================================
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import Trial, TrialState

from optuna_trlhpo.benchmarks.harness.command_line import print_report, select
from optuna_trlhpo.benchmarks.harness.rows import Row, check_names, read_rows, this_machine, versions
from optuna_trlhpo.benchmarks.harness.samplers import SAMPLERS, create_sampler
from optuna_trlhpo.benchmarks.harness.studies import (
    check_positive,
    collect,
    failures_text,
    latest,
    machines_text,
    mean_text,
    table,
)
from optuna_trlhpo.benchmarks.problems import tables
from optuna_trlhpo.benchmarks.problems.problem import BudgetExhausted, Form
from optuna_trlhpo.benchmarks.search.defaults import PARALLEL_PROBLEMS, PARALLEL_SAMPLERS, PARALLEL_WORKERS

_FORM: Form = "terminal"
MARKS = (24, 48, 96)
"""Numbers of trainings after which regrets are compared."""


@dataclass(frozen=True)
class _ParallelRun:
    problem: str
    sampler: str
    workers: int
    seed: int
    budget: int
    data_root: str | Path | None

    @property
    def key(self) -> Row:
        own = {name: getattr(self, name) for name in ("problem", "sampler", "seed", "budget", "workers")}
        return {"form": f"{_FORM}, {self.workers} workers", **own}


def run(
    *,
    seeds: Iterable[int],
    budget: int,
    out: str | Path,
    samplers: Sequence[str] = PARALLEL_SAMPLERS,
    problems: Sequence[str] = PARALLEL_PROBLEMS,
    workers: Sequence[int] = PARALLEL_WORKERS,
    jobs: int = 1,
    data_root: str | Path | None = None,
    progress: bool = False,
) -> list[Row]:
    """Run the missing studies.

    Args:
        seeds: Random seeds of the noise; those of the samplers follow from them.
        budget: Number of trainings of a study, of all workers together.
        out: Folder of the rows.
        samplers: Some of `PARALLEL_SAMPLERS`.
        problems: Names in `tables.problems` that have the terminal form.
        workers: Numbers of workers.
        jobs: Number of processes, each with one thread.
        data_root: See `tables.problems`.
        progress: Whether to show a progress bar.

    Returns:
        The new rows.
    """
    check_positive(budget=budget, jobs=jobs, workers=min(workers))
    check_names("sampler", samplers, PARALLEL_SAMPLERS)
    check_names("problem", problems, PARALLEL_PROBLEMS)
    runs = [
        _ParallelRun(problem, sampler, n, seed, budget, data_root)
        for seed in seeds
        for problem in problems
        for sampler in samplers
        for n in workers
    ]
    return collect(_study, runs, out=out, jobs=jobs, progress=progress)


def _sampler(name: str, seed: int, budget: int) -> BaseSampler:
    if name == "tpe-constant-liar":
        return TPESampler(seed=seed, constant_liar=True)
    return create_sampler(SAMPLERS[name], seed=seed, budget=budget)


def _study(it: _ParallelRun) -> Row:
    begin = time.perf_counter()
    problem = tables.load(it.problem, it.data_root)
    objective = problem.objective(_FORM, it.seed, it.budget)
    evaluator = objective.evaluator
    storage = InMemoryStorage()
    studies = [
        optuna.create_study(
            storage=storage,
            study_name="shared",
            load_if_exists=True,
            direction=problem.direction,
            sampler=_sampler(it.sampler, 1000 * it.seed + worker, it.budget),
        )
        for worker in range(it.workers)
    ]

    def asked(trial: Trial) -> float | None:
        try:
            return objective(trial)
        except BudgetExhausted:
            return None

    for _ in range(10 * it.budget):  # a sampler that only repeats itself must end, too
        if evaluator.exhausted:
            break
        trials = [study.ask() for study in studies]
        values = [asked(trial) for trial in trials]
        for study, trial, value in zip(studies, trials, values, strict=True):
            if value is None:
                study.tell(trial, state=TrialState.FAIL)
            else:
                study.tell(trial, value)
    return {
        "curve": evaluator.curve,
        "hits": evaluator.hits,
        "seconds": round(time.perf_counter() - begin, 1),
        "versions": versions(),
        "machine": this_machine(),
    }


def report(rows: Iterable[Row], *, budget: int, seeds: Sequence[int]) -> str:
    """Format the rows of one budget as a table in Markdown."""
    from optuna_trlhpo.benchmarks.search.results import regret_at  # needs the extra 'bench'

    rows, failed = latest(rows, {"budget": budget})
    rows = [row for row in rows if row["seed"] in seeds]
    marks = [mark for mark in MARKS if mark < budget] + [budget]
    lines = []
    for problem in PARALLEL_PROBLEMS:
        for sampler in PARALLEL_SAMPLERS:
            of = [row for row in rows if (row["problem"], row["sampler"]) == (problem, sampler)]
            for n in sorted({row["workers"] for row in of}):
                own = [row for row in of if row["workers"] == n]
                cells = [mean_text(regret_at(row["curve"], mark) for row in own) for mark in marks]
                hits = f"{np.mean([row['hits'] for row in own]):.1f}"
                lines.append([problem, sampler, str(n), str(len(own)), *cells, hits])
    if not lines:
        return f"There is no complete study of {budget} trainings.\n{failures_text(failed)}"
    heads = ["problem", "sampler", "workers", "seeds", *(f"@{mark}" for mark in marks), "repeats"]
    return (
        "Regret after trainings of all workers together, mean ± standard error, and networks that were asked "
        f"for again.\n\n{table(heads, lines)}\n\n{machines_text(rows)}\n{failures_text(failed)}"
    )


def handle(arguments: argparse.Namespace) -> int:
    """Run the missing studies and print the table. Return 1 if a study failed."""
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    new = run(
        seeds=seeds,
        budget=arguments.budget,
        out=arguments.out,
        samplers=arguments.samplers,
        problems=select("problem", arguments.problems, PARALLEL_PROBLEMS),
        workers=arguments.workers,
        jobs=arguments.jobs,
        data_root=arguments.data_root,
        progress=True,
    )
    print_report(report(read_rows(arguments.out), budget=arguments.budget, seeds=seeds), arguments.markdown)
    return int(any("error" in row for row in new))
