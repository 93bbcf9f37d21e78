"""A plan for a configuration."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from optuna_trlhpo.agent.configurations.sorts import Sort
from optuna_trlhpo.trials.path import Path


@dataclass
class ConfigurationPlan:
    """A whole configuration, as far as it can be told.

    Attributes:
        path: Its parameters.
        whole: Whether the objective should ask for no more.
        score: What the acquisition function holds of it.
        mean, deviation: The score that the critic expects, and how far off it may be.
        key: Tells configurations apart.
    """

    path: Path
    whole: bool
    score: float
    mean: float
    deviation: float
    key: bytes
    row: np.ndarray = field(repr=False)
    sort: Sort | None = None
    """What sort of configuration it had to be; None: any."""
