"""Rewards in [0, 1] of the finished trials of a study.

Notation: N trials, K objectives. An *outcome* is an objective's value with its sign such that more is better.

===========  =================================================================================================
complete     its values
pruned       its last report, or as failed if it has none
infeasible   less than every feasible trial: a constraint is above 0
failed       less than every other trial
===========  =================================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from optuna_trlhpo.trials.outcome_transforms import ranks_of, scalarise
from optuna_trlhpo.trials.rewards import signs_of


def outcomes_of(trial: FrozenTrial, directions: Sequence[StudyDirection]) -> np.ndarray:
    """Return the outcomes ``[K]`` of a finished trial; all of them are NaN where one is unknown."""
    values = trial.values
    if not values or len(values) != len(directions) or any(math.isnan(value) for value in values):
        return np.full(len(directions), np.nan)
    return signs_of(directions) * np.asarray(values, dtype=float)


def accuracies_or_ranks(outcomes: np.ndarray, feasible: np.ndarray) -> np.ndarray:
    """Return the rewards ``[N]`` of one objective.

    Outcomes in [0, 1], such as accuracies, are rewards as they stand. If all are in [-1, 0], as error rates
    that are minimised, 1 is added. If any is outside both ranges, rewards are ranks: the share of outcomes
    below, ties counted half. Failed and infeasible trials have the reward 0.

    Args:
        outcomes: ``[N]`` outcomes, NaN for failed trials.
        feasible: ``[N]`` whether no constraint is violated.

    Examples:
        >>> accuracies_or_ranks(np.array([0.9, np.nan, 0.6]), np.array([True, True, False])).tolist()
        [0.9, 0.0, 0.0]
        >>> accuracies_or_ranks(np.array([5.0, 70.0]), np.array([True, True])).tolist()
        [0.25, 0.75]
    """
    known = feasible & ~np.isnan(outcomes)
    rewards = np.zeros(len(outcomes))
    low, high = np.min(outcomes[known], initial=np.inf), np.max(outcomes[known], initial=-np.inf)
    if low >= 0 and high <= 1:
        rewards[known] = outcomes[known]
    elif low >= -1 and high <= 0:
        rewards[known] = outcomes[known] + 1
    else:
        rewards[known] = ranks_of(np.where(known, outcomes, -np.inf))[known]
    return rewards


def global_rewards(outcomes: np.ndarray, violations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the rewards ``[N]`` of any objectives and constraints: the rank of each trial among all.

    A feasible trial is better than an infeasible one, and that better than a failed one. Of feasible trials
    the better is the one with the smaller weighted Chebyshev distance from the best rank in each objective;
    of infeasible ones, that with the smaller violation, summed over the constraints in units of the largest
    violation of each.

    Args:
        outcomes: ``[N, K]`` outcomes, NaN for failed trials.
        violations: ``[N, C]`` how much each trial exceeds each of C constraints, 0 where it does not.
        weights: ``[K]`` positive weights of the objectives.

    Examples:
        >>> outcomes = np.array([[3.0, 1.0], [2.0, 2.0], [9.0, 9.0], [np.nan, np.nan]])
        >>> violations = np.array([[0.0], [0.0], [0.5], [0.0]])
        >>> global_rewards(outcomes, violations, np.array([1.0, 4.0])).tolist()
        [0.625, 0.875, 0.375, 0.125]
    """
    failed = np.isnan(outcomes).any(axis=1)
    largest = np.max(np.where(np.isfinite(violations), violations, 0.0), axis=0, initial=0.0)
    violation = np.sum(violations / np.where(largest > 0, largest, 1.0), axis=1)
    feasible = ~failed & (violation == 0)
    score = np.zeros(len(outcomes))
    if feasible.any():
        ranks = np.stack([ranks_of(column) for column in outcomes[feasible].T], axis=-1)
        score[feasible] = scalarise(ranks, weights)
    key = np.where(feasible, score, np.where(failed, -np.inf, -1 - violation))
    return ranks_of(key)


def violations_of(constraints: Sequence[dict[str, float]]) -> np.ndarray:
    """Return how much each trial exceeds each constraint, ``[N, C]``; 0 where it does not, or lacks it.

    A constraint that is NaN counts as infinitely violated.

    Examples:
        >>> violations_of([{"bytes": 3.0}, {"bytes": -1.0, "seconds": 0.5}, {}]).tolist()
        [[3.0, 0.0], [0.0, 0.5], [0.0, 0.0]]
    """
    names = sorted({name for its in constraints for name in its})
    if not names:
        return np.zeros((len(constraints), 0))
    table = np.array([[its.get(name, 0.0) for name in names] for its in constraints], dtype=float)
    return np.where(np.isnan(table), np.inf, np.maximum(table, 0.0))
