"""Axes: scales on which the values of a parameter are compared, even if its range has changed."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from optuna_trlhpo.layers.bins import bin_of, bins_of
from optuna_trlhpo.trials.parameter_names import parse_name
from optuna_trlhpo.trials.values import MOST_COUNTED, distinct_choices, on_grid, value_key

_BEYOND = 2.0
"""Largest distance outside [0, 1] of the action of an earlier range's value."""


class Axis:
    """The scale of one parameter: actions in [0, 1] over all its values.

    Attributes:
        categorical: Whether its values have no order.
        n_values: Number of values; 0 if they are continuous.
    """

    categorical: bool
    n_values: int

    def actions(self, raw: np.ndarray) -> np.ndarray:
        """Return the actions of raw values. Those of an earlier, wider range are outside [0, 1]."""
        raise NotImplementedError

    def raw(self, value: Any) -> float:
        """Return the number that represents a value."""
        raise NotImplementedError

    def value(self, action: float, distribution: BaseDistribution) -> Any:
        """Return the value of ``distribution`` nearest to ``action``."""
        raise NotImplementedError

    def knows(self, value: Any) -> bool:
        """Return whether the axis contains a value."""
        return True

    def settle(self, actions: np.ndarray) -> np.ndarray:
        """Round actions to the middles of the bins of their values."""
        raise NotImplementedError


class NumberAxis(Axis):
    """The axis of a number, from ``low`` to ``high``.

    Examples:
        >>> axis = NumberAxis([IntDistribution(1, 4)])
        >>> axis.actions(np.array([1.0, 4.0])).tolist(), axis.value(0.9, IntDistribution(1, 2))
        ([0.125, 0.875], 2)
    """

    categorical = False

    def __init__(self, distributions: Sequence[BaseDistribution]) -> None:
        ranges = [d for d in distributions if isinstance(d, IntDistribution | FloatDistribution)]
        self.low, self.high = min(d.low for d in ranges), max(d.high for d in ranges)
        self.log = all(d.log for d in ranges) and self.low > 0
        steps = {d.step for d in ranges}
        self._is_integer = all(isinstance(d, IntDistribution) for d in ranges)
        self._step = steps.pop() if len(steps) == 1 and not self.log else None
        self.n_values = 0
        if self._step is not None:
            n = round((self.high - self.low) / self._step) + 1
            self.n_values = n if n <= MOST_COUNTED else 0
        margin = 0.5 if self.log and self._is_integer else 0.0  # each integer gets its own interval
        low, high = self.low - margin, self.high + margin
        self._least = low
        self._low, self._high = (math.log(low), math.log(high)) if self.log else (float(low), float(high))

    def actions(self, raw: np.ndarray) -> np.ndarray:
        """Return the actions of raw values, as bins if the values are countable."""
        if self.n_values:
            assert self._step is not None
            actions = (np.rint((raw - self.low) / self._step) + 0.5) / self.n_values
        else:
            span = self._high - self._low
            if span <= 0:
                return np.full_like(raw, 0.5)
            moved = np.log(np.maximum(raw, 1e-3 * self._least)) if self.log else raw
            half = self._high / 2 - self._low / 2  # the whole span may be infinite
            actions = (moved / 2 - self._low / 2) / half
        return np.clip(actions, -_BEYOND, 1 + _BEYOND)

    def raw(self, value: Any) -> float:
        """Return the value as a float."""
        return float(value)

    def value(self, action: float, distribution: BaseDistribution) -> Any:
        """Return the value of ``distribution`` nearest to ``action``."""
        assert isinstance(distribution, IntDistribution | FloatDistribution)
        if self.n_values:
            assert self._step is not None
            value = self.low + math.floor(action * self.n_values) * self._step
        elif self.log:
            value = math.exp(self._low + action * (self._high - self._low))
        else:
            value = self._low * (1 - action) + action * self._high
        return on_grid(distribution, value)

    def settle(self, actions: np.ndarray) -> np.ndarray:
        """Round actions to the middles of their values' bins; those of continuous values are unchanged."""
        if self.n_values:
            return (bins_of(actions, self.n_values) + 0.5) / self.n_values
        if self.log and self._is_integer:
            raw = np.exp(self._low + actions * (self._high - self._low))
            return self.actions(np.clip(np.rint(raw), self.low, self.high))
        return actions if self._low < self._high else np.full_like(actions, 0.5)


class LabelAxis(Axis):
    """The axis of a categorical parameter. New labels are appended.

    Examples:
        >>> axis = LabelAxis()
        >>> axis.learn(CategoricalDistribution(("fc", "pool")))
        True
        >>> axis.value(0.9, CategoricalDistribution(("fc", "pool")))
        'pool'
    """

    categorical = True

    def __init__(self) -> None:
        self._labels: list[Any] = []
        self._numbers: dict[Any, int] = {}

    @property
    def n_values(self) -> int:  # type: ignore[override]
        """Number of labels."""
        return len(self._labels)

    def learn(self, distribution: CategoricalDistribution) -> bool:
        """Append new labels, and return whether there were any."""
        new = [label for label in distinct_choices(distribution) if value_key(label) not in self._numbers]
        for label in new:
            self._numbers[value_key(label)] = len(self._labels)
            self._labels.append(label)
        return bool(new)

    def shorten(self, n: int) -> None:
        """Forget all labels but the first ``n``."""
        for label in self._labels[n:]:
            del self._numbers[value_key(label)]
        del self._labels[n:]

    def actions(self, raw: np.ndarray) -> np.ndarray:
        """Return the middles of the labels' bins."""
        return (raw + 0.5) / len(self._labels)

    def knows(self, value: Any) -> bool:
        """Return whether the value is a label."""
        return value_key(value) in self._numbers

    def raw(self, value: Any) -> float:
        """Return the number of the label."""
        return float(self._numbers[value_key(value)])

    def value(self, action: float, distribution: BaseDistribution) -> Any:
        """Return the label that ``action`` encodes, or the choice at the same relative position."""
        assert isinstance(distribution, CategoricalDistribution)
        label = self._labels[bin_of(action, len(self._labels))]
        key = value_key(label)
        for choice in distribution.choices:
            if value_key(choice) == key:
                return choice
        # The label is not a choice: take the choice at the same relative position.
        n = len(distribution.choices)
        return distribution.choices[bin_of(action, n)]

    def settle(self, actions: np.ndarray) -> np.ndarray:
        """Round actions to the middles of the labels' bins."""
        n = len(self._labels)
        return (bins_of(actions, n) + 0.5) / n


def family_of(name: str, distribution: CategoricalDistribution) -> str:
    r"""Return the template of a categorical name, without the labels that the name contains.

    Optuna forbids a name to have two sets of choices. Objectives that mask choices therefore write the
    remaining ones into the name, as in ``op_conv_fc_0`` and ``op_fc_0``: one decision with different masks.

    Examples:
        >>> family_of("op_conv_fc_0", CategoricalDistribution(("conv", "fc"))).replace("\0", "#")
        'op_#'
    """
    template = parse_name(name).template
    labels = {str(choice).lower() for choice in distribution.choices if isinstance(choice, str) and choice}
    tokens = re.split(r"([_\-.,:/ ]+)", template)
    kept = [token for token in tokens if token.lower() not in labels]
    if not labels or len(kept) == len(tokens) or len(tokens) - len(kept) < min(len(labels), 1):
        return template
    if not labels <= {token.lower() for token in tokens}:  # some labels alone are ordinary words of the name
        return template
    return re.sub(r"([_\-.,:/ ])[_\-.,:/ ]+", r"\1", "".join(kept))
