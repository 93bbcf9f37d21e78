"""A Q-table: the expected return of each action in each state."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence

import numpy as np

Row = dict[int, float]
"""Values of the actions of one state."""


class QTable:
    """Values of actions by state. A value that was never updated is the initial one.

    Args:
        initial: Initial value of every action.
        learning_rate: Share of the difference to its target by which an update changes a value; in (0, 1].

    Attributes:
        rows: The row of each state that was asked for.

    Examples:
        >>> table = QTable(initial=0.5, learning_rate=0.1)
        >>> row = table.row("start", actions=(0, 1, 2))
        >>> table.update(row, 2, target=1.0)
        >>> row, table.best(row, (0, 1)), table.best(row, (0, 1, 2))
        ({0: 0.5, 1: 0.5, 2: 0.55}, 0.5, 0.55)
    """

    def __init__(self, *, initial: float, learning_rate: float) -> None:
        self.initial = initial
        self.learning_rate = learning_rate
        self.rows: dict[Hashable, Row] = {}

    def row(self, state: Hashable, actions: Collection[int]) -> Row:
        """Return the row of a state, in which all of ``actions`` have a value."""
        row = self.rows.setdefault(state, {})
        for action in actions:
            row.setdefault(action, self.initial)
        return row

    def best(self, row: Row, actions: Collection[int]) -> float:
        """Return the largest value of ``actions``."""
        return max(row.values()) if len(actions) == len(row) else max(row[action] for action in actions)

    def update(self, row: Row, action: int, target: float) -> None:
        """Move the value of an action towards its target."""
        row[action] += self.learning_rate * (target - row[action])


def greedy_action(values: Sequence[float], actions: Sequence[int], rng: np.random.Generator) -> int:
    """Return one of the actions with the largest value, at random if there are several.

    Args:
        values: Value of each action.
        actions: The actions.
        rng: Random generator.
    """
    largest = max(values)
    best = [action for action, value in zip(actions, values, strict=True) if value == largest]
    return best[int(rng.integers(len(best)))] if len(best) > 1 else best[0]
