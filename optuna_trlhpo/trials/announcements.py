"""Announcements of running trials to other workers: the configuration that each has planned."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from optuna.trial import FrozenTrial

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
"""Attribute of a running trial: the digest of the configuration that it has planned."""


def planned_digest(trial: FrozenTrial) -> str | None:
    """Return the digest that a running trial has announced; None if there is none."""
    note = trial.system_attrs.get(PLAN_ATTRIBUTE)
    return note if isinstance(note, str) else None
