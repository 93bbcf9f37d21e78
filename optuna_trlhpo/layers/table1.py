"""The layers of Table I of the paper: convolution, max pooling, fully connected."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna_trlhpo.layers.hyperparameter import Hyperparameter, integers
from optuna_trlhpo.layers.layer import Layer, Shape
from optuna_trlhpo.layers.model_size import bytes_of_layer
from optuna_trlhpo.layers.vocabulary import Vocabulary

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Conv(Layer):
    """A convolution without padding (Table I, "CNN") and without an activation."""

    kind = "Conv"
    prefix = "conv"
    hyperparameters = (
        integers("filters", 8, 128, 8),
        integers("kernel", 3, 7, 2),
        integers("stride", 1, 3),
    )

    filters: int
    kernel: int
    stride: int

    def output_shape(self, shape: Shape) -> Shape | None:
        """Return the shape of the output image; None if the kernel does not fit."""
        if len(shape) != 3 or min(shape[1:]) < self.kernel:
            return None
        return (self.filters, *((size - self.kernel) // self.stride + 1 for size in shape[1:]))

    def macs(self, shape: Shape) -> int:
        """Return the MACs of the convolution."""
        out = self.output_shape(shape)
        assert out is not None
        return math.prod(out) * shape[0] * self.kernel**2

    def parameters(self, shape: Shape) -> int:
        """Return the weights and biases of the convolution."""
        return self.filters * (shape[0] * self.kernel**2 + 1)

    def model_bytes(self, shape: Shape, quantize: str | None = None) -> int:
        """Return the bytes in an ONNX file, at most."""
        return bytes_of_layer(self.parameters(shape), [self.filters], quantize)

    def modules(self, shape: Shape) -> list[nn.Module]:
        """Return the convolution."""
        from torch import nn

        return [nn.Conv2d(shape[0], self.filters, self.kernel, self.stride)]


@dataclass(frozen=True)
class MaxPool(Layer):
    """Max pooling (Table I). Padding is at most half the kernel, as PyTorch requires."""

    kind = "MaxPool"
    prefix = "pool"
    hyperparameters = (
        integers("kernel", 2, 8),
        integers("stride", 1, 3),
        integers("padding", 0, 3),
    )

    kernel: int
    stride: int
    padding: int

    def output_shape(self, shape: Shape) -> Shape | None:
        """Return the shape of the pooled image; None where the window does not fit."""
        # Pooling a single pixel could only copy or pad it.
        if len(shape) != 3 or min(shape[1:]) < 2 or self.padding > self.kernel // 2:
            return None
        if min(shape[1:]) + 2 * self.padding < self.kernel:
            return None
        return (
            shape[0],
            *((size + 2 * self.padding - self.kernel) // self.stride + 1 for size in shape[1:]),
        )

    def macs(self, shape: Shape) -> int:
        """Return 0: nothing is multiplied."""
        return 0

    def parameters(self, shape: Shape) -> int:
        """Return 0: there are no weights."""
        return 0

    def model_bytes(self, shape: Shape, quantize: str | None = None) -> int:
        """Return the bytes in an ONNX file, at most."""
        return bytes_of_layer(0, [], quantize)

    def modules(self, shape: Shape) -> list[nn.Module]:
        """Return the pooling module."""
        from torch import nn

        return [nn.MaxPool2d(self.kernel, self.stride, self.padding)]


ACTIVATIONS = ("none", "relu", "leakyrelu", "tanh", "sigmoid", "elu", "gelu")
"""Activations of Table I."""


def activation(name: str) -> list[nn.Module]:
    """Return the module of an activation of Table I, with PyTorch's defaults; an empty list for ``"none"``.

    Raises:
        ValueError: For an unknown activation.
    """
    from torch import nn

    classes: dict[str, type[nn.Module]] = {
        "relu": nn.ReLU,
        "leakyrelu": nn.LeakyReLU,
        "tanh": nn.Tanh,
        "sigmoid": nn.Sigmoid,
        "elu": nn.ELU,
        "gelu": nn.GELU,
    }
    if name not in ACTIVATIONS:
        raise ValueError(f"activation {name!r} is not one of {', '.join(ACTIVATIONS)}")
    return [] if name == "none" else [classes[name]()]


def flatten(shape: Shape) -> list[nn.Module]:
    """Return a module that flattens an image or a sequence into features; an empty list for features."""
    from torch import nn

    return [nn.Flatten()] if len(shape) > 1 else []


@dataclass(frozen=True)
class FCL(Layer):
    """A fully connected layer with its activation (Table I). It flattens its input."""

    kind = "FCL"
    prefix = "fcl"
    hyperparameters = (
        integers("neurons", 16, 512, 8),
        Hyperparameter("activation", ACTIVATIONS, ACTIVATIONS),
        Hyperparameter("bias", (False, True), ("nobias", "bias")),
    )

    neurons: int
    activation: str
    bias: bool

    def output_shape(self, shape: Shape) -> Shape | None:
        """Return the number of neurons, for an input of any shape."""
        return (self.neurons,)

    def macs(self, shape: Shape) -> int:
        """Return one MAC per weight."""
        return math.prod(shape) * self.neurons

    def parameters(self, shape: Shape) -> int:
        """Return the number of weights, and of biases if it has them."""
        return self.neurons * (math.prod(shape) + self.bias)

    def model_bytes(self, shape: Shape, quantize: str | None = None) -> int:
        """Return the bytes in an ONNX file, at most."""
        return bytes_of_layer(self.parameters(shape), [self.neurons], quantize)

    def modules(self, shape: Shape) -> list[nn.Module]:
        """Return a flattening module where needed, the linear layer and the activation."""
        from torch import nn

        linear = nn.Linear(math.prod(shape), self.neurons, bias=self.bias)
        return [*flatten(shape), linear, *activation(self.activation)]


TABLE_I = Vocabulary("", (Conv, MaxPool, FCL), first=(Conv,))
"""The three kinds of layer of the paper, in the order of their bins."""
