"""Reading of datasets: by name, from arrays, or from a PyTorch ``Dataset``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from optuna_trlhpo.cnn.data.splitting import stratified_split

TORCHVISION = {
    "mnist": ("MNIST", "MNIST/raw"),
    "fashion_mnist": ("FashionMNIST", "FashionMNIST/raw"),
    "kmnist": ("KMNIST", "KMNIST/raw"),
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
}
"""Mapping of names to the class in `torchvision.datasets` and the folder of its files in ``data_root``."""

DATASETS = ("digits", *TORCHVISION)
"""Names of the known datasets."""

_INPUTS = {1: "rows of a table, such as kinds.MLP,", 2: "sequences, such as kinds.LSTM,"}
"""Description of inputs other than images, by their number of axes."""

_EXTRA = 'install it with pip install "optuna-trlhpo[cnn]"'


class RawData(NamedTuple):
    """A dataset before the split: uint8 or float images ``[N, C, H, W]`` on the CPU, and their labels."""

    name: str
    images: Tensor
    labels: Tensor
    test_images: Tensor | None = None
    test_labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    """Names of the classes in the order of the labels, if the labels were names."""


# Reading --------------------------------------------------------------------------------------------------


def read_data(data: Any, data_root: Path, download: bool, rng: np.random.Generator, axes: int) -> RawData:
    """Read a dataset by name, from arrays or from a ``Dataset``; see `load_data` for the arguments."""
    if axes != 3:
        return _read_arrays(data, axes)
    if isinstance(data, str):
        if data == "digits":
            return read_digits(rng)
        if data in TORCHVISION:
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


def _read_arrays(data: Any, axes: int) -> RawData:
    if not isinstance(data, tuple | list) or len(data) not in (2, 4):
        raise ValueError(
            f"data is a {type(data).__name__}; a vocabulary for {_INPUTS[axes]} takes a tuple (inputs, "
            "labels) or (inputs, labels, test_inputs, test_labels)"
        )
    classes = _names_in(data[1])
    given = [data[1], *data[3:]]
    if classes:
        given = [_numbers_of(labels, classes) for labels in given]
    raw = RawData(
        "arrays", _as_images(data[0], "images", axes), _as_labels(given[0], "labels"), classes=classes
    )
    if len(data) == 2:
        return raw
    test = _as_images(data[2], "test_images", axes), _as_labels(given[1], "test_labels")
    return raw._replace(test_images=test[0], test_labels=test[1])


def _names_in(labels: Any) -> tuple[str, ...]:
    """Return the different names among labels, in alphabetical order; none if the labels are no names."""
    if isinstance(labels, Tensor):
        return ()
    names = np.asarray(labels, dtype=object).ravel().tolist()
    return tuple(sorted(set(names))) if names and all(isinstance(name, str) for name in names) else ()


def _numbers_of(labels: Any, classes: tuple[str, ...]) -> np.ndarray:
    """Return the number of each name.

    Raises:
        ValueError: If a test label is no name, or of a class that is not among the training labels.
    """
    names = np.asarray(labels, dtype=object)
    unknown = [name for name in names.ravel().tolist() if name not in classes]
    if unknown:
        raise ValueError(
            f"test_labels contain {unknown[0]!r}; the labels have the classes {', '.join(classes)}"
        )
    numbers = {name: number for number, name in enumerate(classes)}
    return np.array([numbers[name] for name in names.ravel().tolist()], dtype=np.int64).reshape(names.shape)


def read_digits(rng: np.random.Generator) -> RawData:
    """Read scikit-learn's digits, 0-1, of which a fifth becomes the test split."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(f"the dataset 'digits' needs scikit-learn; {_EXTRA}") from error
    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels.reshape(-1, 1, 8, 8) / 16.0)
    # The dataset has no test split of its own.
    fifth = len(labels) // 5
    test, rest = stratified_split(labels, [fifth, len(labels) - fifth], rng)
    targets = torch.from_numpy(labels).long()
    return RawData("digits", images[rest], targets[rest], images[test], targets[test])


