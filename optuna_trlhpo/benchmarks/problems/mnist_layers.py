"""``mnist-layers``: sequences of layers from Table I, with accuracies of real trainings.

The table contains every network that `training_table` trained on the task ``mnist`` (2,000 training images, 4
epochs, 10,000 validation images, at most one million MACs), with its learning curve, parameters, MACs and
seconds. A surrogate predicts the accuracy of the other networks.
"""

from __future__ import annotations

import csv
import functools
import gzip
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from optuna.trial import Trial

from optuna_trlhpo.benchmarks.problems.problem import Form, Problem, Train
from optuna_trlhpo.benchmarks.problems.tasks import TASKS
from optuna_trlhpo.layers import ACTION_SLOTS, TABLE_I, Network, describe, parse
from optuna_trlhpo.space import LayerSpace

_FILE = "mnist-layers.csv.gz"
_COLUMNS = ("architecture", "seed", "accuracy", "curve", "parameters", "macs", "seconds")
_N_TREES = 100
_LEAST_IN_LEAF = 2


class TabulatedTraining(NamedTuple):
    """Result of one training."""

    architecture: str
    seed: int
    accuracy: float
    curve: tuple[float, ...]
    """Accuracies after each quarter of the training; the first three are on 1,000 validation images."""
    parameters: int
    macs: int
    seconds: float
    """Seconds of one CPU thread, including validation."""


