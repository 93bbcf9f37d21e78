"""Savings and costs of reduced training: ``python -m optuna_trlhpo.benchmarks train-less``.

Random networks of Table I grow layer by layer on few images of MNIST, with each of the training methods in
`WAYS`. The reference method, ``whole``, trains every prefix from scratch for all epochs. The other methods
train less. One measure of a method is its CPU seconds. The other is the agreement between its ranking of the
finished networks and that of the reference: Spearman's and Kendall's rank correlation over all networks and
over the better half, according to the reference. The method ``again`` gives an upper bound. It is the
reference with another seed, whose ranking differs by chance alone.

Growth in blocks trains fewer prefixes from scratch, so its results are derived from the rows of ``whole``.
The table ignores what a study learns from prefixes, of which there are fewer in blocks.

A row is the result of one network with one method:

==================  =======================================================================================
``way``             method, with ``network`` and ``images``
``depths``          depths of the trained prefixes; the last one is the network itself. For each of them:
``accuracies``      accuracy on the validation images
``seconds``         CPU seconds of training and validation
``curves``          accuracies after each epoch except the last, if early stopping was possible
``stopped``         whether training stopped early
``versions``        versions of the packages, and ``machine``
==================  =======================================================================================
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from optuna.pruners import BasePruner, MedianPruner, PercentilePruner
from tqdm.auto import tqdm

from optuna_trlhpo.benchmarks.harness.command_line import print_report
from optuna_trlhpo.benchmarks.harness.rows import Row, check_names, this_machine, versions
from optuna_trlhpo.benchmarks.harness.studies import (
    check_positive,
    find_root,
    machines_text,
    table,
)
from optuna_trlhpo.benchmarks.harness.workers import quiet
from optuna_trlhpo.benchmarks.layer_prior.training_table import read_rows
from optuna_trlhpo.benchmarks.problems.tasks import BATCH_SIZE, LEARNING_RATE
from optuna_trlhpo.benchmarks.training import defaults
from optuna_trlhpo.cnn.data.datasets import ImageData, load_data
from optuna_trlhpo.cnn.training.early_stopping import Curves, Watch
from optuna_trlhpo.cnn.training.trainer import Trainer
from optuna_trlhpo.cnn.training.weight_inheritance import Lineage, LineageStep
from optuna_trlhpo.layers import Network, describe
from optuna_trlhpo.space import LayerSpace

EPOCHS = 4
VALIDATION_SHARE = 2
"""Number of validation images per training image."""
DEPTHS = (2, 4)
"""Minimum and maximum number of layers of a network."""
MAX_MACS = 2.5e5

_BOOTSTRAPS = 500


@dataclass(frozen=True)
class TrainingMethod:
    """Settings of a training method.

    Attributes:
        epochs: Number of epochs for a network trained from scratch.
        inherited_epochs: Number of epochs for a network with inherited weights. None: no inheritance.
        pruner: Factory of the pruner that stops poor networks early.
        block: Number of layers between trainings.
        seed: Random seed of the trainings.
    """

    epochs: int = EPOCHS
    inherited_epochs: int | None = None
    pruner: Callable[[], BasePruner] | None = None
    block: int = 1
    seed: int = 0


def _median() -> BasePruner:
    return MedianPruner(n_startup_trials=5)


def _quarter() -> BasePruner:
    return PercentilePruner(75.0, n_startup_trials=5)


FULL = "whole"
AGAIN = "again"
WAYS: dict[str, TrainingMethod] = {
    FULL: TrainingMethod(),
    AGAIN: TrainingMethod(seed=1),
    "half the epochs": TrainingMethod(epochs=EPOCHS // 2),
    "inherited": TrainingMethod(inherited_epochs=EPOCHS),
    "inherited, half the epochs": TrainingMethod(inherited_epochs=EPOCHS // 2),
    "inherited, a quarter of the epochs": TrainingMethod(inherited_epochs=EPOCHS // 4),
    "early stop of the worse half": TrainingMethod(pruner=_median),
    "early stop of the worst quarter": TrainingMethod(pruner=_quarter),
    "blocks of 2, inherited, half the epochs": TrainingMethod(block=2, inherited_epochs=EPOCHS // 2),
    "all three": TrainingMethod(block=2, inherited_epochs=EPOCHS // 2, pruner=_quarter),
}
BLOCKS = {"blocks of 2": 2, "blocks of 3": 3}
"""Methods that train like ``whole``, but not at every depth, by the number of layers between trainings."""


def load(data_root: str | Path, *, images: int = defaults.TRAIN_IMAGES) -> ImageData:
    """Load MNIST with few images."""
    return load_data(
        "mnist",
        data_root=data_root,
        train_size=images,
        validation_size=VALIDATION_SHARE * images,
        device="cpu",
    )


def draw(n: int, input_shape: tuple[int, ...] = (1, 28, 28)) -> list[Network]:
    """Draw ``n`` different random networks. They are the same in every call."""
    space = LayerSpace(input_shape=input_shape, max_layers=DEPTHS[1], max_macs=MAX_MACS)
    rng = np.random.default_rng(0)
    networks: dict[str, Network] = {}
    while len(networks) < n:
        network = space.draw(rng, depth=int(rng.integers(DEPTHS[0], DEPTHS[1] + 1)))
        networks.setdefault(describe(network), network)
    return list(networks.values())


def run(
    ways: Sequence[str],
    *,
    networks: int = 60,
    images: int = defaults.TRAIN_IMAGES,
    out: str | Path,
    data_root: str | Path,
    progress: bool = False,
) -> None:
    """Train the missing networks with each method, and append rows to ``out/WAY.jsonl``.

    Args:
        ways: Names of methods in `WAYS`.
        networks: Number of networks.
        images: Number of training images.
        out: Folder of the rows.
        data_root: Folder that contains MNIST.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: For an unknown method, or a number below 1.
        FileNotFoundError: If MNIST is missing.
    """
    check_names("way", ways, WAYS)
    check_positive(networks=networks, images=images)
    if not ways:  # existing rows are only reported
        return
    data = load(data_root, images=images)
    drawn = draw(networks, data.input_shape)
    torch.set_num_threads(1)
    with quiet(), tqdm(total=len(ways) * networks, unit="network", disable=not progress) as bar:
        for name in ways:
            path = Path(out) / f"{name.replace(', ', '-').replace(' ', '-')}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = [row for row in read_rows(path) if row["images"] == images]
            done = {row["network"] for row in kept}
            bar.update(sum(describe(network) in done for network in drawn))
            missing = [network for network in drawn if describe(network) not in done]
            with path.open("a") as file:
                for row in _train(name, missing, data, kept):
                    file.write(json.dumps(row) + "\n")
                    file.flush()
                    bar.update()


def _train(name: str, networks: Iterable[Network], data: ImageData, kept: Iterable[Row]) -> Iterator[Row]:
    way = WAYS[name]
    trainer = Trainer(
        data=data,
        conv_activation="relu",
        epochs=way.epochs,
        batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
        schedule="one_cycle",
        precision="float32",
        threads=1,
        seed=way.seed,
        inherits=way.inherited_epochs is not None,
        inherited_epochs=way.inherited_epochs or 0,
    )
    curves = None if way.pruner is None else Curves(way.pruner())
    if curves is not None:
        for row in kept:  # restore the curves from before an interruption
            for depth, curve, stopped in zip(row["depths"], row["curves"], row["stopped"], strict=True):
                curves.add(depth=depth, curve=curve, stopped=stopped)
    for network in networks:
        yield {
            "way": name,
            "network": describe(network),
            "images": len(data.train_labels),
            **grow(network, way, trainer, curves),
            "versions": versions(),
            "machine": this_machine(),
        }


def grow(network: Network, way: TrainingMethod, trainer: Trainer, curves: Curves | None) -> Row:
    """Train a network layer by layer, and return the fields of its row that are measured."""
    depths = _depths(len(network), way.block)
    row: Row = {"depths": depths, "accuracies": [], "seconds": [], "curves": [], "stopped": []}
    ancestors: Lineage = ()
    for depth in depths:
        layers, watch = network[:depth], None
        epochs = trainer.inherited_epochs if ancestors else way.epochs
        start = time.process_time()
        if curves is not None:
            watch = Watch(curves, depth, epochs, trainer.data)
        correct = trainer.validate(layers, seed=way.seed, lineage=ancestors, watch=watch)
        assert correct is not None, "networks as small as these fit in memory"
        if watch is not None:
            watch.close()
        row["seconds"].append(round(time.process_time() - start, 4))
        row["accuracies"].append(float(correct.mean()))
        row["curves"].append([] if watch is None else watch.curve)
        row["stopped"].append(watch is not None and watch.stopped)
        if trainer.inherits:
            ancestors = (
                *ancestors,
                LineageStep(layers, None if watch is None else watch.epochs_until_stopped),
            )
    return row


def _depths(layers: int, block: int) -> list[int]:
    return [k for k in range(1, layers + 1) if k % block == 0 or k == layers]


def _in_blocks(row: Row, block: int) -> Row:
    """Restrict the row of a network that was trained at every depth to the depths of growth in blocks."""
    places = [row["depths"].index(depth) for depth in _depths(row["depths"][-1], block)]
    return row | {name: [row[name][k] for k in places] for name in ("depths", "accuracies", "seconds")}


# Report ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ranking:
    """Rank correlations between two orders, from -1 to 1."""

    spearman: float
    kendall: float
    error: float
    """Bootstrap standard error of Spearman's correlation over the networks."""

    @classmethod
    def of(cls, values: Sequence[float], whole: Sequence[float]) -> Ranking:
        """Compute the rank correlations between ``values`` and ``whole``, with one value per network.

        Examples:
            >>> Ranking.of([1.0, 2.0, 4.0, 3.0], [0.1, 0.2, 0.3, 0.4]).spearman
            0.8
        """
        from scipy.stats import kendalltau, spearmanr  # the extra 'bench'

        a, b = np.array(values), np.array(whole)
        rng, again = np.random.default_rng(0), []
        for _ in range(_BOOTSTRAPS):
            drawn = rng.integers(len(a), size=len(a))
            if len(set(a[drawn])) > 1 and len(set(b[drawn])) > 1:
                again.append(spearmanr(a[drawn], b[drawn]).statistic)
        spearman = float(spearmanr(a, b).statistic)
        return cls(round(spearman, 6), float(kendalltau(a, b).statistic), float(np.std(again)))


