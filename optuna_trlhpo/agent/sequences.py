"""Networks as arrays: remembered networks, plans, candidates, and the decision point of a running trial.

Notation: N networks, S steps, A action slots, E numbers of a descriptor, X expectations.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from optuna_trlhpo.layers import ACTION_SLOTS
from optuna_trlhpo.trials.agent_record import ACTOR, ACTOR_NEIGHBOUR, CHANCE, INCUMBENT_NEIGHBOUR

INCUMBENT = "incumbent"
"""Origin of a network that has been tried, of which variations are proposed."""

_FILLINGS = (np.nan, -1, -1, 0, np.nan, np.nan, 0.0)
"""Value of an empty slot in each array of `Networks`."""


NEIGHBOURS = {ACTOR: ACTOR_NEIGHBOUR, INCUMBENT: INCUMBENT_NEIGHBOUR}
"""Origin of a variation of a network, by the origin of the network; any other is unchanged."""


class Networks(NamedTuple):
    """Sequences of steps: finished trials, their prefixes, and plans. Empty slots hold `_FILLINGS`."""

    actions: np.ndarray  # [N, S, A] in [0, 1]
    names: np.ndarray  # [N, S, A] numbers of base names
    indices: np.ndarray  # [N, S, A] index of a parameter among those with its base name
    n_values: np.ndarray  # [N, S, A] number of possible values; 0 for a continuous parameter
    context: np.ndarray  # [N, S] surprise at the report after a step, in [0, 1], where later steps follow
    network_descriptor: np.ndarray  # [N, E] descriptor of the network, about [0, 1]; E = 0 where unknown
    expected: np.ndarray  # [N, X] expectations of the network from elsewhere, each with deviation 1

    @property
    def lengths(self) -> np.ndarray:
        """``[N]`` numbers of steps."""
        return (self.names[:, :, 0] >= 0).sum(axis=1)

    def rows(self, rows: np.ndarray) -> Networks:
        """Networks with these row numbers."""
        return Networks(*(array[rows] for array in self))

    @staticmethod
    def empty(N: int, S: int, A: int = ACTION_SLOTS) -> Networks:
        """``N`` networks of ``S`` steps with empty slots, without descriptors and expectations."""
        shapes = ((N, S, A),) * 4 + ((N, S), (N, 0), (N, 0))
        types = (float, np.int64, np.int64, np.int64, float, float, float)
        arrays = zip(shapes, _FILLINGS, types, strict=True)
        return Networks(*(np.full(shape, filling, dtype) for shape, filling, dtype in arrays))


class DecisionPoint(NamedTuple):
    """Steps of a running trial, and the parameter that it asks for: the slot ``slot`` of step ``step``."""

    actions: np.ndarray  # [step + 1, A], NaN where free
    names: np.ndarray  # [step + 1, A], with the slot that is asked for; -1 where unknown: any name matches
    indices: np.ndarray  # [step + 1, A]
    n_values: np.ndarray  # [step + 1, A]
    step: int
    slot: int


class Candidate:
    """Network under construction; the rows of the arrays are its steps.

    Attributes:
        origin: Proposer of the network, see `trials.agent_record.ORIGINS`.
    """

    ARRAYS = ("actions", "names", "indices", "n_values")
    __slots__ = (*ARRAYS, "origin")

    def __init__(
        self,
        actions: np.ndarray,
        names: np.ndarray,
        indices: np.ndarray,
        n_values: np.ndarray,
        origin: str = CHANCE,
    ) -> None:
        self.actions, self.names, self.indices, self.n_values = actions, names, indices, n_values
        self.origin = origin

    def __len__(self) -> int:
        return len(self.names)

    def copy(self) -> Candidate:
        """Copy with its own arrays."""
        arrays = self.actions.copy(), self.names.copy(), self.indices.copy(), self.n_values.copy()
        return Candidate(*arrays, self.origin)

    def steps(self, start: int, stop: int | None = None, shift: int = 0) -> Candidate:
        """Steps from ``start`` to ``stop``, with ``shift`` added to their indices."""
        part = slice(start, stop)
        indices = self.indices[part]
        indices = np.where(indices >= 0, indices + shift, indices)
        return Candidate(self.actions[part], self.names[part], indices, self.n_values[part], self.origin)

    def then(self, *others: Candidate) -> Candidate:
        """Steps of this candidate followed by those of ``others``."""
        if not len(self) and len(others) == 1:
            return others[0].copy()
        parts = self, *others
        return Candidate(
            np.concatenate([part.actions for part in parts]),
            np.concatenate([part.names for part in parts]),
            np.concatenate([part.indices for part in parts]),
            np.concatenate([part.n_values for part in parts]),
            self.origin,
        )

    def key(self) -> bytes:
        """Key of the network, see `network_key`."""
        return network_key(self.names, self.indices, self.actions)


@dataclass
class Plan:
    """Planned network that begins with the fixed steps of the running trial."""

    actions: np.ndarray  # [S, A]
    names: np.ndarray  # [S, A] numbers of base names
    indices: np.ndarray  # [S, A]
    score: float
    """Value of the acquisition function; greater is better, comparable within one fit."""
    key: bytes
    """Key that identifies the network as first planned."""
    mean: float = math.nan
    """Expected score, by the critic."""
    deviation: float = math.nan
    """Standard deviation of the score, by the critic."""
    origin: str = CHANCE
    """Proposer of the network, see `trials.agent_record.ORIGINS`."""
    gain: float | None = None
    """Expected gain, see `acquisition.expected_gain`; None if reports of the trial informed the plan."""

    def answers(self, point: DecisionPoint) -> bool:
        """Return whether the plan begins with the fixed steps and continues with the parameter asked for."""
        step, slot = point.step, point.slot
        if len(self.names) <= step:
            return False
        filled = point.names >= 0
        return (
            np.array_equal(self.names[: step + 1][filled], point.names[filled])
            and np.array_equal(self.indices[: step + 1][filled], point.indices[filled])
            and bool((self.names[:step] >= 0).sum() == (point.names[:step] >= 0).sum())
            and not np.isnan(self.actions[step, slot])
            and np.allclose(
                np.nan_to_num(self.actions[: step + 1]) * filled * ~np.isnan(point.actions),
                np.nan_to_num(point.actions),
            )
        )

    def behind(self, point: DecisionPoint) -> Plan:
        """The plan behind the fixed steps of a running trial."""
        parts = ((getattr(point, name)[: point.step], getattr(self, name)) for name in _PLANNED)
        actions, names, indices = (np.concatenate(pair) for pair in parts)
        return replace(
            self, actions=actions, names=names, indices=indices, key=network_key(names, indices, actions)
        )

    @property
    def digest(self) -> str:
        """Digest of the key."""
        return digest_of_key(self.key)


_PLANNED = ("actions", "names", "indices")
"""Arrays of a `Plan`."""


def network_key(names: np.ndarray, indices: np.ndarray, actions: np.ndarray) -> bytes:
    """Key of a network with steps ``[S, A]``; equal networks have equal keys."""
    return np.concatenate([names, indices, actions], axis=-1, dtype=np.float32).tobytes()


def digest_of_key(key: bytes) -> str:
    """Digest of a `network_key`, which is stored with a trial."""
    return hashlib.blake2b(key, digest_size=8).hexdigest()


def as_networks(candidates: list[Candidate], context: np.ndarray) -> Networks:
    """Candidates as networks; ``context`` ``[K]`` belongs to the first K steps of each."""
    S, A = max(map(len, candidates)), candidates[0].names.shape[1]
    networks = Networks.empty(len(candidates), S, A)
    for row, candidate in enumerate(candidates):
        n = len(candidate)
        networks.actions[row, :n], networks.names[row, :n] = candidate.actions, candidate.names
        networks.indices[row, :n], networks.n_values[row, :n] = candidate.indices, candidate.n_values
    k = min(S, len(context))
    networks.context[:, :k] = context[:k]
    return networks


def as_one(plan: Plan, n_values: np.ndarray) -> Networks:
    """A plan as one network; ``n_values`` ``[S, A]`` belongs to its slots."""
    one = Networks.empty(1, *plan.names.shape)
    return one._replace(
        actions=plan.actions[None],
        names=plan.names[None],
        indices=plan.indices[None],
        n_values=n_values[None],
    )


def joined(parts: Sequence[Networks]) -> Networks:
    """Concatenate networks of different lengths."""
    if len(parts) == 1:
        return parts[0]
    arrays = []
    for of_parts, filling in zip(zip(*parts, strict=True), _FILLINGS, strict=True):
        N, S = sum(map(len, of_parts)), max(array.shape[1] for array in of_parts)
        whole = np.full((N, S, *of_parts[0].shape[2:]), filling, dtype=of_parts[0].dtype)
        start = 0
        for array in of_parts:
            whole[start : start + len(array), : array.shape[1]] = array
            start += len(array)
        arrays.append(whole)
    return Networks(*arrays)
