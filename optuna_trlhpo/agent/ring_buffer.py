"""Ring buffer of episodes, one row of arrays per episode."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


class RingBuffer:
    """Ring buffer of episodes of different lengths; each row of an array is padded with the array's filling.

    Notation: N episodes, S steps of the longest.

    Args:
        capacity: Largest number of episodes; a further one replaces the oldest.
        filling: Value of empty entries, by the array's name.

    Examples:
        >>> replay = RingBuffer(capacity=2, filling={"reward": np.nan})
        >>> for length in (1, 3, 2):
        ...     replay.add({"reward": np.ones(length)})
        >>> replay.rows(np.array([0, 1]))["reward"].tolist()
        [[1.0, 1.0, nan], [1.0, 1.0, 1.0]]
    """

    def __init__(self, *, capacity: int, filling: Mapping[str, float]) -> None:
        self._capacity = capacity
        self._filling = dict(filling)
        self._arrays: dict[str, np.ndarray] = {}  # [capacity for episodes, capacity for steps, ...]
        self._lengths = np.zeros(0, dtype=np.int64)
        self._n_added = 0

    def __len__(self) -> int:
        return min(self._n_added, self._capacity)

    def add(self, episode: Mapping[str, np.ndarray]) -> None:
        """Add one episode: arrays ``[S, ...]`` of the same length S."""
        row = self._n_added % self._capacity
        length = len(next(iter(episode.values())))
        self._make_room(row + 1, length, episode)
        for name, values in episode.items():
            self._arrays[name][row] = self._filling[name]
            self._arrays[name][row, :length] = values
        self._lengths[row] = length
        self._n_added += 1

    def sample(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw ``n`` row numbers, with replacement."""
        return rng.integers(len(self), size=n)

    def rows(self, rows: np.ndarray, *names: str) -> dict[str, np.ndarray]:
        """Arrays with these names (default: all), ``[len(rows), S, ...]`` for the longest of the rows.

        The result always includes "length".
        """
        lengths = self._lengths[rows]
        longest = int(lengths.max(initial=0))
        return {"length": lengths} | {
            name: self._arrays[name][rows, :longest] for name in names or self._arrays
        }

    def _make_room(self, rows: int, steps: int, like: Mapping[str, np.ndarray]) -> None:
        old_rows, old_steps = self._lengths.shape[0], 0
        for array in self._arrays.values():
            old_steps = array.shape[1]
        if rows <= old_rows and steps <= old_steps:
            return
        new_rows = min(self._capacity, max(64, 2 * old_rows)) if rows > old_rows else old_rows
        new_steps = max(steps, old_steps)
        for name, values in like.items():
            shape = (new_rows, new_steps, *values.shape[1:])
            grown = np.full(shape, self._filling[name], dtype=values.dtype)
            if name in self._arrays:
                grown[:old_rows, :old_steps] = self._arrays[name]
            self._arrays[name] = grown
        self._lengths = np.pad(self._lengths, (0, new_rows - old_rows))
