"""Grow networks with a training loop of your own: ``LayerSpace.grow`` says which, you train and report.

Modules, optimiser and data are this file's own. Digits of 8x8; one to two minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import optuna
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from optuna_trlhpo import LayerSpace, TRLHPOSampler
from optuna_trlhpo.layers import FCL, Conv, Layer, MaxPool, describe

SPACE = LayerSpace(input_shape=(1, 8, 8), num_classes=10, max_layers=4)
ACTIVATIONS = {"none": nn.Identity, "relu": nn.ReLU, "leakyrelu": nn.LeakyReLU, "tanh": nn.Tanh}
ACTIVATIONS |= {"sigmoid": nn.Sigmoid, "elu": nn.ELU, "gelu": nn.GELU}


def build(layers: Sequence[Layer]) -> nn.Module:
    """The layers as modules, with the classifier behind the last."""
    modules: list[nn.Module] = []
    shapes = [SPACE.input_shape, *SPACE.shapes(layers)]  # before each layer, and behind the last
    for layer, shape in zip(layers, shapes, strict=False):
        match layer:
            case Conv(filters, kernel, stride):
                modules += [nn.Conv2d(shape[0], filters, kernel, stride), nn.ReLU()]
            case MaxPool(kernel, stride, padding):
                modules.append(nn.MaxPool2d(kernel, stride, padding))
            case FCL(neurons, activation, bias):
                modules += [nn.Flatten(), nn.Linear(math.prod(shape), neurons, bias)]
                modules.append(ACTIVATIONS[activation]())
    return nn.Sequential(*modules, nn.Flatten(), nn.Linear(math.prod(shapes[-1]), SPACE.num_classes))


def train_and_validate(layers: Sequence[Layer], data: list[torch.Tensor], epochs: int) -> float:
    """Validation accuracy, 0-1, of the network trained from scratch."""
    x_train, x_valid, y_train, y_valid = data
    network = build(layers)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(x_train)).split(64):
            loss = nn.functional.cross_entropy(network(x_train[batch]), y_train[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return (network(x_valid).argmax(dim=1) == y_valid).float().mean().item()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=8)
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images / 16, dtype=torch.float32).unsqueeze(1)  # [B, 1, 8, 8] in 0-1
    data = train_test_split(images, torch.tensor(digits.target), test_size=0.25, random_state=0)

    def objective(trial: optuna.Trial) -> float:
        best = 0.0
        for layers in SPACE.grow(trial):  # each time round a deeper network that is worth a training
            accuracy = train_and_validate(layers, data, args.epochs)
            trial.report(accuracy, step=len(layers) - 1)
            best = max(best, accuracy)  # the last layer is often one that did harm
        return best

    study = optuna.create_study(direction="maximize", sampler=TRLHPOSampler(seed=0))
    study.optimize(objective, n_trials=args.trials)
    print(f"Validation accuracy {study.best_value:.2%}: {describe(SPACE.best_network(study))}")


if __name__ == "__main__":
    main()
