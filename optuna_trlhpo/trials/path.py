"""Parameters of a trial in the order in which they were asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial


class Path:
    """Parameters of a trial, in the order in which they were asked for.

    Examples:
        >>> from optuna.distributions import IntDistribution
        >>> path = Path()
        >>> path.push("depth", IntDistribution(1, 4), 2)
        >>> path.names, path.values["depth"]
        (['depth'], 2)
    """

    __slots__ = ("names", "values", "distributions", "positions")

    def __init__(self) -> None:
        self.names: list[str] = []
        self.values: dict[str, Any] = {}
        self.distributions: list[BaseDistribution] = []
        self.positions: dict[str, int] = {}

    @classmethod
    def of(cls, names: Iterable[str], params: Mapping[str, Any], distributions: Mapping[str, Any]) -> Path:
        """Return the path of a trial with these parameters, in the order of ``names``."""
        path = cls()
        for name in names:
            path.push(name, distributions[name], params[name])
        return path

    @classmethod
    def of_trial(cls, trial: FrozenTrial) -> Path:
        """Return the path of a trial whose parameters are in order."""
        return cls.of(trial.params, trial.params, trial.distributions)

    def push(self, name: str, distribution: BaseDistribution, value: Any) -> None:
        """Append a parameter."""
        self.positions[name] = len(self.names)
        self.names.append(name)
        self.values[name] = value
        self.distributions.append(distribution)

    def first(self, n: int) -> Path:
        """Return the path of the first ``n`` parameters."""
        return Path.of(self.names[:n], self.values, dict(zip(self.names, self.distributions, strict=True)))

    def copy(self) -> Path:
        """Return an independent copy."""
        other = Path()
        other.names, other.values = self.names.copy(), self.values.copy()
        other.distributions, other.positions = self.distributions.copy(), self.positions.copy()
        return other

    def __len__(self) -> int:
        return len(self.names)
