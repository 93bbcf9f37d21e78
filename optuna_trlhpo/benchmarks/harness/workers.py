"""Worker processes, one thread each, that run studies."""

from __future__ import annotations

import contextlib
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
