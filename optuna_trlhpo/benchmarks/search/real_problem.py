"""A problem whose networks are really trained, and the test images that none of them has seen."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import torch
from optuna.trial import Trial

from optuna_trlhpo.benchmarks.harness.rows import Row
from optuna_trlhpo.benchmarks.layer_prior.training_table import train_network
from optuna_trlhpo.benchmarks.problems.problem import Form, Problem, Train
from optuna_trlhpo.benchmarks.problems.tasks import TASKS, Task
from optuna_trlhpo.cnn.data.datasets import ImageData, load_data
from optuna_trlhpo.layers import describe, parse
from optuna_trlhpo.space import LayerSpace

_RESOLUTIONS = {"mnist": 28, "digits": 8}


class RealTraining(Problem):
    """A task, as one study sees it: what a network is worth is what this study observed of it.

    Networks and their growth are those of ``mnist-layers``, the paper's stop rules included.

    Args:
        name: One of `tasks.TASKS`.
        data: Its images.

    Attributes:
        trained: What came of each training, by network, in the order of the trainings.
    """

    forms: tuple[Form, ...] = ("progressive", "terminal")
    optimum = 1.0
    unit = "% of the validation images"

    def __init__(self, name: str, data: ImageData) -> None:
        self.name = name
        self.trained: dict[str, Row] = {}
        self._task, self._data = TASKS[name], data
        self._space = LayerSpace(
            input_shape=data.input_shape, num_classes=data.num_classes, max_macs=self._task.max_macs
        )

    def observe(self, network: str, rng: np.random.Generator) -> float:
        training_seed = int(rng.integers(2**32))
        row = train_network(self._task, self._data, parse(network), training_seed=training_seed)
        self.trained[network] = row
        return row["accuracy"]

    def true_value(self, network: str) -> float:
        return self.trained[network]["accuracy"]

    def play(self, form: Form, trial: Trial, train: Train) -> float:
        if form == "terminal":
            return train(describe(self._space.suggest(trial)))
        best = 0.0
        for layers in self._space.grow(trial):
            accuracy = train(describe(layers))
            trial.report(accuracy, step=len(layers) - 1)
            best = max(best, accuracy)
        return best


def tasks_with_test_images() -> list[str]:
    """Names of the tasks whose images are those of their dataset, so that its test images are theirs too."""
    return [name for name, task in TASKS.items() if task == unchanged_task(task)]


def load_test_images(task: Task, data: ImageData, data_root: str | Path) -> tuple[torch.Tensor, torch.Tensor]:
    """The test images of the task's dataset, standardised as those of ``data``, and their labels.

    Raises:
        ValueError: If the task changes the images of its dataset.
    """
    if task != unchanged_task(task):
        raise ValueError(f"the task has no test images; {', '.join(tasks_with_test_images())} have")
    whole = load_data(task.dataset, data_root=data_root, device="cpu")
    assert whole.test_images is not None and whole.test_labels is not None
    pixels = whole.test_images * whole.std[0] + whole.mean[0]
    return (pixels - data.mean[0]) / data.std[0], whole.test_labels


@functools.cache
def load_task(name: str, data_root: str) -> ImageData:
    return TASKS[name].load(data_root)


def unchanged_task(task: Task) -> Task:
    resolution = _RESOLUTIONS[task.dataset]
    return dataclasses.replace(task, resolution=resolution, noise=0.0, inverted=False, num_classes=10)
