"""Time that a new sampler takes in a stored study to its first suggestion, with and without a checkpoint."""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import optuna
import torch
from optuna.artifacts import FileSystemArtifactStore
from optuna.samplers import RandomSampler
from optuna.study import Study
from optuna.trial import TrialState

from optuna_trlhpo.benchmarks.harness.rows import this_machine
from optuna_trlhpo.benchmarks.problems.synthetic import depths
from optuna_trlhpo.sampler import TRLHPOSampler


class Restart(NamedTuple):
    """Times in a study of ``trials`` trials, in seconds."""

    trials: int
    learning: float
    """Time to the first suggestion of a sampler that learns from the trials."""
    saving: float
    loading: float
    """Time to the first suggestion of a sampler that loads a checkpoint."""
    megabytes: float
    """Size of the checkpoint."""


def measure_restart(n_trials: int, *, seed: int = 0) -> Restart:
    """Measure a restart in a study of ``n_trials`` random trials."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=RandomSampler(seed))
    study.optimize(depths, n_trials=n_trials)
    with tempfile.TemporaryDirectory() as folder:
        store = FileSystemArtifactStore(folder)
        sampler = TRLHPOSampler(seed=seed)
        start = time.perf_counter()
        learning = _first_suggestion(study, sampler) - start
        start = time.perf_counter()
        artifact_id = sampler.save_checkpoint(study, store)
        saving = time.perf_counter() - start
        assert artifact_id is not None
        sampler = TRLHPOSampler(seed=seed)
        start = time.perf_counter()
        assert sampler.load_checkpoint(study, store)
        loading = _first_suggestion(study, sampler) - start
        megabytes = (Path(folder) / artifact_id).stat().st_size / 1e6
    return Restart(n_trials, learning, saving, loading, megabytes)


def _first_suggestion(study: Study, sampler: TRLHPOSampler) -> float:
    """Return the time at which a new trial has got its first value."""
    study.sampler = sampler
    trial = study.ask()
    trial.suggest_int("depth", 1, 4)
    seconds = time.perf_counter()
    study.tell(trial, state=TrialState.FAIL)
    return seconds


def handle(arguments: argparse.Namespace) -> int:
    """Measure, and print the measurement as a table, on one thread."""
    torch.set_num_threads(1)
    print(
        f"{this_machine()}, one thread; Python {platform.python_version()}, torch {torch.__version__}, "
        f"optuna {optuna.__version__}; seconds to the first suggestion of a new sampler"
    )
    print(f"{'trials':>7}  {'learning':>9}  {'loading':>8}  {'ratio':>6}  {'saving':>7}  {'MB':>6}")
    for length in sorted(arguments.trials):
        row = measure_restart(length)
        ratio = row.learning / row.loading
        print(
            f"{row.trials:>7}  {row.learning:>9.2f}  {row.loading:>8.2f}  {ratio:>6.1f}  "
            f"{row.saving:>7.2f}  {row.megabytes:>6.1f}",
            flush=True,
        )
    return 0
