"""Training loop of a PyTorch tutorial, as a reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

BATCH_SIZE, LEARNING_RATE = 128, 1e-3

_MEAN, _STD = 0.1307, 0.3081
"""Mean and standard deviation of MNIST's pixels, as in tutorials."""


class _Images(Dataset[Any]):
    """Dataset like `torchvision.datasets.MNIST`, with images in memory. It transforms one at a time."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable[[Any], Tensor]) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index].numpy())), int(self.labels[index])


def load_pixels(n: int, data_root: str | Path | None) -> tuple[Tensor, Tensor, str]:
    """Load images of MNIST, or draw random ones, which take the same time in training.

    Args:
        n: Number of images.
        data_root: Folder that contains MNIST. Random images replace MNIST if it is missing.

    Returns:
        Images ``[n, 28, 28]`` uint8, labels ``[n]`` and a name for the images.
    """
    if data_root is not None and (Path(data_root) / "MNIST").is_dir():
        from torchvision.datasets import MNIST

        part = MNIST(str(data_root), train=True)
        return part.data[:n], part.targets[:n], "MNIST"
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(256, size=(n, 28, 28), dtype=np.uint8))
    return images, torch.from_numpy(rng.integers(10, size=n)), "random images"


def standardised(images: Tensor, device: torch.device) -> Tensor:
    """Standardise images as `plain_loop` does, and return them as ``[N, 1, 28, 28]`` float32."""
    return ((images[:, None].float() / 255 - _MEAN) / _STD).to(device)


def plain_loop(
    model: nn.Module,
    train_part: tuple[Tensor, Tensor],
    test_part: tuple[Tensor, Tensor],
    *,
    epochs: int = 1,
    batch_size: int = BATCH_SIZE,
    learning_rate: float = LEARNING_RATE,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Train and evaluate a model like a tutorial of PyTorch.

    Args:
        model: Model on its device.
        train_part: Training images ``[N, 28, 28]`` uint8, of any size, and labels ``[N]``.
        test_part: Test images and labels of the same form.
        epochs: Number of epochs.
        batch_size: Number of images in a batch.
        learning_rate: Learning rate of Adam.
        generator: Random generator of the order of the images. None: the one of PyTorch.

    Returns:
        Whether each image of ``test_part`` is classified correctly.
    """
    from torchvision import transforms

    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((_MEAN,), (_STD,))])
    train_loader = DataLoader(
        _Images(*train_part, transform), batch_size=batch_size, shuffle=True, generator=generator
    )
    test_loader = DataLoader(_Images(*test_part, transform), batch_size=batch_size)
    device = next(model.parameters()).device
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    for _ in range(epochs):
        model.train()
        running_loss = 0.0
        for images, labels in train_loader:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
    model.eval()
    correct, outcomes = 0, []
    with torch.no_grad():
        for images, labels in test_loader:
            images, labels = images.to(device), labels.to(device)
            outcomes.append(model(images).argmax(dim=1) == labels)
            correct += outcomes[-1].sum().item()
    return torch.cat(outcomes)
