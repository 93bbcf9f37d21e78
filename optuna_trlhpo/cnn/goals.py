"""Goals: functions that combine the accuracy and the cost of a network into one value.

A *goal* is a function of an accuracy, 0 to 1, and a `Counts`. Higher values are better. `CNNObjective`
reports and returns its values. Growth therefore stops at a layer whose cost outweighs its gain
(``min_improvement``), and any sampler learns from the values. A value may be any finite number, because
``min_accuracy`` is compared with the accuracy itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from optuna_trlhpo._checks import is_number
from optuna_trlhpo.layers import Layer
from optuna_trlhpo.space import LayerSpace


class Counts(NamedTuple):
    """Costs of a network that can be counted before it is trained.

    Attributes:
        macs: Multiply-accumulates for one input.
        parameters: Number of weights and biases.
        activation_bytes: Maximum size of the input and output of one layer together, in bytes for one input.
        layers: Number of layers without the classifier.
    """

    macs: int
    parameters: int
    activation_bytes: int
    layers: int


Goal = Callable[[float, Counts], float]


def count(space: LayerSpace, layers: Sequence[Layer]) -> Counts:
    """Count the costs of the network of these layers, classifier included."""
    return Counts(
        space.macs(layers), space.parameters(layers), space.activation_bytes(layers), len(tuple(layers))
    )


def weighted_product(cost: str, target: float, *, exponent: float = -0.07) -> Goal:
    """Return the goal ``accuracy * (cost / target) ** exponent``.

    This is the soft limit of MnasNet (Tan et al., 2019, equation 2).

    Args:
        cost: A field of `Counts`: "macs", "parameters", "activation_bytes" or "layers".
        target: Desired cost.
        exponent: At most 0. With MnasNet's -0.07, a doubled cost is offset by 5 % more accuracy.

    Raises:
        ValueError: For an unknown cost, a target that is not positive or a positive exponent.

    Examples:
        >>> goal = weighted_product("macs", 1e6)
        >>> counts = Counts(macs=2_000_000, parameters=1, activation_bytes=1, layers=1)
        >>> round(goal(0.98, counts), 4), goal(0.98, counts._replace(macs=1_000_000))
        (0.9336, 0.98)
    """
    _check(cost, target)
    if not (is_number(exponent) and exponent <= 0):
        raise ValueError(
            f"exponent is {exponent!r}; it must be a number of at most 0, because a positive one rewards cost"
        )
    return _Product(cost, float(target), float(exponent))


def mixture(cost: str, target: float, *, weight: float = 0.9) -> Goal:
    """Return the goal ``weight * accuracy - (1 - weight) * min(cost / target, 1)``.

    The goal follows MONAS (Hsu et al., 2018). It weighs accuracy against cost in a fixed proportion. A cost
    beyond the target is not penalised further.

    Args:
        cost: A field of `Counts`, as in `weighted_product`.
        target: Cost at which the penalty reaches its maximum.
        weight: Weight of the accuracy, 0 to 1.

    Raises:
        ValueError: For an unknown cost, a target that is not positive or a weight out of range.

    Examples:
        >>> counts = Counts(macs=500_000, parameters=1, activation_bytes=1, layers=1)
        >>> round(mixture("macs", 1e6, weight=0.8)(0.95, counts), 3)
        0.66
    """
    _check(cost, target)
    if not (is_number(weight) and 0 <= weight <= 1):
        raise ValueError(f"weight is {weight!r}; it must be between 0 and 1")
    return _Mixture(cost, float(target), float(weight))


# Classes instead of closures, because objectives are pickled for other processes.


@dataclass(frozen=True)
class _Product:
    cost: str
    target: float
    exponent: float

    def __call__(self, accuracy: float, counts: Counts) -> float:
        value: int = getattr(counts, self.cost)
        return accuracy * (max(value, 1) / self.target) ** self.exponent


@dataclass(frozen=True)
class _Mixture:
    cost: str
    target: float
    weight: float

    def __call__(self, accuracy: float, counts: Counts) -> float:
        value: int = getattr(counts, self.cost)
        return self.weight * accuracy - (1 - self.weight) * min(value / self.target, 1.0)


def _check(cost: str, target: float) -> None:
    if cost not in Counts._fields:
        raise ValueError(f"cost is {cost!r}; it must be one of {', '.join(Counts._fields)}")
    if not (is_number(target) and target > 0):
        raise ValueError(f"target is {target!r}; it must be a positive number")
