"""Critic of configurations, which predicts their values from all configurations with a value.

Notation: N configurations with a value, C candidates, D columns, F features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from optuna_trlhpo.agent.config import AgentConfig
from optuna_trlhpo.agent.configurations.columns import Columns, padded
from optuna_trlhpo.agent.configurations.layout import Layout
from optuna_trlhpo.agent.configurations.memory import Known
from optuna_trlhpo.agent.configurations.plan import ConfigurationPlan
from optuna_trlhpo.agent.configurations.transfer import ConfigurationSource
from optuna_trlhpo.agent.gaussian_process import NOISE_OF_TRAINING
from optuna_trlhpo.agent.learning import StepBudget
from optuna_trlhpo.agent.surrogate import Surrogate, make_surrogate
from optuna_trlhpo.agent.transfer import TRANSFER_OFFSET_STD, TRANSFER_WEIGHT_STD
from optuna_trlhpo.trials.episode import steps_of

_NOISE = -4.0
"""Expected logarithm of the variance of noise for an objective of any kind: many have almost none."""


class ConfigurationCritic:
    """Critic that combines a surrogate, its features, and the expectations of earlier studies.

    Args:
        config: Settings of the agent.
        seed: Random seed of the surrogate.
        columns: Columns of the study.
        sources: Earlier studies.

    Attributes:
        surrogate: Model that ranks configurations by their features.
        sources: Earlier studies.
        evidence: Log evidence of the surrogate; None where it is unknown.
        of_known: Predictions and values of all configurations that the surrogate was conditioned on.
    """

    def __init__(
        self, config: AgentConfig, seed: int, columns: Columns, sources: Sequence[ConfigurationSource]
    ) -> None:
        self._config, self._seed, self._columns = config, seed, columns
        self.sources = sources
        self._is_noisy = bool(sources)
        self.surrogate = self._new_surrogate()
        self._steps = StepBudget(config.fit_steps)
        self._layout: Layout | None = None
        self.evidence: float | None = None
        self.of_known: tuple[np.ndarray, np.ndarray] = np.zeros(0), np.zeros(0)

    def _new_surrogate(self) -> Surrogate:
        noise = NOISE_OF_TRAINING if self._is_noisy else _NOISE
        return make_surrogate(self._config, self._seed, noise=noise)

    @property
    def unit(self) -> float | None:
        """Unit of the scores, where it is known from earlier studies."""
        known = [source.unit for source in self.sources if source.unit is not None]
        return max(known, default=None)

    @property
    def _means(self) -> list[float]:
        if not self.sources:
            return []
        return [1 / TRANSFER_WEIGHT_STD / len(self.sources)] * len(self.sources) + [0.0]

    def best_of_sources(self) -> list[np.ndarray]:
        """Rows ``[N, D]`` of the best configurations of each earlier study."""
        return [padded(source.best, len(self._columns)) for source in self.sources]

    def condition(
        self,
        known: Known,
        pending: Sequence[np.ndarray],
        *,
        mean_size: float,
        varies: bool,
        is_noisy: bool,
        after: Sequence[int] = (),
        n_trials: int = 0,
    ) -> None:
        """Condition the surrogate on all that is known, and set `of_known` and `evidence`.

        Args:
            known: Configurations with a value.
            pending: Rows of running trials; the expectation replaces their outcome.
            mean_size: Mean number of parameters of a trial.
            varies: Whether values decide which parameters there are.
            is_noisy: Whether much noise is expected.
            after: Columns that only come after a report, see `Layout`.
            n_trials: Number of finished trials since the surrogate learned, if it is to learn now; else 0.
        """
        for source in self.sources:
            source.refresh()
        used = known.actions
        if self.sources:
            used = np.concatenate([known.actions, *self.best_of_sources()])
        self._layout = Layout.of(
            self._columns,
            used,
            mean_size=mean_size,
            varies=varies,
            n_contexts=known.contexts.shape[1],
            after=after,
            means=self._means,
        )
        x = self.features(known.actions, known.contexts)
        # Expect much noise with earlier studies, too: a single value must not outweigh their expectations.
        is_noisy = is_noisy or bool(self.sources)
        if n_trials and is_noisy != self._is_noisy:
            self._is_noisy, self._steps = is_noisy, StepBudget(self._config.fit_steps)
            self.surrogate = self._new_surrogate()
        # Which report decides what has to be learned before the study is over, whatever it takes.
        steps = self._steps.draw(n_trials, len(known.values), fully=self._layout.n_contexts > 0)
        self.surrogate.fit(x, known.values, self._layout.features, steps=steps)
        self.evidence = self.surrogate.evidence
        values = known.values
        if pending:
            others = self.features(padded(pending, len(self._columns)), None)
            values = np.concatenate([values, self.surrogate.predict(others)[0]])
            x = np.concatenate([x, others])
            self.surrogate.fit(x, values, self._layout.features, steps=0)
        self.of_known = self.surrogate.fitted(), values

    def features(self, actions: np.ndarray, contexts: np.ndarray | None) -> np.ndarray:
        """Features ``[N, F]`` of configurations ``[N, D]`` with the intermediate reports of their trials."""
        assert self._layout is not None
        if contexts is None:
            contexts = np.full((len(actions), self._layout.n_contexts), np.nan)
        expected = np.zeros((len(actions), 0))
        if self.sources:
            columns = [TRANSFER_WEIGHT_STD * source.expect(actions) for source in self.sources]
            expected = np.stack([*columns, np.full(len(actions), TRANSFER_OFFSET_STD)], axis=1)
        return self._layout(actions, contexts, expected)

    def attention(self, plan: ConfigurationPlan) -> list[np.ndarray]:
        """Attention weights of the critic as it judges the first k steps of the last plan.

        Rows k = 1 to S, each ``[H, k + 1]``, as in `agent.planner.Planner.attention`.
        """
        if self._config.critic != "transformer" or self._layout is None:
            return []
        steps = steps_of(plan.path.names, [])
        ends = np.cumsum([len(names) for names in steps]).tolist()
        where = [
            self._columns.find(n, d) for n, d in zip(plan.path.names, plan.path.distributions, strict=True)
        ]
        rows = []
        for end in ends:
            row = plan.row.copy()
            row[[column for column in where[end:] if column >= 0]] = np.nan
            rows.append(row)
        weights = self.surrogate.attention(self.features(np.array(rows), None))
        assert weights is not None
        found = []
        for k in range(1, len(ends) + 1):
            row = np.zeros((weights.shape[1], k + 1))
            for step, (start, stop) in enumerate(zip([0, *ends], ends[:k], strict=False)):
                ids = [
                    1 + self._columns.id_of("column", column) for column in where[start:stop] if column >= 0
                ]
                ids = [number for number in ids if number < weights.shape[2]]
                row[:, step] = weights[k - 1][:, ids].sum(axis=1)
            row[:, k] = weights[k - 1].sum(axis=1) - row[:, :k].sum(axis=1)
            found.append(row)
        return found
