"""What a trial was worth, by hand: states, signs, which reports count, returns, rewards, ranks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import IntDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState

from optuna_trlhpo.trials.episode import read_episode
from optuna_trlhpo.trials.outcome_transforms import (
    HIGHEST_SCORE,
    EmpiricalCDF,
    OutcomeTransform,
    normal_scores,
    scalarise,
)
from optuna_trlhpo.trials.rewards import returns_of, rewards_of, signed_outcomes, signs_of

MAXIMIZE, MINIMIZE = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
NAN, INF = math.nan, math.inf


def outcomes(
    values: float | Sequence[float] | None,
    *,
    reports: dict[int, float] | None = None,
    marks: Sequence[tuple[int, int]] = (),
    n_steps: int = 3,
    state: TrialState = TrialState.COMPLETE,
    directions: Sequence[StudyDirection] = (MAXIMIZE,),
    constraints: dict[str, float] | None = None,
) -> Any:
    """Outcomes of a trial of one parameter a step; ``marks`` as the sampler notes it."""
    names = [f"x{k}" for k in range(n_steps)]
    trial = optuna.trial.FrozenTrial(
        number=0,
        state=state,
        value=None,
        values=[values] if isinstance(values, int | float) else values,
        datetime_start=None,
        datetime_complete=None,
        params={name: 0 for name in names},
        distributions={name: IntDistribution(0, 3) for name in names},
        user_attrs={},
        system_attrs=optuna.trial.create_trial(value=0, constraints=constraints).system_attrs,
        intermediate_values=reports or {},
        trial_id=0,
    )
    found = signed_outcomes(trial, read_episode(trial, marks), directions)
    return None if found is None else found.tolist()


def assert_same(found: Any, expected: Any) -> None:
    np.testing.assert_array_equal(np.array(found, dtype=float), np.array(expected, dtype=float))


LAYERWISE: dict[str, Any] = dict(reports={0: 0.7, 1: 0.8, 2: 0.75}, marks=[(1, 0), (2, 1)])


# Which trials teach something -------------------------------------------------------------------------


def test_a_complete_trial_is_worth_its_value() -> None:
    assert_same(outcomes(0.8), [[NAN], [NAN], [0.8]])
    assert_same(outcomes(0.8, directions=[MINIMIZE]), [[NAN], [NAN], [-0.8]])
    assert_same(outcomes(-2.5, directions=[MINIMIZE]), [[NAN], [NAN], [2.5]])


def test_infinite_values_are_kept() -> None:
    assert_same(outcomes(INF), [[NAN], [NAN], [INF]])
    assert_same(outcomes(INF, directions=[MINIMIZE]), [[NAN], [NAN], [-INF]])


@pytest.mark.parametrize("state", [TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING])
def test_a_trial_that_was_on_its_way_teaches_nothing(state: TrialState) -> None:
    assert outcomes(None, state=state, **LAYERWISE) is None
    assert outcomes(0.8, state=state, **LAYERWISE) is None


def test_what_failed_or_was_pruned_without_a_report_is_the_worst_there_is() -> None:
    for state in (TrialState.FAIL, TrialState.PRUNED):
        assert_same(outcomes(None, state=state), [[NAN], [NAN], [-INF]])
        assert_same(outcomes(None, state=state, directions=[MINIMIZE]), [[NAN], [NAN], [-INF]])


def test_what_else_teaches_nothing() -> None:
    assert outcomes(NAN) is None
    assert outcomes(None) is None
    assert outcomes([], directions=[]) is None
    assert outcomes(0.8, n_steps=0) is None
    assert outcomes([0.8, NAN], directions=[MAXIMIZE, MINIMIZE]) is None
    assert outcomes([0.8, 0.1]) is None  # another number of objectives


def test_an_infeasible_trial_is_the_worst_that_there_is() -> None:
    assert_same(outcomes(0.9, constraints={"a": -1.0, "b": 0.0}), [[NAN], [NAN], [0.9]])
    assert_same(outcomes(0.9, constraints={"a": -1.0, "b": 0.1}), [[NAN], [NAN], [-INF]])
    assert_same(outcomes(0.9, constraints={"a": 1}, directions=[MINIMIZE]), [[NAN], [NAN], [-INF]])
    assert_same(
        outcomes([0.9, 3.0], constraints={"a": 1}, directions=[MAXIMIZE, MINIMIZE]),
        [[NAN] * 2] * 2 + [[-INF] * 2],
    )
    assert_same(outcomes(0.8, **LAYERWISE, constraints={"a": 1}), [[0.7], [0.8], [-INF]])


def test_a_trial_that_was_pruned_as_infeasible_needs_no_value() -> None:
    pruned: dict[str, Any] = dict(state=TrialState.PRUNED)
    assert_same(outcomes(None, **pruned, constraints={"a": 1.0}), [[NAN], [NAN], [-INF]])
    assert_same(outcomes(None, **pruned, constraints={"a": 0.0}), [[NAN], [NAN], [-INF]])
    assert_same(outcomes(None, state=TrialState.FAIL, constraints={"a": 1.0}), [[NAN], [NAN], [-INF]])


def test_of_a_layer_that_was_given_up_nothing_is_known() -> None:
    """Its parameters were asked for, and the trial ended with what it had."""
    given_up: dict[str, Any] = dict(reports={0: 0.7, 1: 0.8}, marks=[(1, 0), (2, 1)])
    assert_same(outcomes(0.8, **given_up), [[0.7], [0.8], [NAN]])
    assert_same(outcomes(0.9, **given_up), [[NAN], [NAN], [0.9]])  # it came to something else


def test_several_objectives() -> None:
    found = outcomes([0.8, 30.0], directions=[MAXIMIZE, MINIMIZE], n_steps=2)
    assert_same(found, [[NAN, NAN], [0.8, -30.0]])


# Which reports count ----------------------------------------------------------------------------------


def test_reports_after_each_layer_count() -> None:
    assert_same(outcomes(0.75, **LAYERWISE), [[0.7], [0.8], [0.75]])  # the value is the last of them
    assert_same(outcomes(0.80, **LAYERWISE), [[0.7], [0.8], [0.75]])  # the value is the best of them
    assert_same(outcomes(0.75, directions=[MINIMIZE], **LAYERWISE), [[-0.7], [-0.8], [-0.75]])
    assert_same(outcomes(0.70, directions=[MINIMIZE], **LAYERWISE), [[-0.7], [-0.8], [-0.75]])


def test_reports_that_are_not_of_the_values_kind_do_not_count() -> None:
    assert_same(outcomes(0.9, **LAYERWISE), [[NAN], [NAN], [0.9]])  # neither the last nor the best
    assert_same(outcomes(0.8, directions=[MINIMIZE], **LAYERWISE), [[NAN], [NAN], [-0.8]])  # the worst
    # A signal on the way: nothing is reported behind the last layer.
    signal: dict[str, Any] = dict(reports={0: 0.7, 1: 0.8}, marks=[(1, 0), (2, 1)])
    assert_same(outcomes(0.75, **signal), [[NAN], [NAN], [0.75]])
    # Epochs: all of them behind the last parameter.
    epochs: dict[str, Any] = dict(reports={0: 0.5, 1: 0.6, 2: 0.7})
    assert_same(outcomes(0.7, **epochs), [[NAN], [NAN], [0.7]])


def test_a_layer_without_a_report_has_no_outcome() -> None:
    found = outcomes(0.9, reports={0: 0.7, 1: 0.9}, marks=[(2, 0)], n_steps=3)
    assert_same(found, [[NAN], [0.7], [0.9]])
    # Several reports after one layer: the last that was seen stands for it.
    found = outcomes(0.9, reports={0: 0.2, 1: 0.7, 2: 0.3, 3: 0.9}, marks=[(1, 1)], n_steps=2)
    assert_same(found, [[0.7], [0.9]])


def test_a_pruned_trial_is_worth_its_reports() -> None:
    assert_same(outcomes(0.75, state=TrialState.PRUNED, **LAYERWISE), [[0.7], [0.8], [0.75]])
    epochs: dict[str, Any] = dict(reports={0: 0.5, 1: 0.6}, state=TrialState.PRUNED)
    assert_same(outcomes(0.6, **epochs), [[NAN], [NAN], [0.6]])


def test_infinite_and_missing_numbers_among_reports() -> None:
    found = outcomes(0.8, reports={0: -INF, 1: 0.7, 2: 0.8}, marks=[(1, 0), (2, 1)])
    assert_same(found, [[-INF], [0.7], [0.8]])
    found = outcomes(0.8, reports={0: NAN, 1: 0.7, 2: 0.8}, marks=[(1, 0), (2, 1)])
    assert_same(found, [[NAN], [0.7], [0.8]])
    found = outcomes(0.8, reports={0: NAN, 1: 0.8, 2: 0.7}, marks=[(1, 0), (2, 1)])
    assert_same(found, [[NAN], [0.8], [0.7]])
    found = outcomes(0.8, reports={0: 0.7, 1: 0.8, 2: NAN}, marks=[(1, 0), (2, 1)])
    assert_same(found, [[0.7], [0.8], [-INF]])  # the last layer broke it


def test_a_real_study_end_to_end() -> None:
    """Pruned, failed and complete, as Optuna stores them."""
    study = optuna.create_study(direction="minimize")

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_int("x0", 0, 3)
        if trial.number == 0:
            raise RuntimeError
        trial.report(0.4, step=0)
        if trial.number == 1:
            raise optuna.TrialPruned
        trial.suggest_int("x1", 0, 3)
        trial.report(0.3, step=1)
        return math.nan if trial.number == 2 else 0.3

    study.optimize(objective, n_trials=4, catch=RuntimeError)
    found = [
        signed_outcomes(
            trial, read_episode(trial, [(1, 0)] if "x1" in trial.params else []), study.directions
        )
        for trial in study.trials
    ]
    assert_same(found[0], [[-INF]])  # whether that is believed is decided by whoever knows the whole study
    assert found[2] is None
    assert_same(found[1], [[-0.4]])
    assert_same(found[3], [[-0.4], [-0.3]])


# Returns and rewards ----------------------------------------------------------------------------------


def test_returns() -> None:
    table = np.array(
        [[0.7, 0.9, NAN, 0.8], [NAN, NAN, NAN, 0.1], [0.5, 0.6, NAN, NAN], [-INF, 0.2, INF, 0.3]]
    )
    expected = [[0.9, 0.9, 0.8, 0.8], [0.1] * 4, [0.6, 0.6, NAN, NAN], [INF, INF, INF, 0.3]]
    assert_same(returns_of(table), expected)
    several = np.array([[[0.1, -5.0], [NAN, NAN], [0.3, -9.0]]])
    assert_same(returns_of(several), [[[0.3, -5.0], [0.3, -9.0], [0.3, -9.0]]])


def test_rewards_telescope() -> None:
    table = np.array([[0.75, NAN, 0.5, 1.0], [NAN, 0.25, NAN, NAN]])
    rewards = rewards_of(table)
    assert_same(rewards, [[0.75, 0, -0.25, 0.5], [0, 0.25, 0, 0]])
    assert_same(rewards.sum(axis=1), [1.0, 0.25])  # what the last known prefix is worth


def test_signs() -> None:
    assert signs_of([MAXIMIZE, MINIMIZE]).tolist() == [1.0, -1.0]


# Scales -----------------------------------------------------------------------------------------------


def scale_of(*values: float) -> EmpiricalCDF:
    scale = EmpiricalCDF()
    for value in values:
        scale.add(value)
    return scale


def test_ranks_by_hand() -> None:
    scale = scale_of(3, 1, 2, 2)
    # below / 4 and half of the ties: 1 -> 0.5 / 4, 2 -> (1 + 1) / 4, 3 -> 3.5 / 4
    assert_same(scale.rank(np.array([0, 1, 1.5, 2, 3, 9, NAN])), [0, 0.125, 0.25, 0.5, 0.875, 1, NAN])
    assert_same(scale.rank(np.array([[INF], [-INF]])), [[1], [0]])
    scale.add(INF)
    assert_same(scale.rank(np.array([INF, 3])), [0.9, 0.7])  # known by then: the new one counts at once


def test_ranks_before_anything_was_seen() -> None:
    assert_same(EmpiricalCDF().rank(np.array([0.3, NAN])), [0.5, NAN])


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30))
def test_ranks_are_in_order_and_their_mean_is_a_half(values: list[float]) -> None:
    ranks = scale_of(*values).rank(np.array(values))
    assert ((0 < ranks) & (ranks < 1)).all()
    assert ranks.mean() == pytest.approx(0.5)
    for (a, rank_a), (b, rank_b) in itertools.product(zip(values, ranks, strict=True), repeat=2):
        assert (a < b) == (rank_a < rank_b)


def test_unit_leaves_accuracies_and_errors_alone() -> None:
    values = np.array([0.0, 0.3, 1.0, 1.2, -0.1, NAN])
    assert_same(scale_of(0.5, 0.9).unit(values), [0, 0.3, 1, 1, 0, NAN])
    # Error rates, their sign turned: 1 - error.
    assert_same(scale_of(-0.5, -0.25).unit(np.array([-0.25, -1.0, 0.0, -3.0])), [0.75, 0, 1, 0])
    # Anything else: by rank, with what is infinite at the end.
    for odd in (1.5, -0.5, INF, -INF):
        scale = scale_of(0.5, 0.9, odd)
        assert_same(scale.unit(np.array([0.5, odd])), scale.rank(np.array([0.5, odd])))
    assert_same(scale_of(-2.0, -0.5).unit(np.array([-0.5])), [0.75])
    assert_same(EmpiricalCDF().unit(np.array([0.3])), [0.3])


def test_normal_scores() -> None:
    ranks = np.linspace(0, 1, 1001)
    scores = normal_scores(ranks)
    assert (np.diff(scores) >= 0).all() and (np.diff(scores[1:-1]) > 0).all()
    np.testing.assert_allclose(scores, -scores[::-1], atol=1e-12)
    assert scores[500] == pytest.approx(0, abs=1e-12)
    # The rank of the best of many is 1, whose quantile would be infinite: it ends at Phi^-1(0.999).
    assert scores[-1] == HIGHEST_SCORE == -scores[0] == pytest.approx(3.090232, rel=1e-6)
    assert normal_scores(np.array([0.975]))[0] == pytest.approx(1.959964, rel=1e-4)
    assert np.isnan(normal_scores(np.array([NAN]))[0])


def scores_of(*outcomes: float) -> list[float]:
    return OutcomeTransform(np.array(outcomes))(np.array(outcomes)).tolist()


def test_scores_by_hand() -> None:
    # Median 1.5; the better half lies 0.5 and 1.5 above, 1 in the mean, times 1.25.
    assert scores_of(1.0, 2.0, 3.0, 0.0) == pytest.approx(
        [-math.log1p(0.5 / 1.25), 0.4, 1.2, -math.log1p(1.5 / 1.25)]
    )
    # New outcomes are scored by what was seen, and never beyond it.
    scores = OutcomeTransform(np.array([1.0, 2.0, 3.0, 0.0]))
    assert_same(scores(np.array([1.5, 3.0, 99.0, INF])), [0, 1.2, 1.2, 1.2])
    assert_same(scores(np.array([-99.0, -INF])), [scores_of(1.0, 2.0, 3.0, 0.0)[3]] * 2)


def test_what_halves_an_error_counts_alike() -> None:
    """For accuracies and for error rates, as long as the error is well above 0.001."""
    errors = [0.9, 0.8, 0.4, 0.2, 0.1, 0.6, 0.7]
    of_accuracies = scores_of(*(1 - error for error in errors))
    first, second = np.diff(of_accuracies[2:5])
    assert first == pytest.approx(second, rel=0.01)
    assert scores_of(*(-error for error in errors)) == pytest.approx(of_accuracies)
    # On a scale without an end they are taken as they are: the second step is half as large.
    first, second = np.diff(scores_of(*(3 - error for error in errors))[2:5])
    assert first == pytest.approx(2 * second)


def test_scores_of_what_is_always_the_same() -> None:
    for outcome in (0.0, 0.5, 1.0, -3.0, INF, -INF):
        assert scores_of(outcome) == [0] and scores_of(outcome, outcome, outcome) == [0, 0, 0]


def test_an_infinite_outcome_is_scored_as_the_worst_or_the_best() -> None:
    worst, low, high, best = scores_of(-INF, 0.2, 0.9, INF)
    assert (worst, best) == (low, high) and low < high


def test_what_is_held_of_the_unit_counts_as_four_values() -> None:
    accuracies = [0.5, 0.6, 0.7, 0.8, 0.9]  # the median is 0.7; two are above it
    above = [math.log(0.301 / 0.201), math.log(0.301 / 0.101)]
    own = 1.25 * sum(above) / 2
    for outcomes in (np.array(accuracies), np.array(accuracies) - 1):  # or negated errors
        assert OutcomeTransform(outcomes).unit == pytest.approx(own)
        scores = OutcomeTransform(outcomes, unit=2.0)
        assert scores.unit == pytest.approx((2 * own + 4 * 2.0) / 6)
        np.testing.assert_allclose(scores(outcomes[3:]), np.array(above) / scores.unit)
    # Of hundreds of values it hardly counts, once they differ more than the first few.
    many = OutcomeTransform(np.concatenate([[0.7] * 20, np.tile(accuracies, 100)]), unit=0.1)
    assert many.unit == pytest.approx(own, rel=0.05)


def test_the_unit_never_shrinks() -> None:
    """Where a search has settled, what differs is noise, and not the measure of things."""
    first = [0.5, 0.6, 0.7, 0.8, 0.9, 0.65, 0.75, 0.7]
    settled = 0.9 + 0.001 * np.random.default_rng(0).standard_normal(100)
    at_first = OutcomeTransform(np.array(first)).unit
    assert OutcomeTransform(np.concatenate([first, settled])).unit == pytest.approx(at_first)
    assert OutcomeTransform(np.concatenate([settled, first])).unit < at_first  # the order counts


def test_the_unit_of_a_first_accuracy_is_what_it_is_held_to_be() -> None:
    assert OutcomeTransform(np.array([0.9]), unit=0.7).unit == pytest.approx(0.7)
    assert OutcomeTransform(np.array([0.9])).unit == 1
    assert OutcomeTransform(np.array([0.9, 0.9, -INF]), unit=0.7)(np.array([0.9, -INF])).tolist() == [0, 0]


def test_a_unit_of_errors_says_nothing_of_another_scale() -> None:
    for outcomes in ([1.0, 2.0, 3.0, 0.0], [5.0], [-3.0, -2.0, -0.5]):
        with_prior, without = (OutcomeTransform(np.array(outcomes), unit=unit) for unit in (9.0, None))
        assert with_prior.unit == without.unit


def test_scores_before_anything_was_seen() -> None:
    assert OutcomeTransform(np.zeros(0)).unit == 1 and OutcomeTransform(
        np.zeros(0), unit=0.7
    ).unit == pytest.approx(0.7)
    for scores in (
        OutcomeTransform(np.zeros(0)),
        OutcomeTransform(np.zeros(0), unit=0.7),
        OutcomeTransform(np.array([INF, -INF])),
    ):
        found = scores(np.array([-5.0, 0.3, 1.0, INF]))
        assert np.ptp(found) == 0 and abs(found[0]) < 0.01  # nothing can be told apart


@given(st.lists(st.one_of(st.floats(-1e6, 1e6), st.floats(0, 1)), min_size=1, max_size=20))
def test_scores_are_in_order_and_finite(outcomes: list[float]) -> None:
    scores = scores_of(*outcomes)
    assert np.isfinite(scores).all()
    for (a, score_a), (b, score_b) in itertools.product(zip(outcomes, scores, strict=True), repeat=2):
        assert a > b or score_a <= score_b


# Several objectives -----------------------------------------------------------------------------------


def test_one_objective_is_its_own_scalar() -> None:
    assert_same(scalarise(np.array([[0.2], [0.9]]), np.array([[1.0], [1.0]])), [0.2, 0.9])


def test_scalarise_by_hand() -> None:
    ranks = np.array([[1.0, 1.0], [0.0, 0.0], [1.0, 0.5], [0.5, 1.0]])
    weights = np.array([0.8, 0.2])
    # 1 - max(w * (1 - rank)) / max(w): 0.2 * 0.5 / 0.8 = 0.125, 0.8 * 0.5 / 0.8 = 0.5
    np.testing.assert_allclose(scalarise(ranks, weights), [1.0, 0.0, 0.875, 0.5])


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.5)), min_size=2, max_size=4),
    st.lists(st.floats(0.01, 1), min_size=4, max_size=4),
)
def test_what_dominates_is_preferred(points: list[tuple[float, float]], weights: list[float]) -> None:
    worse = np.array([p for p, _ in points])
    better = np.minimum(worse + [gain for _, gain in points], 1)
    w = np.array(weights[: len(points)])
    assert 0 <= scalarise(worse, w) <= scalarise(better, w) <= 1
    higher = (worse + 1.0) / 2  # better in every objective that is not at its best already
    if (worse < 0.99).all():
        assert scalarise(worse, w) < scalarise(higher, w)


def test_weights_reach_all_of_the_front() -> None:
    front = np.array([[1.0, 0.0], [0.9, 0.6], [0.6, 0.9], [0.0, 1.0]])
    chosen = {
        int(np.argmax(scalarise(front, np.array([share, 1 - share]))))
        for share in np.linspace(0.01, 0.99, 99)
    }
    assert chosen == {0, 1, 2, 3}


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=20),
    st.sampled_from([(1.0, 0.0), (-1.0, 0.0), (1.0, 5.0), (-300.0, 7.0)]),
)
def test_outcomes_are_found_again_by_their_scores(values: list[float], scale: tuple[float, float]) -> None:
    factor, shift = scale
    outcomes = factor * np.array(values) + shift
    scores = OutcomeTransform(outcomes)
    tolerance = 1e-6 * (1 + np.abs(outcomes).max())
    told_apart = np.maximum(outcomes, scores.lowest)
    np.testing.assert_allclose(scores.inverse(scores(outcomes)), told_apart, atol=tolerance)


def test_no_score_is_better_than_all_that_is_possible() -> None:
    scores = OutcomeTransform(np.array([0.5, 0.9, 0.99]))
    assert scores.inverse(np.array([50.0])).tolist() == [1.0]
