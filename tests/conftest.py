"""Fixtures that every test may use, and what all of them share: quiet Optuna, patient hypothesis."""

from __future__ import annotations

from collections.abc import Iterator

import optuna
import pytest
from hypothesis import HealthCheck, settings

# The first call that meets a new shape fills a cache and takes longer than the rest: no deadline. Equal
# examples in every run: a test that fails once can be run again.
settings.register_profile(
    "here",
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("here")


@pytest.fixture(autouse=True)
def quiet_optuna() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)
