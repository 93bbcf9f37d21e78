"""Problems to measure samplers on, as Optuna objectives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from optuna.trial import Trial

from optuna_trlhpo.space import LayerSpace


def signpost(*, n_ways: int = 3, seed: int = 0) -> Callable[[Trial], float]:
    """After its first layer a trial reports something that tells which choice is right at the second.

    Which way is right is drawn anew for every trial, so nothing but the report helps: a sampler that does
    not read it stays at chance, 1 / ``n_ways``. The best value is 1.

    Args:
        n_ways: Choices at the second layer; at least 2.
        seed: Of the ways and of the small noise on the reports.

    Example:
        >>> import optuna
        >>> study = optuna.create_study(direction="maximize")
        >>> study.optimize(signpost(), n_trials=2)
        >>> study.best_value in (0.0, 1.0)
        True
    """

    def objective(trial: Trial) -> float:
        rng = np.random.default_rng((seed, trial.number))
        right = int(rng.integers(n_ways))
        trial.suggest_categorical("layer0_kind", ["a", "b", "c"])
        trial.report(0.6 + 0.3 * right / (n_ways - 1) + 0.01 * float(rng.standard_normal()), step=0)
        way = trial.suggest_categorical("layer1_way", list(range(n_ways)))
        return float(way == right)

    return objective


def synthetic_layers(seed: int = 0) -> Callable[[Trial], float]:
    """Six layers of Table I with an accuracy that is computed, not trained: for measuring what a sampler
    itself costs."""
    space = LayerSpace(min_improvement=None, min_accuracy=None)

    def objective(trial: Trial) -> float:
        rng = np.random.default_rng((seed, trial.number))
        accuracy = 0.5
        for layers in space.grow(trial):
            accuracy += 0.07 * float(space.encode(layers)[-1].mean()) + 0.01 * float(rng.random())
            trial.report(accuracy, step=len(layers) - 1)
        return accuracy

    return objective
