"""`BeamGrowthSampler`, which extends the best few prefixes of each length by all their continuations."""

from __future__ import annotations

from optuna_trlhpo.baselines._growth import GrowthSampler


class BeamGrowthSampler(GrowthSampler):
    """Beam search over prefixes, for objectives that report after every layer.

    It works as `GreedyGrowthSampler`, but keeps ``width`` prefixes of each length: all their continuations
    are tried, and the best ``width`` of these are the next prefixes. Each further pass keeps ``width``
    prefixes more. The first pass takes about ``width`` times as many trainings as a greedy one, and no deep
    network is tried until it has reached the last layers.

    Args:
        width: Number of prefixes of each length that are kept in the first pass; at least 1. With 1 this is
            greedy growth.
        n_children: Largest number of continuations of a prefix that are tried in the first pass, drawn at
            random where there are more; twice as many in the second pass, and so on; at least 1.
        end_trials: See `GreedyGrowthSampler`.
        seed: Random seed. None draws a new one.

    Raises:
        ValueError: If an argument is out of range; when sampling, in a study of several objectives.

    Examples:
        >>> import optuna
        >>> def objective(trial):  # the better first step leads to the worse end
        ...     trial.report(first := trial.suggest_categorical("first", [0, 1]), step=0)
        ...     trial.report(second := first + trial.suggest_int("second", 0, 4 - 3 * first), step=1)
        ...     return second
        >>> study = optuna.create_study(direction="maximize", sampler=BeamGrowthSampler(width=2, seed=0))
        >>> study.optimize(objective, n_trials=9)
        >>> study.best_value
        4.0
    """

    def __init__(
        self, *, width: int = 3, n_children: int = 10, end_trials: bool = True, seed: int | None = None
    ) -> None:
        super().__init__(width=width, n_children=n_children, end_trials=end_trials, seed=seed)
