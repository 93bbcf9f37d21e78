"""Outcomes and rewards of a trial, step by step.

The treatment of signs, NaN, and pruned, failed and infeasible trials is decided here and nowhere else.

Notation: B trials, S steps, K objectives. An *outcome* is an objective's value with its sign such that more
is better. ``outcomes[k]`` was measured after step k, and is NaN where nothing was.

===========  =================================================================================================
complete     its values; also its reports after each layer, if they measure the same as the values
pruned       its last report, and earlier ones that a parameter followed; the worst outcome if it has none
failed       the worst outcome; ignored if it had reported something since its last parameter
infeasible   the worst outcome for the whole trial, whatever its values; its reports between layers count
infinite     counts as the worst or the best rank, and is never used in arithmetic
===========  =================================================================================================

The *return* of a step is the best outcome at this step or later. With gamma = 1 the progressive rewards, each
layer's gain (section IV of the paper), telescope to it.
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
    """Return the outcomes ``[S, K]`` of a finished trial, or None if nothing can be learned from it.

    Reports count only if they are values of layers: some came between the layers, one came after the last,
    and the trial's value is the last or the best of them. Other reports are progress information, and only
    the final value counts. If no report came after the last layer and the value is the best of those before,
    the last layer was requested but not tried: its outcome is unknown.
    """
    values = trial.values
    is_infeasible = any(value > 0 for value in trial.constraints.values())
    if not trial.state.is_finished() or len(episode) == 0:
        return None
    signs = signs_of(directions)
    outcomes = np.full((len(episode), len(directions)), np.nan)
    if trial.state == TrialState.FAIL:
        if max(trial.intermediate_values, default=-1) > episode.last_reported:
            return None  # it failed during the evaluation, which says nothing about its parameters
        values = None
    if not values or len(values) != len(directions) or any(math.isnan(value) for value in values):
        if trial.state == TrialState.COMPLETE and not is_infeasible:
            return None
        outcomes[-1] = -math.inf
        return outcomes
    outcomes[-1] = signs * np.asarray(values)
    between = ~np.isnan(episode.reports)
    if len(directions) == 1 and between.any():
        reports = {step: signs[0] * report for step, report in trial.intermediate_values.items()}
        last = reports[max(reports)]
        behind_last_layer = max(reports) > episode.last_reported
        best = max(reports.values(), key=lambda report: -math.inf if math.isnan(report) else report)
        if behind_last_layer and outcomes[-1, 0] in (last, best):
            outcomes[between, 0] = signs[0] * episode.reports[between]
            outcomes[-1, 0] = -math.inf if math.isnan(last) else last  # diverged: nothing is worse
        elif not behind_last_layer and not between[-1] and outcomes[-1, 0] == best:
            outcomes[between, 0] = signs[0] * episode.reports[between]
            outcomes[-1, 0] = np.nan
    if is_infeasible:
        outcomes[-1] = -math.inf
    return outcomes


def signs_of(directions: Sequence[StudyDirection]) -> np.ndarray:
    """Return ``[K]``: 1 for an objective to maximise, -1 for one to minimise."""
    return np.array([-1.0 if direction == StudyDirection.MINIMIZE else 1.0 for direction in directions])


def returns_of(outcomes: np.ndarray) -> np.ndarray:
    """Return the best outcome at or after each step. Axis 1 of ``[B, S, ...]`` is the steps.

    Examples:
        >>> returns_of(np.array([[0.7, 0.9, np.nan, 0.8]]))
        array([[0.9, 0.9, 0.8, 0.8]])
    """
    return np.fmax.accumulate(outcomes[:, ::-1], axis=1)[:, ::-1]


def rewards_of(outcomes: np.ndarray, start: float = 0.0) -> np.ndarray:
    """Return each step's gain, ``[B, S]``, the first over ``start``; 0 for a step without outcome.

    Examples:
        >>> rewards_of(np.array([[0.75, np.nan, 0.5]]))
        array([[ 0.75,  0.  , -0.25]])
    """
    known = np.full(len(outcomes), start)
    rewards = np.zeros_like(outcomes)
    for k in range(outcomes.shape[1]):
        now = np.where(np.isnan(outcomes[:, k]), known, outcomes[:, k])
        rewards[:, k] = now - known
        known = now
    return rewards
