"""`Trainer`: layers -> a trained network, always the same one for one seed. It knows no trial."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import os
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FunctionType

import numpy as np
import torch
from torch import Tensor, nn

from optuna_trlhpo._threads import cpu_threads
from optuna_trlhpo.cnn.data.datasets import ImageData
from optuna_trlhpo.cnn.model import build_network, output_shape_of
from optuna_trlhpo.cnn.timing_lock import TIMING_LOCK
from optuna_trlhpo.cnn.training.fast_layout import place
from optuna_trlhpo.cnn.training.loop import predict_correct, train
from optuna_trlhpo.cnn.training.weight_inheritance import Lineage, LineageStep, WeightCache, inherit
from optuna_trlhpo.layers import Layer, Network, describe
from optuna_trlhpo.layers.blocks import seed_dropout
from optuna_trlhpo.space import LayerSpace

Watch = Callable[[int, nn.Module], bool]
"""Given the epochs done and the network, whether to stop."""

INITIALISING = threading.Lock()
"""Held while PyTorch's generator is seeded, which belongs to the process: threads must not mix."""

_ROUNDS = 3
_WORTH_A_THREAD = 0.8
"""Of the time, when threads are doubled: with less gain a second trial at the same time is worth more."""


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
        precision: One of `training.PRECISIONS`.
        threads: Of the CPU.
        seed: Of the objective; each training is given one of its own.
        inherits: Whether a network inherits from the one that was trained before it on its way.
        inherited_epochs: Passes for a network that inherits.
        estate: What networks inherit from, as far as it is still there.
        code: A key for the code of layers that are not this package's, see `layers_key`.
    """

    data: ImageData
    conv_activation: str
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: str
    precision: str
    threads: int
    seed: int
    inherits: bool = False
    inherited_epochs: int = 0
    estate: WeightCache = field(default_factory=WeightCache)
    code: str = ""

    def validate(
        self, layers: Network, *, seed: int | str, way: Lineage = (), watch: Watch | None = None
    ) -> np.ndarray | None:
        """Train a network; whether it classifies each validation image correctly, bool ``[N]``.

        Args:
            layers: Of the network.
            seed: Of the training.
            way: What it inherits from, if anything; see `train`.
            watch: Asked after each epoch whether to stop.

        Returns:
            None if memory ran out.
        """
        data = self.data
        try:
            with TIMING_LOCK.training(), cpu_threads(self.threads):
                network = self.train(
                    layers, data.train_images, data.train_labels, seed=seed, way=way, watch=watch
                )
                correct = predict_correct(network, data.validation_images, data.validation_labels)
                if self.inherits and seed == self.seed:  # the search goes on from its own networks alone
                    stopped = getattr(watch, "epochs_until_stopped", None)
                    self.estate.keep((*way, LineageStep(layers, stopped)), network)
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
        way: Lineage = (),
        watch: Watch | None = None,
    ) -> nn.Sequential:
        """A network trained on ``images``, for ``epochs`` if they are not the setting's.

        Initial weights and the order of the images are made of the seed and the architecture. With a ``way``
        the network inherits from the last one on it. If that is no longer here, or was trained elsewhere, it
        is trained again first, the same as before.
        """
        seed_of_training = training_seed(seed, layers)
        network = self.initialise(layers, seed_of_training)
        if way:
            parent = self.estate.find(way)
            if parent is None:
                parent = self._train_again(way, images, labels, seed=seed)
            inherit(network, parent, output_shape_of(way[-1].layers, self.data.input_shape))
        if epochs is None:
            epochs = self.inherited_epochs if way else self.epochs
        train(
            network,
            images,
            labels,
            epochs=epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            precision=self.precision,
            generator=torch.Generator(self.data.device).manual_seed(seed_of_training),
            after_epoch=None if watch is None else lambda epoch: watch(epoch, network),
        )
        return network

    def _train_again(self, way: Lineage, images: Tensor, labels: Tensor, *, seed: int | str) -> nn.Sequential:
        """The last network of the way, as it was trained before."""
        last = way[-1]
        network = self.train(
            last.layers,
            images,
            labels,
            seed=seed,
            way=way[:-1],
            watch=None if last.stopped is None else lambda epoch, _: epoch == last.stopped,
        )
        self.estate.keep(way, network)
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
        place(network, self.data.device)
        return network

    @functools.cached_property
    def search_setting(self) -> str:
        """`setting`, and that networks inherit, if they do."""
        if not self.inherits:
            return self.setting
        return f"{zlib.crc32(f'{self.setting} inherits {self.inherited_epochs}'.encode()):08x}"

    @functools.cached_property
    def setting(self) -> str:
        """A short key for all that an accuracy depends on besides network and training seed."""
        data = self.data
        labels = [
            zlib.crc32(part.cpu().numpy().tobytes()) for part in (data.train_labels, data.validation_labels)
        ]
        training: tuple[object, ...] = (self.epochs, self.batch_size, self.learning_rate)
        training += (self.schedule, self.conv_activation)
        if self.precision != "float32":
            training += (self.precision,)
        if self.code:
            training += (self.code,)
        parts = (
            data.name,
            data.input_shape,
            data.num_classes,
            labels,
            data.fingerprint,
            *training,
            self.seed,
        )
        return f"{zlib.crc32(' '.join(map(str, parts)).encode()):08x}"


def layers_key(kinds: Sequence[type[Layer]]) -> str:
    """A short key for the code of those kinds of layer that are not this package's: their methods, as far as
    Python can show them, and their constants. Empty if there are none.

    Example:
        >>> from optuna_trlhpo.layers import TABLE_I
        >>> layers_key(TABLE_I.kinds)
        ''
    """
    texts = []
    for kind in kinds:
        for cls in kind.__mro__[:-1]:
            if cls.__module__.partition(".")[0] == __name__.partition(".")[0]:
                continue
            for name, value in sorted(vars(cls).items()):
                function = inspect.unwrap(getattr(value, "__func__", getattr(value, "fget", value)))
                if isinstance(function, FunctionType):
                    # Not of the class as a whole, of which a notebook cannot show the source.
                    with contextlib.suppress(OSError):  # a dataclass has methods without source
                        texts.append(inspect.getsource(function))
                elif isinstance(value, int | float | str | tuple) and not name.startswith("__"):
                    texts.append(f"{name}={value!r}")
    return f"{zlib.crc32(' '.join(texts).encode()):08x}" if texts else ""


def training_seed(seed: int | str, layers: Network) -> int:
    """Of a network's initial weights and the order of the images, made of a seed and the architecture."""
    return zlib.crc32(f"{seed} {describe(layers)}".encode())


