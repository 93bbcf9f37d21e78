"""Settings of `compression`: the original networks, their data, and the arguments of all trainings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from optuna_trlhpo.benchmarks.training.defaults import COMPRESSED_NETWORKS
from optuna_trlhpo.cnn.compress.unet import UNet
from optuna_trlhpo.cnn.data import digits_on_canvas


@dataclass(frozen=True)
class CompressionSetting:
    """A network that is to be compressed.

    Attributes:
        make: Returns the original network.
        data: Name of the data: ``"mnist"``, at 32x32 pixels, or ``"canvas"``, of `digits_on_canvas`.
        sizes: Sizes of the splits, as arguments of `CompressObjective` or `digits_on_canvas`.
        training: Arguments of all trainings, as arguments of `CompressObjective`.
        text: Description of the original network.
    """

    make: Callable[[], nn.Module]
    data: str
    sizes: dict[str, int]
    training: dict[str, Any]
    text: str

    @property
    def form(self) -> str:
        """All arguments, as the field ``form`` of a row."""
        parts = {**self.sizes, **self.training}
        return f"{self.text}; {self.data}; {', '.join(f'{name} {value}' for name, value in parts.items())}"

    def arguments(self, seed: int, data_root: str) -> dict[str, Any]:
        """Return the arguments of `CompressObjective`, with the data."""
        how = {"seed": seed, "device": "cpu", **self.training}
        if self.data == "canvas":
            return {"data": digits_on_canvas(seed=seed, device="cpu", **self.sizes), **how}
        return {"data": self.data, "data_root": data_root, "image_size": 32, **self.sizes, **how}


def _vgg11() -> nn.Module:
    """Return torchvision's VGG-11 with batch normalisation and a classifier for images of 32x32 pixels.

    Its own classifier is for 7x7 pixels, of which images of 32x32 leave one. It has 93 % of the 129 million
    parameters, so compression would be easy with it.
    """
    from torchvision.models import vgg11_bn

    network = vgg11_bn(num_classes=10, init_weights=False)
    network.avgpool = nn.AdaptiveAvgPool2d(1)
    network.classifier = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Dropout(), nn.Linear(512, 10))
    return network


def _googlenet() -> nn.Module:
    from torchvision.models import googlenet

    return googlenet(num_classes=10, aux_logits=False, init_weights=False)


def _unet() -> nn.Module:
    return UNet(1, 11, width=16, depth=2)


SETTINGS = {
    "vgg11": CompressionSetting(
        make=_vgg11,
        data="mnist",
        sizes={"train_size": 2_000, "validation_size": 2_000},
        training={"epochs": 4, "batch_size": 32, "learning_rate": 1e-3},
        text="torchvision's vgg11_bn with a classifier 512-512-10",
    ),
    "googlenet": CompressionSetting(
        make=_googlenet,
        data="mnist",
        sizes={"train_size": 3_000, "validation_size": 2_000},
        training={"epochs": 5, "batch_size": 32, "learning_rate": 3e-3},
        text="torchvision's googlenet without auxiliary classifiers",
    ),
    "unet": CompressionSetting(
        make=_unet,
        data="canvas",
        sizes={"train_size": 1_000, "validation_size": 500, "test_size": 1_000},
        training={"epochs": 16, "batch_size": 16, "learning_rate": 5e-3},
        text="a U-Net of two levels and 16 channels",
    ),
}
"""Settings by name. Their numbers were chosen on validation images alone."""
assert tuple(SETTINGS) == COMPRESSED_NETWORKS
