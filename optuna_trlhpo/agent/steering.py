"""Reports as part of the state: what a running trial has reported informs its later choices.

A report may tell more than the parameters before it do: which data the trial has drawn, how its start was.
So the context of all that follows is the *surprise* at each report: how it compares with what is expected of
these parameters from the reports of all other trials (leave-one-out). It makes no difference whether reports
are values.

Contexts cost accuracy where they tell nothing. So the critic that reads them is compared, from time to time,
with one that does not, by how probable they make the values.

Notation: M reports.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

from optuna_trlhpo.trials.outcome_transforms import ranks_of

_MARGIN = 3.0
"""Least advantage in log evidence with which contexts begin to act."""
_FIRST_LOOK, _LOOK_AGAIN = 8, 1.3
"""Number of trials before contexts are judged at first, and factor on it until they are judged again."""

Critic = TypeVar("Critic")


class Steering(Generic[Critic]):
    """Decides whether reports inform later choices, and keeps the critic that reads them.

    Args:
        make_critic: Creates a critic.

    Attributes:
        acts: Whether reports have been found to inform later choices.
        critic: Critic that reads contexts; None before the first comparison.
    """

    def __init__(self, make_critic: Callable[[], Critic]) -> None:
        self._make_critic = make_critic
        self.critic: Critic | None = None
        self._next_look = _FIRST_LOOK
        self.acts = False

    def candidate(self, n_trials: int) -> Critic | None:
        """Critic that is to learn with contexts; None if it is not time to compare it.

        It is a new one where contexts did not act so far.

        Args:
            n_trials: Number of finished trials.
        """
        if not self.acts and n_trials < self._next_look:
            return None
        if not self.acts or self.critic is None:
            self.critic = self._make_critic()
        return self.critic

    def judge(self, informed: float, without: float, n_trials: int) -> None:
        """Decide whether contexts explain the values better.

        Where they have acted so far, any advantage will do: the better they inform the choices, the fewer
        values are left that only they explain.

        Args:
            informed: Log evidence of the critic that reads contexts.
            without: Log evidence of the critic that reads none.
            n_trials: Number of finished trials.
        """
        self.acts = informed > without + (0.0 if self.acts else _MARGIN)
        if not self.acts:
            self._next_look = max(n_trials + 1, int(_LOOK_AGAIN * n_trials))


def surprises(errors: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Ranks ``[M]`` in [0, 1] of the surprise at each report, among reports of the same number.

    Args:
        errors: ``[M]`` reports less their expectations from all other reports, in deviations.
        numbers: ``[M]`` number of each report in its trial.
    """
    ranks = np.empty(len(errors))
    for number in np.unique(numbers):
        mine = numbers == number
        ranks[mine] = ranks_of(errors[mine])
    return ranks
