"""Datasets: anything with images and labels -> standardised, split tensors on the device.

Notation: N images, C channels, H height, W width. Images are float32 ``[N, C, H, W]``, standardised per
channel with the mean and the standard deviation of the training split; labels are int64 ``[N]``. In the place
of images there may be rows of a table, ``[N, F]`` of F features, or sequences, ``[N, T, F]`` of T steps; they
are standardised per feature.

The splits are disjoint, drawn without replacement, stratified, and fixed by the seed. The test images are for
`CNNObjective.refit` alone: nothing is chosen by them.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

_TORCHVISION = {
    "mnist": ("MNIST", "MNIST/raw"),
    "fashion_mnist": ("FashionMNIST", "FashionMNIST/raw"),
    "kmnist": ("KMNIST", "KMNIST/raw"),
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
}
"""Name -> the class of `torchvision.datasets` and the folder under ``data_root`` that holds its files."""

DATASETS = ("digits", *_TORCHVISION)
"""The datasets that are known by name."""

PAPER_SIZES = (20_000, 10_000)
"""Training and validation images of the paper; the default for torchvision's datasets."""

_INPUTS = {1: "rows of a table, such as kinds.MLP,", 2: "sequences, such as kinds.LSTM,"}
"""By their axes, what inputs other than images are."""

_EXTRA = 'it needs an optional extra: pip install "optuna-trlhpo[cnn]"'


@dataclass(frozen=True, eq=False)
class ImageData:
    """One dataset, split and standardised, on one device.

    Attributes:
        name: The dataset's name; ``"arrays"`` or the class's name for data of the user's own.
        num_classes: Labels are 0 to ``num_classes - 1``.
        train_images: ``[N, C, H, W]`` float32, or of fewer axes; so are the other images.
        train_labels: ``[N]`` int64; so are the other labels.
        validation_images: What networks are compared by.
        validation_labels: See ``validation_images``.
        test_images: Read once, at the end; None if the dataset came without.
        test_labels: See ``test_images``.
        mean: Per channel or feature, of the training split; an image of your own is fed to a network as
            ``(image - mean) / std``, in the pixel scale of the dataset (0-1 where it came as uint8).
        std: Per channel or feature; 1 for one that is constant.
        fingerprint: Of the training and validation images before they are standardised, which is the same on
            any machine; 0: not known.
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

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(channels, height, width)`` of one image, ``(steps, features)`` or ``(features,)``."""
        return tuple(self.train_images.shape[1:])

    @property
    def device(self) -> torch.device:
        """Where every tensor lies."""
        return self.train_images.device


class _Raw(NamedTuple):
    """A dataset as it was read: uint8 or float images ``[N, C, H, W]`` on the CPU, not yet split."""

    name: str
    images: Tensor
    labels: Tensor
    test_images: Tensor | None = None
    test_labels: Tensor | None = None


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
    """Read, check, split and standardise a dataset, and put it on the device.

    Args:
        data: One of `DATASETS`; ``(images, labels)`` or ``(images, labels, test_images, test_labels)``,
            arrays or tensors, images ``[N, H, W]`` or ``[N, C, H, W]``, uint8 (scaled to 0-1) or floats (as
            they are); or a map-style ``Dataset`` of (image, label), an image being a tensor, an array or a
            PIL image.
        data_root: Where torchvision's files lie or go.
        download: Whether torchvision may fetch what is missing.
        train_size: Training images. Default: 20,000 for torchvision's datasets, else two thirds of what
            there is, or all that ``validation_size`` leaves.
        validation_size: Validation images. Default: 10,000 for torchvision's, else one third, or all that
            ``train_size`` leaves.
        num_classes: Default: the highest label + 1.
        seed: Of the splits.
        device: Default: the GPU if there is one.
        axes: 3 for images; 2 for sequences, arrays ``[N, T, F]``; 1 for rows of a table, ``[N, F]``.

    Raises:
        ValueError: If the data cannot be used as they are; it says what was found and what is allowed.
        FileNotFoundError: If the files are not under ``data_root`` and ``download`` is off.
        OSError: If a download fails.
        ImportError: If torchvision or scikit-learn is needed and not installed.

    Example:
        >>> images = np.zeros((30, 8, 8), dtype=np.uint8)
        >>> data = load_data((images, np.arange(30) % 3), device="cpu")
        >>> data.train_images.shape, len(data.validation_labels), data.num_classes, data.input_shape
        (torch.Size([20, 1, 8, 8]), 10, 3, (1, 8, 8))
    """
    device = resolve_device(device)
    rng = np.random.default_rng(seed)
    if not isinstance(data_root, str | Path):
        raise ValueError(f"data_root is {data_root!r}; it must be the path of a directory")
    raw = _read(data, Path(data_root).expanduser(), download, rng, axes)
    num_classes = _check_labels(raw, num_classes)

    default = PAPER_SIZES if raw.name in _TORCHVISION else None
    sizes = _split_sizes(len(raw.labels), train_size, validation_size, default)
    train, validation = stratified_split(raw.labels.numpy(), sizes, rng)

    train_images, validation_images = _scaled(raw.images[train]), _scaled(raw.images[validation])
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
        test_images=None if raw.test_images is None else standardised(_scaled(raw.test_images)),
        test_labels=None if raw.test_labels is None else raw.test_labels.to(device),
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        fingerprint=zlib.crc32(_bytes(validation_images), zlib.crc32(_bytes(train_images))),
    )


