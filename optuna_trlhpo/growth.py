"""What a growing trial asks of the study's sampler: whether a training pays, or another layer."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from optuna_trlhpo.hooks import offered
from optuna_trlhpo.layers import unmasked
from optuna_trlhpo.notes import fixed_params


def worth_training(trial: Trial, *, depth: int, max_depth: int) -> bool:
    """Whether the network that ``trial`` has grown to is worth a training on the way to a deeper one.

    The study's sampler says so, if it is one that decides (`TRLHPOSampler` does) or hands its work on to one;
    with any other sampler every network is. For objectives of one's own that grow something step by step;
    `LayerSpace.grow` asks by itself. What is not trained is not reported.

    Args:
        trial: A running trial.
        depth: How many layers, or steps, it has.
        max_depth: How many it may get.

    Raises:
        optuna.exceptions.UpdateFinishedTrialError: If the trial has finished meanwhile, by another worker.

    Example:
        >>> import optuna
        >>> worth_training(optuna.create_study().ask(), depth=1, max_depth=8)
        True
    """
    ask = offered(trial, "worth_training")
    return True if ask is None else ask(trial.study, frozen(trial), depth=depth, max_depth=max_depth)


def worth_growing(trial: Trial) -> bool:
    """Whether ``trial`` should grow deeper after what it has reported; else it had better end here.

    See `worth_training`.
    """
    ask = offered(trial, "worth_growing")
    return True if ask is None else ask(trial.study, frozen(trial))


def frozen(trial: Trial) -> FrozenTrial:
    """What the study knows of a running trial, its reports too.

    Raises:
        optuna.exceptions.UpdateFinishedTrialError: If the trial has finished meanwhile: another worker failed
            it, or told its value. Optuna's ``suggest_*`` and ``report`` raise this error too.
    """
    # A running trial can be asked for its parameters but not for its reports; the study can.
    for other in trial.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if other.number == trial.number:
            return other
    raise UpdateFinishedTrialError(
        f"trial {trial.number} has already finished, by another worker or study.tell, and cannot go on here"
    )


class FixedNetwork(NamedTuple):
    """The network that a trial was given before it began, by `Study.enqueue_trial` or as a retry.

    Attributes:
        depth: How many layers, or steps, it has.
        ends_trial: Whether the trial ends with it: the trial retries one that had reported something, and has
            itself reported this network.
    """

    depth: int
    ends_trial: bool


def fixed_network(study: Study, trial: FrozenTrial) -> FixedNetwork | None:
    """What the parameters that were fixed for a running trial name; None if they name no network.

    They name one if their names have numbers, as those of layers have, and all numbered parameters that the
    trial has so far are among them. Parameters with the same number are one layer.

    Args:
        study: The study.
        trial: A running trial of it.

    Example:
        >>> import optuna
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
    if retried:  # the parameters of the last of them were there from the start
        names.update(retried[-1].params)
    depth = _depth(names)
    if depth == 0 or any(re.search(r"\d", unmasked(name)) for name in trial.params if name not in names):
        return None
    had_reports = any(other.intermediate_values for other in retried)
    return FixedNetwork(depth, had_reports and max(trial.intermediate_values, default=-1) >= depth - 1)


def _retried(study: Study, trial: FrozenTrial) -> list[FrozenTrial]:
    """The failed trials that `optuna.storages.RetryHeartbeatStaleTrialCallback` made this one of."""
    history: Any = trial.system_attrs.get("retry_history")
    if not isinstance(history, list) or not history:
        return []
    return [other for other in study.get_trials(deepcopy=False) if other.number in history]


def _depth(names: Iterable[str]) -> int:
    """How many numbers come first in names that are equal but for their numbers."""
    numbers: dict[str, set[str]] = {}
    for name in map(unmasked, names):
        if (first := re.search(r"\d+", name)) is not None:
            numbers.setdefault(re.sub(r"\d+", "", name), set()).add(first[0])
    return max(map(len, numbers.values()), default=0)
