"""A budget in seconds, for which plans are weighed by the time that they take.

With a budget, the gain of a plan is divided by its expected seconds to the power of the share of the budget
that is left. So cheap plans come first, and towards the end the gain alone counts. Lee, Perrone, Archambeau
and Seeger ("Cost-aware Bayesian optimization", 2020, arXiv 2003.10870) call this cost cooling.
"""

from __future__ import annotations

import math

import numpy as np
from optuna.trial import FrozenTrial

from optuna_trlhpo.trials.durations import seconds_of

_LEAST_KNOWN = 3
"""Number of trials of known duration before plans are weighed."""


class TimeBudget:
    """Budget of a study in seconds of trials.

    Args:
        seconds: The budget; None: there is none, and plans are not weighed.

    Examples:
        >>> import optuna
        >>> budget = TimeBudget(100.0)
        >>> budget.spend(optuna.create_trial(value=1.0, user_attrs={"seconds": 25}))
        >>> budget.left
        0.75
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds
        self._spent = 0.0

    def spend(self, trial: FrozenTrial) -> None:
        """Count a finished trial."""
        seconds = seconds_of(trial)
        self._spent += 0.0 if math.isnan(seconds) else seconds

    @property
    def left(self) -> float:
        """Share of the budget that is left, in [0, 1]; 0 without a budget."""
        return 0.0 if self._seconds is None else min(max(1 - self._spent / self._seconds, 0.0), 1.0)


class LogSeconds:
    """Logarithms of the seconds of known trials, relative to the shortest, as targets of a regression.

    Args:
        seconds: ``[N]`` seconds.

    Examples:
        >>> known = LogSeconds(np.array([1.0, 10.0, 100.0]))
        >>> known.targets.round(3).tolist()
        [-1.225, 0.0, 1.225]
        >>> np.exp(known.of(np.array([0.0, 9.0]))).round(3).tolist()
        [10.0, 100.0]
    """

    def __init__(self, seconds: np.ndarray) -> None:
        self._log = np.log(seconds / seconds.min())
        self._mean, self._deviation = float(self._log.mean()), float(self._log.std()) or 1.0

    @staticmethod
    def are_enough(seconds: np.ndarray) -> bool:
        """Return whether as many seconds are known as it takes to weigh plans."""
        return len(seconds) >= _LEAST_KNOWN

    @property
    def targets(self) -> np.ndarray:
        """``[N]`` with mean 0 and standard deviation 1."""
        return (self._log - self._mean) / self._deviation

    def of(self, targets: np.ndarray) -> np.ndarray:
        """Logarithms ``[C]`` of seconds for predicted targets, within the range of those known."""
        return np.clip(self._mean + self._deviation * targets, 0.0, self._log.max())
