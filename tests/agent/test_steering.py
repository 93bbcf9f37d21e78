"""Whether reports inform later choices, and what they say beyond the parameters before them."""

import numpy as np

from optuna_trlhpo.agent.steering import Steering, surprises


def test_surprises_are_ranked_among_reports_of_the_same_number() -> None:
    errors = np.array([0.1, -2.0, 3.0, 10.0, 20.0])
    ranks = surprises(errors, np.array([0, 0, 0, 1, 1]))
    np.testing.assert_allclose(ranks, [0.5, 0.5 / 3, 2.5 / 3, 0.25, 0.75])


def test_contexts_act_only_while_they_make_the_values_clearly_more_probable() -> None:
    steering: Steering[list[int]] = Steering(list)
    assert steering.critic(2) is None  # too few trials to tell
    first = steering.critic(8)
    assert first is not None
    assert not steering.judge(1.0, 0.0, 8)  # a small advantage is chance
    assert steering.critic(9) is None  # it takes more trials before they are judged again
    second = steering.critic(20)
    assert second is not None and second is not first
    assert steering.judge(20.0, 0.0, 20)
    assert steering.critic(21) is second  # it goes on learning
    assert not steering.judge(20.0, 30.0, 21) and steering.critic(22) is None
