"""One worker of a shared study: ``python -m tests.workers.worker STORAGE OBJECTIVE TRIALS SEED``.

It prints what it uses after each tenth of its trials, as JSON: megabytes, files and threads.
"""

from __future__ import annotations

import json
import random
import sys
import time

import optuna
import psutil
from optuna import Trial
from optuna.storages import BaseStorage, GrpcStorageProxy, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

NAME = "shared"


def storage_of(place: str) -> BaseStorage:
    """The storage at a place: ``journal:FILE``, ``grpc:PORT`` or the URL of a database."""
    kind, _, rest = place.partition(":")
    if kind == "journal":
        return JournalStorage(JournalFileBackend(rest))
    if kind == "grpc":
        return GrpcStorageProxy(host="127.0.0.1", port=int(rest))
    patience = {"timeout": 60} if kind == "sqlite" else {}
    return RDBStorage(place, engine_kwargs={"connect_args": patience})


def value_of(params: dict[str, int]) -> float:
    """The value of a configuration of `loop`."""
    n = params["depth"]
    return sum((params[f"w{i}"] - 3 - i) ** 2 for i in range(n)) / n


def loop(trial: Trial) -> float:
    """584 configurations; a training takes some milliseconds."""
    for i in range(trial.suggest_int("depth", 1, 3)):
        trial.suggest_int(f"w{i}", 1, 8)
    time.sleep(random.uniform(0.0, 0.05))
    return value_of(trial.params)


def layers(trial: Trial) -> float:
    """Networks of a `LayerSpace`, suggested whole."""
    from optuna_trlhpo import LayerSpace

    space = LayerSpace(max_layers=4)
    network = space.suggest(trial)
    time.sleep(random.uniform(0.0, 0.05))
    return float(space.encode(network)[:, 1:3].mean())


def main() -> None:
    import torch

    from optuna_trlhpo import TRLHPOSampler

    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    place, objective, n_trials, seed = sys.argv[1:]
    study = optuna.load_study(
        study_name=NAME, storage=storage_of(place), sampler=TRLHPOSampler(seed=int(seed))
    )
    play, process = {"loop": loop, "layers": layers}[objective], psutil.Process()
    for tenth in range(10):
        n = int(n_trials) * (tenth + 1) // 10 - int(n_trials) * tenth // 10
        study.optimize(play, n_trials=n)
        used = {
            "megabytes": process.memory_info().rss / 1e6,
            "files": process.num_fds(),
            "threads": process.num_threads(),
        }
        print(json.dumps(used), flush=True)


if __name__ == "__main__":
    main()
