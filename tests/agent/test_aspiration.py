"""The acquisition function of a choice that reports of the trial inform."""

from __future__ import annotations

import numpy as np
import pytest

from optuna_trlhpo.agent.acquisition import ASPIRATION, acquire
from optuna_trlhpo.agent.gaussian_process import GaussianProcess


class Fixed(GaussianProcess):
    """A critic whose predictions for candidate i are the i-th of two lists."""

    def __init__(self, means: list[float], deviations: list[float]) -> None:
        super().__init__(n_parts=1)
        self._predictions = np.array(means), np.array(deviations)

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._predictions[0][: len(x)], self._predictions[1][: len(x)]


def chosen(means: list[float], deviations: list[float]) -> int:
    """The choice, where networks have values from 0 to 4: the level is 1."""
    of_networks = np.array([0.0, 0.5, 2.0, 4.0])
    critic, z = Fixed(means, deviations), np.zeros((len(means), 1))
    scores = acquire(ASPIRATION, critic, z, of_networks, of_networks, np.random.default_rng(0))
    return int(np.argmax(scores))


@pytest.mark.parametrize(
    ("means", "deviations", "best"),
    [
        ([2.0, 3.0, 1.5], [0.1, 0.1, 0.1], 1),  # above the level: the best mean
        ([3.0, 2.5, 0.0], [0.1, 0.6, 1.0], 0),  # what is little known is not preferred to what is good
        ([0.0, -0.5, 0.2], [0.1, 1.0, 0.1], 1),  # below it: what was hardly tried
        ([0.2, 0.0, -3.0], [0.2, 0.2, 0.2], 0),  # equally well known: the better
    ],
)
def test_the_best_above_the_level_and_the_least_known_below(
    means: list[float], deviations: list[float], best: int
) -> None:
    assert chosen(means, deviations) == best
