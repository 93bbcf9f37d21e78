"""Frequency of repeated configurations: ``python -m optuna_trlhpo.benchmarks repeats``.

Every sampler runs on each of the `pipelines` in several modes that occur in practice:

===================  ======================================================================================
``one``              one process, with the study in memory
``workers-sqlite``   three parallel processes on an SQLite file, each with a sampler with its own seed
``workers-journal``  three parallel processes on a journal file
``restart``          program that restarts half-way with the same seed, on a journal file
``alternating``      two sampler objects with different seeds that alternate on one study
``grpc``             one process, with the study behind Optuna's gRPC proxy
===================  ======================================================================================

A *repeat* is a trial with the same parameters and values as an earlier one, while untried configurations
remain. Pruned and failed trials count as tried.

A row is the outcome of one study: ``problem`` is the pipeline, ``form`` the mode, ``budget`` its trials.

==================  =======================================================================================
``repeats``         trials that repeat an earlier one
``tried``           different configurations of the study
``planned``         trials after the 20th for which our sampler recorded a plan
``as_planned``      planned trials that followed their first plan, and so have only one
``trials``          trials of the study; ``complete``, ``pruned`` and ``failed`` are subsets
``seconds``         wall-clock seconds of the study
``versions``        versions of the packages, and ``machine``
``error``           cause of a failure, in place of all fields after ``budget``
==================  =======================================================================================
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from optuna_trlhpo.benchmarks.harness.command_line import print_report, select
from optuna_trlhpo.benchmarks.harness.rows import Row, check_names, read_rows, this_machine, versions
from optuna_trlhpo.benchmarks.harness.samplers import SAMPLERS, SamplerFactory
from optuna_trlhpo.benchmarks.harness.studies import (
    check_positive,
    check_samplers,
    collect,
    failures_text,
    latest,
    machines_text,
    table,
)
from optuna_trlhpo.benchmarks.problems.pipelines import PIPELINES, Pipeline
from optuna_trlhpo.benchmarks.search import defaults, modes
from optuna_trlhpo.trials.agent_record import read_agent

AFTER = 20
"""First trial whose plan counts. Before it, the sampler has little data for a plan."""


def configuration(trial: FrozenTrial) -> frozenset[tuple[str, Any]]:
    """Return all parameters of a trial with their values, in a form that compares equal configurations.

    Examples:
        >>> import optuna
        >>> steps = optuna.distributions.FloatDistribution(0, 1, step=0.1)
        >>> made = [optuna.trial.create_trial(value=0.0, params={"x": x}, distributions={"x": steps})
        ...         for x in (0.3, 0.1 + 0.2)]
        >>> configuration(made[0]) == configuration(made[1])
        True
    """
    return frozenset(
        (name, _on_grid(value, trial.distributions[name])) for name, value in trial.params.items()
    )


def _on_grid(value: Any, distribution: Any) -> Any:
    """Return the value without the rounding errors of stepped floats."""
    stepped = isinstance(distribution, FloatDistribution) and distribution.step is not None
    return float(f"{value:.9g}") if stepped else value


def count_repeats(trials: Iterable[FrozenTrial], configurations: int | None = None) -> int:
    """Count the trials that repeat an earlier configuration while untried configurations remain.

    A configuration that another worker is trying in an overlapping trial does not count as untried.

    Args:
        trials: Trials of one study; waiting ones do not count.
        configurations: Number of configurations. None: they do not run out.

    Examples:
        >>> import optuna
        >>> study = optuna.create_study()
        >>> for x in (1, 2, 1, 1):
        ...     study.enqueue_trial({"x": x})
        >>> study.optimize(lambda trial: trial.suggest_int("x", 1, 3), n_trials=4)
        >>> count_repeats(study.trials, 3), count_repeats(study.trials, 2)
        (2, 0)
    """
    begun = sorted((t for t in trials if t.state != TrialState.WAITING), key=lambda trial: trial.number)
    own = [configuration(trial) for trial in begun]
    tried: set[frozenset[tuple[str, Any]]] = set()
    repeats = 0
    for n, trial in enumerate(begun):
        if own[n] in tried:
            at_once = {own[m] for m in range(n + 1, len(begun)) if _overlap(begun[m], trial)}
            repeats += configurations is None or len(tried | at_once) < configurations
        tried.add(own[n])
    return repeats


def _overlap(later: FrozenTrial, trial: FrozenTrial) -> bool:
    """Return whether a trial with a higher number began before ``trial`` ended."""
    if later.datetime_start is None or trial.datetime_complete is None:
        return False
    return later.datetime_start < trial.datetime_complete


def fidelity(trials: Iterable[FrozenTrial], after: int = AFTER) -> tuple[int, int]:
    """Count the planned trials of our sampler, and those that followed their first plan.

    A trial that follows its plan has one plan, created at its first parameter. Any deviation makes the
    sampler plan anew. The counts have no meaning for trials that report values before their last parameter.

    Args:
        trials: Trials of one study.
        after: Number of trials at the start that are ignored.
    """
    records = [read_agent(trial) for trial in trials if trial.number >= after]
    plans = [len(record.plans) for record in records if record is not None and record.plans]
    return len(plans), sum(n == 1 for n in plans)


@dataclass(frozen=True)
class _RepeatsRun:
    """Description of one study. It is sent to another process."""

    pipeline: str
    mode: str
    sampler: str
    seed: int
    trials: int
    factory: SamplerFactory

    @property
    def key(self) -> Row:
        return {
            **{"problem": self.pipeline, "form": self.mode},
            **{"sampler": self.sampler, "seed": self.seed, "budget": self.trials},
        }


def run(
    pipelines: Sequence[str] = tuple(PIPELINES),
    samplers: Mapping[str, SamplerFactory] | Sequence[str] = defaults.REPEATS_SAMPLERS,
    *,
    mode_names: Sequence[str] = tuple(modes.MODES),
    seeds: Iterable[int] = range(defaults.REPEATS_SEEDS),
    trials: int = defaults.REPEATS_TRIALS,
    out: str | Path = "repeats-rows",
    jobs: int = 1,
    progress: bool = False,
) -> list[Row]:
    """Run the missing studies of each sampler on each pipeline in each mode, and store their rows.

    Args:
        pipelines: Names in `pipelines.PIPELINES`.
        samplers: Names in `harness.samplers.SAMPLERS`, or factories by name.
        mode_names: Names in `modes.MODES`.
        seeds: Random seeds of the sampler.
        trials: Number of trials of a study.
        out: Folder of the rows; rows of other commands belong in other folders.
        jobs: Number of parallel studies. Studies with several workers have three processes each.
        progress: Whether to show a progress bar.

    Returns:
        The new rows.

    Raises:
        ValueError: For an unknown name or a number out of range.
    """
    check_positive(trials=trials, jobs=jobs)
    check_names("pipeline", pipelines, PIPELINES)
    check_names("mode", mode_names, modes.MODES)
    factories = check_samplers(samplers)
    runs = [
        _RepeatsRun(pipeline, mode, name, seed, trials, factory)
        for seed in seeds
        for mode in mode_names
        for pipeline in pipelines
        for name, factory in factories.items()
    ]
    return collect(_study, runs, out=out, jobs=jobs, progress=progress)


def _study(it: _RepeatsRun) -> Row:
    pipeline = PIPELINES[it.pipeline]
    start = time.perf_counter()
    trials = modes.MODES[it.mode](pipeline, it.factory, it.seed, it.trials)
    seconds = time.perf_counter() - start
    return {**_counts(trials, pipeline), "seconds": round(seconds, 3)}


def _counts(trials: Sequence[FrozenTrial], pipeline: Pipeline) -> Row:
    planned, as_planned = (0, 0) if pipeline.grows else fidelity(trials)
    states = [trial.state for trial in trials]
    return {
        "repeats": count_repeats(trials, pipeline.configurations),
        "tried": len({configuration(trial) for trial in trials}),
        "planned": planned,
        "as_planned": as_planned,
        "trials": len(trials),
        "complete": states.count(TrialState.COMPLETE),
        "pruned": states.count(TrialState.PRUNED),
        "failed": states.count(TrialState.FAIL),
        "versions": versions(),
        "machine": this_machine(),
    }


def report(rows: Iterable[Row], *, trials: int = defaults.REPEATS_TRIALS, whole: bool = True) -> str:
    """Format the rows of one number of trials as tables in Markdown.

    Args:
        rows: Rows of `run`.
        trials: Number of trials of a study.
        whole: Whether to list each pipeline and mode, or only each mode.
    """
    rows, failed = latest(rows, {"budget": trials})
    if not rows:
        return f"There is no complete study of {trials} trials.\n{failures_text(failed)}"
    samplers = list(dict.fromkeys(row["sampler"] for row in rows))
    heads = [*samplers, "as planned", "s per study"]
    studies = [(pipeline, mode) for mode in modes.MODES for pipeline in PIPELINES] if whole else []
    lines = []
    for pipeline, mode in studies:
        chosen = [row for row in rows if (row["problem"], row["form"]) == (pipeline, mode)]
        if chosen:
            n = PIPELINES[pipeline].configurations
            lines.append([pipeline, mode, "many" if n is None else f"{n:,}", *_cells(chosen, samplers)])
    together = []
    for mode in modes.MODES:
        chosen = [row for row in rows if row["form"] == mode]
        if chosen:
            n_pipelines = len({row["problem"] for row in chosen})
            together.append([mode, str(n_pipelines), *_cells(chosen, samplers)])
    parts = [
        f"Repeated configurations in studies of {trials} trials, over all seeds: trials with the same values "
        "as an earlier trial, while untried configurations remain. As planned: the fraction of planned "
        f"trials after the {AFTER}th that followed the plan made at their first parameter (trlhpo; only "
        "pipelines that do not report between parameters). Seconds are wall-clock times of trlhpo.",
        table(["pipeline", "mode", "configurations", *heads], lines) if lines else "",
        "All pipelines together:",
        table(["mode", "pipelines", *heads], together),
        f"{machines_text(rows)}{failures_text(failed)}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _cells(rows: Sequence[Row], samplers: Sequence[str]) -> list[str]:
    cells = []
    for name in samplers:
        own = [row for row in rows if row["sampler"] == name]
        cells.append(f"{_total(own, 'repeats')} of {_total(own, 'trials')}" if own else "")
    ours = [row for row in rows if row["sampler"] == defaults.REPEATS_SAMPLERS[0]]
    planned = _total(ours, "planned")
    cells.append(f"{_total(ours, 'as_planned') / planned:.1%} of {planned}" if planned else "")
    cells.append(f"{np.mean([row['seconds'] for row in ours]):.1f}" if ours else "")
    return cells


def _total(rows: Sequence[Row], name: str) -> int:
    return sum(row[name] for row in rows)


def handle(arguments: argparse.Namespace) -> int:
    """Run the missing studies and print the tables. Return 1 if a study failed."""
    new = run(
        select("pipeline", arguments.pipelines, PIPELINES),
        select("sampler", arguments.samplers, SAMPLERS),
        mode_names=select("mode", arguments.modes, modes.MODES),
        seeds=range(arguments.first_seed, arguments.first_seed + arguments.seeds),
        trials=arguments.trials,
        out=arguments.out,
        jobs=arguments.jobs,
        progress=True,
    )
    text = report(read_rows(arguments.out), trials=arguments.trials)
    print_report(text, arguments.markdown)
    return int(any("error" in row for row in new))
