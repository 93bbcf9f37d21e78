"""Run the workers as tasks of Dask, through the storage of Optuna's integration.

``pip install optuna-integration[dask]`` brings what this needs. Without options it starts a cluster of two
processes here; ``--scheduler tcp://HOST:8786`` uses one that is there, whose workers have this package
installed. The study lives in the scheduler, and ends with it unless ``--storage`` names a database.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import optuna
import worker
from distributed import Client, LocalCluster
from optuna_integration.dask import DaskStorage

from optuna_trlhpo import TRLHPOSampler


def task(storage: DaskStorage, study_name: str, trials: int, device: str | None, index: int) -> int:
    """Run one worker. It runs many trials: a new sampler would have to learn the whole study again."""
    import worker  # which was sent to the process

    # Loaded, not created: the scheduler would log an error for each worker that creates what is there.
    study = optuna.load_study(
        study_name=study_name,
        storage=storage,
        sampler=TRLHPOSampler(),
        pruner=optuna.pruners.NopPruner(),
    )
    return worker.work(study, trials, device or worker.device_for(index, workers_per_gpu=1))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scheduler", help="address of a cluster; default: processes on this machine")
    parser.add_argument("--workers", type=int, default=2, help="tasks, and processes here (%(default)s)")
    parser.add_argument(
        "--storage", help="URL of a database that the scheduler opens; default: in its memory"
    )
    parser.add_argument("--study-name", default=worker.STUDY, help="(%(default)s)")
    parser.add_argument("--trials", type=int, default=40, help="finished ones to reach (%(default)s)")
    parser.add_argument("--device", help="such as cpu; default: a GPU for each task, in turn")
    args = parser.parse_args(argv)

    # One thread a process: a task trains networks, which threads of one process would do in turns.
    local = None if args.scheduler else LocalCluster(n_workers=args.workers, threads_per_worker=1)
    with Client(args.scheduler or local) as client:
        client.upload_file(str(Path(worker.__file__)))
        storage = DaskStorage(args.storage, client=client)
        study = worker.open_study(storage, args.study_name)
        tasks = [
            client.submit(task, storage, args.study_name, args.trials, args.device, index, pure=False)
            for index in range(args.workers)
        ]
        for index, ran in enumerate(client.gather(tasks)):
            print(f"task {index}: {ran} trials")
        print(f"the best of {len(study.trials)} has a validation accuracy of {study.best_value:.2%}")
    if local is not None:
        local.close()


if __name__ == "__main__":
    main()
