"""Kinds of layer beyond Table I, and the vocabularies `CNN`, `MLP` and `LSTM` that contain them.

Each kind is one class, and so is a custom kind (see `layers.Layer`). These classes compute their MACs and
parameters in closed form, which makes the masks of a space with limits fast. For a kind that does not,
PyTorch counts them.

Notation: shapes have no batch axis: ``(channels, height, width)`` for images, ``(steps, features)`` for
sequences, ``(features,)`` for vectors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna_trlhpo.layers.hyperparameter import Hyperparameter
from optuna_trlhpo.layers.layer import Layer, Shape
from optuna_trlhpo.layers.model_size import bytes_of_layer
from optuna_trlhpo.layers.table1 import FCL, Conv, MaxPool
from optuna_trlhpo.layers.vocabulary import Vocabulary

if TYPE_CHECKING:
    from torch import nn

_FILTERS, _KERNEL, _STRIDE = Conv.hyperparameters
_STRIDES = Hyperparameter("stride", (1, 2))
_RATES = Hyperparameter("percent", (10, 20, 30, 40, 50))
_UNITS = Hyperparameter("units", tuple(range(8, 129, 8)))


def _same(shape: Shape, filters: int, stride: int) -> Shape | None:
    """Return the output shape of a convolution with "same" padding.

    At a stride of 1 it preserves the size of the image. None if the input is not an image.
    """
    if len(shape) != 3:
        return None
    return (filters, *((size - 1) // stride + 1 for size in shape[1:]))


def _pixels(layer: Layer, shape: Shape) -> int:
    """Return the number of pixels of the layer's output image."""
    out = layer.output_shape(shape)
    assert out is not None
    return math.prod(out[1:])


class _Free(Layer):
    """A kind without multiplications and weights."""

    def macs(self, shape: Shape) -> int:
        """Return 0: nothing is multiplied."""
        return 0

    def parameters(self, shape: Shape) -> int:
        """Return 0: there are no weights."""
        return 0

    def model_bytes(self, shape: Shape, quantize: str | None = None) -> int:
        """Return the bytes in an ONNX file, at most."""
        return bytes_of_layer(0, [], quantize)


@dataclass(frozen=True)
class SameConv(Layer):
    """A convolution with "same" padding, batch normalisation and ReLU.

    A stride of 1 preserves the size of the image.
    """

    kind = "SameConv"
    prefix = "sameconv"
    hyperparameters = (_FILTERS, _KERNEL, _STRIDE)

    filters: int
    kernel: int
    stride: int

    def output_shape(self, shape: Shape) -> Shape | None:
        """Return the shape of the output image; None if the input is not an image."""
        return _same(shape, self.filters, self.stride)

    def modules(self, shape: Shape) -> list[nn.Module]:
        """Return the convolution, batch normalisation and ReLU."""
        from torch import nn

        conv = nn.Conv2d(
            shape[0], self.filters, self.kernel, self.stride, padding=self.kernel // 2, bias=False
        )
        return [conv, nn.BatchNorm2d(self.filters), nn.ReLU()]

    def macs(self, shape: Shape) -> int:
        """Return the MACs of the convolution."""
        return _pixels(self, shape) * self.filters * shape[0] * self.kernel**2

    def parameters(self, shape: Shape) -> int:
        """Return the weights of the convolution, and two numbers per channel of the normalisation."""
        return self.filters * (shape[0] * self.kernel**2 + 2)

    def model_bytes(self, shape: Shape, quantize: str | None = None) -> int:
        """Return the bytes in an ONNX file, at most."""
        return bytes_of_layer(self.parameters(shape), [self.filters], quantize)


@dataclass(frozen=True)
class SeparableConv(Layer):
    """A depthwise and a pointwise convolution, each with batch normalisation and ReLU.

    Source: Howard et al., MobileNets, 2017.
    """

    kind = "SeparableConv"
    prefix = "sepconv"
    hyperparameters = (_FILTERS, _KERNEL, _STRIDE)

    filters: int
    kernel: int
    stride: int

    def output_shape(self, shape: Shape) -> Shape | None:
        """Return the shape of the output image; None if the input is not an image."""
        return _same(shape, self.filters, self.stride)

    def modules(self, shape: Shape) -> list[nn.Module]:
        """Return the two convolutions, each with batch normalisation and ReLU."""
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
        """Return the MACs of both convolutions."""
        return _pixels(self, shape) * shape[0] * (self.kernel**2 + self.filters)

    def parameters(self, shape: Shape) -> int:
        """Return the parameters of both convolutions and both normalisations."""
        return shape[0] * (self.kernel**2 + 2 + self.filters) + 2 * self.filters

    def model_bytes(self, shape: Shape, quantize: str | None = None) -> int:
        """Return the bytes in an ONNX file, at most."""
        return bytes_of_layer(self.parameters(shape), [shape[0], self.filters], quantize)


