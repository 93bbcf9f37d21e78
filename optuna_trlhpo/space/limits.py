"""Limits: which layers fit at a position of a network, given its input shape and the budget left.

Notation as in `layers`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from optuna_trlhpo.layers import FCL, Layer, Shape, Vocabulary

BYTES = 4
"""Size of a number in bytes."""


class Position(NamedTuple):
    """The position of a layer in a network: its input shape, and the budget left for it and what follows."""

    vocabulary: Vocabulary
    shape: Shape
    num_classes: int
    macs_left: float
    parameters_left: float
    activation_bytes: float
    layers_left: int
    """Number of layers that may follow. It is 0 without a limit on parameters, which alone needs it."""
    narrowing: bool
    """Whether a fully connected layer may not be wider than the one before it."""
    widest: float = math.inf
    """Largest number of neurons of a fully connected layer."""

    def after(self, layer: Layer) -> Position:
        """Return the position behind ``layer``."""
        # Only costs that are limited are computed.
        macs = layer.macs(self.shape) if self.macs_left < math.inf else 0
        parameters = layer.parameters(self.shape) if self.parameters_left < math.inf else 0
        return self._replace(
            shape=shape_behind(layer, self.shape),
            macs_left=self.macs_left - macs,
            parameters_left=self.parameters_left - parameters,
            layers_left=max(self.layers_left - 1, 0),
            widest=layer.neurons if self.narrowing and isinstance(layer, FCL) else math.inf,
        )

    def fits(self, layer: Layer) -> bool:
        """Return whether the layer is allowed here."""
        out = layer.output_shape(self.shape)
        if out is None or (isinstance(layer, FCL) and layer.neurons > self.widest):
            return False
        size = math.prod(out)
        # Only costs that are limited are computed.
        if self.macs_left < math.inf and layer.macs(self.shape) + size * self.num_classes > self.macs_left:
            return False
        if self.activation_bytes < math.inf:
            most = max(math.prod(self.shape) + size, size + self.num_classes)
            if BYTES * most > self.activation_bytes:
                return False
        if self.parameters_left < math.inf:
            left = self.parameters_left - layer.parameters(self.shape)
            # Few further layers usually suffice, and trying many is slow, so depths are tried one by one.
            return any(
                least_parameters(self.vocabulary, out, self.num_classes, more) <= left
                for more in range(self.layers_left + 1)
            )
        return True


@functools.lru_cache(maxsize=65536)
def next_position(position: Position, layer: Layer) -> Position | None:
    """Return the position behind a layer at ``position``; None if the layer is not allowed there."""
    return position.after(layer) if position.fits(layer) else None


def classifier_parameters(shape: Shape, num_classes: int) -> int:
    """Return the number of parameters of the classifier."""
    return (math.prod(shape) + 1) * num_classes


@functools.lru_cache(maxsize=65536)
def least_parameters(vocabulary: Vocabulary, shape: Shape, num_classes: int, more: int) -> int:
    """Return the fewest parameters of a classifier behind at most ``more`` layers, these included.

    Example:
        >>> from optuna_trlhpo.layers import TABLE_I
        >>> [least_parameters(TABLE_I, (8, 32, 32), 10, more) for more in range(3)]
        [81930, 6490, 90]
    """
    least = classifier_parameters(shape, num_classes)
    if more == 0:
        return least
    for own, out in _steps(vocabulary, shape):
        if own + 2 * num_classes >= least:  # the smallest classifier has one input and a bias
            break
        least = min(least, own + least_parameters(vocabulary, out, num_classes, more - 1))
    return least


@functools.lru_cache(maxsize=8192)
def _steps(vocabulary: Vocabulary, shape: Shape) -> list[tuple[int, Shape]]:
    """Return each shape that one layer makes of ``shape``, with the fewest parameters that this takes.

    They are sorted by parameters, then by the size of the shape.
    """
    fewest: dict[Shape, int] = {}
    for layer in every_layer(vocabulary.kinds):
        if (out := layer.output_shape(shape)) is not None:
            own = layer.parameters(shape)
            fewest[out] = min(own, fewest.get(out, own))
    return sorted(((own, out) for out, own in fewest.items()), key=lambda it: (it[0], math.prod(it[1])))


def every_layer(kinds: Sequence[type[Layer]]) -> Iterator[Layer]:
    """Yield every layer of the given kinds."""
    for cls in kinds:
        for values in itertools.product(*(hp.values for hp in cls.hyperparameters)):
            yield cls(*values)


@functools.lru_cache(maxsize=65536)
def allowed_values(cls: type[Layer], chosen: tuple[Any, ...], position: Position) -> tuple[Any, ...]:
    """Return the values of the next hyper-parameter of ``cls``, given the ``chosen`` values before it.

    A value is allowed if some choice of the remaining hyper-parameters gives a layer that fits.
    """
    rest = [hp.values for hp in cls.hyperparameters[len(chosen) + 1 :]]
    hyperparameter = cls.hyperparameters[len(chosen)]

    fitting = [
        any(position.fits(cls(*chosen, value, *more)) for more in itertools.product(*rest))
        for value in hyperparameter.values
    ]
    if hyperparameter.labels:  # unordered values have no gaps
        return tuple(value for value, fits in zip(hyperparameter.values, fitting, strict=True) if fits)
    runs = [
        [hyperparameter.values[i] for i, _ in run]
        for fit, run in itertools.groupby(enumerate(fitting), key=lambda item: item[1])
        if fit
    ]
    # An integer range cannot have gaps. Only a tight limit on MACs causes one; the longest run is kept then.
    longest = max(runs, key=len, default=[])
    return tuple(longest)


def shape_behind(layer: Layer, shape: Shape) -> Shape:
    """Return the output shape of a layer.

    Raises:
        ValueError: If the layer does not fit on ``shape``.
    """
    out = layer.output_shape(shape)
    if out is None:
        raise ValueError(f"{layer} does not fit on shape {shape}")
    return out
