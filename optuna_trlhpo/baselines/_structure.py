"""Which parameters a define-by-run objective would ask for, learned from the trials that it has played.

Behind each name a decision tree tells from the values so far which name comes next, or that nothing does. It
is as sure as the trials make it: an objective without conditions is known after one trial.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial

_MOST_VALUES = 10
"""A parameter of which more values were seen is not asked about by a tree."""

_Example = tuple[Mapping[str, Any], str | None]  # the parameters so far, the next name


class Structure:
    """The order and the conditions of an objective's parameters.

    Example:
        >>> import optuna
        >>> study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        >>> def objective(trial):
        ...     if trial.suggest_categorical("kind", ["conv", "pool"]) == "conv":
        ...         trial.suggest_int("filters", 8, 128)
        ...     return trial.suggest_float("rate", 0, 1)
        >>> study.optimize(objective, n_trials=10)
        >>> structure = Structure(study.trials)
        >>> structure.play({"rate": 0.5, "filters": 16, "kind": "pool"})
        {'kind': 'pool', 'rate': 0.5}
    """

    def __init__(self, trials: Iterable[FrozenTrial]) -> None:
        self._examples: dict[str | None, list[_Example]] = defaultdict(list)
        for trial in trials:
            so_far: dict[str, Any] = {}
            last: str | None = None
            for name, value in trial.params.items():
                self._examples[last].append((so_far.copy(), name))
                so_far[name] = value
                last = name
            self._examples[last].append((so_far, None))
        self._trees: dict[str | None, _Tree] = {}

    def play(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What a trial would make of ``values``: those that it would ask for, in its order."""
        played: dict[str, Any] = {}
        name: str | None = None
        while name in self._examples:
            if name not in self._trees:
                self._trees[name] = _grow(self._examples[name])
            name = self._trees[name].next_name(played)
            if name is None or name in played or name not in values:
                break
            played[name] = values[name]
        return played


@dataclass(frozen=True)
class _Tree:
    usual: str | None
    """The next name where nothing more is known."""
    asks: str | None = None
    branches: Mapping[Any, _Tree] | None = None

    def next_name(self, params: Mapping[str, Any]) -> str | None:
        if self.asks is None or self.branches is None:
            return self.usual
        branch = self.branches.get(params.get(self.asks, _ABSENT))
        return self.usual if branch is None else branch.next_name(params)


_ABSENT = object()


def _grow(examples: Sequence[_Example]) -> _Tree:
    """A decision tree, each split by the largest gain ratio (Quinlan's C4.5)."""
    outcomes = Counter(outcome for _, outcome in examples)
    usual = max(outcomes, key=lambda outcome: outcomes[outcome])
    if len(outcomes) == 1:
        return _Tree(usual)
    names = dict.fromkeys(name for params, _ in examples for name in params)
    before = _entropy(outcomes)
    best, best_ratio = None, 1e-9
    for name in names:
        table: dict[Any, Counter[str | None]] = defaultdict(Counter)
        for params, outcome in examples:
            table[params.get(name, _ABSENT)][outcome] += 1
        if not 1 < len(table) <= _MOST_VALUES:
            continue
        sizes = Counter({value: counts.total() for value, counts in table.items()})
        after = sum(counts.total() * _entropy(counts) for counts in table.values()) / len(examples)
        ratio = (before - after) / _entropy(sizes)
        if ratio > best_ratio:
            best, best_ratio = name, ratio
    if best is None:
        return _Tree(usual)
    parts: dict[Any, list[_Example]] = defaultdict(list)
    for example in examples:
        parts[example[0].get(best, _ABSENT)].append(example)
    return _Tree(usual, best, {value: _grow(part) for value, part in parts.items()})


def _entropy(counts: Counter[Any]) -> float:
    n = counts.total()
    return -sum(count / n * math.log(count / n) for count in counts.values())
