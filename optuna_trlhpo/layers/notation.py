"""Networks as text, and as the parameters of a trial."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from optuna_trlhpo.layers.layer import Layer, Network
from optuna_trlhpo.layers.vocabulary import layer_kinds, unmasked


def describe(layers: Sequence[Layer]) -> str:
    """Return the network as one line of text. `parse` is the inverse.

    Examples:
        >>> from optuna_trlhpo.layers import FCL, Conv, MaxPool
        >>> describe([Conv(32, 5, 1), MaxPool(2, 2, 0), FCL(128, "relu", True)])
        'Conv(32,5,1) > MaxPool(2,2,0) > FCL(128,relu,bias)'
    """
    return " > ".join(str(layer) for layer in layers)


def parse(text: str) -> Network:
    """Return the network that `describe` wrote. Spaces are ignored.

    Raises:
        ValueError: If a layer is unknown or malformed. The message names the layer and the allowed forms.

    Examples:
        >>> parse("Conv(32,5,1) > FCL(128,relu,bias)")[0].filters
        32
    """
    return tuple(_parse_layer(part.strip()) for part in text.split(">") if part.strip())


def _parse_layer(text: str) -> Layer:
    match = re.fullmatch(r"(\w+)\s*\((.*)\)", text)
    cls = layer_kinds.get(match[1]) if match else None
    if match is None or cls is None:
        raise ValueError(
            f"{text!r} is not a layer; it must be one of {', '.join(_form(c) for c in layer_kinds.values())}"
        )
    written = [part.strip() for part in match[2].split(",")] if match[2].strip() else []
    if len(written) != len(cls.hyperparameters):
        raise ValueError(f"{text!r} has {len(written)} values; it must have the form {_form(cls)}")
    try:
        return cls(*(hp.read(part) for hp, part in zip(cls.hyperparameters, written, strict=True)))
    except ValueError as error:
        raise ValueError(f"in {text!r}, {error}") from None


def _form(cls: type[Layer]) -> str:
    return f"{cls.kind}({','.join(hp.name for hp in cls.hyperparameters)})"


def network_in(params: Mapping[str, Any]) -> Network:
    """Return the network that a trial's ``params`` describe, whatever its space; empty if there is none.

    The network ends before the first layer that is incomplete, of an unknown kind, or that has a value which
    its kind does not allow: unrelated parameters may have such names.

    `LayerSpace.from_params` reads the same network and validates it.

    Examples:
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
    while (cls := layer_kinds.get(kinds.get(len(layers) + 1, ""))) is not None:
        names = [f"layer{len(layers) + 1}_{cls.prefix}_{hp.name}" for hp in cls.hyperparameters]
        allowed = [hp.values for hp in cls.hyperparameters]
        if not all(name in params and params[name] in own for name, own in zip(names, allowed, strict=True)):
            break
        values = (own[own.index(params[name])] for name, own in zip(names, allowed, strict=True))
        layers = (*layers, cls(*values))  # turns 8.0 into 8
    return layers
