"""Loading of a dataset: from images and labels to standardised, split tensors on the device.

Notation: N images, C channels, H height, W width. Images are float32 ``[N, C, H, W]``, standardised per
channel with the mean and the standard deviation of the training split. Labels are int64 ``[N]``. Instead of
images, the inputs may be rows of a table, ``[N, F]`` with F features, or sequences, ``[N, T, F]`` with T
steps. These are standardised per feature.

The splits are disjoint, drawn without replacement, stratified, and fixed by the seed. The test images are
used only in `CNNObjective.refit`, never to choose a network.
"""

from __future__ import annotations

import contextlib
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optuna_trlhpo._checks import is_integer
from optuna_trlhpo.cnn.data.reading import TORCHVISION, RawData, image_bytes, read_data, scaled
from optuna_trlhpo.cnn.data.splitting import split_sizes, stratified_split
from optuna_trlhpo.cnn.memory import is_out_of_memory

PAPER_SIZES = (20_000, 10_000)
"""Numbers of training and validation images in the paper. They are the default for torchvision's datasets."""


@dataclass(frozen=True, eq=False)
class ImageData:
    """One dataset, split and standardised, on one device.

    Attributes:
        name: Name of the dataset. For the user's own data, ``"arrays"`` or the name of the ``Dataset`` class.
        num_classes: Number of classes; labels are 0 to ``num_classes - 1``.
        train_images: Training images ``[N, C, H, W]``, float32, or inputs with fewer axes. The other images
            have the same form.
        train_labels: Training labels ``[N]``, int64. The other labels have the same form.
        validation_images: Images for the comparison of networks.
        validation_labels: Labels of ``validation_images``.
        test_images: Images for the final test. None if the dataset has no test split.
        test_labels: Labels of ``test_images``.
        mean: Mean of the training split per channel or feature. An image of your own is passed to a network
            as ``(image - mean) / std``, in the pixel scale of the dataset (0-1 if it was uint8).
        std: Standard deviation of the training split per channel or feature; 1 where it is constant.
        fingerprint: Checksum of the training and validation images before standardisation, which is the same
            on every machine. 0 means unknown.
        classes: Names of the classes in the order of the labels, if the labels were names.
    """

    name: str
    num_classes: int
    train_images: Tensor
    train_labels: Tensor
    validation_images: Tensor
    validation_labels: Tensor
    test_images: Tensor | None
    test_labels: Tensor | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: int = 0
    classes: tuple[str, ...] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input: ``(channels, height, width)``, ``(steps, features)`` or ``(features,)``."""
        return tuple(self.train_images.shape[1:])

    @property
    def device(self) -> torch.device:
        """Device of all tensors."""
        return self.train_images.device


def load_data(
    data: Any,
    *,
    data_root: str | Path = "data",
    download: bool = False,
    train_size: int | None = None,
    validation_size: int | None = None,
    num_classes: int | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    axes: int = 3,
) -> ImageData:
    """Read, check, split and standardise a dataset, and move it to the device.

    Args:
        data: One of `DATASETS`; ``(images, labels)`` or ``(images, labels, test_images, test_labels)`` as
            arrays or tensors, with images ``[N, H, W]`` or ``[N, C, H, W]`` of uint8 (scaled to 0-1) or
            floats (unchanged), and labels that are integers from 0 on or names; or a map-style ``Dataset`` of
            (image, label), where an image is a tensor, an array or a PIL image.
        data_root: Directory of torchvision's files.
        download: Whether torchvision may download missing files.
        train_size: Number of training images. Default: 20,000 for torchvision's datasets, otherwise two
            thirds of the images, or all that ``validation_size`` leaves.
        validation_size: Number of validation images. Default: 10,000 for torchvision's datasets, otherwise
            one third of the images, or all that ``train_size`` leaves.
        num_classes: Number of classes. Default: the highest label + 1.
        seed: Random seed of the splits.
        device: Device of the tensors. Default: the GPU if there is one.
        axes: Number of axes of one input: 3 for images; 2 for sequences, arrays ``[N, T, F]``; 1 for rows of
            a table, ``[N, F]``.

    Raises:
        ValueError: If the data cannot be used, or do not fit in the memory of the device. The message names
            what was found and what is allowed.
        FileNotFoundError: If the files are not under ``data_root`` and ``download`` is off.
        OSError: If a download fails.
        ImportError: If torchvision or scikit-learn is needed and not installed.

    Examples:
        >>> images = np.zeros((30, 8, 8), dtype=np.uint8)
        >>> data = load_data((images, np.arange(30) % 3), device="cpu")
        >>> data.train_images.shape, len(data.validation_labels), data.num_classes, data.input_shape
        (torch.Size([20, 1, 8, 8]), 10, 3, (1, 8, 8))
    """
    device = resolve_device(device)
    rng = np.random.default_rng(seed)
    if not isinstance(data_root, str | Path):
        raise ValueError(f"data_root is {data_root!r}; it must be the path of a directory")
    raw = read_data(data, Path(data_root).expanduser(), download, rng, axes)
    num_classes = _check_labels(raw, num_classes)

    default = PAPER_SIZES if raw.name in TORCHVISION else None
    sizes = split_sizes(len(raw.labels), train_size, validation_size, default)
    train, validation = stratified_split(raw.labels.numpy(), sizes, rng)
    try:
        return _placed(raw, train, validation, num_classes, device, axes)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Outside the except clause, because the traceback refers to what has been placed.
    test = 0 if raw.test_labels is None else len(raw.test_labels)
    raise ValueError(_no_room(len(train) + len(validation) + test, tuple(raw.images.shape[1:]), device))


def _placed(
    raw: RawData,
    train: np.ndarray,
    validation: np.ndarray,
    num_classes: int,
    device: torch.device,
    axes: int,
) -> ImageData:
    """Standardise the inputs and move them to the device."""
    train_images, validation_images = scaled(raw.images[train]), scaled(raw.images[validation])
    over = {3: (0, 2, 3), 2: (0, 1), 1: (0,)}[axes]
    std, mean = torch.std_mean(train_images, dim=over, correction=0)
    std = torch.where(std > 0, std, 1.0)
    behind = (slice(None), None, None) if axes == 3 else slice(None)  # features are the last axis

    def standardised(images: Tensor) -> Tensor:
        return ((images - mean[behind]) / std[behind]).to(device)

    return ImageData(
        name=raw.name,
        num_classes=num_classes,
        train_images=standardised(train_images),
        train_labels=raw.labels[train].to(device),
        validation_images=standardised(validation_images),
        validation_labels=raw.labels[validation].to(device),
        test_images=None if raw.test_images is None else standardised(scaled(raw.test_images)),
        test_labels=None if raw.test_labels is None else raw.test_labels.to(device),
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        fingerprint=zlib.crc32(image_bytes(validation_images), zlib.crc32(image_bytes(train_images))),
        classes=raw.classes,
    )


def resolve_device(device: str | torch.device | None) -> torch.device:
    """Return the requested device. None means the GPU if there is one, otherwise the CPU.

    Raises:
        ValueError: If the device is not available, or its memory is full.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.zeros(1, device=resolved)
    except (AssertionError, NotImplementedError, RuntimeError, TypeError) as error:
        if is_out_of_memory(error):  # of a GPU that other processes fill
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"device is {str(device)!r}, which has no memory left ({reason}); free some, or choose "
                "another device, such as 'cpu'"
            ) from error
        resolved = torch.device("meta")
    if resolved.type == "meta":  # it stores no numbers, so it means "no device" here
        available = "'cpu' or 'cuda'" if torch.cuda.is_available() else "'cpu', because no GPU is available"
        raise ValueError(f"device is {str(device)!r}; it must be {available}")
    return resolved


