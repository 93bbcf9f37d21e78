"""Trainings of a trial, as stored in the trial."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from optuna.study import Study
from optuna.trial import BaseTrial, FrozenTrial

from optuna_trlhpo.trials.attributes import finite, retry_history

TRAININGS_ATTRIBUTE = "trainings"


class Training(NamedTuple):
    """The training of a trial's network of ``step + 1`` layers."""

    step: int
    accuracy: float
    seconds: float
    looked_up: bool
    """Whether the accuracy was reused from another trial instead of training again."""
    curve: tuple[float, ...] = ()
    """Accuracies after each epoch but the last, if they were recorded."""
    stopped: bool = False
    """Whether the training was stopped early."""


def write_training(before: str, training: Training) -> str:
    """Return the attribute ``before`` (initially a key of the setting) with ``training`` appended.

    Examples:
        >>> write_training("1f2e3d4c", Training(0, 0.9125, 2.514, looked_up=False))
        '1f2e3d4c 0:0.9125:2.51'
    """
    mark = "=" if training.looked_up else ""
    entry = f"{training.step}:{training.accuracy!r}:{mark}{training.seconds:.3g}"
    if training.curve:
        entry += f":{'/'.join(map(repr, training.curve))}{'!' if training.stopped else ''}"
    return f"{before} {entry}"


def read_trainings(trial: BaseTrial) -> tuple[str, list[Training]]:
    """Return the key of the setting and the trainings; an empty key if no valid record is stored."""
    text = trial.user_attrs.get(TRAININGS_ATTRIBUTE)
    if not isinstance(text, str):
        return "", []
    key, *entries = text.split(" ")
    trainings = [training for entry in entries if (training := _training(entry)) is not None]
    return (key, trainings) if len(trainings) == len(entries) else ("", [])


_NUMBER = r"[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]{1,3})?"
_TRAINING = re.compile(
    rf"([0-9]{{1,4}}):({_NUMBER}):(=?)({_NUMBER})(?::({_NUMBER}(?:/{_NUMBER})*)(!?))?", re.ASCII
)


def _training(entry: str) -> Training | None:
    match = _TRAINING.fullmatch(entry)
    if match is None:
        return None
    step, accuracy, mark, seconds, points, stopped = match.groups()
    curve = tuple(map(float, points.split("/"))) if points else ()
    if not all(0 <= share <= 1 for share in (float(accuracy), *curve)) or finite(float(seconds)) is None:
        return None
    return Training(int(step), float(accuracy), float(seconds), bool(mark), curve, bool(stopped))


def own_trainings(trials: Sequence[FrozenTrial]) -> list[list[Training]]:
    """Return the trainings of each trial.

    A retry begins with the record of the trial that it retries, whose trainings are not its own.

    Args:
        trials: All trials of a study, or some.
    """
    records = {trial.number: read_trainings(trial)[1] for trial in trials}
    found = []
    for trial in trials:
        own = records[trial.number]
        before = next((records[n] for n in reversed(retry_history(trial)) if n in records), [])
        found.append(own[len(before) :] if own[: len(before)] == before else own)
    return found


class Savings(NamedTuple):
    """Training time saved by reusing earlier trainings in a study.

    Attributes:
        trained: Number of networks that were trained.
        looked_up: Number of networks that had been trained before in the study and were reused.
        seconds: Total training time in seconds.
        seconds_saved: Training time in seconds that the reused networks would have taken.

    Examples:
        >>> print(Savings(trained=60, looked_up=20, seconds=30.0, seconds_saved=12.5))
        60 networks trained in 30.0 s; 20 of 80 (25 %) looked up, which saved 12.5 s
    """

    trained: int
    looked_up: int
    seconds: float
    seconds_saved: float

    @property
    def hit_rate(self) -> float:
        """Fraction of the networks, 0 to 1, that were reused."""
        return self.looked_up / max(self.trained + self.looked_up, 1)

    def __str__(self) -> str:
        return (
            f"{self.trained} networks trained in {self.seconds:.1f} s; {self.looked_up} of "
            f"{self.trained + self.looked_up} ({self.hit_rate:.0%}) looked up, which saved "
            f"{self.seconds_saved:.1f} s"
        ).replace("%)", " %)")


def savings(study: Study) -> Savings:
    """Return the number and time of trained and reused networks over all trials of a study."""
    entries = [entry for own in own_trainings(study.get_trials(deepcopy=False)) for entry in own]
    trained = [entry.seconds for entry in entries if not entry.looked_up]
    saved = [entry.seconds for entry in entries if entry.looked_up]
    return Savings(len(trained), len(saved), sum(trained), sum(saved))


def accuracies(trial: FrozenTrial) -> dict[int, float]:
    """Return the accuracies, 0-1, of the trial's trained or reused networks, by number of layers."""
    return {training.step + 1: training.accuracy for training in read_trainings(trial)[1]}
