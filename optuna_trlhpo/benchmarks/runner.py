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

import contextlib
import functools
import importlib
import json
import multiprocessing
import os
import platform
import signal
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.samplers import BaseSampler
from tqdm.auto import tqdm

from optuna_trlhpo import __version__
from optuna_trlhpo.benchmarks import tables
from optuna_trlhpo.benchmarks.problem import Form, Objective
from optuna_trlhpo.sampler import TRLHPOSampler

TRIALS_PER_TRAINING = 10
"""A study ends after so many trials for each training of its budget, for a sampler may only repeat itself."""

Row = dict[str, Any]
SamplerFactory = Callable[..., BaseSampler]
"""Called with the keyword ``seed``. It must be picklable, for it is sent to other processes."""


def _ours(*, seed: int) -> BaseSampler:
    return TRLHPOSampler(seed=seed, warn_independent_sampling=False)


def _paper(*, seed: int) -> BaseSampler:
    return TRLHPOSampler.paper(seed=seed, warn_independent_sampling=False)


def _baseline(name: str, *, seed: int) -> BaseSampler:
    module = importlib.import_module("optuna_trlhpo.baselines")
    if not hasattr(module, name):
        raise ImportError(f"optuna_trlhpo.baselines has no {name}")
    sampler: BaseSampler = getattr(module, name)(seed=seed)
    return sampler


# All at their own defaults but for what is named here; warnings apart, which would fill the screen.
OPTUNA_SAMPLERS: dict[str, SamplerFactory] = {
    "random": optuna.samplers.RandomSampler,
    "tpe": optuna.samplers.TPESampler,  # since Optuna 5 this is multivariate=True without groups
    "tpe-multivariate": functools.partial(optuna.samplers.TPESampler, multivariate=True, group=True),
    "tpe-univariate": functools.partial(optuna.samplers.TPESampler, multivariate=False),
    "gp": functools.partial(optuna.samplers.GPSampler, warn_independent_sampling=False),
    "cmaes": functools.partial(optuna.samplers.CmaEsSampler, warn_independent_sampling=False),
    "nsga2": optuna.samplers.NSGAIISampler,
}
BASELINES: dict[str, SamplerFactory] = {
    "regularized-evolution": functools.partial(_baseline, "RegularizedEvolutionSampler"),
    "local-search": functools.partial(_baseline, "LocalSearchSampler"),
    "greedy-growth": functools.partial(_baseline, "GreedyGrowthSampler"),
    "beam-growth": functools.partial(_baseline, "BeamGrowthSampler"),
    "bananas": functools.partial(_baseline, "BananasSampler"),
    "smac": functools.partial(_baseline, "SMACSampler"),
}
SAMPLERS: dict[str, SamplerFactory] = {
    "trlhpo": _ours,
    "trlhpo-paper": _paper,
    **OPTUNA_SAMPLERS,
    **BASELINES,
}


@dataclass(frozen=True)
class _Run:
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
        samplers: Names out of ``SAMPLERS``, or factories by names of their own.
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
    factories = dict(samplers) if isinstance(samplers, Mapping) else _named_samplers(samplers)
    check_names("problem", problems, tables.problems())
    with _quiet():
        for factory in factories.values():
            factory(seed=0)  # what is missing is told now, not once for each run
    forms = {name: tables.load(name, data_root).forms for name in problems}
    done = {
        path: {_identity(row) for row in read_rows(path, repair=True) if _holds(row, budget)}
        for path in (_path(out, problem, sampler) for problem in problems for sampler in factories)
    }
    runs = [
        _Run(problem, form, sampler, seed, budget, factory, data_root)
        for seed in seeds  # outermost, so that what is there at any time is balanced
        for problem in problems
        for sampler, factory in factories.items()
        for form in forms[problem]
    ]
    missing = [it for it in runs if _identity(it.key) not in done[_path(out, it.problem, it.sampler)]]
    rows = []
    with tqdm(total=len(runs), initial=len(runs) - len(missing), unit="study", disable=not progress) as bar:
        for row in _execute(missing, jobs):
            path = _path(out, row["problem"], row["sampler"])
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            rows.append(row)
            bar.update()
    return rows


def check_names(what: str, names: Iterable[str], allowed: Iterable[str]) -> None:
    """Raise a ``ValueError`` that lists what is allowed, if any of ``names`` is not."""
    allowed = list(allowed)
    unknown = [name for name in names if name not in allowed]
    if unknown:
        raise ValueError(f"unknown {what} {', '.join(unknown)}; there are {', '.join(allowed)}")


def read_rows(path: str | Path, *, repair: bool = False) -> list[Row]:
    """The rows of a file, or of all files under a folder; none if there is nothing.

    A last line that was cut off is passed over and, with ``repair``, taken out of the file.

    Raises:
        ValueError: For any other line that is not a row.
    """
    path = Path(path)
    rows: list[Row] = []
    for file in sorted(path.rglob("*.jsonl")) if path.is_dir() else [path] if path.exists() else []:
        text = file.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if repair and whole != text:
            with file.open("r+b") as opened:
                opened.truncate(len(whole))
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                row = json.loads(line)
                _identity(row)
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{file}, line {number} is not a row of a benchmark") from error
            rows.append(row)
    return rows


def versions() -> dict[str, str]:
    """The versions that results depend on."""
    return {
        "python": platform.python_version(),
        "optuna": optuna.__version__,
        "torch": str(torch.__version__),
        "optuna_trlhpo": __version__,
    }


def _named_samplers(names: Sequence[str]) -> dict[str, SamplerFactory]:
    check_names("sampler", names, SAMPLERS)
    return {name: SAMPLERS[name] for name in names}


def _path(out: str | Path, problem: str, sampler: str) -> Path:
    return Path(out) / problem / f"{sampler}.jsonl"


def _identity(row: Row) -> tuple[str, str, str, int]:
    return row["problem"], row["form"], row["sampler"], row["seed"]


def _holds(row: Row, budget: int) -> bool:
    return "error" not in row and row["budget"] >= budget


# Running -----------------------------------------------------------------------------------------------


def _execute(runs: Sequence[_Run], jobs: int) -> Iterator[Row]:
    """A row for each run, in the order in which they end."""
    if jobs == 1 or len(runs) < 2:
        yield from map(_study, runs)
        return
    others = set(multiprocessing.active_children())
    with _one_thread():
        # Not forked: torch has threads by now, and a copy of the process would not have them.
        pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_begin_worker)
        try:
            for future in as_completed([pool.submit(_study, it) for it in runs]):
                yield future.result()
            pool.shutdown()
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a process was killed, perhaps for lack of memory; the same call goes on where this one ended"
            ) from error
        finally:  # where it was broken off, nobody waits for the studies that are under way
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """For the processes that are started meanwhile: numerical libraries read this when they are loaded."""
    name = "OMP_NUM_THREADS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _study(it: _Run) -> Row:
    """Run one study; what goes wrong is told in its row."""
    torch.set_num_threads(1)
    with _quiet():
        try:
            objective = tables.load(it.problem, it.data_root).objective(it.form, it.seed, it.budget)
            return {**it.key, **_measure(objective, it.factory(seed=it.seed), it.budget)}
        except Exception as error:  # any of a sampler's: one of them must not end the others
            return {**it.key, "error": f"{type(error).__name__}: {error}"}


def _measure(objective: Objective, sampler: BaseSampler, budget: int) -> Row:
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
