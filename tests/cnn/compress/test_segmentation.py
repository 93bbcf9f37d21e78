"""Data for segmentation: canvases of digits, and splits of the user's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from optuna_trlhpo.cnn.data import digits_on_canvas, segmentation_data
from optuna_trlhpo.cnn.data.fitting import fitted
from optuna_trlhpo.cnn.data.segmentation import DIGITS, INK, NOISE

SIZES: dict[str, Any] = {"train_size": 30, "validation_size": 20, "test_size": 10, "device": "cpu"}


def test_canvases_are_what_they_are_said_to_be() -> None:
    data = digits_on_canvas(**SIZES)
    assert data.train_images.shape == (30, 1, 32, 32) and data.train_labels.shape == (30, 32, 32)
    assert data.test_labels is not None and len(data.test_labels) == 10
    assert set(data.train_labels.unique().tolist()) == set(range(11))
    brightness = data.train_images[:, 0] * data.std[0] + data.mean[0]
    assert bool((brightness[data.train_labels > 0] >= INK - 1e-5).all())
    assert float(brightness.min()) >= -1e-5 and float(brightness.max()) <= 1 + NOISE + 1e-5
    numbers = [len(it.unique()) - 1 for it in data.train_labels]  # equal digits count once
    assert max(numbers) <= DIGITS[1] and np.mean(numbers) > 1.5


def test_canvases_depend_on_the_seed_alone() -> None:
    first, again, other = (digits_on_canvas(seed=seed, **SIZES) for seed in (0, 0, 1))
    assert torch.equal(first.train_images, again.train_images)
    assert torch.equal(first.train_labels, again.train_labels)
    assert first.fingerprint == again.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 15}, "size is 15; it must be an integer of at least 16"),
        ({"train_size": 0}, "train_size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"device": "nowhere"}, "device is 'nowhere'"),
    ],
    ids=str,
)
def test_wrong_arguments_of_a_canvas_are_errors(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        digits_on_canvas(**{**SIZES, **wrong})


def split(n: int = 6, *, high: int = 1, shape: tuple[int, ...] = (3, 8, 8)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    maps = rng.integers(high + 1, size=(n, *shape[-2:]))
    maps[0, 0, 0] = high
    return rng.integers(256, size=(n, *shape)).astype(np.uint8), maps


def test_splits_are_standardised_by_the_training_images() -> None:
    images, maps = split()
    data = segmentation_data((images, maps), split(4), device="cpu")
    scaled = images / 255
    mean, std = scaled.mean((0, 2, 3)), scaled.std((0, 2, 3))
    expected = (scaled - mean[:, None, None]) / std[:, None, None]
    assert data.train_images.numpy() == pytest.approx(expected, abs=1e-5)
    assert data.mean == pytest.approx(tuple(mean)) and data.std == pytest.approx(tuple(std))
    assert torch.equal(data.train_labels, torch.from_numpy(maps))
    assert data.num_classes == 2 and data.test_images is None
    assert len(data.validation_labels) == 4


@pytest.mark.parametrize(
    ("train", "validation", "how", "message"),
    [
        (split(), split(high=2), {}, "the label maps of validation contain 2; with 2 classes they must be"),
        (split(), split(shape=(3, 8, 9)), {}, r"the images of validation have shape \(3, 8, 9\)"),
        (split(), split(), {"num_classes": 1}, "num_classes is 1"),
        ((split()[0], split()[1][:, 1:]), split(), {}, r"they must be \(n, C, H, W\) and \(n, H, W\)"),
        ((split()[0], split()[1] / 2), split(), {}, "the label maps of train have dtype float64"),
        (split()[0], split(), {}, "train is a ndarray; it must be a tuple"),
        ((split()[0] * np.nan, split()[1]), split(), {}, "pixels that are NaN"),
    ],
)
def test_splits_that_do_not_fit_are_errors(train: Any, validation: Any, how: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        segmentation_data(train, validation, device="cpu", **how)


def test_label_maps_are_enlarged_with_their_images() -> None:
    data = segmentation_data(split(shape=(1, 4, 4)), split(shape=(1, 4, 4)), device="cpu")
    large = fitted(data, size=10, channels=3)
    assert large.train_images.shape == (6, 3, 10, 10) and large.train_labels.shape == (6, 10, 10)
    assert torch.equal(large.train_labels[:, 1:9:2, 2:10:2], data.train_labels)
    assert int(large.train_labels[:, 0].sum()) == 0 and len(large.mean) == 3
    black = -torch.tensor(data.mean[0]) / data.std[0]
    assert torch.equal(large.train_images[:, :, 0], black.expand(6, 3, 10))
    with pytest.raises(ValueError, match="the images have 3 channels and the network takes 1"):
        fitted(large, channels=1)
