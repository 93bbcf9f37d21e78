"""A small U-Net for segmentation (Ronneberger, Fischer and Brox, 2015, arXiv:1505.04597, figure 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from optuna_trlhpo._checks import check_positive_integer


class UNet(nn.Module):
    """A U-Net, whose output has the size of its input.

    A contracting path of ``depth`` levels halves the size and doubles the channels. An expanding path doubles
    the size, and joins the features of the same level of the contracting path. Each level has two 3x3
    convolutions. Unlike those of the paper, they pad their inputs, so that nothing is cropped, and
    normalise their outputs over the batch.

    Args:
        in_channels: Number of channels of the images.
        num_classes: Number of classes of a pixel.
        width: Number of channels of the first level. The paper has 64.
        depth: Number of levels above the lowest. The paper has 4. Height and width of an image must be
            divisible by ``2 ** depth``.

    Raises:
        ValueError: If a number is not a positive integer.

    Examples:
        >>> UNet(1, 11, width=4, depth=2)(torch.zeros(2, 1, 16, 16)).shape
        torch.Size([2, 11, 16, 16])
    """

    def __init__(self, in_channels: int, num_classes: int, *, width: int = 64, depth: int = 4) -> None:
        super().__init__()
        check_positive_integer("in_channels", in_channels)
        check_positive_integer("num_classes", num_classes)
        check_positive_integer("width", width)
        check_positive_integer("depth", depth)
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            _level(before, after) for before, after in zip([in_channels, *widths], widths, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * channels, channels, 2, stride=2) for channels in reversed(widths[:-1])
        )
        self.joined = nn.ModuleList(_level(2 * channels, channels) for channels in reversed(widths[:-1]))
        self.classify = nn.Conv2d(width, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[B, classes, H, W]`` for images ``[B, C, H, W]``."""
        features, skipped = self.down[0](images), []
        for level in list(self.down)[1:]:
            skipped.append(features)
            features = level(self.pool(features))
        for up, level in zip(self.up, self.joined, strict=True):
            features = level(torch.cat([skipped.pop(), up(features)], dim=1))
        logits: Tensor = self.classify(features)
        return logits


def _level(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()),
        *(nn.Conv2d(after, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()),
    )
