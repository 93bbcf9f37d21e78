"""From what is remembered to the network that is tried next: the critic is conditioned on every network with
a value, and plans are ranked by what it expects of them.

Notation as in `_agent.planning`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from optuna_trlhpo._agent.acquisition import acquire
from optuna_trlhpo._agent.config import AgentConfig
from optuna_trlhpo._agent.critic import Critic, make_critic
from optuna_trlhpo._agent.features import FeatureMap, Networks
from optuna_trlhpo._agent.planning import (
    Draft,
    Planner,
    Settled,
    as_networks,
)
from optuna_trlhpo._agent.prior import LayerPrior
from optuna_trlhpo.episode import Episode, Slot, episode_of
from optuna_trlhpo.experience import Experience, network_key
from optuna_trlhpo.layers import Vocabulary
from optuna_trlhpo.sources import Source

_FIRST_STEPS = 60
"""Steps of learning at the first fit."""
_LEAST = 3
"""Networks with a value before the critic learns its kernel."""
_MANY = 100
"""Networks from which on the kernel is learned in fewer steps."""
_WHOLE_TRIALS = 100
"""Finished trials that plans take pieces from, beside the networks that have a value."""
_BEST_OF_GENERATION = 10
_DOUBT = 0.5
"""By how much, as a deviation, scores may follow those of an earlier study more or less than one to one:
where it misleads, its weight has to come to 0 or below within a few trials."""
_OFFSET = 10.0
"""How far the scores of two studies may be apart, as a deviation: scores count from a study's own median."""
_DEPTH = Slot("n_layers", 0, 0, False)
"""What `LayerSpace.suggest` asks for first."""
_N_IMAGINED = 150
"""Random networks of a space that plans begin with, where something is expected of networks that nobody has
tried yet."""


class Space(Protocol):
    """What is asked of a `LayerSpace`."""

    @property
    def max_layers(self) -> int: ...

    @property
    def kind_stem(self) -> str: ...

    @property
    def has_outlines(self) -> bool: ...

    @property
    def vocabulary(self) -> Vocabulary: ...

    def signature(self, actions: np.ndarray) -> np.ndarray | None: ...

    def outline(self, actions: np.ndarray) -> np.ndarray | None: ...

    def draw_actions(self, rng: np.random.Generator) -> np.ndarray: ...


class Entered(NamedTuple):
    """A trial that grows layers of a space."""

    space: Space
    whole: bool
    """Whether it is asked for the depth first."""


