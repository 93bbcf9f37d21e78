"""Latencies are measured briefly, for there are many."""

from __future__ import annotations

import functools

import pytest

from optuna_trlhpo.cnn.compress import objective
from optuna_trlhpo.cnn.deploy.cost import measure_latency


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objective, "measure_latency", functools.partial(measure_latency, seconds=0.005))
