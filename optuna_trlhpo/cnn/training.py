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

SCHEDULES = ("one_cycle", "constant")
"""The learning-rate schedules: linear warm-up and decay, or none at all as in the paper."""

WARM_UP = 0.25
"""The share of all steps in which "one_cycle" climbs to the peak."""

_EVALUATION_BATCH = {"cpu": 50}
"""Images per pass, by device, 1,000 where none is given. The CPU is up to four times faster where the
features of a batch fit its cache."""


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


def train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    schedule: str = "one_cycle",
    generator: torch.Generator,
    after_epoch: Callable[[int], None] | None = None,
) -> None:
    """Train ``model`` in place: Adam on the cross-entropy, every image once an epoch in a fresh order.

    Args:
        model: Gives logits; on the device of ``images``.
        images: ``[N, C, H, W]``.
        labels: ``[N]`` int64.
        epochs: Passes over all images.
        batch_size: Images in a step; the last of an epoch takes what is left.
        learning_rate: Adam's, at its peak.
        schedule: One of `SCHEDULES`.
        generator: Shuffles; on the device of ``images``.
        after_epoch: Called with the number of epochs done, after each.

    Example:
        >>> images, labels = torch.tensor([[-1.0], [1.0]] * 50), torch.tensor([0, 1] * 50)
        >>> model, generator = nn.Linear(1, 2), torch.Generator().manual_seed(0)
        >>> train(model, images, labels, epochs=5, batch_size=4, learning_rate=0.1, generator=generator)
        >>> predict_correct(model, images, labels).all().item()
        True
    """
    n = len(images)
    steps = epochs * math.ceil(n / batch_size)
    # One kernel for all parameters: the networks are so small that the optimiser would take half the time.
    fused = images.device.type in ("cpu", "cuda")
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, fused=fused)
    step = 0
    for epoch in range(epochs):
        model.train()
        order = torch.randperm(n, generator=generator, device=images.device)
        for batch in order.split(batch_size):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * learning_rate_factor(schedule, step, steps)
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        if after_epoch is not None:
            after_epoch(epoch + 1)


@torch.inference_mode()
def predict_correct(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Whether each image is classified correctly: bool ``[N]`` on the device of ``images``."""
    model.eval()
    size = _EVALUATION_BATCH.get(images.device.type, 1000)
    batches = zip(images.split(size), labels.split(size), strict=True)
    return torch.cat([model(batch).argmax(dim=1) == truth for batch, truth in batches])
