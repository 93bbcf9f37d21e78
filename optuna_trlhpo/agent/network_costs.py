"""Expected seconds of trials that grow a network.

Notation: C networks.
"""

from __future__ import annotations

import numpy as np

from optuna_trlhpo.agent.config import AgentConfig
from optuna_trlhpo.agent.network_critic import NetworkCritic
from optuna_trlhpo.agent.prior_knowledge import PriorKnowledge
from optuna_trlhpo.agent.replay import Replay
from optuna_trlhpo.agent.sequences import Networks, joined
from optuna_trlhpo.agent.time_budget import LogSeconds, TimeBudget


class NetworkCosts:
    """Model of the seconds of a trial, by the network that it ends with.

    Args:
        seed: Random seed.
        replay: Memory of finished trials, which is never changed here.
        knowledge: Prior knowledge about networks.
        budget: Budget in seconds.
    """

    def __init__(self, seed: int, replay: Replay, knowledge: PriorKnowledge, budget: TimeBudget) -> None:
        self._replay, self._knowledge, self._budget = replay, knowledge, budget
        self._critic = NetworkCritic(AgentConfig(), seed)
        self._known: LogSeconds | None = None

    def learn(self, templates: Networks, n_trials: int) -> None:
        """Learn from the finished trials, if there is a budget.

        Args:
            templates: Networks that may be planned, with their prior features.
            n_trials: Number of finished trials since the last time.
        """
        if not self._budget.left:
            return
        networks, seconds = self._timed()
        if LogSeconds.are_enough(seconds):
            names, means = self._replay.names, self._knowledge.means
            self._critic.features.learn(joined([networks, templates]), names.categorical, means)
            self._condition(networks, seconds, n_trials)

    def weighed(self, networks: Networks) -> np.ndarray | None:
        """Logarithms ``[C]`` by which gains are divided; None without a budget, or while nothing is known.

        Args:
            networks: C networks with their prior features.
        """
        if self._known is None or not self._budget.left:
            return None
        predicted, _ = self._critic.surrogate.predict(self._critic.features(networks))
        return self._budget.left * self._known.of(predicted)

    def refresh(self) -> None:
        """Take the latest trials into account."""
        if self._known is not None and self._budget.left:
            self._condition(*self._timed(), 0)

    def _timed(self) -> tuple[Networks, np.ndarray]:
        networks, seconds = self._replay.timed()
        return self._knowledge.with_prior_features(networks), seconds

    def _condition(self, networks: Networks, seconds: np.ndarray, n_trials: int) -> None:
        self._known = LogSeconds(seconds)
        self._critic.condition(networks, self._known.targets, n_trials=n_trials)
