"""Counts of a module, as PyTorch counts them: multiply-accumulates (MACs)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def count_macs(model: nn.Module, input_shape: Sequence[int]) -> int:
    """MACs of convolutions and matrix products for one input; biases, activations and pooling count nothing.

    PyTorch's own count of operations, halved; for the layers of a `LayerSpace` it equals `LayerSpace.macs`.

    Args:
        model: Module that takes ``[B, *input_shape]``; it is left as it is.
        input_shape: Shape of one input, without the batch axis.

    Examples:
        >>> from torch import nn
        >>> count_macs(nn.Conv2d(1, 8, kernel_size=3), (1, 8, 8))
        2592
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    # On the meta device nothing is computed: only shapes are worked out.
    shadow = copy.deepcopy(model).to("meta").eval()
    some = next(shadow.parameters(), torch.empty(0))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shadow(torch.empty(1, *input_shape, device="meta", dtype=some.dtype))
    return counter.get_total_flops() // 2
