"""Costs of a network that is given as a module."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from optuna_trlhpo.cnn.compress.tracing import CONVOLUTIONS, TRANSPOSED
from optuna_trlhpo.cnn.deploy.cost import count_parameters
from optuna_trlhpo.cnn.goals import Counts
from optuna_trlhpo.layers.counting import count_macs


def count_costs(network: nn.Module, input_shape: Sequence[int]) -> Counts:
    """Count the costs of a network, without computing anything.

    Its layers are its convolutions and linear layers, except for the last of them, which is the classifier.
    Activations are counted for modules without parts, not for functions in the network's own code.

    Args:
        network: Network that takes ``[B, *input_shape]``. It is left as it is.
        input_shape: Shape of one input, without the batch axis.

    Examples:
        >>> conv, end = nn.Conv2d(1, 8, 3), nn.Sequential(nn.Flatten(), nn.Linear(288, 10))
        >>> count_costs(nn.Sequential(conv, end), (1, 8, 8))
        Counts(macs=5472, parameters=2970, activation_bytes=2304, layers=1)
    """
    shadow = copy.deepcopy(network).to("meta").eval()
    sizes = [0]

    def note(part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        tensors = [it for it in (*inputs, output) if isinstance(it, Tensor)]
        sizes.append(sum(it[0].numel() * it.element_size() for it in tensors if it.ndim))

    for part in shadow.modules():
        if not any(True for _ in part.children()):
            part.register_forward_hook(note)
    with torch.no_grad():
        shadow(torch.empty(1, *input_shape, device="meta"))
    layers = sum(isinstance(part, (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)) for part in shadow.modules())
    return Counts(
        macs=count_macs(network, input_shape),
        parameters=count_parameters(network),
        activation_bytes=max(sizes),
        layers=max(layers - 1, 0),
    )


def count_bytes(network: nn.Module) -> int:
    """Return the size of all parameters and buffers in bytes.

    Examples:
        >>> count_bytes(nn.Linear(3, 2))
        32
    """
    tensors = itertools.chain(network.parameters(), network.buffers())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
