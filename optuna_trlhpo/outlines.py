"""What networks come to, and what their layers are, in numbers of about [0, 1], for an agent to learn from.

`LayerSpace.signature` and `LayerSpace.outline` say what each number is. Notation as in `layers`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from optuna_trlhpo.layers import Network, Shape, Vocabulary

SIGNATURE = 8
"""Numbers that tell what a network comes to."""
OUTLINE = 11
"""Numbers that tell what a layer is and makes of the image."""


def signature_of(
    input_shape: Shape, shapes: Sequence[Shape], macs: int, *, num_classes: int, max_layers: int
) -> np.ndarray:
    """``[SIGNATURE]`` numbers of a network; see `LayerSpace.signature`.

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


def outline_of(
    input_shape: Shape,
    layers: Network,
    actions: np.ndarray,
    shapes: Sequence[Shape],
    macs: Sequence[int],
    *,
    vocabulary: Vocabulary,
) -> np.ndarray:
    """``[S, OUTLINE]`` numbers of a network of Table I; see `LayerSpace.outline`.

    Args:
        input_shape: Of the input.
        layers: Of the network.
        actions: That encode them, ``[S, 4]``.
        shapes: Behind each layer.
        macs: Up to each layer.
        vocabulary: Of the space.
    """
    rows = np.zeros((len(layers), OUTLINE))
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
