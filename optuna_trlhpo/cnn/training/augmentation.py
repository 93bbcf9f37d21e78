"""Augmentation: random transformations of the training images, new ones in each epoch.

The transformations are torchvision's (v2), on batches of tensors. Notation: N images, C channels, H height,
W width.
"""

from __future__ import annotations

import inspect
import pickle
import uuid
import zlib
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from optuna_trlhpo.cnn.memory import is_out_of_memory
from optuna_trlhpo.cnn.training.global_generator import global_generator

Transform = Callable[[Tensor], Tensor]
"""Function of images ``[N, C, H, W]`` in the pixel scale of the dataset that returns images of that shape."""

_GROUP = 32
"""Number of images with the same random transformation. Each image has other companions in every epoch."""


def _characters() -> Transform:
    from torchvision.transforms import InterpolationMode, v2

    # A mirrored character would be another one.
    return v2.RandomAffine(
        degrees=10, translate=(0.08, 0.08), scale=(0.9, 1.1), interpolation=InterpolationMode.BILINEAR
    )


def _objects() -> Transform:
    from torchvision.transforms import v2

    return v2.Compose([v2.RandomHorizontalFlip(), v2.RandomAffine(degrees=0, translate=(0.12, 0.12))])


NAMED: dict[str, Callable[[], Transform]] = {"characters": _characters, "objects": _objects}
"""Augmentations by name: small rotations, shifts and scalings; or mirroring and shifts."""


class Augmentation:
    """Random transformations of standardised images.

    Args:
        transform: A name of `NAMED`, or a transformation, such as one of ``torchvision.transforms.v2``.
        mean: Mean of the pixels per channel.
        std: Standard deviation of the pixels per channel.

    Raises:
        ImportError: If a named augmentation needs torchvision, which is not installed.
    """

    def __init__(self, transform: str | Transform, mean: Sequence[float], std: Sequence[float]) -> None:
        self._transform = NAMED[transform]() if isinstance(transform, str) else transform
        self._mean, self._std = (torch.tensor(tuple(values))[:, None, None] for values in (mean, std))

    def __call__(self, images: Tensor, out: Tensor, *, seed: int) -> None:
        """Write the images ``[N, C, H, W]``, transformed, to ``out`` of the same shape.

        Raises:
            ValueError: If the transformation changes the shape of the images.
        """
        mean, std = self._mean.to(images), self._std.to(images)
        with global_generator(seed, images.device), torch.no_grad():
            for group in torch.randperm(len(images)).to(images.device).split(_GROUP):
                found = self._transformed(images[group] * std + mean)
                out[group] = (found - mean) / std

    def _transformed(self, pixels: Tensor) -> Tensor:
        try:
            found = self._transform(pixels)
        except Exception as error:  # of any kind, from somebody else's code
            if is_out_of_memory(error):
                raise  # no fault of that code: the trial fails, and the study goes on
            raise ValueError(
                f"augment failed on images of shape {tuple(pixels.shape)}: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(found, Tensor) or found.shape != pixels.shape or not found.is_floating_point():
            what = type(found).__name__
            if isinstance(found, Tensor):
                what = f"{found.dtype} of shape {tuple(found.shape)}"
            wanted = f"floats of shape {tuple(pixels.shape)}"
            raise ValueError(f"augment returned {what}; it must return {wanted}")
        return found.to(pixels.dtype)


def augment_key(augment: str | Transform | None) -> str:
    """Return a short key that equal augmentations share, and different ones do not.

    An augmentation that cannot be pickled, such as a lambda, has a key that no other one has, even if it is
    made in the same way: nothing else tells what it does.

    Examples:
        >>> augment_key(None), augment_key("characters")
        ('', 'characters')
        >>> augment_key(lambda images: images) == augment_key(lambda images: images)
        False
    """
    if augment is None or isinstance(augment, str):
        return augment or ""
    try:
        content = pickle.dumps(augment)
        if isinstance(augment, FunctionType):  # pickled by its name alone
            content += inspect.getsource(augment).encode()
    except Exception:  # of any kind, from somebody else's code
        return uuid.uuid4().hex
    return f"{zlib.crc32(content):08x}"


def check_augment(augment: Any, axes: int) -> None:
    """Raise a ``ValueError`` unless ``augment`` can transform inputs of ``axes`` axes."""
    if augment is None:
        return
    if isinstance(augment, type) or not (
        callable(augment) or (isinstance(augment, str) and augment in NAMED)
    ):
        raise ValueError(
            f"augment is {augment!r}; it must be one of {', '.join(NAMED)}, a function of images "
            "(N, C, H, W), or None"
        )
    if axes != 3:
        raise ValueError(f"augment is {augment!r}; for inputs that are no images it must be None")
