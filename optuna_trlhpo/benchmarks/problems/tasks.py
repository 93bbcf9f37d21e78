"""Small image tasks on which a network trains in about a second.

Every task is MNIST or scikit-learn's digits, unchanged or modified: fewer images, another resolution, noise,
inverted colours, fewer classes. Knowledge about good networks transfers between the tasks in part.

The module is imported without PyTorch, which the help of the commands does without.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from optuna_trlhpo.layers import TABLE_I, Vocabulary
from optuna_trlhpo.layers.kinds import CNN
from optuna_trlhpo.space import LayerSpace

if TYPE_CHECKING:
    import torch

    from optuna_trlhpo.cnn.data.datasets import ImageData


@dataclass(frozen=True, kw_only=True)
class Task:
    """Modifications of a dataset, and the settings of the training on it.

    Attributes:
        dataset: ``"mnist"`` or ``"digits"``.
        resolution: Height and width in pixels after scaling.
        train_size: Number of training images.
        validation_size: Number of validation images.
        epochs: Number of epochs, chosen so that all tasks take about 250 steps.
        noise: Standard deviation of the Gaussian noise on pixels in [0, 1].
        inverted: Whether to invert the images.
        object_size: Height and width in pixels to which images are scaled before each is placed at random in
            a frame of ``resolution``. None: an image fills its frame.
        num_classes: Number of classes; only images with smaller labels are used.
        max_macs: Maximum number of MACs of a network, for one image.
        vocabulary: Kinds of layer of the networks.
        max_layers: Largest number of layers of a network.
        max_parameters: Limits on the parameters, None for no limit. Each sequence of layers in the table of
            the task is within one of them, so that the table has good networks for each.
        begin_varying: Number of networks within a limit from which on most are variations of the best so far.
    """

    dataset: str
    resolution: int
    train_size: int
    validation_size: int
    epochs: int
    noise: float = 0.0
    inverted: bool = False
    object_size: int | None = None
    num_classes: int = 10
    max_macs: float = 1e6
    vocabulary: Vocabulary = TABLE_I
    max_layers: int = 6
    max_parameters: tuple[int | None, ...] = (None,)
    begin_varying: int = 200

    @property
    def space(self) -> LayerSpace:
        """Layer space of all networks of the task, without rules that stop growth."""
        return self._within(None)

    @property
    def spaces(self) -> tuple[LayerSpace, ...]:
        """Layer space for each limit on the parameters."""
        return tuple(self._within(limit) for limit in self.max_parameters)

    def _within(self, max_parameters: int | None) -> LayerSpace:
        return LayerSpace(
            input_shape=(1, self.resolution, self.resolution),
            num_classes=self.num_classes,
            max_layers=self.max_layers,
            max_macs=self.max_macs,
            max_parameters=max_parameters,
            min_improvement=None,
            min_accuracy=None,
            vocabulary=self.vocabulary,
        )

    def load(self, data_root: str | Path = "data") -> ImageData:
        """Load the task's images. They are the same in every call.

        Raises:
            FileNotFoundError: If MNIST is needed and its files are not under ``data_root``.
        """
        import torch
        from torch.nn import functional as F

        from optuna_trlhpo.cnn.data.datasets import load_data

        n, m = _SIZES[self.dataset]
        whole = load_data(self.dataset, data_root=data_root, device="cpu", train_size=n, validation_size=m)
        images = torch.cat([whole.train_images, whole.validation_images]) * whole.std[0] + whole.mean[0]
        labels = torch.cat([whole.train_labels, whole.validation_labels])
        images, labels = images[labels < self.num_classes], labels[labels < self.num_classes]
        if self.object_size is not None:
            images = _place(images, self.object_size, self.resolution)
        elif self.resolution != images.shape[-1]:
            size = (self.resolution, self.resolution)
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        if self.noise:
            generator = torch.Generator().manual_seed(0)
            images = images + self.noise * torch.randn(images.shape, generator=generator)
        if self.inverted:
            images = 1 - images
        return load_data(
            (images, labels),
            train_size=self.train_size,
            validation_size=self.validation_size,
            num_classes=self.num_classes,
            device="cpu",
        )


def _place(images: torch.Tensor, size: int, frame: int) -> torch.Tensor:
    import torch
    from torch.nn import functional as F

    generator = torch.Generator().manual_seed(1)
    scaled = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
    placed = scaled.new_zeros((*scaled.shape[:2], frame, frame))
    corners = torch.randint(frame - size + 1, (len(images), 2), generator=generator)
    for image, target, (top, left) in zip(scaled, placed, corners.tolist(), strict=True):
        target[:, top : top + size, left : left + size] = image
    return placed


_SIZES = {"mnist": (50_000, 10_000), "digits": (950, 488)}
"""Sizes of the two parts of each dataset from which images are chosen, without test images."""

BATCH_SIZE = 32
LEARNING_RATE = 2e-3
"""Peak learning rate of Adam in a one-cycle schedule. It is the same for all tasks and not tuned."""

_SMALL = (4_000, 12_000, 40_000, None)
"""Limits on parameters as small devices have them."""


def _of_cnn(task: Task, max_parameters: tuple[int | None, ...] = _SMALL) -> Task:
    """Return the same task for networks with the layers of `kinds.CNN`."""
    return replace(task, vocabulary=CNN, max_layers=8, max_parameters=max_parameters, begin_varying=40)


TASKS = {
    "mnist": Task(dataset="mnist", resolution=28, train_size=2000, validation_size=10_000, epochs=4),
    "mnist-small": Task(dataset="mnist", resolution=28, train_size=500, validation_size=4000, epochs=16),
    "mnist-noise": Task(
        dataset="mnist", resolution=28, train_size=2000, validation_size=4000, epochs=4, noise=0.5
    ),
    "mnist-16": Task(dataset="mnist", resolution=16, train_size=2000, validation_size=4000, epochs=4),
    "mnist-inverted": Task(
        dataset="mnist", resolution=28, train_size=2000, validation_size=4000, epochs=4, inverted=True
    ),
    "mnist-five": Task(
        dataset="mnist", resolution=28, train_size=2000, validation_size=4000, epochs=4, num_classes=5
    ),
    "digits": Task(dataset="digits", resolution=8, train_size=950, validation_size=480, epochs=8),
    "digits-16": Task(dataset="digits", resolution=16, train_size=950, validation_size=480, epochs=8),
    "digits-28": Task(dataset="digits", resolution=28, train_size=950, validation_size=480, epochs=8),
    "digits-28-small": Task(dataset="digits", resolution=28, train_size=240, validation_size=1150, epochs=32),
    "digits-28-noise": Task(
        dataset="digits", resolution=28, train_size=950, validation_size=480, epochs=8, noise=0.5
    ),
    "digits-28-inverted": Task(
        dataset="digits", resolution=28, train_size=950, validation_size=480, epochs=8, inverted=True
    ),
    "digits-28-placed": Task(
        dataset="digits",
        resolution=28,
        train_size=600,
        validation_size=830,
        epochs=13,
        object_size=18,
    ),
    "digits-28-placed-noise": Task(
        dataset="digits",
        resolution=28,
        train_size=600,
        validation_size=830,
        epochs=13,
        object_size=20,
        noise=0.3,
    ),
    "digits-28-moved": Task(
        dataset="digits", resolution=28, train_size=950, validation_size=480, epochs=8, object_size=22
    ),
    "digits-28-moved-noise": Task(
        dataset="digits",
        resolution=28,
        train_size=950,
        validation_size=480,
        epochs=8,
        object_size=24,
        noise=0.2,
    ),
    "digits-28-moved-inverted": Task(
        dataset="digits",
        resolution=28,
        train_size=950,
        validation_size=480,
        epochs=8,
        object_size=24,
        inverted=True,
    ),
    "digits-28-moved-five": Task(
        dataset="digits",
        resolution=28,
        train_size=475,
        validation_size=240,
        epochs=16,
        object_size=22,
        num_classes=5,
    ),
    "digits-28-five": Task(
        dataset="digits", resolution=28, train_size=475, validation_size=240, epochs=16, num_classes=5
    ),
}
TASKS |= {
    "mnist-cnn": _of_cnn(replace(TASKS["mnist"], validation_size=4000), max_parameters=(8_000,)),
    "digits-16-cnn": _of_cnn(TASKS["digits-16"]),
    "digits-16-moved-cnn": _of_cnn(replace(TASKS["digits-16"], object_size=13)),
    "digits-16-moved-noise-cnn": _of_cnn(replace(TASKS["digits-16"], object_size=14, noise=0.2)),
    "digits-28-moved-cnn": _of_cnn(TASKS["digits-28-moved"]),
    "digits-28-moved-inverted-cnn": _of_cnn(TASKS["digits-28-moved-inverted"]),
    "digits-28-moved-five-cnn": _of_cnn(replace(TASKS["digits-28-moved-five"], object_size=20)),
    "digits-28-placed-cnn": _of_cnn(TASKS["digits-28-placed"]),
}
"""Tasks by name. ``mnist`` is the task of the benchmark ``mnist-layers``."""
