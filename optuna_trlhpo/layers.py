"""Layers: what kinds there are, their hyper-parameters, and how one or many are written down.

A *network* is a tuple of layers, first to last; the classifier (one linear layer) that every network ends
with is not part of it. `space` says which networks there are.

Notation: S layers, shapes without the batch axis: ``(channels, height, width)``, or ``(features,)`` behind a
fully connected layer. MACs are multiply-accumulates for one image.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import BaseTrial

ACTION_SLOTS = 4
"""A: the numbers in [0, 1] that describe one layer (section IV of the paper)."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Hyperparameter:
    """One hyper-parameter of a layer: its name and every value it can take, in order.

    A value is encoded as the middle of its bin, ``(i + 0.5) / n``, and an action in [0, 1] is decoded by
    equal bins, ``min(int(a * n), n - 1)``, so that every value can be reached.

    Args:
        name: As it appears at the end of a parameter's name.
        values: All values, in order. Integers must be evenly spaced.
        labels: How the values of a categorical hyper-parameter are written in text; empty for an integer.

    Example:
        >>> Hyperparameter("kernel", (3, 5, 7)).decode(0.99)
        7
    """

    name: str
    values: tuple[Any, ...]
    labels: tuple[str, ...] = ()

    def encode(self, value: Any) -> float:
        """The action for ``value``, or for the nearest integer where there is no such value."""
        if value not in self.values and not self.labels:
            value = min(self.values, key=lambda other: abs(other - value))
        return (self.values.index(value) + 0.5) / len(self.values)

    def decode(self, action: float) -> Any:
        return self.values[min(int(action * len(self.values)), len(self.values) - 1)]

    def nearest(self, action: float, allowed: Sequence[Any]) -> Any:
        """The one of ``allowed`` that lies nearest to what ``action`` stands for."""
        wanted = self.values.index(self.decode(action))
        low, high = self.values.index(allowed[0]), self.values.index(allowed[-1])
        if high - low == len(allowed) - 1:  # without holes
            return self.values[min(max(wanted, low), high)]
        return min(allowed, key=lambda value: abs(self.values.index(value) - wanted))

    def write(self, value: Any) -> str:
        return self.labels[self.values.index(value)] if self.labels else str(value)

    def read(self, text: str) -> Any:
        """The value that is written as ``text``; a ``ValueError`` names what is allowed."""
        written = [self.write(value) for value in self.values]
        if text not in written:
            if len(written) > 8:
                written = [*written[:2], "...", written[-1]]
            raise ValueError(f"{self.name} {text!r} is not one of {', '.join(written)}")
        return self.values[written.index(text)]

    def suggest(self, trial: BaseTrial, name: str, allowed: Sequence[Any]) -> Any:
        """Ask ``trial`` for one of ``allowed``, which is a stretch of ``values``."""
        if self.labels:
            return trial.suggest_categorical(name, list(allowed))
        step = self.values[1] - self.values[0]
        value = trial.suggest_int(name, allowed[0], allowed[-1], step=step)
        if value not in allowed:  # Optuna takes an enqueued value as it is
            raise ValueError(
                f"parameter {name!r} is {value}; it must be {allowed[0]} to {allowed[-1]} in steps of {step}"
            )
        return value


def _integers(name: str, low: int, high: int, step: int = 1) -> Hyperparameter:
    return Hyperparameter(name, tuple(range(low, high + 1, step)))


class Layer:
    """A kind of layer: what it is called, its hyper-parameters, and what it does to a shape.

    A subclass is a frozen dataclass whose fields are its hyper-parameters, in order (at most three).
    """

    kind: ClassVar[str]
    """How it is written: ``"Conv"``."""
    prefix: ClassVar[str]
    """How its parameters' names begin behind ``layer<k>_``: ``"conv"``."""
    hyperparameters: ClassVar[tuple[Hyperparameter, ...]]

    def __init__(self, *values: Any) -> None:  # what the dataclasses make; said here for the type checker
        raise NotImplementedError

    def output_shape(self, shape: Shape) -> Shape | None:
        """The shape behind this layer, or None where it cannot stand on ``shape``."""
        raise NotImplementedError

    def macs(self, shape: Shape) -> int:
        """Multiply-accumulates for one image of ``shape``."""
        raise NotImplementedError

    @property
    def values(self) -> tuple[Any, ...]:
        """The values of its hyper-parameters, in order."""
        return tuple(getattr(self, hp.name) for hp in self.hyperparameters)

    def __str__(self) -> str:
        written = [hp.write(value) for hp, value in zip(self.hyperparameters, self.values, strict=True)]
        return f"{self.kind}({','.join(written)})"


