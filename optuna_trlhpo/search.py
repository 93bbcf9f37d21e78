"""From what is remembered to the network that is tried next: the critic is conditioned on every network with
a value, and plans are ranked by what it expects of them.

Notation as in `_agent.planning`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from optuna_trlhpo._agent.config import AgentConfig
from optuna_trlhpo._agent.features import N_PARTS, FeatureMap, Networks
from optuna_trlhpo._agent.planning import Planner, Settled, as_networks, log_expected_improvement
from optuna_trlhpo._agent.posterior import Posterior
from optuna_trlhpo.experience import Experience, network_key

_FIRST_STEPS = 60
"""Steps of learning at the first fit."""
_MANY = 100
"""Networks from which on the kernel is learned in fewer steps."""
_WHOLE_TRIALS = 100
"""Finished trials that plans take pieces from, beside the networks that have a value."""
_BEST_OF_GENERATION = 10


Describe = Callable[[np.ndarray], np.ndarray | None]
"""`LayerSpace.signature`: what layers ``[S, 4]`` come to, or None for layers that the space does not have."""


@dataclass
class Plan:
    """A whole network, of which the running trial has settled the beginning."""

    actions: np.ndarray  # [S, A]
    names: np.ndarray  # [S, A] numbers of stems
    indices: np.ndarray  # [S, A]
    score: float
    """What the acquisition function holds of it; greater is better, comparable within one fit."""
    key: bytes
    """Tells networks apart; it stays that of the plan as it was made."""

    def answers(self, settled: Settled) -> bool:
        """Whether the plan begins with what is settled, and goes on with what is asked for."""
        step, slot = settled.step, settled.slot
        if len(self.names) <= step:
            return False
        filled = settled.names >= 0
        return (
            np.array_equal(self.names[: step + 1][filled], settled.names[filled])
            and np.array_equal(self.indices[: step + 1][filled], settled.indices[filled])
            and bool((self.names[:step] >= 0).sum() == (settled.names[:step] >= 0).sum())
            and not np.isnan(self.actions[step, slot])
            and np.allclose(
                np.nan_to_num(self.actions[: step + 1]) * filled * ~np.isnan(settled.actions),
                np.nan_to_num(settled.actions),
            )
        )


class Search:
    """Plans networks from an `Experience`.

    Args:
        config: The agent's settings.
        experience: What is remembered; read, never changed.
    """

    def __init__(self, config: AgentConfig, experience: Experience) -> None:
        self._config = config
        self._experience = experience
        self._features = FeatureMap()
        self._posterior = Posterior(n_parts=N_PARTS)
        self._refused: set[bytes] = set()
        self._signatures: dict[bytes, np.ndarray | None] = {}
        self._described_by: Describe | None = None
        self._n_fitted = 0  # trials that were known at the last fit

    def plan(
        self,
        settled: Settled,
        own: np.ndarray,
        weights: np.ndarray,
        rng: np.random.Generator,
        pending: Sequence[Plan],
        describe: Describe | None = None,
    ) -> Plan | None:
        """The network to try next, or None if nothing is known of what is asked for.

        Args:
            settled: The running trial and what it asks for.
            own: ``[step]`` what the trial has reported behind each step, NaN where nothing.
            weights: ``[K]`` what it weighs its objectives by.
            rng: The generator.
            describe: What layers, ``[S, 4]`` actions, come to, or None for layers that the space does not
                have; None where there is no such space.
            pending: Plans of other trials that are running; what they will bring is taken as it is expected.
        """
        experience, config = self._experience, self._config
        networks, values = experience.networks(rng, weights)
        whole = experience.whole(rng, _WHOLE_TRIALS)
        prefixes, prefix_values = self._prefixes(settled, own)
        networks = _joined([networks, prefixes])
        values = np.concatenate([values, prefix_values])
        networks, whole = (self._signed(some, describe) for some in (networks, whole))
        self._features.learn(_joined([networks, whole]), experience.categorical)
        x = self._features(networks)
        self._fit(x, values)
        if pending:
            others = self._features(
                self._signed(
                    _joined([_as_one(plan, np.zeros_like(plan.names)) for plan in pending]), describe
                )
            )
            x, values = (
                np.concatenate([x, others]),
                np.concatenate([values, self._posterior.predict(others)[0]]),
            )
            self._posterior.fit(x, values, self._features.features, steps=0)
        expected, _ = self._posterior.predict(x)
        planner = Planner(
            _joined([networks, whole]),
            np.concatenate([expected[: len(networks.names)], np.full(len(whole.names), -np.inf)]),
            settled,
            experience.categorical,
            self._features.repeated(len(experience.categorical)),
            self._complete(networks, settled.step),
            experience.settle,
            None if describe is None else lambda layers: self._describe(describe, layers) is not None,
            experience.layer_kind,
        )
        parents = planner.parents()
        if not parents:
            return None
        best = float(expected.max())
        drafts = planner.chance(rng, config.n_candidates // 2)
        excluded = self._refused.union(network_key(p.names, p.indices, p.actions) for p in pending)
        chosen, score = None, -np.inf
        for _ in range(config.n_generations):
            drafts = drafts + planner.vary(parents, rng, config.n_candidates)
            unique = {draft.key(): draft for draft in drafts}
            drafts = [
                draft for k, draft in unique.items() if not experience.has_value(k) and k not in excluded
            ]
            if not drafts:
                drafts = list(unique.values())
            if not drafts:
                break
            z = self._features(self._signed(as_networks(drafts, settled.context), describe))
            if config.acquisition == "thompson":
                scores = self._posterior.sample(z, rng)
            else:
                scores = log_expected_improvement(*self._posterior.predict(z), best)
            order = np.argsort(-scores, kind="stable")
            chosen, score = drafts[order[0]], float(scores[order[0]])
            parents = drafts = [drafts[i] for i in order[:_BEST_OF_GENERATION]]
        if chosen is None:
            chosen = parents[0]
        return Plan(chosen.actions.copy(), chosen.names.copy(), chosen.indices.copy(), score, chosen.key())

    def refuse(self, plan: Plan) -> None:
        """Never make this plan again: the objective did not offer a value that it needs."""
        self._refused.add(plan.key)

    def _signed(self, networks: Networks, describe: Describe | None) -> Networks:
        """The same, each with what it comes to."""
        if describe is None:
            return networks
        if describe != self._described_by:  # another space
            self._described_by = describe
            self._signatures.clear()
        layer = self._experience.layer_kind
        signatures = [
            self._describe(describe, actions[names[:, 0] == layer])
            for actions, names in zip(networks.actions, networks.names, strict=True)
        ]
        known = next((signature for signature in signatures if signature is not None), np.zeros(0))
        nothing = np.full(len(known), np.nan)
        table = [nothing if signature is None else signature for signature in signatures]
        return networks._replace(signature=np.array(table).reshape(len(signatures), -1))

    def _describe(self, describe: Describe, layers: np.ndarray) -> np.ndarray | None:
        key = layers.tobytes()
        if key not in self._signatures:
            self._signatures[key] = describe(layers)
        return self._signatures[key]

    def _fit(self, x: np.ndarray, values: np.ndarray) -> None:
        n = len(self._experience)
        steps = 0
        if n != self._n_fitted:
            # A step takes longer the more networks there are, and each of them changes less.
            often = max(1, round(self._config.fit_steps * min(1.0, _MANY / len(values))))
            steps = often if self._n_fitted else _FIRST_STEPS
        self._n_fitted = n
        self._posterior.fit(x, values, self._features.features, steps=steps)

    def _prefixes(self, settled: Settled, own: np.ndarray) -> tuple[Networks, np.ndarray]:
        """What the running trial has reported, as networks with values."""
        steps: list[int] = []
        if self._experience.reports_are_values:
            steps = np.flatnonzero(~np.isnan(own)).tolist()
        values = np.array([self._experience.score_report(own[k]) for k in steps])
        plans = [
            Plan(settled.actions[: k + 1], settled.names[: k + 1], settled.indices[: k + 1], 0.0, b"")
            for k in steps
        ]
        if not plans:
            whole = Plan(settled.actions, settled.names, settled.indices, 0.0, b"")
            return _as_one(whole, settled.n_values).rows(np.arange(0)), values
        return _joined([_as_one(plan, settled.n_values[: len(plan.names)]) for plan in plans]), values

    @staticmethod
    def _complete(networks: Networks, step: int) -> Callable[[int], bool]:
        """Whether a network of so many steps, more than ``step``, is likely to get a value."""
        lengths = set(networks.lengths.tolist())
        longest = max(lengths, default=0)
        return lambda n: n > step and (n in lengths or longest <= step)


def _as_one(plan: Plan, n_values: np.ndarray) -> Networks:
    return Networks(
        plan.actions[None],
        plan.names[None],
        plan.indices[None],
        n_values[None],
        np.full((1, len(plan.names)), np.nan),
        np.zeros((1, 0)),
    )


def _joined(parts: Sequence[Networks]) -> Networks:
    """Networks of different lengths in one."""
    S = max(part.names.shape[1] for part in parts)
    E = max(part.signature.shape[1] for part in parts)
    padded = []
    for part in parts:
        more = S - part.names.shape[1]
        fillings = (np.nan, -1, -1, 0, np.nan)
        arrays = [
            np.pad(array, [(0, 0), (0, more), (0, 0)][: array.ndim], constant_values=filling)
            for array, filling in zip(part, fillings, strict=False)
        ]
        unknown = E - part.signature.shape[1]
        signature = np.pad(part.signature, [(0, 0), (0, unknown)], constant_values=np.nan)
        padded.append([*arrays, signature])
    return Networks(*(np.concatenate(arrays) for arrays in zip(*padded, strict=True)))
