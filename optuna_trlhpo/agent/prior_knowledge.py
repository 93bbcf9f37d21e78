"""Knowledge about networks before they are tried, from their space, a prior and earlier studies.

Notation: N networks, X expectations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from optuna_trlhpo.agent.layer_prior import EMBEDDING, LayerPrior
from optuna_trlhpo.agent.name_table import NameTable
from optuna_trlhpo.agent.sequences import (
    Candidate,
    DecisionPoint,
    Networks,
    Plan,
    as_one,
    joined,
    network_key,
)
from optuna_trlhpo.agent.transfer import TRANSFER_OFFSET_STD, TRANSFER_WEIGHT_STD, NetworkSource
from optuna_trlhpo.layers import Network, Vocabulary
from optuna_trlhpo.trials.agent_record import ACTOR
from optuna_trlhpo.trials.episode import Episode, episode_of
from optuna_trlhpo.trials.parameters import ParameterSpec

DEPTH = ParameterSpec("n_layers", 0, 0, False)
"""First parameter that `LayerSpace.suggest` asks for."""
_MOST_KNOWN = 20_000
"""Number of networks whose knowledge is kept, for plans judge many again; then it is computed anew."""
_N_SPACE_SAMPLES = 150
"""Number of networks of a space that serve as templates, where there are expectations for networks
that no trial has tried."""


class NetworkSpace(Protocol):
    """Interface of a `LayerSpace` that the agent uses."""

    @property
    def max_layers(self) -> int:
        """Largest number of layers."""

    @property
    def kind_base_name(self) -> str:
        """Base name of the parameter that is the kind of a layer."""

    @property
    def space_features(self) -> np.ndarray:
        """Features of the space that a pretrained actor can read."""

    @property
    def vocabulary(self) -> Vocabulary:
        """Kinds of layers with their parameters."""

    def network_descriptor(self, actions: np.ndarray) -> np.ndarray | None:
        """Descriptor ``[E]`` of a network with actions ``[S, 4]``; None if the space does not contain it."""

    def layer_features(self, actions: np.ndarray) -> np.ndarray | None:
        """Features ``[S, O]`` of the layers with actions ``[S, 4]``; None if they are not of the space."""

    def draw(self, rng: np.random.Generator) -> Network:
        """A random network."""

    def every_network(self, rng: np.random.Generator) -> Iterator[Network]:
        """The networks of the space in random order, some of them more than once; empty ones are none."""

    def encode(self, layers: Network) -> np.ndarray:
        """Actions ``[S, 4]`` of a network."""

    def to_params(self, layers: Network) -> dict[str, Any]:
        """Parameters of a trial that grows a network, by name."""

    def draw_from(
        self,
        policy: Callable[[np.ndarray, Sequence[np.ndarray]], tuple[np.ndarray, np.ndarray]],
        n: int,
        rng: np.random.Generator,
    ) -> list[np.ndarray]:
        """Actions ``[S, 4]`` of up to ``n`` networks that a policy draws."""


class GrowthContext(NamedTuple):
    """Space from which a trial grows layers."""

    space: NetworkSpace
    depth_first: bool
    """Whether the trial first asks for the depth."""
    draws_whole: bool = False
    """Whether a random trial draws its network as a whole, in place of one parameter after the other."""


class _Known(NamedTuple):
    """Knowledge about a network that no trial has tried."""

    network_descriptor: np.ndarray
    expected: np.ndarray  # expectations of the prior


class PriorKnowledge:
    """Prior knowledge, which is added to networks as features.

    Args:
        names: Table that numbers the names of parameters.
        n_weights: Number of weights of the study's objectives; 0 with a single objective.
        seed: Random seed of the networks that are drawn from a space.
        sources: Earlier studies.
        priors: Priors for layers, independent of the task, each for another vocabulary.

    Attributes:
        context: Space of the trial that plans are made for; None for a trial that grows no layers of a space.
        space_samples: Networks of the space, from the pretrained actor if there is one, else random; None
            where nothing is known of them.
    """

    def __init__(
        self,
        names: NameTable,
        n_weights: int,
        seed: int,
        sources: Sequence[NetworkSource],
        priors: Sequence[LayerPrior],
    ) -> None:
        self._names, self._n_weights, self._seed = names, n_weights, seed
        self.sources = sources
        self._priors = {prior.vocabulary: prior for prior in priors}
        self._n_expected = EMBEDDING + 1 if priors else 0  # expectations of a prior
        self._known: dict[bytes, _Known | None] = {}  # by the layers' actions, for networks of the space
        self._descriptors: dict[bytes, np.ndarray | None] = {}  # by the layers' actions
        self.context: GrowthContext | None = None
        self._is_set = False
        self.space_samples: Networks | None = None

    def has_prior(self, context: GrowthContext | None) -> bool:
        """Return whether something is known before the first trial has finished."""
        return bool(self.sources) or self._active_prior(context) is not None

    def only_transfer(self, context: GrowthContext | None) -> bool:
        """Return whether all prior knowledge comes from earlier studies, any of which may mislead."""
        return bool(self.sources) and self._active_prior(context) is None

    def _active_prior(self, context: GrowthContext | None) -> LayerPrior | None:
        """Return the prior for layers, where its kinds of layers are grown for their accuracy alone.

        The prior knows nothing about other objectives, and would mislead there.
        """
        if context is None or self._n_weights:
            return None
        return self._priors.get(context.space.vocabulary)

    def enter(self, context: GrowthContext | None) -> None:
        """Make plans for trials of this space from now on; None keeps the space, if one has been entered."""
        if self._is_set and context in (None, self.context):
            return
        self._is_set = True
        self.context = context
        self._known.clear()
        self._descriptors.clear()
        self.space_samples = None
        if context is not None and self.has_prior(context):
            rng = np.random.default_rng((self._seed, context.depth_first))
            episodes = self._proposed(_N_SPACE_SAMPLES, rng)
            while len(episodes) < _N_SPACE_SAMPLES:
                episodes.append(self._as_episode(context.space.encode(context.space.draw(rng))))
            self.space_samples = joined([self.network_of(episode) for episode in episodes])
        for source in self.sources:
            source.learn(
                self._with_descriptors(source.networks),
                self._names.categorical,
                self.means[: self._n_expected],
            )

    def has_policy(self, context: GrowthContext | None) -> bool:
        """Return whether there is an actor that was pretrained for networks of the space."""
        prior = self._active_prior(context)
        return prior is not None and prior.policy is not None

    def begins_network(self, point: DecisionPoint) -> bool:
        """Return whether a network of the space begins with the step of a trial's decision point."""
        assert self.context is not None
        first = self._names.number(DEPTH) if self.context.depth_first else self.layer_kind
        before = point.names[: point.step, 0]
        return first >= 0 and point.names[point.step, 0] == first and first not in before

    def attention(self, plan: Plan) -> list[np.ndarray]:
        """Attention weights of the pretrained actor as it reads a plan, see `LayerPolicy.attention`.

        No rows without such an actor, and where a trial begins with the depth, which is no layer.
        """
        prior = self._active_prior(self.context)
        if self.context is None or prior is None or prior.policy is None or self.context.depth_first:
            return []
        (layers,) = self._layers(as_one(plan, np.zeros_like(plan.names)))
        features = self.context.space.layer_features(layers)
        if features is None or len(layers) != len(plan.names):
            return []
        return prior.policy.attention(self.context.space.space_features, features)

    def proposals(self, n: int, rng: np.random.Generator) -> list[Plan]:
        """About ``n`` networks that the pretrained actor proposes."""
        return [replace(self.plan_of(episode), origin=ACTOR) for episode in self._proposed(n, rng)]

    def plan_of(self, episode: Episode) -> Plan:
        """The steps of a trial as a plan."""
        names, indices, _ = self._names.learn_all(episode)
        key = network_key(names, indices, episode.actions)
        return Plan(episode.actions, names, indices, 0.0, key)

    def plan_of_layers(self, layers: np.ndarray) -> Plan:
        """A network of the space with actions ``layers`` ``[S, 4]`` as a plan for a trial that grows it."""
        return self.plan_of(self._as_episode(layers))

    def key_of_layers(self, layers: np.ndarray) -> bytes | None:
        """Key of a network with actions ``layers`` ``[S, 4]``; None if a parameter of it is not known yet."""
        episode = self._as_episode(layers)
        if any(self._names.number(slot) < 0 for slots in episode.slots for slot in slots):
            return None
        return self.plan_of(episode).key

    def candidate_of_layers(self, layers: np.ndarray) -> Candidate:
        """A network of the space with actions ``layers`` ``[S, 4]`` as a candidate for a plan."""
        episode = self._as_episode(layers)
        return Candidate(episode.actions, *self._names.learn_all(episode))

    def layers_of(self, plan: Plan) -> np.ndarray | None:
        """Actions ``[S, 4]`` of the layers that a plan has; None if they are no network of the space."""
        if self.context is None:
            return None
        (layers,) = self._layers(as_one(plan, np.zeros_like(plan.names)))
        layers = np.nan_to_num(layers)
        return layers if len(layers) and self.contains(layers) else None

    def _proposed(self, n: int, rng: np.random.Generator) -> list[Episode]:
        prior = self._active_prior(self.context)
        if self.context is None or prior is None or prior.policy is None:
            return []
        return [self._as_episode(actions) for actions in self.context.space.draw_from(prior.policy, n, rng)]

    def _as_episode(self, actions: np.ndarray) -> Episode:
        """Layers of the space as a trial that grows them."""
        assert self.context is not None
        space = self.context.space
        return episode_of(actions, space.max_layers if self.context.depth_first else None, space.vocabulary)

    @property
    def layer_kind(self) -> int:
        """Number of the base name that every layer of the space begins with; -1 if there is none."""
        return -1 if self.context is None else self._names.category(self.context.space.kind_base_name)

    @property
    def unit(self) -> float | None:
        """Unit of the scores, where it is known beforehand."""
        known = [source.unit for source in self.sources if source.unit is not None]
        if (prior := self._active_prior(self.context)) is not None:
            known.append(prior.unit)
        return max(known, default=None)

    @property
    def means(self) -> np.ndarray:
        """``[X]`` means of the weights of the expectations from `with_prior_features`."""
        prior = self._active_prior(self.context)
        of_prior = np.zeros(self._n_expected) if prior is None else prior.means
        if not self.sources:
            return of_prior
        return np.concatenate(
            [of_prior, np.full(len(self.sources), 1 / TRANSFER_WEIGHT_STD / len(self.sources)), [0.0]]
        )

    def with_prior_features(self, networks: Networks) -> Networks:
        """Networks with their descriptors and all expectations."""
        networks = self._with_descriptors(networks)
        if not self.sources:
            return networks
        columns = [TRANSFER_WEIGHT_STD * source.expect(networks)[:, None] for source in self.sources]
        constant = np.full((len(networks.names), 1), TRANSFER_OFFSET_STD)
        return networks._replace(expected=np.concatenate([networks.expected, *columns, constant], axis=1))

    def _with_descriptors(self, networks: Networks) -> Networks:
        """Networks with their descriptors, and the expectations of the prior."""
        n_prior = self._n_expected
        if self.context is None:
            return networks._replace(expected=np.zeros((len(networks.names), n_prior)))
        known = self._know(self._layers(networks))
        width = max((len(one.network_descriptor) for one in known if one is not None), default=0)
        nothing = _Known(np.full(width, np.nan), np.zeros(n_prior))
        table = [nothing if one is None else one for one in known]
        return networks._replace(
            network_descriptor=np.array([one.network_descriptor for one in table]).reshape(len(table), width),
            expected=np.array([one.expected for one in table]).reshape(len(table), n_prior),
        )

    def _layers(self, networks: Networks) -> list[np.ndarray]:
        """Actions ``[S, 4]`` of the layers of each network."""
        are_layers = (networks.names[:, :, 0] == self.layer_kind) & (networks.names[:, :, 0] >= 0)
        starts, counts = are_layers.argmax(axis=1), are_layers.sum(axis=1)
        # Mostly they follow one another, and a slice is faster than a selection.
        ends = are_layers.shape[1] - are_layers[:, ::-1].argmax(axis=1)
        one_after_another = (ends - starts == counts).tolist()
        return [
            np.ascontiguousarray(actions[start : start + n] if is_slice else actions[mine])
            for actions, mine, start, n, is_slice in zip(
                networks.actions, are_layers, starts.tolist(), counts.tolist(), one_after_another, strict=True
            )
        ]

    def _know(self, some: list[np.ndarray]) -> list[_Known | None]:
        """Knowledge from space and prior about layers ``[S, 4]``; None for layers outside the space."""
        assert self.context is not None
        space = self.context.space
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        keys = [layers.tobytes() for layers in some]
        new = {key: layers for key, layers in zip(keys, some, strict=True) if key not in self._known}
        valid = {key: layers for key, layers in new.items() if self._descriptor(layers) is not None}
        expected = [np.zeros(self._n_expected)] * len(valid)
        prior = self._active_prior(self.context)
        if prior is not None and valid:  # all at once, which takes hardly longer than a single network
            features = [row for layers in valid.values() if (row := space.layer_features(layers)) is not None]
            expected = list(prior(features))
        found = dict(zip(valid, expected, strict=True))
        for key, layers in new.items():
            network_descriptor = self._descriptor(layers)
            self._known[key] = None if network_descriptor is None else _Known(network_descriptor, found[key])
        return [self._known[key] for key in keys]

    def _descriptor(self, layers: np.ndarray) -> np.ndarray | None:
        assert self.context is not None
        key = layers.tobytes()
        if len(self._descriptors) > _MOST_KNOWN:
            self._descriptors.clear()
        if key not in self._descriptors:
            self._descriptors[key] = self.context.space.network_descriptor(layers)
        return self._descriptors[key]

    def contains(self, layers: np.ndarray) -> bool:
        """Return whether the space contains a network with actions ``layers`` ``[S, 4]``."""
        return self._descriptor(np.ascontiguousarray(layers)) is not None

    def network_of(self, episode: Episode) -> Networks:
        """The steps of a trial as one network."""
        names, indices, n_values = self._names.learn_all(episode)
        return as_one(Plan(episode.actions, names, indices, 0.0, b""), n_values)
