"""`LocalSearchSampler`, which moves to better neighbours of the incumbent and restarts at an optimum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from optuna_trlhpo._checks import check_integer
from optuna_trlhpo.baselines._planned import History, PlannedSampler, RivalPlan, note_of
from optuna_trlhpo.baselines._values import neighbours


class LocalSearchSampler(PlannedSampler):
    """Hill climbing with random restarts.

    A *climb* starts at the best of some random trials. The neighbours of its best trial, the *incumbent*, are
    tried one by one in random order; a neighbour differs in one parameter. The first better neighbour becomes
    the incumbent. When the incumbent has no untried neighbour left, a new climb starts at random. No
    configuration is tried twice, in whichever climb.

    The neighbours of a categorical value are all other choices, and so are those of a number on a grid of at
    most five values. Any other number has ``n_numeric_neighbours``, drawn around its value. Failed trials are
    worse than all others; pruned ones count with their last report.

    Source: White, Nolen, Savani, "Exploring the Loss Landscape in Neural Architecture Search", UAI 2021
    (first published as "Local Search is State of the Art for NAS Benchmarks"). The paper describes a move to
    the best of the neighbourhood, after all of it was tried. The default here is a move at the first
    improvement, which is stronger on NAS-Bench-Macro (see ``whole_neighbourhood``).

    Args:
        n_startup_trials: Number of random trials, the best of which starts the first climb; at least 1.
        n_restart_trials: Number of random trials before every later climb; at least 1.
        whole_neighbourhood: Whether all neighbours are tried before the search moves to the best of them.
        n_numeric_neighbours: Number of neighbours of a number that has more than five values; at least 1.
        seed: Random seed. None draws a new one.

    Raises:
        ValueError: If an argument is out of range; when sampling, in a study of several objectives.

    Examples:
        >>> import optuna
        >>> study = optuna.create_study(sampler=LocalSearchSampler(n_startup_trials=1, seed=0))
        >>> study.optimize(lambda trial: sum(trial.suggest_int(f"x{i}", 0, 2) for i in range(5)), n_trials=30)
        >>> study.best_value, len({str(trial.params) for trial in study.trials})
        (0.0, 30)
    """

    def __init__(
        self,
        *,
        n_startup_trials: int = 10,
        n_restart_trials: int = 1,
        whole_neighbourhood: bool = False,
        n_numeric_neighbours: int = 4,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed=seed)
        check_integer("n_startup_trials", n_startup_trials, least=1)
        check_integer("n_restart_trials", n_restart_trials, least=1)
        check_integer("n_numeric_neighbours", n_numeric_neighbours, least=1)
        self._n_startup_trials = n_startup_trials
        self._n_restart_trials = n_restart_trials
        self._whole_neighbourhood = bool(whole_neighbourhood)
        self._n_numeric_neighbours = n_numeric_neighbours

    def _make_plan(self, history: History, trial: FrozenTrial) -> RivalPlan:
        # The note of a trial holds its climb and, unless the trial is a random start, its centre and the
        # number of its neighbour: {"climb": 0, "of": 7, "change": 3}. Trials without a note belong to the
        # latest climb before them.
        climb = 0
        members: list[FrozenTrial] = []
        for other in sorted(history.finished + history.running, key=lambda other: other.number):
            its_climb = note_of(other).get("climb", climb)
            if its_climb > climb:
                climb, members = its_climb, []
            if its_climb == climb:
                members.append(other)
        n_starts = self._n_restart_trials if climb else self._n_startup_trials
        starts = [other for other in members if "of" not in note_of(other)]
        if (
            sum(other.state == TrialState.RUNNING or history.score(other) > -math.inf for other in starts)
            >= n_starts
        ):
            for centre in self._centres(history, members):
                plan = self._next_neighbour(history, centre, members, climb)
                if plan is not None:
                    return plan
            climb += 1
        return RivalPlan(history.random_plan(self._generator("start", trial.number)), {"climb": climb})

    def _centres(self, history: History, members: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Trials whose neighbours may be tried, in this order."""
        ended = [other for other in members if other.state.is_finished()]
        incumbent = max(ended, key=history.score, default=None)  # the earliest of equal ones
        if incumbent is None:
            return []
        if not self._whole_neighbourhood:
            return [incumbent]
        around = note_of(members[-1]).get("of")  # its neighbourhood is completed first
        return [other for other in ended if other.number == around] + [incumbent]

    def _next_neighbour(
        self, history: History, centre: FrozenTrial, members: Sequence[FrozenTrial], climb: int
    ) -> RivalPlan | None:
        tried = {note_of(other)["change"] for other in members if note_of(other).get("of") == centre.number}
        rng = self._generator("neighbours", centre.number)  # always the same neighbours in the same order
        changes: list[tuple[str, Any]] = []
        for name, distribution in centre.distributions.items():
            others = neighbours(name, distribution, centre.params[name], rng, n=self._n_numeric_neighbours)
            changes += [(name, value) for value in others]
        for change in rng.permutation(len(changes)).tolist():
            name, value = changes[change]
            rest = history.random_values(self._generator("rest", centre.number, change))
            values = rest | centre.params | {name: value}
            if change not in tried and not history.repeats(values):
                return RivalPlan(values, {"climb": climb, "of": centre.number, "change": change})
        return None
