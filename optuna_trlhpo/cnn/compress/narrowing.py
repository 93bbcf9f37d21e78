"""Narrowing of a network in place: its layers keep some of their filters, and its kernels their centres."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from optuna_trlhpo.cnn.compress.tracing import CONVOLUTIONS, TRANSPOSED, Traced
from optuna_trlhpo.cnn.compress.widths import Layout


def narrow(network: nn.Module, traced: Traced, widths: Mapping[int, int]) -> None:
    """Let groups of layers keep so many of their filters: those with the largest L1 norms, in their order.

    Where layers have one width together, the norms are summed, each relative to the mean of its layer.

    Args:
        network: Network that was traced, or a copy. It is changed in place.
        traced: Layers and groups of the network.
        widths: Numbers of filters by group, for the groups that change.
    """
    kept = {
        group: importance.topk(widths[group]).indices.sort().values
        for group, importance in _importances(network, traced).items()
        if group in widths
    }
    find = traced.groups.find
    for layer in traced.layers:
        part = network.get_submodule(layer.name)
        inputs, outputs = (
            _indices(layout, kept, find) if any(find(one.group) in kept for one in layout) else None
            for layout in (layer.inputs, layer.outputs)
        )
        if layer.follows:
            if inputs is not None:
                _keep_channels(part, inputs)
            continue
        if inputs is not None:
            _keep(part, "weight", inputs, axis=0 if isinstance(part, TRANSPOSED) else 1)
            _count(part, ("in_channels", "in_features"), len(inputs))
        if outputs is not None:
            _keep(part, "weight", outputs, axis=1 if isinstance(part, TRANSPOSED) else 0)
            _keep(part, "bias", outputs)
            _count(part, ("out_channels", "out_features"), len(outputs))


def with_kernel(part: nn.Module, kernel: int) -> None:
    """Let a convolution keep the centres of its kernels, and pad its inputs so that they keep their size."""
    assert isinstance(part, CONVOLUTIONS)
    margin = (part.kernel_size[0] - kernel) // 2
    axes = len(part.kernel_size)
    centre = (slice(None), slice(None), *[slice(margin, margin + kernel)] * axes)
    part.weight = nn.Parameter(part.weight.detach()[centre].clone())
    part.kernel_size = (kernel,) * axes
    # What PyTorch derives from kernel and padding for modes of padding other than zeros.
    part._reversed_padding_repeated_twice = [
        side for dilation in reversed(part.dilation) for side in [dilation * (kernel // 2)] * 2
    ]
    if not isinstance(part.padding, str):
        part.padding = tuple(dilation * (kernel // 2) for dilation in part.dilation)


def reset(network: nn.Module) -> None:
    """Draw new initial weights, as each layer does when it is made, from PyTorch's global generator."""
    for part in network.modules():
        draw: Any = getattr(part, "reset_parameters", None)
        if callable(draw):
            draw()


# Filters --------------------------------------------------------------------------------------------------


def _importances(network: nn.Module, traced: Traced) -> dict[int, Tensor]:
    """Return the L1 norms of the filters of each group, relative to their mean and summed over its layers."""
    found: dict[int, Tensor] = {}
    for layer in traced.layers:
        if layer.follows:
            continue
        part = network.get_submodule(layer.name)
        weight: Any = part.weight
        norms = weight.detach().transpose(0, 1) if isinstance(part, TRANSPOSED) else weight.detach()
        norms = norms.flatten(1).abs().sum(1)
        group = traced.groups.find(layer.outputs[0].group)
        found[group] = found.get(group, 0) + norms / norms.mean().clamp_min(1e-12)
    return found


def _indices(layout: Layout, kept: Mapping[int, Tensor], find: Any) -> Tensor:
    """Return the features of a tensor that are left, in order."""
    parts, start = [], 0
    for segment in layout:
        channels = kept.get(find(segment.group), torch.arange(segment.size))
        features = channels[:, None] * segment.repeat + torch.arange(segment.repeat)
        parts.append(start + features.flatten())
        start += segment.size * segment.repeat
    return torch.cat(parts)


def _keep_channels(part: nn.Module, channels: Tensor) -> None:
    """Let a normalisation, a PReLU or a depthwise convolution keep these channels."""
    for name in ("weight", "bias", "running_mean", "running_var"):
        _keep(part, name, channels)
    names = ("num_features", "num_parameters", "in_channels", "out_channels")
    _count(part, (*names, "groups") if isinstance(part, CONVOLUTIONS + TRANSPOSED) else names, len(channels))


def _keep(part: nn.Module, name: str, indices: Tensor, axis: int = 0) -> None:
    """Replace a parameter or buffer, if there is one, by its slices."""
    value = getattr(part, name, None)
    if not isinstance(value, Tensor):
        return
    slices = value.detach().index_select(axis, indices)
    if isinstance(value, nn.Parameter):
        setattr(part, name, nn.Parameter(slices, requires_grad=value.requires_grad))
    else:
        setattr(part, name, slices)


def _count(part: nn.Module, names: tuple[str, ...], number: int) -> None:
    for name in names:
        if hasattr(part, name):
            setattr(part, name, number)
