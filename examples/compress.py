"""Compress a U-Net that finds digits on a canvas, and compare it with the original on test canvases.

Each pixel is background or belongs to a digit. Ten minutes on one CPU core.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import optuna

from optuna_trlhpo import TRLHPOSampler
from optuna_trlhpo.cnn import CompressObjective, UNet, digits_on_canvas, goals


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--canvases", type=int, default=1000)
    args = parser.parse_args(argv)
    network = UNet(in_channels=1, num_classes=11, width=16, depth=2)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    objective = CompressObjective(
        network,
        digits_on_canvas(train_size=args.canvases, validation_size=args.canvases // 2, device="cpu"),
        # A network with half the parameters may have a mean IoU that is 0.7 % lower.
        goal=goals.weighted_product("parameters", parameters, exponent=-0.01),
        epochs=args.epochs,
        batch_size=16,
        learning_rate=5e-3,
    )
    study = optuna.create_study(direction="maximize", sampler=TRLHPOSampler(seed=0))
    study.enqueue_trial(objective.adapter.scaled(0.5))  # all layers half as wide: a good start
    study.optimize(objective, n_trials=args.trials)
    chosen = objective.smallest(study, max_loss=0.01, candidates=3)
    print(f"Trial {chosen.number}: {chosen.params}")
    print(objective.compare(chosen, repeats=2))


if __name__ == "__main__":
    main()
