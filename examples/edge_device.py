"""Take a network away: as files that need nothing of this package, and in two parts for device and server.

A few trials on 8x8 digits; nothing is downloaded. Takes less than a minute on two CPU cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import optuna
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from optuna_trlhpo import TRLHPOSampler
from optuna_trlhpo.cnn import Budget, CNNObjective


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=12, help="trials of the search (%(default)s)")
    parser.add_argument("--device-macs", type=float, default=200_000, help="what it can bear (%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("digits"), help="for the files (%(default)s)")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    # Digits of 16x16 pixels. Few weights, and little goes in and out of any layer, as for a small device.
    digits = load_digits()
    images = np.kron(digits.images, np.ones((2, 2)))
    train, test, labels, test_labels = train_test_split(images, digits.target, test_size=360, random_state=0)
    data = (train, labels, test, test_labels)
    objective = CNNObjective(data, max_parameters=8_000, max_activation_bytes=10_000)
    study = optuna.create_study(
        direction="maximize",
        sampler=TRLHPOSampler(seed=0),
        # Growth has stop rules of its own; Optuna's default pruner would end half of the trials at layer one.
        pruner=optuna.pruners.NopPruner(),
    )
    study.optimize(objective, n_trials=args.trials, show_progress_bar=True)
    best = study.best_trial

    refit = objective.refit(best, epochs=20, augment="characters")
    print(f"{refit.architecture}, test accuracy {refit.test_accuracy:.2%}\n")
    for suffix in ("onnx", "pt2", "py"):
        path = args.folder / f"network.{suffix}"
        exported = objective.export(best, path, network=refit.network)
        files = ", ".join(file.name for file in exported.files)
        print(f"{exported.format}: {files}, {exported.bytes:,} bytes, {exported.difference:.0e} apart")
    path = args.folder / "network-int8.onnx"
    small = objective.export(best, path, network=refit.network, quantize="int8")
    print(f"ONNX in int8: {path.name}, {small.bytes:,} bytes, validation accuracy {small.accuracy:.2%}")

    # A budget without a limit on what is sent: the fewest bytes that the device can bring it down to.
    budget = Budget(macs=args.device_macs)
    partition = objective.partition(best, budget, folder=args.folder, network=refit.network)
    print(f"\n{partition}\n")
    parts = [file for file in (partition.device, partition.server) if file is not None]
    print(f"cut behind {partition.cut.after}: {', '.join(map(str, parts))}")


if __name__ == "__main__":
    main()
