"""Parameters and MACs against sums worked out by hand, and against the space's own arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from optuna_trlhpo.cnn.cost import count_macs, count_parameters
from optuna_trlhpo.cnn.model import build_network
from optuna_trlhpo.layers import describe, parse
from optuna_trlhpo.space import LayerSpace


@pytest.mark.parametrize(
    ("text", "parameters", "macs"),
    [
        # (8, 6, 6): 8 filters of 9 weights at 36 places; then 288 -> 10.
        ("Conv(8,3,1)", 8 * 9 + 8 + 288 * 10 + 10, 36 * 8 * 9 + 288 * 10),
        # stride 2: (16, 3, 3)
        ("Conv(16,3,2)", 16 * 9 + 16 + 144 * 10 + 10, 9 * 16 * 9 + 144 * 10),
        # pooling to (8, 3, 3) is free
        ("Conv(8,3,1) > MaxPool(2,2,0)", 80 + 72 * 10 + 10, 2592 + 72 * 10),
        # a second convolution sees 8 channels: (24, 2, 2)
        ("Conv(8,3,1) > Conv(24,5,1)", 80 + 24 * 8 * 25 + 24 + 970, 2592 + 4 * 24 * 8 * 25 + 960),
        ("Conv(8,3,1) > FCL(16,relu,bias)", 80 + 288 * 16 + 16 + 170, 2592 + 288 * 16 + 160),
        ("Conv(8,3,1) > FCL(16,gelu,nobias)", 80 + 288 * 16 + 170, 2592 + 288 * 16 + 160),
    ],
)
def test_costs_by_hand(text: str, parameters: int, macs: int) -> None:
    network = build_network(parse(text), (1, 8, 8), 10)
    assert count_parameters(network) == parameters
    assert count_macs(network, (1, 8, 8)) == macs
    assert LayerSpace(input_shape=(1, 8, 8)).macs(parse(text)) == macs


@pytest.mark.parametrize("input_shape", [(1, 28, 28), (3, 15, 20)])
def test_macs_equal_those_of_the_space(input_shape: tuple[int, int, int]) -> None:
    space, rng = LayerSpace(input_shape=input_shape, num_classes=7), np.random.default_rng(1)
    for _ in range(20):
        layers = space.decode(rng.random((rng.integers(1, 7), 4)))
        with torch.device("meta"):
            network = build_network(layers, input_shape, 7)
        assert count_macs(network, input_shape) == space.macs(layers), describe(layers)


def test_counting_leaves_the_network_as_it_is() -> None:
    network = build_network(parse("Conv(8,3,1)"), (1, 8, 8), 10).train()
    before = [p.clone() for p in network.parameters()]
    count_macs(network, (1, 8, 8))
    assert network.training
    assert all(
        p.device.type == "cpu" and p.equal(b) for p, b in zip(network.parameters(), before, strict=True)
    )
