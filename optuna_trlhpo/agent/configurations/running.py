"""The plan that the agent has for a running trial of any objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from optuna_trlhpo.agent.configurations.plan import ConfigurationPlan
from optuna_trlhpo.trials.path import Path
from optuna_trlhpo.trials.running_trial import RunningTrial
from optuna_trlhpo.trials.values import value_key


@dataclass
class PlannedTrial:
    """A running trial and what is planned for it.

    Attributes:
        trial: What was seen of it while it ran.
        plan: The configuration that it should become.
        n_planned: Reports that the plan was made with.
        n_plans: Plans that were made for it.
        n_refused: Plans that did not come about.
        answer: The last parameter that was given a value: its name, its distribution, the value.
    """

    trial: RunningTrial
    plan: ConfigurationPlan | None = None
    n_planned: int = 0
    n_plans: int = 0
    n_refused: int = 0
    answer: tuple[str, BaseDistribution, Any] | None = None

    @property
    def number(self) -> int:
        """The trial's."""
        return self.trial.number

    @property
    def fixed(self) -> Mapping[str, Any]:
        """Values by name that the trial will have if these parameters come."""
        return self.trial.fixed

    @property
    def path(self) -> Path:
        """The parameters of the trial so far."""
        return self.trial.path

    @property
    def reports(self) -> list[tuple[int, float]]:
        """Pairs of a number of parameters and what was reported behind them; more is better."""
        return self.trial.reports

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
