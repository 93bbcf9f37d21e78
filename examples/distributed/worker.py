"""One worker of a study that several share. Start it as often as there are processors for it.

Whatever starts workers starts this program: ``local.py`` on one machine, ``slurm_array.sbatch`` on a cluster,
``kubernetes_job.yaml`` in pods. ``dask_workers.py`` and ``ray_workers.py`` call `work`. The workers share
nothing but the storage. All stop when the study has the finished trials that were asked for.

A worker that gets SIGTERM finishes its trial and stops: a trial that is cut off counts as failed.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time
from collections.abc import Sequence
from typing import Any

import optuna
import torch
from optuna.storages import BaseStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import MaxTrialsCallback
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DBAPIError

from optuna_trlhpo import TRLHPOSampler
from optuna_trlhpo.cnn import CNNObjective

STUDY = "digits-distributed"
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
INDEX_VARIABLES = ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX")  # of Slurm, and of Kubernetes
GRPC = "grpc://"


def open_storage(text: str, heartbeat: int | None = None) -> BaseStorage:
    """Open a storage.

    Args:
        text: A path that ends in ``.log`` for a journal file, ``grpc://HOST:PORT`` for the proxy of
            ``grpc_server.py``, or the URL of a database, such as ``sqlite:///digits.db``.
        heartbeat: Seconds between two signs of life, which only a database can keep. A trial whose worker has
            been silent for three times as long is failed, and its parameters are tried again.
    """
    if heartbeat is not None and (text.endswith(".log") or text.startswith(GRPC)):
        raise ValueError(f"{text} keeps no heartbeats; a database does, such as sqlite:///digits.db")
    if text.endswith(".log"):
        return optuna.storages.JournalStorage(JournalFileBackend(text))
    if text.startswith(GRPC):
        host, _, port = text.removeprefix(GRPC).rpartition(":")
        proxy = optuna.storages.GrpcStorageProxy(host=host, port=int(port))
        proxy.wait_server_ready(timeout=60)
        return proxy
    return open_database(text, heartbeat)


def open_database(url: str, heartbeat: int | None, tries: int = 6) -> BaseStorage:
    """Open a database, in several tries: it may not be up yet, or another worker may be making its tables."""
    how: dict[str, Any] = {}
    if heartbeat is not None:
        retry = optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=3)
        how = {
            "heartbeat_interval": heartbeat,
            "grace_period": 3 * heartbeat,
            "heartbeat_stale_trial_callback": retry,
        }
    for seconds in [2**k for k in range(tries - 1)]:
        try:
            return optuna.storages.RDBStorage(url, **how)
        except DBAPIError as error:
            print(f"{type(error).__name__}; trying again in {seconds} s", flush=True)
            time.sleep(seconds)
    return optuna.storages.RDBStorage(url, **how)


def open_study(storage: BaseStorage, study_name: str, seed: int | None = None) -> optuna.Study:
    """Open the study with a sampler of its own, and create it if no worker has done so."""
    return optuna.create_study(
        study_name=study_name,
        storage=storage,
        load_if_exists=True,
        direction="maximize",
        sampler=TRLHPOSampler(seed=seed),
        # Growth has stop rules of its own; Optuna's default pruner would end half of the trials at layer one.
        pruner=optuna.pruners.NopPruner(),
    )


def device_for(index: int, workers_per_gpu: int) -> str:
    """Return the GPU of a worker: the first ``workers_per_gpu`` share the first one, and so on."""
    n_gpus = torch.cuda.device_count()  # those that CUDA_VISIBLE_DEVICES shows, as Slurm and Ray set it
    return f"cuda:{index // workers_per_gpu % n_gpus}" if n_gpus else "cpu"


def work(study: optuna.Study, trials: int, device: str, stopping: threading.Event | None = None) -> int:
    """Run trials until the study has ``trials`` finished ones, or ``stopping`` is set.

    Returns:
        Number of trials that this worker has run.
    """
    ran: list[int] = []

    def count(study: optuna.Study, trial: FrozenTrial) -> None:
        ran.append(trial.number)
        if stopping is not None and stopping.is_set():
            study.stop()

    objective = CNNObjective("digits", max_parameters=4_000, device=device)
    if len(study.get_trials(deepcopy=False, states=FINISHED)) < trials:
        study.optimize(objective, callbacks=[count, MaxTrialsCallback(trials, states=FINISHED)])
    return len(ran)


def default_index() -> int:
    """Return the number of this worker that Slurm or Kubernetes has set, else 0."""
    return next((int(os.environ[name]) for name in INDEX_VARIABLES if name in os.environ), 0)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--storage", default="digits.log", help="FILE.log, grpc://HOST:PORT or a URL (%(default)s)"
    )
    parser.add_argument("--study-name", default=STUDY, help="(%(default)s)")
    parser.add_argument(
        "--trials", type=int, default=40, help="finished ones to reach, of all workers (%(default)s)"
    )
    parser.add_argument("--seed", type=int, help="of the sampler; default: a new one for each worker")
    parser.add_argument("--index", type=int, help="of this worker; default: that of Slurm or Kubernetes")
    parser.add_argument("--workers-per-gpu", type=int, default=1, help="(%(default)s)")
    parser.add_argument("--device", help="such as cuda:1 or cpu; default: by the number of the worker")
    parser.add_argument("--heartbeat", type=int, metavar="SECONDS", help="of a database; default: none")
    args = parser.parse_args(argv)
    if args.workers_per_gpu < 1:
        parser.error("--workers-per-gpu must be at least 1")

    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    index = default_index() if args.index is None else args.index
    device = args.device or device_for(index, args.workers_per_gpu)
    try:
        storage = open_storage(args.storage, args.heartbeat)
    except ValueError as error:
        parser.error(str(error))
    study = open_study(storage, args.study_name, args.seed)
    ran = work(study, args.trials, device, stopping)
    finished = study.get_trials(deepcopy=False, states=FINISHED)
    print(f"worker {index} on {device}: {ran} trials of {len(finished)}, pid {os.getpid()}")
    if finished:
        print(f"the best so far has a validation accuracy of {study.best_value:.2%}")


if __name__ == "__main__":
    main()
