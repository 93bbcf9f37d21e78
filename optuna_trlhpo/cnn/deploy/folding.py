"""Folding of batch normalisation into the layers around it, for inference."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class Affine(nn.Module):
    """A scale and an offset for each channel: what a trained normalisation is in inference."""

    def __init__(self, scale: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.scale = nn.Parameter(scale)
        self.offset = nn.Parameter(offset)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the inputs, scaled and shifted."""
        return inputs * self.scale + self.offset


def folded(network: nn.Module) -> nn.Module:
    """Return a copy of a network in evaluation mode whose normalisations are folded.

    One behind a convolution becomes part of it; another becomes an `Affine`.

    Examples:
        >>> network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.BatchNorm2d(2))
        >>> [type(module).__name__ for module in folded(network.eval())]
        ['Conv2d', 'ReLU', 'Affine']
    """
    network = copy.deepcopy(network).eval()
    for parent in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        before: tuple[str, nn.Module] | None = None
        for name, module in list(parent.named_children()):
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_mean is not None:
                if before is not None and isinstance(before[1], nn.Conv2d):
                    setattr(parent, before[0], fuse_conv_bn_eval(before[1], module))
                    delattr(parent, name)
                    before = None
                    continue
                setattr(parent, name, _affine(module))
            before = (name, module)
    return network


@torch.no_grad()
def _affine(normalisation: nn.BatchNorm1d | nn.BatchNorm2d) -> Affine:
    mean, variance = normalisation.running_mean, normalisation.running_var
    assert mean is not None and variance is not None
    scale = (variance + normalisation.eps).rsqrt()
    offset = -mean * scale
    if normalisation.affine:
        scale, offset = scale * normalisation.weight, offset * normalisation.weight + normalisation.bias
    shape = (-1, 1, 1) if isinstance(normalisation, nn.BatchNorm2d) else (-1,)
    return Affine(scale.reshape(shape), offset.reshape(shape))
