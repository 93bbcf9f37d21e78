"""Training of the actor: on tables of networks before any study, and on a study's own networks within it.

The actor learns by advantage-weighted regression (Peng et al., 2019): the log probability of the layers of a
network counts the more the better the network. Within a study the networks are those with a value (real
episodes, of which every prefix with a report is one) and others that the actor itself draws and the critic
judges. Such imagined episodes cost no training (Dyna, Sutton, 1990).

Notation: N networks, S layers of the deepest, F features of a space, O features of a layer, K kinds of layer,
V values of all hyper-parameters of all kinds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from optuna_trlhpo._threads import cpu_threads
from optuna_trlhpo.agent.layer_policy import LayerPolicy, padded
from optuna_trlhpo.layers import ACTION_SLOTS, Network, Vocabulary
from optuna_trlhpo.trials.outcome_transforms import ranks_of

N_IMAGINED = 48
"""Number of networks that the actor draws for one occasion to learn."""
FEATURE_NOISE = 0.1
"""Standard deviation of the noise on the features in training, against overfitting."""
_SELECTIVITY = 0.15
"""Difference in rank by which the weight of a network falls to 1 / e."""
_STEPS = 10
_BATCH_SIZE = 32
_LEARNING_RATE = 5e-4


class PolicyLearner:
    """Actor that goes on learning within a study.

    It learns at numbers of finished trials that are given, from these trials alone: a new sampler on a stored
    study that observes the same trials has the same actor. The state of the optimiser is not kept from one
    occasion to the next, so the weights are all that there is to store.

    Args:
        policy: The actor as it was pretrained, which is left as it is.

    Attributes:
        policy: The actor as it is now.
    """

    def __init__(self, policy: LayerPolicy) -> None:
        self.policy = policy.copy()

    @cpu_threads(1)
    def learn(
        self,
        space: np.ndarray,
        features: Sequence[np.ndarray],
        networks: Sequence[Network],
        values: np.ndarray,
        rng: np.random.Generator,
    ) -> float:
        """Learn for a few steps, and return the mean loss: the negative log probability of a good network.

        Args:
            space: ``[F]`` features of the space.
            features: N arrays ``[S, O]``, the features of the networks' layers.
            networks: The N networks.
            values: ``[N]`` their values, as the objective or the critic judges them.
            rng: Random generator.
        """
        layers, _ = padded(features)
        vocabulary, transformer = self.policy.vocabulary, self.policy.transformer
        kinds, chosen = choices_of(vocabulary, networks)
        probabilities = weights_of(values)
        start = torch.from_numpy(space).float().expand(_BATCH_SIZE, -1)
        optimizer = torch.optim.Adam(transformer.parameters(), lr=_LEARNING_RATE)
        losses = []
        for _ in range(_STEPS):
            rows = rng.choice(len(networks), _BATCH_SIZE, p=probabilities / probabilities.sum())
            noise = torch.from_numpy(rng.normal(scale=FEATURE_NOISE, size=(_BATCH_SIZE, *layers.shape[1:])))
            of_kinds, of_values, _ = transformer(start, layers[rows] + noise.float())
            loss = cloning_loss(of_kinds, of_values, kinds[rows], chosen[rows], vocabulary=vocabulary)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return float(np.mean(losses))


def weights_of(values: np.ndarray) -> np.ndarray:
    """Return how much networks with values ``[N]`` count, by their ranks.

    Example:
        >>> weights = weights_of(np.array([0.9, 0.1, 0.8]))
        >>> (weights / weights.max()).round(3).tolist()
        [1.0, 0.012, 0.108]
    """
    return np.exp((ranks_of(values) - 1) / _SELECTIVITY)


def choices_of(vocabulary: Vocabulary, networks: Sequence[Network]) -> tuple[Tensor, Tensor]:
    """Return what networks choose at each step, as `cloning_loss` reads it.

    Returns:
        Kinds ``[N, S + 1]`` and values ``[N, S + 1, 3]``.
    """
    S = max(map(len, networks))
    kinds = np.full((len(networks), S + 1), -1)
    chosen = np.full((len(networks), S + 1, ACTION_SLOTS - 1), -1)
    for n, layers in enumerate(networks):
        for k, layer in enumerate(layers):
            kinds[n, k] = vocabulary.kinds.index(type(layer))
            first = vocabulary.first_values[kinds[n, k]]
            for i, (hp, value) in enumerate(zip(layer.hyperparameters, layer.values, strict=True)):
                chosen[n, k, i] = first + hp.values.index(value)
                first += len(hp.values)
        kinds[n, len(layers)] = len(vocabulary.kinds)
    return torch.from_numpy(kinds), torch.from_numpy(chosen)


def cloning_loss(
    of_kinds: Tensor, of_values: Tensor, kinds: Tensor, chosen: Tensor, *, vocabulary: Vocabulary
) -> Tensor:
    """Mean negative log probability of a network.

    Args:
        of_kinds: ``[N, S + 1, K + 1]`` logits of the kinds.
        of_values: ``[N, S + 1, V]`` logits of the values.
        kinds: ``[N, S + 1]`` kinds of the layers, then K for the end; -1 behind it.
        chosen: ``[N, S + 1, 3]`` numbers of the layers' values among all V; -1 where there is none.
        vocabulary: Kinds of layer.
    """
    loss = nn.functional.cross_entropy(
        of_kinds.flatten(0, 1), kinds.flatten(), ignore_index=-1, reduction="sum"
    )
    log_shares = torch.cat(
        [part.log_softmax(dim=-1) for part in of_values.split(vocabulary.value_counts, dim=-1)], dim=-1
    )
    of_chosen = log_shares.gather(-1, chosen.clamp(min=0)) * (chosen >= 0)
    return (loss - of_chosen.sum()) / len(kinds)
