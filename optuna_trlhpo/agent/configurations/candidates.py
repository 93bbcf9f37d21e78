"""Candidates for a plan: variations of configurations, each as the objective would ask for it.

Notation: N configurations with a value, M parents, C candidates, D columns.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution

from optuna_trlhpo.agent.configurations.columns import padded
from optuna_trlhpo.agent.configurations.genomes import Genomes, loops_of
from optuna_trlhpo.agent.configurations.memory import ConfigurationMemory, Known, key_of, row_of
from optuna_trlhpo.agent.configurations.sorts import Sort, sorts_of
from optuna_trlhpo.search_space.model import END, Next, SpaceModel
from optuna_trlhpo.trials.agent_record import CHANCE, INCUMBENT_NEIGHBOUR
from optuna_trlhpo.trials.episode import steps_of
from optuna_trlhpo.trials.parameter_names import parse_name
from optuna_trlhpo.trials.path import Path
from optuna_trlhpo.trials.values import fixed_value

_N_OTHERS = 100
"""Number of latest trials without a value that are also varied."""
_N_AS_THEY_ARE = 10
"""Number of best configurations of earlier studies that are candidates unchanged."""
_LONG = 40
"""Number of parameters of a configuration beyond which fewer candidates are rolled out."""

Asked = tuple[str, BaseDistribution]


class Candidates:
    """Candidates for one plan.

    Args:
        model: Model of the space, which predicts the parameters that follow from values.
        memory: All trials, on the columns of the running study.
        best: Rows of the best configurations of earlier studies, if there are any.
        known: Configurations with a value.
        of_known: ``[N]``, or longer: predictions of the critic for them.
        path: Parameters of the trial so far.
        asked: Parameter that the trial asks for.
        column: Column of this parameter.
        fixed: Values, by name, that further parameters will have if the trial asks for them.
        rng: Random generator.

    Attributes:
        parents: ``[M, D]`` configurations that are varied, the best first, with the trial's values.
        counters: Columns of integers that count places.
    """

    def __init__(
        self,
        model: SpaceModel,
        memory: ConfigurationMemory,
        best: Sequence[np.ndarray],
        known: Known,
        of_known: np.ndarray,
        path: Path,
        asked: Asked,
        column: int,
        fixed: Mapping[str, Any],
        rng: np.random.Generator,
    ) -> None:
        self._fixed = fixed
        self._model, self._memory, self._columns = model, memory, memory.columns
        self._path, self._asked, self._rng = path, asked, rng
        self._has_prior = bool(best)
        columns = memory.columns
        D = len(columns)
        actions = memory.actions()
        order = np.argsort(-of_known[: len(known.trial)], kind="stable")
        trials = list(dict.fromkeys(t for t in known.trial[order].tolist() if t >= 0))
        best_of = set(trials)
        latest = (t for t in reversed(range(len(actions))) if t not in best_of)
        rest = [*itertools.islice(latest, _N_OTHERS)][::-1]
        parents = padded([*padded(actions[[*trials, *rest]], D), *(row for rows in best for row in rows)], D)
        self._flat = model.flat is not None
        on_path = [columns.find(n, d) for n, d in zip(path.names, path.distributions, strict=True)]
        self._fixed_columns = {c for c in on_path if c >= 0}
        own = row_of(columns, path)
        known_columns = [c for c in self._fixed_columns if c < len(own)]
        parents[:, known_columns] = own[known_columns]
        if self._flat:
            names = model.flat or ()
            there = [c for n in names if (c := columns.find(n, model.latest(n))) >= 0]
            outside = np.ones(D, dtype=bool)
            outside[[*there, column, *self._fixed_columns]] = False
            parents[:, outside] = np.nan
            self._fix(parents)
        free = np.ones(D, dtype=bool)
        free[list(self._fixed_columns)] = False
        self._templates = parents
        places = columns.places
        counters = {} if self._flat else self._counters()
        self.counters = [c for c in sorted(set(counters.values())) if not columns.axis(c).categorical]
        loops = (
            []
            if self._flat
            else loops_of(places.template.tolist(), places.place.tolist(), places.outer, counters)
        )
        self._genomes = Genomes(parents, free, places.categorical, places.n_values, loops)
        self.parents = parents
        self._fill(parents, [column])
        self._paths: dict[bytes, Path] = {}  # key of a candidate's row -> its path

    def _fix(self, parents: np.ndarray) -> None:
        """Set the fixed values in ``parents``, in place.

        This is needed where all trials ask for the same parameters, because no candidate is rolled out there.
        """
        names = self._model.flat or ()
        for name in self._fixed:
            if name not in self._path.values and name in names:
                distribution = self._model.latest(name)
                c = self._columns.find(name, distribution)
                for value in fixed_value(self._fixed, name, distribution):
                    raw = self._columns.axis(c).raw(value)
                    parents[:, c] = self._columns.axis(c).actions(np.array([raw]))[0]
                    self._fixed_columns.add(c)

    def _counters(self) -> dict[int, int]:
        """Map from the column of a place's last parameter to the column of the integer that counts places."""
        columns = self._columns
        by_template = self._model.counters()
        if not by_template:
            return {}
        names = {parse_name(name): c for c in range(len(columns)) for name in columns.names(c)}
        found = {}
        for c in range(len(columns)):
            for name in columns.names(c):
                parsed = parse_name(name)
                counter = by_template.get(parsed.template)
                if counter is None:
                    continue
                m = counter.count("\0")
                for other, column in names.items():
                    if other.template == counter and other.places == parsed.places[:m]:
                        found[c] = column
        return found

    def _fill(self, rows: np.ndarray, columns: Iterable[int]) -> None:
        """Fill empty actions in ``columns`` of ``rows``, in place, from other parents or at random."""
        for c in columns:
            empty = np.flatnonzero(np.isnan(rows[:, c]))
            for i in empty.tolist():
                rows[i, c] = self._some(c)

    def _some(self, column: int) -> float:
        """Action for a parameter that a parent lacks: half the time from another parent, else random."""
        rng = self._rng
        if column < self._templates.shape[1] and rng.random() < 0.5:
            others = self._templates[:, column]
            there = others[~np.isnan(others)]
            if len(there):
                return float(there[int(len(there) * rng.random() ** 2)])
        return float(rng.random())

    def start(self, n: int) -> tuple[list[np.ndarray], list[str]]:
        """Random candidates, and the best configurations of earlier studies unchanged; and their origins."""
        if not len(self.parents):
            return [], []
        rows = self._genomes.resample(self.parents, self._rng, self._number(n) // 2)
        found = self.finish(rows)
        earlier = self.finish(self.parents[:_N_AS_THEY_ARE]) if self._has_prior else []
        return found + earlier, [CHANCE] * len(found) + [INCUMBENT_NEIGHBOUR] * len(earlier)

    def keep(self, sort: Sort) -> bool:
        """Keep only parents of one sort, if there are any; return whether there are."""
        kept = [
            other == sort for other in sorts_of(self.parents, self._columns.places.template, exact=sort.exact)
        ]
        if any(kept):
            self.parents = self.parents[kept]
        return any(kept)

    def more(
        self, parents: np.ndarray, origins: Sequence[str], n: int, *, mutate: bool
    ) -> tuple[list[np.ndarray], list[str]]:
        """Variations of ``parents``, completed, and their origins; or random candidates in their place."""
        n = self._number(n)
        parents = parents[:, : self._genomes.parents.shape[1]]  # later columns were learned in between
        if not mutate:
            return self.finish(self._genomes.resample(parents, self._rng, n)), [CHANCE] * n
        rows, chosen = self._genomes.mutate(parents, self._rng, n)
        return self.finish(rows), [origins[k] for k in chosen.tolist()]

    def _number(self, n: int) -> int:
        """Number of candidates, reduced where each takes long to roll out."""
        size = self._memory.mean_size
        return n if self._flat or size <= _LONG else max(10, int(n * _LONG / size))

    def finish(self, rows: np.ndarray) -> list[np.ndarray]:
        """Complete rows to the configurations that the objective would ask for."""
        columns = self._columns
        if self._flat:
            rows = rows.copy()
            columns.settle(rows, [c for c in range(rows.shape[1]) if c not in self._fixed_columns])
            return [*rows]
        raws, paths = [], []
        for row in rows:
            path, _ = self.roll(row)
            paths.append(path)
            raw = np.full(len(columns), np.nan)
            for name, distribution in zip(path.names, path.distributions, strict=True):
                c = columns.find(name, distribution)
                raw[c] = columns.axis(c).raw(path.values[name])
            raws.append(raw)
        found = [*columns.actions(padded(raws, len(columns)))]
        self._paths.update((key_of(row), path) for row, path in zip(found, paths, strict=True))
        return found

    def roll(self, row: np.ndarray) -> tuple[Path, bool]:
        """Path that an objective would ask for with the values of ``row``, and whether it reaches an end."""
        columns, model = self._columns, self._model
        path = self._path.copy()
        following: Any = Next(*self._asked, True)
        while isinstance(following, Next):
            name, distribution = following.name, following.distribution
            c = columns.find(name, distribution)
            if c < 0:
                c = columns.learn(name, distribution, dependent=model.is_dependent(name))
            if values := fixed_value(self._fixed, name, distribution):
                path.push(name, distribution, values[0])
            else:
                action = row[c] if c < len(row) else math.nan
                if math.isnan(action):
                    action = self._some(c)
                path.push(name, distribution, columns.axis(c).value(action, distribution))
            following = model.next(path)
        return path, following is END

    def chance(self, row: np.ndarray) -> float:
        """Probability that the objective asks for exactly the parameters of ``row``."""
        path, ended = self._rolled(row)
        return self._model.chance(path, len(self._path) + 1, ended=ended)

    def _rolled(self, row: np.ndarray) -> tuple[Path, bool]:
        path = self._paths.get(key_of(row))
        return (path, self._model.next(path) is END) if path is not None else self.roll(row)

    def prefixes(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Prefixes of rows that will get a value, and the row number of each."""
        columns = self._columns
        parts, owner = [], []
        n_fixed = len(self._path)
        for i, row in enumerate(rows):
            path = self._paths.get(key_of(row)) or self.roll(row)[0]
            end = 0
            steps = steps_of(path.names, [])
            where = [columns.find(n, d) for n, d in zip(path.names, path.distributions, strict=True)]
            for k, names in enumerate(steps):
                end += len(names)
                last = k == len(steps) - 1
                if not last and (end <= n_fixed or not parse_name(names[0]).places):
                    continue
                part = np.full(len(columns), np.nan)
                part[where[:end]] = padded([row], len(columns))[0][where[:end]]
                if not last and self._memory.has_value(key_of(part)):
                    continue
                parts.append(part)
                owner.append(i)
        return np.array(parts), np.array(owner)
