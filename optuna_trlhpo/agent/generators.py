"""Random generators that depend on the seed, the purpose and the place in a study, and on nothing else."""

from __future__ import annotations

import numpy as np

_PURPOSES = ("independent", "learn", "noise", "weights", "propose", "chance", "open")
"""Seeds depend on the order: studies of earlier versions must go on as they began."""


def make_generator(seed: int, purpose: str, *place: int) -> np.random.Generator:
    """A generator of its own for a purpose and a place, such as the number of a trial.

    Example:
        >>> make_generator(0, "noise", 3).random() == make_generator(0, "noise", 3).random()
        True
    """
    return np.random.default_rng((seed, _PURPOSES.index(purpose), *place))
