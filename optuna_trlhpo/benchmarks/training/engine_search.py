"""Search with and without reduced training: ``python -m optuna_trlhpo.benchmarks engine-search``.

The command compares two objectives on few images of MNIST, with the same sampler, seeds and number of trials:

``plain``   the loop of a PyTorch tutorial (`plain_loop`); every prefix is trained from scratch, also when it
            has been trained before
``engine``  `CNNObjective` with its own loop, the settings `REDUCED`, and lookups of trained networks

The result of a study is the best prefix of its best trial. Our loop refits it from scratch on the training
and validation images, with several new seeds, for both objectives. Each refit is evaluated once on MNIST's
test images, which are not used otherwise.

A row is the outcome of one study:

====================  =====================================================================================
``problem`` ...       with ``sampler`` (``plain`` or ``engine``), ``seed``, ``trials``, ``images``, ``refits``
``setting``           key of `EPOCHS` and `REDUCED`
``seconds``           CPU seconds of the whole study, including the sampler
``training_seconds``  wall-clock seconds of the trainings
``trained``           number of networks trained, and ``looked_up``
``architecture``      network found, and its observed ``accuracy``
``test_errors``       errors of its refits, as shares of the test images
``versions``          versions of the packages, and ``machine``
``error``             cause of a failure, in place of all fields after ``setting``
====================  =====================================================================================
"""

from __future__ import annotations

import argparse
import dataclasses
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from optuna.pruners import BasePruner
from optuna.study import Study

from optuna_trlhpo.benchmarks.harness.rows import Row, check_names, read_rows, this_machine, versions
from optuna_trlhpo.benchmarks.harness.studies import (
    check_positive,
    collect,
    failures_text,
    find_root,
    latest,
    machines_text,
    mean_text,
    table,
)
from optuna_trlhpo.benchmarks.problems.tasks import BATCH_SIZE, LEARNING_RATE
from optuna_trlhpo.benchmarks.training import defaults
from optuna_trlhpo.benchmarks.training.plain_loop import plain_loop
from optuna_trlhpo.cnn import CNNObjective, savings
from optuna_trlhpo.cnn.data.datasets import ImageData, load_data
from optuna_trlhpo.cnn.training.cache import Trained, TrainingCache
from optuna_trlhpo.cnn.training.trainer import Trainer, Watch, training_seed
from optuna_trlhpo.cnn.training.weight_inheritance import Lineage
from optuna_trlhpo.layers import Layer, Network
from optuna_trlhpo.sampler import TRLHPOSampler

DATASET = "mnist"
PROBLEM = "mnist-reduced"
PLAIN, ENGINE = defaults.SEARCH_ARMS
EPOCHS = 4
REDUCED: dict[str, Any] = {
    "inherit": True,
    "inherited_epochs": EPOCHS // 2,
    "early_stop": optuna.pruners.MedianPruner(n_startup_trials=5),
    "train_prefixes": "auto",
}
"""Settings of the reduced training in ``engine``."""
MAX_SHARE = 1 / 3
"""Maximum share of the time of ``plain`` that ``engine`` should take."""


def setting_key() -> str:
    """Return a short key of the training settings, which separates rows with different settings."""
    reduced = {
        name: f"{type(value).__name__} {vars(value)}" if isinstance(value, BasePruner) else value
        for name, value in sorted(REDUCED.items())
    }
    return f"{zlib.crc32(f'{EPOCHS} {reduced}'.encode()):08x}"


class _PlainTrainer(Trainer):
    """Trainer that uses the loop of a tutorial."""

    def validate(
        self, layers: Network, *, seed: int | str, lineage: Lineage = (), watch: Watch | None = None
    ) -> np.ndarray | None:
        data, own = self.data, training_seed(seed, layers)
        network = self.initialise(layers, own).to(memory_format=torch.contiguous_format)
        correct = plain_loop(
            network,
            (pixels_of(data.train_images, data), data.train_labels),
            (pixels_of(data.validation_images, data), data.validation_labels),
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            generator=torch.Generator().manual_seed(own),
        )
        return correct.numpy()


