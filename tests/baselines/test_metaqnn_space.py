"""`MetaQNNSpace`: the constraints of the paper, names, networks, and the modules that they become."""

import itertools

import numpy as np
import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optuna_trlhpo.baselines import MetaQNNSpace
from optuna_trlhpo.baselines.q_learning.metaqnn_space import PaddedConv, RisingDropout, with_dropout
from optuna_trlhpo.cnn import build_network
from optuna_trlhpo.layers import FCL, Layer, MaxPool
from optuna_trlhpo.layers.counting import count_macs
from optuna_trlhpo.layers.kinds import GlobalPool


class Choosing:
    """A trial that notes what it is offered, and takes what a function says."""

    def __init__(self, choose):
        self.choose = choose
        self.offered = {}
        self.params = {}

    def suggest_categorical(self, name, choices):
        self.offered[name] = list(choices)
        self.params[name] = self.choose(list(choices))
        return self.params[name]


def at_random(seed):
    rng = np.random.default_rng(seed)
    return lambda choices: choices[rng.integers(len(choices))]


def deep(seed):
    """Never ends by itself while there is anything else."""
    rng = np.random.default_rng(seed)

    def choose(choices):
        others = [it for it in choices if it not in ("end", "GlobalPool()")]
        return others[rng.integers(len(others))] if others else "end"

    return choose


def played(space, choose):
    trial = Choosing(choose)
    return space.suggest(trial), trial


@given(st.integers(0, 10**6), st.integers(1, 40), st.sampled_from([at_random, deep]))
@settings(max_examples=200)
def test_the_constraints_of_the_paper(seed, size, how):
    space = MetaQNNSpace(input_shape=(3, size, size + 2))
    network, _ = played(space, how(seed))
    layers = [layer for layer in network if not isinstance(layer, RisingDropout | GlobalPool)]
    assert len(layers) <= 12
    shape = space.input_shape
    for before, layer in itertools.pairwise([None, *layers]):
        side = min(shape[1:], default=0)
        match layer:
            case PaddedConv(filters, kernel):
                assert filters in (64, 128, 256, 512) and kernel in (1, 3, 5) and kernel < side
                assert not isinstance(before, FCL)
            case MaxPool(kernel, stride, padding):
                assert (kernel, stride) in ((5, 3), (3, 2), (2, 2)) and padding == 0
                assert isinstance(before, PaddedConv)  # none first, and none behind another
            case FCL(neurons, activation, bias):
                assert neurons in (512, 256, 128) and activation == "relu" and bias
                assert isinstance(before, FCL) or side < 8
                assert not isinstance(before, FCL) or neurons <= before.neurons
            case _:
                raise AssertionError(layer)
        shape = layer.output_shape(shape)
        assert shape is not None
    assert sum(isinstance(layer, FCL) for layer in layers) <= 2
    dropouts = [layer.probability for layer in network if isinstance(layer, RisingDropout)]
    assert len(dropouts) == len(layers) // 2
    assert dropouts == [(i + 1) / (2 * len(dropouts)) for i in range(len(dropouts))]
    assert not any(isinstance(layer, GlobalPool) for layer in network[:-1])


def test_what_is_offered_at_each_point():
    space, ends = MetaQNNSpace(input_shape=(1, 28, 28)), ["end", "GlobalPool()"]
    _, trial = played(space, deep(0))
    first = trial.offered["layer1_metaqnn_large_start"]
    assert len(first) == 12 + 2 and set(ends) < set(first)
    offered: dict[str, list[str]] = {}
    for seed in range(300):
        for size in (28, 9, 7, 4, 3):
            _, trial = played(MetaQNNSpace(input_shape=(1, size, size)), deep(seed))
            for name, choices in trial.offered.items():
                offered.setdefault(name, choices)
                assert offered[name] == choices  # Optuna allows a name one set of choices
    counts = {name.partition("metaqnn_")[2]: len(choices) for name, choices in offered.items()}
    assert counts == {
        "large_start": 12 + 2,
        "large_conv": 12 + 3 + 2,
        "large_pool": 12 + 2,
        "medium_start": 8 + 3 + 2,
        "medium_conv": 8 + 2 + 3 + 2,
        "medium_pool": 8 + 3 + 2,
        "small_start": 3 + 2,
        "small_pool": 3 + 2,
        "dense_512": 3 + 1,
        "dense_256": 2 + 1,
        "dense_128": 1 + 1,
    }


