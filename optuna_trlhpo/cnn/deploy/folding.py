"""Folding of batch normalisation into the layers around it, for inference."""

from __future__ import annotations

import copy

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

    One behind a convolution becomes part of it; another becomes an `Affine`.

    Examples:
        >>> network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.BatchNorm2d(2))
        >>> [type(module).__name__ for module in folded(network.eval())]
        ['Conv2d', 'ReLU', 'Affine']
    """
    network = copy.deepcopy(network).eval()
    # Of other modules it is not known what follows what.
    sequences = [it for it in network.modules() if isinstance(it, nn.Sequential) and _is_in_order(it)]
    for parent in sequences:
        before: tuple[str, nn.Module] | None = None
        for name, module in list(parent.named_children()):
            if isinstance(module, _NORMALISATIONS) and module.running_mean is not None:
                if before is not None and isinstance(before[1], _CONVOLUTIONS):
                    setattr(parent, before[0], fuse_conv_bn_eval(before[1], module))
                    delattr(parent, name)
                    before = None
                    continue
                setattr(parent, name, _affine(module))
            before = (name, module)
    return network


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
