"""Train networks of Table I by the thousand, and keep what came of each: ``python -m optuna_trlhpo.benchmarks
train``.

Sequences are drawn at random; from the 200th network on, most are variations of the best so far, so that
the table knows the neighbourhood of its optimum well. All prefixes of a sequence are trained. One training in
ten repeats a network that is known under another seed: that is what tells the noise.

Rows are appended to a file as they come, one JSON object a line; a call goes on where the last one ended.
Several workers write to files of their own.
"""

from __future__ import annotations

import argparse
import json
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
"""A learning curve has so many points, the last at the end."""
_CURVE_IMAGES = 1000
"""Validation images that the points before the last are judged by."""
_BEGIN_VARYING = 200
_VARIED_SHARE = 0.6
_REPEATED_SHARE = 0.1
_BEST_SHARE = 0.1


def train_table(
    name: str, path: Path, *, n_networks: int, data_root: str | Path = "data", seed: int = 0
) -> Iterator[dict[str, Any]]:
    """Train until ``path`` holds ``n_networks`` rows; yield each new row after it is written.

    Args:
        name: One of `tasks.TASKS`.
        path: A file of JSON lines; what it holds is kept.
        n_networks: Rows in all, repetitions included.
        data_root: Where MNIST's files lie.
        seed: Of what is drawn; workers need different ones.
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
            while not trainings:  # all prefixes of what was drawn may be known
                trainings = _next_trainings(task.space, rows, rng)
            for network, repeat in trainings:
                row = train_network(task, data, network, training_seed=seed + 1000 * repeat)
                rows.append(row)
                file.write(json.dumps(row) + "\n")
                file.flush()
                yield row


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file; a last line that was cut off is taken out of the file."""
    if not path.exists():
        return []
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole)
    return [json.loads(line) for line in whole.splitlines()]


def _next_trainings(
    space: LayerSpace, rows: list[dict[str, Any]], rng: np.random.Generator
) -> list[tuple[Network, int]]:
    """Networks to train next, each with the number of times that it was trained before."""
    times: dict[str, int] = {}
    accuracy: dict[str, float] = {}
    for row in rows:
        times[row["architecture"]] = times.get(row["architecture"], 0) + 1
        accuracy.setdefault(row["architecture"], row["accuracy"])
    best = sorted(accuracy, key=lambda text: -accuracy[text])[: max(int(_BEST_SHARE * len(accuracy)), 20)]
    started = len(accuracy) >= _BEGIN_VARYING
    if started and rng.random() < _REPEATED_SHARE * 2:  # a sequence is some two trainings
        known = best if rng.random() < 0.5 else list(accuracy)
        text = known[rng.integers(len(known))]
        return [(parse(text), times[text])]
    if started and rng.random() < _VARIED_SHARE:
        network = vary(space, parse(best[rng.integers(len(best))]), rng)
    else:
        network = space.draw(rng)
    prefixes = [network[: k + 1] for k in range(len(network))]
    return [(prefix, 0) for prefix in prefixes if describe(prefix) not in times]


def vary(space: LayerSpace, network: Network, rng: np.random.Generator) -> Network:
    """A network that differs in a hyper-parameter, or in a layer: another one, one more, or one less."""
    while True:
        layers = list(network)
        k = int(rng.integers(len(layers)))
        way = rng.choice(["value", "value", "layer", "insert", "delete", "append"])
        if way == "value":
            layer = layers[k]
            i = int(rng.integers(len(layer.values)))
            values = list(layer.values)
            choices = type(layer).hyperparameters[i].values
            values[i] = choices[rng.integers(len(choices))]
            layers[k] = type(layer)(*values)
        elif way == "delete":
            del layers[k]
        else:
            place = len(layers) if way == "append" else k
            before = tuple(layers[:place])
            kinds = space.kinds(before)
            if not kinds:
                continue
            layer = space.draw_layer(rng, before, kinds[rng.integers(len(kinds))])
            layers[place : place + (way == "layer")] = [layer]
        varied = tuple(layers)
        if not varied or varied == network:
            continue
        try:
            space.check(varied)
        except ValueError:
            continue
        return varied


def train_network(task: Task, data: ImageData, network: Network, *, training_seed: int) -> dict[str, Any]:
    """Train a network on a task, the same each time for one seed, and validate it; a row of a table."""
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
    """Train, and write the table."""
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
