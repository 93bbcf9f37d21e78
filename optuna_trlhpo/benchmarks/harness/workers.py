"""Worker processes that run studies, with one thread each."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import optuna

from optuna_trlhpo.benchmarks.harness.rows import Row

# Running -----------------------------------------------------------------------------------------------


def execute(study: Callable[[Any], Row], runs: Sequence[Any], jobs: int) -> Iterator[Row]:
    """Call a function for each run, in worker processes if there are several, and yield the rows.

    Args:
        study: Function that returns the row of a run. Other processes must be able to import it.
        runs: Runs in the order in which they begin.
        jobs: Number of processes. With 1, all runs are in this process.

    Yields:
        Rows in the order in which the runs end.

    Raises:
        RuntimeError: If a process was killed.
    """
    if jobs == 1 or len(runs) < 2:
        yield from map(study, runs)
        return
    others = set(multiprocessing.active_children())
    with one_thread():
        # Processes are spawned, not forked: a forked process would lack the threads that torch has started.
        pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_begin_worker)
        try:
            for future in as_completed([pool.submit(study, it) for it in runs]):
                yield future.result()
            pool.shutdown()
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a process was killed, perhaps for lack of memory; the same call goes on where this one ended"
            ) from error
        finally:  # after an interruption, do not wait for the running studies
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Limit the processes that start meanwhile to one thread.

    Numerical libraries read the environment variable when they are loaded.
    """
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
    """Turn off the messages of Optuna below warnings, and its warnings of experimental features.

    A failed trial is no message either: Optuna logs its traceback, and the row of the study has its error.
    """
    verbosity = optuna.logging.get_verbosity()
    trials = logging.getLogger("optuna.study")
    level = trials.level
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trials.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        trials.setLevel(level)
        optuna.logging.set_verbosity(verbosity)
