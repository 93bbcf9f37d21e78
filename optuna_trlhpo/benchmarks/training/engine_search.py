"""A search with and without what spares trainings: ``python -m optuna_trlhpo.benchmarks engine-search``.

Two objectives, the same sampler with the same seeds, the same number of trials, on few images of MNIST:

``plain``   the loop of a PyTorch tutorial (`engine.plain_loop`), every prefix trained from scratch, and
            trained again wherever it comes up again
``engine``  `CNNObjective` with its own loop, with `REDUCED`, and looking up what was trained

What a study found is the best prefix of its best trial. It is fitted again from scratch on training and
validation images under several new seeds, for both by our loop, and each refit is judged once on MNIST's test
images, which nothing before has read.

A row is the outcome of one study:

====================  =====================================================================================
``problem`` ...       with ``sampler``, ``plain`` or ``engine``, ``seed``, ``trials``, ``images``, ``refits``
``setting``           a key for `EPOCHS` and `REDUCED`
``seconds``           CPU seconds of the whole study, sampler and all
``training_seconds``  seconds of the trainings, by the clock
``trained``           networks, and ``looked_up``
``architecture``      what was found, and its ``accuracy`` as the study observed it
``test_errors``       of each of its refits, a share of the test images
``versions``          and ``machine``: what ran
``error``             in place of all after ``setting``: why the study failed
====================  =====================================================================================
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
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

from optuna_trlhpo.benchmarks.harness.rows import Row, check_names, read_rows, versions
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
"""How ``engine`` trains less."""
MAX_SHARE = 1 / 3
"""Of the time of ``plain`` that ``engine`` may take."""


def setting_key() -> str:
    """A short key for how networks are trained: rows of another one are not taken for these."""
    reduced = {
        name: f"{type(value).__name__} {vars(value)}" if isinstance(value, BasePruner) else value
        for name, value in sorted(REDUCED.items())
    }
    return f"{zlib.crc32(f'{EPOCHS} {reduced}'.encode()):08x}"


class _PlainTrainer(Trainer):
    """Trains by the loop of a tutorial."""

    def validate(
        self, layers: Network, *, seed: int | str, way: Lineage = (), watch: Watch | None = None
    ) -> np.ndarray | None:
        data, own = self.data, training_seed(seed, layers)
        network = self.initialise(layers, own).to(memory_format=torch.contiguous_format)
        correct = plain_loop(
            network,
            (_pixels(data.train_images, data), data.train_labels),
            (_pixels(data.validation_images, data), data.validation_labels),
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            generator=torch.Generator().manual_seed(own),
        )
        return correct.numpy()


class _Forgetful(TrainingCache):
    """Knows of nothing that was trained before."""

    def find(self, study: Study, layers: Sequence[Layer], way: Lineage = ()) -> Trained | None:
        return None


def _pixels(images: torch.Tensor, data: ImageData) -> torch.Tensor:
    """Standardised images as they were in the file, ``[N, H, W]`` uint8."""
    return ((images[:, 0] * data.std[0] + data.mean[0]) * 255).round().to(torch.uint8)


def make_objective(
    arm: str, *, seed: int, images: int, data_root: str | Path, **reduced: Any
) -> CNNObjective:
    """One of the two objectives that are compared.

    Args:
        arm: ``"plain"`` or ``"engine"``.
        seed: Of the splits and the trainings.
        images: To train on, and as many to validate.
        data_root: Holds MNIST.
        reduced: How ``engine`` trains less, in place of `REDUCED`.
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
    """One study to be run."""

    sampler: str
    """Which of the objectives; rows are filed by this name."""
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
    """Run each objective with each seed, unless that has been done.

    Several ``jobs`` at once disturb one another; it is CPU seconds that are compared, and both objectives are
    disturbed alike.

    Returns:
        The rows that this call has added to ``out``.

    Raises:
        ValueError: For an unknown arm, or a number below 1.
        FileNotFoundError: If MNIST is not there.
    """
    check_names("arm", arms, (PLAIN, ENGINE))
    check_positive(trials=trials, images=images, refits=refits, jobs=jobs)
    root = find_root(data_root)
    if arms:  # without, what is there is only reported
        load_data(DATASET, data_root=root, device="cpu")  # what is missing is told now
    runs = [_EngineRun(arm, seed, trials, images, refits, root) for seed in seeds for arm in arms]
    return collect(_study, runs, out=out, jobs=jobs, progress=progress)


def _study(it: _EngineRun) -> Row:
    objective = make_objective(it.sampler, seed=it.seed, images=it.images, data_root=it.data_root)
    sampler, none = TRLHPOSampler(seed=it.seed), optuna.pruners.NopPruner()  # growth has rules of its own
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
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
    }


# Report ------------------------------------------------------------------------------------------------


def report(
    rows: Iterable[Row],
    *,
    trials: int = defaults.SEARCH_TRIALS,
    images: int = defaults.SEARCH_IMAGES,
    refits: int = defaults.SEARCH_REFITS,
) -> str:
    """The rows of one setting as a table in Markdown; the last line says what they show."""
    setting: Row = {"problem": PROBLEM, "trials": trials, "images": images, "refits": refits}
    setting["setting"] = setting_key()
    rows, failed = latest(rows, setting)
    arms = {arm: {row["seed"]: row for row in rows if row["sampler"] == arm} for arm in (PLAIN, ENGINE)}
    seeds = sorted(arms[PLAIN].keys() & arms[ENGINE].keys())
    if not seeds:
        return "There is no seed with a whole study of both.\n" + failures_text(failed)
    heads = ["objective", "CPU s of a study", "s of trainings", "trained", "looked up"]
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
        f"{len(seeds)} seeds, mean ± standard error. The test error is that of {refits} refits of what a "
        "study found, on training and validation images.\n\n"
        f"{table(heads, lines)}\n\n"
        f"{machines_text(rows)}\n"
        f"{failures_text(failed)}\n"
        f"engine-search seeds {len(seeds)} time-share {share:.3f} (at most {MAX_SHARE:.3f}) "
        f"test-error-change {mean_text(differences, '+')} points\n"
    )


# Command line ------------------------------------------------------------------------------------------


def handle(arguments: argparse.Namespace) -> int:
    """Run what is missing and print the table; 1 if a study failed."""
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
