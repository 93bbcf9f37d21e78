"""What is said to arguments and studies that `CNNObjective` cannot use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.study import Study, StudyDirection

from optuna_trlhpo.cnn.goals import Counts


def checked_objectives(objectives: Sequence[str]) -> tuple[str, ...]:
    """The names of the objectives, if they are such; else a ``ValueError``."""
    allowed = ("accuracy", *Counts._fields, "latency")
    several = isinstance(objectives, Sequence) and not isinstance(objectives, str)
    names = tuple(map(str, objectives)) if several else (str(objectives),)
    if "accuracy" not in names or len(set(names)) < len(names) or not set(names) <= set(allowed):
        raise ValueError(
            f"objectives is {objectives!r}; it must be accuracy, alone or with some of "
            f"{', '.join(allowed[1:])}"
        )
    return names


def check_directions(study: Study, objectives: tuple[str, ...] = ("accuracy",)) -> None:
    """Raise a ``ValueError`` unless the study has the directions of the objectives."""
    if not isinstance(study, Study):
        raise ValueError(f"study is a {type(study).__name__}; it must be a study of Optuna")
    wanted = [
        StudyDirection.MAXIMIZE if name == "accuracy" else StudyDirection.MINIMIZE for name in objectives
    ]
    if study.directions == wanted:
        return
    if len(wanted) == 1:
        raise ValueError(
            "the study does not maximise one value; CNNObjective returns an accuracy, so create the "
            'study with direction="maximize"'
        )
    directions = [direction.name.lower() for direction in wanted]
    raise ValueError(
        f"the directions of the study are not those of the objectives {', '.join(objectives)}; create it "
        f"with directions={directions}"
    )


def check_positive_integer(name: str, value: Any) -> None:
    """Raise a ``ValueError`` that says which argument is none."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {value!r}; it must be a positive integer")


def check_positive_number(name: str, value: Any) -> None:
    """Raise a ``ValueError`` that says which argument is no positive, finite number."""
    if not _is_number(value) or not 0 < value < math.inf:
        raise ValueError(f"{name} is {value!r}; it must be a positive number")


def check_share(name: str, value: Any) -> None:
    """Raise a ``ValueError`` that says which argument is neither None nor from 0 to 1."""
    if value is not None and not (_is_number(value) and 0 <= value <= 1):
        raise ValueError(f"{name} is {value!r}; it must be between 0 and 1, or None")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def check_seed(seed: Any) -> None:
    """Raise a ``ValueError`` unless it is an integer of at least 0."""
    if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"seed is {seed!r}; it must be an integer of at least 0")
