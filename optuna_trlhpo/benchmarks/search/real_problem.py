"""Problem with real trainings, and test images that the search does not use."""

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
from optuna_trlhpo.layers import TABLE_I, describe, parse
from optuna_trlhpo.space import LayerSpace

_RESOLUTIONS = {"mnist": 28, "digits": 8}


class RealTraining(Problem):
    """Task as the problem of one study. The true value of a network is its observed value in this study.

    The layers of Table I grow with the paper's stop rules, as in ``mnist-layers``; others grow without.

    Args:
        name: Name of a task in `tasks.TASKS`.
        data: Images of the task.

    Attributes:
        trained: Row of each training, by network, in the order of the trainings.
    """

    forms: tuple[Form, ...] = ("progressive", "terminal")
    optimum = 1.0
    unit = "% of the validation images"

    def __init__(self, name: str, data: ImageData) -> None:
        self.name = name
        self.trained: dict[str, Row] = {}
        self._task, self._data = TASKS[name], data
        (self._space,) = self._task.spaces
        if self._task.vocabulary == TABLE_I:
            self._space = LayerSpace(
                input_shape=data.input_shape, num_classes=data.num_classes, max_macs=self._task.max_macs
            )

    def observe(self, network: str, rng: np.random.Generator) -> float:
        """Train a network and return its validation accuracy."""
        training_seed = int(rng.integers(2**32))
        row = train_network(self._task, self._data, parse(network), training_seed=training_seed)
        self.trained[network] = row
        return row["accuracy"]

    def true_value(self, network: str) -> float:
        """Return the observed validation accuracy of a network."""
        return self.trained[network]["accuracy"]

    def play(self, form: Form, trial: Trial, train: Train) -> float:
        """Run one trial in one of the forms."""
        if form == "terminal":
            return train(describe(self._space.suggest(trial)))
        best = 0.0
        for layers in self._space.grow(trial):
            accuracy = train(describe(layers))
            trial.report(accuracy, step=len(layers) - 1)
            best = max(best, accuracy)
        return best


def tasks_with_test_images() -> list[str]:
    """Return the names of the tasks with unmodified images, to which the test images of the dataset apply."""
    return [
        name for name, task in TASKS.items() if task == unchanged_task(task) and len(task.max_parameters) == 1
    ]


def load_test_images(task: Task, data: ImageData, data_root: str | Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Load the test images of the task's dataset, standardised like ``data``, and their labels.

    Raises:
        ValueError: If the task modifies the images of its dataset.
    """
    if task != unchanged_task(task):
        raise ValueError(f"the task has no test images; {', '.join(tasks_with_test_images())} have")
    whole = load_data(task.dataset, data_root=data_root, device="cpu")
    assert whole.test_images is not None and whole.test_labels is not None
    pixels = whole.test_images * whole.std[0] + whole.mean[0]
    return (pixels - data.mean[0]) / data.std[0], whole.test_labels


@functools.cache
def load_task(name: str, data_root: str) -> ImageData:
    """Load the images of a task once per process."""
    return TASKS[name].load(data_root)


def unchanged_task(task: Task) -> Task:
    """Return the task with unmodified images of its dataset."""
    resolution = _RESOLUTIONS[task.dataset]
    return dataclasses.replace(task, resolution=resolution, noise=0.0, inverted=False, num_classes=10)
