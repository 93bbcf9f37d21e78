"""Announcements of running trials to other workers: the configuration or network that each has planned."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from optuna.trial import FrozenTrial

from optuna_trlhpo.layers import ACTION_SLOTS
from optuna_trlhpo.trials.attributes import finite
from optuna_trlhpo.trials.values import value_key


class Announced(NamedTuple):
    """Another running trial, with its planned configuration."""

    trial: FrozenTrial
    digest: str | None
    """Digest of the planned configuration, see `digest_of`. None if it has announced none."""


def digest_of(params: Mapping[str, Any]) -> str:
    """Return a short text that identifies a configuration in every process.

    Examples:
        >>> digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1}) != digest_of({"a": 1.0, "b": 2})
        True
    """
    text = repr(sorted((name, repr(value_key(value))) for name, value in params.items()))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


PLAN_ATTRIBUTE = "trlhpo:plan"
"""Attribute of a running trial: the digest of the configuration that it has planned, or the layers."""


_MOST_LAYERS = 64
"""Largest number of layers of a plan that is noted or read."""


def layers_note(layers: np.ndarray) -> dict[str, Any]:
    """Return planned layers as they are noted with a running trial: exactly, since they identify a network.

    Args:
        layers: ``[S, 4]`` actions in [0, 1].
    """
    return {"layers": [[float(action) for action in row] for row in layers[:_MOST_LAYERS]]}


def planned_layers(trial: FrozenTrial) -> np.ndarray | None:
    """Return the layers ``[S, 4]`` that a running trial has noted as its plan; None if there are none.

    Examples:
        >>> import optuna
        >>> note = layers_note(np.array([[0.5, 0.25, 0.1, 0.9]]))
        >>> planned_layers(optuna.create_trial(value=1.0, system_attrs={PLAN_ATTRIBUTE: note})).tolist()
        [[0.5, 0.25, 0.1, 0.9]]
    """
    note = trial.system_attrs.get(PLAN_ATTRIBUTE)
    rows = note.get("layers") if isinstance(note, dict) else None
    if not isinstance(rows, list) or not 0 < len(rows) <= _MOST_LAYERS:
        return None
    numbers = [[finite(action) for action in row] if isinstance(row, list) else [] for row in rows]
    if not all(len(row) == ACTION_SLOTS and None not in row for row in numbers):
        return None
    layers = np.array(numbers, dtype=float)
    return layers if ((layers >= 0) & (layers <= 1)).all() else None


def planned_digest(trial: FrozenTrial) -> str | None:
    """Return the digest that a running trial has announced; None if there is none."""
    note = trial.system_attrs.get(PLAN_ATTRIBUTE)
    return note if isinstance(note, str) else None
