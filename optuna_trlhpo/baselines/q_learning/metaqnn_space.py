"""`MetaQNNSpace`: the networks of MetaQNN, which an objective grows layer by layer with any sampler."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna.trial import BaseTrial, FixedTrial

from optuna_trlhpo._checks import check_integer, is_integer
from optuna_trlhpo.layers import FCL, Hyperparameter, Layer, MaxPool, Network, Shape
from optuna_trlhpo.layers.kinds import GlobalPool

if TYPE_CHECKING:
    from torch import nn

FILTERS, KERNELS = (64, 128, 256, 512), (1, 3, 5)
POOLS = ((5, 3), (3, 2), (2, 2))
"""Windows of max pooling, each with its stride."""
NEURONS = (512, 256, 128)
MOST_DENSE = 2
"""Largest number of fully connected layers."""
_MOST_DROPOUTS = 100
_BUCKETS = {8: "large", 4: "medium", 1: "small"}
"""Names of the buckets of the image's size, by the smallest size of each."""
_LARGEST_DENSE_BUCKET = 4
_END, _GLOBAL_POOL = "end", str(GlobalPool())


def bucket_of(size: int) -> int:
    """Return the smallest size of the bucket of an image: 8, 4 or 1.

    Examples:
        >>> [bucket_of(size) for size in (28, 8, 7, 4, 3, 1)]
        [8, 8, 4, 4, 1, 1]
    """
    return next(least for least in _BUCKETS if size >= least or least == 1)


def is_layer_name(name: str) -> bool:
    """Return whether a parameter is a layer of a `MetaQNNSpace`.

    Examples:
        >>> is_layer_name("layer3_metaqnn_large"), is_layer_name("layer3_conv_filters")
        (True, False)
    """
    return re.fullmatch(r"layer[1-9]\d*_metaqnn_\w+", name) is not None


