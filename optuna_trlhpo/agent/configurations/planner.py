"""Planner of the configuration that a trial of any objective should become.

A configuration is planned as a whole, and its values are given parameter by parameter:

1. The space model learns from every trial which parameters follow from which values (`search_space.model`).
2. The critic is conditioned on every configuration that has a value.
3. Candidates are variations of the best configurations, and random ones. Each is rolled out through the space
   model, so it has exactly the parameters that the objective would ask for.
4. Configurations that were tried, or are being tried, are left out; the acquisition function ranks the rest.

Notation: N configurations with a value, C candidates, D columns.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection

from optuna_trlhpo.agent.acquisition import ASPIRATION, acquire, expected_gain
from optuna_trlhpo.agent.config import AgentConfig
from optuna_trlhpo.agent.configurations.candidates import Asked, Candidates
from optuna_trlhpo.agent.configurations.columns import Columns, padded
from optuna_trlhpo.agent.configurations.costs import ConfigurationCosts
from optuna_trlhpo.agent.configurations.critic import ConfigurationCritic
from optuna_trlhpo.agent.configurations.memory import ConfigurationMemory, Known, Record, key_of, row_of
from optuna_trlhpo.agent.configurations.plan import ConfigurationPlan
from optuna_trlhpo.agent.configurations.sorts import Sort, SortHistory, Tried, sorts_of
from optuna_trlhpo.agent.configurations.state_critics import StateCritics
from optuna_trlhpo.agent.configurations.transfer import ConfigurationSource
from optuna_trlhpo.agent.learning import Occasions
from optuna_trlhpo.agent.time_budget import TimeBudget
from optuna_trlhpo.search_space.model import SpaceModel
from optuna_trlhpo.trials.agent_record import INCUMBENT_NEIGHBOUR
from optuna_trlhpo.trials.path import Path

_BEST_OF_GENERATION = 10
_FEWEST = 10
"""Smallest number of candidates of a generation."""
_MOST_AVOIDED = 200
"""Number of paths, the latest on which trials were pruned, that plans avoid."""
_PATIENCE = 3
"""Factor on the number of generations where all candidates have been tried."""
_MOST_WEIGHED = 40
"""Number of best candidates of a generation whose probability is considered."""
_LEAST_CHANCE = 1e-3


class ConfigurationPlanner:
    """Planner that remembers trials and plans configurations.

    Args:
        config: Settings of the agent.
        directions: Directions of the study's K objectives.
        seed: Random seed of the critic.
        earlier: Records of earlier studies, with their directions.
        budget: Budget in seconds.
    """

    def __init__(
        self,
        config: AgentConfig,
        directions: Sequence[StudyDirection],
        seed: int,
        earlier: Sequence[tuple[Sequence[Record], Sequence[StudyDirection]]],
        budget: TimeBudget,
    ) -> None:
        self._config = config
        self.model = SpaceModel()
        self.columns = Columns()
        ranks = config.targets == "rank"
        self.memory = ConfigurationMemory(self.columns, directions, ranks=ranks)
        self._avoided: list[Path] = []
        K = len(directions)
        sources = []
        for records, theirs in earlier:
            memory = ConfigurationMemory(self.columns, theirs, ranks=ranks)
            for record in records:
                self.model.learn(record.path, ended=record.ended)
                memory.add(record, self._learn_columns(record.path))
            weights = np.ones(K) if K > 1 else np.zeros(0)
            sources.append(ConfigurationSource(memory, weights, seed))
        self.critics = StateCritics(
            functools.partial(ConfigurationCritic, config, seed, self.columns, sources), self.memory
        )
        self.critic = self.critics.plain
        of_costs = ConfigurationCritic(AgentConfig(), seed, self.columns, ())
        self.costs = ConfigurationCosts(of_costs, self.memory, budget)
        self._occasions = Occasions()
        self._sorts = SortHistory()

    # Learning -----------------------------------------------------------------------------------------

    def observe(self, record: Record) -> None:
        """Learn from a finished trial."""
        self.columns.undo_tentative()
        self.model.learn(record.path, ended=record.ended)
        if len(record.path):
            self.memory.add(record, self._learn_columns(record.path))

    def learn(self, weights: np.ndarray, rng: np.random.Generator) -> None:
        """Let the space model learn from the finished trials, and the critics, if it is time.

        Args:
            weights: ``[K]`` weights of the objectives.
            rng: Random generator.
        """
        self.model.settle()
        since = self._occasions.trials_since(len(self.memory)) if len(self.memory) else 0
        if since:
            known = self._known(rng, weights)
            if len(known.values) or self.critic.sources:
                self.critics.learn(known, varies=self.branches, n_trials=since)
            self.costs.learn(varies=self.branches, n_trials=since)

    def _known(self, rng: np.random.Generator, weights: np.ndarray) -> Known:
        return self.memory.known(rng, weights, unit=self.critic.unit, repeats=self.critics.may_repeat)

    def _learn_columns(self, path: Path) -> list[int]:
        pairs = zip(path.names, path.distributions, strict=True)
        return [
            self.columns.learn(name, distribution, dependent=self.model.is_dependent(name))
            for name, distribution in pairs
        ]

    @property
    def has_prior(self) -> bool:
        """Whether something is known before the first trial has finished."""
        return bool(self.critic.sources)

    @property
    def branches(self) -> bool:
        """Whether values decide which parameters there are."""
        return self.model.flat is None

    def knows(self, name: str, distribution: BaseDistribution) -> bool:
        """Return whether a trial, or an earlier study, had the parameter."""
        return self.columns.find(name, distribution) >= 0

    def avoid(self, path: Path) -> None:
        """Avoid plans that begin with ``path``, at which a trial was pruned or has failed."""
        self._avoided = [*self._avoided[1 - _MOST_AVOIDED :], path]

    def _is_avoided(self, rows: np.ndarray, paths: Sequence[Path]) -> np.ndarray:
        """``[C]`` whether a row begins with one of the paths."""
        avoided = np.zeros(len(rows), dtype=bool)
        for path in paths:
            row = row_of(self.columns, path)
            columns = np.flatnonzero(~np.isnan(row))
            avoided |= (np.abs(rows[:, columns] - row[columns]) < 1e-9).all(axis=1)
        return avoided

    # Planning -----------------------------------------------------------------------------------------

    def plan(
        self,
        path: Path,
        asked: Asked,
        reports: Sequence[tuple[int, float]],
        weights: np.ndarray,
        rng: np.random.Generator,
        pending: Sequence[np.ndarray],
        taken: Iterable[bytes],
        *,
        repeat: bool = False,
        sort: Sort | None = None,
        spread: int = 0,
        crowded: Sequence[Path] = (),
        effort: float = 1.0,
        fixed: Mapping[str, Any] | None = None,
    ) -> ConfigurationPlan | None:
        """Plan the configuration to try next; None if nothing is known.

        Args:
            path: Parameters of the trial so far.
            asked: Parameter that the trial asks for.
            reports: Pairs of a number of parameters and the trial's report after them; more is better.
            weights: ``[K]`` the trial's weights of the objectives.
            rng: Random generator.
            pending: Rows of other running trials; the expectation replaces their outcome.
            taken: Keys of configurations that other trials are about to try, and of plans that this trial
                did not follow.
            repeat: Whether tried configurations may be tried again.
            spread: Number of times that another worker had the same plan; with it grows the number of best
                candidates from which one is drawn.
            crowded: Paths after which other trials will try all configurations that are left.
            effort: Share of the candidates that are compared, in (0, 1].
            fixed: Values, by name, that further parameters will have if the trial asks for them.
            sort: Sort of the plan, as for the previous plan of the trial; None: any, or another sort than the
                best where it is time to explore.
        """
        self.columns.begin_tentative()
        self._learn_columns(path)
        column = self.columns.learn(*asked, dependent=self.model.is_dependent(asked[0]))
        known = self._known(rng, weights)
        reports = [(n, report) for n, report in reports if not math.isnan(report)]
        own = self._prefixes(path, [n for n, _ in reports])
        outcomes = [report for _, report in reports]
        known = self._with_own(known, own, outcomes)
        if not len(known.values) and not self.critic.sources:
            return None
        critic, known, context = self.critics.conditioned(known, own, outcomes, pending, varies=self.branches)
        self.costs.learn(varies=self.branches)
        of_known, values = critic.of_known
        draw = Candidates(
            self.model,
            self.memory,
            self.critic.best_of_sources(),
            known,
            of_known,
            path,
            asked,
            column,
            fixed or {},
            rng,
        )
        excluded: set[bytes] = set() if repeat else {*taken}
        tried = set() if repeat or (len(context) and self.critics.may_repeat) else self.memory.tried()
        best: tuple[float, np.ndarray, np.ndarray, str] | None = None
        undecided = sort is None and not len(path)
        of_all, all_values = of_known, values
        if sort is not None:
            of_known, values = self._of_sort(sort, known, draw, of_all, all_values)
        most = self._config.n_candidates
        n_candidates = min(most, max(_FEWEST, int(effort * most)))
        fresh, origins = draw.start(n_candidates)
        elite, of_elite = np.zeros((0, len(self.columns))), list[str]()
        for generation in range(self._config.n_generations * _PATIENCE):
            if generation >= self._config.n_generations and best is not None:
                break
            if len(elite):
                parents, of_parents = elite, of_elite
            else:
                parents, of_parents = draw.parents, [INCUMBENT_NEIGHBOUR] * len(draw.parents)
            varied, of_varied = draw.more(parents, of_parents, n_candidates, mutate=self._config.mutations)
            rows = padded([*fresh, *elite, *varied], len(self.columns))
            keys = [key_of(row) for row in rows]
            origin_of = dict(reversed([*zip(keys, [*origins, *of_elite, *of_varied], strict=True)]))
            fresh, origins, elite, of_elite = [], [], np.zeros((0, len(self.columns))), []
            unique = {key: i for i, key in enumerate(keys) if key not in tried and key not in excluded}
            rows = rows[list(unique.values())]
            rows = rows[~self._is_avoided(rows, [*self._avoided, *crowded])]
            rows = self._without_same_places(rows, draw, repeat=repeat)
            if undecided and len(rows):
                sort, undecided = self._another_sort(rows, known, weights), False
                if sort is not None:
                    of_known, values = self._of_sort(sort, known, draw, of_all, all_values)
            if sort is not None:
                there = np.array([other == sort for other in self.sorts(rows, exact=sort.exact)], dtype=bool)
                if len(path) and not there.any():  # the objective has asked for another parameter
                    sort, of_known, values = None, of_all, all_values
                else:
                    rows = rows[there]
            if not len(rows):
                continue
            scores, z = self._judge(rows, draw, critic, context, of_known, values, rng)
            scores = self._weighed_by_chance(scores, rows, draw)
            order = np.argsort(-scores, kind="stable")
            k = int(rng.integers(min(4**spread, len(order)))) if spread else 0
            elite = rows[order[:_BEST_OF_GENERATION]]
            of_elite = [origin_of[key_of(row)] for row in elite]
            chosen = rows[order[k]]
            best = float(scores[order[k]]), chosen, z[order[k : k + 1]], origin_of[key_of(chosen)]
        if best is None:
            return None
        score, row, z, origin = best
        planned, is_complete = draw.roll(row)
        (mean,), (deviation,) = critic.surrogate.predict(z)
        gain = None if len(context) else expected_gain(mean, deviation, of_all, self.values_of)
        return ConfigurationPlan(
            planned, is_complete, score, float(mean), float(deviation), key_of(row), row, origin, gain, sort
        )

    def _without_same_places(self, rows: np.ndarray, draw: Candidates, *, repeat: bool) -> np.ndarray:
        """Exclude rows that differ from a tried one only in the integer that counts the places.

        With it the objective ended its loop early, and will do so again.
        """
        counters = draw.counters
        if repeat or not counters:
            return rows
        keys = self.memory.tried_without(counters)
        without = rows.copy()
        without[:, counters] = np.nan
        others = rows[[key_of(row) not in keys for row in without]]
        return others if len(others) else rows

    def _weighed_by_chance(self, scores: np.ndarray, rows: np.ndarray, draw: Candidates) -> np.ndarray:
        """Weigh the scores of the best rows by the probability of exactly their parameters.

        The other rows come last.
        """
        if not self.branches:
            return scores
        order = np.argsort(-scores, kind="stable")[:_MOST_WEIGHED]
        weighed = np.full(len(scores), -np.inf)
        for i in order.tolist():
            chance = max(draw.chance(rows[i]), _LEAST_CHANCE)
            # A positive score is a gain, which is lost if the plan fails; others are logarithms of a gain.
            weighed[i] = scores[i] * chance if scores[i] > 0 else scores[i] + math.log(chance)
        return weighed

    def sorts(self, rows: np.ndarray, *, exact: bool) -> list[Sort]:
        """Sort of each row ``[N, D]``, see `sorts_of`."""
        return sorts_of(rows, self.columns.places.template, exact=exact)

    def _of_sort(
        self, sort: Sort, known: Known, draw: Candidates, of_known: np.ndarray, values: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Restrict candidates to a sort, and return its predictions and values.

        A gain is then a gain over the best of the sort.
        """
        draw.keep(sort)
        there = np.array([other == sort for other in self.sorts(known.actions, exact=sort.exact)], dtype=bool)
        if not there.any():
            return of_known, values
        return of_known[: len(there)][there], values[: len(there)][there]

    def _another_sort(self, rows: np.ndarray, known: Known, weights: np.ndarray) -> Sort | None:
        """Sort of ``rows`` for the plan, where it is time for another sort than the best; else None."""
        if not self.branches or not self._config.random_interval or len(weights) > 1 or not len(known.trial):
            return None
        template = self.columns.places.template
        actions = self.memory.actions()
        history = self._sorts.update(actions, template, self.columns.version)
        tried = Tried(history, actions, known.trial.tolist(), known.values, template)
        return tried.another(rows) if tried.is_time_for_another() else None

    def _prefixes(self, path: Path, lengths: Sequence[int]) -> list[np.ndarray]:
        """Rows ``[D]`` of the first parameters of ``path``, one for each of the numbers of parameters."""
        row, rows = row_of(self.columns, path), []
        for n in lengths:
            prefix = row.copy()
            for name, distribution in zip(path.names[n:], path.distributions[n:], strict=True):
                if (column := self.columns.find(name, distribution)) >= 0:
                    prefix[column] = np.nan
            rows.append(prefix)
        return rows

    def _with_own(self, known: Known, own: Sequence[np.ndarray], reports: Sequence[float]) -> Known:
        """Add the reports of the running trial to ``known``, where these are values of its parameters."""
        known = known._replace(actions=padded(known.actions, len(self.columns)))
        if not self.memory.reports_are_values or not own or not len(known.values):
            return known
        return Known(
            np.concatenate([known.actions, own]),
            np.concatenate([known.contexts, np.full((len(own), known.contexts.shape[1]), np.nan)]),
            np.concatenate([known.values, [self.memory.score_outcome(report) for report in reports]]),
            np.concatenate([known.trial, np.full(len(own), -1)]),
        )

    def _judge(
        self,
        rows: np.ndarray,
        draw: Candidates,
        critic: ConfigurationCritic,
        context: np.ndarray,
        of_known: np.ndarray,
        values: np.ndarray,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Values ``[C]`` of the acquisition function for candidates, and their features ``[C, F]``.

        Where prefixes get a value, the value of a candidate is that of its best prefix without a value yet.
        """
        config = self._config
        parts, owner = draw.prefixes(rows) if self.memory.values_prefixes else (rows, np.arange(len(rows)))
        z = critic.features(parts, np.tile(context, (len(parts), 1)))
        kind = ASPIRATION if len(context) else config.acquisition
        costs = self.costs.weighed(rows)
        costs = None if costs is None else costs[owner]
        scores = acquire(kind, critic.surrogate, z, of_known, values, rng, costs)
        best = np.full(len(rows), -np.inf)
        at = np.zeros(len(rows), dtype=np.int64)
        for i, (score, row) in enumerate(zip(scores.tolist(), owner.tolist(), strict=True)):
            if score > best[row]:
                best[row], at[row] = score, i
        return best, z[at]

    # Questions of other modules -----------------------------------------------------------------------

    def values_of(self, scores: np.ndarray) -> np.ndarray | None:
        """Values of the objective with these scores; None where a score has no single value."""
        return self.memory.values_of(scores)

    def attention(self, plan: ConfigurationPlan) -> list[np.ndarray]:
        """Attention weights of the critic as it judges the first k steps of the last plan.

        Rows k = 1 to S, each ``[H, k + 1]``, as in `agent.planner.Planner.attention`.
        """
        return self.critic.attention(plan)