def resolve_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, if it can be used; None: the GPU if there is one, else the CPU.

    Raises:
        ValueError: If there is no such device here.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.zeros(1, device=resolved)
    except (AssertionError, NotImplementedError, RuntimeError, TypeError):
        resolved = torch.device("meta")
    if resolved.type == "meta":  # holds no numbers, so it stands for "none" here
        available = "'cpu' or 'cuda'" if torch.cuda.is_available() else "'cpu', for no GPU is available here"
        raise ValueError(f"device is {str(device)!r}; it must be {available}")
    return resolved


def stratified_split(labels: np.ndarray, sizes: Sequence[int], rng: np.random.Generator) -> list[np.ndarray]:
    """Disjoint index arrays of exactly ``sizes``, the classes in each in the proportions of ``labels``.

    Every class is shuffled and then spread evenly over [0, 1]. In the order of these positions any stretch
    holds each class in its share, to the nearest image or two: the parts are simply consecutive stretches.

    Example:
        >>> train, validation = stratified_split(np.array([0, 1] * 6), [8, 4], np.random.default_rng(0))
        >>> sorted(np.array([0, 1] * 6)[validation].tolist())
        [0, 0, 1, 1]
    """
    positions = np.empty(len(labels))
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        positions[members] = (np.arange(len(members)) + 0.5) / len(members)
    order = np.lexsort((rng.random(len(labels)), positions))  # equal positions in random order
    return np.split(order, np.cumsum(sizes))[: len(sizes)]


# Reading --------------------------------------------------------------------------------------------------


def _read(data: Any, data_root: Path, download: bool, rng: np.random.Generator, axes: int) -> _Raw:
    if axes != 3:
        return _read_arrays(data, axes)
    if isinstance(data, str):
        if data == "digits":
            return _read_digits(rng)
        if data in _TORCHVISION:
            return _read_torchvision(data, data_root, download)
        raise ValueError(f"data is {data!r}; the datasets known by name are {', '.join(DATASETS)}")
    if isinstance(data, Dataset):
        return _read_dataset(data)
    if isinstance(data, tuple | list) and len(data) in (2, 4):
        return _read_arrays(data, axes)
    raise ValueError(
        f"data is a {type(data).__name__}; it must be one of {', '.join(DATASETS)}, a tuple (images, labels) "
        "or (images, labels, test_images, test_labels), or a torch Dataset of (image, label)"
    )


def _read_arrays(data: Any, axes: int) -> _Raw:
    if not isinstance(data, tuple | list) or len(data) not in (2, 4):
        raise ValueError(
            f"data is a {type(data).__name__}; a vocabulary for {_INPUTS[axes]} takes a tuple (inputs, "
            "labels) or (inputs, labels, test_inputs, test_labels)"
        )
    parts = [_as_images(data[0], "images", axes), _as_labels(data[1], "labels")]
    if len(data) == 4:
        parts += [_as_images(data[2], "test_images", axes), _as_labels(data[3], "test_labels")]
    return _Raw("arrays", *parts)


def _read_digits(rng: np.random.Generator) -> _Raw:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(f"'digits' comes with scikit-learn; {_EXTRA}") from error
    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels.reshape(-1, 1, 8, 8) / 16.0)
    # The dataset has no test part of its own; a fifth is set aside.
    fifth = len(labels) // 5
    test, rest = stratified_split(labels, [fifth, len(labels) - fifth], rng)
    targets = torch.from_numpy(labels).long()
    return _Raw("digits", images[rest], targets[rest], images[test], targets[test])


def _read_torchvision(name: str, data_root: Path, download: bool) -> _Raw:
    try:
        from torchvision import datasets
    except ImportError as error:
        raise ImportError(f"{name!r} is read with torchvision; {_EXTRA}") from error
    class_name, folder = _TORCHVISION[name]
    cls = getattr(datasets, class_name)
    try:
        train, test = (cls(str(data_root), train=part, download=download) for part in (True, False))
    except (OSError, RuntimeError) as error:
        if download:
            raise OSError(
                f"could not download {name!r} ({' '.join(str(error).split())}); put its files in "
                f"{data_root / folder} by hand"
            ) from error
        raise FileNotFoundError(
            f"the files of {name!r} are not in {data_root / folder}; pass download=True, or as data_root the "
            f"directory that holds {folder}"
        ) from error

    def images(part: Any) -> Tensor:
        pixels = torch.as_tensor(part.data)
        return pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)

    labels, test_labels = (torch.as_tensor(part.targets).long() for part in (train, test))
    return _Raw(name, images(train), labels, images(test), test_labels)


