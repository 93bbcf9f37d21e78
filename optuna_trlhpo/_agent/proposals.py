"""Candidates for the next step: variations of steps that were taken before, and chance.

Notation: H remembered steps, C candidates, A action slots. A step's later slots depend on what its first ones
are (a pooling layer has no neurons), so candidates take whole tails from remembered steps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_ELITES = 16
_ACTORS = 4
_SMALLEST, _LARGEST = 0.005, 0.25
"""How far an action in [0, 1] is nudged, as a standard deviation."""


class Memory(NamedTuple):
    """Remembered steps that agree with the present one in what slot ``slot`` is called."""

    actions: np.ndarray  # [H, A] in [0, 1], NaN where empty
    names: np.ndarray  # [H, A] name numbers, -1 where empty
    n_values: np.ndarray  # [H, A] how many values there are; 0 where they are continuous
    values: np.ndarray  # [H] how good the step turned out to be


class Candidates(NamedTuple):
    actions: np.ndarray  # [C, A], NaN where empty
    names: np.ndarray  # [C, A], -1 where empty


def propose(
    rng: np.random.Generator,
    memory: Memory,
    *,
    n: int,
    slot: int,
    settled: np.ndarray,
    settled_names: np.ndarray,
    n_values: int,
    categorical: np.ndarray,
    actor: np.ndarray,
) -> Candidates:
    """``n`` candidates for slots ``slot`` and behind.

    Half of them lie near the best steps, a quarter near any, and of the rest some are the actor's, the
    others chance.

    Args:
        rng: The generator.
        memory: At least one remembered step.
        n: How many.
        slot: The first slot that is free.
        settled: ``[slot]`` the actions before it.
        settled_names: ``[slot]`` their name numbers.
        n_values: How many values there are at ``slot`` now; 0 where they are continuous.
        categorical: Whether a name's values have no order, by its number.
        actor: ``[A]`` what the actor would do.
    """
    elites = np.argsort(-memory.values, kind="stable")[:_ELITES]
    n_near, n_any = n // 2, n // 4
    # Better elites more often: the ranks of two draws, the smaller one.
    near = elites[np.minimum(*rng.integers(len(elites), size=(2, n_near)))]
    anywhere = rng.integers(len(memory.values), size=n - n_near)
    parents = np.concatenate([near, anywhere])
    actions, names = memory.actions[parents].copy(), memory.names[parents].copy()
    counts = memory.n_values[parents].copy()
    counts[:, slot] = n_values

    by_chance = np.arange(n) >= n_near + n_any
    unordered = (names >= 0) & categorical[names]
    # Small and large steps alike; a continuous value is never just repeated.
    size = np.exp(rng.uniform(np.log(_SMALLEST), np.log(_LARGEST), size=(n, 1)))
    continuous = (names >= 0) & (counts == 0)
    redraw = (rng.random(actions.shape) < np.where(unordered, 0.15, 0.1)) | by_chance[:, None]
    nudge = ~redraw & ~unordered & (continuous | (rng.random(actions.shape) < 0.5))
    varied = np.where(redraw, rng.random(actions.shape), actions)
    varied = np.where(nudge, _reflect(actions + size * rng.standard_normal(actions.shape)), varied)
    by_actor = np.arange(n) >= n - _ACTORS
    varied[by_actor] = actor
    varied = np.where(names >= 0, varied, np.nan)
    varied = _to_bins(varied, counts)

    # A category that became another one brings the tail of a step that had it; where none did, no tail.
    changed = unordered[:, slot] & ~np.isclose(varied[:, slot], actions[:, slot])
    for value in np.unique(varied[changed, slot]):
        rows = np.flatnonzero(changed & (varied[:, slot] == value))
        donors = np.flatnonzero(np.isclose(memory.actions[:, slot], value))
        tail = slice(slot + 1, None)
        if len(donors):
            chosen = donors[rng.integers(len(donors), size=len(rows))]
            varied[rows, tail], names[rows, tail] = memory.actions[chosen, tail], memory.names[chosen, tail]
            counts[rows, tail] = memory.n_values[chosen, tail]
        else:
            varied[rows, tail], names[rows, tail] = np.nan, -1

    acted = _to_bins(np.tile(actor, (n, 1)), counts)
    varied = np.where(by_actor[:, None] & (names >= 0), acted, varied)
    varied[:, :slot], names[:, :slot] = settled, settled_names
    return Candidates(varied, names)


def _reflect(actions: np.ndarray) -> np.ndarray:
    """Into [0, 1], as off a wall: clipping would pile values up at the ends."""
    return np.clip(1 - np.abs(1 - np.abs(actions)), 0, 1)


def _to_bins(actions: np.ndarray, n_values: np.ndarray) -> np.ndarray:
    """The middle of the bin that an action lies in, for names whose values can be counted."""
    n = np.maximum(n_values, 1)
    middle = (np.minimum(np.floor(actions * n), n - 1) + 0.5) / n
    return np.where(n_values > 0, middle, actions)