class _Forgetful(TrainingCache):
    """Cache that never finds a network."""

    def find(self, study: Study, layers: Sequence[Layer], lineage: Lineage = ()) -> Trained | None:
        return None


def pixels_of(images: torch.Tensor, data: ImageData) -> torch.Tensor:
    """Undo the standardisation of images, and return pixels ``[N, H, W]`` uint8."""
    return ((images[:, 0] * data.std[0] + data.mean[0]) * 255).round().to(torch.uint8)


def make_objective(
    arm: str, *, seed: int, images: int, data_root: str | Path, **reduced: Any
) -> CNNObjective:
    """Create one of the two objectives.

    Args:
        arm: ``"plain"`` or ``"engine"``.
        seed: Random seed of the splits and the trainings.
        images: Number of training images and of validation images.
        data_root: Folder that contains MNIST.
        reduced: Settings of the reduced training that replace those in `REDUCED`.
    """
    less = {"train_prefixes": "all"} if arm == PLAIN else {**REDUCED, **reduced}
    objective = CNNObjective(
        DATASET,
        data_root=data_root,
        train_size=images,
        validation_size=images,
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
        max_macs=1e6,
        device="cpu",
        seed=seed,
        **less,
    )
    if arm == PLAIN:
        trainer = objective.trainer
        settings = {field.name: getattr(trainer, field.name) for field in dataclasses.fields(trainer)}
        objective.trainer = objective.evaluation.trainer = _PlainTrainer(**settings)
        objective.evaluation.cache = _Forgetful(trainer.setting)
    return objective


# Studies -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _EngineRun:
    """Description of one study."""

    sampler: str
    """Name of the objective, which is also the name of its file of rows."""
    seed: int
    trials: int
    images: int
    refits: int
    data_root: str

    @property
    def key(self) -> Row:
        names = ("sampler", "seed", "trials", "images", "refits")
        own = {name: getattr(self, name) for name in names}
        return {"problem": PROBLEM, "form": "progressive"} | own | {"setting": setting_key()}


def run(
    arms: Sequence[str] = (PLAIN, ENGINE),
    *,
    seeds: Iterable[int],
    trials: int = defaults.SEARCH_TRIALS,
    images: int = defaults.SEARCH_IMAGES,
    refits: int = defaults.SEARCH_REFITS,
    out: str | Path,
    data_root: str | Path | None = None,
    jobs: int = 1,
    progress: bool = False,
) -> list[Row]:
    """Run the missing studies of each objective and seed.

    Parallel ``jobs`` slow each other down, but affect both objectives alike. The comparison uses CPU seconds.

    Args:
        arms: Objectives, out of ``"plain"`` and ``"engine"``.
        seeds: Random seeds of the studies.
        trials: Number of trials of a study.
        images: Number of training images and of validation images.
        refits: Number of refits of the network that a study has found.
        out: Folder of the rows.
        data_root: Folder that contains MNIST; see `find_root`.
        jobs: Number of processes, each with one thread.
        progress: Whether to show a progress bar.

    Returns:
        The new rows.

    Raises:
        ValueError: For an unknown arm, or a number below 1.
        FileNotFoundError: If MNIST is missing.
    """
    check_names("arm", arms, (PLAIN, ENGINE))
    check_positive(trials=trials, images=images, refits=refits, jobs=jobs)
    root = find_root(data_root)
    if arms:  # without arms, existing rows are only reported
        load_data(DATASET, data_root=root, device="cpu")  # fails now if the data are missing
    runs = [_EngineRun(arm, seed, trials, images, refits, root) for seed in seeds for arm in arms]
    return collect(_study, runs, out=out, jobs=jobs, progress=progress)