def write_table(rows: Iterable[dict[str, Any]], path: Path) -> None:
    """Write rows of `training_table` as a compact table."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in sorted(rows, key=lambda row: (row["architecture"], row["seed"])):
        curve = " ".join(f"{value:g}" for value in row["curve"])
        writer.writerow([curve if name == "curve" else row[name] for name in _COLUMNS])
    with path.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(text.getvalue().encode())


def read_table(path: Path | None = None) -> list[TabulatedTraining]:
    """Read a table. None: the table in the package."""
    data = (
        (resources.files("optuna_trlhpo.benchmarks") / "data" / _FILE).read_bytes()
        if path is None
        else path.read_bytes()
    )
    rows = csv.DictReader(io.StringIO(gzip.decompress(data).decode()))
    return [
        TabulatedTraining(
            architecture=row["architecture"],
            seed=int(row["seed"]),
            accuracy=float(row["accuracy"]),
            curve=tuple(map(float, row["curve"].split())),
            parameters=int(row["parameters"]),
            macs=int(row["macs"]),
            seconds=float(row["seconds"]),
        )
        for row in rows
    ]


def by_network(table: Sequence[TabulatedTraining]) -> dict[str, list[float]]:
    """Return the accuracies of all trainings of each network, by its notation, in the order of the table."""
    accuracies: dict[str, list[float]] = defaultdict(list)
    for row in table:
        accuracies[row.architecture].append(row.accuracy)
    return accuracies


class TableSurrogate:
    """Surrogate that predicts the accuracy of any network of the space.

    It is a forest of randomised trees on the logarithm of the error. A forest averages observed values, so it
    never predicts a better value than the best observed one. In cross-validation on the 5,012 networks of the
    table (`cross_validated`), its rank correlation with the observed accuracy is .93; within the better half
    it is .84, and within the best tenth .45, where the noise of single trainings is as large as the
    differences.

    Args:
        table: Training data.
        space: Layer space of the networks.

    Attributes:
        networks: Distinct networks of the table.
        noise: Standard deviation of the logarithm of the error over repeated trainings of one network.
    """

    def __init__(self, table: Sequence[TabulatedTraining], space: LayerSpace) -> None:
        try:
            from sklearn.ensemble import ExtraTreesRegressor
        except ImportError as error:
            raise ImportError(
                'mnist-layers needs an optional extra: pip install "optuna-trlhpo[bench]"'
            ) from error
        self._space = space
        values = {network: list(map(_log_error, own)) for network, own in by_network(table).items()}
        self.networks = tuple(values)
        x = np.array([self._features(parse(architecture)) for architecture in self.networks], np.float32)
        y = np.array([np.mean(group) for group in values.values()])
        weights = np.array([len(group) for group in values.values()])
        forest = ExtraTreesRegressor(
            _N_TREES, min_samples_leaf=_LEAST_IN_LEAF, max_features=0.5, random_state=0
        )
        forest.fit(x, y, sample_weight=weights)
        self._trees = [tree.tree_ for tree in forest.estimators_]
        repeated = [group for group in values.values() if len(group) > 1 and np.mean(group) < math.log(0.3)]
        squares = sum(float(np.sum(np.square(np.subtract(group, np.mean(group))))) for group in repeated)
        self.noise = math.sqrt(squares / max(sum(len(group) - 1 for group in repeated), 1))

    def __call__(self, network: Network) -> float:
        """Return the expected logarithm of the error."""
        x = np.array([self._features(network)], np.float32)
        return float(np.mean([tree.predict(x)[0, 0] for tree in self._trees]))

    def _features(self, network: Network) -> np.ndarray:
        """Return the features of each layer and its output shape, and those of the whole network."""
        space = self._space
        n = space.max_layers
        layers = np.full((n, ACTION_SLOTS + 3), -1.0)
        layers[: len(network), :ACTION_SLOTS] = np.nan_to_num(space.encode(network), nan=-1.0)
        kinds = np.zeros((n, len(TABLE_I.kinds)))
        for k, (layer, shape) in enumerate(zip(network, space.shapes(network), strict=True)):
            kinds[k, TABLE_I.kind.values.index(layer.kind)] = 1
            size = shape[-1] if len(shape) == 3 else 0
            layers[k, ACTION_SLOTS:] = size, math.log(shape[0]), math.log(math.prod(shape))
        last = layers[len(network) - 1]
        whole = [len(network), math.log(space.macs(network)), *kinds.sum(axis=0), *last]
        return np.concatenate([layers.ravel(), kinds.ravel(), whole])


def cross_validated(
    table: Sequence[TabulatedTraining], space: LayerSpace, folds: int = 10
) -> tuple[float, float, float]:
    """Compute Spearman's rank correlations between observed accuracies and cross-validated predictions.

    ``python -m optuna_trlhpo.benchmarks.problems.mnist_layers`` prints them.

    Returns:
        The correlation over all networks, in the better half and in the best tenth.
    """
    from scipy import stats

    observed: dict[str, list[float]] = defaultdict(list)
    for row in table:
        observed[row.architecture].append(row.accuracy)
    networks = list(observed)
    fold = dict(zip(networks, np.random.default_rng(0).integers(folds, size=len(networks)), strict=True))
    predicted: dict[str, float] = {}
    for k in range(folds):
        surrogate = TableSurrogate([row for row in table if fold[row.architecture] != k], space)
        predicted |= {network: -surrogate(parse(network)) for network in networks if fold[network] == k}
    y, z = (np.array(x) for x in ([np.mean(observed[n]) for n in networks], [predicted[n] for n in networks]))
    best = [y >= np.quantile(y, q) for q in (0.0, 0.5, 0.9)]
    one, two, three = (float(stats.spearmanr(z[rows], y[rows])[0]) for rows in best)
    return one, two, three


class MnistLayers(Problem):
    """Layer-sequence problem with conditional parameters, in both forms.

    In the progressive form, every prefix of a network is trained and reported, and the paper's stop rules
    apply. In the terminal form, the depth is chosen first and the network is trained once. A training returns
    the accuracy of the surrogate plus noise as strong as that between repeated trainings.
    """

    name = "mnist-layers"
    forms: tuple[Form, ...] = ("progressive", "terminal")

    def __init__(self, table: Sequence[TabulatedTraining] | None = None) -> None:
        task = TASKS["mnist"]
        self.space = LayerSpace(
            input_shape=(1, task.resolution, task.resolution),
            num_classes=task.num_classes,
            max_macs=task.max_macs,
        )
        table = read_table() if table is None else table
        self.surrogate = TableSurrogate(table, self.space)
        x = np.array([self._costs(parse(row.architecture)) for row in table])
        self._of_costs = np.linalg.lstsq(x, np.log([row.seconds for row in table]), rcond=None)[0]
        self._median_seconds = float(np.median([row.seconds for row in table]))
        self._error = functools.lru_cache(maxsize=100_000)(self._log_error_of)
        best = min(self._error(network) for network in self.surrogate.networks)
        self.optimum = 1 - math.exp(best)

    def observe(self, network: str, rng: np.random.Generator) -> float:
        """Return the accuracy of the surrogate with noise on the logarithm of the error."""
        error = math.exp(self._error(network) + self.surrogate.noise * rng.standard_normal())
        return 1 - min(error, 0.95)

    def true_value(self, network: str) -> float:
        """Return the accuracy of the surrogate."""
        return 1 - math.exp(self._error(network))

    def seconds(self, network: str) -> float:
        """Return the seconds of one CPU thread, estimated from the MACs, weights and number of layers."""
        return math.exp(float(self._costs(parse(network)) @ self._of_costs))

    def median_seconds(self) -> float:
        """Return the median of the seconds in the table."""
        return self._median_seconds

    def _costs(self, network: Network) -> np.ndarray:
        counts = math.log(self.space.macs(network)), math.log(self.space.parameters(network))
        return np.array([*counts, len(network), 1.0])

    def play(self, form: Form, trial: Trial, train: Train) -> float:
        """Run one trial in one of the forms."""
        if form == "terminal":
            return train(describe(self.space.suggest(trial)))
        best = 0.0
        for layers in self.space.grow(trial):
            accuracy = train(describe(layers))
            trial.report(accuracy, step=len(layers) - 1)
            best = max(best, accuracy)
        return best

    def _log_error_of(self, network: str) -> float:
        return self.surrogate(parse(network))


class MnistLayersVariant(Problem):
    """The networks of ``mnist-layers`` with their values, noise and optimum, asked for in another way.

    Args:
        inner: Problem that provides the networks and their values. None creates one, which takes seconds.
    """

    forms: tuple[Form, ...] = ("progressive", "terminal")

    def __init__(self, inner: MnistLayers | None = None) -> None:
        self._inner = MnistLayers() if inner is None else inner
        self.space = self._inner.space
        self.optimum = self._inner.optimum

    def observe(self, network: str, rng: np.random.Generator) -> float:
        """Return a noisy value of a network, as ``mnist-layers`` does."""
        return self._inner.observe(network, rng)

    def true_value(self, network: str) -> float:
        """Return the value of a network without noise, as ``mnist-layers`` does."""
        return self._inner.true_value(network)

    def seconds(self, network: str) -> float:
        """Return the seconds of a training, as ``mnist-layers`` does."""
        return self._inner.seconds(network)

    def median_seconds(self) -> float:
        """Return the median of the seconds, as ``mnist-layers`` does."""
        return self._inner.median_seconds()


def _log_error(accuracy: float) -> float:
    return math.log(max(1 - accuracy, 1e-3))


if __name__ == "__main__":
    print(
        "rank correlation {:.3f}, better half {:.3f}, best tenth {:.3f}".format(
            *cross_validated(read_table(), TASKS["mnist"].space)
        )
    )
