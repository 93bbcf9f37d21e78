"""The network that was fixed for a trial before it began, by `Study.enqueue_trial` or as a retry."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_trlhpo.layers import unmasked
from optuna_trlhpo.trials.attributes import fixed_params, retry_history


class FixedNetwork(NamedTuple):
    """The network that was fixed for a trial before it began, by `Study.enqueue_trial` or as a retry.

    Attributes:
        depth: Number of layers, or steps.
        ends_trial: Whether the trial ends with it: the trial retries one that had reported something, and has
            itself reported this network.
    """

    depth: int
    ends_trial: bool


def fixed_network(study: Study, trial: FrozenTrial) -> FixedNetwork | None:
    """Return the network that the fixed parameters of a running trial name; None if they name none.

    They name a network if their names contain numbers, as those of layers do, and include all numbered
    parameters that the trial has so far. Parameters with the same number form one layer.

    Args:
        study: The study.
        trial: A running trial of the study.

    Examples:
        >>> import optuna
        >>> from optuna_trlhpo.space.sampler_hooks import frozen
        >>> study = optuna.create_study()
        >>> study.enqueue_trial({"units_l0": 8, "units_l1": 4, "rate": 0.5})
        >>> trial = study.ask()
        >>> trial.suggest_int("units_l0", 1, 9)
        8
        >>> fixed_network(study, frozen(trial))
        FixedNetwork(depth=2, ends_trial=False)
    """
    names = set(fixed_params(trial))
    retried = _retried(study, trial)
    if retried:  # a retry starts with the parameters of the last of them
        names.update(retried[-1].params)
    depth = _depth(names)
    if depth == 0 or any(re.search(r"\d", unmasked(name)) for name in trial.params if name not in names):
        return None
    had_reports = any(other.intermediate_values for other in retried)
    return FixedNetwork(depth, had_reports and max(trial.intermediate_values, default=-1) >= depth - 1)


def _retried(study: Study, trial: FrozenTrial) -> list[FrozenTrial]:
    """Return the failed trials that `optuna.storages.RetryHeartbeatStaleTrialCallback` retries here."""
    history = retry_history(trial)
    if not history:
        return []
    return [other for other in study.get_trials(deepcopy=False) if other.number in history]


def _depth(names: Iterable[str]) -> int:
    """Return the number of distinct first numbers in names that are otherwise equal."""
    numbers: dict[str, set[str]] = {}
    for name in map(unmasked, names):
        if (first := re.search(r"\d+", name)) is not None:
            numbers.setdefault(re.sub(r"\d+", "", name), set()).add(first[0])
    return max(map(len, numbers.values()), default=0)
