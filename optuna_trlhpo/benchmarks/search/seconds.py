"""What a budget in seconds is worth: ``python -m optuna_trlhpo.benchmarks seconds``.

The tables tell how long each network was trained. A study lasts as long as ``budget`` trainings of median
length: its clock adds the seconds of the table and those that the sampler itself takes. Networks of a trial
that ends too late do not count.

A row is the outcome of one study:

==================  =======================================================================================
``problem`` ...     with ``form``, ``sampler``, ``seed`` and ``budget``: the study
``curve``           pairs ``[share of the budget, regret]``, one for each change of the incumbent
``trainings``       networks trained
``seconds``         wall-clock seconds of the sampler
``versions``        versions of the packages, and ``machine``
``error``           cause of a failure, in place of all fields after ``budget``
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
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

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
from optuna_trlhpo.benchmarks.search.defaults import SECONDS_PROBLEMS, SECONDS_SAMPLERS, WEIGHED
from optuna_trlhpo.trials.durations import SECONDS_ATTRIBUTE

SHARES = (0.25, 0.5, 1.0)
"""Shares of the budget at which regrets are compared."""


@dataclass(frozen=True)
class _TimedRun:
    problem: str
    sampler: str
    seed: int
    budget: int

    @property
    def key(self) -> Row:
        own = {name: getattr(self, name) for name in ("sampler", "seed", "budget")}
        return {"problem": self.problem, "form": tables.load(self.problem).forms[0], **own}


def run(
    *,
    seeds: Iterable[int],
    budget: int,
    out: str | Path,
    samplers: Sequence[str] = SECONDS_SAMPLERS,
    problems: Sequence[str] = SECONDS_PROBLEMS,
    jobs: int = 1,
    progress: bool = False,
) -> list[Row]:
    """Run the missing studies.

    Args:
        seeds: Random seeds of the samplers and of the noise.
        budget: Length of a study, in trainings of median length.
        out: Folder of the rows.
        samplers: Names in `harness.samplers.SAMPLERS`, or `WEIGHED`.
        problems: Some of `SECONDS_PROBLEMS`.
        jobs: Number of processes, each with one thread.
        progress: Whether to show a progress bar.

    Returns:
        The new rows.
    """
    check_positive(budget=budget, jobs=jobs)
    check_names("sampler", samplers, [*SAMPLERS, WEIGHED])
    check_names("problem", problems, SECONDS_PROBLEMS)
    runs = [
        _TimedRun(problem, sampler, seed, budget)
        for seed in seeds
        for problem in problems
        for sampler in samplers
    ]
    return collect(_study, runs, out=out, jobs=jobs, progress=progress)


def _sampler(name: str, seed: int, budget: int, seconds: float) -> BaseSampler:
    if name != WEIGHED:
        return create_sampler(SAMPLERS[name], seed=seed, budget=budget)
    from optuna_trlhpo.sampler import TRLHPOSampler

    return TRLHPOSampler(seed=seed, layer_prior=False, time_budget=seconds, warn_independent_sampling=False)


def _study(it: _TimedRun) -> Row:
    problem = tables.load(it.problem)
    limit = it.budget * problem.median_seconds()
    objective = problem.objective(problem.forms[0], it.seed, 10**9)
    evaluator = objective.evaluator
    study = optuna.create_study(
        direction=problem.direction, sampler=_sampler(it.sampler, it.seed, it.budget, limit)
    )
    clock = own = 0.0
    curve: list[list[float]] = []
    while True:
        cost, of_problem, begin = evaluator.cost, evaluator.seconds, time.perf_counter()
        trial = study.ask()
        value = objective(trial)
        thinking = time.perf_counter() - begin - (evaluator.seconds - of_problem)
        own += thinking
        seconds = evaluator.cost - cost + thinking
        clock += seconds
        if clock > limit:
            study.tell(trial, state=TrialState.FAIL)
            break
        trial.set_user_attr(SECONDS_ATTRIBUTE, seconds)
        study.tell(trial, value)
        regret = evaluator.curve[-1][1]
        if not curve or curve[-1][1] != regret:
            curve.append([round(clock / limit, 6), regret])
    return {
        "curve": curve,
        "trainings": evaluator.trainings,
        "seconds": round(own, 1),
        "versions": versions(),
        "machine": this_machine(),
    }


def report(rows: Iterable[Row], *, budget: int, seeds: Sequence[int]) -> str:
    """Format the rows of one budget as a table in Markdown.

    A regret before the first trial has ended counts as that of the worst study of the problem.
    """
    from optuna_trlhpo.benchmarks.search.results import Cell, holm, wilcoxon  # needs the extra 'bench'

    rows, failed = latest(rows, {"budget": budget})
    rows = [row for row in rows if row["seed"] in seeds]
    lines = []
    for problem in SECONDS_PROBLEMS:
        of_problem = [row for row in rows if row["problem"] == problem]
        worst = max((row["curve"][0][1] for row in of_problem if row["curve"]), default=0.0)
        cells = {
            name: [
                Cell(
                    "", {row["seed"]: _at(row, share, worst) for row in of_problem if row["sampler"] == name}
                )
                for share in SHARES
            ]
            for name in (*SECONDS_SAMPLERS, *SAMPLERS)
            if any(row["sampler"] == name for row in of_problem)
        }
        others = [name for name in cells if name != WEIGHED] if WEIGHED in cells else []
        ps = dict(
            zip(others, holm([wilcoxon(cells[WEIGHED][-1], cells[n][-1]) for n in others]), strict=True)
        )
        for name, own in cells.items():
            trainings = np.mean([row["trainings"] for row in of_problem if row["sampler"] == name])
            p = f"{ps[name]:.3f}" if name in ps else ""
            regrets = [mean_text(cell.regrets.values()) for cell in own]
            lines.append([problem, name, str(len(own[-1].regrets)), *regrets, p, f"{trainings:.0f}"])
    if not lines:
        return f"There is no complete study of {budget} trainings of median length.\n{failures_text(failed)}"
    heads = ["problem", "sampler", "seeds", *(f"after {share:.0%}" for share in SHARES), "p", "trainings"]
    return (
        f"Regret after shares of a budget of {budget} trainings of median length, mean ± standard error. p: "
        f"Wilcoxon's two-sided signed-rank test against {WEIGHED} at the end, with Holm's correction.\n\n"
        f"{table(heads, lines)}\n\n{machines_text(rows)}\n{failures_text(failed)}"
    )


def _at(row: Row, share: float, worst: float) -> float:
    """Return the regret after a share of the budget."""
    return next((regret for start, regret in reversed(row["curve"]) if start <= share), worst)


def handle(arguments: argparse.Namespace) -> int:
    """Run the missing studies and print the table. Return 1 if a study failed."""
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    new = run(
        seeds=seeds,
        budget=arguments.budget,
        out=arguments.out,
        samplers=arguments.samplers,
        problems=select("problem", arguments.problems, SECONDS_PROBLEMS),
        jobs=arguments.jobs,
        progress=True,
    )
    print_report(report(read_rows(arguments.out), budget=arguments.budget, seeds=seeds), arguments.markdown)
    return int(any("error" in row for row in new))
