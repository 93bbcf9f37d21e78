"""Scores of a network on images, and intervals for them.

The score of a classifier is its *accuracy*: the share of images that it classifies correctly. The score of a
network for label maps is the *mean intersection over union* (mean IoU): for each class, the pixels that are
of this class in the label map and in the prediction, as a share of those that are in either, over all
images; and the mean over the classes that occur. Both are 0 to 1.

Both are means of ratios of sums over images, so a resample of images has its score from the same table.
Notation: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from optuna_trlhpo.cnn.training.full_precision import full_precision

RESAMPLES = 2000
"""Number of bootstrap resamples of an interval."""

_BATCH = {"cpu": 100}
"""Number of images in an evaluation pass, by device type. The default is 1,000."""


@torch.inference_mode()
def score_table(network: nn.Module, images: Tensor, labels: Tensor, num_classes: int) -> np.ndarray:
    """Return the numerators and denominators of the score of each image: ``[N, 2, K]``, K = 1 for accuracy.

    Args:
        network: Network that returns logits ``[N, classes]`` or ``[N, classes, H, W]``. It is set to
            evaluation mode.
        images: Images ``[N, C, H, W]``.
        labels: Labels ``[N]``, or label maps ``[N, H, W]``.
        num_classes: Number of classes of the labels.
    """
    network.eval()
    size = _BATCH.get(images.device.type, 1000)
    with full_precision(images.device):
        rows = [
            _ratios(network(batch).argmax(dim=1), truth, num_classes).cpu()
            for batch, truth in zip(images.split(size), labels.split(size), strict=True)
        ]
    return torch.cat(rows).numpy().astype(np.float64)


def _ratios(predicted: Tensor, truth: Tensor, num_classes: int) -> Tensor:
    """Return the numerators and denominators of each image, ``[B, 2, K]``."""
    if truth.ndim == 1:
        correct = (predicted == truth).long()
        return torch.stack([correct, torch.ones_like(correct)], dim=1)[:, :, None]
    classes = torch.arange(num_classes, device=truth.device)[:, None, None]
    here, there = predicted[:, None] == classes, truth[:, None] == classes
    return torch.stack([(here & there).sum((2, 3)), (here | there).sum((2, 3))], dim=1)


def score_of(table: np.ndarray) -> float:
    """Return the score of the images of a table.

    Examples:
        >>> score_of(np.array([[[1.0], [1.0]], [[0.0], [1.0]]]))
        0.5
    """
    return float(_scores(table.sum(axis=0)))


def _scores(sums: np.ndarray) -> np.ndarray:
    """Return the scores of sums of tables, ``[..., 2, K]``."""
    numerators, denominators = sums[..., 0, :], sums[..., 1, :]
    occurs = denominators > 0
    ratios = np.divide(numerators, denominators, out=np.zeros_like(numerators), where=occurs)
    return np.asarray(ratios.sum(axis=-1) / np.maximum(occurs.sum(axis=-1), 1))


def interval(
    tables: Sequence[np.ndarray], others: Sequence[np.ndarray] = (), *, seed: int = 0
) -> tuple[float, float]:
    """Return a 95 % interval of the mean score of trainings, less that of others on the same images.

    It is a percentile bootstrap. Each resample draws the images with replacement, the same ones for all
    trainings, and where there are several trainings, these too. So the interval covers the choice of
    the images and, as far as so few trainings show it, the randomness of training.

    Args:
        tables: A table of `score_table` for each training.
        others: Tables of the trainings that these are compared with. None: the score itself is meant.
        seed: Random seed.

    Examples:
        >>> table = np.ones((100, 2, 1))
        >>> table[:20, 0] = 0
        >>> low, high = interval([table])
        >>> low < 0.8 < high, interval([table], [table])
        (True, (0.0, 0.0))
    """
    rng = np.random.default_rng(seed)
    n = len(tables[0])
    weights = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)
    drawn = _resampled(tables, weights, rng)
    if others:
        drawn = drawn - _resampled(others, weights, rng)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def standard_error(table: np.ndarray) -> float:
    """Return the standard error of the score of one training for the choice of the images, by bootstrap.

    Examples:
        >>> table = np.ones((100, 2, 1))
        >>> table[:20, 0] = 0
        >>> round(standard_error(table), 2)  # (0.8 * 0.2 / 100) ** 0.5
        0.04
    """
    rng = np.random.default_rng(0)
    n = len(table)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)
    return float(_resampled([table], weights, rng).std())


def _resampled(tables: Sequence[np.ndarray], weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the mean score of the trainings for each resample."""
    scores = [
        _scores((weights @ table.reshape(len(table), -1)).reshape(-1, *table.shape[1:])) for table in tables
    ]
    drawn = rng.integers(len(tables), size=(len(weights), len(tables)))
    return np.asarray(np.stack(scores, axis=1)[np.arange(len(weights))[:, None], drawn].mean(axis=1))
