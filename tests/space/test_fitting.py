"""Which values a hyper-parameter may take: those with which some layer fits, one layer after the other."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from optuna_trlhpo import LayerSpace
from optuna_trlhpo.kinds import CNN, LSTM, MLP
from optuna_trlhpo.layers import FCL, Conv, Hyperparameter, Layer, Shape, Vocabulary
from optuna_trlhpo.space.limits import Position


@dataclass(frozen=True)
class PartCost(Layer):
    """Its costs are no integers, against what their type says."""

    kind, prefix = "PartCost", "partcost"
    hyperparameters = (Hyperparameter("width", (1, 2, 3, 4)),)
    width: int

    def output_shape(self, shape: Shape) -> Shape | None:
        return (self.width, *shape[1:]) if len(shape) == 3 else None

    def macs(self, shape: Shape) -> float:  # type: ignore[override]
        return 100.9 * self.width

    def parameters(self, shape: Shape) -> float:  # type: ignore[override]
        return 10.7 * self.width


@dataclass(frozen=True)
class TwoHeads(FCL):
    """Its output is wider than its number of neurons."""

    kind, prefix = "TwoHeads", "twoheads"

    def output_shape(self, shape: Shape) -> Shape | None:
        return (2 * self.neurons,)


@dataclass(frozen=True)
class Counted(Conv):
    """Its costs are counted on its modules."""

    kind, prefix = "Counted", "counted"
    macs, parameters = Layer.macs, Layer.parameters


@dataclass(frozen=True)
class ManySizes(PartCost):
    """There are too many of them to look at all at once."""

    kind, prefix = "ManySizes", "manysizes"
    hyperparameters = (Hyperparameter("width", tuple(range(1, 4000))),)


PARTS = Vocabulary("parts", (PartCost, FCL, TwoHeads), first=(PartCost,))
COUNTED = Vocabulary("counted", (Counted, FCL), first=(Counted,))
MANY = Vocabulary("many", (ManySizes,), first=(ManySizes,))
SPACES: dict[str, dict[str, Any]] = {
    "no limit": dict(),
    "MACs": dict(max_macs=3e5),
    "parameters": dict(max_parameters=5000),
    "activations": dict(max_activation_bytes=9000),
    "all": dict(max_macs=1e6, max_parameters=8000, max_activation_bytes=20_000, narrowing=True),
    "CNN": dict(max_macs=1e6, max_parameters=8000, max_layers=8, vocabulary=CNN),
    "CNN, activations": dict(max_activation_bytes=9000, vocabulary=CNN),
    "colours": dict(input_shape=(3, 20, 20), max_macs=2e6, max_parameters=3000, vocabulary=CNN),
    "costs that are no integers": dict(
        input_shape=(1, 2, 2),
        num_classes=2,
        max_layers=3,
        vocabulary=PARTS,
        max_macs=435.5,
        max_parameters=99,
    ),
    "wider than its neurons": dict(vocabulary=PARTS, narrowing=True, max_layers=5),
    "counted": dict(input_shape=(1, 9, 9), max_layers=2, vocabulary=COUNTED, max_macs=2e4),
    "many": dict(input_shape=(1, 2, 2), num_classes=2, max_layers=2, vocabulary=MANY, max_parameters=40_000),
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


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "many" else []) for name in SPACES]
)
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


@pytest.mark.slow
@pytest.mark.every_case
def test_costs_beyond_64_bits_are_beyond_a_limit() -> None:
    with pytest.raises(ValueError, match="the cheapest first layer with a classifier takes"):
        LayerSpace(input_shape=(1, 10**6, 10**6), num_classes=10**6, max_macs=1e15, vocabulary=CNN)
    with pytest.raises(ValueError, match="max_parameters is"):
        LayerSpace(input_shape=(1, 10**6, 10**6), num_classes=10**6, max_parameters=3, vocabulary=CNN)
    space = LayerSpace(
        input_shape=(1, 10**6, 10**6), num_classes=10**6, max_parameters=10**15, vocabulary=CNN
    )
    assert space.kinds(())
