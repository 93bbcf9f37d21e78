"""All networks of a space in random order, as they are looked through when nearly all have been tried."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from optuna_trlhpo import LayerSpace
from optuna_trlhpo.layers import Layer, Network

SMALL = {
    "one layer": LayerSpace(max_layers=1, max_parameters=30_000),
    "few parameters": LayerSpace(input_shape=(1, 6, 6), max_layers=2, max_parameters=500),
    "few MACs": LayerSpace(input_shape=(1, 5, 5), max_layers=2, max_macs=3_000),
    "two limits": LayerSpace(input_shape=(1, 8, 8), max_layers=3, max_parameters=400, max_macs=6_000),
}


def layers_after(space: LayerSpace, before: Network) -> list[Layer]:
    found: list[Layer] = []
    for cls in space.kinds(before):
        chosen: list[tuple[object, ...]] = [()]
        for _ in cls.hyperparameters:
            chosen = [(*some, value) for some in chosen for value in space.allowed(before, cls, *some)]
        found += [cls(*values) for values in chosen]
    return found


def all_networks(space: LayerSpace) -> set[Network]:
    """Layer by layer, in their order."""
    found: set[Network] = set()
    deeper: list[Network] = [()]
    while deeper:
        deeper = [(*before, layer) for before in deeper for layer in layers_after(space, before)]
        found.update(network for network in deeper if space.fits(network))
    return found


@pytest.mark.parametrize("name", SMALL)
def test_none_is_missing_and_none_is_foreign(name: str) -> None:
    space = SMALL[name]
    found = set(space.every_network(np.random.default_rng(0))) - {()}
    assert found == all_networks(space)
    assert len(found) > 10


def test_the_order_is_random_and_the_seeds() -> None:
    space = SMALL["few parameters"]

    def first(seed: int) -> list[Network]:
        return [*itertools.islice(space.every_network(np.random.default_rng(seed)), 20)]

    assert first(0) == first(0) != first(1)


class Nothing(LayerSpace):
    """A space in which no network is within all limits, though each layer is."""

    def fits(self, layers: Sequence[Layer]) -> bool:
        return False


def test_dead_ends_do_not_keep_a_caller_waiting() -> None:
    networks = Nothing(max_layers=8).every_network(np.random.default_rng(0))
    assert [*itertools.islice(networks, 200)] == [()] * 200
