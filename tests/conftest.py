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


ONE_IN = 8


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of the cases of a long test, run one in eight; all with ``TRLHPO_ALL_CASES``, or of ``every_case``.

    Those that are ``rare`` run only with ``TRLHPO_ALL_CASES``.
    """
    if os.environ.get("TRLHPO_ALL_CASES"):
        return
    cases: Counter[str] = Counter()  # by test: its long cases so far
    left_out = set()
    for item in items:
        test, _, case = item.nodeid.partition("[")
        if item.get_closest_marker("rare") is not None:
            left_out.add(item)
            continue
        if item.get_closest_marker("every_case") is not None:
            continue
        if case and item.get_closest_marker("slow") is not None:
            if cases[test] % ONE_IN:
                left_out.add(item)
            cases[test] += 1
    config.hook.pytest_deselected(items=[item for item in items if item in left_out])
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(autouse=True)
def quiet_optuna() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)
