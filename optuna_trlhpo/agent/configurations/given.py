"""Values that trials get without asking the sampler for them, as where another sampler fixes some."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from optuna_trlhpo.agent.configurations.running import PlannedTrial
from optuna_trlhpo.trials.path import Path
from optuna_trlhpo.trials.values import value_key

_AGAIN = 2
"""Number of consecutive equal values after which a parameter that is set without asking counts as fixed."""


class GivenValues:
    """Latest values that parameters got without asking, with the number of consecutive trials that had them.

    Examples:
        >>> from optuna.distributions import IntDistribution
        >>> given, path = GivenValues(), Path()
        >>> path.push("x", IntDistribution(0, 3), 1)
        >>> for _ in range(2):
        ...     given.catch_up(path, [0], fixed={})
        >>> given.expected({})
        {'x': 1}
    """

    def __init__(self) -> None:
        self._values: dict[str, tuple[Any, int]] = {}

    @property
    def names(self) -> Iterable[str]:
        """Names of the parameters that got their latest values without asking."""
        return self._values

    def note(self, trial: PlannedTrial, names: Iterable[str]) -> None:
        """Note that a running trial got these parameters without asking."""
        path = trial.path
        for name in names:
            if name not in trial.fixed:
                self._note(name, path.values[name])
                trial.given.append(path.positions[name])

    def asked(self, name: str) -> None:
        """Note that a trial asks for a parameter."""
        self._values.pop(name, None)

    def catch_up(self, path: Path, given: Iterable[int], fixed: Mapping[str, Any]) -> None:
        """Note what a finished trial got, which another sampler has followed.

        Args:
            path: Parameters of the trial.
            given: Positions of those that it got without asking.
            fixed: Values, by name, with which the trial was enqueued.
        """
        given = set(given)
        for position, name in enumerate(path.names):
            if name in fixed:
                continue
            if position in given:
                self._note(name, path.values[name])
            elif not path.distributions[position].single():
                self.asked(name)

    def expected(self, fixed: Mapping[str, Any]) -> Mapping[str, Any]:
        """Values, by name, that parameters of a trial will have if it asks for them.

        Args:
            fixed: Values, by name, with which the trial was enqueued.
        """
        return {**{name: value for name, (value, n) in self._values.items() if n >= _AGAIN}, **fixed}

    def _note(self, name: str, value: Any) -> None:
        before, n = self._values.get(name, (value, 0))
        self._values[name] = value, n + 1 if value_key(before) == value_key(value) else 1
