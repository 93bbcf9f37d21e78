"""Search a small CNN for 8x8 digits, look at it, test it, and take it away: what ``make demo`` runs.

The study lives in a SQLite file, so you can stop it with Ctrl-C and run it again: it goes on where it was,
up to the number of trials asked for. The data come with scikit-learn; nothing is downloaded.
Takes a few minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.trial import TrialState

from optuna_trlhpo import TRLHPOSampler
from optuna_trlhpo.cnn import CNNObjective
from optuna_trlhpo.dashboard import publish


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", default="sqlite:///digits.db", help="where it is kept (%(default)s)")
    parser.add_argument("--trials", type=int, default=40, help="finished trials to reach (%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("digits"), help="for its files (%(default)s)")
    args = parser.parse_args(argv)
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # the progress bar says enough

    study, objective = search(args.storage, args.trials)
    best = study.best_trial
    print(f"\nThe best network, trial {best.number}, validation accuracy {best.value:.2%}:\n")
    print(objective.table(best))

    refit = objective.refit(best, epochs=30, augment="characters")
    print(f"\nTrained again, then tested once: test accuracy {refit.test_accuracy:.2%}")
    print(f"{refit.parameters:,} parameters, {refit.macs:,} MACs an image, {refit.seconds:.0f} s of training")
    exported = objective.export(best, args.folder / "digits.onnx", network=refit.network)
    print(f"{exported.files[0]} gives what PyTorch gives, to {exported.difference:.0e}")
    path = args.folder / "digits-int8.onnx"
    small = objective.export(best, path, network=refit.network, quantize="int8")
    print(f"{path} has {small.bytes:,} bytes in place of {exported.bytes:,}, and {small.accuracy:.2%} of the")
    print(f"validation images are classified correctly (network: {small.float_accuracy:.2%})")

    store = optuna.artifacts.FileSystemArtifactStore(str(args.folder))
    publish(study, artifact_store=store, objective=objective)
    print(f"\nEvery trial, in the browser:\n\n    {dashboard_command(args.storage, args.folder)}")


def search(storage: str, trials: int, *, epochs: int | None = None) -> tuple[optuna.Study, CNNObjective]:
    """The study, with so many finished trials: those that it lacks are run; and its objective."""
    objective = CNNObjective("digits", max_parameters=8_000, epochs=epochs)
    study = optuna.create_study(
        study_name="digits",
        storage=storage,
        load_if_exists=True,
        direction="maximize",
        sampler=TRLHPOSampler(seed=0),
        # Growth has stop rules of its own; Optuna's default pruner would end half of the trials at layer one.
        pruner=optuna.pruners.NopPruner(),
    )
    finished = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))
    missing = trials - finished
    if missing > 0:
        print(f"{storage}: {finished} of {trials} trials are finished, {missing} to go")
        study.optimize(objective, n_trials=missing, show_progress_bar=True)
    else:
        print(f"{storage}: all {trials} trials are finished; for more: --trials {2 * finished}")
    return study, objective


def dashboard_command(storage: str, folder: Path) -> str:
    """The command that opens the study, with the path of this environment where it is installed there."""
    beside = Path(sys.executable).with_name("optuna-dashboard")
    if beside.exists():
        program = beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside
    else:
        program = Path("optuna-dashboard")
    return shlex.join([str(program), storage, "--artifact-dir", str(folder)])


if __name__ == "__main__":
    main()
