"""What a study has trained already: its trials are the memory, so any worker finds what any other trained.

A trial notes of each of its networks in which setting it was trained, what accuracy it came to and how long
that took, in one short text, the user attribute ``trainings``: ``"1f2e3d4c 0:0.9125:2.51 1:0.9375:=1.8"``.
Behind the setting comes for each step, the number of layers less one, the accuracy, and the seconds; ``=``
says that the network was looked up, and that training it once had taken so long. Where networks may be
stopped early their learning curve follows, ``2:0.65:0.9:0.41/0.63!``, with ``!`` if this one was.

Where networks inherit, what one comes to depends on the networks that were trained before it on its way, and
only a network with the same way is looked up.
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

_READING = threading.Lock()  # trials of one study may run in threads


class Trained(NamedTuple):
    """What came of a training.

    Attributes:
        accuracy: On all validation images.
        performance: 32 accuracies, on the batches that the agent sees.
        seconds: That it took.
        curve: Accuracies after each epoch but the last, where they were watched.
        stopped: Whether the training was stopped early.
    """

    accuracy: float
    performance: Sequence[float]
    seconds: float
    curve: Sequence[float] = ()
    stopped: bool = False

    def ancestor(self, layers: Network) -> LineageStep:
        """What the next network on the way inherits from, if it inherits."""
        return LineageStep(tuple(layers), len(self.curve) if self.stopped else None)


class Curve(NamedTuple):
    """How a training went that was watched.

    Attributes:
        trial: The number of its trial.
        depth: Layers of the network.
        accuracies: After each epoch but the last.
        stopped: Whether it was stopped early.
    """

    trial: int
    depth: int
    accuracies: Sequence[float]
    stopped: bool


class TrainingCache:
    """The networks that a study has trained in one setting.

    Args:
        setting: A key for all that the value of a network depends on, itself and its way apart.
        inherits: Whether that value depends on the way.
        stopped: Whether networks are of use that were stopped early.
    """

    def __init__(self, setting: str, *, inherits: bool = False, stopped: bool = False) -> None:
        self._setting = setting
        self._inherits, self._stopped = inherits, stopped
        self._turns: weakref.WeakValueDictionary[str, threading.Lock] = weakref.WeakValueDictionary()
        self._begin(None)

    def __reduce__(self) -> tuple[Any, ...]:  # locks stay, and what was trained is in the study
        make = functools.partial(type(self), inherits=self._inherits, stopped=self._stopped)
        return make, (self._setting,)

    def _begin(self, study: Study | None) -> None:
        # Two studies may have one name, in two storages or one after the other: it is the object that tells.
        self._study = None if study is None else weakref.ref(study)
        self._found: dict[str, Trained] = {}
        self._read: set[int] = set()  # numbers of the finished trials that have been read

    @contextlib.contextmanager
    def turn(self, layers: Sequence[Layer], way: Lineage = ()) -> Iterator[None]:
        """Within, no other thread is here with the same network: what one trains, the next will find."""
        key = _key(layers, way)
        with _READING:
            turn = self._turns.setdefault(key, threading.Lock())
        with turn:
            yield

    def find(self, study: Study, layers: Sequence[Layer], way: Lineage = ()) -> Trained | None:
        """What came of the network in any trial of the study, finished or running; None: nothing yet.

        Args:
            study: To look in.
            layers: Of the network.
            way: What it inherits from, if it does.
        """
        key = _key(layers, way)
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
        way: Lineage = ()
        for it in entries:
            # In whatever space it was grown: the present one may be narrower.
            layers = network_in(trial.params)[: it.step + 1]
            if len(layers) <= it.step:
                return
            # Of one that was looked up the trial tells that trained it.
            if not it.looked_up and it.step in performance and (self._stopped or not it.stopped):
                batches = performance[it.step].tolist()
                trained = Trained(it.accuracy, batches, it.seconds, it.curve, it.stopped)
                self._found[_key(layers, way)] = trained
            if self._inherits:
                way = (*way, LineageStep(layers, len(it.curve) if it.stopped else None))


def _key(layers: Sequence[Layer], way: Lineage) -> str:
    return " ".join([describe(layers), *map(str, way)])


def note_training(trial: BaseTrial, setting: str, step: int, trained: Trained, *, looked_up: bool) -> None:
    """Note in ``trial`` that its network of ``step + 1`` layers was trained, or looked up."""
    # What somebody else wrote, or the trial that this one repeats in another setting, is not added to.
    before = trial.user_attrs[TRAININGS_ATTRIBUTE] if read_trainings(trial)[0] == setting else setting
    entry = Training(
        step, trained.accuracy, trained.seconds, looked_up, tuple(trained.curve), trained.stopped
    )
    trial.set_user_attr(TRAININGS_ATTRIBUTE, write_training(before, entry))


def read_curves(study: Study, setting: str) -> Iterator[Curve]:
    """Those of all trainings of a study that were watched in the setting."""
    for trial in study.get_trials(deepcopy=False):
        noted, entries = read_trainings(trial)
        for it in entries if noted == setting else ():
            if it.curve and not it.looked_up:
                yield Curve(trial.number, it.step + 1, it.curve, it.stopped)