def _read_torchvision(name: str, data_root: Path, download: bool) -> RawData:
    try:
        from torchvision import datasets
    except ImportError as error:
        raise ImportError(f"the dataset {name!r} needs torchvision; {_EXTRA}") from error
    class_name, folder = TORCHVISION[name]
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
            f"the files of {name!r} are not in {data_root / folder}; pass download=True, or set data_root to "
            f"the directory that contains {folder}"
        ) from error

    def images(part: Any) -> Tensor:
        pixels = torch.as_tensor(part.data)
        return pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)

    labels, test_labels = (torch.as_tensor(part.targets).long() for part in (train, test))
    return RawData(name, images(train), labels, images(test), test_labels)


def _read_dataset(dataset: Any) -> RawData:
    if not hasattr(dataset, "__len__"):
        raise ValueError(
            f"data is a {type(dataset).__name__} without a length; it must be a map-style Dataset"
        )
    if len(dataset) == 0:
        raise ValueError(f"data is an empty {type(dataset).__name__}; it must contain images")
    images, labels = [], []
    for i in range(len(dataset)):
        image, label = dataset[i]
        images.append(_as_one_image(image))
        labels.append(_as_labels([label], "labels"))
    shapes = sorted({tuple(image.shape) for image in images})
    if len(shapes) > 1:
        raise ValueError(f"the images have shapes {shapes[0]} and {shapes[1]}; all must have the same shape")
    return RawData(type(dataset).__name__, _as_images(torch.stack(images), "images"), torch.cat(labels))


def _as_one_image(image: Any) -> Tensor:
    if hasattr(image, "getbands"):  # a PIL image, whose channels are the last axis if there are several
        pixels = np.array(image)
        return torch.from_numpy(pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())
    return _as_tensor(image, "an image")


def _as_tensor(values: Any, name: str) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().cpu()
    array = np.asarray(values)
    if array.dtype.kind not in "iufb":
        raise ValueError(f"{name} has dtype {array.dtype}; it must contain numbers")
    # Copied, because PyTorch does not support every byte order, stride and read-only flag.
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def _as_images(values: Any, name: str, axes: int = 3) -> Tensor:
    images = _as_tensor(values, name)
    shape = tuple(images.shape)
    if axes != 3:
        if images.ndim != axes + 1 or 0 in shape:
            form = {1: "(n, features)", 2: "(n, steps, features)"}[axes]
            raise ValueError(
                f"{name} has shape {shape}; it must be {form}, with at least 1 in each dimension"
            )
        return images
    if images.ndim not in (3, 4):
        raise ValueError(f"{name} has shape {shape}; it must be (n, H, W) or (n, C, H, W)")
    if images.ndim == 4 and shape[3] <= 4 < shape[1]:
        raise ValueError(
            f"{name} has shape {shape}; it must be (n, H, W) or (n, C, H, W), so move the channels to the "
            "second axis, for example with images.transpose(0, 3, 1, 2)"
        )
    if 0 in shape:
        raise ValueError(
            f"{name} has shape {shape}; it must contain at least one image with at least one pixel"
        )
    return images[:, None] if images.ndim == 3 else images


def _as_labels(values: Any, name: str) -> Tensor:
    labels = _as_tensor(values, name)
    if labels.ndim != 1:
        raise ValueError(f"{name} has shape {tuple(labels.shape)}; it must be (n,), one integer per image")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        dtype = str(labels.dtype).removeprefix("torch.")
        raise ValueError(f"{name} has dtype {dtype}; it must contain integers")
    return labels.long()


def scaled(images: Tensor) -> Tensor:
    """Convert images to float32, and scale uint8 images from 0-255 to 0-1."""
    scaled = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    if not scaled.isfinite().all():
        raise ValueError("the images contain pixels that are NaN or infinite; all must be finite")
    return scaled


def image_bytes(images: Tensor) -> bytes:
    """Return the raw bytes of images, for a checksum."""
    return images.numpy().tobytes()
