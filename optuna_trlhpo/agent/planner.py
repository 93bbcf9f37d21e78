"""Planner of the network that a trial should try next.

The critic is conditioned on every network with a value, and plans are ranked by its predictions.

Notation as in `neighbourhood`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from optuna_trlhpo.agent.acquisition import acquire
from optuna_trlhpo.agent.config import AgentConfig
from optuna_trlhpo.agent.features import FeatureMap
from optuna_trlhpo.agent.neighbourhood import Neighbourhood
from optuna_trlhpo.agent.prior_knowledge import PriorKnowledge
from optuna_trlhpo.agent.replay import Replay
from optuna_trlhpo.agent.sequences import (
    Candidate,
    DecisionPoint,
    Networks,
    Plan,
    as_networks,
    as_one,
    joined,
    network_key,
)
from optuna_trlhpo.agent.surrogate import Surrogate, make_surrogate
from optuna_trlhpo.trials.parameters import ParameterSpec

_FIRST_STEPS = 60
"""Number of learning steps at the first fit."""
_LEAST = 3
"""Number of networks with a value before the critic learns its kernel."""
_MANY = 100
"""Number of networks beyond which the kernel is learned in fewer steps."""
_TEMPLATE_TRIALS = 100
"""Number of finished trials used as templates, besides the networks with a value."""
_BEST_OF_GENERATION = 10
_DEPTH = ParameterSpec("n_layers", 0, 0, False)
"""First parameter that `LayerSpace.suggest` asks for."""


class Planner:
    """Planner of networks from a `Replay`.

    Args:
        config: Settings of the agent.
        replay: Memory of finished trials, which is never changed here.
        seed: Random seed of an ensemble.
        knowledge: Prior knowledge about networks.

    Attributes:
        features: Features of networks, which the critic reads.
        critic: Model of the value of a network, as the last plan was made with it.
    """

    def __init__(
        self,
        config: AgentConfig,
        replay: Replay,
        seed: int,
        knowledge: PriorKnowledge,
    ) -> None:
        self._config = config
        self._replay = replay
        self.knowledge = knowledge
        self.features = FeatureMap()
        self.critic: Surrogate = make_surrogate(config, seed)
        self._excluded: set[bytes] = set()
        self._n_fitted = 0  # number of trials at the last fit
        self._has_learned = False

    def plan(
        self,
        point: DecisionPoint,
        own: np.ndarray,
        weights: np.ndarray,
        rng: np.random.Generator,
        pending: Sequence[Plan],
        running: DecisionPoint | None = None,
    ) -> Plan | None:
        """Plan the network to try next; None if nothing is known of the parameter that is asked for.

        Args:
            point: Decision point of the running trial.
            own: ``[steps]`` reports of the trial after each step, NaN where there is none.
            weights: ``[K]`` the trial's weights of the objectives.
            rng: Random generator.
            pending: Plans of other running trials; the expectation replaces their outcome.
            running: Trial that has reported ``own``, if the plan need not continue it.
        """
        replay, config = self._replay, self._config
        networks, values = replay.networks(rng, weights, unit=self.knowledge.unit)
        prefixes, prefix_values = self._prefixes(point if running is None else running, own)
        networks = self.knowledge.with_prior_features(joined([networks, prefixes]))
        values = np.concatenate([values, prefix_values])
        templates, n_trials = self._templates(rng)
        self.features.learn(joined([networks, templates]), replay.names.categorical, self.knowledge.means)
        x = self.features(networks)
        self._fit(x, values)
        if pending:
            plans = [as_one(plan, np.zeros_like(plan.names)) for plan in pending]
            others = self.features(self.knowledge.with_prior_features(joined(plans)))
            values = np.concatenate([values, self.critic.predict(others)[0]])
            x = np.concatenate([x, others])
            self.critic.fit(x, values, self.features.features, steps=0)
        of_networks = self.critic.predict(x)[0]
        # Trials without a value are templates only: those with a value are among the networks.
        of_templates = np.full(len(templates.names), -np.inf)
        if len(of_templates) > n_trials:
            untried = templates.rows(np.arange(n_trials, len(of_templates)))
            of_templates[n_trials:] = self.critic.predict(self.features(untried))[0]
        categorical = replay.names.categorical
        neighbourhood = Neighbourhood(
            joined([networks, templates]),
            np.concatenate([of_networks[: len(networks.names)], of_templates]),
            point,
            categorical,
            self.features.repeated(len(categorical)),
            self._complete(networks, point.step),
            replay.names.settle,
            None if self.knowledge.context is None else self.knowledge.contains,
            self.knowledge.layer_kind,
            replay.names.number(_DEPTH)
            if self.knowledge.context is not None and self.knowledge.context.depth_first
            else -2,
        )
        parents = neighbourhood.parents()
        if not parents:
            return None
        candidates = neighbourhood.resample(rng, config.n_candidates // 2) + self._untried(parents)
        excluded = self._excluded.union(network_key(p.names, p.indices, p.actions) for p in pending)
        excluded.update(
            network_key(n, i, a)
            for n, i, a in zip(prefixes.names, prefixes.indices, prefixes.actions, strict=True)
        )
        chosen, score, features = None, -np.inf, np.zeros((0, 0))
        for _ in range(config.n_generations):
            if config.mutations:
                candidates = candidates + neighbourhood.mutate(parents, rng, config.n_candidates)
            else:
                candidates = candidates + neighbourhood.resample(rng, config.n_candidates)
            unique = {candidate.key(): candidate for candidate in candidates}
            candidates = [
                candidate for k, candidate in unique.items() if not replay.has_value(k) and k not in excluded
            ]
            if not candidates:
                candidates = list(unique.values())
            if not candidates:
                break
            z = self.features(self.knowledge.with_prior_features(as_networks(candidates, point.context)))
            scores = acquire(config.acquisition, self.critic, z, of_networks, values, rng)
            order = np.argsort(-scores, kind="stable")
            chosen, score, features = candidates[order[0]], float(scores[order[0]]), z[order[:1]]
            parents = candidates = [candidates[i] for i in order[:_BEST_OF_GENERATION]]
        if chosen is None:
            chosen = parents[0]
            features = self.features(self.knowledge.with_prior_features(as_networks([chosen], point.context)))
        (mean,), (deviation,) = self.critic.predict(features)
        actions, names, indices = chosen.actions.copy(), chosen.names.copy(), chosen.indices.copy()
        return Plan(actions, names, indices, score, chosen.key(), float(mean), float(deviation))

    def values_of(self, scores: np.ndarray) -> np.ndarray | None:
        """Values of the objective with these scores; None where a score has no single value."""
        return self._replay.values_of(scores)

    def attention(self, plan: Plan) -> list[np.ndarray]:
        """Attention weights of the critic as it judges the first k steps of the last plan.

        Rows k = 1 to S, each ``[H, k + 1]``: the sum over the parameters of each step, and last the weight of
        the query and of the features of the network as a whole. No rows for a critic without attention.
        """
        if self._config.critic != "transformer":
            return []
        S = len(plan.names)
        prefixes = [
            Plan(plan.actions[:k], plan.names[:k], plan.indices[:k], 0.0, b"") for k in range(1, S + 1)
        ]
        networks = joined([as_one(prefix, np.zeros_like(prefix.names)) for prefix in prefixes])
        weights = self.critic.attention(
            self.features(self.knowledge.with_prior_features(networks))
        )  # [S, H, 1 + columns]
        assert weights is not None
        rows = []
        for k in range(1, S + 1):
            row = np.zeros((weights.shape[1], k + 1))
            for step in range(k):
                pairs = zip(plan.names[step].tolist(), plan.indices[step].tolist(), strict=True)
                columns = {self.features.column_of(*pair) for pair in pairs if pair[0] >= 0} - {-1}
                row[:, step] = weights[k - 1][:, [1 + column for column in sorted(columns)]].sum(axis=1)
            row[:, k] = weights[k - 1].sum(axis=1) - row[:, :k].sum(axis=1)
            rows.append(row)
        return rows

    def exclude(self, plan: Plan) -> None:
        """Exclude this plan for good: the objective did not offer a value that it needs."""
        self._excluded.add(plan.key)

    def _templates(self, rng: np.random.Generator) -> tuple[Networks, int]:
        """Networks used as templates besides those with a value; and how many of them are trials."""
        parts = [
            self._replay.trials(rng, _TEMPLATE_TRIALS),
            *(source.best for source in self.knowledge.sources),
        ]
        if self.knowledge.space_samples is not None:
            parts.append(self.knowledge.space_samples)
        return self.knowledge.with_prior_features(joined(parts)), len(parts[0].names)

    def _untried(self, parents: list[Candidate]) -> list[Candidate]:
        """Networks of earlier studies and of the space, which are candidates unchanged."""
        return parents[:_BEST_OF_GENERATION] if self.knowledge.has_prior(self.knowledge.context) else []

    # Critic -------------------------------------------------------------------------------------------

    def _fit(self, x: np.ndarray, values: np.ndarray) -> None:
        n = len(self._replay)
        steps = 0
        if n != self._n_fitted and len(values) >= _LEAST:
            # With more networks a step takes longer, and each network changes the kernel less.
            often = max(1, round(self._config.fit_steps * min(1.0, _MANY / len(values))))
            steps = often if self._has_learned else _FIRST_STEPS
            self._has_learned = True
        self._n_fitted = n
        self.critic.fit(x, values, self.features.features, steps=steps)

    def _prefixes(self, point: DecisionPoint, own: np.ndarray) -> tuple[Networks, np.ndarray]:
        """Networks with values from the reports of the running trial."""
        steps: list[int] = []
        if self._replay.reports_are_values:
            steps = np.flatnonzero(~np.isnan(own)).tolist()
        values = np.array([self._replay.score_report(own[k]) for k in steps])
        plans = [
            Plan(point.actions[: k + 1], point.names[: k + 1], point.indices[: k + 1], 0.0, b"")
            for k in steps
        ]
        if not plans:
            prefix = Plan(point.actions, point.names, point.indices, 0.0, b"")
            return as_one(prefix, point.n_values).rows(np.arange(0)), values
        return joined([as_one(plan, point.n_values[: len(plan.names)]) for plan in plans]), values

    @staticmethod
    def _complete(networks: Networks, step: int) -> Callable[[int], bool]:
        """Predicate for the number of steps: whether such a network, longer than ``step``, gets a value."""
        lengths = set(networks.lengths.tolist())
        longest = max(lengths, default=0)
        return lambda n: n > step and (n in lengths or longest <= step)
