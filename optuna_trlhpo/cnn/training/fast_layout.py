"""Memory layout and operation order of a network for fast training.

The results change only by rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from optuna_trlhpo.layers.blocks import ResidualBlock

_INCREASING = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.ELU)
"""Monotonically increasing activations, which commute with maximum pooling."""

_ELEMENTWISE = (*_INCREASING, nn.GELU)


class _TwoPasses(nn.Sequential):
    """Maximum pooling in two passes: over columns, then over rows."""


_KEEPS_CHANNELS = (*_ELEMENTWISE, nn.MaxPool2d, nn.AvgPool2d, nn.BatchNorm2d, _TwoPasses)

_TWO_PASSES = 6
"""Minimum kernel size at which pooling with stride 1 is faster in two passes on the CPU.

Smaller kernels and larger strides are faster in one pass (measured for kernels of 2 to 8 and strides of 1 to
3).
"""

_FASTER_BY_PIXEL = (nn.MaxPool2d, nn.AvgPool2d, ResidualBlock)
"""Modules with which a network is faster on the CPU in the channels-last layout.

Without any of them, a network is up to two times slower in this layout (``make bench-engine`` measures it).
"""


def fastest_layout(model: nn.Module, device: torch.device, precision: str = "float32") -> torch.memory_format:
    """Return the fastest memory layout for the weights and features of the model on the device.

    On a CPU it depends on the modules. On a GPU of CUDA, convolutions in 16 bits run on tensor cores, which
    need the channels-last layout; otherwise cuDNN reorders each of their inputs and outputs. Those in 32 bits
    do not. (So the documentation of cuDNN and PyTorch; it has not been measured here.)
    """
    kinds: tuple[type[nn.Module], ...] = ()
    if device.type == "cpu":
        kinds = _FASTER_BY_PIXEL
    elif device.type == "cuda" and precision == "bfloat16":
        kinds = (nn.Conv2d,)
    by_pixel = any(isinstance(part, kinds) for part in model.modules())
    return torch.channels_last if by_pixel else torch.contiguous_format


def place(model: nn.Module, device: torch.device, precision: str = "float32") -> nn.Module:
    """Move the model to the device, in its `fastest_layout`."""
    layout = fastest_layout(model, device, precision)
    return model.to(device, memory_format=layout)  # type: ignore[call-overload]


def in_fast_order(model: nn.Module) -> nn.Module:
    """Reorder the modules so that they are faster, with the same outputs and gradients.

    Maximum pooling moves before a monotonically increasing activation, which then has fewer inputs. On a CPU,
    a large kernel with stride 1 takes the maximum of each column and then of each row, which needs 2k instead
    of k * k comparisons. Flattening also moves before an activation, so that the gradient of the activation
    has the memory layout of its output.

    Examples:
        >>> in_fast_order(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()))
        Sequential(
          (0): MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)
          (1): Flatten(start_dim=1, end_dim=-1)
          (2): ReLU()
        )
    """
    if not _is_sequence(model):
        return model
    assert isinstance(model, nn.Sequential)
    parts = list(model)
    for k in range(1, len(parts)):
        before, part = parts[k - 1], parts[k]
        pools = isinstance(part, nn.MaxPool2d) and not part.return_indices and isinstance(before, _INCREASING)
        if pools or (isinstance(part, nn.Flatten) and isinstance(before, _ELEMENTWISE)):
            parts[k - 1 : k + 1] = parts[k], parts[k - 1]
    if any(parameter.device.type != "cpu" for parameter in model.parameters()):
        return nn.Sequential(*parts)
    return nn.Sequential(*(_in_two_passes(part) if _is_large(part) else part for part in parts))


def _is_sequence(model: nn.Module) -> bool:
    """Return whether the model calls its modules one after the other, and does nothing else."""
    return isinstance(model, nn.Sequential) and type(model).forward is nn.Sequential.forward


def _is_large(part: nn.Module) -> bool:
    """Return whether the module is plain square pooling that is faster in two passes."""
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
    """A model in fast order that flattens images in the channels-last layout pixel by pixel.

    Flattening by channel would copy the images. The weight columns of the next linear layer must have the
    same order meanwhile; see `by_pixel`.

    Args:
        model: Model on its device.
        precision: Precision in which it is called; see `fastest_layout`.

    Attributes:
        model: The same modules in fast order. It may only be called within `by_pixel`.
    """

    def __init__(self, model: nn.Module, precision: str = "float32") -> None:
        self.model = in_fast_order(model)
        self._linear: nn.Linear | None = None
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        layout = fastest_layout(model, device, precision)
        if _is_sequence(self.model) and layout == torch.channels_last:
            self._find_linear(self.model)

    def _find_linear(self, model: nn.Module) -> None:
        assert isinstance(model, nn.Sequential)
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
        """Reorder the weight columns of the linear layer after flattening within the context.

        In the context they have the order that `model` needs. Afterwards they have their own order again.
        """
        self._turn(0)
        try:
            yield
        finally:
            self._turn(1)

    @torch.no_grad()
    def _turn(self, direction: int) -> None:
        """Change the column order from by channel to by pixel (``direction`` 0) or back (1)."""
        if self._linear is not None:
            weight = self._linear.weight
            shape = (len(weight), self._channels, -1) if direction == 0 else (len(weight), -1, self._channels)
            weight.copy_(weight.reshape(shape).transpose(1, 2).flatten(1))


class _FlattenByPixel(nn.Module):
    """Flattening of ``[B, C, H, W]`` to ``[B, H * W * C]``."""

    def forward(self, images: Tensor) -> Tensor:
        return images.permute(0, 2, 3, 1).flatten(1)
