"""`Trainer`: reproducible training of networks from their layers, independent of trials."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import os
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FunctionType

import numpy as np
import optuna
import torch
from torch import Tensor, nn

from optuna_trlhpo._threads import cpu_threads
from optuna_trlhpo.cnn.data.datasets import ImageData
from optuna_trlhpo.cnn.memory import is_out_of_memory
from optuna_trlhpo.cnn.model import build_network, output_shape_of
from optuna_trlhpo.cnn.timing_lock import TIMING_LOCK
from optuna_trlhpo.cnn.training.augmentation import Augmentation, Transform, augment_key
from optuna_trlhpo.cnn.training.fast_layout import place
from optuna_trlhpo.cnn.training.global_generator import global_generator
from optuna_trlhpo.cnn.training.graph_capture import free_cached_memory
from optuna_trlhpo.cnn.training.loop import predict_correct, train
from optuna_trlhpo.cnn.training.weight_inheritance import Lineage, LineageStep, WeightCache, inherit
from optuna_trlhpo.layers import Layer, Network, describe
from optuna_trlhpo.layers.blocks import seed_dropout
from optuna_trlhpo.space import LayerSpace

_logger = optuna.logging.get_logger("optuna.trlhpo.cnn")

Watch = Callable[[int, nn.Module], bool]
"""Function of the number of finished epochs and the network that returns whether to stop."""

_ROUNDS = 3
_MAX_RELATIVE_TIME = 0.8
"""Maximum relative time at which doubling the threads is worthwhile.

