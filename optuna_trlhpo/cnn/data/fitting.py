"""Fitting of images to a network that expects others: their size and their number of channels."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from optuna_trlhpo.cnn.data.datasets import ImageData


def fitted(data: ImageData, *, size: int | None = None, channels: int | None = None) -> ImageData:
    """Return the data with larger images, and with grey images repeated in each channel.

    Images are enlarged by the largest whole factor that fits, each pixel becoming a square, and then padded
    with black evenly on all sides. Label maps are enlarged in the same way, with class 0 around.

    Args:
        data: Data with images ``[N, C, H, W]``.
        size: Height and width of the images. None leaves them.
        channels: Number of channels. None leaves it.

    Raises:
        ValueError: If the images are larger, or have another number of channels than 1 or ``channels``.

    Examples:
        >>> from optuna_trlhpo.cnn.data.datasets import load_data
        >>> fitted(load_data("digits", device="cpu"), size=28, channels=3).input_shape
        (3, 28, 28)
    """
    own, height, width = data.input_shape
    if size is not None and max(height, width) > size:
        raise ValueError(f"size is {size}; it must be at least that of the images, {height}x{width}")
    if channels is not None and own not in (1, channels):
        raise ValueError(f"the images have {own} channels and the network takes {channels}")
    black = torch.tensor([-mean / std for mean, std in zip(data.mean, data.std, strict=True)])

    def images(split: Tensor | None) -> Tensor | None:
        if split is None:
            return None
        if size is not None:
            split = _resized(split, size, black[:, None, None])
        return split.expand(-1, channels, -1, -1).contiguous() if channels is not None else split

    def labels(split: Tensor | None) -> Tensor | None:
        if size is None or split is None or split.ndim < 3:
            return split
        return _resized(split, size, torch.zeros((), dtype=split.dtype))

    repeat = 1 if channels is None else channels // own
    changed: dict[str, Any] = {"mean": data.mean * repeat, "std": data.std * repeat}
    for split in ("train", "validation", "test"):
        changed[f"{split}_images"] = images(getattr(data, f"{split}_images"))
        changed[f"{split}_labels"] = labels(getattr(data, f"{split}_labels"))
    return dataclasses.replace(data, **changed)


def _resized(images: Tensor, size: int, around: Tensor) -> Tensor:
    factor = size // max(images.shape[-2:])
    images = images.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)
    height, width = images.shape[-2:]
    row, column = (size - height) // 2, (size - width) // 2
    resized = around.to(images).expand(*images.shape[:-2], size, size).clone()
    resized[..., row : row + height, column : column + width] = images
    return resized
