"""Layers -> modules: shapes, activations, and the one error."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from optuna_trlhpo.cnn.model import (
    IllegalNetworkError,
    build_network,
    classifier_modules,
    layer_modules,
)
from optuna_trlhpo.layers import ACTIVATIONS, FCL, Conv, activation, describe, parse
from optuna_trlhpo.space import LayerSpace


def test_the_modules_of_a_network() -> None:
    network = build_network(parse("Conv(32,5,2) > MaxPool(3,2,1) > FCL(16,tanh,nobias)"), (3, 28, 28), 10)
    conv, relu, pool, flatten, linear, tanh, classifier = network
    assert isinstance(conv, nn.Conv2d) and isinstance(pool, nn.MaxPool2d) and isinstance(linear, nn.Linear)
    assert (conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride) == (3, 32, (5, 5), (2, 2))
    assert (pool.kernel_size, pool.stride, pool.padding) == (3, 2, 1)
    assert (linear.in_features, linear.bias) == (32 * 6 * 6, None)
    assert [type(m) for m in (relu, flatten, tanh)] == [nn.ReLU, nn.Flatten, nn.Tanh]
    assert isinstance(classifier, nn.Linear) and classifier.bias is not None
    assert (classifier.in_features, classifier.out_features) == (16, 10)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_follow_convolutions_and_fully_connected_layers(name: str) -> None:
    layers = [Conv(8, 3, 1), FCL(16, name, True)]
    kinds = [type(m) for m in build_network(layers, (1, 8, 8), 10, conv_activation=name)]
    after = [type(module) for module in activation(name)]
    assert len(after) == (name != "none")
    assert kinds == [nn.Conv2d, *after, nn.Flatten, nn.Linear, *after, nn.Linear]


def test_without_activation_two_convolutions_are_linear() -> None:
    network = build_network(
        parse("Conv(8,3,1) > Conv(8,3,1)"), (1, 8, 8), 10, conv_activation="none"
    ).double()
    x, y, zero = torch.rand(2, 1, 1, 8, 8, dtype=torch.double).unbind() + (torch.zeros(1, 1, 8, 8).double(),)
    torch.testing.assert_close(network(x + y) + network(zero), network(x) + network(y))


def test_no_layers_leave_the_classifier() -> None:
    assert [type(m) for m in build_network([], (1, 8, 8), 3)] == [nn.Flatten, nn.Linear]


@pytest.mark.parametrize("input_shape", [(1, 8, 8), (3, 17, 12), (1, 28, 28)])
def test_random_networks_have_the_shapes_of_the_space(input_shape: tuple[int, int, int]) -> None:
    space, rng = LayerSpace(input_shape=input_shape, num_classes=7, max_macs=3e5), np.random.default_rng(0)
    for _ in range(20):
        layers = space.decode(rng.random((6, 4)))
        x = torch.zeros(2, *input_shape)
        for layer, before, after in zip(
            layers, (input_shape, *space.shapes(layers)), space.shapes(layers), strict=False
        ):
            x = nn.Sequential(*layer_modules(layer, before))(x)
            assert x.shape == (2, *after), describe(layers)
        assert nn.Sequential(*classifier_modules(after, 7))(x).shape == (2, 7)
        assert build_network(layers, input_shape, 7)(torch.zeros(2, *input_shape)).shape == (2, 7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Conv(8,5,1) > Conv(16,7,1)", r"layer 2, Conv\(16,7,1\), does not fit on shape \(8, 4, 4\)"),
        ("FCL(16,relu,bias) > MaxPool(2,2,0)", r"layer 2, MaxPool\(2,2,0\), does not fit on shape \(16,\)"),
        ("MaxPool(2,1,3)", r"layer 1, MaxPool\(2,1,3\), does not fit on shape \(1, 8, 8\)"),
    ],
)
def test_an_illegal_network_names_the_layer_and_the_shape(text: str, message: str) -> None:
    with pytest.raises(IllegalNetworkError, match=message):
        build_network(parse(text), (1, 8, 8), 10)


def test_an_unknown_activation_is_named() -> None:
    with pytest.raises(ValueError, match="conv_activation is 'swish'; it must be one of none, relu"):
        build_network([], (1, 8, 8), 10, conv_activation="swish")


class _Swish(FCL):
    def __str__(self) -> str:  # an activation outside Table I cannot be written by FCL itself
        return "FCL(16,swish)"


def test_an_unknown_activation_of_a_layer_is_named() -> None:
    with pytest.raises(ValueError, match="activation 'swish' is not one of none, relu"):
        build_network([_Swish(16, "swish", True)], (1, 8, 8), 10)