def _no_room(inputs: int, shape: tuple[int, ...], device: torch.device) -> str:
    """Return the message that so many inputs do not fit in the memory of the device."""
    memory = f"the memory of {device}"
    measure = getattr(torch.get_device_module(device), "mem_get_info", None)
    if measure is not None:
        with contextlib.suppress(RuntimeError):
            free, total = measure(device)
            memory += f" ({free / 1e9:.3g} of {total / 1e9:.3g} GB are free)"
    elsewhere = "" if device.type == "cpu" else ", or device='cpu'"
    return (
        f"the {inputs} inputs of shape {shape} take {4 * inputs * math.prod(shape) / 1e9:.3g} GB as float32, "
        f"which do not fit in {memory}; choose a smaller train_size and validation_size, smaller inputs"
        f"{elsewhere}"
    )


# Checking -------------------------------------------------------------------------------------------------


def _check_labels(raw: RawData, num_classes: int | None) -> int:
    """Return the number of classes, or raise a ``ValueError`` if images and labels do not match."""
    parts = [("images", raw.images, "labels", raw.labels)]
    if raw.test_images is not None and raw.test_labels is not None:
        parts.append(("test_images", raw.test_images, "test_labels", raw.test_labels))
        if raw.test_images.shape[1:] != raw.images.shape[1:]:
            raise ValueError(
                f"test_images have shape {tuple(raw.test_images.shape[1:])} and images "
                f"{tuple(raw.images.shape[1:])}; they must have the same (C, H, W)"
            )
    for images_name, images, labels_name, labels in parts:
        if len(images) != len(labels):
            raise ValueError(
                f"there are {len(images)} {images_name} and {len(labels)} {labels_name}; there must be one "
                "label for each image"
            )
    if num_classes is None:
        num_classes = max(int(raw.labels.max()) + 1, 2)
    elif not is_integer(num_classes, least=2):
        raise ValueError(f"num_classes is {num_classes!r}; it must be an integer of at least 2, or None")
    for _, _, labels_name, labels in parts:
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= num_classes:
            raise ValueError(
                f"{labels_name} contain {low if low < 0 else high}; with {num_classes} classes they must be "
                f"integers from 0 to {num_classes - 1}"
            )
    counts = torch.bincount(raw.labels, minlength=num_classes)
    rarest = int(counts.argmin())
    if counts[rarest] < 2:
        raise ValueError(
            f"the number of images of class {rarest} is {int(counts[rarest])}; each of the {num_classes} "
            f"classes (0 to {num_classes - 1}) needs at least 2, one for training and one for validation"
        )
    return int(num_classes)