def report(rows: Iterable[Row], *, images: int = defaults.TRAIN_IMAGES) -> str:
    """Format the rows as a table in Markdown, for the networks that every method has trained.

    Args:
        rows: Rows of all methods.
        images: Number of training images.
    """
    of_way: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row["images"] == images:
            of_way.setdefault(row["way"], {})[row["network"]] = row
    if FULL not in of_way:
        return "There is no reference: no network was trained with the method `whole`.\n"
    networks = [it for it in of_way[FULL] if all(it in trained for trained in of_way.values())]
    if len(networks) < 4:
        return f"Only {len(networks)} networks were trained with every method; at least 4 are needed.\n"
    for name, block in BLOCKS.items():
        of_way[name] = {it: _in_blocks(of_way[FULL][it], block) for it in networks}
    whole = [of_way[FULL][it]["accuracies"][-1] for it in networks]
    better = np.argsort(whole)[len(whole) // 2 :]
    heads = ["method", "CPU s per network", "saved", "Spearman", "Kendall", "Spearman, better half"]
    heads += ["Kendall, better half", "mean accuracy"]
    lines = []
    base = np.mean([sum(of_way[FULL][it]["seconds"]) for it in networks])
    for name in [*WAYS, *BLOCKS]:
        if name not in of_way:
            continue
        own = [of_way[name][it] for it in networks]
        values, seconds = (
            [row["accuracies"][-1] for row in own],
            np.mean([sum(row["seconds"]) for row in own]),
        )
        line = [name, f"{seconds:.2f}", f"{1 - seconds / base:.0%}".replace("%", " %")]
        if name == FULL:
            line += ["1", "1", "1", "1"]
        else:
            for places in (np.arange(len(whole)), better):
                it = Ranking.of([values[k] for k in places], [whole[k] for k in places])
                line += [f"{it.spearman:.3f} ± {it.error:.3f}", f"{it.kendall:.3f}"]
        lines.append([*line, f"{np.mean(values):.4f}"])
    least, most = DEPTHS
    shown = [row for trained in of_way.values() for row in trained.values()]
    return (
        "# Savings and costs of reduced training\n\n"
        f"{len(networks)} random networks of Table I of {least} to {most} layers and at most {MAX_MACS:,.0f} "
        f"MACs, grown layer by layer on {images:,} images of MNIST; `{FULL}` trains "
        f"every prefix from scratch for {EPOCHS} epochs. Seconds are for a network with all its prefixes. "
        f"Rank correlations are with the accuracies of `{FULL}` on {VALIDATION_SHARE * images:,} validation "
        f"images; `{AGAIN}`, the same with another seed, is an upper bound. ±: bootstrap standard error over "
        "networks.\n\n"
        f"{table(heads, lines)}\n\n"
        f"{machines_text(shown)}\n"
    )


# Command line ------------------------------------------------------------------------------------------


def handle(arguments: argparse.Namespace) -> int:
    """Train the missing networks and print the table."""
    run(
        list(WAYS) if arguments.ways is None else arguments.ways,
        networks=arguments.networks,
        images=arguments.images,
        out=arguments.out,
        data_root=find_root(arguments.data_root),
        progress=True,
    )
    rows = [row for path in sorted(arguments.out.glob("*.jsonl")) for row in read_rows(path)]
    text = report(rows, images=arguments.images)
    print_report(text, arguments.markdown)
    return 0
