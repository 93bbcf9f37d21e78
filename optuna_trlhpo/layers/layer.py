"""The base class of all layers, and the definition of a network.

A *network* is a tuple of layers, first to last. The classifier (one linear layer) at the end of every network
is not part of it.

Notation: shapes have no batch axis: ``(channels, height, width)``, or ``(features,)`` behind a fully
connected layer. MACs are multiply-accumulate operations for one image.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, ClassVar

from optuna_trlhpo.layers.counting import count_macs
from optuna_trlhpo.layers.hyperparameter import Hyperparameter
from optuna_trlhpo.layers.model_size import bytes_of_modules

if TYPE_CHECKING:
    from torch import nn


# PyTorch is imported only where a layer becomes a module: a search does not need it.

ACTION_SLOTS = 4
"""A: the number of actions in [0, 1] that encode one layer (section IV of the paper)."""

Shape = tuple[int, ...]


class Layer:
    """Base class of a kind of layer: its notation, hyper-parameters, output shape and PyTorch modules.

    A subclass is a frozen dataclass whose fields are its hyper-parameters, in order (at most three). It
    belongs to a `Vocabulary`. By default its costs are counted on its modules; a subclass may compute them
    itself.

    Examples:
        >>> from dataclasses import dataclass
        >>> from optuna_trlhpo.layers import TABLE_I, Conv, Hyperparameter, Vocabulary, parse
        >>> @dataclass(frozen=True)
        ... class Squash(Layer):  # a 1x1 convolution, followed by tanh
        ...     kind, prefix = "Squash", "squash"
        ...     hyperparameters = (Hyperparameter("filters", (8, 16, 24)),)
        ...     filters: int
        ...     def output_shape(self, shape):
        ...         return (self.filters, *shape[1:]) if len(shape) == 3 else None
        ...     def modules(self, shape):
        ...         from torch import nn
        ...         return [nn.Conv2d(shape[0], self.filters, 1), nn.Tanh()]
        >>> Squash(8).parameters((3, 5, 5)), Squash(8).macs((3, 5, 5))
        (32, 600)
        >>> mine = Vocabulary("mine", (*TABLE_I.kinds, Squash), first=(Conv,))
        >>> parse("Conv(8,3,1) > Squash(16)")[1]
        Squash(filters=16)
    """

    kind: ClassVar[str]
    """Name of the kind in text, such as ``"Conv"``."""
    prefix: ClassVar[str]
    """Prefix of its parameters' names, after ``layer<k>_``, such as ``"conv"``."""
    hyperparameters: ClassVar[tuple[Hyperparameter, ...]]
    repeatable: ClassVar[bool] = True
    """Whether a layer may follow one of the same kind. A second normalisation, for example, does nothing."""

    quantizable: ClassVar[bool] = True
    """Whether onnxruntime quantises its weights and activations to 8-bit integers."""

    def __init__(self, *values: Any) -> None:  # signature of the dataclasses, for the type checker
        raise NotImplementedError

    def output_shape(self, shape: Shape) -> Shape | None:
        """Return the output shape for an input of ``shape``, or None if the layer cannot be applied to it."""
        raise NotImplementedError

    def modules(self, shape: Shape) -> list[nn.Module]:
        """Return the PyTorch modules, to be called in sequence, for an input of ``shape``."""
        raise NotImplementedError

    def macs(self, shape: Shape) -> int:
        """Return the multiply-accumulate operations for one input of ``shape``."""
        return _counted(self, shape)[0]

    def parameters(self, shape: Shape) -> int:
        """Return the number of weights and biases for an input of ``shape``."""
        return _counted(self, shape)[1]

    def model_bytes(self, shape: Shape, quantize: str | None = None) -> int:
        """Return at most how many bytes the layer takes in an ONNX file, for an input of ``shape``.

        By default it is estimated from the modules.

        Args:
            shape: Shape of its input.
            quantize: ``"int8"``, or None for 32-bit floats.
        """
        return _counted_bytes(self, shape, quantize)

    @property
    def values(self) -> tuple[Any, ...]:
        """Values of its hyper-parameters, in order."""
        return tuple(getattr(self, hp.name) for hp in self.hyperparameters)

    def __str__(self) -> str:
        written = [hp.write(value) for hp, value in zip(self.hyperparameters, self.values, strict=True)]
        return f"{self.kind}({','.join(written)})"


@functools.lru_cache(maxsize=65536)
def _counted(layer: Layer, shape: Shape) -> tuple[int, int]:
    """Return the MACs and parameters of a layer's modules, as PyTorch counts them."""
    import torch
    from torch import nn

    with torch.device("meta"):  # shapes alone are worked out
        body = nn.Sequential(*layer.modules(shape))
    return count_macs(body, shape), sum(parameter.numel() for parameter in body.parameters())


@functools.lru_cache(maxsize=65536)
def _counted_bytes(layer: Layer, shape: Shape, quantize: str | None) -> int:
    """Return the bytes of a layer's modules in an ONNX file."""
    import torch

    with torch.device("meta"):
        return bytes_of_modules(layer.modules(shape), quantize)


Network = tuple[Layer, ...]