class _Known(NamedTuple):
    """What is known of layers that nobody has tried."""

    signature: np.ndarray
    expected: np.ndarray  # by the prior


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
    mean: float = math.nan
    """The score that the critic expects of it."""
    deviation: float = math.nan
    """How far off the critic holds that it may be."""

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
        seed: Of the networks that are imagined, and of an ensemble of critics.
        sources: What is known from earlier studies.
        prior: What is known about layers, whatever the task.
    """

    def __init__(
        self,
        config: AgentConfig,
        experience: Experience,
        seed: int,
        sources: Sequence[Source] = (),
        prior: LayerPrior | None = None,
    ) -> None:
        self._config = config
        self._experience = experience
        self._seed = seed
        self._sources = sources
        self._prior = prior
        self._features = FeatureMap()
        self._critic: Critic = make_critic(config, seed)
        self._refused: set[bytes] = set()
        self._known: dict[bytes, _Known | None] = {}  # about networks of the space
        self._signatures: dict[bytes, np.ndarray | None] = {}  # of networks of the space
        self._entered: Entered | None = None
        self._is_set = False
        self._imagined: Networks | None = None
        self._n_fitted = 0  # trials that were known at the last fit
        self._has_learned = False

    def informed(self, entered: Entered | None) -> bool:
        """Whether something is known before the first trial has finished."""
        return bool(self._sources) or self._active_prior(entered) is not None

    def is_hearsay(self, entered: Entered | None) -> bool:
        """Whether all that is known was said by earlier studies, of which any may mislead."""
        return bool(self._sources) and self._active_prior(entered) is None

    def _active_prior(self, entered: Entered | None) -> LayerPrior | None:
        """The prior, where its kinds of layers are grown for their accuracy alone: of what else there may be
        to weigh it knows nothing, and would mislead."""
        if entered is None or not entered.space.has_outlines or self._experience.n_weights:
            return None
        return self._prior

    def enter(self, entered: Entered | None) -> None:
        """From now on plans are for such a trial; None: one that has entered no space, or none yet."""
        if self._is_set and entered in (None, self._entered):
            return
        self._is_set = True
        self._entered = entered
        self._known.clear()
        self._signatures.clear()
        self._imagined = None
        if entered is not None and self.informed(entered):
            rng = np.random.default_rng((self._seed, entered.whole))
            depth = entered.space.max_layers if entered.whole else None
            drawn = (entered.space.draw_actions(rng) for _ in range(_N_IMAGINED))
            episodes = [episode_of(actions, depth, entered.space.vocabulary) for actions in drawn]
            self._imagined = _joined([self._as_network(episode) for episode in episodes])
        for source in self._sources:
            n_prior = 0 if self._prior is None else len(self._prior.means)
            source.learn(
                self._signed(source.networks), self._experience.names.categorical, self._means[:n_prior]
            )

    def plan(
        self,
        settled: Settled,
        own: np.ndarray,
        weights: np.ndarray,
        rng: np.random.Generator,
        pending: Sequence[Plan],
        running: Settled | None = None,
    ) -> Plan | None:
        """The network to try next, or None if nothing is known of what is asked for.

        Args:
            settled: The running trial and what it asks for.
            own: ``[steps]`` what the trial has reported behind each step, NaN where nothing.
            weights: ``[K]`` what it weighs its objectives by.
            rng: The generator.
            pending: Plans of other trials that are running; what they will bring is taken as it is expected.
            running: The trial that has reported ``own``, if the plan need not go on with it.
        """
        experience, config = self._experience, self._config
        networks, values = experience.networks(rng, weights, unit=self._unit)
        prefixes, prefix_values = self._prefixes(settled if running is None else running, own)
        networks = self._told(_joined([networks, prefixes]))
        values = np.concatenate([values, prefix_values])
        donors, n_whole = self._donors(rng)
        self._features.learn(_joined([networks, donors]), experience.names.categorical, self._means)
        x = self._features(networks)
        self._fit(x, values)
        if pending:
            plans = [_as_one(plan, np.zeros_like(plan.names)) for plan in pending]
            others = self._features(self._told(_joined(plans)))
            values = np.concatenate([values, self._critic.predict(others)[0]])
            x = np.concatenate([x, others])
            self._critic.fit(x, values, self._features.features, steps=0)
        of_networks = self._critic.predict(x)[0]
        # Trials are donors alone: those with a value are among the networks.
        of_donors = np.full(len(donors.names), -np.inf)
        if len(of_donors) > n_whole:
            unseen = donors.rows(np.arange(n_whole, len(of_donors)))
            of_donors[n_whole:] = self._critic.predict(self._features(unseen))[0]
        categorical = experience.names.categorical
        planner = Planner(
            _joined([networks, donors]),
            np.concatenate([of_networks[: len(networks.names)], of_donors]),
            settled,
            categorical,
            self._features.repeated(len(categorical)),
            self._complete(networks, settled.step),
            experience.names.settle,
            None if self._entered is None else self._contains,
            self._layer_kind,
            experience.names.number(_DEPTH) if self._entered is not None and self._entered.whole else -2,
        )
        parents = planner.parents()
        if not parents:
            return None
        drafts = planner.chance(rng, config.n_candidates // 2) + self._untried(parents)
        excluded = self._refused.union(network_key(p.names, p.indices, p.actions) for p in pending)
        excluded.update(
            network_key(n, i, a)
            for n, i, a in zip(prefixes.names, prefixes.indices, prefixes.actions, strict=True)
        )
        chosen, score, features = None, -np.inf, np.zeros((0, 0))
        for _ in range(config.n_generations):
            if config.mutations:
                drafts = drafts + planner.vary(parents, rng, config.n_candidates)
            else:
                drafts = drafts + planner.chance(rng, config.n_candidates)
            unique = {draft.key(): draft for draft in drafts}
            drafts = [
                draft for k, draft in unique.items() if not experience.has_value(k) and k not in excluded
            ]
            if not drafts:
                drafts = list(unique.values())
            if not drafts:
                break
            z = self._features(self._told(as_networks(drafts, settled.context)))
            scores = acquire(config.acquisition, self._critic, z, of_networks, values, rng)
            order = np.argsort(-scores, kind="stable")
            chosen, score, features = drafts[order[0]], float(scores[order[0]]), z[order[:1]]
            parents = drafts = [drafts[i] for i in order[:_BEST_OF_GENERATION]]
        if chosen is None:
            chosen = parents[0]
            features = self._features(self._told(as_networks([chosen], settled.context)))
        (mean,), (deviation,) = self._critic.predict(features)
        actions, names, indices = chosen.actions.copy(), chosen.names.copy(), chosen.indices.copy()
        return Plan(actions, names, indices, score, chosen.key(), float(mean), float(deviation))

    def values_of(self, scores: np.ndarray) -> np.ndarray | None:
        """The objective's values that have these scores; None where a score stands for no single value."""
        return self._experience.values_of(scores)

    def attention(self, plan: Plan) -> list[np.ndarray]:
        """What the critic attends to as it judges the first k steps of the plan that was made last.

        Rows k = 1 to S, each ``[H, k + 1]``: what the parameters of each step get together, and last what the
        question and what is known of the network as a whole get. No rows where the critic has no attention.
        """
        if self._config.critic != "transformer":
            return []
        S = len(plan.names)
        prefixes = [
            Plan(plan.actions[:k], plan.names[:k], plan.indices[:k], 0.0, b"") for k in range(1, S + 1)
        ]
        networks = _joined([_as_one(prefix, np.zeros_like(prefix.names)) for prefix in prefixes])
        weights = self._critic.attention(self._features(self._told(networks)))  # [S, H, 1 + columns]
        assert weights is not None
        rows = []
        for k in range(1, S + 1):
            row = np.zeros((weights.shape[1], k + 1))
            for step in range(k):
                pairs = zip(plan.names[step].tolist(), plan.indices[step].tolist(), strict=True)
                columns = {self._features.column_of(*pair) for pair in pairs if pair[0] >= 0} - {-1}
                row[:, step] = weights[k - 1][:, [1 + column for column in sorted(columns)]].sum(axis=1)
            row[:, k] = weights[k - 1].sum(axis=1) - row[:, :k].sum(axis=1)
            rows.append(row)
        return rows

    def refuse(self, plan: Plan) -> None:
        """Never make this plan again: the objective did not offer a value that it needs."""
        self._refused.add(plan.key)

    # What is known of networks before they are tried ------------------------------------------------------

    @property
    def _layer_kind(self) -> int:
        """The number of the stem that every layer of the space begins with; -1 if there is none."""
        return -1 if self._entered is None else self._experience.names.category(self._entered.space.kind_stem)

    @property
    def _unit(self) -> float | None:
        """Of the scores, where one is known beforehand."""
        known = [source.unit for source in self._sources if source.unit is not None]
        if (prior := self._active_prior(self._entered)) is not None:
            known.append(prior.unit)
        return max(known, default=None)

    @property
    def _means(self) -> np.ndarray:
        """``[X]`` of the weights of what `_told` tells is expected."""
        of_prior = self._prior.means if self._prior is not None else np.zeros(0)
        if not self._sources:
            return of_prior
        return np.concatenate([of_prior, np.full(len(self._sources), 1 / _DOUBT / len(self._sources)), [0.0]])

    def _told(self, networks: Networks) -> Networks:
        """The same, each with what it comes to and what is expected of it."""
        networks = self._signed(networks)
        if not self._sources:
            return networks
        columns = [_DOUBT * source.expect(networks)[:, None] for source in self._sources]
        constant = np.full((len(networks.names), 1), _OFFSET)
        return networks._replace(expected=np.concatenate([networks.expected, *columns, constant], axis=1))

    def _signed(self, networks: Networks) -> Networks:
        """The same, each with what it comes to, and what the prior expects of it."""
        n_prior = 0 if self._prior is None else len(self._prior.means)
        if self._entered is None:
            return networks._replace(expected=np.zeros((len(networks.names), n_prior)))
        known = self._know(self._layers(networks))
        width = max((len(one.signature) for one in known if one is not None), default=0)
        nothing = _Known(np.full(width, np.nan), np.zeros(n_prior))
        table = [nothing if one is None else one for one in known]
        return networks._replace(
            signature=np.array([one.signature for one in table]).reshape(len(table), width),
            expected=np.array([one.expected for one in table]).reshape(len(table), n_prior),
        )

    def _layers(self, networks: Networks) -> list[np.ndarray]:
        layer = self._layer_kind
        pairs = zip(networks.actions, networks.names, strict=True)
        return [
            np.ascontiguousarray(actions[(names[:, 0] == layer) & (layer >= 0)]) for actions, names in pairs
        ]

    def _know(self, some: list[np.ndarray]) -> list[_Known | None]:
        """What the space and the prior say of layers ``[S, 4]``; None for what the space does not have."""
        assert self._entered is not None
        space = self._entered.space
        keys = [layers.tobytes() for layers in some]
        new = {key: layers for key, layers in zip(keys, some, strict=True) if key not in self._known}
        valid = {key: layers for key, layers in new.items() if self._signature(layers) is not None}
        n_prior = 0 if self._prior is None else len(self._prior.means)
        expected = [np.zeros(n_prior)] * len(valid)
        prior = self._active_prior(self._entered)
        if prior is not None and valid:  # all at once, which takes hardly longer than one
            outlines = [
                outline for layers in valid.values() if (outline := space.outline(layers)) is not None
            ]
            expected = list(prior(outlines))
        found = dict(zip(valid, expected, strict=True))
        for key, layers in new.items():
            signature = self._signature(layers)
            self._known[key] = None if signature is None else _Known(signature, found[key])
        return [self._known[key] for key in keys]

    def _signature(self, layers: np.ndarray) -> np.ndarray | None:
        assert self._entered is not None
        key = layers.tobytes()
        if key not in self._signatures:
            self._signatures[key] = self._entered.space.signature(layers)
        return self._signatures[key]

    def _contains(self, layers: np.ndarray) -> bool:
        return self._signature(np.ascontiguousarray(layers)) is not None

    def _donors(self, rng: np.random.Generator) -> tuple[Networks, int]:
        """Networks to take pieces from, beside those that have a value; and how many of them were trials."""
        parts = [self._experience.whole(rng, _WHOLE_TRIALS), *(source.best for source in self._sources)]
        if self._imagined is not None:
            parts.append(self._imagined)
        return self._told(_joined(parts)), len(parts[0].names)

    def _untried(self, parents: list[Draft]) -> list[Draft]:
        """Networks of earlier studies and of imagination are candidates as they are."""
        return parents[:_BEST_OF_GENERATION] if self.informed(self._entered) else []

    def _as_network(self, episode: Episode) -> Networks:
        names, indices, n_values = self._experience.names.learn_all(episode)
        return _as_one(Plan(episode.actions, names, indices, 0.0, b""), n_values)

    # The critic -------------------------------------------------------------------------------------------

    def _fit(self, x: np.ndarray, values: np.ndarray) -> None:
        n = len(self._experience)
        steps = 0
        if n != self._n_fitted and len(values) >= _LEAST:
            # A step takes longer the more networks there are, and each of them changes less.
            often = max(1, round(self._config.fit_steps * min(1.0, _MANY / len(values))))
            steps = often if self._has_learned else _FIRST_STEPS
            self._has_learned = True
        self._n_fitted = n
        self._critic.fit(x, values, self._features.features, steps=steps)

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
        np.zeros((1, 0)),
    )


def _joined(parts: Sequence[Networks]) -> Networks:
    """Networks of different lengths in one."""
    S = max(part.names.shape[1] for part in parts)
    E = max(part.signature.shape[1] for part in parts)
    X = max(part.expected.shape[1] for part in parts)
    padded = []
    for part in parts:
        more = S - part.names.shape[1]
        fillings = (np.nan, -1, -1, 0, np.nan)
        arrays = [
            np.pad(array, [(0, 0), (0, more), (0, 0)][: array.ndim], constant_values=filling)
            for array, filling in zip(part, fillings, strict=False)
        ]
        unknown, unexpected = E - part.signature.shape[1], X - part.expected.shape[1]
        signature = np.pad(part.signature, [(0, 0), (0, unknown)], constant_values=np.nan)
        padded.append([*arrays, signature, np.pad(part.expected, [(0, 0), (0, unexpected)])])
    return Networks(*(np.concatenate(arrays) for arrays in zip(*padded, strict=True)))
