"""Modes of running a study: in one or several processes, with or without a restart, local or remote.

Each mode takes a pipeline, a factory of samplers, a seed and a number of trials. It runs the study and
returns its trials.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_trlhpo.benchmarks.harness.samplers import SamplerFactory, create_sampler
from optuna_trlhpo.benchmarks.harness.workers import one_thread, quiet
from optuna_trlhpo.benchmarks.problems.pipelines import PIPELINES, Pipeline

WORKERS = 3
_NAME = "study"
_PATIENCE = 60.0
"""Timeout in seconds for a locked database, a server or another worker."""

Mode = Callable[[Pipeline, SamplerFactory, int, int], list[FrozenTrial]]


def one(pipeline: Pipeline, factory: SamplerFactory, seed: int, n_trials: int) -> list[FrozenTrial]:
    """Run a study in one process, in memory."""
    study = _create(pipeline, InMemoryStorage(), create_sampler(factory, seed=seed, budget=n_trials))
    play(study, pipeline, n_trials)
    return study.get_trials(deepcopy=False)


def restart(pipeline: Pipeline, factory: SamplerFactory, seed: int, n_trials: int) -> list[FrozenTrial]:
    """Run a study with a restart half-way: all objects are new, and only the journal file remains."""
    with _folder() as folder:
        path = folder / "journal"
        study = _create(pipeline, _journal(path), create_sampler(factory, seed=seed, budget=n_trials))
        play(study, pipeline, n_trials // 2)
        study = _load(pipeline, _journal(path), create_sampler(factory, seed=seed, budget=n_trials))
        play(study, pipeline, n_trials - n_trials // 2)
        return study.get_trials(deepcopy=False)


def alternating(pipeline: Pipeline, factory: SamplerFactory, seed: int, n_trials: int) -> list[FrozenTrial]:
    """Run a study in which two sampler objects with different seeds alternate."""
    storage = InMemoryStorage()
    one = _create(pipeline, storage, create_sampler(factory, seed=seed_of(seed, 0), budget=n_trials))
    other = _load(pipeline, storage, create_sampler(factory, seed=seed_of(seed, 1), budget=n_trials))
    for number in range(n_trials):
        play(other if number % 2 else one, pipeline, 1)
    return one.get_trials(deepcopy=False)


def grpc(pipeline: Pipeline, factory: SamplerFactory, seed: int, n_trials: int) -> list[FrozenTrial]:
    """Run a study in one process, behind a gRPC proxy."""
    from optuna.storages import GrpcStorageProxy

    storage = GrpcStorageProxy(host="127.0.0.1", port=_server())
    study = optuna.create_study(
        storage=storage,
        direction=pipeline.direction,
        sampler=create_sampler(factory, seed=seed, budget=n_trials),
        pruner=pipeline.pruner(),
    )
    play(study, pipeline, n_trials)
    return study.get_trials(deepcopy=False)


def workers_sqlite(
    pipeline: Pipeline, factory: SamplerFactory, seed: int, n_trials: int
) -> list[FrozenTrial]:
    """Run a study in three processes on an SQLite file."""
    return _workers(pipeline, factory, seed, n_trials, _sqlite)


def workers_journal(
    pipeline: Pipeline, factory: SamplerFactory, seed: int, n_trials: int
) -> list[FrozenTrial]:
    """Run a study in three processes on a journal file."""
    return _workers(pipeline, factory, seed, n_trials, _journal)


MODES: Mapping[str, Mode] = MappingProxyType(
    {
        "one": one,
        "workers-sqlite": workers_sqlite,
        "workers-journal": workers_journal,
        "restart": restart,
        "alternating": alternating,
        "grpc": grpc,
    }
)


def play(study: Study, pipeline: Pipeline, n_trials: int) -> None:
    """Run a number of trials."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # Optuna warns of each failed trial
    try:
        study.optimize(pipeline.play, n_trials=n_trials, catch=pipeline.catch)
    finally:
        optuna.logging.set_verbosity(verbosity)


def seed_of(seed: int, worker: int) -> int:
    """Return the seed of a worker. Optuna's documentation recommends a different one for each worker."""
    return int(np.random.SeedSequence((seed, worker)).generate_state(1)[0])


def _create(pipeline: Pipeline, storage: BaseStorage, sampler: BaseSampler) -> Study:
    return optuna.create_study(
        storage=storage,
        study_name=_NAME,
        direction=pipeline.direction,
        sampler=sampler,
        pruner=pipeline.pruner(),
    )


def _load(pipeline: Pipeline, storage: BaseStorage, sampler: BaseSampler) -> Study:
    return optuna.load_study(study_name=_NAME, storage=storage, sampler=sampler, pruner=pipeline.pruner())


def _sqlite(path: Path) -> BaseStorage:
    return optuna.storages.get_storage(
        RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": _PATIENCE}})
    )


def _journal(path: Path) -> BaseStorage:
    return JournalStorage(JournalFileBackend(str(path)))


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


# Several processes --------------------------------------------------------------------------------------


def _workers(
    pipeline: Pipeline,
    factory: SamplerFactory,
    seed: int,
    n_trials: int,
    open_storage: Callable[[Path], BaseStorage],
) -> list[FrozenTrial]:
    shares = [n_trials // WORKERS + (worker < n_trials % WORKERS) for worker in range(WORKERS)]
    with _folder() as folder:
        path = folder / "study"
        study = _create(pipeline, open_storage(path), create_sampler(factory, seed=seed, budget=n_trials))
        with one_thread():
            tasks = [
                _pool().submit(
                    _work, path, open_storage, pipeline.name, factory, seed_of(seed, worker), share
                )
                for worker, share in enumerate(shares)
            ]
        wait(tasks)
        try:
            for task in tasks:
                task.result()
        except BrokenProcessPool:
            _pool.cache_clear()
            raise
        return study.get_trials(deepcopy=False)


@functools.cache
def _pool() -> ProcessPoolExecutor:
    """Return the pool of workers. It is reused, because starting a worker takes seconds."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(WORKERS, timeout=_PATIENCE)
    return ProcessPoolExecutor(WORKERS, context, initializer=_begin_worker, initargs=(barrier,))


_barrier: Any = None


def _begin_worker(barrier: Any) -> None:
    import torch

    global _barrier
    _barrier = barrier
    torch.set_num_threads(1)
    end_with_parent()


def end_with_parent() -> None:
    """End this process when its parent process has ended for any reason."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_wait_for, args=(parent,), daemon=True).start()


def _wait_for(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _work(
    path: Path,
    open_storage: Callable[[Path], BaseStorage],
    pipeline: str,
    factory: SamplerFactory,
    seed: int,
    n_trials: int,
) -> None:
    with quiet():
        study = _load(
            PIPELINES[pipeline], open_storage(path), create_sampler(factory, seed=seed, budget=n_trials)
        )
        with contextlib.suppress(threading.BrokenBarrierError):
            _barrier.wait()  # otherwise the first worker could finish before the last one starts
        play(study, PIPELINES[pipeline], n_trials)


# A server -----------------------------------------------------------------------------------------------


@functools.cache
def _server() -> int:
    """Return the port of a server, which starts once and ends with this process."""
    from optuna.storages import GrpcStorageProxy

    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(port,), daemon=True)
    process.start()
    GrpcStorageProxy(host="127.0.0.1", port=port).wait_server_ready(timeout=_PATIENCE)
    return port


def free_port() -> int:
    """Return a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _serve(port: int) -> None:
    end_with_parent()
    with quiet():
        optuna.storages.run_grpc_proxy_server(InMemoryStorage(), host="127.0.0.1", port=port)
