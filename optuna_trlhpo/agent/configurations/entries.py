"""Values that trials brought, as columns of numbers: a long study has many."""

from __future__ import annotations

import numpy as np


class Entries:
    """Values that trials brought, in their order.

    Args:
        n_objectives: Number K of objectives.

    Examples:
        >>> entries = Entries(1)
        >>> entries.add(trial=0, n=2, outcome=np.array([0.5]), is_whole=True, is_pruned=False, repeats=False)
        >>> len(entries), entries.trial.tolist(), entries.outcome.tolist()
        (1, [0], [[0.5]])
    """

    def __init__(self, n_objectives: int) -> None:
        self._n = 0
        self._numbers = np.zeros((0, 2), dtype=np.int32)
        self._outcomes = np.zeros((0, n_objectives))
        self._flags = np.zeros((0, 3), dtype=bool)

    def __len__(self) -> int:
        return self._n

    def add(
        self, *, trial: int, n: int, outcome: np.ndarray, is_whole: bool, is_pruned: bool, repeats: bool
    ) -> None:
        """Append the outcome ``[K]`` of the first ``n`` parameters of a trial; see the properties."""
        if self._n == len(self._numbers):
            more = max(64, self._n)
            self._numbers, self._outcomes, self._flags = (
                np.concatenate([array, np.zeros((more, array.shape[1]), array.dtype)])
                for array in (self._numbers, self._outcomes, self._flags)
            )
        self._numbers[self._n] = trial, n
        self._outcomes[self._n] = outcome
        self._flags[self._n] = is_whole, is_pruned, repeats
        self._n += 1

    @property
    def trial(self) -> np.ndarray:
        """``[N]`` indices of the trials."""
        return self._numbers[: self._n, 0]

    @property
    def n(self) -> np.ndarray:
        """``[N]`` numbers of parameters."""
        return self._numbers[: self._n, 1]

    @property
    def outcome(self) -> np.ndarray:
        """``[N, K]`` outcomes."""
        return self._outcomes[: self._n]

    @property
    def is_whole(self) -> np.ndarray:
        """``[N]`` whether these are all parameters of the trial."""
        return self._flags[: self._n, 0]

    @property
    def is_pruned(self) -> np.ndarray:
        """``[N]`` whether it is the last report of a pruned trial."""
        return self._flags[: self._n, 1]

    @property
    def repeats(self) -> np.ndarray:
        """``[N]`` whether the same parameters had the same value before."""
        return self._flags[: self._n, 2]
