"""Size in bytes of a layer in an ONNX file, as 32-bit floats or as 8-bit integers, without writing the file.

Every function but `bytes_of_modules`, which estimates, returns an upper bound of what `export_network` of
`optuna_trlhpo.cnn` writes: the file of a network is never larger than the sum over its layers, the classifier
and the frame. The constants were measured on written files, and a test compares both on random networks.

Notation: C output channels (of a convolution) or features (of a matrix).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from optuna_trlhpo.layers.layer import Shape

QUANTIZED = ("int8",)
"""Number formats that a network can be quantised to. Without one its numbers are 32-bit floats."""

_LAYER = {None: 230, "int8": 230}
"""Bytes of a layer beside its matrices: its operations, and its text in the metadata."""
_UNKNOWN = {None: 1000, "int8": 2200}
"""Bytes of a module that computes what is not known, beside its numbers: several operations."""
_MATRIX = {None: 260, "int8": 640}
"""Bytes of a convolution or a matrix beside its numbers: the operation, and in int8 those that scale."""
_CHANNEL = {None: 8, "int8": 17}
"""Bytes of an output channel beside its weights. In int8: three scales and offsets, and a bias of 32 bits."""
_SWAPS = {None: 300, "int8": 300}
"""Bytes of the two exchanges of axes around a layer."""
_FRAME = {None: 1400, "int8": 1900}
"""Bytes of a file without layers."""
_FEATURE = 32
"""Bytes of the mean and the standard deviation of a channel or feature in the metadata."""


def number_bytes(quantize: str | None) -> int:
    """Return the size of a number in bytes.

    Examples:
        >>> number_bytes(None), number_bytes("int8")
        (4, 1)
    """
    return 4 if quantize is None else 1


def check_quantize(quantize: Any) -> None:
    """Raise a ``ValueError`` unless ``quantize`` is one of `QUANTIZED` or None."""
    if quantize is not None and quantize not in QUANTIZED:
        raise ValueError(f"quantize is {quantize!r}; it must be one of {', '.join(QUANTIZED)}, or None")


def bytes_of_layer(parameters: int, channels: Sequence[int], quantize: str | None) -> int:
    """Return the bytes of a layer.

    Args:
        parameters: Number of its weights and biases.
        channels: C of each of its convolutions, matrices and separate normalisations.
        quantize: One of `QUANTIZED`; None for 32-bit floats.

    Examples:
        >>> bytes_of_layer(80, [8], None), bytes_of_layer(80, [8], "int8")
        (874, 1086)
    """
    beside = _MATRIX[quantize] * len(channels) + _CHANNEL[quantize] * sum(channels)
    return number_bytes(quantize) * parameters + beside + _LAYER[quantize]


def bytes_of_swaps(quantize: str | None) -> int:
    """Return the bytes of an exchange of axes before a layer and of one behind it."""
    return _SWAPS[quantize]


def bytes_of_modules(modules: Sequence[nn.Module], quantize: str | None) -> int:
    """Return the bytes of a layer of any modules. Only convolutions and matrices are quantised.

    It is an estimate: a module may compute anything.
    """
    from torch import nn

    simple = (nn.Sequential, nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.Flatten, nn.Identity)
    total = _LAYER[quantize]
    for module in (part for whole in modules for part in whole.modules()):
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        numbers = sum(tensor.numel() for tensor in own)
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            total += bytes_of_layer(numbers, [len(module.weight)], quantize)
        else:
            total += 4 * numbers + (_LAYER if isinstance(module, simple) else _UNKNOWN)[quantize]
    return total


def bytes_of_classifier(shape: Shape, num_classes: int, quantize: str | None) -> int:
    """Return the bytes of the classifier behind a layer with outputs of ``shape``."""
    return bytes_of_layer((math.prod(shape) + 1) * num_classes, [num_classes], quantize)


def bytes_of_frame(input_shape: Shape, quantize: str | None) -> int:
    """Return the bytes of a file without layers, metadata included, for inputs of ``input_shape``."""
    features = input_shape[0] if len(input_shape) == 3 else input_shape[-1]
    return _FRAME[quantize] + _FEATURE * features
