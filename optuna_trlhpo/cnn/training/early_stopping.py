"""Hopeless networks are stopped early, by a pruner of Optuna.

The learning curves of a study's networks are themselves trials of studies in memory, one for each number of
layers, so that a network is compared with its like. In them the pruner says after each epoch whether to go
on. The curves are kept in the real study (see `trained`), so what other workers have trained counts, and what
was trained before a restart.
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
"""The first validation images, which a network is judged by after an epoch."""


class Curves:
    """The learning curves of one study, and the pruner that judges them.

    Args:
        pruner: Any of Optuna; a step is an epoch, from 1 on, and its value an accuracy.

    Example:
        >>> curves = Curves(optuna.pruners.MedianPruner(n_startup_trials=1))
        >>> curves.add(depth=2, curve=[0.7, 0.8], stopped=False)
        >>> trial = curves.begin(depth=2)
        >>> trial.report(0.6, step=1)
        >>> bool(trial.should_prune())
        True
    """

    def __init__(self, pruner: BasePruner) -> None:
        self._pruner = pruner
        self._studies: dict[int, Study] = {}
        self._lock = threading.Lock()

    def begin(self, depth: int) -> Trial:
        """A curve to come, of a network of so many layers."""
        with self._lock:
            if depth not in self._studies:
                self._studies[depth] = optuna.create_study(
                    study_name=f"learning curves of networks of {depth} layers",
                    direction="maximize",
                    sampler=optuna.samplers.RandomSampler(seed=0),  # nothing is suggested
                    pruner=copy.deepcopy(self._pruner),  # some remember what they have seen
                )
            return self._studies[depth].ask()

    def end(self, depth: int, trial: Trial, *, stopped: bool) -> None:
        """What became of it: its last report is its value."""
        study = self._studies[depth]
        reports = study.get_trials(deepcopy=False)[trial.number].intermediate_values
        if not reports:
            study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        elif stopped:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, reports[max(reports)])

    def add(self, *, depth: int, curve: Sequence[float], stopped: bool) -> None:
        """A curve that another has seen, as if it were seen now: some pruners note what they judge."""
        trial = self.begin(depth)
        for epoch, accuracy in enumerate(curve, start=1):
            trial.report(accuracy, step=epoch)
            trial.should_prune()
        self.end(depth, trial, stopped=stopped)


class EarlyStop:
    """Has every training of a study watched, with all that the study knows.

    Args:
        pruner: See `Curves`.
        setting: In which curves can be compared; that of the trainings.
        data: What networks are judged by.
    """

    def __init__(self, pruner: BasePruner, setting: str, data: ImageData) -> None:
        self._pruner, self._setting, self._data = pruner, setting, data
        self._study: weakref.ref[Study] | None = None
        self._lock = threading.Lock()

    def watch(self, study: Study, trial: Trial, *, depth: int, epochs: int) -> Watch:
        """Of the network of so many layers that ``trial`` is about to train."""
        with self._lock:
            # Two studies may have one name: it is the object that tells.
            if self._study is None or self._study() is not study:
                self._study, self._curves = weakref.ref(study), Curves(self._pruner)
                self._seen: set[tuple[int, int]] = set()  # numbers of trials, and depths
            for curve in read_curves(study, self._setting):
                place = (curve.trial, curve.depth)
                if place not in self._seen:
                    self._seen.add(place)
                    self._curves.add(depth=curve.depth, curve=curve.accuracies, stopped=curve.stopped)
            self._seen.add((trial.number, depth))
            return Watch(self._curves, depth, epochs, self._data)

    def __reduce__(self) -> tuple[type[EarlyStop], tuple[BasePruner, str, ImageData]]:
        return EarlyStop, (self._pruner, self._setting, self._data)  # locks stay, and curves are in the study


class Watch:
    """Looks on while one network is trained.

    Attributes:
        curve: The accuracies after each epoch but the last, on the first validation images.
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
        """Whether to stop; the last epoch is the end anyway."""
        if epoch == self._epochs:
            return False
        correct = predict_correct(network, self._images, self._labels)
        self.curve.append(round(float(correct.to(torch.float64).mean()), 4))
        self._trial.report(self.curve[-1], step=epoch)
        self.stopped = bool(self._trial.should_prune())
        return self.stopped

    @property
    def epochs_until_stopped(self) -> int | None:
        """None if it was not stopped."""
        return len(self.curve) if self.stopped else None

    def close(self) -> None:
        """To be called in the end, whatever came of the training."""
        self._curves.end(self._depth, self._trial, stopped=self.stopped)
