"""What is noted in a study beside parameters, reports and values, so that it can be explained from itself.

==================  =====================================================================================
`SEEN_ATTRIBUTE`    of a trial: when it reported what (see `episode`)
`AGENT_ATTRIBUTE`   of a trial: what the agent expected of it, and what it attended to (`AgentNote`)
`SAMPLER_ATTRIBUTE` of a study: the settings of the sampler
``trainings``       of a trial, a user attribute: its networks, what they came to and how long that took
``architecture``    of a trial, a user attribute: the best network that it has trained, as text
==================  =====================================================================================

A note is small, for storages only grow: that of the agent has at most `MOST_CHARACTERS`. Attributes may be
anybody's, or damaged. So each is checked where it is read, here alone, and a note of which a part is not
valid is read as nothing.

Notation: S steps, H heads (of all blocks, one block after the other).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from optuna.study import Study
from optuna.trial import BaseTrial, FrozenTrial

from optuna_trlhpo.layers import Network, describe, parse

SEEN_ATTRIBUTE = "trlhpo:seen"
SAMPLER_ATTRIBUTE = "trlhpo:sampler"
ARCHITECTURE_ATTRIBUTE = "architecture"


# Writing: samplers have no public way to write an attribute of a running trial, nor one of a study that is
# a bracket of Hyperband's. Optuna's own samplers go this way too; here alone it is gone.


def write_to_trial(study: Study, trial: FrozenTrial, name: str, value: Any) -> None:
    """Keep ``value``, which JSON can hold, with the running ``trial``."""
    study._storage.set_trial_system_attr(trial._trial_id, name, value)


def write_to_study(study: Study, name: str, value: Any) -> None:
    """Keep ``value``, which JSON can hold, with the study."""
    study._storage.set_study_system_attr(study._study_id, name, value)


def read_from_study(study: Study, name: str) -> Any:
    """What `write_to_study` has kept; None if there is nothing."""
    return study._storage.get_study_system_attrs(study._study_id).get(name)


# Numbers ------------------------------------------------------------------------------------------------


def finite(value: Any) -> float | None:
    """A number of JSON as a finite float; None for all else, also for True, NaN and an integer beyond floats.

    Example:
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
    """Whether it is an integer of at least ``least``; True is none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def finite_number(value: Any) -> float:
    number = finite(value)
    if number is None:
        raise ValueError(f"{type(value).__name__} is not a finite number")
    return number


# What Optuna notes --------------------------------------------------------------------------------------


def fixed_params(trial: FrozenTrial) -> dict[str, Any]:
    """Values by name that the trial has if it asks for these parameters: it was enqueued, or is a retry.

    Optuna keeps them for itself, and has no public way to read them.

    Example:
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


# Reports ------------------------------------------------------------------------------------------------


def report_marks(trial: FrozenTrial) -> list[tuple[int, int]]:
    """When the trial reported what, as far as it was noted.

    Pairs (n, step) say "when it had n parameters, the report of that step was the last". Both rise; n is 1 to
    the number of the trial's parameters, step is 0 or more.

    Example:
        >>> import optuna
        >>> from optuna.distributions import IntDistribution
        >>> one = dict(params={"x": 1}, distributions={"x": IntDistribution(0, 1)}, value=1)
        >>> report_marks(optuna.create_trial(**one, system_attrs={SEEN_ATTRIBUTE: [[1, 0]]}))
        [(1, 0)]
        >>> report_marks(optuna.create_trial(**one, system_attrs={SEEN_ATTRIBUTE: [[2, 0]]}))
        []
    """
    stored = trial.system_attrs.get(SEEN_ATTRIBUTE)
    seen: list[tuple[int, int]] = []
    for pair in stored if isinstance(stored, list) else ():
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            return []
        (n, step), (last_n, last_step) = pair, seen[-1] if seen else (0, -1)
        if not (is_integer(n, least=last_n + 1) and is_integer(step, least=last_step + 1)):
            return []
        if n > len(trial.params):
            return []
        seen.append((n, step))
    return seen


# The best network ---------------------------------------------------------------------------------------


def read_architecture(trial: BaseTrial) -> tuple[str, Network] | None:
    """The best network of a trial, as text and as layers; None if it has none, or what is no network."""
    text = trial.user_attrs.get(ARCHITECTURE_ATTRIBUTE)
    if not isinstance(text, str):
        return None
    try:
        layers = parse(text)
    except ValueError:
        return None
    return (describe(layers), layers) if layers else None


def read_count(trial: BaseTrial, name: str) -> int | float | None:
    """What the best network of a trial costs, such as its ``"macs"``: the user attribute of that name.

    None where it is not a finite number of 0 or more.
    """
    value = trial.user_attrs.get(name)
    number = finite(value)
    return value if number is not None and number >= 0 else None
