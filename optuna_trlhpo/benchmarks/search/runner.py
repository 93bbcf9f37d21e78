"""Runner of samplers on problems, in parallel. It stores the result of each study as a line of a file.

A row is the outcome of one study: one problem in one form, one sampler, one seed.

==================  =======================================================================================
``problem`` ...     with ``form``, ``sampler``, ``seed`` and ``budget``: the study
``trainings``       networks trained; fewer than the budget if the trials ran out first
``curve``           pairs ``[trainings, regret]``, see `problem.Evaluator`; the last regret holds to the end
``unit``            unit of the regret
``trials``          trials of the study
``hits``            free lookups of networks that had been trained before
``seconds``         CPU seconds of the sampler and of Optuna, without those of the problem
``versions``        versions of python, optuna, torch and optuna_trlhpo
``error``           cause of a failure, in place of all fields after ``budget``
==================  =======================================================================================
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
from optuna.samplers import BaseSampler

from optuna_trlhpo.benchmarks.harness.command_line import print_outcome, print_setting, select
from optuna_trlhpo.benchmarks.harness.rows import (
    Row,
    check_names,
    row_identity,
    versions,
)
from optuna_trlhpo.benchmarks.harness.samplers import SAMPLERS, SamplerFactory, create_sampler
from optuna_trlhpo.benchmarks.harness.studies import collect
from optuna_trlhpo.benchmarks.harness.workers import quiet
from optuna_trlhpo.benchmarks.problems import tables
from optuna_trlhpo.benchmarks.problems.problem import Form, Objective
from optuna_trlhpo.benchmarks.search import protocols
from optuna_trlhpo.benchmarks.search.protocols import Share

TRIALS_PER_TRAINING = 10
"""Maximum number of trials per training of the budget, for a sampler that only repeats itself."""


@dataclass(frozen=True)
class _SearchRun:
    """Description of one study. It is sent to another process."""

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
    """Run the missing studies of each sampler on each problem, in each of its forms and with each seed.

    Each row is appended to ``out/PROBLEM/SAMPLER.jsonl`` at once. A study with a row does not run again,
    unless the row has an error or a smaller budget. So the same call continues after an interruption. To
    repeat studies, for example after a change of a sampler, delete their file.

    Args:
        problems: Names in `tables.problems`.
        samplers: Names in `samplers.SAMPLERS`, or factories by name.
        seeds: Random seeds of the sampler and of the noise.
        budget: Number of trainings of a study.
        out: Folder of the rows.
        jobs: Number of processes, each with one thread. With 1, all studies run in this process.
        data_root: See `tables.problems`.
        progress: Whether to show a progress bar.

    Returns:
        The new rows.

    Raises:
        ValueError: For an unknown name.
        ImportError: If a package is missing, before the first study.
        FileNotFoundError: If the file of a problem is missing, before the first study.
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
    """Run the missing studies of a protocol, like `run`.

    Args:
        shares: Shares of the protocol.
        samplers: Factories by name.
        out: Folder of the rows.
        jobs: Number of processes.
        data_root: See `tables.problems`.
        progress: Whether to show a progress bar.

    Returns:
        The new rows.
    """
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
    """Run the studies without a row in ``out``. Seeds are outermost, so the rows are balanced at any time."""
    with quiet():
        for it in {id(it.factory): it for it in studies}.values():
            _sampler(it)  # fails now if a package is missing, not once for each study
    return collect(_study, studies, out=out, jobs=jobs, progress=progress, serves=_serves)


def _serves(row: Row, key: Row) -> bool:
    """Return whether a row is of the study with a key, with the same budget or a larger one."""
    return (
        row["seed"] == key["seed"]
        and row_identity(row) == row_identity(key)
        and row["budget"] >= key["budget"]
    )


def _study(it: _SearchRun) -> Row:
    objective = tables.load(it.problem, it.data_root).objective(it.form, it.seed, it.budget)
    return measure(objective, _sampler(it), it.budget)


def _sampler(it: _SearchRun) -> BaseSampler:
    return create_sampler(it.factory, seed=it.seed, budget=it.budget)


def measure(objective: Objective, sampler: BaseSampler, budget: int) -> Row:
    """Run one study and return the fields of its row after the key."""
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
