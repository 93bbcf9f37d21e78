"""Random networks of a space that no trial has tried."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from optuna_trlhpo.agent.prior_knowledge import DEPTH, GrowthContext, PriorKnowledge
from optuna_trlhpo.agent.replay import Replay
from optuna_trlhpo.agent.workers import Workers
from optuna_trlhpo.layers import Network

_DRAWS = 100
"""Number of networks drawn before the space is searched for one that has not been tried."""


def untried_networks(
    rng: np.random.Generator, replay: Replay, knowledge: PriorKnowledge, taken: Collection[bytes]
) -> Iterator[tuple[Network, np.ndarray]]:
    """Yield random networks of the space that have not been tried, with their actions ``[S, 4]``.

    Where nearly all have been tried, the space is searched for the others, as far as takes little time.

    Args:
        rng: Random generator.
        replay: Memory of finished trials.
        knowledge: Knowledge, in the space of the trial.
        taken: Keys of networks to leave out, see `network_key`.
    """
    assert knowledge.context is not None
    space = knowledge.context.space
    drawn = (space.draw(rng) for _ in range(_DRAWS))
    others = itertools.islice(space.every_network(rng), replay.n_values + len(taken) + _DRAWS)
    with contextlib.suppress(ValueError):  # networks almost never meet all limits of the space together
        for network in filter(None, itertools.chain(drawn, others)):
            actions = space.encode(network)
            key = knowledge.key_of_layers(actions)
            if key is None or (key not in taken and not replay.has_value(key)):
                yield network, actions


def draw_untried(
    context: GrowthContext,
    params: Mapping[str, Any],
    name: str,
    rng: np.random.Generator,
    replay: Replay,
    knowledge: PriorKnowledge,
    workers: Workers,
) -> dict[str, Any]:
    """Return the parameters of a random network that no trial has tried or is about to try.

    A network that is sampled one parameter after the other may turn out to be an old one, and then it is too
    late for another. Nothing is returned where all have been tried, the trial asks for no parameter of a
    network, or it has values that random networks hardly have.

    Args:
        context: Space from which the trial grows layers.
        params: What the trial has already. The network agrees with it.
        name: Name of the parameter that the trial asks for. The network has it.
        rng: Random generator.
        replay: Memory of finished trials.
        knowledge: Knowledge, which enters the space.
        workers: Other running trials.
    """
    knowledge.enter(context)
    taken = {plan.key for plan in workers.plans()}
    for network, actions in untried_networks(rng, replay, knowledge, taken):
        drawn = {DEPTH.base_name: len(network), **context.space.to_params(network)}
        agrees = all(drawn[known] == params[known] for known in drawn.keys() & params.keys())
        if agrees and name in drawn and workers.claim(actions):
            return drawn
    return {}
