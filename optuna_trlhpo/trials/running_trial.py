"""State of a running trial that its storage does not keep: the order of its parameters and of its reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import BaseDistribution

from optuna_trlhpo.trials.path import Path


@dataclass
class RunningTrial:
    """The state of a running trial as observed by the sampler.

    Attributes:
        number: Number of the trial.
        fixed: Fixed values by parameter name, such as those of an enqueued trial.
        path: The parameters so far, in the order in which they were asked for.
        marks: Pairs of a number of parameters and the last step reported at that point.
        reports: Pairs of a number of parameters and the value reported at that point; more is better.
        n_asked: Number of parameters at the last call, including the one requested.
        n_written: Number of ``marks`` that the storage has.
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
        """Add the parameters that the trial has got since the last call.

        The sampler was not asked for some of them: fixed ones, and those with a single value. These are added
        in the order of the storage.

        Returns:
            The parameters that followed one that the sampler was asked for, without being asked for
            themselves.
        """
        if len(params) == len(self.path):
            return []
        new = [name for name in params if name not in self.path.values]
        unasked = new
        if self.asked in new:  # it came first: the sampler was not asked for any other in between
            unasked = [name for name in new if name != self.asked]
            new = [self.asked, *unasked]
        for name in new:
            self.path.push(name, distributions[name], params[name])
        return unasked if len(new) > len(unasked) else []
