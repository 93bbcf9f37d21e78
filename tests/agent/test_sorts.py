"""When to look at another sort of configuration, and at which."""

from __future__ import annotations

from collections import Counter

import numpy as np

from optuna_trlhpo.agent.configurations.sorts import SortHistory, Tried, sorts_of

TEMPLATE = np.array([0, 1, 1, 2])  # a choice, two places of one parameter, and one of another
N = np.nan
ONE, TWO, OTHER = [0.1, 0.5, N, N], [0.1, 0.5, 0.5, N], [0.9, N, N, 0.5]
_, _, other = sorts_of(np.array([ONE, TWO, OTHER]), TEMPLATE)


def tried(rows, values):
    rows = np.array(rows)
    history = SortHistory()
    for n in range(1, len(rows) + 1):
        history.update(rows[:n], TEMPLATE)
    return Tried(history, rows, list(range(len(rows))), np.array(values, dtype=float), TEMPLATE)


def test_places_of_one_parameter_are_of_one_sort_and_exactly_of_two():
    rows = np.array([ONE, TWO, OTHER])
    assert len(set(sorts_of(rows, TEMPLATE))) == 2
    assert len(set(sorts_of(rows, TEMPLATE, exact=True))) == 3


def test_several_trials_of_the_best_sort_come_first():
    assert not tried([OTHER, ONE, ONE], [0, 1, 2]).is_time_for_another()
    assert tried([OTHER, ONE, ONE, TWO], [0, 1, 2, 3]).is_time_for_another()


def test_another_sort_is_looked_at_while_it_may_come_to_the_best():
    rows = np.array([ONE, TWO, OTHER])
    assert tried([OTHER, ONE, ONE, TWO], [2, 1, 2, 3]).another(rows) == other
    often = [*[OTHER] * 60, ONE, ONE, TWO]
    assert tried(often, [*[0] * 60, 1, 2, 3]).another(rows) is None
    assert tried([OTHER, ONE, ONE, TWO], [2, 1, 2, 3]).another(rows[:2]) is None


def test_where_nothing_is_gained_another_sort_comes_sooner():
    rows = [OTHER, *[ONE] * 11]
    assert not tried([*rows[:10], OTHER, ONE], [0, *[1] * 9, 0, 1.5]).is_time_for_another()
    assert tried([*rows[:10], OTHER, ONE], [0, 1, *[1] * 8, 0, 1]).is_time_for_another()


def test_where_nothing_is_gained_other_sizes_are_looked_at_too():
    rows = [OTHER, *[ONE] * 14]
    stuck = tried(rows, [0, *[1] * 14])
    assert stuck.is_time_for_another()
    (two,) = sorts_of(np.array([TWO]), TEMPLATE, exact=True)
    assert stuck.another(np.array([ONE, TWO, OTHER])) == two


def test_a_history_is_as_if_computed_at_once():
    rows = np.array([ONE, TWO, OTHER, ONE, TWO])
    history = SortHistory().update(rows[:2], TEMPLATE, version=1)
    for version in (1, 2):
        history.update(rows, TEMPLATE, version=version)
        assert history.sorts == sorts_of(rows, TEMPLATE)
        assert history.visits == Counter(sorts_of(rows, TEMPLATE))
        assert history.exact_visits == Counter(sorts_of(rows, TEMPLATE, exact=True))
