"""Training loop and evaluation of one network, on tensors on its device.

This module is independent of trials. Notation: N images, C channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optuna_trlhpo.cnn.training.cuda_graphs import CapturedSteps
from optuna_trlhpo.cnn.training.fast_layout import FastOrder
from optuna_trlhpo.cnn.training.full_precision import full_precision
from optuna_trlhpo.cnn.training.graph_capture import own_stream

SCHEDULES = ("one_cycle", "constant")
"""Learning-rate schedules: linear warm-up and decay, or a constant rate as in the paper."""

WARM_UP = 0.25
"""Fraction of all steps in which "one_cycle" rises to the peak."""

PRECISIONS = ("float32", "bfloat16")
"""Precisions of a network: 32 bits, or 16 bits where `torch.autocast` uses them.

In both, cuDNN does not round to TF32; see `full_precision`.
"""

_EVALUATION_BATCH = {"cpu": 100}
"""Number of images in an evaluation pass, by device type. The default is 1,000.

The CPU is up to three times faster if the features of a batch fit its cache.
"""


def learning_rate_factor(schedule: str, step: int, steps: int) -> float:
    """Return the learning rate of step ``step`` (0 to ``steps - 1``) as a fraction of its peak, in (0, 1].

    Examples:
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
    augment: Callable[[Tensor, Tensor, int], None] | None = None,
) -> None:
    """Train ``model`` in place with Adam on the cross-entropy, with a new order of the images in every epoch.

    The CPU does not wait for the device between the first step and the last. On a GPU a step is captured once
    and then replayed, if the network allows it, and trainings in several threads overlap.

    Args:
        model: Network that returns logits, on the device of ``images``.
        images: Training images ``[N, C, H, W]``.
        labels: Labels ``[N]``, int64.
        epochs: Passes over all images.
        batch_size: Number of images in a step. The last step of an epoch uses the remaining images.
        learning_rate: Peak learning rate of Adam.
        schedule: One of `SCHEDULES`.
        precision: One of `PRECISIONS`.
        generator: Generator that shuffles the images, on the device of ``images``.
        after_epoch: Called after each epoch with the number of finished epochs. Returning True ends the
            training.
        augment: Called before each epoch with the images, a tensor for the images to train on instead, and
            the number of finished epochs.

    Examples:
        >>> images, labels = torch.tensor([[-1.0], [1.0]] * 50), torch.tensor([0, 1] * 50)
        >>> model, generator = nn.Linear(1, 2), torch.Generator().manual_seed(0)
        >>> train(model, images, labels, epochs=5, batch_size=4, learning_rate=0.1, generator=generator)
        >>> predict_correct(model, images, labels).all().item()
        True
    """
    device, n = images.device, len(images)
    steps = epochs * math.ceil(n / batch_size)
    rates = [learning_rate * learning_rate_factor(schedule, step, steps) for step in range(steps)]
    fast = FastOrder(model, precision)
    shown = images if augment is None else torch.empty_like(images)  # one tensor, which a graph can refer to

    def loss_of(batch: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = fast.model(shown[batch])
        return F.cross_entropy(logits.float(), labels[batch])

    with full_precision(device), own_stream(device):
        take_step: Callable[[Tensor, float], None]
        if device.type == "cuda":
            take_step = CapturedSteps(model, loss_of, batch_size)
        else:
            take_step = EagerSteps(model, loss_of)
        step = 0
        for epoch in range(epochs):
            model.train()
            if augment is not None:
                augment(images, shown, epoch)
            order = torch.randperm(n, generator=generator, device=device)
            with fast.by_pixel():
                for batch in order.split(batch_size):
                    take_step(batch, rates[step])
                    step += 1
            if after_epoch is not None and after_epoch(epoch + 1):
                break
    # Gradients take as much memory as the weights, and those of a graph would keep its memory pool alive.
    model.zero_grad()


class EagerSteps:
    """Training steps with Adam, one per call."""

    def __init__(self, model: nn.Module, loss_of: Callable[[Tensor], Tensor]) -> None:
        # Fused into one kernel for all parameters. Otherwise the optimiser would take half the time of a
        # step of a small network.
        self._optimizer = torch.optim.Adam(model.parameters(), lr=1.0, fused=True)
        self._loss_of = loss_of

    def __call__(self, batch: Tensor, rate: float) -> None:
        """Take a step on the images with the indices ``batch`` at the learning rate ``rate``."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        loss = self._loss_of(batch)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()


@torch.inference_mode()
def predict_correct(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return for each image whether it is classified correctly: bool ``[N]`` on the device of ``images``."""
    model.eval()
    fast = FastOrder(model)
    size = _EVALUATION_BATCH.get(images.device.type, 1000)
    batches = zip(images.split(size), labels.split(size), strict=True)
    with full_precision(images.device), fast.by_pixel():
        return torch.cat([fast.model(batch).argmax(dim=1) == truth for batch, truth in batches])
