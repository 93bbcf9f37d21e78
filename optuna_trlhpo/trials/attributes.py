"""Attributes stored in a study beside parameters, reports and values, so that it can be explained later.

===================  ====================================================================================
`MARKS_ATTRIBUTE`    of a trial: which reports came before which parameters (see `episode`)
`AGENT_ATTRIBUTE`    of a trial: the agent's forecasts and attention weights (`agent_record.AgentRecord`)
`SAMPLER_ATTRIBUTE`  of a study: the settings of the sampler
``trainings``        of a trial, a user attribute: its networks, their accuracies and training times
``architecture``     of a trial, a user attribute: the best network that it has trained, as text
===================  ====================================================================================

Attributes are small, because storages only grow: the agent's record has at most `MOST_CHARACTERS`. Others may
have written an attribute, or damaged it. Each is therefore validated where it is read, here alone, and
ignored if any part of it is invalid.

Notation: S steps, H heads (of all blocks, one block after the other).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from optuna.study import Study
from optuna.trial import BaseTrial, FrozenTrial

from optuna_trlhpo.layers import Network, describe, parse

MARKS_ATTRIBUTE = "trlhpo:seen"
SAMPLER_ATTRIBUTE = "trlhpo:sampler"
ARCHITECTURE_ATTRIBUTE = "architecture"


# Samplers have no public way to write an attribute of a running trial, nor of a study that is a bracket of
# Hyperband. Optuna's own samplers use the private storage too; the package does so only here.


def write_to_trial(study: Study, trial: FrozenTrial, name: str, value: Any) -> None:
    """Store ``value``, which JSON can represent, in the running ``trial``."""
    study._storage.set_trial_system_attr(trial._trial_id, name, value)


def write_to_study(study: Study, name: str, value: Any) -> None:
    """Store ``value``, which JSON can represent, in the study."""
    study._storage.set_study_system_attr(study._study_id, name, value)


def read_from_study(study: Study, name: str) -> Any:
    """Return the value that `write_to_study` has stored; None if there is none."""
    return study._storage.get_study_system_attrs(study._study_id).get(name)


# Numbers ------------------------------------------------------------------------------------------------


def finite(value: Any) -> float | None:
    """Return a JSON number as a finite float; None for anything else.

    True, NaN and integers beyond the range of floats give None.

    Examples:
        >>> finite(3), finite(True), finite(10**400), finite("3"), finite(float("nan"))
        (3.0, None, None, None, None)
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def is_integer(value: Any, *, least: int) -> bool:
    """Return whether ``value`` is an integer of at least ``least``; booleans do not count."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def finite_number(value: Any) -> float:
    """Return a JSON number as a finite float.

    Raises:
        ValueError: If it is not a finite number.
    """
    number = finite(value)
    if number is None:
        raise ValueError(f"{type(value).__name__} is not a finite number")
    return number


# Optuna's attributes -------------------------------------------------------------------------------------


def fixed_params(trial: FrozenTrial) -> dict[str, Any]:
    """Return the values, by name, that were fixed for an enqueued or retried trial.

    Optuna has no public way to read them.

    Examples:
        >>> import optuna
        >>> study = optuna.create_study()
        >>> study.enqueue_trial({"x": 1})
        >>> fixed_params(study.trials[0])
        {'x': 1}
    """
    fixed = trial.system_attrs.get("fixed_params")
    if not isinstance(fixed, Mapping):
        return {}
    return {name: value for name, value in fixed.items() if isinstance(name, str)}


def retry_history(trial: FrozenTrial) -> list[int]:
    """Return the numbers of the trials that ``trial`` is a retry of, the first one first.

    `optuna.storages.RetryHeartbeatStaleTrialCallback` writes them. Its method that reads them is experimental
    and warns.
    """
    history = trial.system_attrs.get("retry_history")
    if not isinstance(history, list) or not all(is_integer(number, least=0) for number in history):
        return []
    return history


# Reports ------------------------------------------------------------------------------------------------


def report_marks(trial: FrozenTrial) -> list[tuple[int, int]]:
    """Return which reports came before which parameters, as far as this was recorded.

    A pair (n, step) means that when the trial had n parameters, its last report was that of ``step``. Both
    numbers increase; n is 1 to the number of the trial's parameters, step is 0 or more.

    Examples:
        >>> import optuna
        >>> from optuna.distributions import IntDistribution
        >>> one = dict(params={"x": 1}, distributions={"x": IntDistribution(0, 1)}, value=1)
        >>> report_marks(optuna.create_trial(**one, system_attrs={MARKS_ATTRIBUTE: [[1, 0]]}))
        [(1, 0)]
        >>> report_marks(optuna.create_trial(**one, system_attrs={MARKS_ATTRIBUTE: [[2, 0]]}))
        []
    """
    stored = trial.system_attrs.get(MARKS_ATTRIBUTE)
    marks: list[tuple[int, int]] = []
    for pair in stored if isinstance(stored, list) else ():
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            return []
        (n, step), (last_n, last_step) = pair, marks[-1] if marks else (0, -1)
        if not (is_integer(n, least=last_n + 1) and is_integer(step, least=last_step + 1)):
            return []
        if n > len(trial.params):
            return []
        marks.append((n, step))
    return marks


# The best network ---------------------------------------------------------------------------------------


def read_architecture(trial: BaseTrial) -> tuple[str, Network] | None:
    """Return the best network of a trial, as text and as layers; None if there is none, or it is invalid."""
    text = trial.user_attrs.get(ARCHITECTURE_ATTRIBUTE)
    if not isinstance(text, str):
        return None
    try:
        layers = parse(text)
    except ValueError:
        return None
    return (describe(layers), layers) if layers else None


def read_count(trial: BaseTrial, name: str) -> int | float | None:
    """Return a cost of a trial's best network, such as ``"macs"``: the user attribute with this name.

    None if it is not a finite number of 0 or more.
    """
    value = trial.user_attrs.get(name)
    number = finite(value)
    return value if number is not None and number >= 0 else None
