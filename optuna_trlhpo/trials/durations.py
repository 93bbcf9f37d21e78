"""How long trials took."""

from __future__ import annotations

import math

from optuna.trial import FrozenTrial

from optuna_trlhpo.trials.attributes import finite

SECONDS_ATTRIBUTE = "seconds"
"""User attribute with the seconds of a trial, in place of the time between its beginning and its end."""
_LEAST = 1e-4
"""A shorter trial was not run: it was added to the study with its value."""


def seconds_of(trial: FrozenTrial) -> float:
    """Return the seconds that a finished trial took; NaN where they are unknown.

    Examples:
        >>> import optuna
        >>> seconds_of(optuna.create_trial(value=1.0, user_attrs={"seconds": 90}))
        90.0
        >>> seconds_of(optuna.create_trial(value=1.0))
        nan
    """
    told = finite(trial.user_attrs.get(SECONDS_ATTRIBUTE))
    if told is not None and told > 0:
        return told
    seconds = 0.0 if trial.duration is None else trial.duration.total_seconds()
    return seconds if seconds >= _LEAST else math.nan
