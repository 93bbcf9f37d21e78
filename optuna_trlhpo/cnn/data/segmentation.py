"""Data for segmentation: images with one label for each pixel.

Notation: N images, C channels, H height, W width. A label map is int64 ``[N, H, W]``.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from optuna_trlhpo._checks import check_integer, check_positive_integer, is_integer
from optuna_trlhpo.cnn.data.datasets import ImageData, resolve_device
from optuna_trlhpo.cnn.data.reading import image_bytes, read_digits, scaled
from optuna_trlhpo.cnn.data.splitting import stratified_split

DIGITS = (2, 4)
"""Minimum and maximum number of digits on a canvas, as far as they fit."""
SIDES = (12, 16)
"""Minimum and maximum height and width of a digit in pixels."""
INK = 0.5
"""Minimum brightness of a pixel that belongs to a digit, of 1."""
NOISE = 0.2
"""Maximum brightness of the noise that is added to each pixel."""
_TRIES = 20


def segmentation_data(
    train: Any,
    validation: Any,
    test: Any = None,
    *,
    num_classes: int | None = None,
    name: str = "arrays",
    device: str | torch.device | None = None,
) -> ImageData:
    """Check and standardise images with label maps, and move them to the device.

    Args:
        train: Training split, ``(images, label maps)``, as arrays or tensors. Images are ``[N, H, W]`` or
            ``[N, C, H, W]``, of uint8 (scaled to 0-1) or floats (unchanged). Label maps are ``[N, H, W]``,
            with integers from 0 on.
        validation: Split for the comparison of networks.
        test: Split for the final test. None if there is none.
        num_classes: Number of classes. Default: the highest label of the training split + 1.
        name: Name of the data.
        device: Device of the tensors. Default: the GPU if there is one.

    Raises:
        ValueError: If the splits cannot be used.

    Examples:
        >>> images = np.zeros((6, 8, 8))
        >>> images[:, 2:5, 2:5] = 1
        >>> data = segmentation_data((images, images > 0), (images[:2], images[:2] > 0), device="cpu")
        >>> data.train_labels.shape, data.num_classes
        (torch.Size([6, 8, 8]), 2)
    """
    splits = [
        _checked(split, what)
        for split, what in ((train, "train"), (validation, "validation"), (test, "test"))
        if split is not None
    ]
    images, labels = splits[0]
    if num_classes is None:
        num_classes = max(int(labels.max()) + 1, 2)
    elif not is_integer(num_classes, least=2):
        raise ValueError(f"num_classes is {num_classes!r}; it must be an integer of at least 2, or None")
    for (other, maps), what in zip(splits, ("train", "validation", "test"), strict=False):
        if other.shape[1:] != images.shape[1:]:
            raise ValueError(
                f"the images of {what} have shape {tuple(other.shape[1:])} and those of train "
                f"{tuple(images.shape[1:])}; all must have the same (C, H, W)"
            )
        low, high = int(maps.min()), int(maps.max())
        if low < 0 or high >= num_classes:
            raise ValueError(
                f"the label maps of {what} contain {low if low < 0 else high}; with {num_classes} classes "
                f"they must be integers from 0 to {num_classes - 1}"
            )
    std, mean = torch.std_mean(images, dim=(0, 2, 3), correction=0)
    std = torch.where(std > 0, std, 1.0)
    placed = resolve_device(device)
    final: list[Tensor | None] = []
    for split in [*splits, (None, None)][:3]:
        standard = None if split[0] is None else (split[0] - mean[:, None, None]) / std[:, None, None]
        final += [None if it is None else it.to(placed) for it in (standard, split[1])]
    assert final[0] is not None and final[1] is not None and final[2] is not None and final[3] is not None
    return ImageData(
        name=name,
        num_classes=int(num_classes),
        train_images=final[0],
        train_labels=final[1],
        validation_images=final[2],
        validation_labels=final[3],
        test_images=final[4],
        test_labels=final[5],
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        fingerprint=zlib.crc32(image_bytes(splits[1][0]), zlib.crc32(image_bytes(images))),
    )


def digits_on_canvas(
    *,
    size: int = 32,
    train_size: int = 1000,
    validation_size: int = 500,
    test_size: int = 500,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> ImageData:
    """Draw canvases with digits that are to be segmented: each pixel is background, 0, or its digit + 1.

    A canvas has two to four of scikit-learn's digits, enlarged to 12 to 16 pixels, at random places where
    they do not overlap, and noise. The three splits have different digits.

    Args:
        size: Height and width of a canvas in pixels, at least 16.
        train_size: Number of training canvases.
        validation_size: Number of validation canvases.
        test_size: Number of test canvases.
        seed: Random seed of the splits, the places and the noise.
        device: Device of the tensors. Default: the GPU if there is one.

    Raises:
        ValueError: If a number is out of range.
        ImportError: If scikit-learn is not installed.

    Examples:
        >>> data = digits_on_canvas(train_size=20, validation_size=10, test_size=10, device="cpu")
        >>> data.train_images.shape, data.train_labels.shape, data.num_classes
        (torch.Size([20, 1, 32, 32]), torch.Size([20, 32, 32]), 11)
    """
    if not is_integer(size, least=16):
        raise ValueError(f"size is {size!r}; it must be an integer of at least 16")
    sizes = {"train_size": train_size, "validation_size": validation_size, "test_size": test_size}
    for name, value in sizes.items():
        check_positive_integer(name, value)
    check_integer("seed", seed)
    rng = np.random.default_rng(seed)
    raw = read_digits(rng)
    assert raw.test_images is not None and raw.test_labels is not None, "a fifth is held out"
    third = len(raw.labels) // 3
    train, validation = stratified_split(raw.labels.numpy(), [len(raw.labels) - third, third], rng)
    digits = [
        (raw.images[train], raw.labels[train]),
        (raw.images[validation], raw.labels[validation]),
        (raw.test_images, raw.test_labels),
    ]
    canvases = [
        _canvases(images.float(), labels, number, size, rng)
        for (images, labels), number in zip(digits, sizes.values(), strict=True)
    ]
    return segmentation_data(*canvases, num_classes=11, name="digits on a canvas", device=device)


def _canvases(
    digits: Tensor, labels: Tensor, number: int, size: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Draw canvases ``[N, 1, H, W]`` and their label maps from digits ``[n, 1, 8, 8]``, 0-1."""
    images = torch.zeros(number, 1, size, size)
    maps = torch.zeros(number, size, size, dtype=torch.long)
    for image, label_map in zip(images, maps, strict=True):
        free = np.ones((size, size), dtype=bool)
        for _ in range(rng.integers(*DIGITS, endpoint=True)):
            which, side = rng.integers(len(digits)), int(rng.integers(*SIDES, endpoint=True))
            for _ in range(_TRIES):
                row, column = rng.integers(size - side + 1, size=2)
                place = slice(row, row + side), slice(column, column + side)
                if free[place].all():
                    free[place] = False
                    digit = F.interpolate(digits[which][None], side, mode="bilinear", align_corners=False)[0]
                    image[(slice(None), *place)] = digit
                    label_map[place] = torch.where(digit[0] >= INK, labels[which] + 1, 0)
                    break
    noise = torch.from_numpy(rng.random(images.shape, dtype=np.float32))
    return images + NOISE * noise, maps


def _checked(split: Any, what: str) -> tuple[Tensor, Tensor]:
    """Return float32 images ``[N, C, H, W]`` and int64 label maps ``[N, H, W]``."""
    if not isinstance(split, tuple | list) or len(split) != 2:
        raise ValueError(f"{what} is a {type(split).__name__}; it must be a tuple (images, label maps)")
    images, maps = (torch.as_tensor(np.asarray(part)) for part in split)
    images = images[:, None] if images.ndim == 3 else images
    if maps.is_floating_point() or maps.is_complex():
        dtype = str(maps.dtype).removeprefix("torch.")
        raise ValueError(f"the label maps of {what} have dtype {dtype}; they must contain integers")
    if images.ndim != 4 or 0 in images.shape or maps.shape != (len(images), *images.shape[2:]):
        raise ValueError(
            f"{what} has images of shape {tuple(images.shape)} and label maps of shape {tuple(maps.shape)}; "
            "they must be (n, C, H, W) and (n, H, W), with at least 1 in each dimension"
        )
    return scaled(images), maps.long()
