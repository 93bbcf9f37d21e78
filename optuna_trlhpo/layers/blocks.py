"""PyTorch modules that some of the `kinds` of layer need and PyTorch itself does not have.

Notation: B batch size, C channels, H height, W width, T steps, F features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut: ``[B, C, H, W]`` to ``[B, filters, H / stride, W / stride]``."""

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
    """The mean over some axes; axis 0 is the batch."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.mean(dim=self.axes)

    def extra_repr(self) -> str:
        return f"axes={self.axes}"


class SwapAxes(nn.Module):
    """Exchange of steps and features: ``[B, T, F]`` to ``[B, F, T]`` or back."""

    def forward(self, sequences: Tensor) -> Tensor:
        return sequences.transpose(1, 2)


class SeededDropout(nn.Module):
    """Dropout with its own random generator, so that the mask depends on nothing else in the process.

    Args:
        share: Dropout probability, 0 to 1. The remaining activations are scaled up accordingly.
        channels: Whether to drop whole channels.

    Attributes:
        seed: Random seed of the generator. None uses PyTorch's global generator.
    """

    def __init__(self, share: float, *, channels: bool = False) -> None:
        super().__init__()
        self.share, self.channels = share, channels
        self.seed: int | None = None
        self._generator: torch.Generator | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training:
            return inputs
        if self.seed is not None and self._generator is None:
            self._generator = torch.Generator(inputs.device).manual_seed(self.seed)
        shape = (*inputs.shape[:2], *[1] * (inputs.ndim - 2)) if self.channels else inputs.shape
        kept = torch.rand(shape, generator=self._generator, device=inputs.device) >= self.share
        return inputs * kept / (1 - self.share)

    def extra_repr(self) -> str:
        return f"share={self.share}, channels={self.channels}"

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_generator": None}  # generators cannot be copied


def seed_dropout(network: nn.Module, seed: int) -> None:
    """Seed every `SeededDropout` of the network."""
    layers = [module for module in network.modules() if isinstance(module, SeededDropout)]
    for k, layer in enumerate(layers):
        layer.seed, layer._generator = seed + k, None


class States(nn.Module):
    """The hidden states of an LSTM at every step: ``[B, T, F]`` to ``[B, T, units]``.

    A bidirectional LSTM has twice as many units in the output.
    """

    def __init__(self, features: int, units: int, *, bidirectional: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, units, batch_first=True, bidirectional=bidirectional)

    def forward(self, sequences: Tensor) -> Tensor:
        states: Tensor = self.lstm(sequences)[0]
        return states
