"""An Optuna pipeline as many people have it; the sampler is the only line that differs.

A multilayer perceptron on 8x8 digits: conditional parameters of your own names, an optimiser, a learning rate
on a log scale, reports per epoch, a pruner. No layer space is needed. One to two minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import optuna
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from optuna_trlhpo import TRLHPOSampler


def build(trial: optuna.Trial) -> nn.Module:
    modules: list[nn.Module] = []
    width = 64
    for i in range(trial.suggest_int("n_layers", 1, 3)):
        units = trial.suggest_int(f"n_units_l{i}", 4, 128, log=True)
        dropout = trial.suggest_float(f"dropout_l{i}", 0.0, 0.5)
        modules += [nn.Linear(width, units), nn.ReLU(), nn.Dropout(dropout)]
        width = units
    return nn.Sequential(*modules, nn.Linear(width, 10))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=10)
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.data / 16, dtype=torch.float32)  # [B, 64] in 0-1
    x_train, x_valid, y_train, y_valid = train_test_split(
        images, torch.tensor(digits.target), test_size=0.25, random_state=0
    )

    def objective(trial: optuna.Trial) -> float:
        network = build(trial)
        name = trial.suggest_categorical("optimizer", ["Adam", "RMSprop", "SGD"])
        learning_rate = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        optimizer = getattr(torch.optim, name)(network.parameters(), lr=learning_rate)
        for epoch in range(args.epochs):
            network.train()
            for batch in torch.randperm(len(x_train)).split(64):
                loss = nn.functional.cross_entropy(network(x_train[batch]), y_train[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            network.eval()
            with torch.no_grad():
                accuracy = (network(x_valid).argmax(dim=1) == y_valid).float().mean().item()
            trial.report(accuracy, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned()
        return accuracy

    study = optuna.create_study(
        direction="maximize",
        sampler=TRLHPOSampler(seed=0),  # the one line; it was sampler=optuna.samplers.TPESampler(seed=0)
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2),
    )
    study.optimize(objective, n_trials=args.trials)
    print(f"Validation accuracy {study.best_value:.2%} with {study.best_params}")


if __name__ == "__main__":
    main()
