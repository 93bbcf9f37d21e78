"""Critic of networks, which predicts their values from all networks with a value.

Notation: N networks with a value, F features, X expectations.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from optuna_trlhpo.agent.config import AgentConfig
from optuna_trlhpo.agent.features import FeatureMap
from optuna_trlhpo.agent.learning import StepBudget
from optuna_trlhpo.agent.sequences import Networks
from optuna_trlhpo.agent.surrogate import Surrogate, make_surrogate


class NetworkCritic:
    """Critic that combines a surrogate with the features of networks.

    Args:
        config: Settings of the agent.
        seed: Random seed of the surrogate.

    Attributes:
        surrogate: Model that ranks networks by their features.
        features: Map of networks to features.
        of_networks: ``[N]`` predictions for all networks that the surrogate was conditioned on.
        values: ``[N]`` values of these networks; for planned ones, what the critic expects.
        evidence: Log evidence of the surrogate; None where it is unknown.
    """

    def __init__(self, config: AgentConfig, seed: int) -> None:
        self.features = FeatureMap()
        self._steps = StepBudget(config.fit_steps)
        self.surrogate: Surrogate = make_surrogate(config, seed)
        self.of_networks = self.values = np.zeros(0)
        self.evidence: float | None = None

    def condition(
        self, networks: Networks, values: np.ndarray, pending: Networks | None = None, *, n_trials: int = 0
    ) -> None:
        """Condition the surrogate on networks with values, and set what is known of them.

        Args:
            networks: Networks whose features are known to the map of features.
            values: ``[N]`` their scores.
            pending: Networks that other trials are about to try; the expectation replaces their outcome.
            n_trials: Number of finished trials since the surrogate learned, if it is to learn now; else 0.
        """
        x = self.features(networks)
        steps = self._steps.draw(n_trials, len(values))
        self.surrogate.fit(x, values, self.features.features, steps=steps)
        self.evidence = self.surrogate.evidence
        if pending is not None:
            others = self.features(pending)
            values = np.concatenate([values, self.surrogate.predict(others)[0]])
            x = np.concatenate([x, others])
            self.surrogate.fit(x, values, self.features.features, steps=0)
        self.of_networks, self.values = self.surrogate.fitted(), values

    def attention(
        self, networks: Networks, steps: Sequence[tuple[np.ndarray, np.ndarray]]
    ) -> list[np.ndarray]:
        """Attention weights of a transformer as it judges the prefixes of one network.

        Args:
            networks: The first 1 to S steps of the network.
            steps: S pairs of base names ``[A]`` and indices ``[A]``.

        Returns:
            Rows k = 1 to S, each ``[H, k + 1]``: the sum over the parameters of each step, and last the
            weight of the query and of the features of the network as a whole.
        """
        weights = self.surrogate.attention(self.features(networks))  # [S, H, 1 + columns]
        assert weights is not None
        rows = []
        for k in range(1, len(steps) + 1):
            row = np.zeros((weights.shape[1], k + 1))
            for step, (names, indices) in enumerate(steps[:k]):
                pairs = zip(names.tolist(), indices.tolist(), strict=True)
                columns = {self.features.column_of(*pair) for pair in pairs if pair[0] >= 0} - {-1}
                row[:, step] = weights[k - 1][:, [1 + column for column in sorted(columns)]].sum(axis=1)
            row[:, k] = weights[k - 1].sum(axis=1) - row[:, :k].sum(axis=1)
            rows.append(row)
        return rows
