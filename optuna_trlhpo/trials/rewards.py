"""What a trial was worth, step by step. Sign, NaN, pruned and failed trials are decided here and nowhere
else.

Notation: B trials, S steps, K objectives. A *worth* is an objective's value with its sign turned so that more
is better. ``worths[k]`` is what was measured after step k, NaN where nothing was.

===========  =================================================================================================
complete     its values; and its reports after each layer, if they are of the values' kind
pruned       its last report, and those before it that a parameter followed; without one the worst there is
failed       the worst there is; nothing if it had reported something since its last parameter
infeasible   the worst there is, for all that it is, whatever its values; its reports between layers count
infinite     counts as the worst or the best rank; never enters arithmetic
===========  =================================================================================================

A step's *return* is the best worth at or behind it: with gamma = 1 the progressive rewards, what each layer
adds (section IV of the paper), telescope to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_trlhpo.trials.episode import Episode


def signed_outcomes(
    trial: FrozenTrial, episode: Episode, directions: Sequence[StudyDirection]
) -> np.ndarray | None:
    """Worths ``[S, K]`` of a finished trial, or None if nothing can be learned from it.

    Reports count only where they are values of layers: some came between the layers, one behind the last, and
    the trial's value is the last or the best of them. Otherwise they are something that the objective shows
    on its way, and the final value alone is its worth. Where none came behind the last layer and the value is
    the best of those before, the last layer was asked for and then not tried: nothing is known of it.
    """
    values = trial.values
    is_infeasible = any(value > 0 for value in trial.constraints.values())
    if not trial.state.is_finished() or len(episode) == 0:
        return None
    signs = signs_of(directions)
    worths = np.full((len(episode), len(directions)), np.nan)
    if trial.state == TrialState.FAIL:
        if max(trial.intermediate_values, default=-1) > episode.last_seen:
            return None  # it was on its way, and says nothing of its parameters
        values = None
    if not values or len(values) != len(directions) or any(math.isnan(value) for value in values):
        if trial.state == TrialState.COMPLETE and not is_infeasible:
            return None
        worths[-1] = -math.inf
        return worths
    worths[-1] = signs * np.asarray(values)
    between = ~np.isnan(episode.reports)
    if len(directions) == 1 and between.any():
        reports = {step: signs[0] * report for step, report in trial.intermediate_values.items()}
        last = reports[max(reports)]
        behind_last_layer = max(reports) > episode.last_seen
        best = max(reports.values(), key=lambda report: -math.inf if math.isnan(report) else report)
        if behind_last_layer and worths[-1, 0] in (last, best):
            worths[between, 0] = signs[0] * episode.reports[between]
            worths[-1, 0] = -math.inf if math.isnan(last) else last  # diverged: nothing is worse
        elif not behind_last_layer and not between[-1] and worths[-1, 0] == best:
            worths[between, 0] = signs[0] * episode.reports[between]
            worths[-1, 0] = np.nan
    if is_infeasible:
        worths[-1] = -math.inf
    return worths


def signs_of(directions: Sequence[StudyDirection]) -> np.ndarray:
    """``[K]``: 1 where more is better, -1 where less is."""
    return np.array([-1.0 if direction == StudyDirection.MINIMIZE else 1.0 for direction in directions])


def returns_of(worths: np.ndarray) -> np.ndarray:
    """The best worth at or behind each step; axis 1 of ``[B, S, ...]`` are the steps.

    Example:
        >>> returns_of(np.array([[0.7, 0.9, np.nan, 0.8]]))
        array([[0.9, 0.9, 0.8, 0.8]])
    """
    return np.fmax.accumulate(worths[:, ::-1], axis=1)[:, ::-1]


def rewards_of(worths: np.ndarray) -> np.ndarray:
    """What each step added, ``[B, S]``; the first step adds its worth, one without a worth adds 0.

    Example:
        >>> rewards_of(np.array([[0.75, np.nan, 0.5]]))
        array([[ 0.75,  0.  , -0.25]])
    """
    known = np.zeros(len(worths))
    rewards = np.zeros_like(worths)
    for k in range(worths.shape[1]):
        now = np.where(np.isnan(worths[:, k]), known, worths[:, k])
        rewards[:, k] = now - known
        known = now
    return rewards
