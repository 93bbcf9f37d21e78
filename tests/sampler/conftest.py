from typing import Any

import optuna
import pytest

from optuna_trlhpo import AgentConfig, TRLHPOSampler


@pytest.fixture(autouse=True)
def _quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(optuna.logging.INFO)


@pytest.fixture
def make_sampler():
    """A sampler whose agent acts from the fourth trial on at the latest, and then in all."""

    def make(**arguments):
        agent = AgentConfig(random_interval=0)
        defaults: dict[str, Any] = {"seed": 0, "n_startup_trials": 3, "agent": agent}
        return TRLHPOSampler(**(defaults | arguments))

    return make
