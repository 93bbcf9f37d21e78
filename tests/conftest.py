"""Fixtures that every test may use, and what all of them share: quiet Optuna, patient hypothesis."""

from __future__ import annotations

import os
from collections import Counter
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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out most cases of tests marked ``many_cases``, unless ``TRLHPO_ALL_CASES`` is set."""
    if os.environ.get("TRLHPO_ALL_CASES"):
        return
    seen: Counter[str] = Counter()
    left_out = []
    for item in items:
        if (marker := item.get_closest_marker("many_cases")) is not None:
            function = item.nodeid.partition("[")[0]
            if seen[function] % marker.args[0]:
                left_out.append(item)
            seen[function] += 1
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


@pytest.fixture(autouse=True)
def quiet_optuna() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)
