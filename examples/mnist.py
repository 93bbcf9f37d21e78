"""Search a CNN for MNIST within a few minutes, then train the best one on all 60,000 training images.

The search is a reduced setting, which is printed: a part of the images, few epochs, a cap on the MACs of a
network. A time limit ends it early, so that the last training has its time too.
Takes about ten minutes on two CPU cores. ``--data-root`` is a folder that holds ``MNIST/raw``; with
``--download`` torchvision fetches the files there.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import optuna
from optuna.trial import TrialState

from optuna_trlhpo import TRLHPOSampler
from optuna_trlhpo.cnn import CNNObjective


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", default="data", help="folder that holds MNIST/raw (%(default)s)")
    parser.add_argument("--download", action="store_true", help="fetch MNIST into it if it is not there")
    parser.add_argument("--storage", help="such as sqlite:///mnist.db; default: in memory")
    parser.add_argument("--trials", type=int, default=30, help="finished trials to reach (%(default)s)")
    parser.add_argument("--minutes", type=float, default=5, help="no new trial after so long (%(default)s)")
    parser.add_argument("--train-size", type=int, default=6_000, help="images to search on (%(default)s)")
    parser.add_argument("--validation-size", type=int, default=10_000, help="images that judge (%(default)s)")
    parser.add_argument("--epochs", type=int, default=2, help="epochs a network in the search (%(default)s)")
    parser.add_argument("--refit-epochs", type=int, default=6, help="epochs of the best one (%(default)s)")
    parser.add_argument("--max-macs", type=float, default=2e6, help="most MACs of a network (%(default)g)")
    parser.add_argument(
        "--max-parameters", type=int, help="most parameters of a network; default: any number"
    )
    parser.add_argument(
        "--no-layer-prior", action="store_true", help="begin at random, knowing nothing of layers"
    )
    args = parser.parse_args(argv)
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    limits = f"at most {args.max_macs:,.0f} MACs"
    if args.max_parameters:
        limits += f" and {args.max_parameters:,} parameters"
    print(
        f"Reduced setting: {args.train_size:,} training and {args.validation_size:,} validation images, "
        f"{args.epochs} epochs a network, {limits}, {args.trials} trials or {args.minutes:g} minutes. The "
        f"best is trained {args.refit_epochs} epochs on all 60,000 images."
    )
    objective = CNNObjective(
        "mnist",
        data_root=args.data_root,
        download=args.download,
        train_size=args.train_size,
        validation_size=args.validation_size,
        epochs=args.epochs,
        max_macs=args.max_macs,
        max_parameters=args.max_parameters,
    )
    study = optuna.create_study(
        study_name="mnist",
        storage=args.storage,
        load_if_exists=True,
        direction="maximize",
        sampler=TRLHPOSampler(seed=0, layer_prior=not args.no_layer_prior),
        # Growth has stop rules of its own; Optuna's default pruner would end half of the trials at layer one.
        pruner=optuna.pruners.NopPruner(),
    )
    finished = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))
    if finished < args.trials:
        study.optimize(
            objective,
            n_trials=args.trials - finished,
            timeout=60 * args.minutes,
            show_progress_bar=True,
        )

    best = study.best_trial
    print(f"\nThe best network, trial {best.number}, validation accuracy {best.value:.2%}:\n")
    print(objective.table(best))

    # refit trains on the training and validation images of its objective: here an objective that has all.
    everything = CNNObjective("mnist", data_root=args.data_root, train_size=50_000, validation_size=10_000)
    images = len(everything.data.train_images) + len(everything.data.validation_images)
    refit = everything.refit(best, epochs=args.refit_epochs)
    print(f"\nTest accuracy {refit.test_accuracy:.2%} after {refit.seconds:.0f} s on {images:,} images")
    print(f"{refit.parameters:,} parameters, {refit.macs:,} MACs an image")


if __name__ == "__main__":
    main()
