"""Transfer learning from an earlier study of configurations."""

from __future__ import annotations

import numpy as np

from optuna_trlhpo.agent.configurations.layout import Layout
from optuna_trlhpo.agent.configurations.memory import ConfigurationMemory
from optuna_trlhpo.agent.features import N_PARTS
from optuna_trlhpo.agent.gaussian_process import GaussianProcess

_STEPS = 80
"""Number of steps in which the kernel is learned."""
_N_BEST = 100
"""Number of configurations that are candidates unchanged."""


class ConfigurationSource:
    """Earlier study of configurations, with a model that has learned it.

    Args:
        configurations: Its trials, on the columns of the running study.
        weights: ``[K]`` weights of its objectives.
        seed: Random seed for the choice of configurations, where there are many.
    """

    def __init__(self, configurations: ConfigurationMemory, weights: np.ndarray, seed: int) -> None:
        self._configurations = configurations
        self._weights, self._seed = weights, seed
        self._columns = configurations.columns
        self._version = -1
        self.unit: float | None = None
        self._learn()

    def _learn(self) -> None:
        self._version = self._columns.version
        known = self._configurations.known(np.random.default_rng(self._seed), self._weights)
        scores = self._configurations.scores
        self.unit = scores.unit if scores is not None and scores.of_errors else None
        order = np.argsort(-known.values, kind="stable")
        self.best = known.actions[order[:_N_BEST]]
        self._layout = Layout.of(
            self._columns, known.actions, mean_size=self._configurations.mean_size, varies=False
        )
        self._posterior = GaussianProcess(n_parts=N_PARTS)
        x = self._layout(known.actions, known.contexts[:, :0], np.zeros((len(known.values), 0)))
        self._posterior.fit(x, known.values, self._layout.features, steps=_STEPS)

    def refresh(self) -> None:
        """Learn again if an axis has changed since the last time."""
        if self._version != self._columns.version:
            self._learn()

    def expect(self, actions: np.ndarray) -> np.ndarray:
        """``[N]`` expected score in the earlier study for each row of actions."""
        contexts = np.full((len(actions), 0), np.nan)
        x = self._layout(actions, contexts, np.zeros((len(actions), 0)))
        return self._posterior.predict(x)[0]
