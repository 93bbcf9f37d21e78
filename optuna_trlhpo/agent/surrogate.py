"""Surrogate model that ranks plans: an exact posterior, or an ensemble of neural networks."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from optuna_trlhpo.agent.config import AgentConfig
from optuna_trlhpo.agent.ensemble import Ensemble
from optuna_trlhpo.agent.features import N_PARTS
from optuna_trlhpo.agent.gaussian_process import NOISE_OF_TRAINING, Features, GaussianProcess


class Surrogate(Protocol):
    """Surrogate model of the value of networks; see `GaussianProcess` for the methods."""

    def fit(self, x: np.ndarray, y: np.ndarray, features: Features, *, steps: int) -> None:
        """Learn from networks ``x`` ``[N, F]`` with values ``y`` ``[N]``."""

    def fitted(self) -> np.ndarray:
        """Means ``[N]`` of the predictions for the networks of the last fit."""

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation ``[C]`` of the predictions for ``x`` ``[C, F]``."""

    def attention(self, x: np.ndarray) -> np.ndarray | None:
        """Attention weights for ``x`` ``[C, F]``; None for a model without attention."""

    @property
    def evidence(self) -> float | None:
        """Logarithm of the probability of the values, and of what was learned; None where it is unknown."""

    def leave_one_out(self) -> np.ndarray | None:
        """Errors ``[N]`` of the predictions from all other values, in deviations; None where unknown."""

    @property
    def noise(self) -> float:
        """Standard deviation of the noise of a value."""

    def sample(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Values ``[C]`` at ``x`` ``[C, F]`` of one function drawn from the model."""


def make_surrogate(config: AgentConfig, seed: int, *, noise: float = NOISE_OF_TRAINING) -> Surrogate:
    """Create the critic that the settings name; ``noise`` is the noise that a posterior expects at first."""
    if config.critic == "posterior":
        return GaussianProcess(n_parts=N_PARTS, noise=noise)
    return Ensemble(config, body=config.critic, seed=seed)
