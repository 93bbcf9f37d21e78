"""When critics learn their kernels, and for how long.

What a critic learns depends only on finished trials, in their order. So a new sampler on a stored study,
which observes the same trials one after the other, has the same critic as one that was never interrupted.
"""

from __future__ import annotations

_SPACING = 0.03
"""Number of further trials before a critic learns again, as a share of those that it has learned from."""
_FIRST_STEPS = 60
"""Number of learning steps at the first fit."""
_LEAST = 3
"""Number of values before a critic learns its kernel."""
_MANY = 100
"""Number of values beyond which the kernel is learned in fewer steps."""


class Occasions:
    """Numbers of trials at which critics learn: each one at first, and fewer as each trial adds less.

    A study of N trials has about ``log(N)`` of them, so that a new sampler soon catches up.

    Examples:
        >>> occasions = Occasions()
        >>> [n for n in range(300) if occasions.trials_since(n)][-4:]
        [271, 279, 287, 295]
    """

    def __init__(self) -> None:
        self._last, self._next = -1, 0

    def trials_since(self, n: int) -> int:
        """Number of trials since the critics learned, if they are to learn after trial ``n``; else 0."""
        if n < self._next:
            return 0
        since = min(n - self._last, n + 1)
        self._last, self._next = n, n + max(1, int(_SPACING * n))
        return since


class StepBudget:
    """Number of learning steps of one critic.

    Args:
        per_trial: Steps per finished trial, while there are few values.

    Attributes:
        per_trial: As above.
    """

    def __init__(self, per_trial: int) -> None:
        self.per_trial = per_trial
        self._has_begun = False
        self._owed = 0.0  # steps that are still due, with a fraction

    def draw(self, n_trials: int, n_values: int, *, fully: bool = False) -> int:
        """Number of steps to take now.

        With more values a step takes longer, and each value changes the kernel less.

        Args:
            n_trials: Number of trials since the last time.
            n_values: Number of values that the critic is conditioned on.
            fully: Whether what is to be learned must be learned soon, whatever it takes.
        """
        if n_trials == 0 or n_values < _LEAST:
            return 0
        if not self._has_begun:
            self._has_begun = True
            return _FIRST_STEPS
        # Less than one step is due from before; a checkpoint may say otherwise.
        due = self._owed % 1 + n_trials * self.per_trial * (2 if fully else min(1.0, _MANY / n_values) ** 2)
        steps = int(due)
        self._owed = due - steps
        return steps
