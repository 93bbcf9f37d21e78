"""Vocabularies, the kinds of layer that a space has, and the registry that finds kinds by name."""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from optuna_trlhpo.layers.hyperparameter import Hyperparameter
from optuna_trlhpo.layers.layer import ACTION_SLOTS, Layer

# Vocabularies ------------------------------------------------------------------------------------------


vocabularies: dict[str, Vocabulary] = {}
layer_kinds: dict[str, type[Layer]] = {}
layer_prefixes: dict[str, type[Layer]] = {}


@dataclass(frozen=True)
class Vocabulary:
    """The kinds of layer that the networks of a `LayerSpace` have.

    Creating a vocabulary registers its kinds, so `parse` and the sampler recognise them by name.

    Args:
        name: Lower-case letters. The name is part of the parameters' names, ``layer1_<name>_kind``. That of
            Table I is empty.
        kinds: Kinds of layer, in the order of their bins.
        first: Kinds that a network may begin with.
        axes: Number of axes of an input: 3 for images ``(channels, height, width)``, 2 for sequences
            ``(steps, features)``, 1 for features.

    Raises:
        ValueError: If a name is taken or invalid, or a kind is not a frozen dataclass of at most three
            hyper-parameters.

    Examples:
        >>> from optuna_trlhpo.layers import Conv, MaxPool
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
            raise ValueError(
                f"the name of the vocabulary is {self.name!r}; it must consist of letters from a to z"
            )
        if not self.first or not set(self.first) <= set(self.kinds):
            raise ValueError(
                f"first is {self.first!r}; it must contain at least one kind, all from the vocabulary"
            )
        for cls in self.kinds:
            _check_kind(cls)
        other = vocabularies.get(self.name)
        if other is not None and [cls.kind for cls in other.kinds] != [cls.kind for cls in self.kinds]:
            raise ValueError(
                f"a vocabulary named {self.name!r} exists with other kinds: {', '.join(other.kind.values)}"
            )
        for cls in self.kinds:
            layer_kinds[cls.kind] = layer_prefixes[cls.prefix] = cls
        if other != self:  # unpickling creates it again
            vocabularies[self.name] = self
        hyperparameter_named.cache_clear()

    def __reduce__(self) -> tuple[Any, ...]:  # unpickling registers it in another process
        return Vocabulary, (self.name, self.kinds, self.first, self.axes)

    @functools.cached_property
    def kind(self) -> Hyperparameter:
        """The choice of a layer's kind, as a hyper-parameter."""
        names = tuple(cls.kind for cls in self.kinds)
        return Hyperparameter("kind", names, names)

    @functools.cached_property
    def by_kind(self) -> dict[str, type[Layer]]:
        """The kinds of layer by name."""
        return {cls.kind: cls for cls in self.kinds}

    @functools.cached_property
    def value_counts(self) -> tuple[int, ...]:
        """Number of values of each hyper-parameter of each kind, in order."""
        return tuple(len(hp.values) for cls in self.kinds for hp in cls.hyperparameters)

    @functools.cached_property
    def first_values(self) -> tuple[int, ...]:
        """For each kind, the number of values of all kinds before it."""
        counts = [sum(len(hp.values) for hp in cls.hyperparameters) for cls in self.kinds]
        return tuple(itertools.accumulate(counts[:-1], initial=0))

    @functools.lru_cache(maxsize=65536)  # noqa: B019  (vocabularies are few)
    def layer_of(self, actions: tuple[float, ...]) -> Layer | None:
        """Return the layer that actions in [0, 1] encode: its kind, then its hyper-parameters.

        None if the action of a hyper-parameter is missing (NaN).
        """
        cls = self.by_kind[self.kind.decode(actions[0])]
        own = actions[1 : 1 + len(cls.hyperparameters)]
        if any(math.isnan(action) for action in own):
            return None
        return cls(*(hp.decode(action) for hp, action in zip(cls.hyperparameters, own, strict=True)))

    def __repr__(self) -> str:
        return f"<Vocabulary {self.name!r} of {', '.join(self.kind.values)}>"

    @property
    def kind_field(self) -> str:
        """Name of the parameter of a layer's kind, without ``layer<k>_``."""
        return f"{self.name}_kind" if self.name else "kind"


