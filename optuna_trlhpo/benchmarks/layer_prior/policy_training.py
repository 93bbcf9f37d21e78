"""Pretraining of the actor (`agent.layer_policy`) on tables of networks from `training_table`.

Notation: N networks, S layers of the deepest, K kinds of layer, V values of all hyper-parameters of all
kinds.

The actor learns to choose the layers that the networks of the tables have (behavioural cloning). A network
counts the more the better its rank among those of its task. Where a task has limits on the parameters, the
actor learns each task once for each of several limits: which networks are good depends on them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from optuna_trlhpo.agent.layer_policy import PolicyTransformer, padded
from optuna_trlhpo.benchmarks.problems.mnist_layers import TabulatedTraining, by_network
from optuna_trlhpo.benchmarks.problems.tasks import TASKS, Task
from optuna_trlhpo.layers import Network, Vocabulary, parse
from optuna_trlhpo.space import LayerSpace
from optuna_trlhpo.trials.outcome_transforms import ranks_of

EPOCHS = 60
_BATCH_SIZE = 128
_LEARNING_RATE = 2e-3
_WEIGHT_DECAY = 0.05
_NOISE = 0.1
"""Standard deviation of the noise on the features in training, against overfitting."""
_SELECTIVITY = 0.15
"""Difference in rank by which the weight of a network falls to 1 / e."""
_MOST_VALUES = 3
_FEW_MACS = 0.2
"""Second limit on MACs that is learned, as a share of a task's."""
_FEW_ACTIVATION_BYTES = 20_000
"""Limit on the activations that is learned, besides none."""
_LEAST_NETWORKS = 20
"""Number of networks within the limits of a space from which on the space is learned."""


def train_policy(
    tables: Mapping[str, Sequence[TabulatedTraining]],
    *,
    seed: int = 0,
    epochs: int = EPOCHS,
    shuffled: bool = False,
    progress: bool = False,
) -> dict[str, Tensor]:
    """Train a `LayerPolicy`.

    Args:
        tables: Tables by the names of the tasks, which have one vocabulary.
        seed: Random seed.
        epochs: Passes over all tables.
        shuffled: Whether to exchange the accuracies of a task's networks at random, for an ablation.
        progress: Whether to show a progress bar.

    Returns:
        Tensors of the policy by name.

    Raises:
        ValueError: If the tasks have several vocabularies, or the tables are too small.
    """
    rng = np.random.default_rng(seed)
    networks: list[tuple[LayerSpace, Network]] = []
    spaces: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    vocabulary = vocabulary_of(tables)
    for name, table in tables.items():
        accuracies = by_network(table)
        values = np.array([np.mean(observed) for observed in accuracies.values()])
        if shuffled:
            values = rng.permutation(values)
        parsed = [parse(network) for network in accuracies]
        for space in _spaces(TASKS[name]):
            within = [i for i, layers in enumerate(parsed) if is_within(space, layers)]
            if len(within) < _LEAST_NETWORKS:
                continue
            networks += [(space, parsed[i]) for i in within]
            spaces += [space.space_features] * len(within)
            weights.append(np.exp((ranks_of(values[within]) - 1) / _SELECTIVITY))
    if not networks:
        raise ValueError(f"no table has {_LEAST_NETWORKS} networks within the limits of its task")
    features, _ = padded([features_of(space, layers) for space, layers in networks])
    targets = [_targets(vocabulary, layers, features.shape[1]) for _, layers in networks]
    kinds, chosen = (torch.from_numpy(np.array(arrays)) for arrays in zip(*targets, strict=True))
    start = torch.from_numpy(np.array(spaces)).float()
    probabilities = np.concatenate(weights) / np.concatenate(weights).sum()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        policy = PolicyTransformer(vocabulary)
        optimizer = torch.optim.AdamW(policy.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
        steps = epochs * (len(networks) // _BATCH_SIZE + 1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps)
        for _ in tqdm(range(steps), disable=not progress, unit="step"):
            rows = torch.from_numpy(rng.choice(len(networks), _BATCH_SIZE, p=probabilities))
            noisy = features[rows] + _NOISE * torch.randn(_BATCH_SIZE, *features.shape[1:])
            of_kinds, of_values, _ = policy(start[rows], noisy)
            loss = cloning_loss(of_kinds, of_values, kinds[rows], chosen[rows], vocabulary=vocabulary)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return {name: tensor.detach().contiguous() for name, tensor in policy.state_dict().items()}


def vocabulary_of(tables: Iterable[str]) -> Vocabulary:
    """Return the vocabulary that all these tasks have.

    Raises:
        ValueError: If they have several, or there is no task.
    """
    found = {TASKS[name].vocabulary for name in tables}
    if len(found) != 1:
        raise ValueError(f"the tasks {', '.join(tables)} have {len(found)} vocabularies; they must have one")
    return found.pop()


def _spaces(task: Task) -> list[LayerSpace]:
    """Spaces of a task for which the actor learns what good networks are."""
    if len(task.max_parameters) == 1:
        return list(task.spaces)
    few = dataclasses.replace(task, max_macs=_FEW_MACS * task.max_macs)
    small = [
        LayerSpace.from_settings(space.settings | {"max_activation_bytes": _FEW_ACTIVATION_BYTES})
        for space in task.spaces
    ]
    return [*task.spaces, *few.spaces, *small]


def is_within(space: LayerSpace, layers: Network) -> bool:
    """Return whether the space has the network."""
    try:
        space.check(layers)
    except ValueError:
        return False
    return True


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


def features_of(space: LayerSpace, layers: Network) -> np.ndarray:
    """Return the features ``[S, O]`` of the layers of a network of the space."""
    found = space.layer_features(space.encode(layers))
    assert found is not None, layers
    return found


def _targets(vocabulary: Vocabulary, layers: Network, S: int) -> tuple[np.ndarray, np.ndarray]:
    """Kinds ``[S + 1]`` and values ``[S + 1, 3]`` of a network, as of `cloning_loss`."""
    kinds, chosen = np.full(S + 1, -1), np.full((S + 1, _MOST_VALUES), -1)
    for k, layer in enumerate(layers):
        kinds[k] = vocabulary.kinds.index(type(layer))
        first = vocabulary.first_values[kinds[k]]
        for i, (hp, value) in enumerate(zip(layer.hyperparameters, layer.values, strict=True)):
            chosen[k, i] = first + hp.values.index(value)
            first += len(hp.values)
    kinds[len(layers)] = len(vocabulary.kinds)
    return kinds, chosen
