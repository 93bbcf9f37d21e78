"""Training of a network that is given as a module."""

from __future__ import annotations

import copy
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from optuna_trlhpo._threads import cpu_threads
from optuna_trlhpo.cnn.compress.narrowing import reset
from optuna_trlhpo.cnn.compress.scores import score_of, score_table
from optuna_trlhpo.cnn.data.datasets import ImageData
from optuna_trlhpo.cnn.training.augmentation import Augmentation, Transform, augment_key
from optuna_trlhpo.cnn.training.fast_layout import place
from optuna_trlhpo.cnn.training.global_generator import global_generator
from optuna_trlhpo.cnn.training.loop import train
from optuna_trlhpo.layers.blocks import SeededDropout, seed_dropout


@dataclass(frozen=True, kw_only=True, eq=False)
class ModuleTrainer:
    """Trains modules on one dataset in one setting.

    Attributes:
        data: Data for training and validation.
        epochs: Passes over the training images.
        batch_size: Number of images in a step.
        learning_rate: Peak learning rate of Adam.
        schedule: One of `optuna_trlhpo.cnn.training.loop.SCHEDULES`.
        precision: One of `optuna_trlhpo.cnn.training.loop.PRECISIONS`.
        threads: Number of CPU threads.
        augment: Augmentation of the training images, by name or as a function. None for none.
    """

    data: ImageData
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: str
    precision: str
    threads: int
    augment: str | Transform | None

    def train(
        self,
        network: nn.Module,
        *,
        seed: str,
        from_scratch: bool,
        epochs: int | None = None,
        after_epoch: Callable[[float], bool] | None = None,
    ) -> tuple[nn.Module, float]:
        """Train a copy of a network on the training images.

        Args:
            network: Network, which is left as it is.
            seed: Random seed of the initial weights, the dropout and the order of the images.
            from_scratch: Whether the network begins with new weights, or with those that it has.
            epochs: Number of epochs. Default: that of the setting.
            after_epoch: Called after each epoch with the score on the validation images. Returns whether to
                stop.

        Returns:
            The trained network on the device of the data, and the seconds of the training alone. Its
            `nn.Dropout` layers are those with random generators of their own.
        """
        data, number = self.data, zlib.crc32(seed.encode())
        with global_generator(number):
            # Initialised on the CPU, so that the initial weights are the same on every device.
            network = copy.deepcopy(network).cpu()
            if from_scratch:
                reset(network)
        _give_generators(network)
        seed_dropout(network, number)
        place(network, data.device, self.precision)
        augment = None
        if self.augment is not None:
            augmentation = Augmentation(self.augment, data.mean, data.std)

            def augment(images: torch.Tensor, out: torch.Tensor, epoch: int) -> None:
                augmentation(images, out, seed=zlib.crc32(f"{seed} {epoch}".encode()))

        aside = 0.0  # seconds that are not of the training

        def watch(_: int) -> bool:
            nonlocal aside
            assert after_epoch is not None
            _wait_for(data.device)
            start = time.perf_counter()
            stop = after_epoch(score_of(self.validate(network)))
            aside += time.perf_counter() - start
            return stop

        with cpu_threads(self.threads):
            start = time.perf_counter()
            train(
                network,
                data.train_images,
                data.train_labels,
                epochs=self.epochs if epochs is None else epochs,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                schedule=self.schedule,
                precision=self.precision,
                generator=torch.Generator(data.device).manual_seed(number),
                after_epoch=None if after_epoch is None else watch,
                augment=augment,
            )
            _wait_for(data.device)
            return network.eval(), time.perf_counter() - start - aside

    def validate(self, network: nn.Module) -> np.ndarray:
        """Return the table of `score_table` of the network on the validation images."""
        data = self.data
        with cpu_threads(self.threads):
            return score_table(network, data.validation_images, data.validation_labels, data.num_classes)

    def test(self, network: nn.Module) -> np.ndarray:
        """Return the table of `score_table` of the network on the test images.

        Raises:
            ValueError: If the data have no test split.
        """
        data = self.data
        if data.test_images is None or data.test_labels is None:
            raise ValueError(f"the data {data.name!r} have no test split, which the final comparison needs")
        with cpu_threads(self.threads):
            return score_table(network, data.test_images, data.test_labels, data.num_classes)

    @property
    def key(self) -> str:
        """Text of everything that the score of a network depends on, except the network and its seed."""
        data = self.data
        labels = [
            zlib.crc32(part.cpu().numpy().tobytes()) for part in (data.train_labels, data.validation_labels)
        ]
        parts = (data.name, data.input_shape, data.num_classes, labels, data.fingerprint)
        how = (self.epochs, self.batch_size, self.learning_rate, self.schedule, self.precision)
        return " ".join(map(str, (*parts, *how, augment_key(self.augment))))


def _give_generators(network: nn.Module) -> None:
    """Replace dropout by dropout with its own generator, so that a training can be repeated."""
    for part in network.modules():
        for name, child in part.named_children():
            if isinstance(child, nn.Dropout | nn.Dropout2d) and 0 < child.p < 1:
                setattr(part, name, SeededDropout(child.p, channels=isinstance(child, nn.Dropout2d)))


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
