"""Networks of a space drawn from a policy, layer by layer.

Notation: N networks, S layers, O features of a layer, K kinds of layer, V values of all hyper-parameters of
all kinds, in the order of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from optuna_trlhpo.layers import Layer, Network
from optuna_trlhpo.space.grammar import Grammar

Policy = Callable[[Sequence[np.ndarray]], tuple[np.ndarray, np.ndarray]]
"""Function of N networks with equal numbers of layers, each by its features ``[S, O]``. It returns the logits
``[N, K + 1]`` of the next layer's kind, the last for the end of the network, and ``[N, V]`` of the values."""


def draw_networks(
    grammar: Grammar,
    policy: Policy,
    features_of: Callable[[Network], np.ndarray],
    n: int,
    rng: np.random.Generator,
) -> list[Network]:
    """Draw ``n`` networks from a policy. What the grammar does not allow has no probability.

    Args:
        grammar: Grammar of the networks.
        policy: The policy.
        features_of: Function that returns the features ``[S, O]`` of the layers of a network.
        n: Number of networks.
        rng: Random generator.
    """
    networks: list[Network] = [()] * n
    growing = list(range(n))
    for _ in range(grammar.max_layers):
        if not growing:
            break
        logits = policy([features_of(networks[i]) for i in growing])
        grown = []
        for i, of_kinds, of_values in zip(growing, *logits, strict=True):
            layer = _draw_layer(grammar, networks[i], of_kinds, of_values, rng)
            if layer is not None:
                networks[i] = (*networks[i], layer)
                grown.append(i)
        growing = grown
    return [network for network in networks if network and grammar.fits(network)]


def _draw_layer(
    grammar: Grammar,
    before: Network,
    of_kinds: np.ndarray,
    of_values: np.ndarray,
    rng: np.random.Generator,
) -> Layer | None:
    """Draw the layer behind ``before``; None if the network ends there."""
    vocabulary = grammar.vocabulary
    numbers = [vocabulary.kinds.index(cls) for cls in grammar.kinds(before)]
    if before and grammar.fits(before):
        numbers.append(len(vocabulary.kinds))
    if not numbers:
        return None
    number = numbers[_choose(of_kinds[numbers], rng)]
    if number == len(vocabulary.kinds):
        return None
    cls = vocabulary.kinds[number]
    first = vocabulary.first_values[number]
    values: list[Any] = []
    for hp in cls.hyperparameters:
        allowed = grammar.allowed(before, cls, *values)
        places = [first + hp.values.index(value) for value in allowed]
        values.append(allowed[_choose(of_values[places], rng)])
        first += len(hp.values)
    return cls(*values)


def _choose(logits: np.ndarray, rng: np.random.Generator) -> int:
    """Draw a number with the probabilities of these logits (Gumbel-max)."""
    return int(np.argmax(logits + rng.gumbel(size=len(logits))))
