"""Pretraining of the prior for layers (`agent.layer_prior`) on tables of networks from `training_table`.

Notation: N networks, E dimensions of a network's embedding, T tasks.

The accuracies of a task are transformed like those of a study. The transformer and the linear weights of all
tasks are learned jointly. The weights are regularized towards their mean, so that the embedding represents
what the tasks have in common.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from optuna_trlhpo.agent.layer_policy import padded
from optuna_trlhpo.agent.layer_prior import (
    EMBEDDING,
    POLICY,
    VOCABULARIES,
    LayerTransformer,
    prefix_of,
)
from optuna_trlhpo.benchmarks.harness.command_line import select
from optuna_trlhpo.benchmarks.layer_prior.policy_training import (
    features_of,
    is_within,
    train_policy,
    vocabulary_of,
)
from optuna_trlhpo.benchmarks.problems.mnist_layers import TabulatedTraining, by_network, read_table
from optuna_trlhpo.benchmarks.problems.tasks import TASKS
from optuna_trlhpo.layers import Vocabulary, parse
from optuna_trlhpo.trials.outcome_transforms import OutcomeTransform

EPOCHS = 60
_BATCH_SIZE = 64  # networks of each task
_LEARNING_RATE = 2e-3
_WEIGHT_DECAY = 0.05
_SHARED = 0.3
"""Strength of the regularization of the tasks' weights towards their mean."""
_NOISE = 0.1
"""Standard deviation of the noise on the features in training, against overfitting."""
_LEAST_DEVIATION = 0.3
"""Minimum standard deviation of the tasks' weights, relative to the typical weight: few tasks estimate it."""

DATA = Path(__file__).parents[1] / "data"


def read_tasks(names: Sequence[str], folder: Path = DATA) -> dict[str, list[TabulatedTraining]]:
    """Read the tables of tasks.

    Args:
        names: Names of the tasks.
        folder: Folder of the tables.

    Returns:
        Tables by the names of the tasks.

    Raises:
        FileNotFoundError: If a table is missing.
    """
    return {name: read_table(folder / f"{name}-layers.csv.gz") for name in names}


def tasks_with_table(vocabulary: Vocabulary | None = None, folder: Path = DATA) -> list[str]:
    """Return the names of the tasks whose tables are in the folder, of all vocabularies or of one."""
    return [
        name
        for name, task in TASKS.items()
        if vocabulary in (None, task.vocabulary) and (folder / f"{name}-layers.csv.gz").exists()
    ]


def pretrain(
    tables: Mapping[str, Sequence[TabulatedTraining]],
    *,
    seed: int = 0,
    epochs: int = EPOCHS,
    progress: bool = False,
) -> dict[str, Tensor]:
    """Train a `LayerPrior` with its policy.

    Args:
        tables: Tables by the names of the tasks, which have one vocabulary.
        seed: Random seed.
        epochs: Passes over the largest table.
        progress: Whether to show a progress bar.

    Returns:
        Tensors of the prior by name.
    """
    tasks = [_read(name, table) for name, table in tables.items()]
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        transformer = LayerTransformer(vocabulary_of(tables))
        weights = nn.Parameter(0.1 * torch.randn(len(tasks), EMBEDDING))
        shared = nn.Parameter(torch.ones(EMBEDDING) / EMBEDDING**0.5)
        constants = nn.Parameter(torch.zeros(len(tasks)))
        parameters = [*transformer.parameters(), weights, shared, constants]
        optimizer = torch.optim.AdamW(parameters, lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
        steps = max(len(task.values) for task in tasks) // _BATCH_SIZE + 1
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=epochs * steps)
        for _ in tqdm(range(epochs * steps), disable=not progress, unit="step"):
            loss = _SHARED * weights.square().mean()
            for t, task in enumerate(tasks):
                rows = torch.from_numpy(rng.integers(len(task.values), size=_BATCH_SIZE))
                features = task.features[rows] + _NOISE * torch.randn(task.features[rows].shape)
                embedded, _ = transformer(features, task.filled[rows])
                predicted = embedded @ (shared + weights[t]) + constants[t]
                loss = loss + (predicted - task.values[rows]).square().mean() / len(tasks)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    mean = (shared + weights.mean(dim=0)).detach()
    policy = train_policy(tables, seed=seed, epochs=epochs, progress=progress)
    least = _LEAST_DEVIATION * mean.square().mean().sqrt()
    spread = weights.detach().std(dim=0) if len(tasks) > 1 else torch.zeros(EMBEDDING)
    return {
        **{name: tensor.detach().contiguous() for name, tensor in transformer.state_dict().items()},
        "mean": mean,
        "deviation": (spread.square() + least.square()).sqrt(),
        "unit": torch.tensor(float(np.mean([task.unit for task in tasks]))),
        **{POLICY + name: tensor for name, tensor in policy.items()},
    }


class _Learned:
    """Tensors of a task."""

    def __init__(self, features: Sequence[np.ndarray], values: np.ndarray, unit: float) -> None:
        self.features, self.filled = padded(features)
        self.values = torch.from_numpy(values).float()
        self.unit = unit


def _read(name: str, table: Sequence[TabulatedTraining]) -> _Learned:
    space = TASKS[name].space
    # A table may hold networks that the grammar has ruled out since.
    accuracies = {text: them for text, them in by_network(table).items() if is_within(space, parse(text))}
    features = [features_of(space, parse(network)) for network in accuracies]
    means = np.array([np.mean(values) for values in accuracies.values()])
    scores = OutcomeTransform(means)
    return _Learned(features, scores(means), scores.unit)


def handle(arguments: argparse.Namespace) -> int:
    """Train the prior of each vocabulary that the tasks have, and write them to a file, beside the others."""
    from safetensors.torch import save

    names = select("task", arguments.tasks, tasks_with_table())
    tables = read_tasks(names)
    tensors = _read_tensors(arguments.file)  # a file that cannot be used is found out before the training
    for vocabulary in VOCABULARIES:
        own = {name: table for name, table in tables.items() if TASKS[name].vocabulary == vocabulary}
        if not own:
            continue
        prefix = prefix_of(vocabulary)
        others = [prefix_of(other) for other in VOCABULARIES if other != vocabulary and other.name]
        tensors = {
            name: it
            for name, it in tensors.items()
            if not name.startswith(prefix) or name.startswith(tuple(others))
        }
        trained = pretrain(own, seed=arguments.seed, progress=True)
        tensors |= {prefix + name: it for name, it in trained.items()}
    arguments.file.write_bytes(save(tensors))  # `save_file` would make it unreadable for other users
    size = arguments.file.stat().st_size / 1000
    networks = ", ".join(f"{name} {len(table):,}" for name, table in tables.items())
    print(f"wrote {arguments.file} ({size:.0f} kB), from trainings of {networks}")
    return 0


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Read what a file of priors holds so far, and make its folder if there is none."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        return {}
    try:
        return load(path.read_bytes())
    except SafetensorError as error:
        raise ValueError(
            f"{path} exists and is not a safetensors file ({error}); name another file"
        ) from error
