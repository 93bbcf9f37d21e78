"""Synthetic Optuna objectives for tests and measurements of samplers."""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np
from optuna.trial import Trial

from optuna_trlhpo.space import LayerSpace


def signpost(
    *,
    n_ways: int = 3,
    kind: str = "category",
    n_before: int = 1,
    reports_are_values: bool = False,
    seed: int = 0,
) -> Callable[[Trial], float]:
    """Create an objective whose report after the first layer reveals the right choice for the second.

    The right choice is drawn anew in every trial, so only the report helps. A sampler that does not read it
    stays at chance level, 1 / ``n_ways``. The best value is 1.

    Args:
        n_ways: Number of choices for the second layer; at least 2.
        kind: Kind of the second layer's parameter: "category", "integer", or "float", whose range [0, 1] has
            ``n_ways`` equal parts.
        n_before: Number of parameters of the first layer, each a category of three.
        reports_are_values: Whether the value is reported, too, so that the first report counts as the value
            of the first layer.
        seed: Random seed of the right choices and of the small noise on the reports.

    Examples:
        >>> import optuna
        >>> study = optuna.create_study(direction="maximize")
        >>> study.optimize(signpost(), n_trials=2)
        >>> study.best_value in (0.0, 1.0)
        True
    """

    def way(trial: Trial) -> int:
        if kind == "category":
            return trial.suggest_categorical("layer1_way", list(range(n_ways)))
        if kind == "integer":
            return trial.suggest_int("layer1_way", 0, n_ways - 1)
        return min(int(n_ways * trial.suggest_float("layer1_way", 0, 1)), n_ways - 1)

    def objective(trial: Trial) -> float:
        rng = np.random.default_rng((seed, trial.number))
        right = int(rng.integers(n_ways))
        trial.suggest_categorical("layer0_kind", ["a", "b", "c"])
        for i in range(1, n_before):
            trial.suggest_categorical(f"layer0_option{i}", ["a", "b", "c"])
        trial.report(0.6 + 0.3 * right / (n_ways - 1) + 0.01 * float(rng.standard_normal()), step=0)
        value = float(way(trial) == right)
        if reports_are_values:
            trial.report(value, step=1)
        return value

    return objective


def synthetic_layers(seed: int = 0) -> Callable[[Trial], float]:
    """Create an objective with six layers of Table I and a computed accuracy, to measure a sampler's cost.

    Args:
        seed: Random seed of the small noise on the reports.
    """
    play = synthetic_turns(seed)

    def objective(trial: Trial) -> float:
        return played(play(trial))

    return objective


def played(turns: Generator[None, None, float]) -> float:
    """Play the turns that are left, and return the value of the trial."""
    while True:
        try:
            next(turns)
        except StopIteration as end:
            return float(end.value)


def synthetic_turns(seed: int = 0) -> Callable[[Trial], Generator[None, None, float]]:
    """Create the objective of `synthetic_layers` as a generator that pauses where a network would be trained.

    So many workers of one study can take turns in one thread.

    Args:
        seed: Random seed of the small noise on the reports.

    Examples:
        >>> import optuna
        >>> play = synthetic_turns()
        >>> len(list(play(optuna.create_study(direction="maximize").ask())))
        6
    """
    space = LayerSpace(min_improvement=None, min_accuracy=None)

    def play(trial: Trial) -> Generator[None, None, float]:
        rng = np.random.default_rng((seed, trial.number))
        accuracy = 0.5
        for layers in space.grow(trial):
            yield
            accuracy += 0.07 * float(space.encode(layers)[-1].mean()) + 0.01 * float(rng.random())
            trial.report(accuracy, step=len(layers) - 1)
        return accuracy

    return play


def depths(trial: Trial) -> float:
    """Return the mean of products of a width and a share, one for each of one to four layers."""
    n = trial.suggest_int("depth", 1, 4)
    sizes = [
        trial.suggest_int(f"width_{i}", 1, 64) * trial.suggest_float(f"share_{i}", 0, 1) for i in range(n)
    ]
    return sum(sizes) / n
