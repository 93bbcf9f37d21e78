"""Running trial of any objective, with the agent's plan for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from optuna_trlhpo.agent.configurations.plan import ConfigurationPlan
from optuna_trlhpo.trials.path import Path
from optuna_trlhpo.trials.running_trial import RunningTrial
from optuna_trlhpo.trials.values import value_key


@dataclass
class PlannedTrial:
    """Running trial with its plan.

    Attributes:
        trial: Observations of the trial while it runs.
        plan: Planned configuration.
        n_planned: Number of reports that the plan was made with.
        n_plans: Number of plans that were made for the trial.
        rejected: Plans that the trial did not follow.
        corrected: Numbers of parameters behind which the space model was corrected.
        given: Positions of parameters that got a value without asking for it.
        answer: Name, distribution and value of the last parameter that was given a value.
    """

    trial: RunningTrial
    plan: ConfigurationPlan | None = None
    n_planned: int = 0
    n_plans: int = 0
    rejected: list[Path] = field(default_factory=list)
    corrected: list[int] = field(default_factory=list)
    given: list[int] = field(default_factory=list)
    answer: tuple[str, BaseDistribution, Any] | None = None

    @property
    def number(self) -> int:
        """Number of the trial."""
        return self.trial.number

    @property
    def n_rejected(self) -> int:
        """Number of plans that the trial did not follow."""
        return len(self.rejected)

    @property
    def fixed(self) -> Mapping[str, Any]:
        """Values, by name, that these parameters will have if the trial asks for them."""
        return self.trial.fixed

    @property
    def path(self) -> Path:
        """The parameters of the trial so far."""
        return self.trial.path

    @property
    def reports(self) -> list[tuple[int, float]]:
        """Pairs of a number of parameters and the report after them; more is better."""
        return self.trial.reports

    def expected(self, trial: FrozenTrial) -> Path:
        """Expected path of the trial, as far as known; it may be longer than the stored one."""
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