def test_the_limit_on_layers():
    lengths = set()
    for seed in range(50):
        network, _ = played(MetaQNNSpace(max_layers=4), deep(seed))
        lengths.add(sum(not isinstance(layer, RisingDropout) for layer in network))
    assert lengths == {4}
    network, trial = played(MetaQNNSpace(max_layers=1), lambda choices: choices[1])
    assert network == (PaddedConv(64, 1),) and list(trial.params) == ["layer1_metaqnn_large_start"]


def test_a_network_is_read_from_parameters():
    space = MetaQNNSpace(input_shape=(1, 12, 12))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(40):
        trial = study.ask()
        trial.suggest_float("lr", 0, 1)
        network = space.suggest(trial)
        assert space.from_params(trial.params) == network
        study.tell(trial, 0.0)
        assert space.suggest(study.trials[-1]) == network
    with pytest.raises(ValueError, match="layer1_metaqnn_large_start"):
        space.from_params({})
    with pytest.raises(ValueError, match="'Conv' not in "):
        space.from_params({"layer1_metaqnn_large_start": "Conv"})


@pytest.mark.parametrize(
    "sampler", [optuna.samplers.TPESampler(seed=0), optuna.samplers.NSGAIISampler(seed=0)]
)
def test_any_sampler_plays_it(sampler):
    space = MetaQNNSpace()
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(lambda trial: len(space.suggest(trial)), n_trials=30)
    assert len(study.trials) == 30


def test_networks_are_pytorch_modules():
    for seed in range(6):
        space = MetaQNNSpace(input_shape=(3, 16, 14), max_layers=6)
        network, _ = played(space, deep(seed))
        model = build_network(network, space.input_shape, num_classes=5)
        assert model(torch.zeros(2, 3, 16, 14)).shape == (2, 5)
    assert build_network((GlobalPool(),), (3, 8, 8), 5)(torch.zeros(2, 3, 8, 8)).shape == (2, 5)


@pytest.mark.parametrize("layer", [PaddedConv(64, 1), PaddedConv(128, 5), RisingDropout(1, 3)])
def test_costs_are_those_of_the_modules(layer: Layer):
    shape = (3, 9, 7)
    body = torch.nn.Sequential(*layer.modules(shape))
    assert layer.macs(shape) == count_macs(body, shape)
    assert layer.parameters(shape) == sum(weight.numel() for weight in body.parameters())
    assert tuple(body(torch.zeros(1, *shape)).shape[1:]) == layer.output_shape(shape)


def test_dropout_rises_to_a_half():
    network = with_dropout((PaddedConv(64, 3),) * 7)
    kept = [layer for layer in network if isinstance(layer, RisingDropout)]
    assert [layer.probability for layer in kept] == pytest.approx([1 / 6, 1 / 3, 1 / 2])
    assert [k for k, layer in enumerate(network) if isinstance(layer, RisingDropout)] == [2, 5, 8]
    dropped = (
        (torch.nn.Sequential(*kept[2].modules((64, 8, 8)))(torch.ones(4, 64, 8, 8)) == 0).double().mean()
    )
    assert 0.4 < float(dropped) < 0.6


@pytest.mark.parametrize(
    ("name", "value"),
    [("input_shape", (28, 28)), ("input_shape", (1, 0, 28)), ("max_layers", 0), ("max_layers", 201)],
)
def test_bad_arguments_are_named(name, value):
    with pytest.raises(ValueError, match=f"{name} is .*; it must be"):
        MetaQNNSpace(**{name: value})
