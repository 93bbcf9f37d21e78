"""What a trial of a `CompressObjective` records, and what is read from other trials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import BaseTrial, FrozenTrial, Trial, TrialState

from optuna_trlhpo._checks import is_number
from optuna_trlhpo.cnn.compress.results import OriginalNetwork


def check_values(goal: Any, objectives: tuple[str, ...], max_loss: Any) -> None:
    """Raise a ``ValueError`` if an argument about the values of a trial is invalid."""
    if goal is not None and not callable(goal):
        raise ValueError(f"goal is {goal!r}; it must be a function of an accuracy and its Counts, or None")
    if goal is not None and len(objectives) > 1:
        raise ValueError(
            f"objectives are {', '.join(objectives)}; with a goal, which combines accuracy and cost into one "
            "value, the only objective must be accuracy"
        )
    if max_loss is not None and not (is_number(max_loss) and 0 <= max_loss <= 1):
        raise ValueError(f"max_loss is {max_loss!r}; it must be between 0 and 1, or None")


def note_costs(trial: BaseTrial, costs: Mapping[str, float], original: OriginalNetwork) -> None:
    """Record costs in a trial, also relative to those of the original network."""
    for name, value in costs.items():
        trial.set_user_attr(name, value)
    trial.set_user_attr("relative", original.relative(costs))


def check_limits(trial: BaseTrial, costs: Mapping[str, float], limits: Mapping[str, float]) -> None:
    """Record how far the costs exceed the limits, relative to these, as constraints of the trial.

    Raises:
        optuna.TrialPruned: If they exceed any.
    """
    excess = {name: costs[name] / limit - 1 for name, limit in limits.items()}
    if isinstance(trial, Trial):
        for name, value in excess.items():
            trial.set_constraint(name, value)
    beyond = [f"max_{name} by {100 * value:.3g} %" for name, value in excess.items() if value > 0]
    if beyond:
        raise optuna.TrialPruned(f"the network exceeds {' and '.join(beyond)}")


def look_up(trial: BaseTrial, setting: str) -> FrozenTrial | None:
    """Return a complete trial of the same study that trained the same network in the same setting."""
    if not isinstance(trial, Trial):
        return None
    for other in trial.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        noted = other.user_attrs
        if other.params == trial.params and noted.get("setting") == setting:
            if is_number(noted.get("accuracy")) and is_number(noted.get("train_seconds")):
                return other
    return None
