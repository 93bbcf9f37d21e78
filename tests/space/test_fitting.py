"""Which values a hyper-parameter may take: those with which some layer fits, one layer after the other."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from optuna_trlhpo import LayerSpace
from optuna_trlhpo.kinds import CNN, LSTM, MLP
from optuna_trlhpo.layers import Layer
from optuna_trlhpo.space.limits import Position

SPACES: dict[str, dict[str, Any]] = {
    "no limit": dict(),
    "MACs": dict(max_macs=3e5),
    "parameters": dict(max_parameters=5000),
    "activations": dict(max_activation_bytes=9000),
    "all": dict(max_macs=1e6, max_parameters=8000, max_activation_bytes=20_000, narrowing=True),
    "CNN": dict(max_macs=1e6, max_parameters=8000, max_layers=8, vocabulary=CNN),
    "CNN, activations": dict(max_activation_bytes=9000, vocabulary=CNN),
    "colours": dict(input_shape=(3, 20, 20), max_macs=2e6, max_parameters=3000, vocabulary=CNN),
    "LSTM": dict(input_shape=(20, 3), max_parameters=4000, vocabulary=LSTM),
    "MLP": dict(input_shape=(20,), max_parameters=4000, narrowing=True, vocabulary=MLP),
}


def one_by_one(cls: type[Layer], chosen: tuple[Any, ...], position: Position) -> tuple[Any, ...]:
    hp, *rest = cls.hyperparameters[len(chosen) :]
    more = [other.values for other in rest]
    fits = [
        any(position.fits(cls(*chosen, value, *others)) for others in itertools.product(*more))
        for value in hp.values
    ]
    if hp.labels:
        return tuple(value for value, fit in zip(hp.values, fits, strict=True) if fit)
    runs: list[list[Any]] = [
        [hp.values[i] for i, _ in run]
        for fit, run in itertools.groupby(enumerate(fits), key=lambda item: item[1])
        if fit
    ]
    longest: list[Any] = max(runs, key=len, default=[])
    return tuple(longest)


@pytest.mark.parametrize("name", SPACES)
def test_all_at_once_is_as_one_by_one(name: str) -> None:
    space, rng = LayerSpace(**SPACES[name]), np.random.default_rng(0)
    compared = 0
    for _ in range(3):
        network = space.draw(rng)
        for k, layer in enumerate(network):
            before = network[:k]
            position = space.position(before)
            for cls in space.vocabulary.kinds:
                if cls.hyperparameters:
                    assert space.allowed(before, cls) == one_by_one(cls, (), position)
            for i in range(len(layer.values)):
                chosen = layer.values[:i]
                allowed = space.allowed(before, type(layer), *chosen)
                assert allowed == one_by_one(type(layer), chosen, position)
                assert layer.values[i] in allowed
                compared += 1
    assert compared > 3
