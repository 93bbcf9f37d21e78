"""Small image tasks on which networks of Table I are trained by the thousand, each in about a second.

Every task is MNIST or scikit-learn's digits, as it is or changed: fewer images, another resolution, noise,
inverted colours, fewer classes. What makes a good network on one of them carries over to the others in part.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from optuna_trlhpo.space import LayerSpace

if TYPE_CHECKING:
    import torch

    from optuna_trlhpo.cnn.data.datasets import ImageData


@dataclass(frozen=True, kw_only=True)
class Task:
    """How a task differs from its dataset, and how networks are trained on it.

    Attributes:
        dataset: ``"mnist"`` or ``"digits"``.
        resolution: Height and width in pixels that images are scaled to.
        train_size: Training images.
        validation_size: Validation images.
        epochs: Passes over them; chosen so that all tasks take about 250 steps.
        noise: Standard deviation of the Gaussian noise on pixels in [0, 1].
        inverted: Whether black and white change places.
        object_size: Height and width in pixels that images are scaled to before each is placed anywhere in
            its frame of ``resolution``; None: an image fills its frame.
        num_classes: Only images with labels below it are used.
        max_macs: The most MACs of a network, for one image.
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

    @property
    def space(self) -> LayerSpace:
        """Where the task's networks live, without rules that stop growth."""
        return LayerSpace(
            input_shape=(1, self.resolution, self.resolution),
            num_classes=self.num_classes,
            max_macs=self.max_macs,
            min_improvement=None,
            min_accuracy=None,
        )

    def load(self, data_root: str | Path = "data") -> ImageData:
        """The task's images, the same at every call.

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
"""Images to choose from, in two parts; test images are not among them."""

BATCH_SIZE = 32
LEARNING_RATE = 2e-3
"""Adam's at its peak, in a one-cycle schedule; the same for all tasks, not tuned."""

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
"""By name. ``mnist`` is the one of the benchmark ``mnist-layers``."""
