"""`RegularizedEvolutionSampler`, with tournament selection, one mutation per child, and death by age."""

from __future__ import annotations

from optuna.trial import FrozenTrial

from optuna_trlhpo._checks import check_integer
from optuna_trlhpo.baselines._planned import History, PlannedSampler, RivalPlan


class RegularizedEvolutionSampler(PlannedSampler):
    """Regularised evolution: the best of a few random members has a child, and the oldest member dies.

    The population is the last ``population_size`` trials that have a value, however good. Each trial is a
    child: ``tournament_size`` members are drawn with replacement, and one parameter of the best of them is
    changed: a categorical one to any other choice, a number to a neighbour or, as often, to any other value.
    Trials are random until the population is complete. A child that repeats a trial is drawn again, up to a
    hundred times. Failed trials are not in the population; pruned ones count with their last report.

    Source: Real, Aggarwal, Huang, Le, "Regularized Evolution for Image Classifier Architecture Search", AAAI
    2019, algorithm 1.

    Args:
        population_size: Number of members of the population; at least 1.
        tournament_size: Number of members drawn for a tournament; at least 1.
        seed: Random seed. None draws a new one.

    Raises:
        ValueError: If an argument is out of range; when sampling, in a study of several objectives.

    Examples:
        >>> import optuna
        >>> study = optuna.create_study(sampler=RegularizedEvolutionSampler(population_size=5, seed=0))
        >>> study.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=30)
        >>> study.best_value < 0.01
        True
    """

    def __init__(
        self, *, population_size: int = 20, tournament_size: int = 5, seed: int | None = None
    ) -> None:
        super().__init__(seed=seed)
        check_integer("population_size", population_size, least=1)
        check_integer("tournament_size", tournament_size, least=1)
        self._population_size = population_size
        self._tournament_size = tournament_size

    def _make_plan(self, history: History, trial: FrozenTrial) -> RivalPlan:
        rng = self._generator("plan", trial.number)
        population = history.scored[-self._population_size :]
        if len(population) < self._population_size:
            return RivalPlan(history.random_plan(rng))
        drawn = rng.integers(len(population), size=self._tournament_size)
        parent = max((population[i] for i in drawn), key=history.score)
        return RivalPlan(history.child(parent, rng))
