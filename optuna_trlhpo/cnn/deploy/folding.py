"""Folding of batch normalisation into the layers around it, for inference."""

from __future__ import annotations

import copy
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Affine(nn.Module):
    """A scale and an offset ``[C]`` for each channel: what a trained normalisation is in inference."""

    def __init__(self, scale: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.scale = nn.Parameter(scale)
        self.offset = nn.Parameter(offset)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the inputs ``[B, C, ...]``, scaled and shifted."""
        shape = (-1, *[1] * (inputs.ndim - 2))
        return inputs * self.scale.reshape(shape) + self.offset.reshape(shape)


def folded(network: nn.Module) -> nn.Module:
    """Return a copy of a network in evaluation mode whose normalisations are folded.

    One behind a convolution in an `nn.Sequential` becomes part of it; any other becomes an `Affine`.

    Examples:
        >>> network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.BatchNorm2d(2))
        >>> [type(module).__name__ for module in folded(network.eval())]
        ['Conv2d', 'Identity', 'ReLU', 'Affine']
    """
    network = copy.deepcopy(network).eval()
    # Of other modules it is not known what follows what.
    for module in network.modules():
        if isinstance(module, nn.Sequential) and _is_in_order(module):
            _fuse(module)
    # A module that stands in two places is replaced in both.
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if name and _is_foldable(module):
            network.set_submodule(name, _affine(module))
    return _affine(network) if _is_foldable(network) else network


def _fuse(sequence: nn.Sequential) -> None:
    """Make each normalisation that stands right behind a convolution part of it."""
    for index in range(1, len(sequence)):
        before, module = sequence[index - 1], sequence[index]
        # A subclass may do something else.
        if type(before) in _CONVOLUTIONS and _is_foldable(module):
            assert isinstance(before, _CONVOLUTIONS)
            sequence[index - 1] = fuse_conv_bn_eval(before, module)
            sequence[index] = nn.Identity()


def _is_foldable(module: nn.Module) -> TypeGuard[nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d]:
    """Return whether this is a normalisation with statistics, and no subclass of one."""
    return type(module) in _NORMALISATIONS and module.running_mean is not None


def _is_in_order(module: nn.Sequential) -> bool:
    """Return whether the children are called one after the other."""
    return type(module).forward is nn.Sequential.forward


@torch.no_grad()
def _affine(normalisation: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) -> Affine:
    mean, variance = normalisation.running_mean, normalisation.running_var
    assert mean is not None and variance is not None
    scale = (variance + normalisation.eps).rsqrt()
    offset = -mean * scale
    if normalisation.affine:
        scale, offset = scale * normalisation.weight, offset * normalisation.weight + normalisation.bias
    return Affine(scale, offset)
