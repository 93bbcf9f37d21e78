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
import inspect
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
from optuna_trlhpo.benchmarks.samplers import BASELINES, OPTUNA_SAMPLERS, SAMPLERS, SamplerFactory

TRIALS_PER_TRAINING = 10
"""A study ends after so many trials for each training of its budget, for a sampler may only repeat itself."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Share:
    """Part of a protocol: which studies are run.

    Attributes:
        problems: Names out of `tables.problems`.
        samplers: Names out of `samplers.SAMPLERS`.
        seeds: Studies of each kind; their seeds are 0, 1, ...
        budget: Trainings of a study.
        forms: Those that are played, of those that a problem has.
    """

    problems: tuple[str, ...]
    samplers: tuple[str, ...]
    seeds: int
    budget: int
    forms: tuple[Form, ...] = ("progressive", "terminal")


SEQUENCES = ("macro-progressive", "mnist-layers")
TERMINAL = ("macro", "nb201-cifar10", "nb201-cifar100", "nb201-imagenet")
_JUDGED = SEQUENCES + TERMINAL
_COSTLY = ("gp", "tpe-univariate", "bananas", "smac")  # seconds for a study and more
_CHEAP = tuple(name for name in (*OPTUNA_SAMPLERS, *BASELINES) if name not in _COSTLY)
_FOREIGN = (
    Share(
        ("mnist-layers-foreign",),
        ("trlhpo", "random", "tpe", "tpe-multivariate", "tpe-univariate", "cmaes", "nsga2"),
        seeds=40,
        budget=200,
    ),
)
PROTOCOLS: dict[str, tuple[Share, ...]] = {
    "full": (
        Share(_JUDGED, ("trlhpo", "tpe-univariate", "bananas", *_CHEAP), seeds=100, budget=200),
        Share(("mnist-layers",), ("trlhpo-prior",), seeds=100, budget=200),
        Share(_JUDGED, ("gp", "smac", "trlhpo-paper"), seeds=20, budget=200),
        Share(tables.HPO_TABLES, ("trlhpo", *OPTUNA_SAMPLERS), seeds=30, budget=100),
        *_FOREIGN,
    ),
    # On mnist-layers ours is played in one form, so that it may look worse than it is, but not better.
    "short": (
        Share(("mnist-layers",), ("trlhpo", "trlhpo-prior"), seeds=10, budget=200, forms=("progressive",)),
        Share(("macro-progressive", *TERMINAL), ("trlhpo",), seeds=10, budget=200),
        Share(_JUDGED, _CHEAP, seeds=10, budget=200),
        Share(_JUDGED, ("gp", "bananas"), seeds=8, budget=100),
        Share(_JUDGED, ("tpe-univariate",), seeds=10, budget=50),  # later it only repeats itself, slowly
        Share(tables.HPO_TABLES, ("trlhpo", "tpe", "random", "cmaes", "nsga2"), seeds=2, budget=50),
    ),
    "foreign": _FOREIGN,
}
"""What is run to judge the sampler: all of it, what is meant to fit half an hour of two cores, or what a
pipeline of one's own comes to."""


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
) -> Iterator[_Run]:
    for problem in share.problems:
        for name in share.samplers:
            for form in tables.load(problem, data_root).forms:
                if form in share.forms:
                    yield _Run(problem, form, name, seed, share.budget, samplers[name], data_root)


def _run_missing(studies: Sequence[_Run], out: str | Path, jobs: int, progress: bool) -> list[Row]:
    """Run in this order what is not in the rows of ``out``, seeds outermost: so they are balanced at any
    time."""
    with quiet():
        for it in {id(it.factory): it for it in studies}.values():
            _sampler(it)  # what is missing is told now, not once for each study
    paths = {_path(out, it.problem, it.sampler) for it in studies}
    done: dict[tuple[str, str, str, int], int] = {}
    for row in (row for path in paths for row in read_rows(path, repair=True) if "error" not in row):
        done[_identity(row)] = max(row["budget"], done.get(_identity(row), 0))
    missing = [it for it in studies if done.get(_identity(it.key), 0) < it.budget]
    rows = []
    with tqdm(
        total=len(studies), initial=len(studies) - len(missing), unit="study", disable=not progress
    ) as bar:
        for row in execute(_study, missing, jobs):
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
    """The rows of a file, or of all ``PROBLEM/SAMPLER.jsonl`` in a folder; none if there is nothing.

    A last line that was cut off is passed over and, with ``repair``, taken out of the file.

    Raises:
        ValueError: For any other line that is not a row.
    """
    path = Path(path)
    rows: list[Row] = []
    for file in sorted(path.glob("*/*.jsonl")) if path.is_dir() else [path] if path.exists() else []:
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


def _path(out: str | Path, problem: str, sampler: str) -> Path:
    return Path(out) / problem / f"{sampler}.jsonl"


def _identity(row: Row) -> tuple[str, str, str, int]:
    return row["problem"], row["form"], row["sampler"], row["seed"]


# Running -----------------------------------------------------------------------------------------------


def execute(study: Callable[[Any], Row], runs: Sequence[Any], jobs: int) -> Iterator[Row]:
    """What ``study`` makes of each run, in the order in which they end."""
    if jobs == 1 or len(runs) < 2:
        yield from map(study, runs)
        return
    others = set(multiprocessing.active_children())
    with one_thread():
        # Not forked: torch has threads by now, and a copy of the process would not have them.
        pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_begin_worker)
        try:
            for future in as_completed([pool.submit(study, it) for it in runs]):
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
def one_thread() -> Iterator[None]:
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
def quiet() -> Iterator[None]:
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
    with quiet():
        try:
            objective = tables.load(it.problem, it.data_root).objective(it.form, it.seed, it.budget)
            return {**it.key, **measure(objective, _sampler(it), it.budget)}
        except Exception as error:  # any of a sampler's: one of them must not end the others
            return {**it.key, "error": f"{type(error).__name__}: {error}"}


def _sampler(it: _Run) -> BaseSampler:
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
