"""Results of `CompressObjective`: the original network, and networks compared on the test images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from optuna_trlhpo.cnn.compress.scores import interval, score_of
from optuna_trlhpo.cnn.text_table import aligned

RELATIVE = ("parameters", "macs", "bytes", "train_seconds", "inference_seconds")
"""Costs that are given relative to those of the original network, too."""


@dataclass(frozen=True, eq=False)
class OriginalNetwork:
    """The original network, trained as those of the trials are.

    Attributes:
        network: Trained network, in evaluation mode.
        accuracy: Score on the validation images: accuracy, or mean IoU for label maps.
        parameters: Number of weights and biases.
        macs: Multiply-accumulates for one image.
        bytes: Size of its weights and buffers.
        train_seconds: Duration of its training. None if it came trained.
        inference_seconds: Median latency of one pass.
    """

    network: nn.Module
    accuracy: float
    parameters: int
    macs: int
    bytes: int
    train_seconds: float | None
    inference_seconds: float

    def relative(self, costs: Mapping[str, float]) -> dict[str, float]:
        """Return costs of another network relative to those of this one, for those that are known."""
        found = {}
        for name in RELATIVE:
            own = getattr(self, name)
            if own and name in costs:
                found[name] = round(costs[name] / own, 6)
        return found


@dataclass(frozen=True, eq=False)
class TestedNetwork:
    """A network on the test images, which `CompressObjective.compare` reads once.

    Attributes:
        name: ``"original"``, or the trial.
        values: Widths and kernels.
        networks: The network of each training, in evaluation mode.
        scores: Score of each training: accuracy, or mean IoU for label maps.
        accuracy: Mean of the scores.
        accuracy_interval: 95 % interval of the mean score; see `optuna_trlhpo.cnn.compress.scores.interval`.
        gain: Mean score less that of the original network.
        gain_interval: 95 % interval of the gain, on the same images.
        parameters: Number of weights and biases.
        macs: Multiply-accumulates for one image.
        bytes: Size of weights and buffers.
        train_seconds: Median duration of a training. None if the network came trained.
        inference_seconds: Median latency of one pass.
    """

    name: str
    values: Mapping[str, int]
    networks: tuple[nn.Module, ...]
    scores: tuple[float, ...]
    accuracy: float
    accuracy_interval: tuple[float, float]
    gain: float
    gain_interval: tuple[float, float]
    parameters: int
    macs: int
    bytes: int
    train_seconds: float | None
    inference_seconds: float

    __test__ = False  # no test of pytest


class CompressionTest(list[TestedNetwork]):
    """The original network and compressed ones on the test images. ``print`` shows a table.

    Examples:
        ```python
        tested = objective.compare(study)
        print(tested)
        tested[1].gain_interval
        ```
    """

    def __str__(self) -> str:
        heads = ("network", "accuracy", "95 % interval", "gain", "95 % interval", "parameters", "size")
        rows = [(*heads, "training", "time", "inference", "time")]
        first = self[0]
        for row in self:
            own = f"{row.accuracy:.4f}", "{:.4f} to {:.4f}".format(*row.accuracy_interval)
            gain = ("", "")
            if row is not first:
                gain = f"{row.gain:+.4f}", "{:+.4f} to {:+.4f}".format(*row.gain_interval)
            train = "-" if row.train_seconds is None else f"{row.train_seconds:.2f} s"
            costs = (
                *(f"{row.parameters:,}", _share(row.bytes, first.bytes)),
                *(train, _share(row.train_seconds, first.train_seconds)),
                f"{1e3 * row.inference_seconds:.3f} ms",
                _share(row.inference_seconds, first.inference_seconds),
            )
            rows.append((row.name, *own, *gain, *costs))
        return aligned(rows, left={0})


def tested_network(
    name: str,
    values: Mapping[str, int],
    networks: Sequence[nn.Module],
    tables: Sequence[np.ndarray],
    originals: Sequence[np.ndarray],
    costs: Mapping[str, int],
    seconds: Sequence[float],
    measure: Callable[[nn.Module], float],
) -> TestedNetwork:
    """Return the result of a network.

    Args:
        name: ``"original"``, or the trial.
        values: Widths and kernels.
        networks: The network of each training.
        tables: Table of `score_table` on the test images of each training.
        originals: The same of the original network.
        costs: Its ``parameters``, ``macs`` and ``bytes``.
        seconds: Duration of each training. Empty if the network came trained.
        measure: Returns the latency of a network.
    """
    scores = tuple(map(score_of, tables))
    base = float(np.mean([score_of(table) for table in originals]))
    return TestedNetwork(
        name=name,
        values=dict(values),
        networks=tuple(networks),
        scores=scores,
        accuracy=float(np.mean(scores)),
        accuracy_interval=interval(tables),
        gain=float(np.mean(scores)) - base,
        gain_interval=interval(tables, originals),
        parameters=costs["parameters"],
        macs=costs["macs"],
        bytes=costs["bytes"],
        train_seconds=float(np.median(seconds)) if len(seconds) else None,
        inference_seconds=measure(networks[-1]),
    )


def _share(part: float | None, whole: float | None) -> str:
    return "-" if part is None or not whole else f"{100 * part / whole:.1f} %"
