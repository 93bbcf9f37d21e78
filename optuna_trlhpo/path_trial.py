"""What is kept of a trial of any objective while it runs, and what others may know of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from optuna_trlhpo.parameters import value_key
from optuna_trlhpo.path import Path
from optuna_trlhpo.path_search import PathPlan


@dataclass
class PathTrial:
    """What is kept of a running trial.

    Attributes:
        number: The trial's.
        path: Its parameters so far, in the order in which they were asked for.
        plan: The configuration that it should become.
        reports: Pairs of a number of parameters and what was reported behind them; more is better.
        fixed: Values by name that it will have if these parameters come, as those of an enqueued trial.
    """

    number: int
    fixed: Mapping[str, Any] = field(default_factory=dict)
    path: Path = field(default_factory=Path)
    plan: PathPlan | None = None
    reports: list[tuple[int, float]] = field(default_factory=list)
    n_planned: int = 0  # reports that the plan was made with
    n_plans: int = 0
    n_refused: int = 0  # plans that did not come about
    asked: str | None = None  # the last parameter that the sampler was asked for
    answer: tuple[str, BaseDistribution, Any] | None = None  # the last one that it gave a value

    def expected(self, trial: FrozenTrial) -> Path:
        """What the trial, as a storage has it now, will be, as far as that is known: more than it has."""
        values = trial.params
        plan = self.plan.path if self.plan is not None else Path()
        if len(plan) > len(values) and all(
            name in plan.values and value_key(plan.values[name]) == value_key(value)
            for name, value in values.items()
        ):
            return plan
        path = Path.of_trial(trial)
        if self.answer is not None and self.answer[0] not in values:
            path.push(*self.answer)
        return path

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


class Announced(NamedTuple):
    """What another running trial is about to be."""

    trial: FrozenTrial
    digest: str | None
    """Of the configuration that it has planned, see `digest_of`; None if it has announced none."""


def digest_of(params: Mapping[str, Any]) -> str:
    """A short text that tells configurations apart, in every process.

    Example:
        >>> digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1}) != digest_of({"a": 1.0, "b": 2})
        True
    """
    text = repr(sorted((name, repr(value_key(value))) for name, value in params.items()))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
