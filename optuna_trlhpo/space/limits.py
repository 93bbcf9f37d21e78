"""What may stand where in a network: which layers a shape and the limits of a space leave room for.

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
"""Of a number."""


class Position(NamedTuple):
    """Where a layer is to stand: what it meets, and what the network may still cost behind it."""

    vocabulary: Vocabulary
    shape: Shape
    num_classes: int
    macs_left: float
    parameters_left: float
    activation_bytes: float
    layers_left: int
    """How many more may follow; 0 where parameters are not limited, for nothing else asks."""
    narrowing: bool
    """Whether a fully connected layer may not be wider than the one before it."""
    widest: float = math.inf
    """The most neurons of a fully connected layer."""

    def after(self, layer: Layer) -> Position:
        """Where the next layer is to stand, behind this one."""
        # What no limit asks for is not worked out.
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
        """Whether the layer may stand here."""
        out = layer.output_shape(self.shape)
        if out is None or (isinstance(layer, FCL) and layer.neurons > self.widest):
            return False
        size = math.prod(out)
        # What no limit asks for is not worked out.
        if self.macs_left < math.inf and layer.macs(self.shape) + size * self.num_classes > self.macs_left:
            return False
        if self.activation_bytes < math.inf:
            most = max(math.prod(self.shape) + size, size + self.num_classes)
            if BYTES * most > self.activation_bytes:
                return False
        if self.parameters_left < math.inf:
            left = self.parameters_left - layer.parameters(self.shape)
            # One layer after the other, for mostly few will do, and to try many takes long.
            return any(
                least_parameters(self.vocabulary, out, self.num_classes, more) <= left
                for more in range(self.layers_left + 1)
            )
        return True


@functools.lru_cache(maxsize=65536)
def next_position(position: Position, layer: Layer) -> Position | None:
    """Behind a layer that is to stand at ``position``; None if it may not."""
    return position.after(layer) if position.fits(layer) else None


def classifier_parameters(shape: Shape, num_classes: int) -> int:
    """Its parameters."""
    return (math.prod(shape) + 1) * num_classes


@functools.lru_cache(maxsize=65536)
def least_parameters(vocabulary: Vocabulary, shape: Shape, num_classes: int, more: int) -> int:
    """The fewest parameters of at most ``more`` layers that stand on ``shape``, and a classifier.

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
    """Each shape that one layer makes of ``shape``, with the fewest parameters that it takes; of few
    parameters first, of equal ones the smallest shape."""
    fewest: dict[Shape, int] = {}
    for layer in every_layer(vocabulary.kinds):
        if (out := layer.output_shape(shape)) is not None:
            own = layer.parameters(shape)
            fewest[out] = min(own, fewest.get(out, own))
    return sorted(((own, out) for out, own in fewest.items()), key=lambda it: (it[0], math.prod(it[1])))


def every_layer(kinds: Sequence[type[Layer]]) -> Iterator[Layer]:
    for cls in kinds:
        for values in itertools.product(*(hp.values for hp in cls.hyperparameters)):
            yield cls(*values)


@functools.lru_cache(maxsize=65536)
def allowed_values(cls: type[Layer], chosen: tuple[Any, ...], position: Position) -> tuple[Any, ...]:
    """The values that the next hyper-parameter of ``cls`` may take behind ``chosen``.

    A value is allowed if some choice of the remaining hyper-parameters makes a layer that fits.
    """
    rest = [hp.values for hp in cls.hyperparameters[len(chosen) + 1 :]]
    hyperparameter = cls.hyperparameters[len(chosen)]

    fitting = [
        any(position.fits(cls(*chosen, value, *more)) for more in itertools.product(*rest))
        for value in hyperparameter.values
    ]
    if hyperparameter.labels:  # without an order there are no holes
        return tuple(value for value, fits in zip(hyperparameter.values, fitting, strict=True) if fits)
    runs = [
        [hyperparameter.values[i] for i, _ in run]
        for fit, run in itertools.groupby(enumerate(fitting), key=lambda item: item[1])
        if fit
    ]
    # An integer range has no holes. Only a tight cap on MACs makes one; then the longest stretch is offered.
    longest = max(runs, key=len, default=[])
    return tuple(longest)


def shape_behind(layer: Layer, shape: Shape) -> Shape:
    out = layer.output_shape(shape)
    if out is None:
        raise ValueError(f"{layer} does not fit on shape {shape}")
    return out
