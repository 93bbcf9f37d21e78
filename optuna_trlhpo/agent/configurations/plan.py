"""Plan of a configuration."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from optuna_trlhpo.agent.configurations.sorts import Sort
from optuna_trlhpo.trials.path import Path


@dataclass
class ConfigurationPlan:
    """Planned configuration, complete as far as the model of the space knows.

    Attributes:
        path: Parameters of the configuration.
        is_complete: Whether the objective is expected to ask for no more parameters.
        score: Value of the acquisition function.
        mean, deviation: Expected score and its standard deviation, by the critic.
        key: Key that identifies the configuration.
        row: ``[D]`` actions of the configuration.
        origin: Proposer of the configuration, see `trials.agent_record.ORIGINS`.
        gain: Expected gain, see `acquisition.expected_gain`; None if reports of the trial informed the plan.
    """

    path: Path
    is_complete: bool
    score: float
    mean: float
    deviation: float
    key: bytes
    row: np.ndarray = field(repr=False)
    origin: str
    gain: float | None
    sort: Sort | None = None
    """Sort to which the plan was restricted; None: any."""
