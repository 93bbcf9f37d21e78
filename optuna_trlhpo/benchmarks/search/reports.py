"""Whether reports inform later choices of the same trial: ``python -m optuna_trlhpo.benchmarks reports``.

On each `signpost` problem the report after the first parameters reveals the choice that is right at the next,
anew in every trial. Only a sampler that reads the report inside the trial is better than chance.

A row is the outcome of one study. ``budget`` is its number of trials.

============  =============================================================================================
``last``      mean value of the last third of the trials, 1 at best
``seconds``   wall-clock seconds of the study
``versions``  versions of the packages, and ``machine``
============  =============================================================================================
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna

from optuna_trlhpo.benchmarks.harness.command_line import print_report
from optuna_trlhpo.benchmarks.harness.rows import Row, read_rows, this_machine, versions
from optuna_trlhpo.benchmarks.harness.samplers import SAMPLERS, create_sampler
from optuna_trlhpo.benchmarks.harness.studies import (
    check_positive,
    check_samplers,
    collect,
    failures_text,
    latest,
    machines_text,
    table,
)
from optuna_trlhpo.benchmarks.problems.synthetic import signpost

WAYS, KINDS, BEFORE = (2, 3, 4, 5), ("category", "integer", "float"), (1, 3)
"""Numbers of choices, kinds of the choice, and numbers of parameters before the report."""
NAMES = ("trlhpo", "tpe", "random")
"""Samplers that are compared."""


@dataclass(frozen=True)
class SignpostProblem:
    """Arguments of `signpost`."""

    n_ways: int
    kind: str
    n_before: int
    reports_are_values: bool

    @property
    def name(self) -> str:
        """Name in rows, such as ``signpost-5-float-3-values``."""
        what = "values" if self.reports_are_values else "signs"
        return f"signpost-{self.n_ways}-{self.kind}-{self.n_before}-{what}"


PROBLEMS = tuple(itertools.starmap(SignpostProblem, itertools.product(WAYS, KINDS, BEFORE, (False, True))))
"""All problems."""


@dataclass(frozen=True)
class _SignpostRun:
    problem: SignpostProblem
    sampler: str
    seed: int
    trials: int

    @property
    def key(self) -> Row:
        return {
            "problem": self.problem.name,
            "form": "progressive",
            "sampler": self.sampler,
            "seed": self.seed,
            "budget": self.trials,
        }


def run(
    *,
    seeds: Iterable[int],
    trials: int,
    out: str | Path,
    samplers: Sequence[str] = NAMES,
    problems: Sequence[SignpostProblem] = PROBLEMS,
    jobs: int = 1,
    progress: bool = False,
) -> list[Row]:
    """Run the missing studies.

    Args:
        seeds: Random seeds of the studies.
        trials: Number of trials of a study.
        out: Folder of the rows.
        samplers: Names in `harness.samplers.SAMPLERS`.
        problems: Some of `PROBLEMS`.
        jobs: Number of processes, each with one thread.
        progress: Whether to show a progress bar.

    Returns:
        The new rows.
    """
    check_positive(trials=trials, jobs=jobs)
    check_samplers(samplers)
    runs = [
        _SignpostRun(problem, sampler, seed, trials)
        for seed in seeds
        for problem in problems
        for sampler in samplers
    ]
    return collect(_play, runs, out=out, jobs=jobs, progress=progress)


def _play(run: _SignpostRun) -> Row:
    it = run.problem
    objective = signpost(
        n_ways=it.n_ways,
        kind=it.kind,
        n_before=it.n_before,
        reports_are_values=it.reports_are_values,
        seed=run.seed,
    )
    study = optuna.create_study(
        direction="maximize", sampler=create_sampler(SAMPLERS[run.sampler], seed=run.seed, budget=run.trials)
    )
    start = time.perf_counter()
    study.optimize(objective, n_trials=run.trials)
    values = [trial.values[0] for trial in study.get_trials(deepcopy=False)]
    return {
        "last": float(np.mean(values[-max(run.trials // 3, 1) :])),
        "seconds": round(time.perf_counter() - start, 1),
        "versions": versions(),
        "machine": this_machine(),
    }


def report(rows: Iterable[Row], *, trials: int, seeds: Sequence[int]) -> str:
    """Format the rows of one number of trials as a table in Markdown."""
    rows, failed = latest(rows, {"budget": trials})
    rows = [row for row in rows if row["seed"] in seeds]
    lines, above = [], []
    for problem in PROBLEMS:
        of = {
            name: [r["last"] for r in rows if (r["problem"], r["sampler"]) == (problem.name, name)]
            for name in NAMES
        }
        ours, *others = of.values()
        if not ours:
            continue
        above.append(float(np.mean(ours)) >= 0.9)
        lines.append(
            [
                str(problem.n_ways),
                problem.kind,
                str(problem.n_before),
                "yes" if problem.reports_are_values else "no",
                f"{np.mean(ours):.3f}, {min(ours):.2f}",
                *(f"{np.mean(values):.2f}" if values else "" for values in others),
                f"{1 / problem.n_ways:.2f}",
                str(len(ours)),
            ]
        )
    if not lines:
        return f"There is no complete study of {trials} trials.\n{failures_text(failed)}"
    heads = ["ways", "kind", "before", "values", "trlhpo, worst seed", "tpe", "random", "chance", "seeds"]
    parts = [
        f"Mean value of the last third of {trials} trials of `signpost`, 1 at best: number of ways, kind of "
        "the choice, number of parameters before the report, and whether reports are values.",
        table(heads, lines),
        f"At least .9 in {sum(above)} of {len(above)} problems.",
        f"{machines_text(rows)}{failures_text(failed)}",
    ]
    return "\n\n".join(parts) + "\n"


def handle(arguments: argparse.Namespace) -> int:
    """Run the missing studies and print the table. Return 1 if a study failed."""
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    new = run(seeds=seeds, trials=arguments.trials, out=arguments.out, jobs=arguments.jobs, progress=True)
    print_report(report(read_rows(arguments.out), trials=arguments.trials, seeds=seeds), arguments.markdown)
    return int(any("error" in row for row in new))
