"""Whether reports inform later choices, and what they say beyond the parameters before them."""

import numpy as np

from optuna_trlhpo.agent.steering import Steering, surprises


def test_surprises_are_ranked_among_reports_of_the_same_number() -> None:
    errors = np.array([0.1, -2.0, 3.0, 10.0, 20.0])
    ranks = surprises(errors, np.array([0, 0, 0, 1, 1]))
    np.testing.assert_allclose(ranks, [0.5, 0.5 / 3, 2.5 / 3, 0.25, 0.75])


def test_contexts_act_only_while_they_make_the_values_clearly_more_probable() -> None:
    steering: Steering[list[int]] = Steering(list)
    acted = []
    assert steering.candidate(2) is None  # too few trials to tell
    first = steering.candidate(8)
    steering.judge(1.0, 0.0, 8)
    acted.append(steering.acts)  # a small advantage is chance
    assert steering.candidate(9) is None  # it takes more trials before they are judged again
    second = steering.candidate(20)
    assert first is not None and second is not None and second is not first
    steering.judge(20.0, 0.0, 20)
    acted.append(steering.acts)
    assert steering.candidate(21) is second is steering.critic  # it goes on learning
    steering.judge(1.0, 0.0, 21)
    acted.append(steering.acts)  # now a small advantage is enough
    steering.judge(20.0, 30.0, 22)
    acted.append(steering.acts)
    assert steering.candidate(23) is None
    assert acted == [False, True, True, False]