@dataclass(frozen=True)
class Conv(Layer):
    """A convolution without padding (Table I, "CNN"). It has no activation of its own."""

    kind = "Conv"
    prefix = "conv"
    hyperparameters = (
        _integers("filters", 8, 128, 8),
        _integers("kernel", 3, 7, 2),
        _integers("stride", 1, 3),
    )

    filters: int
    kernel: int
    stride: int

    def output_shape(self, shape: Shape) -> Shape | None:
        if len(shape) != 3 or min(shape[1:]) < self.kernel:
            return None
        return (self.filters, *((size - self.kernel) // self.stride + 1 for size in shape[1:]))

    def macs(self, shape: Shape) -> int:
        out = self.output_shape(shape)
        assert out is not None
        return math.prod(out) * shape[0] * self.kernel**2


@dataclass(frozen=True)
class MaxPool(Layer):
    """Maximum pooling (Table I). Padding is at most half the kernel, as PyTorch demands."""

    kind = "MaxPool"
    prefix = "pool"
    hyperparameters = (
        _integers("kernel", 2, 8),
        _integers("stride", 1, 3),
        _integers("padding", 0, 3),
    )

    kernel: int
    stride: int
    padding: int

    def output_shape(self, shape: Shape) -> Shape | None:
        # On a single pixel pooling could only copy or pad.
        if len(shape) != 3 or min(shape[1:]) < 2 or self.padding > self.kernel // 2:
            return None
        if min(shape[1:]) + 2 * self.padding < self.kernel:
            return None
        return (
            shape[0],
            *((size + 2 * self.padding - self.kernel) // self.stride + 1 for size in shape[1:]),
        )

    def macs(self, shape: Shape) -> int:
        return 0


_ACTIVATIONS = ("none", "relu", "leakyrelu", "tanh", "sigmoid", "elu", "gelu")


@dataclass(frozen=True)
class FCL(Layer):
    """A fully connected layer with its activation (Table I); it flattens what comes before."""

    kind = "FCL"
    prefix = "fcl"
    hyperparameters = (
        _integers("neurons", 16, 512, 8),
        Hyperparameter("activation", _ACTIVATIONS, _ACTIVATIONS),
        Hyperparameter("bias", (False, True), ("nobias", "bias")),
    )

    neurons: int
    activation: str
    bias: bool

    def output_shape(self, shape: Shape) -> Shape | None:
        return (self.neurons,)

    def macs(self, shape: Shape) -> int:
        return math.prod(shape) * self.neurons


TABLE_I: tuple[type[Layer], ...] = (Conv, MaxPool, FCL)
"""The three kinds of layer of the paper, in the order of their bins."""

Network = tuple[Layer, ...]

KIND = Hyperparameter("kind", tuple(cls.kind for cls in TABLE_I), tuple(cls.kind for cls in TABLE_I))
"""The choice of a layer's kind, as if it were one of its hyper-parameters."""
BY_KIND = {cls.kind: cls for cls in TABLE_I}
_BY_PREFIX = {cls.prefix: cls for cls in TABLE_I}


def describe(layers: Sequence[Layer]) -> str:
    """The network as one line of text; `parse` reads it back.

    Example:
        >>> describe([Conv(32, 5, 1), MaxPool(2, 2, 0), FCL(128, "relu", True)])
        'Conv(32,5,1) > MaxPool(2,2,0) > FCL(128,relu,bias)'
    """
    return " > ".join(str(layer) for layer in layers)


def parse(text: str) -> Network:
    """The network that `describe` wrote; spaces do not matter.

    Raises:
        ValueError: If a layer is not of Table I; it names the layer and what is allowed.

    Example:
        >>> parse("Conv(32,5,1) > FCL(128,relu,bias)")[0].filters
        32
    """
    return tuple(_parse_layer(part.strip()) for part in text.split(">") if part.strip())


def _parse_layer(text: str) -> Layer:
    match = re.fullmatch(r"(\w+)\s*\((.*)\)", text)
    cls = BY_KIND.get(match[1]) if match else None
    if match is None or cls is None:
        raise ValueError(f"{text!r} is not a layer; write one of {', '.join(_form(c) for c in TABLE_I)}")
    written = [part.strip() for part in match[2].split(",")]
    if len(written) != len(cls.hyperparameters):
        raise ValueError(f"{text!r} has {len(written)} values; {_form(cls)} is the form")
    try:
        return cls(*(hp.read(part) for hp, part in zip(cls.hyperparameters, written, strict=True)))
    except ValueError as error:
        raise ValueError(f"in {text!r}, {error}") from None


def _form(cls: type[Layer]) -> str:
    return f"{cls.kind}({','.join(hp.name for hp in cls.hyperparameters)})"


@functools.lru_cache(maxsize=4096)
def _hyperparameter_named(name: str) -> Hyperparameter | None:
    match = re.fullmatch(r"layer[1-9]\d*_(kind|[a-z]+_[a-z]+)(?:_of_.*)?", name)
    if match is None:
        return None
    prefix, _, field = match[1].partition("_")
    candidates = (KIND,) if prefix == "kind" else getattr(_BY_PREFIX.get(prefix), "hyperparameters", ())
    return next((hp for hp in candidates if hp.name in (field, match[1])), None)


def hyperparameter_of(name: str, distribution: BaseDistribution) -> Hyperparameter | None:
    """The hyper-parameter of Table I that a parameter of a `LayerSpace` stands for, or None.

    With it a masked range is encoded on the scale of the whole one: a 5x5 kernel is the same action wherever
    it stands. A parameter that merely has such a name is told by its values.

    Example:
        >>> hyperparameter_of("layer2_conv_kernel", IntDistribution(3, 5, step=2)).values
        (3, 5, 7)
        >>> hyperparameter_of("n_units_l0", IntDistribution(4, 128)) is None
        True
    """
    found = _hyperparameter_named(name)
    if found is None:
        return None
    if isinstance(distribution, CategoricalDistribution):
        values: Sequence[Any] = distribution.choices
    elif isinstance(distribution, IntDistribution) and not distribution.log:
        values = range(distribution.low, distribution.high + 1, distribution.step)
    else:
        return None
    return found if all(value in found.values for value in values) else None
