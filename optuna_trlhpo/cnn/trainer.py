"""`Trainer`: layers -> a trained network, always the same one for one seed. It knows no trial."""

from __future__ import annotations

import functools
import threading
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from optuna_trlhpo.cnn.blocks import seed_dropout
from optuna_trlhpo.cnn.data import ImageData
from optuna_trlhpo.cnn.model import build_network
from optuna_trlhpo.cnn.training import cpu_threads, predict_correct, train
from optuna_trlhpo.layers import Network, describe

INITIALISING = threading.Lock()
"""Held while PyTorch's generator is seeded, which belongs to the process: threads must not mix."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trainer:
    """Trains networks on one dataset in one setting.

    Attributes:
        data: What networks are trained and judged on.
        conv_activation: What follows each convolution of Table I.
        epochs: Passes over the training images.
        batch_size: Images in a step.
        learning_rate: Adam's, at its peak.
        schedule: One of `training.SCHEDULES`.
        threads: Of the CPU.
        seed: Of the objective; each training is given one of its own.
    """

    data: ImageData
    conv_activation: str
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: str
    threads: int
    seed: int

    def validate(self, layers: Network, *, seed: int | str) -> np.ndarray | None:
        """Train a network; whether it classifies each validation image correctly, bool ``[N]``.

        None if memory ran out.
        """
        data = self.data
        try:
            with cpu_threads(self.threads):
                network = self.train(layers, data.train_images, data.train_labels, seed=seed)
                correct = predict_correct(network, data.validation_images, data.validation_labels)
                return correct.cpu().numpy()
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
        # Outside the except clause, whose traceback holds the tensors that are to be freed.
        if data.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def train(
        self,
        layers: Network,
        images: Tensor,
        labels: Tensor,
        *,
        seed: int | str,
        epochs: int | None = None,
    ) -> nn.Module:
        """A network trained on ``images``, for ``epochs`` if they are not the setting's.

        Initial weights and the order of the images are made of the seed and the architecture.
        """
        training_seed = zlib.crc32(f"{seed} {describe(layers)}".encode())
        network = self.initialise(layers, training_seed)
        train(
            network,
            images,
            labels,
            epochs=self.epochs if epochs is None else epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            generator=torch.Generator(self.data.device).manual_seed(training_seed),
        )
        return network

    def initialise(self, layers: Network, seed: int) -> nn.Sequential:
        """An untrained network on the device of the data."""
        # Initialised on the CPU whatever the device, so that the initial weights are the same on all.
        with INITIALISING, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            network = build_network(
                layers, self.data.input_shape, self.data.num_classes, conv_activation=self.conv_activation
            )
        seed_dropout(network, seed)
        # The CPU pools several times faster where the channels of a pixel lie side by side.
        on_cpu = self.data.device.type == "cpu"
        layout = torch.channels_last if on_cpu else torch.contiguous_format
        return network.to(self.data.device, memory_format=layout)  # type: ignore[call-overload]

    @functools.cached_property
    def setting(self) -> str:
        """A short key for all that an accuracy depends on besides network and training seed."""
        data = self.data
        labels = [
            zlib.crc32(part.cpu().numpy().tobytes()) for part in (data.train_labels, data.validation_labels)
        ]
        # Coarse, for another machine may round sums otherwise, and the mean of a centred channel is but that.
        pixels = [
            (round(mean / std, 2) + 0.0, f"{std:.2g}") for mean, std in zip(data.mean, data.std, strict=True)
        ]
        training = (self.epochs, self.batch_size, self.learning_rate, self.schedule, self.conv_activation)
        parts = (data.name, data.input_shape, data.num_classes, labels, pixels, *training, self.seed)
        return f"{zlib.crc32(' '.join(map(str, parts)).encode()):08x}"


def _is_out_of_memory(error: RuntimeError) -> bool:
    # The CPU's allocator has no exception class of its own.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
