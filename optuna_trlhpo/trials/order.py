"""The order in which a trial was asked for its parameters.

Storages keep parameters in the order in which they were set, except for the gRPC proxy. With it, the sampler
stores the order as an attribute.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import GrpcStorageProxy
from optuna.study import Study
from optuna.trial import FrozenTrial

ORDER_ATTRIBUTE = "trlhpo:order"
"""Attribute of a trial: the positions of its parameters among their sorted names, in order."""

Derive = Callable[[Mapping[str, Any], Mapping[str, BaseDistribution]], Sequence[str]]


def order_note(names: Sequence[str]) -> list[int]:
    """Return the stored form of an order.

    Examples:
        >>> order_note(["w", "a", "b"])
        [2, 0, 1]
    """
    places = {name: place for place, name in enumerate(sorted(names))}
    return [places[name] for name in names]


def noted_order(trial: FrozenTrial) -> list[str] | None:
    """Return the names of a trial's parameters in the stored order; None if no valid order is stored."""
    note = trial.system_attrs.get(ORDER_ATTRIBUTE)
    names = sorted(trial.params)
    if not isinstance(note, list | tuple) or not all(type(place) is int for place in note):
        return None
    return [names[place] for place in note] if sorted(note) == list(range(len(names))) else None


def in_order(trial: FrozenTrial, derive: Derive | None = None) -> FrozenTrial:
    """Return ``trial`` with its parameters in the order in which they were asked for.

    Args:
        trial: A trial as read from a storage. It is not changed.
        derive: Derives the order where it was not stored. None: the storage has kept the order.
    """
    names: Sequence[str] | None = noted_order(trial)
    if names is None and derive is not None:
        names = derive(trial.params, trial.distributions)
    return trial if names is None else reordered(trial, names)


def reordered(trial: FrozenTrial, names: Sequence[str]) -> FrozenTrial:
    """Return ``trial`` with its parameters in this order; the same object if they already are."""
    params, distributions = trial.params, trial.distributions
    if list(params) == list(names):
        return trial
    view = copy.copy(trial)
    view.params = {name: params[name] for name in names}
    view.distributions = {name: distributions[name] for name in names}
    return view


def with_params(
    trial: FrozenTrial, params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]
) -> FrozenTrial:
    """Return ``trial`` with parameters that the storage does not have yet."""
    view = copy.copy(trial)
    view.params, view.distributions = dict(params), dict(distributions)
    return view


def keeps_order(study: Study) -> bool:
    """Return whether the study's storage returns parameters in the order in which they were set.

    The gRPC proxy sends them as a map of protocol buffers, which has no order. A study has no public access
    to its storage.
    """
    return not isinstance(study._storage, GrpcStorageProxy)
