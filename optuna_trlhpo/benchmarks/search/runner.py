"""Runs samplers on problems, many studies at a time, and keeps what came of each as a line of a file.

A row is the outcome of one study: one problem in one form, one sampler, one seed.

==================  =======================================================================================
``problem`` ...     with ``form``, ``sampler``, ``seed`` and ``budget``: which study it was
``trainings``       networks trained; fewer than the budget where the trials ran out first
``curve``           pairs ``[trainings, regret]``, see `problem.Evaluator`; the last one holds from there on
``unit``            of the regret
``trials``          trials of the study
``hits``            look-ups of networks that had been trained before, which were free
``seconds``         CPU seconds of the study without those of the problem: the sampler's, and Optuna's
``versions``        of python, optuna, torch and optuna_trlhpo
``error``           in place of all after ``budget``: why the study failed
==================  =======================================================================================
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
import torch
from optuna.samplers import BaseSampler
from tqdm.auto import tqdm

from optuna_trlhpo.benchmarks.harness.command_line import print_outcome, print_setting, select
from optuna_trlhpo.benchmarks.harness.rows import (
    Row,
    check_names,
    read_rows,
    row_file,
    row_identity,
    versions,
)
from optuna_trlhpo.benchmarks.harness.samplers import SAMPLERS, SamplerFactory
from optuna_trlhpo.benchmarks.harness.workers import execute, quiet
from optuna_trlhpo.benchmarks.problems import tables
from optuna_trlhpo.benchmarks.problems.problem import Form, Objective
from optuna_trlhpo.benchmarks.search import protocols
from optuna_trlhpo.benchmarks.search.protocols import Share

TRIALS_PER_TRAINING = 10
"""A study ends after so many trials for each training of its budget, for a sampler may only repeat itself."""


@dataclass(frozen=True)
class _SearchRun:
    """One study to be run; it is sent to another process."""

    problem: str
    form: Form
    sampler: str
    seed: int
    budget: int
    factory: SamplerFactory
    data_root: str | Path | None

    @property
    def key(self) -> Row:
        return {name: getattr(self, name) for name in ("problem", "form", "sampler", "seed", "budget")}


def run(
    problems: Sequence[str],
    samplers: Mapping[str, SamplerFactory] | Sequence[str],
    *,
    seeds: Iterable[int],
    budget: int,
    out: str | Path = "benchmark-rows",
    jobs: int = 1,
    data_root: str | Path | None = None,
    progress: bool = False,
) -> list[Row]:
    """Run each sampler on each problem, in each of its forms and with each seed, unless that has been done.

    Rows are appended to ``out/PROBLEM/SAMPLER.jsonl`` as they come. A study is not run again if its row is
    there, unless that row tells of an error or of a smaller budget. So a call that was broken off is taken
    up by the same call. A file must be deleted to have its studies run anew, as after a change of a sampler.

    Args:
        problems: Names out of `tables.problems`.
        samplers: Names out of `samplers.SAMPLERS`, or factories by names of their own.
        seeds: Of the sampler and of the noise alike.
        budget: Trainings of a study.
        out: The folder of the rows.
        jobs: Processes, each with one thread. With 1, all runs in this process.
        data_root: See `tables.problems`.
        progress: Whether to show a bar.

    Returns:
        The rows that this call has added.

    Raises:
        ValueError: For an unknown name.
        ImportError, FileNotFoundError: Before the first study, if a problem or a sampler lacks something.
        RuntimeError: If a process was killed.
    """
    factories = samplers if isinstance(samplers, Mapping) else SAMPLERS
    share = Share(tuple(problems), tuple(samplers), seeds=0, budget=budget)
    check_names("problem", share.problems, tables.problems())
    check_names("sampler", share.samplers, factories)
    studies = [study for seed in seeds for study in _studies(share, seed, factories, data_root)]
    return _run_missing(studies, out, jobs, progress)


def run_protocol(
    shares: Sequence[Share],
    samplers: Mapping[str, SamplerFactory] = SAMPLERS,
    *,
    out: str | Path = "benchmark-rows",
    jobs: int = 1,
    data_root: str | Path | None = None,
    progress: bool = False,
) -> list[Row]:
    """Run what a protocol asks for, unless that has been done; as `run` does."""
    for share in shares:
        check_names("problem", share.problems, tables.problems())
        check_names("sampler", share.samplers, samplers)
    studies = [
        study
        for seed in range(max((share.seeds for share in shares), default=0))
        for share in shares
        if seed < share.seeds
        for study in _studies(share, seed, samplers, data_root)
    ]
    return _run_missing(studies, out, jobs, progress)


def _studies(
    share: Share, seed: int, samplers: Mapping[str, SamplerFactory], data_root: str | Path | None
) -> Iterator[_SearchRun]:
    for problem in share.problems:
        for name in share.samplers:
            for form in tables.load(problem, data_root).forms:
                if form in share.forms:
                    yield _SearchRun(problem, form, name, seed, share.budget, samplers[name], data_root)


def _run_missing(studies: Sequence[_SearchRun], out: str | Path, jobs: int, progress: bool) -> list[Row]:
    """Run in this order what is not in the rows of ``out``, seeds outermost: so they are balanced at any
    time."""
    with quiet():
        for it in {id(it.factory): it for it in studies}.values():
            _sampler(it)  # what is missing is told now, not once for each study
    paths = {row_file(out, it.problem, it.sampler) for it in studies}
    done: dict[tuple[str, str, str, int], int] = {}
    for row in (row for path in paths for row in read_rows(path, repair=True) if "error" not in row):
        done[row_identity(row)] = max(row["budget"], done.get(row_identity(row), 0))
    missing = [it for it in studies if done.get(row_identity(it.key), 0) < it.budget]
    rows = []
    with tqdm(
        total=len(studies), initial=len(studies) - len(missing), unit="study", disable=not progress
    ) as bar:
        for row in execute(_study, missing, jobs):
            path = row_file(out, row["problem"], row["sampler"])
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            rows.append(row)
            bar.update()
    return rows


def _study(it: _SearchRun) -> Row:
    """Run one study; what goes wrong is told in its row."""
    torch.set_num_threads(1)
    with quiet():
        try:
            objective = tables.load(it.problem, it.data_root).objective(it.form, it.seed, it.budget)
            return {**it.key, **measure(objective, _sampler(it), it.budget)}
        except Exception as error:  # any of a sampler's: one of them must not end the others
            return {**it.key, "error": f"{type(error).__name__}: {error}"}


def _sampler(it: _SearchRun) -> BaseSampler:
    takes_budget = "budget" in inspect.signature(it.factory).parameters
    return it.factory(seed=it.seed, budget=it.budget) if takes_budget else it.factory(seed=it.seed)


def measure(objective: Objective, sampler: BaseSampler, budget: int) -> Row:
    evaluator = objective.evaluator

    def stop(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if evaluator.exhausted:
            study.stop()

    start = time.process_time()
    study = optuna.create_study(direction=objective.problem.direction, sampler=sampler)
    study.optimize(objective, n_trials=TRIALS_PER_TRAINING * budget, callbacks=[stop])
    seconds = time.process_time() - start - evaluator.seconds
    return {
        "trainings": evaluator.trainings,
        "curve": evaluator.curve,
        "unit": objective.problem.unit,
        "trials": len(study.get_trials(deepcopy=False)),
        "hits": evaluator.hits,
        "seconds": round(seconds, 3),
        "versions": versions(),
    }


def handle(arguments: argparse.Namespace) -> int:
    """Run the missing studies. Return 1 if a study failed."""
    problems = select("problem", arguments.problems, tables.problems())
    if arguments.protocol is not None:
        asked = [share.problems for share in protocols.PROTOCOLS[arguments.protocol]]
        problems = [name for name in problems if any(name in names for names in asked)]
    samplers = select("sampler", arguments.samplers, SAMPLERS)
    problems = _available(problems, arguments)  # after all arguments: an error in them comes first
    if arguments.protocol is None:
        print_setting(arguments)
        shares = [Share(tuple(problems), tuple(samplers), arguments.seeds, arguments.budget)]
    else:
        print_setting(arguments, protocol=arguments.protocol)
        shares = _narrowed(protocols.PROTOCOLS[arguments.protocol], problems, samplers)
    rows = run_protocol(
        shares, out=arguments.out, jobs=arguments.jobs, data_root=arguments.data_root, progress=True
    )
    return print_outcome(rows, arguments.out)


def _available(problems: Iterable[str], arguments: argparse.Namespace) -> list[str]:
    """Return the problems whose files are there, and print which others are left out.

    Raises:
        FileNotFoundError: If no problem remains, or if the user has named a problem whose file is missing.
    """
    found, missing = [], []
    for name in problems:
        try:
            tables.load(name, arguments.data_root)
        except FileNotFoundError as error:
            if name in arguments.problems:
                raise
            missing.append(f"{name} is left out: {error}")
        else:
            found.append(name)
    if not found:
        raise FileNotFoundError("; ".join(missing) or "the protocol has none of these problems")
    print(*missing, sep="\n", end="\n" if missing else "", file=sys.stderr)
    return found


def _narrowed(shares: Iterable[Share], problems: Iterable[str], samplers: Iterable[str]) -> list[Share]:
    return [
        replace(
            share,
            problems=tuple(name for name in share.problems if name in problems),
            samplers=tuple(name for name in share.samplers if name in samplers),
        )
        for share in shares
    ]
