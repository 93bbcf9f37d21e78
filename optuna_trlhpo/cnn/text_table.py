"""Plain-text tables with aligned columns."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from optuna_trlhpo.layers import Network, Shape
from optuna_trlhpo.space import LayerSpace


def layer_table(space: LayerSpace, layers: Network, reports: Mapping[int, float]) -> str:
    """Return a table with the output, accuracy, gain and cost of each layer; see `CNNObjective.table`."""
    rows = [("layer", "output", "accuracy", "gain", "parameters", "MACs")]
    shapes: tuple[Shape, ...] = (space.input_shape, *space.shapes(layers))
    before: float | None = 0.0  # of the latest network that was trained; a later one has none before it
    for k, layer in enumerate(layers):
        scores = ("-", "-")
        if k in reports:
            gain = "-" if before is None else f"{reports[k] - before:+.4f}"
            scores, before = (f"{reports[k]:.4f}", gain), reports[k]
        elif k == 0:
            before = None
        costs = f"{layer.parameters(shapes[k]):,}", f"{layer.macs(shapes[k]):,}"
        rows.append((str(layer), shape_text(shapes[k + 1]), *scores, *costs))
    classes, features = space.num_classes, math.prod(shapes[-1])
    costs = f"{(features + 1) * classes:,}", f"{features * classes:,}"
    rows.append(("classifier", str(classes), "", "", *costs))
    own = [k for k in reports if k < len(layers)]
    final = f"{reports[max(own)]:.4f}" if own else "-"
    rows.append(("total", "", final, "", f"{space.parameters(layers):,}", f"{space.macs(layers):,}"))
    return aligned(rows, left={0, 1})


def shape_text(shape: Shape) -> str:
    """Format a shape, such as ``"8x6x6"``."""
    return "x".join(map(str, shape))


def aligned(rows: Sequence[Sequence[str]], *, left: Collection[int]) -> str:
    """Format rows as a table with a rule below the first row.

    The columns in ``left`` are aligned to the left, the others to the right.

    Examples:
        >>> print(aligned([("layer", "MACs"), ("FCL", "90"), ("Conv", "1,080")], left={0}))
        layer   MACs
        ------------
        FCL       90
        Conv   1,080
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(line.rstrip() for line in lines)
