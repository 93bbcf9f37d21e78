"""Limits: which layers fit at a position of a network, given its input shape and the budget left.

Notation as in `layers`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from optuna_trlhpo.layers import FCL, Layer, Shape, Vocabulary
from optuna_trlhpo.layers.model_size import bytes_of_classifier

_MANY_LAYERS = 2048
"""Number of layers of a kind beyond which they are looked at one by one."""

PARAMETERS = "parameters"
"""Measure of the size of a network: the number of its parameters."""
FILE = "file"
"""Measure of the size of a network: the bytes of its file, of 32-bit floats."""
INT8_FILE = "int8 file"
"""Measure of the size of a network: the bytes of its file, quantised to int8."""


def file_measure(quantize: str | None) -> str:
    """Return the measure of the bytes of a file in a number format."""
    return FILE if quantize is None else INT8_FILE


def _format(measure: str) -> str | None:
    return "int8" if measure == INT8_FILE else None


class Position(NamedTuple):
    """The position of a layer in a network: its input shape, and the budget left for it and what follows.

    The *size* of a network is what is fixed when it is whole: its parameters and the bytes of its file. A
    network that is too large because of its classifier may still become small enough by further layers.
    """

    vocabulary: Vocabulary
    shape: Shape
    num_classes: int
    macs_left: float
    sizes_left: tuple[tuple[str, float], ...]
    """What is left of each limit on the size, by its measure."""
    activations: float
    """Largest number of inputs and outputs of a layer together."""
    layers_left: int
    """Number of layers that may follow. It is 0 without a limit on the size, which alone needs it."""
    narrowing: bool
    """Whether a fully connected layer may not be wider than the one before it."""
    widest: float = math.inf
    """Largest number of neurons of a fully connected layer."""
    barred: type[Layer] | None = None
    """Kind of the layer before, if it may not follow itself."""

    def after(self, layer: Layer) -> Position:
        """Return the position behind ``layer``."""
        # Only costs that are limited are computed.
        macs = layer.macs(self.shape) if self.macs_left < math.inf else 0
        return self._replace(
            shape=shape_behind(layer, self.shape),
            macs_left=self.macs_left - macs,
            sizes_left=tuple(
                (measure, left - size_of(layer, self.shape, measure)) for measure, left in self.sizes_left
            ),
            layers_left=max(self.layers_left - 1, 0),
            widest=layer.neurons if self.narrowing and isinstance(layer, FCL) else math.inf,
            barred=None if layer.repeatable else type(layer),
        )

    def fits(self, layer: Layer) -> bool:
        """Return whether the layer is allowed here."""
        out = layer.output_shape(self.shape)
        if out is None or (isinstance(layer, FCL) and layer.neurons > self.widest):
            return False
        if type(layer) is self.barred:
            return False
        size = math.prod(out)
        # Only costs that are limited are computed.
        if self.macs_left < math.inf and layer.macs(self.shape) + size * self.num_classes > self.macs_left:
            return False
        if max(math.prod(self.shape) + size, size + self.num_classes) > self.activations:
            return False
        for measure, budget in self.sizes_left:
            left = budget - size_of(layer, self.shape, measure)
            # Few further layers usually suffice, and trying many is slow, so depths are tried one by one.
            if not any(
                least_size(measure, self.vocabulary, out, self.num_classes, more) <= left
                for more in range(self.layers_left + 1)
            ):
                return False
        return True


@functools.lru_cache(maxsize=65536)
def next_position(position: Position, layer: Layer) -> Position | None:
    """Return the position behind a layer at ``position``; None if the layer is not allowed there."""
    return position.after(layer) if position.fits(layer) else None


def size_of(layer: Layer, shape: Shape, measure: str) -> int:
    """Return the size of a layer with inputs of ``shape``."""
    if measure == PARAMETERS:
        return layer.parameters(shape)
    return layer.model_bytes(shape, _format(measure))


def size_of_classifier(shape: Shape, num_classes: int, measure: str) -> int:
    """Return the size of the classifier behind a layer with outputs of ``shape``."""
    if measure == PARAMETERS:
        return (math.prod(shape) + 1) * num_classes
    return bytes_of_classifier(shape, num_classes, _format(measure))


@functools.lru_cache(maxsize=65536)
def least_size(measure: str, vocabulary: Vocabulary, shape: Shape, num_classes: int, more: int) -> int:
    """Return the least size of a classifier behind at most ``more`` layers, these included.

    Examples:
        >>> from optuna_trlhpo.layers import TABLE_I
        >>> [least_size(PARAMETERS, TABLE_I, (8, 32, 32), 10, more) for more in range(3)]
        [81930, 6490, 90]
    """
    least = size_of_classifier(shape, num_classes, measure)
    if more == 0:
        return least
    smallest = size_of_classifier((1,), num_classes, measure)
    for own, out in _steps(measure, vocabulary, shape):
        if own + smallest >= least:
            break
        least = min(least, own + least_size(measure, vocabulary, out, num_classes, more - 1))
    return least


@functools.lru_cache(maxsize=8192)
def _steps(measure: str, vocabulary: Vocabulary, shape: Shape) -> list[tuple[int, Shape]]:
    """Return each shape that one layer makes of ``shape``, with the least size that this takes.

    They are sorted by this size, then by the size of the shape.
    """
    fewest: dict[Shape, int] = {}
    for layer in every_layer(vocabulary.kinds):
        if (out := layer.output_shape(shape)) is not None:
            own = size_of(layer, shape, measure)
            fewest[out] = min(own, fewest.get(out, own))
    return sorted(((own, out) for out, own in fewest.items()), key=lambda it: (it[0], math.prod(it[1])))


def every_layer(kinds: Sequence[type[Layer]]) -> Iterator[Layer]:
    """Yield every layer of the given kinds."""
    for cls in kinds:
        for values in itertools.product(*(hp.values for hp in cls.hyperparameters)):
            yield cls(*values)


def _can_compute_all(cls: type[Layer], position: Position) -> bool:
    """Return whether the costs of all layers of a kind are soon computed: few layers, and none is counted."""
    is_counted = cls.macs is Layer.macs or cls.parameters is Layer.parameters
    if cls.model_bytes is Layer.model_bytes:
        is_counted |= any(measure != PARAMETERS for measure, _ in position.sizes_left)
    return not is_counted and math.prod(len(hp.values) for hp in cls.hyperparameters) <= _MANY_LAYERS


@functools.lru_cache(maxsize=16384)
def fitting(cls: type[Layer], position: Position) -> np.ndarray:
    """Return whether each layer of a kind fits at a position: an axis for each hyper-parameter."""
    with_macs, measures = position.macs_left < math.inf, tuple(name for name, _ in position.sizes_left)
    # mypy does not see that a class is hashable.
    costs = _costs(cls, position.shape, with_macs, measures)  # type: ignore[arg-type]
    size, n = costs.size, position.num_classes
    fits = (costs.outcome >= 0) & (cls is not position.barred)
    if issubclass(cls, FCL):
        fits &= costs.neurons <= position.widest
    if position.macs_left < math.inf:
        fits &= costs.macs + size * n <= position.macs_left
    if position.activations < math.inf:
        fits &= np.maximum(math.prod(position.shape) + size, size + n) <= position.activations
    for (measure, left), own in zip(position.sizes_left, costs.sizes, strict=True):
        fits &= _has_classifier(measure, position, costs, left - own, fits)
    return fits


def _has_classifier(
    measure: str, position: Position, costs: _Costs, left: np.ndarray, fits: np.ndarray
) -> np.ndarray:
    """Return behind which layers some network, with its classifier, is no larger than what is left.

    Args:
        measure: Measure of the size.
        position: Position of the layers.
        costs: Costs of the layers.
        left: Size left behind each layer.
        fits: Whether a layer is within the other limits; others are not looked at.
    """
    found = np.zeros_like(fits)
    needed = _needed(measure, costs.shapes, position.vocabulary, position.num_classes, position.layers_left)
    # Few further layers usually suffice, and trying many is slow, so depths are tried one by one.
    for more in range(position.layers_left + 1):
        open_ = fits & ~found
        outcomes = costs.outcome[open_]
        for number in {*outcomes.tolist()}:
            if needed[number, more] < 0:
                shape = costs.shapes[number]
                needed[number, more] = least_size(
                    measure, position.vocabulary, shape, position.num_classes, more
                )
        found[open_] = left[open_] >= needed[outcomes, more]
        if found[fits].all():
            break
    return found


@functools.lru_cache(maxsize=16384)
def _needed(
    measure: str, shapes: tuple[Shape, ...], vocabulary: Vocabulary, num_classes: int, most: int
) -> np.ndarray:
    """Return a table of `least_size` behind each shape with 0 to ``most`` layers.

    The caller fills it: what is not known yet is -1.
    """
    return np.full((len(shapes), most + 1), -1.0)


class _Costs(NamedTuple):
    """What each layer of a kind makes of a shape: arrays with an axis for each hyper-parameter."""

    shapes: tuple[Shape, ...]
    """Different output shapes."""
    outcome: np.ndarray
    """Number of the output shape; -1 where a layer cannot be applied."""
    size: np.ndarray
    """Size of the output."""
    macs: np.ndarray
    neurons: np.ndarray
    """Neurons of a fully connected layer, else 0."""
    sizes: tuple[np.ndarray, ...]
    """Size by each measure."""


@functools.lru_cache(maxsize=1024)
def _costs(cls: type[Layer], shape: Shape, with_macs: bool, measures: tuple[str, ...]) -> _Costs:
    """Return the costs of all layers of a kind. MACs are 0 if not asked for: counting them takes time."""
    numbers: dict[Shape, int] = {}
    rows = []
    for layer in every_layer([cls]):
        out = layer.output_shape(shape)
        if out is None:
            rows.append((-1, 0, 0, 0, *(0 for _ in measures)))
            continue
        macs = layer.macs(shape) if with_macs else 0
        neurons = layer.neurons if isinstance(layer, FCL) else 0
        sizes = [size_of(layer, shape, measure) for measure in measures]
        rows.append((numbers.setdefault(out, len(numbers)), math.prod(out), macs, neurons, *sizes))
    axes = [len(hp.values) for hp in cls.hyperparameters]
    # Floating-point numbers, for the costs of a large input would overflow 64-bit integers.
    costs = np.moveaxis(np.array(rows, dtype=np.float64).reshape(*axes, 4 + len(measures)), -1, 0)
    outcome, size, all_macs, all_neurons, *all_sizes = costs
    return _Costs(tuple(numbers), outcome.astype(np.int64), size, all_macs, all_neurons, tuple(all_sizes))


@functools.lru_cache(maxsize=65536)
def allowed_values(cls: type[Layer], chosen: tuple[Any, ...], position: Position) -> tuple[Any, ...]:
    """Return the values of the next hyper-parameter of ``cls``, given the ``chosen`` values before it.

    A value is allowed if some choice of the remaining hyper-parameters gives a layer that fits.
    """
    hyperparameter = cls.hyperparameters[len(chosen)]
    if _can_compute_all(cls, position):
        grid = fitting(cls, position)  # type: ignore[arg-type]  # as in `fitting`, a class is hashable
        for hp, value in zip(cls.hyperparameters, chosen, strict=False):
            grid = grid[hp.values.index(value)]
        fits: list[bool] = np.any(grid.reshape(len(grid), -1), axis=1).tolist()
    else:
        rest = [hp.values for hp in cls.hyperparameters[len(chosen) + 1 :]]
        fits = [
            any(position.fits(cls(*chosen, value, *more)) for more in itertools.product(*rest))
            for value in hyperparameter.values
        ]
    if hyperparameter.labels:  # unordered values have no gaps
        return tuple(value for value, fit in zip(hyperparameter.values, fits, strict=True) if fit)
    runs = [
        [hyperparameter.values[i] for i, _ in run]
        for fit, run in itertools.groupby(enumerate(fits), key=lambda item: item[1])
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
