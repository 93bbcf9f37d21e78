"""Training and evaluation of one network, on tensors that lie on its device. It knows no trial.

Notation: N images, C channels, H height, W width.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optuna_trlhpo.cnn.blocks import ResidualBlock
from optuna_trlhpo.cnn.graphs import CapturedSteps, own_stream

SCHEDULES = ("one_cycle", "constant")
"""The learning-rate schedules: linear warm-up and decay, or none at all as in the paper."""

WARM_UP = 0.25
"""The share of all steps in which "one_cycle" climbs to the peak."""

PRECISIONS = ("float32", "bfloat16")
"""What a network computes in: all in 32 bits, or matrix products in 16, as `torch.autocast` has it."""

_EVALUATION_BATCH = {"cpu": 100}
"""Images per pass, by device, 1,000 where none is given. The CPU is up to three times faster where the
features of a batch fit its cache."""

_INCREASING = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.ELU)
"""Activations that never fall, so that the highest of many stays the highest."""

_TWO_PASSES = 6
"""Kernels of this size and more are faster in two passes on the CPU, if their stride is 1; smaller ones, and
those that skip positions, in one (measured for kernels of 2 to 8 and strides of 1 to 3)."""

_FASTER_BY_PIXEL = (nn.MaxPool2d, nn.AvgPool2d, ResidualBlock)
"""With one of these a network is faster on the CPU if the channels of a pixel lie side by side; without any
it is slower so, by up to two times (``make bench-engine`` measures it)."""


def learning_rate_factor(schedule: str, step: int, steps: int) -> float:
    """The learning rate of step ``step`` (0 to ``steps - 1``) as a share, above 0 and at most 1, of its peak.

    Example:
        >>> [round(learning_rate_factor("one_cycle", step, 8), 2) for step in range(8)]
        [0.5, 1.0, 1.0, 0.83, 0.67, 0.5, 0.33, 0.17]
    """
    if schedule == "constant":
        return 1.0
    climbing = (step + 1) / (WARM_UP * steps)
    falling = (steps - step) / ((1 - WARM_UP) * steps)
    return min(climbing, falling, 1.0)


@contextlib.contextmanager
def cpu_threads(threads: int) -> Iterator[None]:
    """Within, PyTorch computes with so many threads of the CPU for the calling thread; afterwards as before.

    Networks this small gain next to nothing from a second thread, and where the cores are shared they lose
    tenfold: the threads wait for one another at every operation. With one thread, rounding does not depend
    on the number of cores either.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
        pools = isinstance(part, nn.MaxPool2d) and isinstance(before, _INCREASING)
        if pools or (isinstance(part, nn.Flatten) and isinstance(before, (*_INCREASING, nn.GELU))):
            parts[k - 1 : k + 1] = parts[k], parts[k - 1]
    if any(parameter.device.type != "cpu" for parameter in model.parameters()):
        return nn.Sequential(*parts)
    return nn.Sequential(*(_in_two_passes(part) if _is_large(part) else part for part in parts))


def _is_large(part: nn.Module) -> bool:
    return isinstance(part, nn.MaxPool2d) and part.stride == 1 and _side(part.kernel_size) >= _TWO_PASSES


def _in_two_passes(pool: nn.Module) -> nn.Module:
    assert isinstance(pool, nn.MaxPool2d)
    kernel, padding = _side(pool.kernel_size), _side(pool.padding)
    return nn.Sequential(
        nn.MaxPool2d((kernel, 1), (1, 1), (padding, 0)), nn.MaxPool2d((1, kernel), (1, 1), (0, padding))
    )


def _side(size: int | tuple[int, ...]) -> int:
    """Of a square."""
    return size if isinstance(size, int) else size[0]


def train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    schedule: str = "one_cycle",
    precision: str = "float32",
    generator: torch.Generator,
    after_epoch: Callable[[int], object] | None = None,
) -> None:
    """Train ``model`` in place: Adam on the cross-entropy, every image once an epoch in a fresh order.

    Nothing waits for the device from the first step to the last. On a GPU a step is captured once and then
    replayed, if the network allows it, and trainings in several threads overlap.

    Args:
        model: Gives logits; on the device of ``images``.
        images: ``[N, C, H, W]``.
        labels: ``[N]`` int64.
        epochs: Passes over all images.
        batch_size: Images in a step; the last of an epoch takes what is left.
        learning_rate: Adam's, at its peak.
        schedule: One of `SCHEDULES`.
        precision: One of `PRECISIONS`.
        generator: Shuffles; on the device of ``images``.
        after_epoch: Called with the number of epochs done, after each; True ends the training.

    Example:
        >>> images, labels = torch.tensor([[-1.0], [1.0]] * 50), torch.tensor([0, 1] * 50)
        >>> model, generator = nn.Linear(1, 2), torch.Generator().manual_seed(0)
        >>> train(model, images, labels, epochs=5, batch_size=4, learning_rate=0.1, generator=generator)
        >>> predict_correct(model, images, labels).all().item()
        True
    """
    device, n = images.device, len(images)
    steps = epochs * math.ceil(n / batch_size)
    rates = [learning_rate * learning_rate_factor(schedule, step, steps) for step in range(steps)]
    fast = in_fast_order(model)

    def loss_of(batch: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = fast(images[batch])
        return F.cross_entropy(logits.float(), labels[batch])

    with own_stream(device):
        take_step: Callable[[Tensor, float], None]
        if device.type == "cuda":
            take_step = CapturedSteps(model, loss_of, batch_size)
        else:
            take_step = _Steps(model, loss_of)
        step = 0
        for epoch in range(epochs):
            model.train()
            order = torch.randperm(n, generator=generator, device=device)
            for batch in order.split(batch_size):
                take_step(batch, rates[step])
                step += 1
            if after_epoch is not None and after_epoch(epoch + 1):
                return


class _Steps:
    """Steps of Adam, one call each."""

    def __init__(self, model: nn.Module, loss_of: Callable[[Tensor], Tensor]) -> None:
        # One kernel for all parameters: of a small network the optimiser would take
        # half the time.
        self._optimizer = torch.optim.Adam(model.parameters(), lr=1.0, fused=True)
        self._loss_of = loss_of

    def __call__(self, batch: Tensor, rate: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        loss = self._loss_of(batch)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()


@torch.inference_mode()
def predict_correct(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Whether each image is classified correctly: bool ``[N]`` on the device of ``images``."""
    model.eval()
    fast = in_fast_order(model)
    size = _EVALUATION_BATCH.get(images.device.type, 1000)
    batches = zip(images.split(size), labels.split(size), strict=True)
    return torch.cat([fast(batch).argmax(dim=1) == truth for batch, truth in batches])
