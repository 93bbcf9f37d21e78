"""How a network is laid out, and in which order it computes, so that it takes least time. Nothing of what it
computes changes, but for rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from optuna_trlhpo.layers.blocks import ResidualBlock

_INCREASING = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.ELU)
"""Activations that never fall, so that the highest of many stays the highest."""

_ELEMENTWISE = (*_INCREASING, nn.GELU)


class _TwoPasses(nn.Sequential):
    """Maximum pooling over columns, then over rows."""


_KEEPS_CHANNELS = (*_ELEMENTWISE, nn.MaxPool2d, nn.AvgPool2d, nn.BatchNorm2d, _TwoPasses)

_TWO_PASSES = 6
"""Kernels of this size and more are faster in two passes on the CPU, if their stride is 1; smaller ones, and
those that skip positions, in one (measured for kernels of 2 to 8 and strides of 1 to 3)."""

_FASTER_BY_PIXEL = (nn.MaxPool2d, nn.AvgPool2d, ResidualBlock)
"""With one of these a network is faster on the CPU if the channels of a pixel lie side by side; without any
it is slower so, by up to two times (``make bench-engine`` measures it)."""


def fastest_layout(model: nn.Module, device: torch.device) -> torch.memory_format:
    """How the weights and features of the model had best lie in the device's memory."""
    by_pixel = device.type == "cpu" and any(isinstance(part, _FASTER_BY_PIXEL) for part in model.modules())
    return torch.channels_last if by_pixel else torch.contiguous_format


def place(model: nn.Module, device: torch.device) -> nn.Module:
    """Put the model on the device, in its `fastest_layout`."""
    layout = fastest_layout(model, device)
    return model.to(device, memory_format=layout)  # type: ignore[call-overload]


def in_fast_order(model: nn.Module) -> nn.Module:
    """The same modules, in an order in which they take less time; outcome and gradient are the same.

    Maximum pooling goes before an activation that never falls, which then has a fraction of the work; on a
    CPU, a large kernel with stride 1 first takes the highest of each column, and of those the highest of each
    row, two times k comparisons instead of k times k. Flattening goes before an activation, too, whose
    gradient then lies in memory as its outcome does.

    Example:
        >>> in_fast_order(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()))
        Sequential(
          (0): MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)
          (1): Flatten(start_dim=1, end_dim=-1)
          (2): ReLU()
        )
    """
    if not isinstance(model, nn.Sequential):
        return model
    parts = list(model)
    for k in range(1, len(parts)):
        before, part = parts[k - 1], parts[k]
        pools = isinstance(part, nn.MaxPool2d) and not part.return_indices and isinstance(before, _INCREASING)
        if pools or (isinstance(part, nn.Flatten) and isinstance(before, _ELEMENTWISE)):
            parts[k - 1 : k + 1] = parts[k], parts[k - 1]
    if any(parameter.device.type != "cpu" for parameter in model.parameters()):
        return nn.Sequential(*parts)
    return nn.Sequential(*(_in_two_passes(part) if _is_large(part) else part for part in parts))


def _is_large(part: nn.Module) -> bool:
    """Whether it is plain pooling of squares that is faster in two passes."""
    return (
        isinstance(part, nn.MaxPool2d)
        and part.stride == 1
        and isinstance(part.kernel_size, int)
        and part.kernel_size >= _TWO_PASSES
        and isinstance(part.padding, int)
        and part.dilation == 1
        and not part.ceil_mode
        and not part.return_indices
    )


def _in_two_passes(pool: nn.Module) -> nn.Module:
    assert isinstance(pool, nn.MaxPool2d)
    kernel, padding = pool.kernel_size, pool.padding
    assert isinstance(kernel, int) and isinstance(padding, int)
    return _TwoPasses(
        nn.MaxPool2d((kernel, 1), (1, 1), (padding, 0)), nn.MaxPool2d((1, kernel), (1, 1), (0, padding))
    )


class FastOrder:
    """A model in fast order, which flattens images pixel by pixel where their channels lie side by side.

    Otherwise flattening would copy them. The columns of the layer behind must be in the same order meanwhile;
    see `by_pixel`.

    Args:
        model: On its device.

    Attributes:
        model: The same modules in fast order; to be called within `by_pixel` alone.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = in_fast_order(model)
        self._linear: nn.Linear | None = None
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        if isinstance(self.model, nn.Sequential) and fastest_layout(model, device) == torch.channels_last:
            self._find_linear(self.model)

    def _find_linear(self, model: nn.Sequential) -> None:
        parts = list(model)
        k = next((k for k, part in enumerate(parts) if isinstance(part, nn.Flatten)), None)
        if k is None or (parts[k].start_dim, parts[k].end_dim) != (1, -1):
            return
        behind = next((it for it in parts[k + 1 :] if not isinstance(it, _ELEMENTWISE)), None)
        before = next((it for it in reversed(parts[:k]) if not isinstance(it, _KEEPS_CHANNELS)), None)
        if isinstance(before, nn.Conv2d) and isinstance(behind, nn.Linear):
            self._linear, self._channels = behind, before.out_channels
            self.model = nn.Sequential(*parts[:k], _FlattenByPixel(), *parts[k + 1 :])

    @contextlib.contextmanager
    def by_pixel(self) -> Iterator[None]:
        """Within, the columns of the layer behind the flattening are in the order of `model`; afterwards in
        their own again."""
        self._turn(0)
        try:
            yield
        finally:
            self._turn(1)

    @torch.no_grad()
    def _turn(self, way: int) -> None:
        if self._linear is not None:
            weight = self._linear.weight
            shape = (len(weight), self._channels, -1) if way == 0 else (len(weight), -1, self._channels)
            weight.copy_(weight.reshape(shape).transpose(1, 2).flatten(1))


class _FlattenByPixel(nn.Module):
    """``[B, C, H, W]`` to ``[B, H * W * C]``."""

    def forward(self, images: Tensor) -> Tensor:
        return images.permute(0, 2, 3, 1).flatten(1)
