"""Training and evaluation of one network, on tensors that lie on its device. It knows no trial.

Notation: N images, C channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optuna_trlhpo.cnn.training.cuda_graphs import CapturedSteps, own_stream
from optuna_trlhpo.cnn.training.fast_layout import FastOrder

SCHEDULES = ("one_cycle", "constant")
"""The learning-rate schedules: linear warm-up and decay, or none at all as in the paper."""

WARM_UP = 0.25
"""The share of all steps in which "one_cycle" climbs to the peak."""

PRECISIONS = ("float32", "bfloat16")
"""What a network computes in: all in 32 bits, or matrix products in 16, as `torch.autocast` has it."""

_EVALUATION_BATCH = {"cpu": 100}
"""Images per pass, by device, 1,000 where none is given. The CPU is up to three times faster where the
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
    fast = FastOrder(model)

    def loss_of(batch: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = fast.model(images[batch])
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
            with fast.by_pixel():
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
    fast = FastOrder(model)
    size = _EVALUATION_BATCH.get(images.device.type, 1000)
    batches = zip(images.split(size), labels.split(size), strict=True)
    with fast.by_pixel():
        return torch.cat([fast.model(batch).argmax(dim=1) == truth for batch, truth in batches])