@dataclass(frozen=True)
class Residual(Layer):
    """A basic residual block: two convolutions with batch normalisation, and a shortcut.

    Where the shape changes, the shortcut is a 1x1 convolution (He et al., 2016).
    """

    kind = "Residual"
    prefix = "residual"
    hyperparameters = (_FILTERS, Hyperparameter("kernel", (3, 5)), _STRIDES)

    filters: int
    kernel: int
    stride: int

    def output_shape(self, shape: Shape) -> Shape | None:
        """Return the shape of the output image; None if the input is not an image."""
        return _same(shape, self.filters, self.stride)

    def modules(self, shape: Shape) -> list[nn.Module]:
        """Return the residual block."""
        from optuna_trlhpo.layers.blocks import ResidualBlock

        return [ResidualBlock(shape[0], self.filters, self.kernel, self.stride)]

    def macs(self, shape: Shape) -> int:
        """Return the MACs of both convolutions and of the shortcut."""
        past = shape[0] if self.stride != 1 or shape[0] != self.filters else 0
        return _pixels(self, shape) * self.filters * ((shape[0] + self.filters) * self.kernel**2 + past)

    def parameters(self, shape: Shape) -> int:
        """Return the parameters of both convolutions, of the shortcut and of the normalisations."""
        past = shape[0] + 2 if self.stride != 1 or shape[0] != self.filters else 0
        return self.filters * ((shape[0] + self.filters) * self.kernel**2 + 4 + past)

    def model_bytes(self, shape: Shape, quantize: str | None = None) -> int:
        """Return the bytes in an ONNX file, at most."""
        convolutions = 2 if self.stride == 1 and shape[0] == self.filters else 3
        return bytes_of_layer(self.parameters(shape), [self.filters] * convolutions, quantize)


@dataclass(frozen=True)
class AvgPool(_Free):
    """Average pooling, with the hyper-parameters of max pooling."""

    kind = "AvgPool"
    prefix = "avgpool"
    hyperparameters = MaxPool.hyperparameters

    kernel: int
    stride: int
    padding: int

    def output_shape(self, shape: Shape) -> Shape | None:
        """Return the shape of the pooled image; None where the window does not fit."""
        return MaxPool(self.kernel, self.stride, self.padding).output_shape(shape)

    def modules(self, shape: Shape) -> list[nn.Module]:
        """Return the pooling module."""
        from torch import nn

        return [nn.AvgPool2d(self.kernel, self.stride, self.padding)]


@dataclass(frozen=True)
class GlobalPool(_Free):
    """Global average pooling: the mean of each channel of an image, or of each feature of a sequence."""

    kind = "GlobalPool"
    prefix = "globalpool"
    hyperparameters = ()

    def output_shape(self, shape: Shape) -> Shape | None:
        """Return one number per channel or feature; None if the input is neither image nor sequence."""
        return {3: shape[:1], 2: shape[1:]}.get(len(shape))

    def modules(self, shape: Shape) -> list[nn.Module]:
        """Return the mean over the pixels or the steps."""
        from optuna_trlhpo.layers.blocks import Mean

        return [Mean((2, 3) if len(shape) == 3 else (1,))]


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Batch normalisation as a layer of its own, of an image's channels or of features."""

    kind = "BatchNorm"
    prefix = "batchnorm"
    hyperparameters = ()
    repeatable = False

    def output_shape(self, shape: Shape) -> Shape | None:
        """Return the shape of the input; None for a sequence."""
        return shape if len(shape) in (1, 3) else None

    def modules(self, shape: Shape) -> list[nn.Module]:
        """Return the normalisation module."""
        from torch import nn

        return [nn.BatchNorm2d(shape[0]) if len(shape) == 3 else nn.BatchNorm1d(shape[0])]

    def macs(self, shape: Shape) -> int:
        """Return 0: normalisation is not counted, as in the other kinds."""
        return 0

    def parameters(self, shape: Shape) -> int:
        """Return two numbers per channel or feature."""
        return 2 * shape[0]

    def model_bytes(self, shape: Shape, quantize: str | None = None) -> int:
        """Return the bytes in an ONNX file, at most."""
        return bytes_of_layer(self.parameters(shape), [shape[0]], quantize)


@dataclass(frozen=True)
class Dropout(_Free):
    """Dropout with a probability in per cent, of whole channels of an image or of single features."""

    kind = "Dropout"
    prefix = "dropout"
    hyperparameters = (_RATES,)
    repeatable = False

    percent: int

    def output_shape(self, shape: Shape) -> Shape | None:
        """Return the shape of the input."""
        return shape

    def modules(self, shape: Shape) -> list[nn.Module]:
        """Return the dropout module."""
        from optuna_trlhpo.layers import blocks

        return [blocks.SeededDropout(self.percent / 100, channels=len(shape) == 3)]


@dataclass(frozen=True)
class Recurrent(Layer):
    """An LSTM that returns its hidden state at every step, optionally bidirectional."""

    kind = "LSTM"
    prefix = "lstm"
    hyperparameters = (_UNITS, Hyperparameter("directions", (1, 2)))
    quantizable = False

    units: int
    directions: int

    def output_shape(self, shape: Shape) -> Shape | None:
        """Return the shape of the sequence of hidden states; None if the input is not a sequence."""
        return (shape[0], self.units * self.directions) if len(shape) == 2 else None

    def macs(self, shape: Shape) -> int:
        """Return the MACs of the four gates at all steps."""
        steps, features = shape
        return self.directions * steps * 4 * self.units * (features + self.units)

    def parameters(self, shape: Shape) -> int:
        """Return the parameters of the four gates, which have two biases each, as in PyTorch."""
        return self.directions * 4 * self.units * (shape[1] + self.units + 2)

    def modules(self, shape: Shape) -> list[nn.Module]:
        """Return the LSTM."""
        from optuna_trlhpo.layers.blocks import States

        return [States(shape[1], self.units, bidirectional=self.directions == 2)]


CNN = Vocabulary(
    "cnn",
    (Conv, SameConv, SeparableConv, Residual, MaxPool, AvgPool, BatchNorm, Dropout, GlobalPool, FCL),
    first=(Conv, SameConv, SeparableConv, Residual),
)
"""Layers for images: Table I and later kinds."""
MLP = Vocabulary("mlp", (FCL, BatchNorm, Dropout), first=(FCL,), axes=1)
"""Fully connected layers, for tabular data."""
LSTM = Vocabulary("lstm", (Recurrent, Dropout, GlobalPool, FCL), first=(Recurrent,), axes=2)
"""Recurrent layers, then fully connected ones, for sequences."""
