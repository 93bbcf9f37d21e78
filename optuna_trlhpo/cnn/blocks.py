"""Modules that PyTorch does not have: what some of the `kinds` of layer are made of.

Notation: B inputs, C channels, H height, W width, T steps, F features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two convolutions and a way past them: ``[B, C, H, W]`` to ``[B, filters, H / stride, W / stride]``."""

    def __init__(self, channels: int, filters: int, kernel: int, stride: int) -> None:
        super().__init__()
        padding = kernel // 2
        self.body = nn.Sequential(
            nn.Conv2d(channels, filters, kernel, stride, padding=padding, bias=False),
            nn.BatchNorm2d(filters),
            nn.ReLU(),
            nn.Conv2d(filters, filters, kernel, padding=padding, bias=False),
            nn.BatchNorm2d(filters),
        )
        self.past: nn.Module = nn.Identity()
        if stride != 1 or channels != filters:
            self.past = nn.Sequential(
                nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters)
            )

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(self.body(images) + self.past(images))


class Mean(nn.Module):
    """The mean over some axes, counted with the batch as axis 0."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.mean(dim=self.axes)

    def extra_repr(self) -> str:
        return f"axes={self.axes}"


class States(nn.Module):
    """An LSTM's states at every step: ``[B, T, F]`` to ``[B, T, units]``, or twice as many in both
    directions."""

    def __init__(self, features: int, units: int, *, bidirectional: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, units, batch_first=True, bidirectional=bidirectional)

    def forward(self, sequences: Tensor) -> Tensor:
        states: Tensor = self.lstm(sequences)[0]
        return states
