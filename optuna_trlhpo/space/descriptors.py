"""Networks and their layers as numbers of about [0, 1], from which an agent learns.

`LayerSpace.network_descriptor` and `LayerSpace.layer_features` define each number. Notation as in `layers`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from optuna_trlhpo.layers import Network, Shape, Vocabulary
from optuna_trlhpo.space.grammar import Grammar
from optuna_trlhpo.space.limits import next_position

NETWORK_DESCRIPTOR = 8
"""Numbers that describe a network."""
LAYER_FEATURES = 11
"""Numbers that describe a layer and its output."""


def network_descriptor_of(
    input_shape: Shape, shapes: Sequence[Shape], macs: int, *, num_classes: int, max_layers: int
) -> np.ndarray:
    """``[NETWORK_DESCRIPTOR]`` numbers of a network; see `LayerSpace.network_descriptor`.

    Args:
        input_shape: Of the input.
        shapes: Behind each layer.
        macs: Of all layers, the classifier not counted.
        num_classes: Outputs of the classifier.
        max_layers: Of a network of the space.
    """
    sizes = [math.prod(out) for out in shapes]
    # Of sequences the steps count as the height, of features there is none.
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


def layer_features_of(
    input_shape: Shape,
    layers: Network,
    actions: np.ndarray,
    shapes: Sequence[Shape],
    macs: Sequence[int],
    *,
    vocabulary: Vocabulary,
) -> np.ndarray:
    """``[S, LAYER_FEATURES]`` numbers of a network of Table I; see `LayerSpace.layer_features`.

    Args:
        input_shape: Of the input.
        layers: Of the network.
        actions: That encode them, ``[S, 4]``.
        shapes: Behind each layer.
        macs: Up to each layer.
        vocabulary: Of the space.
    """
    rows = np.zeros((len(layers), LAYER_FEATURES))
    for row, action, layer, out, work in zip(rows, actions, layers, shapes, macs, strict=True):
        row[vocabulary.kind.values.index(layer.kind)] = 1
        n = len(layer.values)
        row[3 : 3 + n] = action[1 : 1 + n]
        row[6:] = (
            math.log(out[1]) / math.log(28) if len(out) == 3 else 0,
            math.log(out[0]) / math.log(128),
            math.log(math.prod(out)) / math.log(128 * 28 * 28),
            math.log(max(work, 1)) / math.log(1e9),
            math.log(input_shape[1]) / math.log(28),
        )
    return rows


def walk(grammar: Grammar, actions: np.ndarray) -> tuple[Network, list[Shape], list[int]] | None:
    """The layers that ``actions`` stand for, the shape behind each and the MACs up to it; None if one may
    not stand where it stands."""
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
    # Of the limits `Position.fits` leaves one open.
    return (layers, shapes, macs) if grammar.max_parameters is None or grammar.fits(layers) else None
