"""What a network costs: parameters, and multiply-accumulates (MACs) for one image."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """All weights and biases.

    Example:
        >>> count_parameters(nn.Linear(3, 2))
        8
    """
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, input_shape: Sequence[int]) -> int:
    """MACs of convolutions and matrix products for one image; biases, activations and pooling count nothing.

    PyTorch's own count of operations, halved; for the layers of a `LayerSpace` it equals `LayerSpace.macs`.

    Args:
        model: Any module that takes ``[B, *input_shape]``; it is left as it is.
        input_shape: Without the batch axis.

    Example:
        >>> count_macs(nn.Conv2d(1, 8, kernel_size=3), (1, 8, 8))
        2592
    """
    # On the meta device nothing is computed: shapes alone are worked out.
    shadow = copy.deepcopy(model).to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shadow(torch.empty(1, *input_shape, device="meta"))
    return counter.get_total_flops() // 2
