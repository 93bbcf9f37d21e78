"""Error against MACs: ``python -m optuna_trlhpo.benchmarks pareto``.

On ``mnist-layers``, every sampler is given the same two objectives to minimise, the observed error and the
MACs of a network that is suggested whole and trained once, and the same number of trainings; a network that
the study has trained before is free.

What a study has found are the networks that no other one dominates by what was observed. They are judged by
their true errors: by the hypervolume between them and a reference point, both axes by their logarithms, as a
share of the area between that point and the best that either axis could be, each alone. The point is an error
of 90 %, that of guessing, and the most MACs that a network of the space may have; the best are the problem's
optimum and the cheapest network of its table. So 0 is nothing and 1 cannot be reached.

A row is the outcome of one study:

==================  =======================================================================================
``problem`` ...     with ``form``, ``sampler``, ``seed`` and ``budget``: which study
``hypervolumes``    pairs ``[trainings, share]``, one wherever it changes
``front``           at the end: ``[MACs, true error, network]`` of what is not dominated, the cheapest first
``trainings``       networks trained; fewer than the budget where the trials ran out first
``seconds``         CPU seconds of the sampler, and Optuna's
``versions``        and ``machine``: what ran
``error``           in place of all after ``budget``: why the study failed
==================  =======================================================================================
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import optuna
from optuna.trial import FrozenTrial, Trial

from optuna_trlhpo.benchmarks.harness.rows import Row, read_rows, versions
from optuna_trlhpo.benchmarks.harness.samplers import SamplerFactory
from optuna_trlhpo.benchmarks.harness.studies import (
    check_positive,
    check_samplers,
    collect,
    failures_text,
    latest,
    machines_text,
    mean_text,
    table,
)
from optuna_trlhpo.benchmarks.problems import tables
from optuna_trlhpo.benchmarks.problems.mnist_layers import MnistLayers
from optuna_trlhpo.benchmarks.problems.problem import Evaluator
from optuna_trlhpo.benchmarks.search import defaults, runner
from optuna_trlhpo.layers import describe, parse

PROBLEM = "mnist-layers"
REFERENCE = "trlhpo"
CHECKPOINTS = (25, 50, 100, 200)

_WORST_ERROR = 0.9


class FrontPoint(NamedTuple):
    """A network with what it costs and how wrong it is."""

    macs: float
    error: float
    network: str


def front(points: Iterable[FrontPoint]) -> list[FrontPoint]:
    """Those that no other one dominates, the cheapest first; of equal ones the first.

    Example:
        >>> points = [FrontPoint(9, 0.1, "a"), FrontPoint(5, 0.2, "b"), FrontPoint(7, 0.3, "c")]
        >>> [point.network for point in front(points)]
        ['b', 'a']
    """
    found: list[FrontPoint] = []
    for point in sorted(points, key=lambda point: (point.macs, point.error)):
        if not found or point.error < found[-1].error:
            found.append(point)
    return found


def hypervolume(points: Iterable[FrontPoint], *, worst: FrontPoint, best: FrontPoint) -> float:
    """The area that ``points`` dominate up to ``worst``, both axes by their logarithms, as a share of what
    ``best`` would; 0 to 1.

    Example:
        >>> worst, best = FrontPoint(100, 1.0, ""), FrontPoint(1, 0.01, "")
        >>> round(hypervolume([FrontPoint(10, 0.1, "a")], worst=worst, best=best), 6)
        0.25
    """
    area, right = 0.0, math.log(worst.macs)
    inside = front(point for point in points if point.macs < worst.macs and point.error < worst.error)
    for point in reversed(inside):
        left = math.log(max(point.macs, best.macs))
        height = math.log(worst.error / max(point.error, best.error))
        area += (right - left) * height
        right = left
    return area / math.log(worst.macs / best.macs) / math.log(worst.error / best.error)


@dataclass(frozen=True)
class _ParetoRun:
    """One study to be run; it is sent to another process."""

    sampler: str
    seed: int
    budget: int
    factory: SamplerFactory

    @property
    def key(self) -> Row:
        own = {name: getattr(self, name) for name in ("sampler", "seed", "budget")}
        return {"problem": PROBLEM, "form": "terminal", **own}


def run(
    samplers: Mapping[str, SamplerFactory] | Sequence[str] = defaults.PARETO_SAMPLERS,
    *,
    seeds: Iterable[int] = range(defaults.PARETO_SEEDS),
    budget: int = defaults.PARETO_BUDGET,
    out: str | Path = "pareto-rows",
    jobs: int = 1,
    progress: bool = False,
) -> list[Row]:
    """Run each sampler with each seed, unless that has been done, and keep a row of each.

    Args:
        samplers: Names out of `runner.SAMPLERS`, or factories by names of their own.
        seeds: Of the sampler and of the noise alike.
        budget: Trainings of a study.
        out: The folder of the rows; those of the runner belong in another one.
        jobs: Processes, each with one thread.
        progress: Whether to show a bar.

    Returns:
        The rows that this call has added.

    Raises:
        ValueError: For an unknown name or a number out of range.
        ImportError: If a package is missing.
    """
    check_positive(budget=budget, jobs=jobs)
    factories = check_samplers(samplers)
    runs = [_ParetoRun(name, seed, budget, factory) for seed in seeds for name, factory in factories.items()]
    return collect(_study, runs, out=out, jobs=jobs, progress=progress)


@functools.cache
def _least_macs(problem: MnistLayers) -> int:
    """Of the networks that were trained for the table."""
    return min(problem.space.macs(parse(network)) for network in problem.surrogate.networks)


def _study(it: _ParetoRun) -> Row:
    problem = tables.load(PROBLEM, None)
    assert isinstance(problem, MnistLayers) and problem.space.max_macs is not None
    evaluator = Evaluator(problem, it.seed, it.budget)
    worst = FrontPoint(problem.space.max_macs, _WORST_ERROR, "")
    best = FrontPoint(_least_macs(problem), 1 - problem.optimum, "")
    observed: list[FrontPoint] = []
    curve: list[list[float]] = []

    def judged() -> list[FrontPoint]:
        """What was found so far, with true errors; by these some may dominate others."""
        return [point._replace(error=1 - problem.true_value(point.network)) for point in front(observed)]

    def objective(trial: Trial) -> tuple[float, float]:
        network = describe(problem.space.suggest(trial))
        before = evaluator.trainings
        error, macs = 1 - evaluator.train(network), problem.space.macs(parse(network))
        if evaluator.trainings > before:
            start = time.process_time()
            observed.append(FrontPoint(macs, error, network))
            share = round(hypervolume(judged(), worst=worst, best=best), 9)
            if not curve or share != curve[-1][1]:
                curve.append([evaluator.trainings, share])
            evaluator.seconds += time.process_time() - start
        return error, macs

    def stop(study: optuna.Study, trial: FrozenTrial) -> None:
        if evaluator.exhausted:
            study.stop()

    start = time.process_time()
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=it.factory(seed=it.seed))
    study.optimize(objective, n_trials=runner.TRIALS_PER_TRAINING * it.budget, callbacks=[stop])
    seconds = time.process_time() - start - evaluator.seconds
    return {
        "hypervolumes": curve,
        "front": [[point.macs, round(point.error, 6), point.network] for point in front(judged())],
        "trainings": evaluator.trainings,
        "seconds": round(seconds, 3),
        "versions": versions(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
    }


def report(rows: Iterable[Row], *, budget: int = defaults.PARETO_BUDGET, reference: str = REFERENCE) -> str:
    """The rows of one budget as a table in Markdown, the best first.

    The others are compared with the reference at the end of the studies, seed by seed, by Wilcoxon's
    signed-rank test (two-sided, p after Holm).
    """
    from optuna_trlhpo.benchmarks.search.results import Cell, holm, wilcoxon  # needs the extra 'bench'

    rows, failed = latest(rows, {"problem": PROBLEM, "budget": budget})
    if not rows:
        return f"There is no whole study with {budget} trainings.\n"
    marks = [at for at in CHECKPOINTS if at < budget] + [budget]
    cells = {
        name: [
            Cell("terminal", {row["seed"]: _at(row, mark) for row in rows if row["sampler"] == name})
            for mark in marks
        ]
        for name in dict.fromkeys(row["sampler"] for row in rows)
    }
    names = sorted(cells, key=lambda name: -cells[name][-1].mean)
    others = [name for name in names if name != reference] if reference in cells else []
    ps = [wilcoxon(cells[reference][-1], cells[name][-1]) for name in others]
    corrected = dict(zip(others, holm(ps), strict=True))
    lines = []
    for name in names:
        n = len(cells[name][-1].regrets)
        seconds = np.mean([row["seconds"] for row in rows if row["sampler"] == name])
        shares = [mean_text(cell.regrets.values()) for cell in cells[name]]
        p = f"{corrected[name]:.3f}" if name in corrected else ""
        lines.append([name, str(n), *shares, p, f"{seconds:.1f}"])
    heads = ["sampler", "seeds", *(f"@{mark}" for mark in marks), f"p against {reference}", "CPU s a study"]
    return (
        f"Share of the hypervolume of error against MACs on {PROBLEM}, both by their logarithms, that the "
        "front found is worth by its true errors: mean ± standard error over seeds; more is better. p: "
        "Wilcoxon's signed-rank test over paired seeds at the end, two-sided, after Holm.\n\n"
        f"{table(heads, lines)}\n\n{machines_text(rows)}\n{failures_text(failed)}"
    )


def _at(row: Row, trainings: int) -> float:
    """The share after so many trainings."""
    return [share for start, share in row["hypervolumes"] if start <= trainings][-1]


def handle(arguments: argparse.Namespace) -> int:
    """Run what is missing and print the table; 1 if a study failed."""
    check_positive(seeds=arguments.seeds)
    new = run(
        arguments.samplers,
        seeds=range(arguments.seeds),
        budget=arguments.budget,
        out=arguments.out,
        jobs=arguments.jobs,
        progress=True,
    )
    print(report(read_rows(arguments.out), budget=arguments.budget))
    return int(any("error" in row for row in new))
