"""Training of many networks for a table: ``python -m optuna_trlhpo.benchmarks train``.

Sequences of layers are drawn at random. Later most are variations of the best so far (`Task.begin_varying`),
so that the table covers the neighbourhood of its optimum well. All prefixes of a sequence that are within the
limits are trained. One training in ten repeats a known network with another seed, which provides an estimate
of the noise. Where a task has several limits on the parameters, each sequence is drawn within one of them.

Each row is appended to a file at once, as a JSON object on a line of its own. A call continues where the last
one ended. Each worker writes to its own file.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from optuna_trlhpo.benchmarks.problems.mnist_layers import write_table
from optuna_trlhpo.benchmarks.problems.tasks import BATCH_SIZE, LEARNING_RATE, TASKS, Task
from optuna_trlhpo.cnn.data.datasets import ImageData
from optuna_trlhpo.cnn.deploy.cost import count_parameters
from optuna_trlhpo.cnn.model import build_network
from optuna_trlhpo.cnn.training.loop import predict_correct, train
from optuna_trlhpo.layers import Network, describe, parse
from optuna_trlhpo.space import LayerSpace

_CURVE_POINTS = 4
"""Number of points of a learning curve; the last one is at the end of the training."""
_CURVE_IMAGES = 1000
"""Number of validation images for the points before the last one."""
_VARIED_SHARE = 0.6
REPEATED_SHARE = 0.1
_BEST_SHARE = 0.1


def train_table(
    name: str, path: Path, *, n_networks: int, data_root: str | Path = "data", seed: int = 0
) -> Iterator[dict[str, Any]]:
    """Train until ``path`` contains ``n_networks`` rows, and yield each new row once it is written.

    Args:
        name: Name of a task in `tasks.TASKS`.
        path: File of JSON lines. Existing rows are kept.
        n_networks: Total number of rows, including repetitions.
        data_root: Folder of MNIST's files.
        seed: Random seed; workers need different ones.
    """
    task = TASKS[name]
    rows = read_rows(path)
    data = task.load(data_root)
    torch.set_num_threads(1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        while len(rows) < n_networks:
            rng = np.random.default_rng((seed, len(rows)))
            trainings: list[tuple[Network, int]] = []
            while not trainings:  # all prefixes of the sequence may be known
                space = _choose_space(task, rng)
                trainings = _next_trainings(space, rows, rng, begin_varying=task.begin_varying)
            for network, repeat in trainings:
                row = train_network(task, data, network, training_seed=seed + 1000 * repeat)
                rows.append(row)
                file.write(json.dumps(row) + "\n")
                file.flush()
                yield row


def _choose_space(task: Task, rng: np.random.Generator) -> LayerSpace:
    spaces = task.spaces
    return spaces[0] if len(spaces) == 1 else spaces[rng.integers(len(spaces))]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a file, and remove an incomplete last line from the file."""
    if not path.exists():
        return []
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole)
    return [json.loads(line) for line in whole.splitlines()]


def _next_trainings(
    space: LayerSpace, rows: list[dict[str, Any]], rng: np.random.Generator, *, begin_varying: int
) -> list[tuple[Network, int]]:
    """Return the next networks to train, each with the number of its earlier trainings."""
    times: dict[str, int] = {}
    accuracy: dict[str, float] = {}
    most = math.inf if space.max_parameters is None else space.max_parameters
    for row in rows:
        times[row["architecture"]] = times.get(row["architecture"], 0) + 1
        if row["parameters"] <= most:
            accuracy.setdefault(row["architecture"], row["accuracy"])
    best = sorted(accuracy, key=lambda text: -accuracy[text])[: max(int(_BEST_SHARE * len(accuracy)), 20)]
    started = len(accuracy) >= begin_varying
    if started and rng.random() < REPEATED_SHARE * 2:  # a sequence takes about two trainings
        known = best if rng.random() < 0.5 else list(accuracy)
        text = known[rng.integers(len(known))]
        return [(parse(text), times[text])]
    if started and rng.random() < _VARIED_SHARE:
        network = vary(space, parse(best[rng.integers(len(best))]), rng)
    else:
        network = space.draw(rng)
    prefixes = [network[: k + 1] for k in range(len(network))]
    return [(prefix, 0) for prefix in prefixes if describe(prefix) not in times and space.fits(prefix)]


def vary(space: LayerSpace, network: Network, rng: np.random.Generator) -> Network:
    """Return a variation of a network: one hyper-parameter or layer changed, or a layer added or removed."""
    while True:
        layers = list(network)
        k = int(rng.integers(len(layers)))
        change = rng.choice(["value", "value", "layer", "insert", "delete", "append"])
        if change == "value":
            layer = layers[k]
            if not layer.values:
                continue
            i = int(rng.integers(len(layer.values)))
            values = list(layer.values)
            choices = type(layer).hyperparameters[i].values
            values[i] = choices[rng.integers(len(choices))]
            layers[k] = type(layer)(*values)
        elif change == "delete":
            del layers[k]
        else:
            place = len(layers) if change == "append" else k
            before = tuple(layers[:place])
            kinds = space.kinds(before)
            if not kinds:
                continue
            layer = space.draw_layer(rng, before, kinds[rng.integers(len(kinds))])
            layers[place : place + (change == "layer")] = [layer]
        varied = tuple(layers)
        if not varied or varied == network:
            continue
        try:
            space.check(varied)
        except ValueError:
            continue
        return varied


def train_network(task: Task, data: ImageData, network: Network, *, training_seed: int) -> dict[str, Any]:
    """Train and validate a network on a task. The training is deterministic for a seed.

    Returns:
        Row of a table.
    """
    architecture = describe(network)
    seed = zlib.crc32(f"{training_seed} {architecture}".encode())
    start = time.process_time()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = build_network(network, data.input_shape, data.num_classes, conv_activation="relu")
    model.to(memory_format=torch.channels_last)
    curve: list[float] = []

    def judge(epochs: int) -> None:
        if epochs * _CURVE_POINTS % task.epochs:
            return
        n = len(data.validation_labels) if epochs == task.epochs else _CURVE_IMAGES
        correct = predict_correct(model, data.validation_images[:n], data.validation_labels[:n])
        curve.append(round(float(correct.double().mean()), 5))

    train(
        model,
        data.train_images,
        data.train_labels,
        epochs=task.epochs,
        batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
        generator=torch.Generator().manual_seed(seed),
        after_epoch=judge,
    )
    return {
        "architecture": architecture,
        "seed": training_seed,
        "accuracy": curve[-1],
        "curve": curve,
        "parameters": count_parameters(model),
        "macs": task.space.macs(network),
        "seconds": round(time.process_time() - start, 3),
    }


def handle(arguments: argparse.Namespace) -> int:
    """Train the missing networks and write the table."""
    first = arguments.rows[0]
    if arguments.networks:
        done = len(read_rows(first))
        trained = train_table(
            arguments.task,
            first,
            n_networks=arguments.networks,
            data_root=arguments.data_root,
            seed=arguments.seed,
        )
        for _ in tqdm(trained, initial=done, total=arguments.networks, unit="network"):
            pass
    if arguments.table:
        rows = {(row["architecture"], row["seed"]): row for path in arguments.rows for row in read_rows(path)}
        write_table(rows.values(), arguments.table)
        print(f"{len(rows):,} trainings in {arguments.table}")
    return 0
