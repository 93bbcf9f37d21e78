"""Layers: what kinds there are, their hyper-parameters, and how one or many are written down.

A *network* is a tuple of layers, first to last; the classifier (one linear layer) that every network ends
with is not part of it. `space` says which networks there are.

Notation: S layers, shapes without the batch axis: ``(channels, height, width)``, or ``(features,)`` behind a
fully connected layer. MACs are multiply-accumulates for one image.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import BaseTrial

if TYPE_CHECKING:
    from torch import nn

# PyTorch is imported where a layer becomes a module: to search needs none of it.

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
        values: All values, in order. Without labels they are integers that ascend in equal steps.
        labels: How the values of a categorical hyper-parameter, which may be anything, are written in text;
            empty for an integer.

    Raises:
        ValueError: If there is no value, or one that cannot be.

    Example:
        >>> Hyperparameter("kernel", (3, 5, 7)).decode(0.99)
        7
        >>> Hyperparameter("rate", (0.1, 0.25), labels=("0.1", "0.25")).decode(0.99)
        0.25
    """

    name: str
    values: tuple[Any, ...]
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        values, labels = self.values, self.labels
        if not values:
            raise ValueError(f"{self.name} has no values; it must have at least one")
        if not labels:
            are_integers = all(isinstance(value, int) and not isinstance(value, bool) for value in values)
            if not are_integers or len(set(self._steps)) > 1 or self._steps[0] <= 0:
                raise ValueError(
                    f"the values of {self.name} are {values}; without labels they must be integers that "
                    "ascend in equal steps"
                )
            return
        are_texts = all(isinstance(label, str) and re.fullmatch(r"[^\s,()>]+", label) for label in labels)
        if not are_texts or len(set(labels)) < len(labels) or len(labels) != len(values):
            raise ValueError(
                f"the labels of {self.name} are {labels}; they must be {len(values)} different texts, one "
                "for each value, without blanks, commas, parentheses and '>'"
            )

    @property
    def _steps(self) -> list[int]:
        """From each integer to the next."""
        return [after - value for value, after in itertools.pairwise(self.values)] or [1]

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
        step = self._steps[0]
        value = trial.suggest_int(name, allowed[0], allowed[-1], step=step)
        if value not in allowed:  # Optuna takes an enqueued value as it is
            raise ValueError(
                f"parameter {name!r} is {value}; it must be {allowed[0]} to {allowed[-1]} in steps of {step}"
            )
        return value


def _integers(name: str, low: int, high: int, step: int = 1) -> Hyperparameter:
    return Hyperparameter(name, tuple(range(low, high + 1, step)))


class Layer:
    """A kind of layer: what it is called, its hyper-parameters, what it does to a shape, and what it is in
    PyTorch.

    A subclass is a frozen dataclass whose fields are its hyper-parameters, in order (at most three). It
    belongs to a `Vocabulary`. Costs are counted on its modules, unless it knows better.

    Example:
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
    """How it is written: ``"Conv"``."""
    prefix: ClassVar[str]
    """How its parameters' names begin behind ``layer<k>_``: ``"conv"``."""
    hyperparameters: ClassVar[tuple[Hyperparameter, ...]]

    def __init__(self, *values: Any) -> None:  # what the dataclasses make; said here for the type checker
        raise NotImplementedError

    def output_shape(self, shape: Shape) -> Shape | None:
        """The shape behind this layer, or None where it cannot stand on ``shape``."""
        raise NotImplementedError

    def modules(self, shape: Shape) -> list[nn.Module]:
        """What it is in PyTorch where it stands on ``shape``: modules that are called one after the other."""
        raise NotImplementedError

    def macs(self, shape: Shape) -> int:
        """Multiply-accumulates for one input of ``shape``."""
        return _counted(self, shape)[0]

    def parameters(self, shape: Shape) -> int:
        """Weights and biases where it stands on ``shape``."""
        return _counted(self, shape)[1]

    @property
    def values(self) -> tuple[Any, ...]:
        """The values of its hyper-parameters, in order."""
        return tuple(getattr(self, hp.name) for hp in self.hyperparameters)

    def __str__(self) -> str:
        written = [hp.write(value) for hp, value in zip(self.hyperparameters, self.values, strict=True)]
        return f"{self.kind}({','.join(written)})"


