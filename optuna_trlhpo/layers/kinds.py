"""Kinds of layer beyond Table I, and the vocabularies that have them: `CNN`, `MLP` and `LSTM`.

A kind is one class; one of your own looks the same (see `layers.Layer`). That these say themselves how many
MACs and parameters they take makes the masks of a space with limits quick; a kind that does not has them
counted.

Notation: shapes without the batch axis, ``(channels, height, width)`` of images, ``(steps, features)`` of
sequences, ``(features,)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna_trlhpo.layers.hyperparameter import Hyperparameter
from optuna_trlhpo.layers.layer import Layer, Shape
from optuna_trlhpo.layers.table1 import FCL, Conv, MaxPool
from optuna_trlhpo.layers.vocabulary import Vocabulary

if TYPE_CHECKING:
    from torch import nn

_FILTERS, _KERNEL, _STRIDE = Conv.hyperparameters
_STRIDES = Hyperparameter("stride", (1, 2))
_RATES = Hyperparameter("percent", (10, 20, 30, 40, 50))
_UNITS = Hyperparameter("units", tuple(range(8, 129, 8)))


def _same(shape: Shape, filters: int, stride: int) -> Shape | None:
    """The shape behind a convolution that is padded so that, at a stride of 1, the image keeps its size."""
    if len(shape) != 3:
        return None
    return (filters, *((size - 1) // stride + 1 for size in shape[1:]))


def _pixels(layer: Layer, shape: Shape) -> int:
    """Of an image behind the layer."""
    out = layer.output_shape(shape)
    assert out is not None
    return math.prod(out[1:])


class _Free(Layer):
    """A kind that multiplies nothing and has no weights."""

    def macs(self, shape: Shape) -> int:
        return 0

    def parameters(self, shape: Shape) -> int:
        return 0


@dataclass(frozen=True)
class SameConv(Layer):
    """A convolution with padding, batch normalisation and ReLU: an image keeps its size at a stride of 1."""

    kind = "SameConv"
    prefix = "sameconv"
    hyperparameters = (_FILTERS, _KERNEL, _STRIDE)

    filters: int
    kernel: int
    stride: int

    def output_shape(self, shape: Shape) -> Shape | None:
        return _same(shape, self.filters, self.stride)

    def modules(self, shape: Shape) -> list[nn.Module]:
        from torch import nn

        conv = nn.Conv2d(
            shape[0], self.filters, self.kernel, self.stride, padding=self.kernel // 2, bias=False
        )
        return [conv, nn.BatchNorm2d(self.filters), nn.ReLU()]

    def macs(self, shape: Shape) -> int:
        return _pixels(self, shape) * self.filters * shape[0] * self.kernel**2

    def parameters(self, shape: Shape) -> int:
        return self.filters * (shape[0] * self.kernel**2 + 2)


@dataclass(frozen=True)
class SeparableConv(Layer):
    """A depthwise convolution, then a pointwise one, each with batch normalisation and ReLU (Howard et al.,
    MobileNets, 2017)."""

    kind = "SeparableConv"
    prefix = "sepconv"
    hyperparameters = (_FILTERS, _KERNEL, _STRIDE)

    filters: int
    kernel: int
    stride: int

    def output_shape(self, shape: Shape) -> Shape | None:
        return _same(shape, self.filters, self.stride)

    def modules(self, shape: Shape) -> list[nn.Module]:
        from torch import nn

        channels, padding = shape[0], self.kernel // 2
        return [
            nn.Conv2d(
                channels, channels, self.kernel, self.stride, padding=padding, groups=channels, bias=False
            ),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, self.filters, 1, bias=False),
            nn.BatchNorm2d(self.filters),
            nn.ReLU(),
        ]

    def macs(self, shape: Shape) -> int:
        return _pixels(self, shape) * shape[0] * (self.kernel**2 + self.filters)

    def parameters(self, shape: Shape) -> int:
        return shape[0] * (self.kernel**2 + 2 + self.filters) + 2 * self.filters


@dataclass(frozen=True)
class Residual(Layer):
    """A basic residual block: two convolutions with batch normalisation, and a way past them, through a 1x1
    convolution where the shape changes (He et al., 2016)."""

    kind = "Residual"
    prefix = "residual"
    hyperparameters = (_FILTERS, Hyperparameter("kernel", (3, 5)), _STRIDES)

    filters: int
    kernel: int
    stride: int

    def output_shape(self, shape: Shape) -> Shape | None:
        return _same(shape, self.filters, self.stride)

    def modules(self, shape: Shape) -> list[nn.Module]:
        from optuna_trlhpo.layers.blocks import ResidualBlock

        return [ResidualBlock(shape[0], self.filters, self.kernel, self.stride)]

    def macs(self, shape: Shape) -> int:
        past = shape[0] if self.stride != 1 or shape[0] != self.filters else 0
        return _pixels(self, shape) * self.filters * ((shape[0] + self.filters) * self.kernel**2 + past)

    def parameters(self, shape: Shape) -> int:
        past = shape[0] + 2 if self.stride != 1 or shape[0] != self.filters else 0
        return self.filters * ((shape[0] + self.filters) * self.kernel**2 + 4 + past)


@dataclass(frozen=True)
class AvgPool(_Free):
    """Average pooling, with the hyper-parameters of maximum pooling."""

    kind = "AvgPool"
    prefix = "avgpool"
    hyperparameters = MaxPool.hyperparameters

    kernel: int
    stride: int
    padding: int

    def output_shape(self, shape: Shape) -> Shape | None:
        return MaxPool(self.kernel, self.stride, self.padding).output_shape(shape)

    def modules(self, shape: Shape) -> list[nn.Module]:
        from torch import nn

        return [nn.AvgPool2d(self.kernel, self.stride, self.padding)]


@dataclass(frozen=True)
class GlobalPool(_Free):
    """The mean of every channel over the image, or of every feature over the sequence."""

    kind = "GlobalPool"
    prefix = "globalpool"
    hyperparameters = ()

    def output_shape(self, shape: Shape) -> Shape | None:
        return {3: shape[:1], 2: shape[1:]}.get(len(shape))

    def modules(self, shape: Shape) -> list[nn.Module]:
        from optuna_trlhpo.layers.blocks import Mean

        return [Mean((2, 3) if len(shape) == 3 else (1,))]


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Batch normalisation on its own, of the channels of an image or of features."""

    kind = "BatchNorm"
    prefix = "batchnorm"
    hyperparameters = ()

    def output_shape(self, shape: Shape) -> Shape | None:
        return shape if len(shape) in (1, 3) else None

    def modules(self, shape: Shape) -> list[nn.Module]:
        from torch import nn

        return [nn.BatchNorm2d(shape[0]) if len(shape) == 3 else nn.BatchNorm1d(shape[0])]

    def macs(self, shape: Shape) -> int:
        return 0

    def parameters(self, shape: Shape) -> int:
        return 2 * shape[0]


