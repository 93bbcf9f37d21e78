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


class Place(NamedTuple):
    """Where a layer is to stand: what it meets, and what the network may still cost behind it."""

    vocabulary: Vocabulary
    shape: Shape
    num_classes: int
    macs_left: float
    parameters_left: float
    activation_bytes: float
    widest: float
    """The most neurons of a fully connected layer."""
    is_last: bool
    """Whether none may follow."""

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
            end = classifier_parameters(out, self.num_classes)
            left = self.parameters_left - layer.parameters(self.shape)
            if end > left and (
                self.is_last or least_with_one_more(self.vocabulary, out, self.num_classes) > left
            ):
                return False
        return True


def classifier_parameters(shape: Shape, num_classes: int) -> int:
    """Its parameters."""
    return (math.prod(shape) + 1) * num_classes


@functools.lru_cache(maxsize=65536)
def least_with_one_more(vocabulary: Vocabulary, shape: Shape, num_classes: int) -> int:
    """The fewest parameters of one layer more and a classifier."""
    ends = (
        layer.parameters(shape) + classifier_parameters(out, num_classes)
        for layer in every_layer(vocabulary.kinds)
        if (out := layer.output_shape(shape)) is not None
    )
    return min(ends, default=classifier_parameters(shape, num_classes))


def every_layer(kinds: Sequence[type[Layer]]) -> Iterator[Layer]:
    for cls in kinds:
        for values in itertools.product(*(hp.values for hp in cls.hyperparameters)):
            yield cls(*values)


@functools.lru_cache(maxsize=65536)
def allowed_values(cls: type[Layer], chosen: tuple[Any, ...], place: Place) -> tuple[Any, ...]:
    """The values that the next hyper-parameter of ``cls`` may take behind ``chosen``.

    A value is allowed if some choice of the remaining hyper-parameters makes a layer that fits.
    """
    rest = [hp.values for hp in cls.hyperparameters[len(chosen) + 1 :]]
    hyperparameter = cls.hyperparameters[len(chosen)]

    fitting = [
        any(place.fits(cls(*chosen, value, *more)) for more in itertools.product(*rest))
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
