"""Positions of reports in trials that the sampler did not observe, such as enqueued or added ones.

Nobody recorded which report came before which parameter. The names of the parameters may still tell: what is
reported at step k belongs to layer k.
"""

from __future__ import annotations

import math

from optuna.trial import FrozenTrial

from optuna_trlhpo.layers import hyperparameter_of, unmasked
from optuna_trlhpo.trials.episode import ReportMarks
from optuna_trlhpo.trials.parameter_names import parse_name


def marks_by_names(trial: FrozenTrial, *, grows: bool) -> ReportMarks | None:
    """Infer from the parameters' names which reports came before which parameters.

    Return None if the reports are ambiguous.

    Args:
        trial: A trial with reports whose positions were not recorded.
        grows: Whether other trials of the study reported between their parameters.

    Examples:
        >>> import optuna
        >>> space = {f"units_{i}": optuna.distributions.IntDistribution(1, 4) for i in range(2)}
        >>> trial = optuna.create_trial(params={"units_0": 1, "units_1": 4}, distributions=space, value=0.8,
        ...                             intermediate_values={0: 0.8, 1: 0.7})
        >>> marks_by_names(trial, grows=True), marks_by_names(trial, grows=False)
        ([(1, 0)], None)
    """
    ends: dict[int, int] = {}  # the last number in a name -> number of parameters up to the last with it
    is_space = False
    for n, name in enumerate(trial.params, start=1):
        is_space = is_space or hyperparameter_of(name, trial.distributions[name]) is not None
        places = parse_name(unmasked(name)).places
        if places:
            ends[places[-1]] = n
    steps = sorted(trial.intermediate_values)
    first = min(ends, default=0)
    by_place = {place - first: end for place, end in ends.items()}
    if not steps or not set(steps) <= set(by_place) or not (is_space or len(steps) == len(by_place)):
        return []
    if not (grows or is_space):
        return None if _is_the_best_on_the_way(trial, steps) else []
    last = max(by_place)
    return [(by_place[step], step) for step in steps if step != last]


def _is_the_best_on_the_way(trial: FrozenTrial, steps: list[int]) -> bool:
    """Return whether the value is the best report but not the last.

    If so, it may not be the value of the whole network.
    """
    if len(steps) < 2 or trial.values is None or len(trial.values) != 1:
        return False
    reports = [trial.intermediate_values[step] for step in steps]
    value = trial.values[0]
    return value in reports and not math.isclose(value, reports[-1], rel_tol=0, abs_tol=0)
