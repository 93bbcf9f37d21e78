"""Small modules that have every way in which widths depend on each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.googlenet import Inception
from torchvision.models.resnet import BasicBlock
from torchvision.models.vgg import VGG, make_layers

from optuna_trlhpo.cnn.compress.unet import UNet


def vgg() -> nn.Module:
    """Of torchvision: features, pooling, and a classifier behind flattened pixels."""
    features = make_layers([4, "M", 6, 6, "M"], batch_norm=True)
    features[0] = nn.Conv2d(1, 4, 3, padding=1)
    module = VGG(features, num_classes=3, init_weights=False)
    module.avgpool = nn.AdaptiveAvgPool2d(2)
    module.classifier = nn.Sequential(nn.Linear(24, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3))
    return module


def inception() -> nn.Module:
    """Two blocks of GoogLeNet."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, padding=2),
        nn.ReLU(),
        Inception(4, 4, 2, 6, 2, 4, 2),
        nn.MaxPool2d(2),
        Inception(16, 2, 2, 4, 2, 2, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(10, 3),
    )


class Residual(nn.Module):
    """Blocks of ResNet, one of which projects its input, and an average over pixels as a method."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.first = BasicBlock(4, 4)
        projection = nn.Sequential(nn.Conv2d(4, 6, 1, stride=2, bias=False), nn.BatchNorm2d(6))
        self.second = BasicBlock(4, 6, stride=2, downsample=projection)
        self.end = nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = self.second(self.first(F.relu(self.stem(images))))
        logits: Tensor = self.end(features.mean((2, 3)))
        return logits


class Mixed(nn.Module):
    """A depthwise convolution, a gate of one number a channel, a layer called twice, and ``view``."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding="same")
        self.twice = nn.Conv2d(6, 6, 3, padding=1)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm = nn.BatchNorm2d(6)
        self.gate = nn.Conv2d(6, 6, 1)
        self.slope = nn.PReLU(6)
        self.middle = nn.Linear(6 * 16, 5)
        self.end = nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = self.twice(torch.relu(self.twice(torch.relu(self.stem(images)))))
        features = self.norm(self.depthwise(features))
        gate = torch.sigmoid(self.gate(F.adaptive_avg_pool2d(features, 1)))
        features = F.max_pool2d(self.slope(features * gate), 2)
        logits: Tensor = self.end(F.relu(self.middle(features.view(features.size(0), -1))))
        return logits


def unet() -> nn.Module:
    """For label maps."""
    return UNet(1, 3, width=3, depth=2)


MODULES = {"vgg": vgg, "inception": inception, "residual": Residual, "mixed": Mixed, "unet": unet}
