"""What the tests of the agent build networks with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from optuna_trlhpo.agent.sequences import Networks

Slot = tuple[int, int, int, float]
"""Stem, index, number of values, action."""


@pytest.fixture
def networks_of() -> Callable[..., Networks]:
    """Networks of four slots a step; each network a list of steps, each step a list of slots."""

    def make(
        *networks: Sequence[Sequence[Slot]], context: Sequence[Sequence[float]] | None = None
    ) -> Networks:
        S = max(map(len, networks), default=1)
        shape = (len(networks), S, 4)
        made = Networks(
            np.full(shape, np.nan),
            np.full(shape, -1, dtype=np.int64),
            np.full(shape, -1, dtype=np.int64),
            np.zeros(shape, dtype=np.int64),
            np.full(shape[:2], np.nan),
            np.zeros((len(networks), 0)),
            np.zeros((len(networks), 0)),
        )
        for n, steps in enumerate(networks):
            for s, slots in enumerate(steps):
                for a, (base_name, index, n_values, action) in enumerate(slots):
                    made.names[n, s, a], made.indices[n, s, a] = base_name, index
                    made.n_values[n, s, a], made.actions[n, s, a] = n_values, action
            if context is not None:
                made.context[n, : len(context[n])] = context[n]
        return made

    return make