@dataclass(frozen=True)
class PaddedConv(Layer):
    """A convolution with a stride of 1 and ReLU, padded so that the size of the image stays."""

    kind = "PaddedConv"
    prefix = "paddedconv"
    hyperparameters = (
        Hyperparameter("filters", FILTERS, tuple(map(str, FILTERS))),
        Hyperparameter("kernel", KERNELS),
    )

    filters: int
    kernel: int

    def output_shape(self, shape: Shape) -> Shape | None:
        """Return the shape of the output image; None if the input is not an image."""
        return (self.filters, *shape[1:]) if len(shape) == 3 else None

    def macs(self, shape: Shape) -> int:
        """Return the MACs of the convolution."""
        return math.prod(shape) * self.filters * self.kernel**2

    def parameters(self, shape: Shape) -> int:
        """Return the weights and biases of the convolution."""
        return self.filters * (shape[0] * self.kernel**2 + 1)

    def modules(self, shape: Shape) -> list[nn.Module]:
        """Return the convolution and ReLU."""
        from torch import nn

        return [nn.Conv2d(shape[0], self.filters, self.kernel, padding=self.kernel // 2), nn.ReLU()]


@dataclass(frozen=True)
class RisingDropout(Layer):
    """The i-th of n dropout layers of a network, with the probability i / 2n: the last has 0.5."""

    kind = "RisingDropout"
    prefix = "risingdropout"
    hyperparameters = (
        Hyperparameter("place", tuple(range(1, _MOST_DROPOUTS + 1))),
        Hyperparameter("number", tuple(range(1, _MOST_DROPOUTS + 1))),
    )

    place: int
    number: int

    @property
    def probability(self) -> float:
        """Probability that a value is dropped."""
        return self.place / (2 * self.number)

    def output_shape(self, shape: Shape) -> Shape | None:
        """Return the shape of the input."""
        return shape

    def macs(self, shape: Shape) -> int:
        """Return 0: nothing is multiplied."""
        return 0

    def parameters(self, shape: Shape) -> int:
        """Return 0: there are no weights."""
        return 0

    def modules(self, shape: Shape) -> list[nn.Module]:
        """Return the dropout module."""
        from optuna_trlhpo.layers.blocks import SeededDropout

        return [SeededDropout(self.probability, channels=False)]


class MetaQNNSpace:
    """The networks that MetaQNN searches.

    ==================  ======================================================================================
    convolution         64, 128, 256 or 512 filters of 1x1, 3x3 or 5x5, padded, with a stride of 1 and ReLU
    max pooling         window and stride 5 and 3, 3 and 2, or 2 and 2; behind a convolution only
    fully connected     512, 256 or 128 neurons with ReLU; at most two, of which the second is not wider; on
                        images below 8x8
    end                 at any point: the classifier, directly or behind global average pooling
    dropout             behind every second layer, not chosen: the i-th of n has the probability i / 2n
    ==================  ======================================================================================

    A window is smaller than the smallest image of the bucket (8, 4, 1) that the image is in, as in the
    authors' code. So the choices at a point depend on the published state alone (see `MetaQNNSampler`). A
    network may have no layer: the classifier alone.

    Each layer is one categorical parameter. Optuna forbids a name to have two sets of choices, so the name
    has what they depend on: ``layer3_metaqnn_large_conv`` is the third layer, on an image of at least 8x8
    behind a convolution.

    Source: Baker, Gupta, Naik, Raskar, "Designing Neural Network Architectures using Reinforcement Learning",
    ICLR 2017 (arXiv 1611.02167), section 4 and table 1. The authors' code has further dropout layers, one
    behind each fully connected layer.

    Args:
        input_shape: Shape ``(channels, height, width)`` of one image.
        max_layers: Largest number of layers, without dropout and global pooling; 12 in the paper.

    Raises:
        ValueError: If an argument is out of range.

    Examples:
        >>> import optuna
        >>> from optuna_trlhpo.cnn import build_network
        >>> space = MetaQNNSpace(input_shape=(1, 28, 28))
        >>> study = optuna.create_study(direction="maximize")
        >>> study.enqueue_trial(
        ...     {"layer1_metaqnn_large_start": "PaddedConv(64,3)", "layer2_metaqnn_large_conv": "end"}
        ... )
        >>> network = space.suggest(study.ask())
        >>> build_network(network, space.input_shape, num_classes=10)
        Sequential(
          (0): Conv2d(1, 64, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
          (1): ReLU()
          (2): Flatten(start_dim=1, end_dim=-1)
          (3): Linear(in_features=50176, out_features=10, bias=True)
        )
    """

    def __init__(self, *, input_shape: Shape = (1, 28, 28), max_layers: int = 12) -> None:
        is_image = isinstance(input_shape, Sequence) and len(input_shape) == 3
        if not is_image or not all(is_integer(size, least=1) for size in input_shape):
            raise ValueError(
                f"input_shape is {input_shape!r}; it must be three positive integers, (channels, height, "
                "width), such as (1, 28, 28)"
            )
        check_integer("max_layers", max_layers, least=1)
        if max_layers > 2 * _MOST_DROPOUTS:
            raise ValueError(f"max_layers is {max_layers}; it must be at most {2 * _MOST_DROPOUTS}")
        self.input_shape = tuple(int(size) for size in input_shape)
        self.max_layers = int(max_layers)

    def suggest(self, trial: BaseTrial) -> Network:
        """Ask ``trial`` for a network, layer by layer, and return its layers with the dropout layers.

        Args:
            trial: A running trial, or a finished one, whose network is returned.

        Raises:
            ValueError: If a finished or fixed trial has no network of this space.
        """
        layers: Network = ()
        shape = self.input_shape
        ends_pooled = False
        while len(layers) < self.max_layers:
            point, choices = _choices(layers, shape)
            if not choices:
                break
            name = f"layer{len(layers) + 1}_metaqnn_{point}"
            chosen = trial.suggest_categorical(name, [_END, *choices])
            ends_pooled = chosen == _GLOBAL_POOL
            if chosen == _END or ends_pooled:
                break
            layers = (*layers, choices[chosen])
            behind = layers[-1].output_shape(shape)
            assert behind is not None
            shape = behind
        return (*with_dropout(layers), GlobalPool()) if ends_pooled else with_dropout(layers)

    def from_params(self, params: Mapping[str, Any]) -> Network:
        """Return the network that a trial's ``params`` encode. Unrelated parameters are ignored.

        Raises:
            ValueError: If a parameter is missing, or is none of the choices at its point.
        """
        return self.suggest(FixedTrial(dict(params)))


def _choices(layers: Network, shape: Shape) -> tuple[str, dict[str, Layer]]:
    """Return what may follow ``layers`` but the end, by its notation, and the name of the point.

    It is empty where the network must end.
    """
    last = layers[-1] if layers else None
    following: list[Layer] = []
    if isinstance(last, FCL):
        if sum(isinstance(layer, FCL) for layer in layers) < MOST_DENSE:
            following += [FCL(n, "relu", True) for n in NEURONS if n <= last.neurons]
        return f"dense_{last.neurons}", {str(layer): layer for layer in following}
    bucket = bucket_of(min(shape[1:]))
    following += [PaddedConv(filters, kernel) for filters in FILTERS for kernel in KERNELS if kernel < bucket]
    if isinstance(last, PaddedConv):
        following += [MaxPool(window, stride, 0) for window, stride in POOLS if window < bucket]
    if bucket <= _LARGEST_DENSE_BUCKET:
        following += [FCL(n, "relu", True) for n in NEURONS]
    behind = {PaddedConv: "conv", MaxPool: "pool"}.get(type(last), "start")
    following.append(GlobalPool())
    return f"{_BUCKETS[bucket]}_{behind}", {str(layer): layer for layer in following}


def with_dropout(layers: Network) -> Network:
    """Return a network with a dropout layer behind every second layer.

    Examples:
        >>> network = with_dropout((PaddedConv(64, 3), MaxPool(3, 2, 0), PaddedConv(64, 1), GlobalPool()))
        >>> [layer.probability for layer in network if isinstance(layer, RisingDropout)]
        [0.25, 0.5]
    """
    number = len(layers) // 2
    network: Network = ()
    for k, layer in enumerate(layers, start=1):
        network = (*network, layer)
        if k % 2 == 0:
            network = (*network, RisingDropout(k // 2, number))
    return network
