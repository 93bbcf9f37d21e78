"""The box of mnist-layers: every point is a network of the space, and every network is a point."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution

from optuna_trlhpo.benchmarks.problems import tables
from optuna_trlhpo.layers import Network, describe, parse

pytest.importorskip("sklearn", reason="needs scikit-learn (the extra 'bench')")


class Recorder:
    """Returns given values in place of trainings, and records the networks."""

    def __init__(self, values: Iterable[float]) -> None:
        self.values = iter(values)
        self.networks: list[str] = []

    def __call__(self, network: str) -> float:
        self.networks.append(network)
        return next(self.values)


@pytest.fixture(scope="module")
def box():
    return tables.load("mnist-layers-box")


def play(box, form, params, values):
    """Return the trial of one point of the box, the recorder, and the value."""
    study = optuna.create_study(direction="maximize")
    study.enqueue_trial(params)
    trial, train = study.ask(), Recorder(values)
    return trial, train, box.play(form, trial, train)


def point(box, network: Network) -> dict[str, float]:
    """Return the numbers of a network; those of layers that it lacks are .5."""
    actions = np.full((box.space.max_layers, 4), 0.5)
    actions[: len(network)] = box.space.encode(network)
    return {f"layer{k + 1}_action{i}": actions[k, i] for k in range(len(actions)) for i in range(4)}


def test_parameters_are_the_same_in_every_trial(box) -> None:
    for form, depth in (("terminal", {"depth": IntDistribution(1, 6)}), ("progressive", {})):
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(2000), direction="maximize")
        numbers = {f"layer{k}_action{i}": FloatDistribution(0, 1) for k in range(1, 7) for i in range(4)}
        for _ in range(20):
            trial = study.ask()
            box.play(form, trial, Recorder(itertools.repeat(0.5)))
            assert trial.distributions == {**depth, **numbers}


def test_every_network_of_the_space_is_a_point(box) -> None:
    rng = np.random.default_rng(2000)
    for _ in range(50):
        network = box.space.draw(rng)
        _, train, value = play(box, "terminal", {**point(box, network), "depth": len(network)}, [0.9])
        assert (train.networks, value) == ([describe(network)], 0.9)


def test_every_point_is_a_network_of_the_space(box) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(2001), direction="maximize")
    train = Recorder(itertools.repeat(0.5))
    for _ in range(50):
        box.play("terminal", study.ask(), train)
    for network in map(parse, train.networks):
        box.space.check(network)
    assert {len(parse(network)) for network in train.networks} == {1, 2, 3, 4, 5, 6}


NETWORK = "Conv(8,3,1) > Conv(8,3,1) > MaxPool(2,2,0) > FCL(32,relu,bias)"


@pytest.mark.parametrize(
    ("values", "trained", "best"),
    [
        ([0.7, 0.8, 0.85, 0.8505], 4, 0.8505),  # the last gain is below .001
        ([0.59], 1, 0.59),
        ([0.7, 0.65], 2, 0.7),
    ],
)
def test_prefixes_are_trained_until_a_stop_rule_applies(box, values, trained, best) -> None:
    network = parse(NETWORK)
    trial, train, value = play(box, "progressive", point(box, network), values)
    assert train.networks == [describe(network[: k + 1]) for k in range(trained)]
    assert value == best
    reports = trial.study.get_trials(deepcopy=False)[0].intermediate_values
    assert reports == dict(enumerate(values))


def test_networks_are_worth_what_they_are_in_mnist_layers(box) -> None:
    inner = tables.load("mnist-layers")
    rng = (np.random.default_rng(1), np.random.default_rng(1))
    assert box.observe(NETWORK, rng[0]) == inner.observe(NETWORK, rng[1])
    assert box.true_value(NETWORK) == inner.true_value(NETWORK)
    assert (box.optimum, box.seconds(NETWORK), box.median_seconds()) == (
        inner.optimum,
        inner.seconds(NETWORK),
        inner.median_seconds(),
    )
