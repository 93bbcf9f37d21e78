"""The grammar of networks: which layer may follow which within the limits of a space, and random networks.

Notation as in `layers`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from optuna_trlhpo._checks import is_integer, is_number, plain
from optuna_trlhpo.layers import TABLE_I, Layer, Network, Shape, Vocabulary, describe
from optuna_trlhpo.layers.model_size import bytes_of_frame, check_quantize, number_bytes
from optuna_trlhpo.space.limits import (
    PARAMETERS,
    Position,
    allowed_values,
    every_layer,
    file_measure,
    least_size,
    shape_behind,
    size_of,
    size_of_classifier,
)

_DRAWS = 1000
"""Number of random networks beyond a limit after which the space counts as empty."""
_INPUTS = {
    3: "three positive integers, (channels, height, width), such as (1, 28, 28)",
    2: "two positive integers, (steps, features), such as (50, 3)",
    1: "one positive integer in a tuple, (features,), such as (20,)",
}
"""Description of the inputs of a vocabulary, by their number of axes."""
UNITS = {
    "max_macs": "MACs",
    "max_parameters": "parameters",
    "max_activation_bytes": "bytes of activations",
    "max_model_bytes": "bytes in its file",
}
"""Unit of each limit."""


class Grammar:
    """The networks of a `LayerSpace`: a vocabulary, the order of its kinds, and limits.

    `LayerSpace` describes the arguments.

    Raises:
        ValueError: For an argument out of range, or a space without any network.
    """

    def __init__(
        self,
        *,
        input_shape: Shape = (1, 28, 28),
        num_classes: int = 10,
        max_layers: int = 6,
        max_macs: float | None = None,
        max_parameters: int | None = None,
        max_activation_bytes: int | None = None,
        max_model_bytes: int | None = None,
        quantize: str | None = None,
        narrowing: bool = False,
        vocabulary: Vocabulary = TABLE_I,
    ) -> None:
        if not isinstance(vocabulary, Vocabulary):
            raise ValueError(f"vocabulary is {vocabulary!r}; it must be a Vocabulary, such as TABLE_I")
        self.vocabulary = vocabulary
        if (
            not isinstance(input_shape, Sequence)
            or len(input_shape) != vocabulary.axes
            or not all(is_integer(size, least=1) for size in input_shape)
        ):
            raise ValueError(f"input_shape is {input_shape!r}; it must be {_INPUTS[vocabulary.axes]}")
        for name, value, least in (("num_classes", num_classes, 2), ("max_layers", max_layers, 1)):
            if not is_integer(value, least=least):
                raise ValueError(f"{name} is {value!r}; it must be an integer of at least {least}")
        check_quantize(quantize)
        floats = [cls.kind for cls in vocabulary.kinds if not cls.quantizable]
        if quantize is not None and floats:
            raise ValueError(
                f"quantize is {quantize!r}; with layers {', '.join(floats)}, which stay floats, it must be "
                "None"
            )
        limits = dict(
            max_macs=max_macs,
            max_parameters=max_parameters,
            max_activation_bytes=max_activation_bytes,
            max_model_bytes=max_model_bytes,
        )
        for name, limit in limits.items():
            if limit is not None and not (is_number(limit) and limit > 0):
                raise ValueError(f"{name} is {limit!r}; it must be positive, or None for no limit")
        self.input_shape = tuple(int(size) for size in input_shape)
        self.num_classes = num_classes
        self.max_layers = max_layers
        # Numbers of NumPy would overflow, and JSON does not know them.
        self.max_macs = plain(max_macs)
        self.max_parameters = plain(max_parameters)
        self.max_activation_bytes = plain(max_activation_bytes)
        self.max_model_bytes = plain(max_model_bytes)
        self.quantize = quantize
        self.narrowing = narrowing
        if not self.kinds(()):
            self._raise_empty_space()

    def kinds(self, layers: Sequence[Layer]) -> tuple[type[Layer], ...]:
        """Return the kinds that may follow ``layers``; none if the network cannot grow."""
        if len(layers) >= self.max_layers:
            return ()
        candidates = self.vocabulary.kinds if layers else self.vocabulary.first
        return tuple(cls for cls in candidates if self._is_allowed(layers, cls))

    def _is_allowed(self, layers: Sequence[Layer], cls: type[Layer]) -> bool:
        """Return whether any layer of the kind may come next."""
        if cls.hyperparameters:
            return bool(self.allowed(layers, cls))
        return self.position(layers).fits(cls())

    def allowed(self, layers: Sequence[Layer], cls: type[Layer], *chosen: Any) -> tuple[Any, ...]:
        """Return the values that the next hyper-parameter may take.

        Args:
            layers: The layers before it.
            cls: The kind of the next layer.
            *chosen: The values of this layer that are already chosen.
        """
        # mypy does not see that a class is hashable.
        return allowed_values(cls, chosen, self.position(layers))  # type: ignore[arg-type]

    def position(self, layers: Sequence[Layer]) -> Position:
        """Return the position behind ``layers``, which determines what fits there."""
        sizes_left: tuple[tuple[str, float], ...] = ()
        if self.max_parameters is not None:
            sizes_left += ((PARAMETERS, self.max_parameters),)
        if self.max_model_bytes is not None:
            frame = bytes_of_frame(self.input_shape, self.quantize)
            sizes_left += ((file_measure(self.quantize), self.max_model_bytes - frame),)
        start = Position(
            self.vocabulary,
            self.input_shape,
            self.num_classes,
            _or_inf(self.max_macs),
            sizes_left,
            _or_inf(self.max_activation_bytes) / number_bytes(self.quantize),
            layers_left=self.max_layers - 1 if sizes_left else 0,
            narrowing=self.narrowing,
        )
        return functools.reduce(Position.after, layers, start)

    def shapes(self, layers: Sequence[Layer]) -> tuple[Shape, ...]:
        """Return the output shape of each layer."""
        behind = itertools.accumulate(
            layers, lambda shape, layer: shape_behind(layer, shape), initial=self.input_shape
        )
        return tuple(behind)[1:]

    def macs(self, layers: Sequence[Layer]) -> int:
        """Return the MACs of the network for one image, classifier included."""
        shapes = (self.input_shape, *self.shapes(layers))
        body = sum(layer.macs(shape) for layer, shape in zip(layers, shapes, strict=False))
        return body + math.prod(shapes[-1]) * self.num_classes

    def parameters(self, layers: Sequence[Layer]) -> int:
        """Return the number of weights and biases of the network, classifier included."""
        shapes = (self.input_shape, *self.shapes(layers))
        body = sum(layer.parameters(shape) for layer, shape in zip(layers, shapes, strict=False))
        return body + size_of_classifier(shapes[-1], self.num_classes, PARAMETERS)

    def model_bytes(self, layers: Sequence[Layer]) -> int:
        """Return at most how many bytes the ONNX file of the network takes, in the space's number format."""
        shapes = (self.input_shape, *self.shapes(layers))
        measure = file_measure(self.quantize)
        body = sum(size_of(layer, shape, measure) for layer, shape in zip(layers, shapes, strict=False))
        frame = bytes_of_frame(self.input_shape, self.quantize)
        return frame + body + size_of_classifier(shapes[-1], self.num_classes, measure)

    def activation_bytes(self, layers: Sequence[Layer]) -> int:
        """Return the peak activation memory for one input, in bytes of the space's number format.

        It is the largest sum of the input and the output of one layer, or of the classifier.
        """
        sizes = [math.prod(shape) for shape in (self.input_shape, *self.shapes(layers))]
        most = max(a + b for a, b in itertools.pairwise([*sizes, self.num_classes]))
        return number_bytes(self.quantize) * most

    def fits(self, layers: Sequence[Layer]) -> bool:
        """Return whether the network is within all limits.

        On the way to a deeper network only ``max_parameters`` and ``max_model_bytes`` may be exceeded.
        """
        return not self.excess(layers)

    def excess(self, layers: Sequence[Layer]) -> dict[str, float]:
        """Return by how much the network exceeds each limit that it exceeds."""
        counts = {
            "max_macs": self.macs,
            "max_parameters": self.parameters,
            "max_activation_bytes": self.activation_bytes,
            "max_model_bytes": self.model_bytes,
        }
        limits = {name: limit for name in counts if (limit := getattr(self, name)) is not None}
        excess = {name: counts[name](layers) - limit for name, limit in limits.items()}
        return {name: much for name, much in excess.items() if much > 0}

    def check(self, layers: Sequence[Layer]) -> None:
        """Check that the network belongs to the space.

        Raises:
            ValueError: If it does not. The message names the first layer that is not allowed, or the limit.
        """
        if len(layers) > self.max_layers:
            raise ValueError(
                f"{describe(layers)!r} has {len(layers)} layers; at most {self.max_layers} are allowed"
            )
        for k, layer in enumerate(layers):
            before, cls, values = layers[:k], type(layer), layer.values
            kinds = self.kinds(before)
            if cls not in kinds:
                names = ", ".join(kind.kind for kind in kinds) or "none"
                raise ValueError(f"layer {k + 1}, {layer}, is not allowed there; allowed kinds: {names}")
            for i, (hp, value) in enumerate(zip(cls.hyperparameters, values, strict=True)):
                allowed = self.allowed(before, cls, *values[:i])
                if value not in allowed:
                    span = f"{allowed[0]} to {allowed[-1]}" if allowed else "none"
                    if hp.labels:
                        span = ", ".join(map(hp.write, allowed))
                    raise ValueError(
                        f"layer {k + 1}, {layer}: {hp.name} {value!r} is not allowed there ({span})"
                    )
        for name, excess in self.excess(layers).items() if layers else ():
            limit = getattr(self, name)
            raise ValueError(
                f"{describe(layers)!r} has {limit + excess:,.0f} {UNITS[name]}; at most {limit:,.0f} are "
                "allowed"
            )

    def draw(self, rng: np.random.Generator, *, depth: int | None = None) -> Network:
        """Return a random network of ``depth`` layers, or of a random number, as far as they fit.

        Raises:
            ValueError: If networks almost never meet all limits together, even where each can be met alone.

        Examples:
            >>> len(Grammar().draw(np.random.default_rng(0), depth=2))
            2
        """
        depth = int(rng.integers(1, self.max_layers + 1)) if depth is None else depth
        for _ in range(_DRAWS):  # several limits together can leave no kind to continue with
            layers: Network = ()
            while (len(layers) < depth or not self.fits(layers)) and (kinds := self.kinds(layers)):
                layers = (*layers, self.draw_layer(rng, layers, kinds[rng.integers(len(kinds))]))
            if self.fits(layers):
                return layers
        raise ValueError(f"none of {_DRAWS:,} random networks was within all limits of {self!r}")

    def draw_layer(self, rng: np.random.Generator, before: Network, cls: type[Layer]) -> Layer:
        """Return a random layer of the kind ``cls`` that may follow the layers ``before``."""
        values: list[Any] = []
        for _ in cls.hyperparameters:
            allowed = self.allowed(before, cls, *values)
            values.append(allowed[rng.integers(len(allowed))])
        return cls(*values)

    def every_network(self, rng: np.random.Generator) -> Iterator[Network]:
        """Yield the networks of the space in random order; some come more than once.

        Those of one depth follow one another. Layers beyond a limit, which no further layer can mend, yield
        an empty network, so that a caller can stop after many.

        Examples:
            >>> grammar = Grammar(max_layers=1, max_parameters=30_000)
            >>> len(set(grammar.every_network(np.random.default_rng(0))))
            20
        """
        for depth in (1 + rng.permutation(self.max_layers)).tolist():
            yield from self._every_network((), depth, rng)

    def _every_network(self, layers: Network, depth: int, rng: np.random.Generator) -> Iterator[Network]:
        """Yield the networks that begin with ``layers`` and have ``depth`` layers, as far as they fit."""
        fits = bool(layers) and self.fits(layers)
        kinds = () if fits and len(layers) >= depth else self.kinds(layers)
        if not kinds:
            yield layers if fits else ()
        for k in rng.permutation(len(kinds)).tolist():
            for layer in self._every_layer(layers, kinds[k], (), rng):
                yield from self._every_network((*layers, layer), depth, rng)

    def _every_layer(
        self, before: Network, cls: type[Layer], chosen: tuple[Any, ...], rng: np.random.Generator
    ) -> Iterator[Layer]:
        if len(chosen) == len(cls.hyperparameters):
            yield cls(*chosen)
            return
        allowed = self.allowed(before, cls, *chosen)
        for k in rng.permutation(len(allowed)).tolist():
            yield from self._every_layer(before, cls, (*chosen, allowed[k]), rng)

    def _raise_empty_space(self) -> None:
        """Raise a ``ValueError`` that names a limit which no network meets, and its least feasible value."""
        shape, classes = self.input_shape, self.num_classes
        firsts = [
            (layer, out)
            for layer in every_layer(self.vocabulary.first)
            if (out := layer.output_shape(shape)) is not None
        ]
        if not firsts:
            names = " or ".join(cls.kind for cls in self.vocabulary.first)
            raise ValueError(
                f"input_shape is {shape}; it is too small for every kind of first layer, {names}"
            )

        def least_sizes(measure: str) -> int:
            deeper = self.max_layers - 1
            return min(
                size_of(layer, shape, measure) + least_size(measure, self.vocabulary, out, classes, deeper)
                for layer, out in firsts
            )

        def least_bytes() -> int:
            return bytes_of_frame(shape, self.quantize) + least_sizes(file_measure(self.quantize))

        def least_activations() -> int:
            return min(max(math.prod(shape) + math.prod(out), math.prod(out) + classes) for _, out in firsts)

        computed: dict[str, Callable[[], int]] = {
            "max_macs": lambda: min(layer.macs(shape) + math.prod(out) * classes for layer, out in firsts),
            "max_parameters": lambda: least_sizes(PARAMETERS),
            "max_activation_bytes": lambda: number_bytes(self.quantize) * least_activations(),
            "max_model_bytes": least_bytes,
        }
        limits = {name: limit for name in computed if (limit := getattr(self, name)) is not None}
        least = {name: computed[name]() for name in limits}
        broken = [name for name, limit in limits.items() if least[name] > limit]
        if broken:
            name = broken[0]
            # The limits on the size apply to trained networks, the others to every prefix.
            is_size = name in ("max_parameters", "max_model_bytes")
            what = "network of this space" if is_size else "first layer with a classifier"
            raise ValueError(
                f"{name} is {limits[name]:,.0f}; the cheapest {what} takes {least[name]:,} {UNITS[name]}"
            )
        listed = " and ".join(f"{name} {limit:,.0f}" for name, limit in limits.items())
        raise ValueError(f"no network of this space meets {listed} at once")


def _or_inf(limit: float | None) -> float:
    return math.inf if limit is None else limit
