"""Early stopping of hopeless trainings by an Optuna pruner.

The learning curves of the networks of a study are represented as trials of in-memory studies. There is one
such study for each number of layers, so that a network is compared only with networks of the same depth. In
these studies, the pruner decides after each epoch whether the training continues. The curves are stored in
the real study (see `optuna_trlhpo.cnn.training.cache`), so trainings by other workers and before a restart
count, too.
"""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Sequence

import optuna
import torch
from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import Trial, TrialState
from torch import nn

from optuna_trlhpo.cnn.data.datasets import ImageData
from optuna_trlhpo.cnn.training.cache import read_curves
from optuna_trlhpo.cnn.training.loop import predict_correct

JUDGED_IMAGES = 1000
"""Number of the first validation images that are used to evaluate a network after an epoch."""


class Curves:
    """Learning curves of one study, and the pruner that decides on them.

    Args:
        pruner: Any Optuna pruner. A step is an epoch, counted from 1, and the reported value an accuracy.

    Examples:
        >>> curves = Curves(optuna.pruners.MedianPruner(n_startup_trials=1))
        >>> curves.add(depth=2, curve=[0.7, 0.8], stopped=False)
        >>> trial = curves.begin(depth=2)
        >>> trial.report(0.6, step=1)
        >>> bool(trial.should_prune())
        True
    """

    def __init__(self, pruner: BasePruner) -> None:
        self._pruner = pruner
        self.studies: dict[int, Study] = {}  # by depth
        self._lock = threading.Lock()

    def begin(self, depth: int) -> Trial:
        """Start the curve of a network with ``depth`` layers."""
        with self._lock:
            if depth not in self.studies:
                self.studies[depth] = optuna.create_study(
                    study_name=f"learning curves of networks of {depth} layers",
                    direction="maximize",
                    sampler=optuna.samplers.RandomSampler(seed=0),  # unused, as nothing is suggested
                    pruner=copy.deepcopy(self._pruner),  # some pruners keep a state
                )
            return self.studies[depth].ask()

    def end(self, depth: int, trial: Trial, *, stopped: bool) -> None:
        """Finish a curve. Its value is its last report."""
        study = self.studies[depth]
        reports = study.get_trials(deepcopy=False)[trial.number].intermediate_values
        if not reports:
            study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        elif stopped:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, reports[max(reports)])

    def add(self, *, depth: int, curve: Sequence[float], stopped: bool) -> None:
        """Add a curve from another worker or process.

        Each report is also passed to the pruner, because some pruners record their decisions.
        """
        trial = self.begin(depth)
        for epoch, accuracy in enumerate(curve, start=1):
            trial.report(accuracy, step=epoch)
            trial.should_prune()
        self.end(depth, trial, stopped=stopped)


class EarlyStop:
    """Early stopping of the trainings of a study, based on all learning curves in the study.

    Args:
        pruner: Optuna pruner; see `Curves`.
        setting: Key of the training setting. Only curves with this key are comparable.
        data: Data for the evaluation of the networks.
    """

    def __init__(self, pruner: BasePruner, setting: str, data: ImageData) -> None:
        self._pruner, self._setting, self._data = pruner, setting, data
        self._study: weakref.ref[Study] | None = None
        self._lock = threading.Lock()

    def watch(self, study: Study, trial: Trial, *, depth: int, epochs: int) -> Watch:
        """Return a watch for the network with ``depth`` layers that ``trial`` is about to train."""
        with self._lock:
            # Two studies may have the same name, so the objects are compared.
            if self._study is None or self._study() is not study:
                self._study, self.curves = weakref.ref(study), Curves(self._pruner)
                self._seen: set[tuple[int, int]] = set()  # trial numbers and depths
            for curve in read_curves(study, self._setting):
                key = (curve.trial, curve.depth)
                if key not in self._seen:
                    self._seen.add(key)
                    self.curves.add(depth=curve.depth, curve=curve.accuracies, stopped=curve.stopped)
            self._seen.add((trial.number, depth))
            return Watch(self.curves, depth, epochs, self._data)

    def __reduce__(self) -> tuple[type[EarlyStop], tuple[BasePruner, str, ImageData]]:
        # Locks cannot be pickled, and the curves are read again from the study.
        return EarlyStop, (self._pruner, self._setting, self._data)


class Watch:
    """Monitor of the training of one network.

    Attributes:
        curve: Accuracies after each epoch except the last, on the first validation images.
        stopped: Whether the pruner has stopped the training.
    """

    def __init__(self, curves: Curves, depth: int, epochs: int, data: ImageData) -> None:
        self._curves, self._depth, self._epochs = curves, depth, epochs
        self._images = data.validation_images[:JUDGED_IMAGES]
        self._labels = data.validation_labels[:JUDGED_IMAGES]
        self._trial = curves.begin(depth)
        self.curve: list[float] = []
        self.stopped = False

    def __call__(self, epoch: int, network: nn.Module) -> bool:
        """Return whether to stop. After the last epoch the training ends anyway."""
        if epoch == self._epochs:
            return False
        correct = predict_correct(network, self._images, self._labels)
        # On the CPU, because not every GPU has 64 bits.
        self.curve.append(round(float(correct.cpu().to(torch.float64).mean()), 4))
        self._trial.report(self.curve[-1], step=epoch)
        self.stopped = bool(self._trial.should_prune())
        return self.stopped

    @property
    def epochs_until_stopped(self) -> int | None:
        """Number of epochs until the training was stopped. None if it was not."""
        return len(self.curve) if self.stopped else None

    def close(self) -> None:
        """Finish the curve. To be called after the training, even if it failed."""
        self._curves.end(self._depth, self._trial, stopped=self.stopped)