def _read_dataset(dataset: Any) -> _Raw:
    if not hasattr(dataset, "__len__"):
        raise ValueError(f"data is a {type(dataset).__name__} without length; it must be a map-style Dataset")
    if len(dataset) == 0:
        raise ValueError(f"data is an empty {type(dataset).__name__}; it must hold images")
    images, labels = [], []
    for i in range(len(dataset)):
        image, label = dataset[i]
        images.append(_as_one_image(image))
        labels.append(_as_labels([label], "labels"))
    shapes = sorted({tuple(image.shape) for image in images})
    if len(shapes) > 1:
        raise ValueError(f"the images have shapes {shapes[0]} and {shapes[1]}; all must have the same")
    return _Raw(type(dataset).__name__, _as_images(torch.stack(images), "images"), torch.cat(labels))


def _as_one_image(image: Any) -> Tensor:
    if hasattr(image, "getbands"):  # a PIL image: channels last, if there are several
        pixels = np.array(image)
        return torch.from_numpy(pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())
    return _as_tensor(image, "an image")


def _as_tensor(values: Any, name: str) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().cpu()
    array = np.asarray(values)
    if array.dtype.kind not in "iufb":
        raise ValueError(f"{name} has dtype {array.dtype}; it must hold numbers")
    # Byte order, strides and read-only flags of a foreign array are not torch's business.
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def _as_images(values: Any, name: str, axes: int = 3) -> Tensor:
    images = _as_tensor(values, name)
    shape = tuple(images.shape)
    if axes != 3:
        if images.ndim != axes + 1 or 0 in shape:
            form = {1: "(n, features)", 2: "(n, steps, features)"}[axes]
            raise ValueError(f"{name} has shape {shape}; it must be {form}, with at least one of each")
        return images
    if images.ndim not in (3, 4):
        raise ValueError(f"{name} has shape {shape}; it must be (n, H, W) or (n, C, H, W)")
    if images.ndim == 4 and shape[3] <= 4 < shape[1]:
        raise ValueError(
            f"{name} has shape {shape}; it must be (n, H, W) or (n, C, H, W), so move the channels forward, "
            "with numpy by images.transpose(0, 3, 1, 2)"
        )
    if 0 in shape:
        raise ValueError(f"{name} has shape {shape}; it must hold at least one image with at least one pixel")
    return images[:, None] if images.ndim == 3 else images


def _as_labels(values: Any, name: str) -> Tensor:
    labels = _as_tensor(values, name)
    if labels.ndim != 1:
        raise ValueError(f"{name} has shape {tuple(labels.shape)}; it must be (n,), one integer per image")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        dtype = str(labels.dtype).removeprefix("torch.")
        raise ValueError(f"{name} has dtype {dtype}; it must hold integers")
    return labels.long()


def _scaled(images: Tensor) -> Tensor:
    """Images as float32; what came as uint8 is scaled from 0-255 to 0-1."""
    scaled = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    if not scaled.isfinite().all():
        raise ValueError("the images hold pixels that are not finite (NaN or infinite); all must be finite")
    return scaled


def _bytes(images: Tensor) -> bytes:
    return images.numpy().tobytes()


# Checking -------------------------------------------------------------------------------------------------


def _check_labels(raw: _Raw, num_classes: int | None) -> int:
    """The number of classes; a ``ValueError`` if images and labels do not belong together."""
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
    elif not _is_integer(num_classes) or num_classes < 2:
        raise ValueError(f"num_classes is {num_classes!r}; it must be an integer of at least 2, or None")
    for _, _, labels_name, labels in parts:
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= num_classes:
            raise ValueError(
                f"{labels_name} hold {low if low < 0 else high}; with {num_classes} classes they must be "
                f"integers from 0 to {num_classes - 1}"
            )
    counts = torch.bincount(raw.labels, minlength=num_classes)
    rarest = int(counts.argmin())
    if counts[rarest] < 2:
        raise ValueError(
            f"class {rarest} has {int(counts[rarest])} of the images; each of the {num_classes} classes "
            f"(0 to {num_classes - 1}) needs at least 2, one to train on and one to validate on"
        )
    return int(num_classes)


def _split_sizes(
    available: int, train_size: int | None, validation_size: int | None, default: tuple[int, int] | None
) -> tuple[int, int]:
    for name, size in (("train_size", train_size), ("validation_size", validation_size)):
        if size is not None and (not _is_integer(size) or size < 1):
            raise ValueError(f"{name} is {size!r}; it must be a positive integer, or None for the default")
    if default is not None:
        train = default[0] if train_size is None else train_size
        validation = default[1] if validation_size is None else validation_size
    elif train_size is not None:
        train = train_size
        validation = available - train if validation_size is None else validation_size
    else:
        validation = max(available // 3, 1) if validation_size is None else validation_size
        train = available - validation
    for name, size in (("train_size", train_size), ("validation_size", validation_size)):
        if size is not None and size >= available:
            raise ValueError(f"{name} is {size}; it must be less than {available}, the images there are")
    if train < 1 or validation < 1 or train + validation > available:
        raise ValueError(
            f"train_size {train} and validation_size {validation} do not fit: both must be at least 1, and "
            f"together at most {available}, the images there are"
        )
    return train, validation


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
