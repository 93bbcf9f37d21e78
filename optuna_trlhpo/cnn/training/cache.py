"""Cache of trained networks, stored in the trials of a study so that all workers share it.

A trial records the setting, accuracy and duration of its trainings in the user attribute ``trainings``, one
short text such as ``"1f2e3d4c 0:0.9125:2.51 1:0.9375:=1.8"``. The key of the setting is followed by one entry
per network: the step (the number of layers less one), the accuracy and the seconds. ``=`` means that the
network was looked up, and the seconds are those of the original training. If networks may be stopped early,
the learning curve follows, ``2:0.65:0.9:0.41/0.63!``, with ``!`` if the training was stopped.

With weight inheritance, the accuracy of a network depends on the networks that were trained before it. Then
only a network with the same lineage is looked up.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from optuna.study import Study
from optuna.trial import BaseTrial, FrozenTrial

from optuna_trlhpo.cnn.training.weight_inheritance import Lineage, LineageStep
from optuna_trlhpo.layers import Layer, Network, describe, network_in
from optuna_trlhpo.trials.performance import read_performance
from optuna_trlhpo.trials.training_record import TRAININGS_ATTRIBUTE, Training, read_trainings, write_training

_READING = threading.Lock()  # the trials of a study may run in threads


class Trained(NamedTuple):
    """Outcome of a training.

    Attributes:
        accuracy: Accuracy on all validation images.
        performance: 32 accuracies, on the batches that the agent observes.
        seconds: Duration of the training.
        curve: Accuracies after each epoch except the last. Empty without early stopping.
        stopped: Whether the training was stopped early.
    """

    accuracy: float
    performance: Sequence[float]
    seconds: float
    curve: Sequence[float] = ()
    stopped: bool = False

    def lineage_step(self, layers: Network) -> LineageStep:
        """Return the lineage step of this network, for the next network to inherit from."""
        return LineageStep(tuple(layers), len(self.curve) if self.stopped else None)


class Curve(NamedTuple):
    """Learning curve of a training with early stopping.

    Attributes:
        trial: Number of its trial.
        depth: Number of layers of the network.
        accuracies: Accuracies after each epoch except the last.
        stopped: Whether the training was stopped early.
    """

    trial: int
    depth: int
    accuracies: Sequence[float]
    stopped: bool


class TrainingCache:
    """Cache of the networks that a study has trained in one setting.

    Args:
        setting: Key for everything that the value of a network depends on, except its layers and lineage.
        inherits: Whether the value depends on the lineage.
        stopped: Whether to include networks whose training was stopped early.
    """

    def __init__(self, setting: str, *, inherits: bool = False, stopped: bool = False) -> None:
        self._setting = setting
        self._inherits, self._stopped = inherits, stopped
        self._locks: weakref.WeakValueDictionary[str, threading.Lock] = weakref.WeakValueDictionary()
        self._begin(None)

    # Locks cannot be pickled, and the trained networks are read again from the study.
    def __reduce__(self) -> tuple[Any, ...]:
        make = functools.partial(type(self), inherits=self._inherits, stopped=self._stopped)
        return make, (self._setting,)

    def _begin(self, study: Study | None) -> None:
        # Two studies may have the same name, in two storages or one after the other. So the objects are
        # compared.
        self._study = None if study is None else weakref.ref(study)
        self._found: dict[str, Trained] = {}
        self._read: set[int] = set()  # numbers of the finished trials that were read

    @contextlib.contextmanager
    def lock_for(self, layers: Sequence[Layer], lineage: Lineage = ()) -> Iterator[None]:
        """Hold a lock for the network, so that threads do not train the same network concurrently."""
        key = _key(layers, lineage)
        with _READING:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            yield

    def find(self, study: Study, layers: Sequence[Layer], lineage: Lineage = ()) -> Trained | None:
        """Return the outcome of the network in any trial of the study, finished or running.

        Return None if it has not been trained yet.

        Args:
            study: Study to search.
            layers: Layers of the network.
            lineage: Lineage that the network inherits from, possibly empty.
        """
        key = _key(layers, lineage)
        with _READING:
            if self._study is None or self._study() is not study:
                self._begin(study)
            if key in self._found:
                return self._found[key]
            for trial in study.get_trials(deepcopy=False):
                if trial.number not in self._read:
                    self._learn(trial)
                    if trial.state.is_finished():
                        self._read.add(trial.number)
            return self._found.get(key)

    def _learn(self, trial: FrozenTrial) -> None:
        setting, entries = read_trainings(trial)
        if setting != self._setting:
            return
        performance = read_performance(trial)
        lineage: Lineage = ()
        for it in entries:
            # Read without the space, because the present space may be narrower than that of the trial.
            layers = network_in(trial.params)[: it.step + 1]
            if len(layers) <= it.step:
                return
            # A looked-up network is read from the trial that trained it.
            if not it.looked_up and it.step in performance and (self._stopped or not it.stopped):
                batches = performance[it.step].tolist()
                trained = Trained(it.accuracy, batches, it.seconds, it.curve, it.stopped)
                self._found[_key(layers, lineage)] = trained
            if self._inherits:
                lineage = (*lineage, LineageStep(layers, len(it.curve) if it.stopped else None))


def _key(layers: Sequence[Layer], lineage: Lineage) -> str:
    return " ".join([describe(layers), *map(str, lineage)])


def note_training(trial: BaseTrial, setting: str, step: int, trained: Trained, *, looked_up: bool) -> None:
    """Record in ``trial`` that its network of ``step + 1`` layers was trained or looked up."""
    # An attribute with another setting is replaced. It may come from a trial that this one repeats.
    before = trial.user_attrs[TRAININGS_ATTRIBUTE] if read_trainings(trial)[0] == setting else setting
    entry = Training(
        step, trained.accuracy, trained.seconds, looked_up, tuple(trained.curve), trained.stopped
    )
    trial.set_user_attr(TRAININGS_ATTRIBUTE, write_training(before, entry))


def read_curves(study: Study, setting: str) -> Iterator[Curve]:
    """Yield the learning curves of all trainings of a study in the setting."""
    for trial in study.get_trials(deepcopy=False):
        noted, entries = read_trainings(trial)
        for it in entries if noted == setting else ():
            if it.curve and not it.looked_up:
                yield Curve(trial.number, it.step + 1, it.curve, it.stopped)
