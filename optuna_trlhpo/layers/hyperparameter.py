"""A hyper-parameter of a layer: its values, their encoding in [0, 1] and their notation."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import BaseTrial

from optuna_trlhpo.layers.bins import bin_of


@dataclass(frozen=True)
class Hyperparameter:
    """A hyper-parameter of a layer: its name and all its values, in order.

    A value is encoded as the middle of its bin, ``(i + 0.5) / n``. An action in [0, 1] is decoded by equal
    bins, ``min(int(a * n), n - 1)``, so every value can be reached.

    Args:
        name: Name, as it appears at the end of a parameter's name.
        values: All values, in order. Without labels they are integers that ascend in equal steps.
        labels: Text forms of the values of a categorical hyper-parameter, whose values may be of any type.
            Empty for an integer.

    Raises:
        ValueError: If there are no values, or a value or a label is not allowed.

    Examples:
        >>> Hyperparameter("kernel", (3, 5, 7)).decode(0.99)
        7
        >>> Hyperparameter("rate", (0.1, 0.25), labels=("0.1", "0.25")).decode(0.99)
        0.25
    """

    name: str
    values: tuple[Any, ...]
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        values, labels = self.values, self.labels
        if not values:
            raise ValueError(f"{self.name} has no values; it must have at least one")
        if not labels:
            are_integers = all(isinstance(value, int) and not isinstance(value, bool) for value in values)
            if not are_integers or len(set(self._steps)) > 1 or self._steps[0] <= 0:
                raise ValueError(
                    f"the values of {self.name} are {values}; without labels they must be integers in "
                    "ascending order and with equal steps"
                )
            return
        are_texts = all(isinstance(label, str) and re.fullmatch(r"[^\s,()>]+", label) for label in labels)
        if not are_texts or len(set(labels)) < len(labels) or len(labels) != len(values):
            raise ValueError(
                f"the labels of {self.name} are {labels}; they must be {len(values)} different strings, one "
                "for each value, without spaces, commas, parentheses and '>'"
            )

    @property
    def _steps(self) -> list[int]:
        """Differences between neighbouring integers."""
        return [after - value for value, after in itertools.pairwise(self.values)] or [1]

    def encode(self, value: Any) -> float:
        """Return the action for ``value``, or for the nearest integer if there is no such value."""
        if value not in self.values and not self.labels:
            value = min(self.values, key=lambda other: abs(other - value))
        return (self.values.index(value) + 0.5) / len(self.values)

    def decode(self, action: float) -> Any:
        """Return the value whose bin contains ``action``."""
        return self.values[bin_of(action, len(self.values))]

    def nearest(self, action: float, allowed: Sequence[Any]) -> Any:
        """Return the allowed value nearest to the one that ``action`` encodes."""
        wanted = self.values.index(self.decode(action))
        low, high = self.values.index(allowed[0]), self.values.index(allowed[-1])
        if high - low == len(allowed) - 1:  # no gaps
            return self.values[min(max(wanted, low), high)]
        return min(allowed, key=lambda value: abs(self.values.index(value) - wanted))

    def write(self, value: Any) -> str:
        """Return ``value`` as text."""
        return self.labels[self.values.index(value)] if self.labels else str(value)

    def read(self, text: str) -> Any:
        """Return the value written as ``text``.

        Raises:
            ValueError: If there is no such value. The message lists the allowed ones.
        """
        written = [self.write(value) for value in self.values]
        if text not in written:
            if len(written) > 8:
                written = [*written[:2], "...", written[-1]]
            raise ValueError(f"{self.name} {text!r} is not one of {', '.join(written)}")
        return self.values[written.index(text)]

    def suggest(self, trial: BaseTrial, name: str, allowed: Sequence[Any]) -> Any:
        """Ask ``trial`` for one of ``allowed``, a contiguous part of ``values``."""
        if self.labels:
            return trial.suggest_categorical(name, list(allowed))
        step = self._steps[0]
        value = trial.suggest_int(name, allowed[0], allowed[-1], step=step)
        if value not in allowed:  # Optuna does not check an enqueued value
            raise ValueError(
                f"parameter {name!r} is {value}; it must be {allowed[0]} to {allowed[-1]} in steps of {step}"
            )
        return value


def integers(name: str, low: int, high: int, step: int = 1) -> Hyperparameter:
    """Return an integer hyper-parameter from ``low`` to ``high``, both included."""
    return Hyperparameter(name, tuple(range(low, high + 1, step)))
