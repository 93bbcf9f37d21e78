"""Expected seconds of trials, by their configuration.

Notation: C configurations, D columns.
"""

from __future__ import annotations

import numpy as np

from optuna_trlhpo.agent.configurations.critic import ConfigurationCritic
from optuna_trlhpo.agent.configurations.memory import ConfigurationMemory, Known
from optuna_trlhpo.agent.time_budget import LogSeconds, TimeBudget


class ConfigurationCosts:
    """Model of the seconds of a trial.

    Args:
        critic: Critic without earlier studies.
        memory: Memory of the study.
        budget: Budget in seconds.
    """

    def __init__(self, critic: ConfigurationCritic, memory: ConfigurationMemory, budget: TimeBudget) -> None:
        self._critic, self._memory, self._budget = critic, memory, budget
        self._known: LogSeconds | None = None

    def learn(self, *, varies: bool, n_trials: int = 0) -> None:
        """Take the finished trials into account, if there is a budget.

        Args:
            varies: Whether values decide which parameters there are.
            n_trials: Number of finished trials since the last time, if it is time to learn; else 0.
        """
        if not self._budget.left:
            return
        actions, seconds = self._memory.timed()
        if not LogSeconds.are_enough(seconds) or (self._known is None and not n_trials):
            return
        self._known = LogSeconds(seconds)
        n = len(seconds)
        known = Known(actions, np.zeros((n, 0)), self._known.targets, np.zeros(n, np.int64))
        size = self._memory.mean_size
        self._critic.condition(known, (), mean_size=size, varies=varies, is_noisy=True, n_trials=n_trials)

    def weighed(self, rows: np.ndarray) -> np.ndarray | None:
        """Logarithms ``[C]`` by which gains are divided; None without a budget, or while nothing is known.

        Args:
            rows: ``[C, D]`` configurations.
        """
        if self._known is None or not self._budget.left:
            return None
        predicted, _ = self._critic.surrogate.predict(self._critic.features(rows, None))
        return self._budget.left * self._known.of(predicted)