@dataclass(frozen=True)
class Dropout(_Free):
    """Dropout of so many per cent: of whole channels of an image, else of single numbers."""

    kind = "Dropout"
    prefix = "dropout"
    hyperparameters = (_RATES,)

    percent: int

    def output_shape(self, shape: Shape) -> Shape | None:
        return shape

    def modules(self, shape: Shape) -> list[nn.Module]:
        from optuna_trlhpo.layers import blocks

        return [blocks.SeededDropout(self.percent / 100, channels=len(shape) == 3)]


@dataclass(frozen=True)
class Recurrent(Layer):
    """An LSTM that gives its state at every step, in both directions if it is to."""

    kind = "LSTM"
    prefix = "lstm"
    hyperparameters = (_UNITS, Hyperparameter("directions", (1, 2)))

    units: int
    directions: int

    def output_shape(self, shape: Shape) -> Shape | None:
        return (shape[0], self.units * self.directions) if len(shape) == 2 else None

    def macs(self, shape: Shape) -> int:
        steps, features = shape
        return self.directions * steps * 4 * self.units * (features + self.units)

    def parameters(self, shape: Shape) -> int:
        return self.directions * 4 * self.units * (shape[1] + self.units + 2)

    def modules(self, shape: Shape) -> list[nn.Module]:
        from optuna_trlhpo.layers.blocks import States

        return [States(shape[1], self.units, bidirectional=self.directions == 2)]


CNN = Vocabulary(
    "cnn",
    (Conv, SameConv, SeparableConv, Residual, MaxPool, AvgPool, BatchNorm, Dropout, GlobalPool, FCL),
    first=(Conv, SameConv, SeparableConv, Residual),
)
"""Table I and what came after it: for images."""
MLP = Vocabulary("mlp", (FCL, BatchNorm, Dropout), first=(FCL,), axes=1)
"""Fully connected layers: for tables."""
LSTM = Vocabulary("lstm", (Recurrent, Dropout, GlobalPool, FCL), first=(Recurrent,), axes=2)
"""Recurrent layers, then fully connected ones: for sequences."""
