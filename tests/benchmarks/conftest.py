"""A problem small enough to be checked by hand, and a way to have the runner know it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from optuna.trial import Trial

from optuna_trlhpo.benchmarks.problems import tables
from optuna_trlhpo.benchmarks.problems.problem import Form, Problem, Train


class Toy(Problem):
    """Networks are the digits 0 to 9, and truly worth a tenth of them; noise is in [0, 0.01)."""

    name = "toy"
    forms: tuple[Form, ...] = ("progressive", "terminal")
    optimum = 0.9

    def true_value(self, network: str) -> float:
        return int(network) / 10

    def observe(self, network: str, rng: np.random.Generator) -> float:
        return self.true_value(network) + 0.01 * rng.random()

    def play(self, form: Form, trial: Trial, train: Train) -> float:
        value = train(str(trial.suggest_int("digit", 0, 9)))
        if form == "progressive":
            trial.report(value, step=0)
        return value


@pytest.fixture
def data_root() -> Path:
    """The folder that holds nas-bench-macro."""
    shared = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(os.environ.get(tables.DATA_ROOT_VARIABLE, shared))
    if not (folder / "nas-bench-macro").exists():
        pytest.skip(
            f"no nas-bench-macro in {folder}; set {tables.DATA_ROOT_VARIABLE} to the folder that holds it"
        )
    return folder


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Toy]:
    """The toy; while it lives, it is the only problem there is."""
    problem = Toy()
    monkeypatch.setattr(tables, "problems", lambda data_root=None: {"toy": lambda: problem})
    tables.load.cache_clear()
    yield problem
    tables.load.cache_clear()
