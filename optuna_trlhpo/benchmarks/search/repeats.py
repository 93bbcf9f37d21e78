"""How often a sampler proposes what has been tried: ``python -m optuna_trlhpo.benchmarks repeats``.

Every sampler plays each of the `pipelines` in several modes, as they occur in practice:

===================  ======================================================================================
``one``              one process, the study in memory
``workers-sqlite``   three processes at a time, on a file of SQLite; each has a sampler with its own seed
``workers-journal``  the same on a journal file
``restart``          half way the program ends and is started again: the same seed, a journal file
``alternating``      two sampler objects with different seeds take turns on one study
``grpc``             one process, the study behind Optuna's gRPC proxy
===================  ======================================================================================

A *repeat* is a trial all of whose parameters have the values of an earlier one, while there are
configurations that no trial has tried. Trials that were pruned or failed have been tried.

A row is the outcome of one study: ``problem`` is the pipeline, ``form`` the mode, ``budget`` its trials.

==================  =======================================================================================
``repeats``         trials that repeat an earlier one
``tried``           different configurations of the study
``planned``         trials after the 20th for which our sampler noted a plan
``as_planned``      of these, those that became what was planned: they have one plan alone
``trials``          trials of the study; ``complete``, ``pruned`` and ``failed`` are parts of them
``seconds``         of the study, by the clock
``versions``        and ``machine``: what ran
``error``           in place of all after ``budget``: why the study failed
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

from optuna_trlhpo.benchmarks.harness.command_line import select, write_text
from optuna_trlhpo.benchmarks.harness.rows import Row, check_names, read_rows, versions
from optuna_trlhpo.benchmarks.harness.samplers import SAMPLERS, SamplerFactory
from optuna_trlhpo.benchmarks.harness.studies import (
    check_positive,
    check_samplers,
    collect,
    failures_text,
    latest,
    machines_text,
    table,
    this_machine,
)
from optuna_trlhpo.benchmarks.problems.pipelines import PIPELINES, Pipeline
from optuna_trlhpo.benchmarks.search import defaults, modes
from optuna_trlhpo.trials.agent_record import read_agent

AFTER = 20
"""Plans are judged from here on: before, there is little to plan with."""


def configuration(trial: FrozenTrial) -> frozenset[tuple[str, Any]]:
    """All parameters of a trial with their values, such that equal configurations are equal.

    Example:
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
    """The value without the noise that steps leave in its last digits."""
    stepped = isinstance(distribution, FloatDistribution) and distribution.step is not None
    return float(f"{value:.9g}") if stepped else value


def count_repeats(trials: Iterable[FrozenTrial], configurations: int | None = None) -> int:
    """Trials whose configuration is that of an earlier one, while others remain that nobody has tried.

    What another worker was trying at the same time, in a trial that began before this one ended, is not left.

    Args:
        trials: Of one study; waiting ones do not count.
        configurations: How many there are; None: they do not run out.

    Example:
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
    """Whether a trial of a higher number began before ``trial`` ended."""
    if later.datetime_start is None or trial.datetime_complete is None:
        return False
    return later.datetime_start < trial.datetime_complete


def fidelity(trials: Iterable[FrozenTrial], after: int = AFTER) -> tuple[int, int]:
    """How many trials our sampler planned, and how many of these became what was planned.

    A trial that did has one plan, made at its first parameter; whatever comes as it was not planned makes the
    sampler plan anew. It means nothing of trials that report while they still ask for parameters.

    Args:
        trials: Of one study.
        after: Trials at the start that are passed over.
    """
    notes = [read_agent(trial) for trial in trials if trial.number >= after]
    plans = [len(note.plans) for note in notes if note is not None and note.plans]
    return len(plans), sum(n == 1 for n in plans)


@dataclass(frozen=True)
class _RepeatsRun:
    """One study to be run; it is sent to another process."""

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
    """Run each sampler on each pipeline in each mode, unless that has been done, and keep a row of each.

    Args:
        pipelines: Names out of `pipelines.PIPELINES`.
        samplers: Names out of `harness.samplers.SAMPLERS`, or factories by names of their own.
        mode_names: Out of `modes.MODES`.
        seeds: Of the sampler.
        trials: Of a study.
        out: The folder of the rows; those of other commands belong in another one.
        jobs: Studies at a time. Those of several workers have three processes each.
        progress: Whether to show a bar.

    Returns:
        The rows that this call has added.

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
    """The rows of one number of trials as tables in Markdown.

    Args:
        rows: Those of `run`.
        trials: Of a study.
        whole: Whether to tell of each pipeline and mode, or of each mode alone.
    """
    rows, failed = latest(rows, {"budget": trials})
    if not rows:
        return f"There is no whole study of {trials} trials.\n{failures_text(failed)}"
    samplers = list(dict.fromkeys(row["sampler"] for row in rows))
    heads = [*samplers, "as planned", "s a study"]
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
        f"Repeats in studies of {trials} trials: trials all of whose values are those of an earlier one, "
        "while untried configurations remain, of all trials of all seeds. As planned: of the trials after "
        f"the {AFTER}th that were planned, those that came as they were planned at their first parameter "
        f"(trlhpo; not where a pipeline reports on the way). Seconds, by the clock, are trlhpo's.",
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
    """Run what is missing and print the tables; 1 if a study failed."""
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
    print(text)
    if arguments.markdown is not None:
        write_text(arguments.markdown, text)
    return int(any("error" in row for row in new))