@functools.lru_cache(maxsize=65536)
def _counted(layer: Layer, shape: Shape) -> tuple[int, int]:
    """MACs and parameters of a layer's modules, as PyTorch counts them."""
    import torch
    from torch import nn
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):  # shapes alone are worked out
        body = nn.Sequential(*layer.modules(shape)).eval()
        image = torch.empty(1, *shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        body(image)
    return counter.get_total_flops() // 2, sum(parameter.numel() for parameter in body.parameters())


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

    def parameters(self, shape: Shape) -> int:
        return self.filters * (shape[0] * self.kernel**2 + 1)

    def modules(self, shape: Shape) -> list[nn.Module]:
        from torch import nn

        return [nn.Conv2d(shape[0], self.filters, self.kernel, self.stride)]


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

    def parameters(self, shape: Shape) -> int:
        return 0

    def modules(self, shape: Shape) -> list[nn.Module]:
        from torch import nn

        return [nn.MaxPool2d(self.kernel, self.stride, self.padding)]


ACTIVATIONS = ("none", "relu", "leakyrelu", "tanh", "sigmoid", "elu", "gelu")
"""The activations of Table I."""


def activation(name: str) -> list[nn.Module]:
    """The module of an activation of Table I, with PyTorch's own parameters; none for ``"none"``.

    Raises:
        ValueError: For an unknown one.
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
    """What makes features of an image or a sequence; nothing of features."""
    from torch import nn

    return [nn.Flatten()] if len(shape) > 1 else []


@dataclass(frozen=True)
class FCL(Layer):
    """A fully connected layer with its activation (Table I); it flattens what comes before."""

    kind = "FCL"
    prefix = "fcl"
    hyperparameters = (
        _integers("neurons", 16, 512, 8),
        Hyperparameter("activation", ACTIVATIONS, ACTIVATIONS),
        Hyperparameter("bias", (False, True), ("nobias", "bias")),
    )

    neurons: int
    activation: str
    bias: bool

    def output_shape(self, shape: Shape) -> Shape | None:
        return (self.neurons,)

    def macs(self, shape: Shape) -> int:
        return math.prod(shape) * self.neurons

    def parameters(self, shape: Shape) -> int:
        return self.neurons * (math.prod(shape) + self.bias)

    def modules(self, shape: Shape) -> list[nn.Module]:
        from torch import nn

        linear = nn.Linear(math.prod(shape), self.neurons, bias=self.bias)
        return [*flatten(shape), linear, *activation(self.activation)]


Network = tuple[Layer, ...]

# Vocabularies ------------------------------------------------------------------------------------------


_vocabularies: dict[str, Vocabulary] = {}
_by_kind: dict[str, type[Layer]] = {}
_by_prefix: dict[str, type[Layer]] = {}


@dataclass(frozen=True)
class Vocabulary:
    """The kinds of layer that a `LayerSpace` grows networks of.

    Making one makes its kinds known to `parse`, and to the sampler, by their names.

    Args:
        name: Lower-case letters; it is part of the parameters' names, ``layer1_<name>_kind``. That of Table I
            is empty.
        kinds: In the order of their bins.
        first: Those that a network may begin with.
        axes: Of an input: 3 for images ``(channels, height, width)``, 2 for sequences ``(steps, features)``,
            1 for features.

    Raises:
        ValueError: If a name is taken or cannot be one, or a kind is no frozen dataclass of at most three
            hyper-parameters.

    Example:
        >>> pools_only = Vocabulary("pooling", (Conv, MaxPool), first=(Conv,))
        >>> pools_only.kind.values
        ('Conv', 'MaxPool')
    """

    name: str
    kinds: tuple[type[Layer], ...]
    first: tuple[type[Layer], ...]
    axes: int = 3

    def __post_init__(self) -> None:
        if not re.fullmatch("[a-z]*", self.name):
            raise ValueError(f"the vocabulary is called {self.name!r}; it must be of letters from a to z")
        if not self.first or not set(self.first) <= set(self.kinds):
            raise ValueError(f"first is {self.first!r}; it must be some of the kinds of the vocabulary")
        for cls in self.kinds:
            _check_kind(cls)
        other = _vocabularies.get(self.name)
        if other is not None and [cls.kind for cls in other.kinds] != [cls.kind for cls in self.kinds]:
            raise ValueError(
                f"there is a vocabulary {self.name!r} of other kinds, {', '.join(other.kind.values)}"
            )
        for cls in self.kinds:
            _by_kind[cls.kind] = _by_prefix[cls.prefix] = cls
        if other != self:  # one that is unpickled is made once more
            _vocabularies[self.name] = self
        _hyperparameter_named.cache_clear()

    def __reduce__(self) -> tuple[Any, ...]:  # so that it is known where it is unpickled
        return Vocabulary, (self.name, self.kinds, self.first, self.axes)

    @functools.cached_property
    def kind(self) -> Hyperparameter:
        """The choice of a layer's kind, as if it were one of its hyper-parameters."""
        names = tuple(cls.kind for cls in self.kinds)
        return Hyperparameter("kind", names, names)

    @functools.cached_property
    def by_kind(self) -> dict[str, type[Layer]]:
        return {cls.kind: cls for cls in self.kinds}

    @functools.lru_cache(maxsize=65536)  # noqa: B019  (vocabularies are few)
    def layer_of(self, actions: tuple[float, ...]) -> Layer | None:
        """The layer that actions in [0, 1] stand for: its kind, then its hyper-parameters; None if one of
        these is missing, a NaN."""
        cls = self.by_kind[self.kind.decode(actions[0])]
        own = actions[1 : 1 + len(cls.hyperparameters)]
        if any(math.isnan(action) for action in own):
            return None
        return cls(*(hp.decode(action) for hp, action in zip(cls.hyperparameters, own, strict=True)))

    def __repr__(self) -> str:
        return f"<Vocabulary {self.name!r} of {', '.join(self.kind.values)}>"

    @property
    def kind_field(self) -> str:
        """What the parameter of a layer's kind is called behind ``layer<k>_``."""
        return f"{self.name}_kind" if self.name else "kind"


def _check_kind(cls: Any) -> None:
    if Layer not in getattr(cls, "__mro__", ()):
        raise ValueError(f"{cls!r} is no kind of layer; it must be a subclass of Layer")
    for name in ("kind", "prefix", "hyperparameters"):
        if not hasattr(cls, name):
            raise ValueError(
                f"{cls.__name__} has no {name}; a kind must say its kind, prefix, hyperparameters"
            )
    if not re.fullmatch(r"\w+", cls.kind) or not re.fullmatch("[a-z]+", cls.prefix):
        raise ValueError(
            f"{cls.__name__} is written {cls.kind!r} with the prefix {cls.prefix!r}; the first must be one "
            "word, the second of letters from a to z"
        )
    if len(cls.hyperparameters) >= ACTION_SLOTS:
        raise ValueError(
            f"{cls.kind} has {len(cls.hyperparameters)} hyper-parameters; there may be {ACTION_SLOTS - 1}"
        )
    for hp in cls.hyperparameters:
        if not re.fullmatch("[a-z]+", hp.name) or hp.name == "kind":
            raise ValueError(
                f"a hyper-parameter of {cls.kind} is called {hp.name!r}; it must be of letters from a to z, "
                "and not 'kind'"
            )
    names = [hp.name for hp in cls.hyperparameters]
    made = getattr(cls, "__dataclass_params__", None)
    if made is None or not made.frozen or names != [field.name for field in fields(cls)]:
        raise ValueError(
            f"{cls.__name__} must be a dataclass, @dataclass(frozen=True), whose fields are its "
            f"hyper-parameters in order: {', '.join(names) or 'none'}"
        )
    for other in (_by_kind.get(cls.kind), _by_prefix.get(cls.prefix)):
        # A class that is defined anew, as in a notebook, takes its own place.
        if other not in (None, cls) and other.__qualname__ != cls.__qualname__:
            raise ValueError(
                f"{cls.__name__} is written {cls.kind!r} with the prefix {cls.prefix!r}, of which one is "
                f"taken by {other.__name__}"
            )


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
        ValueError: If a layer is of no known kind; it names the layer and what is allowed.

    Example:
        >>> parse("Conv(32,5,1) > FCL(128,relu,bias)")[0].filters
        32
    """
    return tuple(_parse_layer(part.strip()) for part in text.split(">") if part.strip())


def _parse_layer(text: str) -> Layer:
    match = re.fullmatch(r"(\w+)\s*\((.*)\)", text)
    cls = _by_kind.get(match[1]) if match else None
    if match is None or cls is None:
        raise ValueError(
            f"{text!r} is not a layer; write one of {', '.join(_form(c) for c in _by_kind.values())}"
        )
    written = [part.strip() for part in match[2].split(",")] if match[2].strip() else []
    if len(written) != len(cls.hyperparameters):
        raise ValueError(f"{text!r} has {len(written)} values; {_form(cls)} is the form")
    try:
        return cls(*(hp.read(part) for hp, part in zip(cls.hyperparameters, written, strict=True)))
    except ValueError as error:
        raise ValueError(f"in {text!r}, {error}") from None


def _form(cls: type[Layer]) -> str:
    return f"{cls.kind}({','.join(hp.name for hp in cls.hyperparameters)})"


def unmasked(name: str) -> str:
    """The name of a layer's parameter without the choices that are left of it; another name as it is.

    Optuna forbids one name to have two sets of choices, so a masked set has a name of its own.

    Example:
        >>> unmasked("layer2_kind_of_pool_fcl"), unmasked("layer2_fcl_bias_of_nobias"), unmasked("lr")
        ('layer2_kind', 'layer2_fcl_bias', 'lr')
    """
    return re.sub(r"(layer[1-9]\d*_[a-z]+(?:_[a-z]+)?)_of_.*", r"\1", name)


@functools.lru_cache(maxsize=4096)
def _hyperparameter_named(name: str) -> Hyperparameter | None:
    match = re.fullmatch(r"layer[1-9]\d*_(?:([a-z]+)_)?([a-z]+)", unmasked(name))
    if match is None:
        return None
    if match[2] == "kind":
        vocabulary = _vocabularies.get(match[1] or "")
        return None if vocabulary is None else vocabulary.kind
    candidates = getattr(_by_prefix.get(match[1]), "hyperparameters", ())
    return next((hp for hp in candidates if hp.name == match[2]), None)


def hyperparameter_of(name: str, distribution: BaseDistribution) -> Hyperparameter | None:
    """The hyper-parameter of a layer that a parameter of a `LayerSpace` stands for, or None.

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


def vocabulary_named(name: str) -> Vocabulary:
    """The vocabulary of that name, which is empty for Table I.

    Raises:
        ValueError: If nobody has made it; those of `kinds` are made when that module is imported.
    """
    if name not in _vocabularies:
        known = ", ".join(repr(other) for other in sorted(_vocabularies))
        raise ValueError(
            f"there is no vocabulary {name!r}; import the module that makes it (there are {known})"
        )
    return _vocabularies[name]


def network_in(params: Mapping[str, Any]) -> Network:
    """The layers that the names of a trial's ``params`` tell of, in whatever space it grew them; none if they
    tell of none. It ends before a layer that is not complete, whose kind is not known, or that has a value
    which its kind does not have: parameters of somebody else's may have such names.

    `LayerSpace.from_params` reads the same, and checks it.

    Example:
        >>> network_in({"layer1_kind": "Conv", "layer1_conv_filters": 8, "layer1_conv_kernel": 3,
        ...             "layer1_conv_stride": 1, "layer2_kind": "FCL", "lr": 0.1})
        (Conv(filters=8, kernel=3, stride=1),)
    """
    kinds = {}
    params = {unmasked(name): value for name, value in params.items()}
    for name, value in params.items():
        match = re.fullmatch(r"layer([1-9][0-9]{0,3})_(?:[a-z]+_)?kind", name)
        if match is not None and isinstance(value, str):
            kinds[int(match[1])] = value
    layers: Network = ()
    while (cls := _by_kind.get(kinds.get(len(layers) + 1, ""))) is not None:
        names = [f"layer{len(layers) + 1}_{cls.prefix}_{hp.name}" for hp in cls.hyperparameters]
        allowed = [hp.values for hp in cls.hyperparameters]
        if not all(name in params and params[name] in own for name, own in zip(names, allowed, strict=True)):
            break
        values = (own[own.index(params[name])] for name, own in zip(names, allowed, strict=True))
        layers = (*layers, cls(*values))  # 8.0 is 8 there
    return layers


TABLE_I = Vocabulary("", (Conv, MaxPool, FCL), first=(Conv,))
"""The three kinds of layer of the paper, in the order of their bins."""
