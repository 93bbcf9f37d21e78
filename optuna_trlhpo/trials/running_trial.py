"""What can be seen of a trial only while it runs: the order of its parameters, and when it reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import BaseDistribution

from optuna_trlhpo.trials.path import Path


@dataclass
class RunningTrial:
    """A running trial as it has been followed.

    Attributes:
        number: The trial's.
        fixed: Values by name that it will have if these parameters come, as those of an enqueued trial.
        path: Its parameters so far, in the order in which they were asked for.
        marks: Pairs of a number of parameters and the last step that was reported behind them.
        reports: Pairs of a number of parameters and what was reported behind them; more is better.
        n_asked: Parameters that the trial had, with the one asked for, at the last call.
        n_written: Pairs of ``marks`` that the storage has.
        asked: The last parameter that the sampler was asked for.
    """

    number: int
    fixed: Mapping[str, Any] = field(default_factory=dict)
    path: Path = field(default_factory=Path)
    marks: list[tuple[int, int]] = field(default_factory=list)
    reports: list[tuple[int, float]] = field(default_factory=list)
    n_asked: int = 0
    n_written: int = 0
    asked: str | None = None

    def catch_up(self, params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]) -> list[str]:
        """Take over the parameters that the trial got since.

        Some were never asked of the sampler: fixed ones, and those without alternative. They are taken in
        the storage's order.

        Returns:
            Those that came behind one that the sampler was asked for, and were not asked of it.
        """
        if len(params) == len(self.path):
            return []
        new = [name for name in params if name not in self.path.values]
        unasked = new
        if self.asked in new:  # it came first: the sampler would have been asked for no other in between
            unasked = [name for name in new if name != self.asked]
            new = [self.asked, *unasked]
        for name in new:
            self.path.push(name, distributions[name], params[name])
        return unasked if len(new) > len(unasked) else []