def _check_kind(cls: Any) -> None:
    if Layer not in getattr(cls, "__mro__", ()):
        raise ValueError(f"{cls!r} is not a kind of layer; it must be a subclass of Layer")
    for name in ("kind", "prefix", "hyperparameters"):
        if not hasattr(cls, name):
            raise ValueError(
                f"{cls.__name__} has no {name}; a kind of layer must define kind, prefix and hyperparameters"
            )
    if not re.fullmatch(r"\w+", cls.kind) or not re.fullmatch("[a-z]+", cls.prefix):
        raise ValueError(
            f"{cls.__name__} has kind {cls.kind!r} and prefix {cls.prefix!r}; kind must be one word, and "
            "prefix must consist of letters from a to z"
        )
    if len(cls.hyperparameters) >= ACTION_SLOTS:
        raise ValueError(
            f"{cls.kind} has {len(cls.hyperparameters)} hyper-parameters; at most {ACTION_SLOTS - 1} are "
            "allowed"
        )
    for hp in cls.hyperparameters:
        if not re.fullmatch("[a-z]+", hp.name) or hp.name == "kind":
            raise ValueError(
                f"a hyper-parameter of {cls.kind} is named {hp.name!r}; its name must consist of letters "
                "from a to z, and must not be 'kind'"
            )
    names = [hp.name for hp in cls.hyperparameters]
    made = getattr(cls, "__dataclass_params__", None)
    if made is None or not made.frozen or names != [field.name for field in fields(cls)]:
        raise ValueError(
            f"{cls.__name__} must be a dataclass, @dataclass(frozen=True), whose fields are its "
            f"hyper-parameters in order: {', '.join(names) or 'none'}"
        )
    for other in (layer_kinds.get(cls.kind), layer_prefixes.get(cls.prefix)):
        # A class that is defined again, as in a notebook, replaces itself.
        if other not in (None, cls) and other.__qualname__ != cls.__qualname__:
            raise ValueError(
                f"{cls.__name__} has kind {cls.kind!r} and prefix {cls.prefix!r}, of which at least one is "
                f"already used by {other.__name__}"
            )


def unmasked(name: str) -> str:
    """Return the name of a layer's parameter without its list of remaining choices; other names unchanged.

    Optuna forbids a name to have two sets of choices, so a masked set has its own name.

    Examples:
        >>> unmasked("layer2_kind_of_pool_fcl"), unmasked("layer2_fcl_bias_of_nobias"), unmasked("lr")
        ('layer2_kind', 'layer2_fcl_bias', 'lr')
    """
    return re.sub(r"(layer[1-9]\d*_[a-z]+(?:_[a-z]+)?)_of_.*", r"\1", name)


@functools.lru_cache(maxsize=4096)
def hyperparameter_named(name: str) -> Hyperparameter | None:
    """Return the hyper-parameter that a parameter's name refers to, or None."""
    match = re.fullmatch(r"layer[1-9]\d*_(?:([a-z]+)_)?([a-z]+)", unmasked(name))
    if match is None:
        return None
    if match[2] == "kind":
        vocabulary = vocabularies.get(match[1] or "")
        return None if vocabulary is None else vocabulary.kind
    candidates = getattr(layer_prefixes.get(match[1]), "hyperparameters", ())
    return next((hp for hp in candidates if hp.name == match[2]), None)


def hyperparameter_of(name: str, distribution: BaseDistribution) -> Hyperparameter | None:
    """Return the hyper-parameter of a layer that a parameter of a `LayerSpace` represents, or None.

    A masked range is encoded on the scale of the full range, so a 5x5 kernel is the same action in every
    layer. A parameter that has such a name by coincidence is recognised by its values.

    Examples:
        >>> hyperparameter_of("layer2_conv_kernel", IntDistribution(3, 5, step=2)).values
        (3, 5, 7)
        >>> hyperparameter_of("n_units_l0", IntDistribution(4, 128)) is None
        True
    """
    found = hyperparameter_named(name)
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
    """Return the vocabulary with this name, which is empty for Table I.

    Raises:
        ValueError: If there is none. The vocabularies of `kinds` are created when that module is imported.
    """
    if name not in vocabularies:
        known = ", ".join(repr(other) for other in sorted(vocabularies))
        raise ValueError(f"unknown vocabulary {name!r}; import the module that defines it (known: {known})")
    return vocabularies[name]
