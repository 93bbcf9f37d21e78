"""Conversion of layers to a PyTorch network.

Nothing is trained here. The caller seeds the initial weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from optuna_trlhpo.layers import ACTIVATIONS, Conv, Layer, Shape, activation, flatten


class IllegalNetworkError(ValueError):
    """A layer does not fit at its position. The message names the layer and its input shape."""


def build_network(
    layers: Sequence[Layer],
    input_shape: Shape,
    num_classes: int,
    *,
    conv_activation: str = "relu",
) -> nn.Sequential:
    """Build the network of the layers and a classifier, one linear layer to ``num_classes`` logits.

    Args:
        layers: Layers from first to last, without the classifier.
        input_shape: Shape ``(channels, height, width)`` of one image, or the shape of another input.
        num_classes: Number of outputs of the classifier.
        conv_activation: Activation of Table I that follows each convolution of that table. The paper uses
            "none", with which two consecutive convolutions are linear together.

    Returns:
        A module from images ``[B, C, H, W]`` to logits ``[B, num_classes]``.

    Raises:
        IllegalNetworkError: If a layer does not accept its input shape.
        ValueError: If ``conv_activation`` is unknown.

    Examples:
        >>> from optuna_trlhpo.layers import parse
        >>> build_network(parse("Conv(8,3,1) > MaxPool(2,2,0)"), (1, 8, 8), 10)
        Sequential(
          (0): Conv2d(1, 8, kernel_size=(3, 3), stride=(1, 1))
          (1): ReLU()
          (2): MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)
          (3): Flatten(start_dim=1, end_dim=-1)
          (4): Linear(in_features=72, out_features=10, bias=True)
        )
    """
    check_activation("conv_activation", conv_activation)
    modules: list[nn.Module] = []
    shape: Shape = input_shape
    for k, layer in enumerate(layers):
        out = output_shape_of(layers[: k + 1], input_shape)
        modules += layer_modules(layer, shape, conv_activation=conv_activation)
        shape = out
    return nn.Sequential(*modules, *classifier_modules(shape, num_classes))


def output_shape_of(layers: Sequence[Layer], input_shape: Shape) -> Shape:
    """The shape behind the last layer.

    Raises:
        IllegalNetworkError: If a layer does not accept its input shape.
    """
    shape: Shape = input_shape
    for k, layer in enumerate(layers, start=1):
        out = layer.output_shape(shape)
        if out is None:
            raise IllegalNetworkError(f"layer {k}, {layer}, does not fit on shape {shape}")
        shape = out
    return shape


def layer_modules(layer: Layer, shape: Shape, *, conv_activation: str = "relu") -> list[nn.Module]:
    """Return the modules of a layer with inputs of ``shape``.

    A convolution of Table I has no activation of its own, so ``conv_activation`` follows it.
    """
    modules = layer.modules(shape)
    return [*modules, *activation(conv_activation)] if isinstance(layer, Conv) else modules


def classifier_modules(shape: Shape, num_classes: int) -> list[nn.Module]:
    """Return the modules of the classifier that ends every network: flattening and a linear layer."""
    return [*flatten(shape), nn.Linear(math.prod(shape), num_classes)]


def check_activation(what: str, name: str) -> None:
    """Raise a ``ValueError`` unless ``name`` is an activation of Table I."""
    if name not in ACTIVATIONS:
        raise ValueError(f"{what} is {name!r}; it must be one of {', '.join(ACTIVATIONS)}")
