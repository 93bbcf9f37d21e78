"""What a study has trained already: its trials are the memory, so any worker finds what any other trained.

A trial notes of each of its networks in which setting it was trained, what accuracy it came to and how long
that took, in one short text, the user attribute ``trainings``: ``"1f2e3d4c 0:0.9125:2.51 1:0.9375:=1.8"``.
Behind the setting comes for each step, the number of layers less one, the accuracy, and the seconds; ``=``
says that the network was looked up, and that training it once had taken so long.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

from optuna.study import Study
from optuna.trial import BaseTrial, FrozenTrial

from optuna_trlhpo.episode import read_performance
from optuna_trlhpo.layers import Layer, describe
from optuna_trlhpo.notes import TRAININGS_ATTRIBUTE, Training, read_trainings, write_training
from optuna_trlhpo.space import LayerSpace

_READING = threading.Lock()  # trials of one study may run in threads


class Trained(NamedTuple):
    """What came of a training.

    Attributes:
        accuracy: On all validation images.
        performance: 32 accuracies, on the batches that the agent sees.
        seconds: That it took.
    """

    accuracy: float
    performance: Sequence[float]
    seconds: float


class Savings(NamedTuple):
    """What looking networks up has saved in a study.

    Attributes:
        trained: Networks that were trained.
        looked_up: Networks that had been trained before in the study, and were not trained again.
        seconds: Of the trainings.
        seconds_saved: That the trainings would have taken which were not run.

    Example:
        >>> print(Savings(trained=60, looked_up=20, seconds=30.0, seconds_saved=12.5))
        60 networks trained in 30.0 s; 20 of 80 (25 %) looked up, which saved 12.5 s
    """

    trained: int
    looked_up: int
    seconds: float
    seconds_saved: float

    @property
    def hit_rate(self) -> float:
        """The share of networks, 0 to 1, that were looked up."""
        return self.looked_up / max(self.trained + self.looked_up, 1)

    def __str__(self) -> str:
        return (
            f"{self.trained} networks trained in {self.seconds:.1f} s; {self.looked_up} of "
            f"{self.trained + self.looked_up} ({self.hit_rate:.0%}) looked up, which saved "
            f"{self.seconds_saved:.1f} s"
        ).replace("%)", " %)")


class TrainedNetworks:
    """The networks that a study has trained in one setting.

    Args:
        space: Where they live.
        setting: A key for all that the value of a network depends on, itself apart.
    """

    def __init__(self, space: LayerSpace, setting: str) -> None:
        self._space = space
        self._setting = setting
        self._study = ""
        self._found: dict[str, Trained] = {}
        self._read: set[int] = set()  # numbers of the finished trials that have been read

    def find(self, study: Study, layers: Sequence[Layer]) -> Trained | None:
        """What came of the network in any trial of the study, finished or running; None: nothing yet."""
        architecture = describe(layers)
        with _READING:
            if study.study_name != self._study:
                self._study, self._found, self._read = study.study_name, {}, set()
            if architecture in self._found:
                return self._found[architecture]
            for trial in study.get_trials(deepcopy=False):
                if trial.number not in self._read:
                    self._learn(trial)
                    if trial.state.is_finished():
                        self._read.add(trial.number)
            return self._found.get(architecture)

    def _learn(self, trial: FrozenTrial) -> None:
        setting, entries = read_trainings(trial)
        if setting != self._setting:
            return
        performance = read_performance(trial)
        for it in entries:
            # Of one that was looked up the trial tells that trained it.
            if not it.looked_up and it.step in performance:
                architecture = self._architecture(trial, it.step + 1)
                batches = performance[it.step].tolist()
                self._found[architecture] = Trained(it.accuracy, batches, it.seconds)

    def _architecture(self, trial: FrozenTrial, depth: int) -> str:
        """Of the first ``depth`` layers; those behind them may be half asked for."""
        own = [f"layer{k}_" for k in range(1, depth + 1)]
        params = {name: value for name, value in trial.params.items() if name.startswith(tuple(own))}
        return describe(self._space.from_params(params))


def note_training(trial: BaseTrial, setting: str, step: int, trained: Trained, *, looked_up: bool) -> None:
    """Note in ``trial`` that its network of ``step + 1`` layers was trained, or looked up."""
    before = trial.user_attrs.get(TRAININGS_ATTRIBUTE, setting)
    entry = Training(step, trained.accuracy, trained.seconds, looked_up)
    trial.set_user_attr(TRAININGS_ATTRIBUTE, write_training(before, entry))


def savings(study: Study) -> Savings:
    """What was trained and what was looked up, over all trials of a study."""
    entries = [entry for trial in study.get_trials(deepcopy=False) for entry in read_trainings(trial)[1]]
    trained = [entry.seconds for entry in entries if not entry.looked_up]
    saved = [entry.seconds for entry in entries if entry.looked_up]
    return Savings(len(trained), len(saved), sum(trained), sum(saved))


def accuracies(trial: FrozenTrial) -> dict[int, float]:
    """Accuracies, 0-1, of the trial's networks, by number of layers; those that it trained or looked up."""
    return {training.step + 1: training.accuracy for training in read_trainings(trial)[1]}
