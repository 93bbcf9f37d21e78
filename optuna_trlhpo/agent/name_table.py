"""Table that numbers the names of parameters, the same for a study and for earlier ones.

Notation: S steps, A action slots.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import torch

from optuna_trlhpo.agent.tokens import NAME_CODE
from optuna_trlhpo.layers import ACTION_SLOTS
from optuna_trlhpo.trials.episode import Episode
from optuna_trlhpo.trials.parameters import ParameterSpec


class NameTable:
    """Table that numbers base names, in the order of their first use.

    Attributes:
        categorical: Whether the values of a base name have no order, by its number; the last entry is for no
            name.
        codes: ``[n + 1, NAME_CODE]`` code of each base name; the last row is for no name.

    Examples:
        >>> names = NameTable()
        >>> names.learn(ParameterSpec("x", 0, 3, categorical=True))
        0
        >>> names.learn(ParameterSpec("y", 0, 0, categorical=False))
        1
    """

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, bool], int] = {}  # (base name, whether it is categorical) -> number
        self._uneven: dict[
            tuple[int, int], ParameterSpec
        ] = {}  # (number, index) of integers on a logarithmic scale
        self.codes = torch.zeros(1, NAME_CODE, dtype=torch.float32)
        self.categorical = np.zeros(1, dtype=bool)

    def learn(self, slot: ParameterSpec) -> int:
        """Number of the slot's base name, which is added if it is new."""
        name = slot.base_name, slot.categorical
        if name not in self._numbers:
            # The code of a name depends only on the name: it is the same in every study and process.
            seed = zlib.crc32(slot.base_name.encode(errors="surrogatepass"))
            code = np.random.default_rng(seed).standard_normal(NAME_CODE)
            self._numbers[name] = len(self._numbers)
            self.codes = torch.cat([self.codes[:-1], torch.tensor(code).float()[None], self.codes[-1:]])
            self.categorical = np.append(self.categorical[:-1], [slot.categorical, False])
        if slot.log_range is not None:
            self._uneven[self._numbers[name], slot.index] = slot
        return self._numbers[name]

    def number(self, slot: ParameterSpec) -> int:
        """Number of the slot's base name, -1 if it is unknown."""
        return self._numbers.get((slot.base_name, slot.categorical), -1)

    def numbers(self, slots: Sequence[ParameterSpec]) -> np.ndarray:
        """``[A]`` numbers of the slots' base names, -1 for an empty slot or an unknown name."""
        numbers = [self.number(slot) for slot in slots]
        return np.array(numbers + [-1] * (ACTION_SLOTS - len(numbers)), dtype=np.int64)

    def learn_all(self, episode: Episode) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Arrays ``[S, A]`` of an episode: numbers of base names, indices, numbers of values."""
        shape = (len(episode), ACTION_SLOTS)
        names, indices = np.full(shape, -1, dtype=np.int64), np.full(shape, -1, dtype=np.int64)
        n_values = np.zeros(shape, dtype=np.int64)
        for k, slots in enumerate(episode.slots):
            names[k, : len(slots)] = [self.learn(slot) for slot in slots]
            indices[k, : len(slots)] = [slot.index for slot in slots]
            n_values[k, : len(slots)] = [slot.n_values for slot in slots]
        return names, indices, n_values

    def category(self, base_name: str) -> int:
        """Number of a base name whose values have no order; -1 if it is unknown."""
        return self._numbers.get((base_name, True), -1)

    def settle(self, number: int, index: int, action: float) -> float:
        """Canonical action for the same value of an integer on a logarithmic scale.

        The action of any other parameter is unchanged.
        """
        slot = self._uneven.get((number, index))
        return action if slot is None else slot.settle(action)
