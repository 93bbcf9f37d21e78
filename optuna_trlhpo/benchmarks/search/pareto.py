"""Pareto fronts of error and MACs: ``python -m optuna_trlhpo.benchmarks pareto``.

On ``mnist-layers``, every sampler minimizes two objectives, the observed error and the MACs of a network.
Each trial suggests a whole network and trains it once. All samplers have the same number of trainings; a
network that the study has trained before is free.

The result of a study is the set of networks that are not dominated by observed values. The measure is the
hypervolume between their true errors and MACs and a reference point, on logarithmic axes. It is relative to
the area between the reference point and the best value of each axis. The reference point is an error of 90 %,
which is that of guessing, and the maximum MACs of the space. The best values are the problem's optimum and
the MACs of the cheapest network in its table. So the measure is 0 for an empty front, and 1 cannot be
reached.

A row is the outcome of one study:

==================  =======================================================================================
``problem`` ...     with ``form``, ``sampler``, ``seed`` and ``budget``: the study
``hypervolumes``    pairs ``[trainings, share]``, one for each change
``front``           final front: ``[MACs, true error, network]`` in ascending order of the MACs
``trainings``       networks trained; fewer than the budget if the trials ran out first
``seconds``         CPU seconds of the sampler and of Optuna
``versions``        versions of the packages, and ``machine``
``error``           cause of a failure, in place of all fields after ``budget``
==================  =======================================================================================
"""

from __future__ import annotations

import argparse
import functools
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import optuna
from optuna.trial import FrozenTrial, Trial

from optuna_trlhpo.benchmarks.harness.rows import Row, read_rows, this_machine, versions
from optuna_trlhpo.benchmarks.harness.samplers import REFERENCE, SamplerFactory, create_sampler
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
CHECKPOINTS = (25, 50, 100, 200)

_WORST_ERROR = 0.9


class FrontPoint(NamedTuple):
    """Network with its MACs and its error."""

    macs: float
    error: float
    network: str


def front(points: Iterable[FrontPoint]) -> list[FrontPoint]:
    """Return the points that are not dominated, in ascending order of the MACs, without duplicates.

    Examples:
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
    """Compute the area that ``points`` dominate up to ``worst``, on logarithmic axes.

    Returns:
        The area relative to the one that ``best`` dominates, 0 to 1.

    Examples:
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
    """Description of one study. It is sent to another process."""

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
    """Run the missing studies of each sampler with each seed, and store their rows.

    Args:
        samplers: Names in `harness.samplers.SAMPLERS`, or factories by name.
        seeds: Random seeds of the sampler and of the noise.
        budget: Number of trainings of a study.
        out: Folder of the rows; rows of other commands belong in other folders.
        jobs: Number of processes, each with one thread.
        progress: Whether to show a progress bar.

    Returns:
        The new rows.

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
    """Return the minimum MACs of the networks in the table."""
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
        """Return the current front with true errors, by which some points may dominate others."""
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
    study = optuna.create_study(
        directions=["minimize", "minimize"],
        sampler=create_sampler(it.factory, seed=it.seed, budget=it.budget),
    )
    study.optimize(objective, n_trials=runner.TRIALS_PER_TRAINING * it.budget, callbacks=[stop])
    seconds = time.process_time() - start - evaluator.seconds
    return {
        "hypervolumes": curve,
        "front": [[point.macs, round(point.error, 6), point.network] for point in front(judged())],
        "trainings": evaluator.trainings,
        "seconds": round(seconds, 3),
        "versions": versions(),
        "machine": this_machine(),
    }


def report(rows: Iterable[Row], *, budget: int = defaults.PARETO_BUDGET, reference: str = REFERENCE) -> str:
    """Format the rows of one budget as a table in Markdown, the best sampler first.

    Wilcoxon's signed-rank test over paired seeds (two-sided, p after Holm) compares the other samplers with
    the reference at the end of the studies.

    Args:
        rows: Rows of `run`.
        budget: Number of trainings of a study.
        reference: Name of the reference sampler.
    """
    from optuna_trlhpo.benchmarks.search.results import Cell, holm, wilcoxon  # needs the extra 'bench'

    rows, failed = latest(rows, {"problem": PROBLEM, "budget": budget})
    if not rows:
        return f"There is no complete study with {budget} trainings.\n"
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
    heads = ["sampler", "seeds", *(f"@{mark}" for mark in marks), f"p against {reference}", "CPU s per study"]
    return (
        f"Relative hypervolume of the Pareto front of error and MACs on {PROBLEM}, with true errors, on "
        "logarithmic axes: mean ± standard error over seeds; larger is better. p: Wilcoxon's two-sided "
        "signed-rank test over paired seeds at the end of the studies, with Holm's correction.\n\n"
        f"{table(heads, lines)}\n\n{machines_text(rows)}\n{failures_text(failed)}"
    )


def _at(row: Row, trainings: int) -> float:
    """Return the share after a number of trainings."""
    return [share for start, share in row["hypervolumes"] if start <= trainings][-1]


def handle(arguments: argparse.Namespace) -> int:
    """Run the missing studies and print the table. Return 1 if a study failed."""
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
