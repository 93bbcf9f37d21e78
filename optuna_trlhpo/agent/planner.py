"""Planner of the network that a trial should try next.

The critic is conditioned on every network with a value, and plans are ranked by its predictions.

Notation as in `neighbourhood`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from optuna_trlhpo.agent.acquisition import ASPIRATION, acquire, expected_gain
from optuna_trlhpo.agent.config import AgentConfig
from optuna_trlhpo.agent.learning import Occasions
from optuna_trlhpo.agent.neighbourhood import Neighbourhood
from optuna_trlhpo.agent.network_costs import NetworkCosts
from optuna_trlhpo.agent.network_critic import NetworkCritic
from optuna_trlhpo.agent.prior_knowledge import DEPTH, PriorKnowledge
from optuna_trlhpo.agent.random_networks import untried_networks
from optuna_trlhpo.agent.replay import Replay
from optuna_trlhpo.agent.sequences import (
    INCUMBENT,
    Candidate,
    DecisionPoint,
    Networks,
    Plan,
    as_networks,
    as_one,
    digest_of_key,
    joined,
    network_key,
)
from optuna_trlhpo.agent.steering import Steering, surprises
from optuna_trlhpo.agent.time_budget import TimeBudget
from optuna_trlhpo.trials.agent_record import ACTOR, CHANCE
from optuna_trlhpo.trials.outcome_transforms import normal_scores, ranks_of

_TEMPLATE_TRIALS = 50
"""Number of finished trials used as templates, besides the networks with a value."""
_BEST_OF_GENERATION = 10


class Planner:
    """Planner of networks from a `Replay`.

    Args:
        config: Settings of the agent.
        replay: Memory of finished trials, which is never changed here.
        seed: Random seed of an ensemble.
        knowledge: Prior knowledge about networks.
        budget: Budget in seconds.

    Attributes:
        features: Features of networks, which the critic reads.
        critic: Model of the value of a network, as the last plan was made with it.
        losses: Loss of the critic when it last learned, see `AgentRecord`; None before.
    """

    def __init__(
        self,
        config: AgentConfig,
        replay: Replay,
        seed: int,
        knowledge: PriorKnowledge,
        budget: TimeBudget,
    ) -> None:
        self._config = config
        self._replay = replay
        self.knowledge = knowledge
        self.critic = NetworkCritic(config, seed)
        self._forecast = NetworkCritic(config, seed)  # of reports
        self._differs = False  # whether equal networks had different reports
        self._steering = Steering(functools.partial(NetworkCritic, config, seed))
        self._costs = NetworkCosts(seed, replay, knowledge, budget)
        self._occasions = Occasions()
        self._excluded: set[str] = set()
        self.losses: tuple[float, None] | None = None

    def learn(self, n_trials: int, weights: np.ndarray, rng: np.random.Generator) -> None:
        """Let the critics learn from the finished trials, if it is time.

        Args:
            n_trials: Number of finished trials.
            weights: ``[K]`` weights of the objectives.
            rng: Random generator.
        """
        if not len(self._replay) and not self.knowledge.has_prior(self.knowledge.context):
            return
        since = self._occasions.trials_since(n_trials)
        if not since:
            return
        networks, values = self._networks(rng, weights)
        networks = self.knowledge.with_prior_features(networks)
        templates, _ = self._templates(rng)
        self._learn_features(self.critic, networks, templates)
        self.critic.condition(networks, values, n_trials=since)
        if self.critic.evidence is not None:
            self.losses = -self.critic.evidence / max(len(values), 1), None
        self._costs.learn(templates, since)
        if not self._replay.reports_between or self.critic.evidence is None:
            return
        informed = self._steering.candidate(n_trials)
        if informed is not None:
            contexts, _ = self._contexts(networks, 0, None, np.zeros(0), n_trials=since)
            if np.isnan(contexts).all():
                return
            with_reports = networks._replace(context=contexts)
            self._learn_features(informed, with_reports, templates)
            informed.condition(with_reports, values, n_trials=since)
            assert informed.evidence is not None
            self._steering.judge(informed.evidence, self.critic.evidence, n_trials)

    def plan(
        self,
        point: DecisionPoint,
        own: np.ndarray,
        weights: np.ndarray,
        rng: np.random.Generator,
        pending: Sequence[Plan],
        running: DecisionPoint | None = None,
        elsewhere: tuple[Networks, np.ndarray] | None = None,
    ) -> Plan | None:
        """Plan the network to try next; None if nothing is known of the parameter that is asked for.

        Args:
            point: Decision point of the running trial.
            own: ``[steps]`` reports of the trial after each step, NaN where there is none.
            weights: ``[K]`` the trial's weights of the objectives.
            rng: Random generator.
            pending: Plans of other running trials; the expectation replaces their outcome.
            running: Trial that has reported ``own``, if the plan need not continue it.
            elsewhere: Networks that running trials of other workers have reported on, with their scores.
        """
        replay, config = self._replay, self._config
        if not len(self.critic.features):
            return None
        networks, values = self._networks(rng, weights)
        at = point if running is None else running
        prefixes, prefix_values = self._prefixes(at, own)
        # A plan that need not continue the trial is for another one, about which nothing was reported.
        is_informed = running is None and not np.isnan(own).all() and self._steering.acts
        known, known_values = [networks], [values]
        if elsewhere is not None and not is_informed:
            known.append(elsewhere[0])
            known_values.append(elsewhere[1])
        networks = self.knowledge.with_prior_features(joined([*known, prefixes]))
        values = np.concatenate([*known_values, prefix_values])
        templates, n_trials = self._templates(rng)
        others = None
        if pending:
            plans = [as_one(plan, np.zeros_like(plan.names)) for plan in pending]
            others = self.knowledge.with_prior_features(joined(plans))
        critic, context = self.critic, np.zeros(0)
        if is_informed:
            assert self._steering.critic is not None
            critic = self._steering.critic
            contexts, context = self._contexts(networks, len(prefix_values), at, own)
            networks = networks._replace(context=contexts)
        critic.condition(networks, values, others)
        self._costs.refresh()
        may_repeat = critic is self._steering.critic and self._differs
        of_networks, values = critic.of_networks, critic.values
        # Trials without a value are templates only: those with a value are among the networks.
        of_templates = np.full(len(templates.names), -np.inf)
        if len(of_templates) > n_trials:
            untried = templates.rows(np.arange(n_trials, len(of_templates)))
            of_templates[n_trials:] = critic.surrogate.predict(critic.features(untried))[0]
        categorical = replay.names.categorical
        neighbourhood = Neighbourhood(
            joined([networks, templates]),
            np.concatenate([of_networks[: len(networks.names)], of_templates]),
            point,
            categorical,
            critic.features.repeated(len(categorical)),
            self._complete(networks, point.step),
            replay.names.settle,
            None if self.knowledge.context is None else self.knowledge.contains,
            self.knowledge.layer_kind,
            replay.names.number(DEPTH)
            if self.knowledge.context is not None and self.knowledge.context.depth_first
            else -2,
            self._origins(len(networks.names), len(templates.names)),
        )
        parents = neighbourhood.parents()
        if not parents:
            return None
        candidates = neighbourhood.resample(rng, config.n_candidates // 2) + self._untried(parents)
        excluded = {network_key(p.names, p.indices, p.actions) for p in pending}
        for some in [prefixes, *([] if elsewhere is None else [elsewhere[0]])]:
            rows = zip(some.names, some.indices, some.actions, some.lengths.tolist(), strict=True)
            excluded.update(network_key(n[:k], i[:k], a[:k]) for n, i, a, k in rows)
        chosen, score, features = None, -np.inf, np.zeros((0, 0))
        for _ in range(config.n_generations):
            if config.mutations:
                candidates = candidates + neighbourhood.mutate(parents, rng, config.n_candidates)
            else:
                candidates = candidates + neighbourhood.resample(rng, config.n_candidates)
            unique = {candidate.key(): candidate for candidate in candidates}
            candidates = [
                candidate
                for k, candidate in unique.items()
                if k not in excluded
                and (may_repeat or not replay.has_value(k))
                and not (self._excluded and digest_of_key(k) in self._excluded)
            ]
            if not candidates:
                candidates = self._untried_of_space(point, excluded, rng) or list(unique.values())
            if not candidates:
                break
            described = self.knowledge.with_prior_features(as_networks(candidates, context))
            z = critic.features(described)
            kind = ASPIRATION if len(context) else config.acquisition
            costs = self._costs.weighed(described)
            scores = acquire(kind, critic.surrogate, z, of_networks, values, rng, costs)
            order = np.argsort(-scores, kind="stable")
            chosen, score, features = candidates[order[0]], float(scores[order[0]]), z[order[:1]]
            parents = candidates = [candidates[i] for i in order[:_BEST_OF_GENERATION]]
        if chosen is None:
            chosen = parents[0]
            features = critic.features(self.knowledge.with_prior_features(as_networks([chosen], context)))
        (mean,), (deviation,) = critic.surrogate.predict(features)
        actions, names, indices = chosen.actions.copy(), chosen.names.copy(), chosen.indices.copy()
        gain = None if len(context) else expected_gain(mean, deviation, of_networks, self.values_of)
        return Plan(
            actions, names, indices, score, chosen.key(), float(mean), float(deviation), chosen.origin, gain
        )

    def judged(self, plan: Plan, weights: np.ndarray, rng: np.random.Generator) -> Plan:
        """``plan`` with what the critic expects of it.

        Args:
            plan: Plan of a trial that has reported nothing.
            weights: ``[K]`` the trial's weights of the objectives.
            rng: Random generator.
        """
        networks, values = self._networks(rng, weights)
        self.critic.condition(self.knowledge.with_prior_features(networks), values)
        one = self.knowledge.with_prior_features(as_one(plan, np.zeros_like(plan.names)))
        (mean,), (deviation,) = self.critic.surrogate.predict(self.critic.features(one))
        return replace(plan, mean=float(mean), deviation=float(deviation))

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
        steps = list(zip(plan.names, plan.indices, strict=True))
        return self.critic.attention(self.knowledge.with_prior_features(networks), steps)

    def exclude(self, digests: Iterable[str]) -> None:
        """Exclude the plans with these digests for good: the objective did not offer a value in them."""
        self._excluded.update(digests)

    def _templates(self, rng: np.random.Generator) -> tuple[Networks, int]:
        """Networks used as templates besides those with a value; and how many of them are trials."""
        parts = [
            self._replay.trials(rng, _TEMPLATE_TRIALS),
            *(source.best for source in self.knowledge.sources),
        ]
        if self.knowledge.space_samples is not None:
            parts.append(self.knowledge.space_samples)
        return self.knowledge.with_prior_features(joined(parts)), len(parts[0].names)

    def _origins(self, n_networks: int, n_templates: int) -> list[str]:
        """Proposer of each network with a value, and of each template."""
        samples = self.knowledge.space_samples
        n_samples = 0 if samples is None else len(samples.names)
        of_samples = ACTOR if self.knowledge.has_policy(self.knowledge.context) else CHANCE
        return [INCUMBENT] * (n_networks + n_templates - n_samples) + [of_samples] * n_samples

    def _untried(self, parents: list[Candidate]) -> list[Candidate]:
        """Networks of earlier studies and of the space, which are candidates unchanged."""
        return parents[:_BEST_OF_GENERATION] if self.knowledge.has_prior(self.knowledge.context) else []

    def _untried_of_space(
        self, point: DecisionPoint, excluded: set[bytes], rng: np.random.Generator
    ) -> list[Candidate]:
        """A random untried network of the space, where all variations of the known ones have been tried."""
        if self.knowledge.context is None:
            return []
        for _, actions in untried_networks(rng, self._replay, self.knowledge, excluded):
            layers = self.knowledge.candidate_of_layers(actions)
            begins = point.names[:, 0] == layers.names[0, 0]
            n_before = int(begins.argmax()) if begins.any() else point.step  # steps of other parameters
            before = Candidate(*(getattr(point, name)[:n_before] for name in Candidate.ARRAYS))
            one = before.then(layers)
            plan = Plan(one.actions, one.names, one.indices, 0.0, one.key())
            if plan.answers(point) and plan.digest not in self._excluded:
                return [one]
        return []

    # Critic -------------------------------------------------------------------------------------------

    def _networks(self, rng: np.random.Generator, weights: np.ndarray) -> tuple[Networks, np.ndarray]:
        """Networks with a value, and their values."""
        repeats = self._steering.acts and self._differs
        return self._replay.networks(rng, weights, unit=self.knowledge.unit, repeats=repeats)

    def _learn_features(self, critic: NetworkCritic, networks: Networks, templates: Networks) -> None:
        categorical = self._replay.names.categorical
        critic.features.learn(joined([networks, templates]), categorical, self.knowledge.means)

    def _contexts(
        self,
        networks: Networks,
        n_own: int,
        at: DecisionPoint | None,
        own: np.ndarray,
        *,
        n_trials: int = 0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Surprise after each step: ``[N, S]`` of known networks, ``[steps]`` of the running trial.

        Args:
            networks: N networks with a value; the last ``n_own`` are prefixes of the running trial.
            n_own: Number of prefixes of the running trial.
            at: Steps of the running trial, if there is one.
            own: ``[steps]`` its reports.
            n_trials: Number of finished trials since the forecast of reports learned, if it is to learn now.
        """
        replay = self._replay
        of_network, prefixes, trial, step, reports = replay.reported()
        T = int(of_network.max(initial=-1)) + 1
        own_steps = np.flatnonzero(~np.isnan(own))
        trial, step = np.append(trial, np.full(len(own_steps), T)), np.append(step, own_steps)
        values = np.append(reports, replay.signed(own[own_steps]))
        by_trial = np.full((T + 1, max(networks.context.shape[1], len(own))), np.nan)
        if not len(values):
            return by_trial[of_network], by_trial[-1][: len(own)]
        reported: dict[bytes, float] = {}
        for n, i, a, report in zip(prefixes.names, prefixes.indices, prefixes.actions, reports, strict=True):
            if n_trials:
                self._differs |= reported.setdefault(network_key(n, i, a), float(report)) != report
        for number in np.unique(step):
            mine = step == number
            values[mine] = normal_scores(ranks_of(values[mine]))
        if at is not None:
            prefixes = joined([prefixes, self._first(at, own_steps)])
        prefixes = self.knowledge.with_prior_features(prefixes)
        if n_trials:
            self._learn_features(self._forecast, prefixes, prefixes.rows(np.arange(0)))
        self._forecast.condition(prefixes, values, n_trials=n_trials)
        errors = self._forecast.surrogate.leave_one_out()
        assert errors is not None
        by_trial[trial, step] = surprises(errors, step)
        contexts = by_trial[np.append(of_network, np.full(n_own, T))][:, : networks.context.shape[1]]
        contexts[np.arange(contexts.shape[1]) >= networks.lengths[:, None] - 1] = np.nan
        return contexts, by_trial[-1][: len(own)]

    def _prefixes(self, at: DecisionPoint, own: np.ndarray) -> tuple[Networks, np.ndarray]:
        """Networks with values from the reports of the running trial."""
        steps = np.zeros(0, dtype=np.int64)
        if self._replay.reports_are_values:
            steps = np.flatnonzero(~np.isnan(own))
        values = np.array([self._replay.score_report(own[k]) for k in steps.tolist()])
        return self._first(at, steps), values

    @staticmethod
    def _first(at: DecisionPoint, steps: np.ndarray) -> Networks:
        """Networks that the running trial was at these steps."""
        whole = as_one(Plan(at.actions, at.names, at.indices, 0.0, b""), at.n_values)
        plans = [
            as_one(
                Plan(at.actions[: k + 1], at.names[: k + 1], at.indices[: k + 1], 0.0, b""),
                at.n_values[: k + 1],
            )
            for k in steps.tolist()
        ]
        return joined(plans) if plans else whole.rows(np.arange(0))

    @staticmethod
    def _complete(networks: Networks, step: int) -> Callable[[int], bool]:
        """Predicate for the number of steps: whether such a network, longer than ``step``, gets a value."""
        lengths = set(networks.lengths.tolist())
        longest = max(lengths, default=0)
        return lambda n: n > step and (n in lengths or longest <= step)
