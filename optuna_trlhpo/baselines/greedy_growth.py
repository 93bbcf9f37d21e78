"""`GreedyGrowthSampler`, which extends the best prefix by its best continuation, layer by layer."""

from __future__ import annotations

from optuna_trlhpo.baselines._growth import GrowthSampler


class GreedyGrowthSampler(GrowthSampler):
    """Greedy growth, for objectives that report after every layer: try all continuations, keep the best one.

    The continuations of a prefix are tried one by one, each in a trial of its own; the best of them is the
    next prefix. Where a network cannot grow any further, growth starts again from the beginning and keeps two
    prefixes of each length, then three, and so on. Earlier trials are not repeated, so each pass costs only
    its new trials, and in the end the space is searched completely.

    Reports mark the ends of prefixes: the parameters between two reports are a layer. In an objective that
    reports nothing, or only after its last parameter, the whole trial is one layer, and this is random search
    without repetition.

    Growth by all continuations is the simplest of the progressive searches; with a predictor that saves most
    of the trainings it is Liu et al., "Progressive Neural Architecture Search", ECCV 2018. Widening the beam
    pass by pass follows Ginsberg, Harvey, "Iterative Broadening", Artificial Intelligence 55, 1992.

    Args:
        n_children: Largest number of continuations of a prefix that are tried in the first pass, drawn at
            random where there are more; twice as many in the second pass, and so on; at least 1.
        end_trials: Whether a trial ends as soon as its new continuation has been reported. It is then pruned:
            the next ``suggest`` raises `optuna.TrialPruned`, and only networks that cannot grow any further
            are completed trials (in a deep space ``study.best_trial`` comes late; the reports are available
            in any case). False: the trial continues with the best known continuations, or else with the
            values of the best trial, and every layer that it adds is trained, which costs far more trainings.
        seed: Random seed. None draws a new one.

    Raises:
        ValueError: If an argument is out of range; when sampling, in a study of several objectives.

    Examples:
        >>> import optuna
        >>> def objective(trial):
        ...     value = 0
        ...     for k in range(4):
        ...         value += trial.suggest_categorical(f"layer{k}", [0, 1, 2])
        ...         trial.report(value, step=k)
        ...     return value
        >>> study = optuna.create_study(direction="maximize", sampler=GreedyGrowthSampler(seed=0))
        >>> study.optimize(objective, n_trials=12)
        >>> study.best_value
        8.0
    """

    def __init__(self, *, n_children: int = 10, end_trials: bool = True, seed: int | None = None) -> None:
        super().__init__(width=1, n_children=n_children, end_trials=end_trials, seed=seed)
