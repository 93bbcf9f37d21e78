"""Which configuration a trial of any objective should become: planned whole, answered parameter by parameter.

1. The space model learns from every trial which parameters follow from which values (`space_model`).
2. The critic is conditioned on every configuration that has a value.
3. Candidates are variations of the best configurations, and random ones. Each is rolled out through the space
   model, so it has exactly the parameters that the objective would ask for.
4. Those that were tried, or are being tried, are left out; the acquisition function ranks the rest.

Notation: N configurations with a value, C candidates, D columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection

from optuna_trlhpo._agent.acquisition import acquire
from optuna_trlhpo._agent.config import AgentConfig
from optuna_trlhpo._agent.critic import Critic, make_critic
from optuna_trlhpo._agent.posterior import NOISE_OF_TRAINING
from optuna_trlhpo.candidates import Asked, Candidates
from optuna_trlhpo.columns import Columns, Layout, padded
from optuna_trlhpo.configurations import Configurations, Known, Record, key_of, row_of
from optuna_trlhpo.episode import steps_of
from optuna_trlhpo.path import Path
from optuna_trlhpo.path_source import Source
from optuna_trlhpo.sorts import Sort, Tried, sorts_of
from optuna_trlhpo.space_model import SpaceModel

_FIRST_STEPS = 60
"""Steps of learning at the first fit."""
_NOISE = -4.0
"""Logarithm of the variance of noise that is expected of an objective of any kind: many have next to none."""
_LEAST = 3
"""Configurations with a value before the critic learns its kernel."""
_MANY = 100
"""Configurations from which on the kernel is learned in fewer steps."""
_BEST_OF_GENERATION = 10
_FEWEST = 10
"""Candidates of a generation, at least."""
_MOST_AVOIDED = 200
"""Paths on which trials were pruned that plans keep away from: the latest."""
_PATIENCE = 3
"""So often as many candidates are made again, where all have been tried."""
_DOUBT = 0.5
"""By how much, as a deviation, scores may follow those of an earlier study more or less than one to one."""
_OFFSET = 10.0
"""How far the scores of two studies may be apart, as a deviation."""
_MOST_WEIGHED = 40
"""Best candidates of a generation whose likelihood is considered."""
_LEAST_CHANCE = 1e-3


@dataclass
class PathPlan:
    """A whole configuration, as far as it can be told.

    Attributes:
        path: Its parameters.
        whole: Whether the objective should ask for no more.
        score: What the acquisition function holds of it.
        mean, deviation: The score that the critic expects, and how far off it may be.
        key: Tells configurations apart.
    """

    path: Path
    whole: bool
    score: float
    mean: float
    deviation: float
    key: bytes
    row: np.ndarray = field(repr=False)
    sort: Sort | None = None
    """What sort of configuration it had to be; None: any."""


class PathSearch:
    """Remembers trials and plans configurations.

    Args:
        config: The agent's settings.
        directions: Of the study's K objectives.
        seed: Of critics that are drawn.
        earlier: Records of earlier studies, with their directions.
    """

    def __init__(
        self,
        config: AgentConfig,
        directions: Sequence[StudyDirection],
        seed: int,
        earlier: Sequence[tuple[Sequence[Record], Sequence[StudyDirection]]] = (),
    ) -> None:
        self._config = config
        self.model = SpaceModel()
        self.columns = Columns()
        ranks = config.targets == "rank"
        self.memory = Configurations(self.columns, directions, ranks=ranks)
        self._seed, self._is_noisy = seed, bool(earlier)
        self._critic = self._new_critic()
        self._refused: set[bytes] = set()
        self._avoided: list[Path] = []
        self._n_fitted = 0
        self._has_learned = False
        self._owed = 0.0  # steps of learning, as far as they are not whole
        self._layout: Layout | None = None
        K = len(directions)
        self._sources = []
        for records, theirs in earlier:
            memory = Configurations(self.columns, theirs, ranks=ranks)
            for record in records:
                self.model.learn(record.path, ended=record.ended)
                memory.add(record, self._learn_columns(record.path))
            weights = np.ones(K) if K > 1 else np.zeros(0)
            self._sources.append(Source(memory, weights, seed))

    def _new_critic(self) -> Critic:
        noise = NOISE_OF_TRAINING if self._is_noisy else _NOISE
        return make_critic(self._config, self._seed, noise=noise)

    # Learning -----------------------------------------------------------------------------------------

    def observe(self, record: Record) -> None:
        """Learn a finished trial."""
        self.model.learn(record.path, ended=record.ended)
        if len(record.path):
            self.memory.add(record, self._learn_columns(record.path))

    def _learn_columns(self, path: Path) -> list[int]:
        pairs = zip(path.names, path.distributions, strict=True)
        return [
            self.columns.learn(name, distribution, dependent=self.model.is_dependent(name))
            for name, distribution in pairs
        ]

    @property
    def informed(self) -> bool:
        """Whether something is known before the first trial has finished."""
        return bool(self._sources)

    @property
    def branches(self) -> bool:
        """Whether values decide which parameters there are."""
        return self.model.flat is None

    def knows(self, name: str, distribution: BaseDistribution) -> bool:
        """Whether some trial, or an earlier study, had the parameter."""
        return self.columns.find(name, distribution) >= 0

    def refuse(self, plan: PathPlan) -> None:
        """Do not make this plan again: the objective asked for something else."""
        self._refused.add(plan.key)

    def avoid(self, path: Path) -> None:
        """Plan nothing that begins with ``path``: there a trial came to an end before its time."""
        self._avoided = [*self._avoided[1 - _MOST_AVOIDED :], path]

    def _is_avoided(self, rows: np.ndarray, paths: Sequence[Path]) -> np.ndarray:
        """``[C]`` whether rows begin with one of some paths."""
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
    ) -> PathPlan | None:
        """The configuration to try next, or None if nothing is known.

        Args:
            path: What the trial has.
            asked: What it asks for now.
            reports: Pairs of a number of parameters and what the trial reported behind them; more is better.
            weights: ``[K]`` what it weighs its objectives by.
            rng: The generator.
            pending: Rows of other running trials; what they will bring is taken as it is expected.
            taken: Keys of configurations that others are about to try.
            repeat: Whether configurations that were tried may be tried again.
            spread: How often the best plan was another worker's, too; then one of the best is drawn.
            crowded: Paths behind which other trials will try all that is left.
            effort: Share of the candidates that are compared, in (0, 1].
            fixed: Values by name that further parameters will have, if they come.
            sort: What sort of configuration the plan is to be, as that before it was; None: any, or another
                than the best where it is time to look elsewhere.
        """
        self._learn_columns(path)
        column = self.columns.learn(*asked, dependent=self.model.is_dependent(asked[0]))
        known = self.memory.known(rng, weights, unit=self._unit)
        known = self._with_own(known, path, reports)
        # Only what the running trial has reported, too: its other reports are still to come.
        n_contexts = min(self.memory.n_contexts, len(reports))
        known = known._replace(contexts=known.contexts[:, :n_contexts])
        if not len(known.values) and not self._sources:
            return None
        for source in self._sources:
            source.refresh()
        used = (
            known.actions if not self._sources else np.concatenate([known.actions, *self._best_of_sources()])
        )
        self._layout = Layout.of(
            self.columns,
            used,
            mean_size=self.memory.mean_size,
            varies=self.branches,
            n_contexts=n_contexts,
            means=self._means,
        )
        x = self._features(known.actions, known.contexts)
        # Much noise is expected of what earlier studies tell, for a single value must not outweigh it; and
        # where a report decides what is right, for it is not exact.
        is_noisy = bool(self._sources) or self.memory.reports_steer
        if is_noisy != self._is_noisy:
            self._is_noisy, self._has_learned = is_noisy, False
            self._critic = self._new_critic()
        self._fit(x, known.values)
        values = known.values
        if pending:
            others = self._features(padded(pending, len(self.columns)), None)
            values = np.concatenate([values, self._critic.predict(others)[0]])
            x = np.concatenate([x, others])
            self._critic.fit(x, values, self._layout.features, steps=0)
        of_known = self._critic.predict(x)[0]
        draw = Candidates(
            self.model,
            self.memory,
            self._best_of_sources(),
            known,
            of_known,
            path,
            asked,
            column,
            fixed or {},
            rng,
        )
        excluded: set[bytes] = set() if repeat else {*self._refused, *taken}
        tried = set() if repeat else self.memory.tried()
        context = self.memory.context(reports, len(path) + 1)[:n_contexts]
        best: tuple[float, np.ndarray, np.ndarray] | None = None
        undecided = sort is None and not len(path)
        of_all, all_values = of_known, values
        if sort is not None:
            of_known, values = self._of_sort(sort, known, draw, of_all, all_values)
        most = self._config.n_candidates
        n_candidates = min(most, max(_FEWEST, int(effort * most)))
        fresh = draw.start(n_candidates)
        elite = np.zeros((0, len(self.columns)))
        for generation in range(self._config.n_generations * _PATIENCE):
            if generation >= self._config.n_generations and best is not None:
                break
            parents = elite if len(elite) else draw.parents
            rows = draw.more(parents, n_candidates, mutate=self._config.mutations)
            rows = padded([*fresh, *elite, *draw.finish(rows)], len(self.columns))
            fresh, elite = [], np.zeros((0, len(self.columns)))
            keys = [key_of(row) for row in rows]
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
                if len(path) and not there.any():  # the objective has asked for something else
                    sort, of_known, values = None, of_all, all_values
                else:
                    rows = rows[there]
            if not len(rows):
                continue
            scores, z = self._judge(rows, draw, context, of_known, values, rng)
            scores = self._weighed_by_chance(scores, rows, draw)
            order = np.argsort(-scores, kind="stable")
            k = int(rng.integers(min(4**spread, len(order)))) if spread else 0
            best = float(scores[order[k]]), rows[order[k]], z[order[k : k + 1]]
            elite = rows[order[:_BEST_OF_GENERATION]]
        if best is None:
            return None
        score, row, z = best
        rolled, whole = draw.roll(row)
        (mean,), (deviation,) = self._critic.predict(z)
        return PathPlan(rolled, whole, score, float(mean), float(deviation), key_of(row), row, sort)

    def _without_same_places(self, rows: np.ndarray, draw: Candidates, *, repeat: bool) -> np.ndarray:
        """Leave out rows that differ from a tried one in nothing but the integer that counts the places.

        There the objective ended its loop early, and will do so again.
        """
        counters = draw.counters
        if repeat or not counters:
            return rows
        tried = self.memory.whole().copy()
        tried[:, counters] = np.nan
        without = rows.copy()
        without[:, counters] = np.nan
        keys = set(map(key_of, tried))
        others = rows[[key_of(row) not in keys for row in without]]
        return others if len(others) else rows

    def _weighed_by_chance(self, scores: np.ndarray, rows: np.ndarray, draw: Candidates) -> np.ndarray:
        """The scores of the best rows, each weighed by how likely the objective asks for just its parameters;
        the others come last."""
        if not self.branches:
            return scores
        order = np.argsort(-scores, kind="stable")[:_MOST_WEIGHED]
        weighed = np.full(len(scores), -np.inf)
        for i in order.tolist():
            chance = max(draw.chance(rows[i]), _LEAST_CHANCE)
            # A positive score is a gain, which is lost with the plan; others are logarithms of one.
            weighed[i] = scores[i] * chance if scores[i] > 0 else scores[i] + math.log(chance)
        return weighed

    def sorts(self, rows: np.ndarray, *, exact: bool) -> list[Sort]:
        """The sort of each row ``[N, D]``, see `sorts_of`."""
        return sorts_of(rows, self.columns.places.template, exact=exact)

    def _of_sort(
        self, sort: Sort, known: Known, draw: Candidates, of_known: np.ndarray, values: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Restrict a draw to a sort, and return what is known of that: a gain is one over its best."""
        draw.keep(sort)
        there = np.array([other == sort for other in self.sorts(known.actions, exact=sort.exact)], dtype=bool)
        if not there.any():
            return of_known, values
        return of_known[: len(there)][there], values[: len(there)][there]

    def _another_sort(self, rows: np.ndarray, known: Known, weights: np.ndarray) -> Sort | None:
        """The sort of ``rows`` that the plan should be of, where it is time for another one than the best."""
        if not self.branches or not self._config.random_interval or len(weights) > 1 or not len(known.trial):
            return None
        template = self.columns.places.template
        tried = Tried(self.memory.whole(), known.trial.tolist(), known.values, template)
        return tried.another(rows) if tried.is_time_for_another() else None

    def _with_own(self, known: Known, path: Path, reports: Sequence[tuple[int, float]]) -> Known:
        """The same, with what the running trial has reported, where that is what its parameters are worth."""
        D = len(self.columns)
        known = known._replace(actions=padded(known.actions, D))
        reports = [(n, report) for n, report in reports if not math.isnan(report)]
        if not self.memory.reports_are_values or not reports or not len(known.values):
            return known
        row = row_of(self.columns, path)
        rows, values = [], []
        for n, report in reports:
            prefix = row.copy()
            for name, distribution in zip(path.names[n:], path.distributions[n:], strict=True):
                if (column := self.columns.find(name, distribution)) >= 0:
                    prefix[column] = np.nan
            rows.append(prefix)
            values.append(self.memory.score_worth(report))
        return Known(
            np.concatenate([known.actions, rows]),
            np.concatenate([known.contexts, np.full((len(rows), known.contexts.shape[1]), np.nan)]),
            np.concatenate([known.values, values]),
            np.concatenate([known.trial, np.full(len(rows), -1)]),
        )

    @property
    def _unit(self) -> float | None:
        known = [source.unit for source in self._sources if source.unit is not None]
        return max(known, default=None)

    @property
    def _means(self) -> list[float]:
        if not self._sources:
            return []
        return [1 / _DOUBT / len(self._sources)] * len(self._sources) + [0.0]

    def _best_of_sources(self) -> list[np.ndarray]:
        return [padded(source.best, len(self.columns)) for source in self._sources]

    def _features(self, actions: np.ndarray, contexts: np.ndarray | None) -> np.ndarray:
        assert self._layout is not None
        if contexts is None:
            contexts = np.full((len(actions), self._layout.n_contexts), np.nan)
        expected = np.zeros((len(actions), 0))
        if self._sources:
            columns = [_DOUBT * source.expect(actions) for source in self._sources]
            expected = np.stack([*columns, np.full(len(actions), _OFFSET)], axis=1)
        return self._layout(actions, contexts, expected)

    def _fit(self, x: np.ndarray, values: np.ndarray) -> None:
        assert self._layout is not None
        n = len(self.memory)
        steps = 0
        if n != self._n_fitted and len(values) >= _LEAST:
            # A step takes longer the more configurations there are, and each of them changes less.
            self._owed += self._config.fit_steps * min(1.0, _MANY / len(values)) ** 2
            steps = int(self._owed) if self._has_learned else _FIRST_STEPS
            self._owed -= int(self._owed)
        self._critic.fit(x, values, self._layout.features, steps=steps)
        self._n_fitted, self._has_learned = n, self._has_learned or steps > 0

    def _judge(
        self,
        rows: np.ndarray,
        draw: Candidates,
        context: np.ndarray,
        of_known: np.ndarray,
        values: np.ndarray,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray]:
        """``[C]`` what the acquisition function holds of candidates, and the features ``[C, F]``.

        Where prefixes are valued on the way, a candidate is worth what its best prefix is that has no value
        yet.
        """
        config = self._config
        parts, owner = draw.prefixes(rows) if self.memory.values_prefixes else (rows, np.arange(len(rows)))
        z = self._features(parts, np.tile(context, (len(parts), 1)))
        scores = acquire(config.acquisition, self._critic, z, of_known, values, rng)
        best = np.full(len(rows), -np.inf)
        at = np.zeros(len(rows), dtype=np.int64)
        for i, (score, row) in enumerate(zip(scores.tolist(), owner.tolist(), strict=True)):
            if score > best[row]:
                best[row], at[row] = score, i
        return best, z[at]

    # What others ask ----------------------------------------------------------------------------------

    def values_of(self, scores: np.ndarray) -> np.ndarray | None:
        """The objective's values that have these scores; None where a score stands for no single value."""
        return self.memory.values_of(scores)

    def attention(self, plan: PathPlan) -> list[np.ndarray]:
        """What the critic attends to as it judges the first k steps of the plan that was made last.

        Rows k = 1 to S, each ``[H, k + 1]``, as `Search.attention` gives them.
        """
        if self._config.critic != "transformer" or self._layout is None:
            return []
        steps = steps_of(plan.path.names, [])
        ends = np.cumsum([len(names) for names in steps]).tolist()
        where = [
            self.columns.find(n, d) for n, d in zip(plan.path.names, plan.path.distributions, strict=True)
        ]
        rows = []
        for end in ends:
            row = plan.row.copy()
            row[[column for column in where[end:] if column >= 0]] = np.nan
            rows.append(row)
        weights = self._critic.attention(self._features(np.array(rows), None))
        assert weights is not None
        found = []
        for k in range(1, len(ends) + 1):
            row = np.zeros((weights.shape[1], k + 1))
            for step, (start, stop) in enumerate(zip([0, *ends], ends[:k], strict=False)):
                ids = [
                    1 + self.columns.id_of("column", column) for column in where[start:stop] if column >= 0
                ]
                ids = [number for number in ids if number < weights.shape[2]]
                row[:, step] = weights[k - 1][:, ids].sum(axis=1)
            row[:, k] = weights[k - 1].sum(axis=1) - row[:, :k].sum(axis=1)
            found.append(row)
        return found
