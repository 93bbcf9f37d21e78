"""What plans are ranked by: an exact posterior, or an ensemble of networks."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from optuna_trlhpo.agent.config import AgentConfig
from optuna_trlhpo.agent.ensemble import Ensemble
from optuna_trlhpo.agent.features import N_PARTS
from optuna_trlhpo.agent.gaussian_process import NOISE_OF_TRAINING, Features, GaussianProcess


class Surrogate(Protocol):
    """Learns what networks are worth; see `GaussianProcess`."""

    def fit(self, x: np.ndarray, y: np.ndarray, features: Features, *, steps: int) -> None: ...

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...

    def attention(self, x: np.ndarray) -> np.ndarray | None: ...

    @property
    def noise(self) -> float: ...

    def sample(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray: ...


def make_surrogate(config: AgentConfig, seed: int, *, noise: float = NOISE_OF_TRAINING) -> Surrogate:
    """The critic that the settings name; ``noise`` is what a posterior expects, see there."""
    if config.critic == "posterior":
        return GaussianProcess(n_parts=N_PARTS, noise=noise)
    return Ensemble(config, body=config.critic, seed=seed)
