"""Stratified splits into training, validation and test images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from optuna_trlhpo._checks import is_integer


def stratified_split(labels: np.ndarray, sizes: Sequence[int], rng: np.random.Generator) -> list[np.ndarray]:
    """Draw disjoint index arrays of exactly ``sizes``, each with the class proportions of ``labels``.

    Every class is shuffled and spread evenly over [0, 1]. When the images are sorted by these positions, any
    consecutive range contains each class in proportion, to within one or two images. The parts are
    consecutive ranges.

    Examples:
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


def split_sizes(
    available: int, train_size: int | None, validation_size: int | None, default: tuple[int, int] | None
) -> tuple[int, int]:
    """Return the numbers of training and validation images; see `load_data` for the arguments.

    Raises:
        ValueError: If a size is not a positive integer, or the sizes do not fit the available images.
    """
    for name, size in (("train_size", train_size), ("validation_size", validation_size)):
        if size is not None and not is_integer(size, least=1):
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
            raise ValueError(f"{name} is {size}; it must be less than the number of images, {available}")
    if train < 1 or validation < 1 or train + validation > available:
        raise ValueError(
            f"train_size {train} and validation_size {validation} do not fit: both must be at least 1, and "
            f"their sum at most the number of images, {available}"
        )
    return train, validation