With a smaller gain, a second trial at the same time is the better use of the cores.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trainer:
    """Trains networks on one dataset in one setting.

    Attributes:
        data: Data for training and validation.
        conv_activation: Activation after each convolution of Table I.
        epochs: Passes over the training images.
        batch_size: Number of images in a step.
        learning_rate: Peak learning rate of Adam.
        schedule: One of `optuna_trlhpo.cnn.training.loop.SCHEDULES`.
        precision: One of `optuna_trlhpo.cnn.training.loop.PRECISIONS`.
        threads: Number of CPU threads.
        seed: Random seed of the objective. Each training has its own seed.
        inherits: Whether a network inherits weights from the previous network of its lineage.
        inherited_epochs: Number of epochs of a network that inherits.
        weight_cache: Cache of the networks that others inherit from.
        code: Key for the code of layers from outside this package; see `layers_key`.
        augment: Augmentation of the training images, by name or as a function. None for none.
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
    weight_cache: WeightCache = field(default_factory=WeightCache)
    code: str = ""
    augment: str | Transform | None = None

    def validate(
        self, layers: Network, *, seed: int | str, lineage: Lineage = (), watch: Watch | None = None
    ) -> np.ndarray | None:
        """Train a network and classify the validation images.

        Args:
            layers: Layers of the network.
            seed: Random seed of the training.
            lineage: Lineage that the network inherits from, possibly empty; see `train`.
            watch: Called after each epoch. Returns whether to stop.

        Returns:
            For each validation image whether it is classified correctly, bool ``[N]``, or None if memory ran
            out.
        """
        data = self.data
        try:
            with TIMING_LOCK.training(), cpu_threads(self.threads):
                network = self.train(
                    layers, data.train_images, data.train_labels, seed=seed, lineage=lineage, watch=watch
                )
                correct = predict_correct(network, data.validation_images, data.validation_labels)
                if self.inherits and seed == self.seed:  # only networks of the search are inherited from
                    stopped = getattr(watch, "epochs_until_stopped", None)
                    self.weight_cache.keep((*lineage, LineageStep(layers, stopped)), network)
                return correct.cpu().numpy()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            _logger.info(f"{type(error).__name__}: {error}".splitlines()[0])
        # Outside the except clause, because the traceback refers to the tensors that are to be freed.
        free_cached_memory(data.device)
        return None

    def train(
        self,
        layers: Network,
        images: Tensor,
        labels: Tensor,
        *,
        seed: int | str,
        epochs: int | None = None,
        augment: str | Transform | None = "auto",
        lineage: Lineage = (),
        watch: Watch | None = None,
    ) -> nn.Sequential:
        """Train a network on ``images``, for ``epochs`` epochs or by default for those of the setting.

        An ``augment`` other than "auto" replaces that of the setting.
        The initial weights and the order of the images are derived from the seed and the architecture. With a
        ``lineage``, the network inherits from its last network. If that network is not in the cache, or was
        trained by another process, it is first trained again in the same way.
        """
        seed_of_training = training_seed(seed, layers)
        network = self.initialise(layers, seed_of_training)
        if lineage:
            parent = self.weight_cache.find(lineage)
            if parent is None:
                parent = self._train_again(lineage, images, labels, seed=seed)
            inherit(network, parent, output_shape_of(lineage[-1].layers, self.data.input_shape))
        if epochs is None:
            epochs = self.inherited_epochs if lineage else self.epochs
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
            augment=self._augmentation(self.augment if augment == "auto" else augment, seed_of_training),
        )
        return network

    def _augmentation(
        self, augment: str | Transform | None, seed: int
    ) -> Callable[[Tensor, Tensor, int], None] | None:
        """Return a function that augments the images of an epoch, or None."""
        if augment is None:
            return None
        augmentation = Augmentation(augment, self.data.mean, self.data.std)
        return lambda images, out, epoch: augmentation(
            images, out, seed=zlib.crc32(f"{seed} {epoch}".encode())
        )

    def _train_again(
        self, lineage: Lineage, images: Tensor, labels: Tensor, *, seed: int | str
    ) -> nn.Sequential:
        """Train the last network of the lineage again, in the same way as before."""
        last = lineage[-1]
        network = self.train(
            last.layers,
            images,
            labels,
            seed=seed,
            lineage=lineage[:-1],
            watch=None if last.stopped is None else lambda epoch, _: epoch == last.stopped,
        )
        self.weight_cache.keep(lineage, network)
        return network

    def initialise(self, layers: Network, seed: int) -> nn.Sequential:
        """Build an untrained network on the device of the data."""
        # Always initialised on the CPU, so that the initial weights are the same on every device.
        with global_generator(seed):
            network = build_network(
                layers, self.data.input_shape, self.data.num_classes, conv_activation=self.conv_activation
            )
        seed_dropout(network, seed)
        place(network, self.data.device, self.precision)
        return network

    @functools.cached_property
    def search_setting(self) -> str:
        """Key like `setting` that also depends on weight inheritance."""
        if not self.inherits:
            return self.setting
        return f"{zlib.crc32(f'{self.setting} inherits {self.inherited_epochs}'.encode()):08x}"

    @functools.cached_property
    def setting(self) -> str:
        """Short key for everything that an accuracy depends on, except the network and the training seed."""
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
        if self.augment is not None:
            training += (augment_key(self.augment),)
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
    """Return a short key for the code of the kinds of layer from outside this package.

    It covers their constants and their methods, as far as the source is available. It is empty if there are
    no such kinds.

    Examples:
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
                    # Per method, because the source of a class in a notebook is not available.
                    with contextlib.suppress(OSError):  # dataclasses have generated methods without source
                        texts.append(inspect.getsource(function))
                elif isinstance(value, int | float | str | tuple) and not name.startswith("__"):
                    texts.append(f"{name}={value!r}")
    return f"{zlib.crc32(' '.join(texts).encode()):08x}" if texts else ""


def training_seed(seed: int | str, layers: Network) -> int:
    """Derive the seed of the initial weights and the image order from a seed and the architecture."""
    return zlib.crc32(f"{seed} {describe(layers)}".encode())


def measured_threads(
    data: ImageData, space: LayerSpace, *, batch_size: int, conv_activation: str = "relu"
) -> int:
    """Measure the number of CPU threads with which networks of the space train fastest on this machine.

    Powers of two up to the number of cores train three random networks in turn. The number is doubled as long
    as this reduces the time to less than `_MAX_RELATIVE_TIME` of the time before.
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
            with TIMING_LOCK.measuring(), cpu_threads(threads):
                start = time.perf_counter()
                for network in networks:
                    trainer.train(network, images, labels, seed=0)
                seconds[threads] = min(seconds[threads], time.perf_counter() - start)
    chosen = 1
    while 2 * chosen in seconds and seconds[2 * chosen] < _MAX_RELATIVE_TIME * seconds[chosen]:
        chosen *= 2
    return chosen
