"""Conversion of networks to the parameters of a trial and to actions, and back.

Notation: S layers; actions ``[S, 4]`` in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.trial import BaseTrial

from optuna_trlhpo.layers import ACTION_SLOTS, Layer, Network, Vocabulary, unmasked
from optuna_trlhpo.space.grammar import Grammar


def suggest_layer(grammar: Grammar, trial: BaseTrial, layers: Network) -> Layer:
    """Ask ``trial`` for the layer that follows ``layers``: its kind, then its hyper-parameters."""
    k, kinds = len(layers) + 1, grammar.kinds(layers)
    # Optuna forbids a name to have two sets of choices, so a masked set has its own name.
    vocabulary = grammar.vocabulary
    is_unmasked = kinds == (vocabulary.kinds if k > 1 else vocabulary.first)
    mask = "" if is_unmasked else "_of_" + "_".join(cls.prefix for cls in kinds)
    name = f"layer{k}_{vocabulary.kind_field}{mask}"
    cls = vocabulary.by_kind[vocabulary.kind.suggest(trial, name, [cls.kind for cls in kinds])]
    values: list[Any] = []
    for hp in cls.hyperparameters:
        allowed = grammar.allowed(layers, cls, *values)
        is_unmasked = not hp.labels or allowed == hp.values
        mask = "" if is_unmasked else "_of_" + "_".join(map(hp.write, allowed))
        values.append(hp.suggest(trial, f"layer{k}_{cls.prefix}_{hp.name}{mask}", allowed))
    return cls(*values)


def to_params(grammar: Grammar, layers: Sequence[Layer]) -> dict[str, Any]:
    """Return the parameters of a trial; see `LayerSpace.to_params`."""
    grammar.check(layers)
    params: dict[str, Any] = {}
    for k, layer in enumerate(layers):
        recorder = RecordingTrial(layer)
        suggest_layer(grammar, recorder, tuple(layers[:k]))  # type: ignore[arg-type]
        params |= recorder.params
    return params


def from_params(grammar: Grammar, params: Mapping[str, Any]) -> Network:
    """Return the network of a trial's parameters; see `LayerSpace.from_params`."""
    layers: Network = ()
    for k in range(1, grammar.max_layers + 1):
        mine = {name: value for name, value in params.items() if name.startswith(f"layer{k}_")}
        if not mine or not grammar.kinds(layers):
            break
        replayed = ReplayTrial(mine)
        layers = (*layers, suggest_layer(grammar, replayed, layers))  # type: ignore[arg-type]
    return layers


def encode(vocabulary: Vocabulary, layers: Sequence[Layer]) -> np.ndarray:
    """Return the actions of layers; see `LayerSpace.encode`."""
    actions = np.zeros((len(layers), ACTION_SLOTS))
    for row, layer in zip(actions, layers, strict=True):
        row[0] = vocabulary.kind.encode(layer.kind)
        values = layer.values
        row[1 : 1 + len(values)] = [
            hp.encode(value) for hp, value in zip(layer.hyperparameters, values, strict=True)
        ]
    return actions


def decode(grammar: Grammar, actions: np.ndarray) -> Network:
    """Return the network of actions; see `LayerSpace.decode`."""
    actions = np.asarray(actions, dtype=float)
    if actions.ndim != 2 or actions.shape[1] != ACTION_SLOTS or not ((0 <= actions) & (actions <= 1)).all():
        raise ValueError(
            f"actions have shape {actions.shape}; they must be [layers, {ACTION_SLOTS}] numbers in [0, 1]"
        )
    layers: Network = ()
    for row in actions:
        kinds = grammar.kinds(layers)
        if not kinds:
            break
        kind = grammar.vocabulary.kind.nearest(row[0], [cls.kind for cls in kinds])
        cls = grammar.vocabulary.by_kind[kind]
        values: list[Any] = []
        for hp, action in zip(cls.hyperparameters, row[1:], strict=False):
            values.append(hp.nearest(action, grammar.allowed(layers, cls, *values)))
        layers = (*layers, cls(*values))
    return layers


class RecordingTrial:
    """A substitute for a trial that answers with the values of one layer and records the names asked for."""

    def __init__(self, layer: Layer) -> None:
        values = layer.values
        self._values = dict(zip((hp.name for hp in layer.hyperparameters), values, strict=True))
        self._values["kind"] = layer.kind
        self.params: dict[str, Any] = {}

    def suggest_int(self, name: str, *_: Any, **__: Any) -> Any:
        """Return the layer's value for this parameter, and record it."""
        field = unmasked(name).split("_")[-1]
        self.params[name] = self._values[field]
        return self.params[name]

    suggest_categorical = suggest_int


class ReplayTrial:
    """A substitute for a trial that answers from given parameters and reports a missing or wrong one.

    A parameter of another mask, from a study with other limits or of another version, counts too.
    """

    def __init__(self, params: Mapping[str, Any]) -> None:
        self._params = params
        self._by_field = {unmasked(name): value for name, value in params.items()}

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> Any:
        """Return the given value of an integer parameter."""
        return self.suggest_categorical(name, range(low, high + 1, step))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return the given value of a parameter.

        Raises:
            ValueError: If the value is missing or not among the choices.
        """
        if name in self._params:
            value = self._params[name]
        elif unmasked(name) in self._by_field:
            value = self._by_field[unmasked(name)]
        else:
            raise ValueError(
                f"parameter {name!r} is missing; the parameters are {', '.join(sorted(self._params))}"
            )
        if value not in choices:
            span = (
                f"{choices[0]} to {choices[-1]}"
                if isinstance(choices, range)
                else ", ".join(map(str, choices))
            )
            raise ValueError(f"parameter {name!r} is {value!r}; it must be one of {span}")
        return value
