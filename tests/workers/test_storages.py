"""Several processes share a study in each kind of storage, and some of them are killed.

The short form runs with the tests. The long one, `make soak-workers`, has more workers, trials and deaths.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.study import Study
from optuna.trial import TrialState

from optuna_trlhpo import TRLHPOSampler
from optuna_trlhpo.layers import describe, network_in
from optuna_trlhpo.trials.agent_record import AGENT_ATTRIBUTE, read_agent
from tests.workers.servers import ROOT, Server, served
from tests.workers.worker import NAME, loop, storage_of, value_of

WORKERS = int(os.environ.get("TRLHPO_WORKERS", "3"))
TRIALS = int(os.environ.get("TRLHPO_WORKER_TRIALS", "8"))
"""Trials of each worker."""
DEATHS = int(os.environ.get("TRLHPO_DEATHS", "3"))
SOAK = int(os.environ.get("TRLHPO_SOAK", "80"))
"""Trials of four workers together whose memory is watched."""
PATIENCE = 60 + 30 * WORKERS + 3 * WORKERS * TRIALS
STORAGES = ("journal", "sqlite", "postgresql", "grpc")

pytestmark = pytest.mark.workers


@pytest.fixture(params=STORAGES)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    with served(request.param, tmp_path) as server:
        optuna.create_study(study_name=NAME, storage=storage_of(server.place))
        yield server


def start(server: Server, objective: str, seed: int, n_trials: int = TRIALS) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.workers.worker"]
    command += [server.place, objective, str(n_trials), str(seed)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


def study_of(server: Server) -> Study:
    return optuna.load_study(
        study_name=NAME, storage=storage_of(server.place), sampler=TRLHPOSampler(seed=99)
    )


@pytest.mark.parametrize("objective", ["loop", "layers"])
def test_each_trial_is_there_once_and_none_repeats_another(server: Server, objective: str) -> None:
    workers = [start(server, objective, seed) for seed in range(WORKERS)]
    said = [worker.communicate(timeout=PATIENCE)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * WORKERS, said
    assert not any("Error" in text or "not stored" in text for text in said), said
    trials = study_of(server).trials
    assert [trial.number for trial in trials] == list(range(WORKERS * TRIALS))
    assert all(trial.state == TrialState.COMPLETE for trial in trials)
    tried: list[Any] = [tuple(sorted(trial.params.items())) for trial in trials]
    if objective == "layers":
        tried = [describe(network_in(trial.params)) for trial in trials]
    assert len(set(tried)) == len(tried)


def test_whoever_is_killed_what_has_finished_stays_and_the_study_goes_on(server: Server) -> None:
    rng = random.Random(0)
    n_workers = min(WORKERS, 3)
    workers = [start(server, "loop", seed, n_trials=10_000) for seed in range(n_workers)]
    seen: dict[int, float] = {}
    try:
        for death in range(DEATHS):
            wanted = len(seen) + 2
            end = time.monotonic() + PATIENCE
            while len(seen) < wanted:  # the study must go on between two deaths
                assert time.monotonic() < end, "no trial finishes any more"
                time.sleep(rng.uniform(0.0, 0.3))
                for place, worker in enumerate(workers):
                    if worker.poll() is not None:  # it lost its server; a supervisor starts another
                        workers[place] = start(server, "loop", 1000 * death + place, n_trials=10_000)
                found = {trial.number: trial.values[0] for trial in finished(server)}
                assert seen.items() <= found.items()  # nothing that had finished was lost
                seen = found
            if death % 3 == 2:
                server.kill()
            else:
                workers[rng.randrange(n_workers)].kill()
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    study = study_of(server)
    study.optimize(loop, n_trials=3)
    trials = finished(server)
    assert len(trials) >= len(seen) + 3
    for trial in trials:
        assert trial.values[0] == value_of(trial.params)
        assert AGENT_ATTRIBUTE not in trial.system_attrs or read_agent(trial) is not None
    assert len({tuple(sorted(trial.params.items())) for trial in trials}) == len(trials)


@pytest.mark.parametrize("server", ["sqlite"], indirect=True)
def test_workers_hold_what_they_need_and_no_more(server: Server) -> None:
    workers = [start(server, "layers", seed, n_trials=SOAK // 4) for seed in range(4)]
    said = [worker.communicate(timeout=PATIENCE + SOAK)[0] for worker in workers]
    for worker, lines in zip(workers, said, strict=True):
        assert worker.returncode == 0
        used = [json.loads(line) for line in lines.splitlines()]
        print(*used, sep="\n")
        assert len(used) == 10
        half, end = used[4], used[-1]
        assert end["files"] <= half["files"] and end["threads"] <= half["threads"]
        assert end["megabytes"] - half["megabytes"] < 50 + 0.02 * SOAK  # the trials themselves take some


def finished(server: Server) -> list[optuna.trial.FrozenTrial]:
    study = optuna.load_study(study_name=NAME, storage=storage_of(server.place))
    return study.get_trials(states=(TrialState.COMPLETE,))