def _study(it: _EngineRun) -> Row:
    objective = make_objective(it.sampler, seed=it.seed, images=it.images, data_root=it.data_root)
    sampler, none = TRLHPOSampler(seed=it.seed), optuna.pruners.NopPruner()  # the growth rules stop trials
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=none)
    start = time.process_time()
    study.optimize(objective, n_trials=it.trials)
    seconds = time.process_time() - start
    counted, best = savings(study), study.best_trial
    errors = []
    for refit in range(it.refits):
        accuracy = objective.refit(best, seed=1_000_000 * (refit + 1) + it.seed).test_accuracy
        assert accuracy is not None
        errors.append(round(1 - accuracy, 6))
    return {
        "seconds": round(seconds, 1),
        "training_seconds": round(counted.seconds, 1),
        "trained": counted.trained,
        "looked_up": counted.looked_up,
        "architecture": best.user_attrs["architecture"],
        "accuracy": best.value,
        "test_errors": errors,
        "versions": versions(),
        "machine": this_machine(),
    }


# Report ------------------------------------------------------------------------------------------------


def report(
    rows: Iterable[Row],
    *,
    trials: int = defaults.SEARCH_TRIALS,
    images: int = defaults.SEARCH_IMAGES,
    refits: int = defaults.SEARCH_REFITS,
) -> str:
    """Format the rows of one setting as a table in Markdown, with a summary in the last line.

    Args:
        rows: Rows of `run`.
        trials: Number of trials of a study.
        images: Number of training images.
        refits: Number of refits.
    """
    setting: Row = {"problem": PROBLEM, "trials": trials, "images": images, "refits": refits}
    setting["setting"] = setting_key()
    rows, failed = latest(rows, setting)
    arms = {arm: {row["seed"]: row for row in rows if row["sampler"] == arm} for arm in (PLAIN, ENGINE)}
    seeds = sorted(arms[PLAIN].keys() & arms[ENGINE].keys())
    if not seeds:
        return "There is no seed with a complete study of both.\n" + failures_text(failed)
    heads = ["objective", "CPU s per study", "s of trainings", "trained", "looked up"]
    heads += ["validation error, %", "test error, %"]
    lines = []
    for arm, by in arms.items():
        own = [by[seed] for seed in seeds]
        line = [arm]
        for name in ("seconds", "training_seconds", "trained", "looked_up"):
            line.append(f"{np.mean([row[name] for row in own]):.0f}")
        line.append(mean_text(100 * (1 - row["accuracy"]) for row in own))
        line.append(mean_text(100 * float(np.mean(row["test_errors"])) for row in own))
        lines.append(line)
    share = sum(arms[ENGINE][seed]["seconds"] for seed in seeds) / sum(
        arms[PLAIN][seed]["seconds"] for seed in seeds
    )
    differences = [
        100 * float(np.mean(arms[ENGINE][seed]["test_errors"]) - np.mean(arms[PLAIN][seed]["test_errors"]))
        for seed in seeds
    ]
    return (
        f"## {trials} trials on {images:,} images of MNIST\n\n"
        f"{len(seeds)} seeds, mean ± standard error. The test error is the mean of {refits} refits of the "
        "network found, on training and validation images.\n\n"
        f"{table(heads, lines)}\n\n"
        f"{machines_text(rows)}\n"
        f"{failures_text(failed)}\n"
        f"engine-search seeds {len(seeds)} time-share {share:.3f} (at most {MAX_SHARE:.3f}) "
        f"test-error-change {mean_text(differences, '+')} points\n"
    )


# Command line ------------------------------------------------------------------------------------------


def handle(arguments: argparse.Namespace) -> int:
    """Run the missing studies and print the table. Return 1 if a study failed."""
    check_positive(seeds=arguments.seeds)
    setting = {name: getattr(arguments, name) for name in ("trials", "images", "refits")}
    new = run(
        arguments.arms,
        seeds=range(arguments.seeds),
        out=arguments.out,
        data_root=arguments.data_root,
        jobs=arguments.jobs,
        progress=True,
        **setting,
    )
    print(report(read_rows(arguments.out), **setting))
    return int(any("error" in row for row in new))
