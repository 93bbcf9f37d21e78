"""Encoding of a trial's parameters as actions in [0, 1], and back."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field

from optuna.distributions import (
    BaseDistribution,
    CategoricalChoiceType,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from optuna_trlhpo.layers import hyperparameter_of, unmasked
from optuna_trlhpo.layers.bins import bin_of, middle_of
from optuna_trlhpo.trials.parameter_names import parse_name
from optuna_trlhpo.trials.values import MOST_COUNTED, on_grid


@dataclass(frozen=True)
class ParameterSpec:
    """A parameter without its value: its name, and how many values it can take."""

    base_name: str
    index: int
    """The numbers in its name, combined in groups of three digits; 0 if there are none."""
    n_values: int
    """Number of values; 0 if they are continuous or too many to distinguish."""
    categorical: bool
    log_range: tuple[int, int] | None = None
    """Lowest and highest of integers on a logarithmic scale: countable, but in bins of unequal width."""
    allowed: tuple[int, ...] | None = field(default=None, compare=False)
    """Numbers of the values of a layer's category that may stand here; None: all."""

    def settle(self, action: float) -> float:
        """Round ``action`` to the middle of its value's bin."""
        if self.n_values:
            return middle_of(bin_of(action, self.n_values), self.n_values)
        if self.log_range is None:
            return action
        distribution = IntDistribution(*self.log_range, log=True)
        return encode("", distribution, decode("", distribution, action))


def parameter_spec(name: str, distribution: BaseDistribution) -> ParameterSpec:
    """Return the specification of a parameter."""
    hyperparameter = hyperparameter_of(name, distribution)
    if hyperparameter is not None:
        # In Optuna a masked set has its own name; here it is the same parameter.
        layer, _, part = unmasked(name).removeprefix("layer").partition("_")
        n = len(hyperparameter.values)
        if not isinstance(distribution, CategoricalDistribution):
            return _spec(f"layer_{part}", int(layer), n, False)
        allowed = tuple(map(hyperparameter.values.index, distribution.choices))
        return _spec(f"layer_{part}", int(layer), n, True, None, allowed)
    base_name, places = parse_name(name)
    index = functools.reduce(lambda index, place: 1000 * index + place, places, 0)
    if isinstance(distribution, CategoricalDistribution):
        return _spec(base_name, index, len(distribution.choices), True)
    log_range = None
    if isinstance(distribution, IntDistribution) and distribution.log:
        log_range = distribution.low, distribution.high
    return _spec(base_name, index, _n_values(distribution), False, log_range)


@functools.lru_cache(maxsize=65536)
def _spec(
    base_name: str,
    index: int,
    n_values: int,
    categorical: bool,
    log_range: tuple[int, int] | None = None,
    allowed: tuple[int, ...] | None = None,
) -> ParameterSpec:
    """Return the same object for the same specification: a long study has many of each."""
    return ParameterSpec(base_name, index, n_values, categorical, log_range, allowed)


def encode(name: str, distribution: BaseDistribution, value: CategoricalChoiceType) -> float:
    """Return the action in [0, 1] that encodes ``value``. `decode` is the inverse.

    A parameter of a `LayerSpace` is encoded on the scale of Table I. Any other parameter has its own scale:
    equal bins if its values are countable, otherwise a linear or, if its distribution is, a logarithmic
    scale.
    """
    hyperparameter = hyperparameter_of(name, distribution)
    if hyperparameter is not None:
        return hyperparameter.encode(value)
    if isinstance(distribution, CategoricalDistribution):
        return (distribution.to_internal_repr(value) + 0.5) / len(distribution.choices)
    assert isinstance(value, int | float)
    n, low, high = _n_values(distribution), *_bounds(distribution)
    if n:
        # Optuna allows ranges to change, so the value may be off the grid: only its position counts.
        return (round((value - low) / _step(distribution)) + 0.5) / n
    transform = math.log if _is_log(distribution) else float
    start, span = transform(low), transform(high) - transform(low)
    if span == 0:
        return 0.5
    place = transform(min(max(value, low), high))
    share = (place - start) / span if math.isfinite(span) else (place / 2 - start / 2) / (high / 2 - low / 2)
    return min(max(share, 0.0), 1.0)


def decode(name: str, distribution: BaseDistribution, action: float) -> CategoricalChoiceType:
    """Return the value of ``distribution`` that ``action`` encodes, or the nearest one.

    Examples:
        >>> decode("dropout_l0", FloatDistribution(0.0, 0.5), 0.5)
        0.25
    """
    action = float(action)
    hyperparameter = hyperparameter_of(name, distribution)
    if isinstance(distribution, CategoricalDistribution):
        n = len(distribution.choices)
        if hyperparameter is not None:
            return hyperparameter.nearest(action, distribution.choices)
        return distribution.choices[bin_of(action, n)]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if hyperparameter is not None:
        assert isinstance(distribution, IntDistribution)
        allowed = range(distribution.low, distribution.high + 1, distribution.step)
        return hyperparameter.nearest(action, allowed)
    n, low, high = _n_values(distribution), *_bounds(distribution)
    if n:
        value = low + bin_of(action, n) * _step(distribution)
    elif _is_log(distribution):
        value = math.exp(math.log(low) + action * (math.log(high) - math.log(low)))
    else:
        value = low * (1 - action) + action * high
    return on_grid(distribution, value)


def _n_values(distribution: BaseDistribution) -> int:
    if _is_log(distribution) or _step(distribution) == 0:
        return 0
    low, high = _bounds(distribution)
    n = round((high - low) / _step(distribution)) + 1
    return n if n <= MOST_COUNTED else 0


def _step(distribution: BaseDistribution) -> float:
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return distribution.step or 0


def _is_log(distribution: BaseDistribution) -> bool:
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return distribution.log


def _bounds(distribution: BaseDistribution) -> tuple[float, float]:
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if isinstance(distribution, IntDistribution) and distribution.log:
        return distribution.low - 0.5, distribution.high + 0.5  # each integer gets its own interval
    return distribution.low, distribution.high
