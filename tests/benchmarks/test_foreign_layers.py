"""The foreign form of mnist-layers: the same networks as those of its LayerSpace, under names of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from optuna_trlhpo.benchmarks.problems import tables
from optuna_trlhpo.layers import FCL, Conv, MaxPool, Network, describe, hyperparameter_of, parse
from optuna_trlhpo.space import LayerSpace

pytest.importorskip("sklearn", reason="needs scikit-learn (the extra 'bench')")

NAMES = {
    Conv: {"width": "filters", "ksize": "kernel", "stride": "stride"},
    MaxPool: {"window": "kernel", "hop": "stride", "pad": "padding"},
    FCL: {"act": "activation", "bias": "bias", "units": "neurons"},
}
OPERATIONS = {Conv: "conv", MaxPool: "pool", FCL: "fc"}


class Scripted:
    """Answers with a network, layer by layer, and notes what it was asked."""

    def __init__(self, network: Network, depth: int | None = None) -> None:
        self.network = network
        self.depth = len(network) if depth is None else depth
        self.asked: dict[str, Sequence[Any]] = {}
        self.reports: list[float] = []

    def _answer(self, name: str, choices: Sequence[Any]) -> Any:
        assert name not in self.asked
        self.asked[name] = choices
        if name == "n_blocks":
            return self.depth
        stem, _, place = name.rpartition("_")
        layer = self.network[int(place)]
        value = (
            OPERATIONS[type(layer)] if stem.startswith("op_") else getattr(layer, NAMES[type(layer)][stem])
        )
        assert value in choices, f"{name} cannot be {value}, only {choices}"
        return value

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> Any:
        return self._answer(name, range(low, high + 1, step))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._answer(name, choices)

    def report(self, value: float, step: int) -> None:
        assert step == len(self.reports)
        self.reports.append(value)


class Recorder:
    """Trains nothing: gives the values that it was made with, and remembers the networks."""

    def __init__(self, values: Iterable[float]) -> None:
        self.values = iter(values)
        self.networks: list[str] = []

    def __call__(self, network: str) -> float:
        self.networks.append(network)
        return next(self.values)


@pytest.fixture(scope="module")
def foreign():
    return tables.load("mnist-layers-foreign")


@pytest.mark.slow
def test_every_network_of_the_space_is_reached(foreign) -> None:
    rng = np.random.default_rng(2000)
    networks = [foreign.space.draw(rng) for _ in range(300)]
    for network in networks:
        train = Recorder([0.9])
        foreign.play("terminal", Scripted(network), train)
        assert train.networks == [describe(network)]
        train = Recorder(np.linspace(0.7, 0.8, len(network)))
        if len(network) < 6 and foreign.space.kinds(network):
            continue
        foreign.play("progressive", Scripted(network), train)
        assert train.networks == [describe(network[: k + 1]) for k in range(len(network))]
    assert {len(network) for network in networks} == {1, 2, 3, 4, 5, 6}


@pytest.mark.slow
def test_no_other_network_is_reached(foreign) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(2000), direction="maximize")
    for form in ("terminal", "progressive"):
        train = Recorder(itertools.repeat(0.5))
        for _ in range(150):
            foreign.play(form, study.ask(), train)
        for network in map(parse, train.networks):
            foreign.space.check(network)
    assert len(set(train.networks)) > 50


def test_as_many_choices_are_left_as_in_the_space(foreign) -> None:
    rng = np.random.default_rng(2001)
    for _ in range(50):
        network = foreign.space.draw(rng)
        trial = Scripted(network)
        foreign.play("terminal", trial, Recorder([0.9]))
        for i, layer in enumerate(network):
            kinds = foreign.space.kinds(network[:i])
            names = sorted(OPERATIONS[kind] for kind in kinds)
            name = f"op_{'_'.join(names)}_{i}"
            assert (list(trial.asked[name]) == names) if len(names) > 1 else (name not in trial.asked)
            values: list[Any] = []
            for hp in type(layer).hyperparameters:
                stem = next(stem for stem, own in NAMES[type(layer)].items() if own == hp.name)
                allowed = foreign.space.allowed(network[:i], type(layer), *values)
                assert set(trial.asked[f"{stem}_{i}"]) == set(allowed)
                values.append(getattr(layer, hp.name))


def test_names_and_values_are_those_of_a_pipeline(foreign, monkeypatch) -> None:
    for method in ("grow", "suggest"):
        monkeypatch.setattr(LayerSpace, method, lambda *_, **__: pytest.fail("the trial met the space"))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(2000), direction="maximize")
    seen: dict[str, BaseDistribution] = {}
    for _ in range(100):
        trial = study.ask()
        foreign.play("terminal", trial, Recorder([0.9]))
        seen |= trial.distributions
    assert study.user_attrs == {}
    assert all(hyperparameter_of(name, distribution) is None for name, distribution in seen.items())
    assert next(iter(seen)) == "n_blocks" and "op_conv_fc_pool_1" in seen
    assert not any(name.startswith("op_") and name.endswith("_0") for name in seen)
    kernels = [value for name, value in seen.items() if name.startswith("ksize_")]
    assert all(isinstance(it, IntDistribution) and it.low >= 3 and it.step == 2 for it in kernels)
    assert seen["bias_1"] == CategoricalDistribution((True, False))


@pytest.mark.parametrize(
    ("values", "n_trained", "best"),
    [
        ([0.7, 0.8, 0.9, 0.91, 0.92, 0.93], 6, 0.93),
        ([0.7, 0.8, 0.8005], 3, 0.8005),  # too small a gain
        ([0.7, 0.801, 0.75], 3, 0.801),
        ([0.55], 1, 0.55),  # too bad
    ],
)
def test_the_stop_rules_are_those_of_mnist_layers(foreign, values, n_trained, best) -> None:
    network = parse(" > ".join(["Conv(8,3,1)", "MaxPool(2,2,0)", *["FCL(64,relu,bias)"] * 4]))
    foreign.space.check(network)
    trial, train = Scripted(network), Recorder(values)
    assert foreign.play("progressive", trial, train) == best
    assert len(train.networks) == n_trained and trial.reports == values
    assert "n_blocks" not in trial.asked


def test_a_network_that_cannot_grow_ends_before_its_depth(foreign) -> None:
    rng = np.random.default_rng(2002)
    draws = (foreign.space.draw(rng) for _ in range(2000))
    network = next(it for it in draws if len(it) < 6 and not foreign.space.kinds(it))
    train = Recorder([0.9])
    foreign.play("terminal", Scripted(network, depth=6), train)
    assert train.networks == [describe(network)]


def test_values_are_those_of_mnist_layers(foreign) -> None:
    original = tables.load("mnist-layers")
    assert (foreign.optimum, foreign.unit, foreign.forms) == (
        original.optimum,
        original.unit,
        original.forms,
    )
    network = "Conv(32,5,2) > FCL(64,relu,bias)"
    for seed in (2000, 2001):
        mine, theirs = (it.objective("terminal", seed, 1).evaluator for it in (foreign, original))
        assert mine.train(network) == theirs.train(network)
        assert mine.curve == theirs.curve
