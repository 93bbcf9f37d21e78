"""Run the workers as tasks of Ray.

Optuna has no storage for Ray: the tasks share any other one, a journal file on one machine, and a database or
the gRPC proxy on several. Ray brings the programs to the nodes, and gives each task its part of a GPU.
``pip install ray`` brings what this needs; ``--address auto`` uses a cluster that is there, whose nodes have
this package installed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import ray
import worker


def task(storage: str, study_name: str, trials: int) -> int:
    """Run one worker. It runs many trials: a new sampler would have to learn the whole study again."""
    import worker  # which Ray has brought to the process

    study = worker.open_study(worker.open_storage(storage), study_name)
    return worker.work(study, trials, worker.device_for(0, workers_per_gpu=1))  # Ray shows it no other GPU


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", help="of a cluster; default: processes on this machine")
    parser.add_argument("--workers", type=int, default=2, help="tasks (%(default)s)")
    parser.add_argument(
        "--gpus", type=float, default=0, help="of each task, 0.5 for two on one (%(default)s)"
    )
    parser.add_argument("--storage", default="digits.log", help="as of worker.py (%(default)s)")
    parser.add_argument("--study-name", default=worker.STUDY, help="(%(default)s)")
    parser.add_argument("--trials", type=int, default=40, help="finished ones to reach (%(default)s)")
    args = parser.parse_args(argv)

    storage = str(Path(args.storage).resolve()) if args.storage.endswith(".log") else args.storage
    folder = str(Path(worker.__file__).parent)
    ray.init(address=args.address, runtime_env={"working_dir": folder, "env_vars": {"OMP_NUM_THREADS": "1"}})
    remote = ray.remote(num_cpus=1, num_gpus=args.gpus)(task)
    tasks = [remote.remote(storage, args.study_name, args.trials) for _ in range(args.workers)]
    for index, ran in enumerate(ray.get(tasks)):
        print(f"task {index}: {ran} trials")
    study = worker.open_study(worker.open_storage(storage), args.study_name)
    print(f"the best of {len(study.trials)} has a validation accuracy of {study.best_value:.2%}")
    ray.shutdown()


if __name__ == "__main__":
    main()
