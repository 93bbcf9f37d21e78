"""Networks and their layers as features of about [0, 1], from which an agent learns.

`LayerSpace.network_descriptor` and `LayerSpace.layer_features` define each feature. Notation as in `layers`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from optuna_trlhpo.layers import TABLE_I, Network, Shape, Vocabulary
from optuna_trlhpo.layers.model_size import number_bytes
from optuna_trlhpo.space.grammar import Grammar
from optuna_trlhpo.space.limits import next_position

NETWORK_DESCRIPTOR = 8
"""Number of features of a network."""
_FEATURES_BESIDE_KIND = 8
_MOST = {"max_macs": 1e9, "max_parameters": 1e7, "max_activation_bytes": 1e7}
"""Value of each limit that stands for none in the features of a space."""


def network_descriptor_of(
    input_shape: Shape, shapes: Sequence[Shape], macs: int, *, num_classes: int, max_layers: int
) -> np.ndarray:
    """Return ``[NETWORK_DESCRIPTOR]`` features of a network; see `LayerSpace.network_descriptor`.

    Args:
        input_shape: Shape of the input.
        shapes: Output shape of each layer.
        macs: MACs of all layers, without the classifier.
        num_classes: Number of outputs of the classifier.
        max_layers: Largest number of layers of a network of the space.
    """
    sizes = [math.prod(out) for out in shapes]
    # The steps of a sequence count as its height; features have none.
    images = [(*out[-1:], out[0]) if len(out) == 2 else out for out in shapes if len(out) > 1] or [(1, 1)]
    height = 1 if len(input_shape) == 1 else input_shape[len(input_shape) - 2]
    size, wide = math.log(max(height, 2)), math.log(128 * math.prod(input_shape[1:]))
    return np.array(
        [
            len(shapes) / max_layers,
            math.log(macs + sizes[-1] * num_classes) / math.log(1e9),
            math.log(sizes[-1]) / wide,
            math.log(min(sizes)) / wide,
            math.log(images[-1][0]) / math.log(128),
            math.log(images[-1][1]) / size,
            math.log(math.prod(images[-1])) / wide,
            math.log(images[0][1]) / size,
        ]
    )


def n_layer_features(vocabulary: Vocabulary) -> int:
    """Return the number of features of a layer: its kind, and eight others."""
    return len(vocabulary.kinds) + _FEATURES_BESIDE_KIND


def layer_features_of(
    input_shape: Shape,
    layers: Network,
    actions: np.ndarray,
    shapes: Sequence[Shape],
    macs: Sequence[int],
    *,
    vocabulary: Vocabulary,
) -> np.ndarray:
    """Return ``[S, K + 8]`` features of the layers of a network; see `LayerSpace.layer_features`.

    Args:
        input_shape: Shape of the input.
        layers: Layers of the network.
        actions: ``[S, 4]`` actions that encode the layers.
        shapes: Output shape of each layer.
        macs: Cumulative MACs up to each layer.
        vocabulary: Vocabulary of the space.
    """
    K = len(vocabulary.kinds)
    rows = np.zeros((len(layers), n_layer_features(vocabulary)))
    for row, action, layer, out, work in zip(rows, actions, layers, shapes, macs, strict=True):
        row[vocabulary.kind.values.index(layer.kind)] = 1
        n = len(layer.values)
        row[K : K + n] = action[1 : 1 + n]
        row[K + 3 :] = (
            math.log(out[1]) / math.log(28) if len(out) == 3 else 0,
            math.log(out[0]) / math.log(128),
            math.log(math.prod(out)) / math.log(128 * 28 * 28),
            math.log(max(work, 1)) / math.log(1e9),
            math.log(input_shape[1]) / math.log(28),
        )
    return rows


def space_features_of(grammar: Grammar) -> np.ndarray:
    """Return the features ``[F]`` of a space; see `LayerSpace.space_features`."""
    # The actor for Table I was trained without the other limits.
    names = ["max_macs"] if grammar.vocabulary == TABLE_I else list(_MOST)
    limits = [_as_of_floats(grammar)[name] for name in names]
    most = [_MOST[name] for name in names]
    values = [bound if limit is None else limit for limit, bound in zip(limits, most, strict=True)]
    return np.log([grammar.input_shape[-1], *values]) / np.log([28, *most])


def _as_of_floats(grammar: Grammar) -> dict[str, float | None]:
    """Return the limits as the actor for `kinds.CNN` was trained with them: on networks of 32-bit floats."""
    size = number_bytes(grammar.quantize)
    parameters, activations = grammar.max_parameters, grammar.max_activation_bytes
    if grammar.max_model_bytes is not None:
        parameters = min(grammar.max_model_bytes // size, parameters or grammar.max_model_bytes)
    return {
        "max_macs": grammar.max_macs,
        "max_parameters": parameters,
        "max_activation_bytes": None if activations is None else activations * 4 // size,
    }


def walk(
    grammar: Grammar, actions: np.ndarray, *, whole: bool = True
) -> tuple[Network, list[Shape], list[int]] | None:
    """Return the layers that ``actions`` encode, their output shapes and their cumulative MACs.

    None if a layer is not allowed at its position, or if the network is meant to be ``whole`` and misses a
    limit.
    """
    if not 0 < len(actions) <= grammar.max_layers:
        return None
    layers: Network = ()
    shapes: list[Shape] = []
    macs: list[int] = []
    position = grammar.position(())
    for row in actions.tolist():
        layer = grammar.vocabulary.layer_of(tuple(row))
        if layer is None or not (layers or type(layer) in grammar.vocabulary.first):
            return None
        behind = next_position(position, layer)
        if behind is None:
            return None
        layers = (*layers, layer)
        shapes.append(behind.shape)
        macs.append(layer.macs(position.shape) + (macs[-1] if macs else 0))
        position = behind
    # `Position.fits` checks all limits but those on the size, which only a whole network must meet.
    fits = not (whole and position.sizes_left) or grammar.fits(layers)
    return (layers, shapes, macs) if fits else None