def measured_threads(
    data: ImageData, space: LayerSpace, *, batch_size: int, conv_activation: str = "relu"
) -> int:
    """The number of CPU threads with which networks of the space train fastest here, and now.

    Powers of two, as far as there are cores, take turns on three random networks; the fewest threads count
    that take at most `_WORTH_A_THREAD` of the time of half as many.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    rng = np.random.default_rng(0)
    networks = [space.draw(rng) for _ in range(3)]
    images, labels = data.train_images[: 2 * batch_size], data.train_labels[: 2 * batch_size]
    numbers = [2**k for k in range(usable.bit_length())]
    seconds = dict.fromkeys(numbers, math.inf)
    for _ in range(_ROUNDS):
        for threads in numbers:
            trainer = Trainer(
                data=data,
                conv_activation=conv_activation,
                epochs=1,
                batch_size=batch_size,
                learning_rate=1e-3,
                schedule="constant",
                precision="float32",
                threads=threads,
                seed=0,
            )
            start = time.perf_counter()
            with cpu_threads(threads):
                for network in networks:
                    trainer.train(network, images, labels, seed=0)
            seconds[threads] = min(seconds[threads], time.perf_counter() - start)
    chosen = 1
    while 2 * chosen in seconds and seconds[2 * chosen] < _WORTH_A_THREAD * seconds[chosen]:
        chosen *= 2
    return chosen


def _is_out_of_memory(error: RuntimeError) -> bool:
    # The CPU's allocator has no exception class of its own.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
