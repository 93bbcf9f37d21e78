"""Random generators that depend only on the seed, the purpose and the place in a study."""

from __future__ import annotations

import numpy as np

_PURPOSES = (
    "independent",
    "learn",
    "noise",
    "weights",
    "propose",
    "chance",
    "open",
    "explore",
    "kernel",
    "draw",
)
"""Purposes. Seeds depend on their order, so that studies of earlier versions remain reproducible."""


def make_generator(seed: int, purpose: str, *place: int) -> np.random.Generator:
    """Create the generator for a purpose and a place, such as the number of a trial.

    Examples:
        >>> make_generator(0, "noise", 3).random() == make_generator(0, "noise", 3).random()
        True
    """
    return np.random.default_rng((seed, _PURPOSES.index(purpose), *place))
