"""Take a network away: as files that need nothing of this package, and in two parts for device and server.

A few trials on 8x8 digits; nothing is downloaded. Takes less than a minute on two CPU cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import optuna

from optuna_trlhpo import TRLHPOSampler
from optuna_trlhpo.cnn import Budget, CNNObjective


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=12, help="trials of the search (%(default)s)")
    parser.add_argument("--device-macs", type=float, default=20_000, help="what it can bear (%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("digits"), help="for the files (%(default)s)")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    # Little goes in and out of any layer, as a device with little memory would have it.
    objective = CNNObjective("digits", max_activation_bytes=1_500)
    study = optuna.create_study(
        direction="maximize",
        sampler=TRLHPOSampler(seed=0),
        # Growth has stop rules of its own; Optuna's default pruner would end half of the trials at layer one.
        pruner=optuna.pruners.NopPruner(),
    )
    study.optimize(objective, n_trials=args.trials, show_progress_bar=True)
    best = study.best_trial

    refit = objective.refit(best)
    print(f"{refit.architecture}, test accuracy {refit.test_accuracy:.2%}\n")
    for suffix in ("onnx", "pt2", "py"):
        path = args.folder / f"network.{suffix}"
        exported = objective.export(best, path, network=refit.network)
        files = ", ".join(file.name for file in exported.files)
        print(f"{exported.format}: {files}, {exported.bytes:,} bytes, {exported.difference:.0e} apart")

    # A budget without a limit on what is sent: the fewest bytes that the device can bring it down to.
    budget = Budget(macs=args.device_macs)
    partition = objective.partition(best, budget, folder=args.folder, network=refit.network)
    print(f"\n{partition}\n")
    parts = [file for file in (partition.device, partition.server) if file is not None]
    print(f"cut behind {partition.cut.after}: {', '.join(map(str, parts))}")


if __name__ == "__main__":
    main()
