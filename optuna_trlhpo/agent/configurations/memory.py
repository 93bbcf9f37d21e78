"""Memory of finished trials as configurations, with their parameters and outcomes.

Notation: T trials, D columns, N configurations with a value, K objectives.

A trial is one configuration; where it reported values of its parameters so far, each prefix is one as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_trlhpo.agent.configurations.columns import Columns, padded
from optuna_trlhpo.agent.configurations.entries import Entries
from optuna_trlhpo.trials.durations import seconds_of
from optuna_trlhpo.trials.episode import ReportMarks, read_episode
from optuna_trlhpo.trials.outcome_transforms import (
    OutcomeTransform,
    normal_scores,
    ranks_of,
    ranks_of_scores,
    scalarise,
)
from optuna_trlhpo.trials.path import Path
from optuna_trlhpo.trials.rewards import signed_outcomes, signs_of

_BEST, _LATEST, _OTHERS = 150, 150, 100
"""Numbers of configurations that the critic is conditioned on, where there are more than these together."""
_MOST_TIMED = 300
"""Largest number of trials from which the seconds of others are estimated: the latest ones."""
_PRUNED_QUANTILE = 0.3
"""Quantile of the completed trials' outcomes that limits the outcome of a pruned trial."""
_SLOPES, _SLOPING_TRIALS = 8, 3
"""Number of reports, and of trials, each report worse than the one before, that indicate a growing sum."""


@dataclass(frozen=True)
class Record:
    """Record of a finished trial.

    Attributes:
        path: Parameters of the trial.
        ended: Whether the trial asked for all its parameters.
        outcomes: Pairs of a number of parameters and their outcomes ``[K]``; more is better.
        reports: Pairs of a number of parameters and the report after them; more is better.
        pruned: Whether the last outcome is the last report of a pruned trial.
        value: Value of the trial, more is better; NaN where it has none or several.
        seconds: Seconds that the trial took; NaN where they are unknown, or the trial was cut short.
    """

    path: Path
    ended: bool
    outcomes: tuple[tuple[int, np.ndarray], ...]
    reports: tuple[tuple[int, float], ...]
    pruned: bool
    value: float = math.nan
    seconds: float = math.nan


def read_record(trial: FrozenTrial, marks: ReportMarks, directions: Sequence[StudyDirection]) -> Record:
    """Read the record of a finished trial, whose parameters are in the order in which they were asked for."""
    path = Path.of_trial(trial)
    ended = trial.state == TrialState.COMPLETE
    pruned = trial.state == TrialState.PRUNED
    if not len(path):
        return Record(path, ended, (), (), pruned)
    episode = read_episode(trial, marks)
    outcomes = signed_outcomes(trial, episode, directions)
    ends = np.cumsum([len(slots) for slots in episode.slots]).tolist()
    if outcomes is None:
        return Record(path, ended, (), (), pruned)
    valued = [k for k in range(len(ends)) if not np.isnan(outcomes[k]).any()]
    reported = [k for k in range(len(ends)) if not np.isnan(episode.reports[k])]
    sign = float(signs_of(directions)[0])
    return Record(
        path,
        ended,
        tuple((ends[k], outcomes[k]) for k in valued),
        tuple((ends[k], sign * float(episode.reports[k])) for k in reported),
        pruned,
        sign * trial.values[0] if trial.values and len(trial.values) == 1 else math.nan,
        seconds_of(trial) if ended else math.nan,
    )


class Known(NamedTuple):
    """Configurations with a value."""

    actions: np.ndarray  # [N, D]
    contexts: np.ndarray  # [N, R] surprise at the reports before the end, in [0, 1]; see `state_critics`
    values: np.ndarray  # [N] scores
    trial: np.ndarray  # [N] index of the trial; -1 for the running one


class ConfigurationMemory:
    """Memory of records on shared columns.

    Args:
        columns: Columns shared by all memories whose configurations are compared.
        directions: Directions of the study's K objectives.
        ranks: Whether scores are always based on ranks.
    """

    def __init__(self, columns: Columns, directions: Sequence[StudyDirection], *, ranks: bool) -> None:
        self.columns = columns
        self._signs = signs_of(directions)
        self._ranks = ranks
        self._raw = np.zeros((0, 0))  # [T, D], with spare capacity
        self._position = np.zeros((0, 0), dtype=np.int32)  # [T, D] position of a parameter in its trial
        self._lengths: list[int] = []
        self.entries = Entries(len(directions))
        self._valued: dict[bytes, np.ndarray] = {}
        self._reports: list[tuple[tuple[int, float], ...]] = []  # by trial
        self._seconds: list[float] = []  # by trial
        self._tried: set[bytes] = set()  # keys of the actions of whole trials
        self._without: tuple[int, ...] = ()  # version and columns of `_tried_without`
        self._n_without = 0
        self._tried_without: set[bytes] = set()
        self._version = -1
        self._actions = np.zeros((0, 0))
        self._most_between = 0
        self._n_slopes = self._n_rises = self._n_sloping = 0
        self._last_reports_valued = True
        self._has_prefixes = False
        self._valued_actions: set[bytes] = set()
        self._n_keyed = self._n_entries_keyed = 0
        self._known_outcomes = np.zeros(0)
        self.scores: OutcomeTransform | None = None

    def __len__(self) -> int:
        return len(self._lengths)

    @property
    def reports_are_values(self) -> bool:
        """Whether the reports between parameters are values of the parameters so far."""
        sums = self._n_slopes >= _SLOPES and self._n_sloping >= _SLOPING_TRIALS and self._n_rises == 0
        return self._last_reports_valued and not sums

    @property
    def values_prefixes(self) -> bool:
        """Whether trials report values of prefixes."""
        return self._has_prefixes and self.reports_are_values

    @property
    def reports_steer(self) -> bool:
        """Whether trials report something between their parameters that is no value, but may guide them."""
        return self._has_prefixes and not self.reports_are_values

    @property
    def mean_size(self) -> float:
        """Mean number of parameters of a trial."""
        return float(np.mean(self._lengths)) if self._lengths else 1.0

    @property
    def n_values(self) -> int:
        """Number of different configurations with a value."""
        return len(self._valued)

    def add(self, record: Record, columns: Sequence[int]) -> None:
        """Remember a trial; ``columns`` are the columns of its parameters, in order."""
        t, path = len(self._lengths), record.path
        self._make_room(t + 1)
        for position, (column, name) in enumerate(zip(columns, path.names, strict=True)):
            self._raw[t, column] = self.columns.axis(column).raw(path.values[name])
            self._position[t, column] = position
        self._lengths.append(len(path))
        last = record.outcomes[-1][0] if record.outcomes else 0
        between = [n for n, _ in record.reports if n < len(path)]
        if between and not record.pruned:
            self._last_reports_valued = any(n in between for n, _ in record.outcomes)
            self._watch_slope(record)
            self._has_prefixes = True
            self._most_between = max(self._most_between, len(between))
        for n, outcome in record.outcomes:
            key = self._raw[t, : len(self.columns)].copy()
            key[self._position[t, : len(self.columns)] >= n] = np.nan
            text = key_of(key, digits=None)
            repeats = text in self._valued and np.array_equal(self._valued[text], outcome)
            self._valued[text] = outcome
            # A repeated value is news where the trial had reported something before.
            if not repeats or any(earlier < n for earlier, _ in record.reports):
                is_whole = n == last and n == len(path)
                self.entries.add(
                    trial=t,
                    n=n,
                    outcome=outcome,
                    is_whole=is_whole,
                    is_pruned=record.pruned,
                    repeats=repeats,
                )
        self._reports.append(record.reports)
        self._seconds.append(record.seconds)

    def _watch_slope(self, record: Record) -> None:
        reports = [report for _, report in record.reports]
        reports += [float(outcome[0]) for n, outcome in record.outcomes if n == len(record.path)]
        if len(reports) < 2:
            return
        steps = np.diff(reports)
        self._n_sloping += 1
        self._n_slopes += int((steps < 0).sum())
        # Partial sums only grow, and the last one equals the value.
        self._n_rises += int((steps > 0).sum()) + (record.value != reports[-1])

    def _make_room(self, n_trials: int) -> None:
        rows, cols = self._raw.shape
        new_rows = rows if n_trials <= rows else max(64, 2 * rows)
        new_cols = cols if len(self.columns) <= cols else max(16, 2 * cols, len(self.columns))
        if (new_rows, new_cols) != (rows, cols):
            raw, position = np.full((new_rows, new_cols), np.nan), np.zeros((new_rows, new_cols), np.int32)
            raw[:rows, :cols], position[:rows, :cols] = self._raw, self._position
            self._raw, self._position = raw, position

    def actions(self) -> np.ndarray:
        """Actions ``[T, D]`` of all trials."""
        T, D = len(self), len(self.columns)
        self._make_room(T)
        if self._version != self.columns.version:
            self._tried.clear()
            self._actions, self._version = self.columns.actions(self._raw[:T, :D]), self.columns.version
        if self._actions.shape[1] != D:  # these trials do not have the other columns
            self._actions = padded(self._actions[:, :D], D)
        if len(self._actions) < T:
            new = self.columns.actions(self._raw[len(self._actions) : T, :D])
            self._actions = np.concatenate([self._actions, new])
        return self._actions

    def tried(self) -> set[bytes]:
        """Keys of the actions of all trials, see `key_of`. Do not change the set."""
        actions = self.actions()
        if not self._tried:
            self._n_keyed = self._n_entries_keyed = 0
            self._valued_actions.clear()
        self._tried.update(key_of(row) for row in actions[self._n_keyed :])
        self._n_keyed = len(actions)
        if self.reports_are_values:
            new = slice(self._n_entries_keyed, None)
            for t, n in zip(self.entries.trial[new].tolist(), self.entries.n[new].tolist(), strict=True):
                row = actions[t].copy()
                row[self._position[t, : len(row)] >= n] = np.nan
                self._valued_actions.add(key_of(row))
            self._n_entries_keyed = len(self.entries)
        return self._tried

    def tried_without(self, columns: Sequence[int]) -> set[bytes]:
        """Keys of the actions of all trials, as they are without these columns. Do not change the set."""
        actions = self.actions()
        if self._without != (self._version, *columns):
            self._without, self._n_without, self._tried_without = (self._version, *columns), 0, set()
        new = actions[self._n_without :].copy()
        new[:, columns] = np.nan
        self._tried_without.update(map(key_of, new))
        self._n_without = len(actions)
        return self._tried_without

    def known(
        self,
        rng: np.random.Generator,
        weights: np.ndarray,
        *,
        unit: float | None = None,
        repeats: bool = False,
    ) -> Known:
        """Configurations with a value; if there are too many: the best, the latest and some of the others.

        Args:
            rng: Random generator.
            weights: ``[K]`` weights of the objectives; ``[0]`` with a single objective.
            unit: Unit of the scores, as in `OutcomeTransform`.
            repeats: Whether a value counts again if another trial with other reports had brought it.
        """
        actions, D = self.actions(), len(self.columns)
        prefixes = self.reports_are_values
        entries = self.entries
        chosen = (entries.is_whole | prefixes) & (~entries.repeats | repeats)
        if not chosen.any():
            return Known(np.zeros((0, D)), np.zeros((0, 0)), np.zeros(0), np.zeros(0, np.int64))
        trial, n = entries.trial[chosen].astype(np.int64), entries.n[chosen]
        outcomes = self._capped(entries.outcome[chosen], entries.is_pruned[chosen], prefixes)
        values = self._score(outcomes, weights, unit)
        if len(values) > _BEST + _LATEST + _OTHERS:
            order = np.argsort(-values, kind="stable")
            best, rest = order[:_BEST], np.sort(order[_BEST:])
            others = rng.choice(rest[:-_LATEST], _OTHERS, replace=False)
            chosen = np.sort(np.concatenate([best, rest[-_LATEST:], others]))
            trial, n, values = trial[chosen], n[chosen], values[chosen]
        there = self._position[trial, :D] < n[:, None]
        return Known(
            np.where(there, actions[trial], np.nan),
            np.zeros((len(trial), 0)),
            values,
            trial,
        )

    def timed(self) -> tuple[np.ndarray, np.ndarray]:
        """Actions ``[N, D]`` of the latest trials whose seconds are known, and these ``[N]``."""
        seconds = np.array(self._seconds)
        there = np.flatnonzero(~np.isnan(seconds))[-_MOST_TIMED:]
        return self.actions()[there], seconds[there]

    def _capped(self, outcomes: np.ndarray, pruned: np.ndarray, prefixes: bool) -> np.ndarray:
        """Outcomes ``[N, K]``, with a limit for pruned trials.

        The last report of a pruned trial is no estimate of its value, unless reports are values.
        """
        if prefixes and self._n_sloping:
            return outcomes
        if pruned.any() and not pruned.all():
            cap = np.quantile(outcomes[~pruned], _PRUNED_QUANTILE, axis=0, method="lower")
            outcomes[pruned] = np.minimum(outcomes[pruned], cap)
        return outcomes

    def _score(self, outcomes: np.ndarray, weights: np.ndarray, unit: float | None) -> np.ndarray:
        if outcomes.shape[1] == 1 and not self._ranks:
            self.scores = OutcomeTransform(outcomes[:, 0], unit)
            return self.scores(outcomes[:, 0])
        self._known_outcomes = outcomes[:, 0]
        ranks = scalarise(np.stack([ranks_of(column) for column in outcomes.T], axis=-1), weights[None])
        return normal_scores(ranks_of(ranks))

    def score_outcome(self, outcome: float) -> float:
        """Score of a configuration with this outcome, on the scale of the last `known`."""
        if self.scores is not None:
            return float(self.scores(np.array([outcome]))[0])
        return float(normal_scores(ranks_of(np.append(self._known_outcomes, outcome)))[-1])

    def values_of(self, scores: np.ndarray) -> np.ndarray | None:
        """Values of the objective with these scores.

        None where no configuration has a value yet, and with several objectives, which a score combines.
        """
        if len(self._signs) > 1 or not len(self.entries):
            return None
        if self.scores is not None:
            return self._signs[0] * self.scores.inverse(scores)
        return self._signs[0] * np.quantile(self._known_outcomes, ranks_of_scores(scores))

    def has_value(self, key: bytes) -> bool:
        """Return whether the configuration or prefix with this key of its actions has a value."""
        self.tried()
        return key in self._valued_actions

    def reports_of(self, t: int) -> tuple[tuple[int, float], ...]:
        """Pairs of a number of parameters and the report after them, of the trial with index ``t``."""
        return self._reports[t]

    def most_reports(self, limit: int) -> int:
        """Largest number of reports of a trial before its last parameter, up to ``limit``."""
        return min(self._most_between, limit)

    def after_reports(self) -> list[int]:
        """Columns that no trial had before its first report between parameters."""
        T, D = len(self), len(self.columns)
        first = np.array([min((n for n, _ in reports), default=0) for reports in self._reports])
        there = ~np.isnan(self.actions())
        before = there & (self._position[:T, :D] < first[:, None])
        return np.flatnonzero(there.any(axis=0) & ~before.any(axis=0)).tolist()

    def prefix(self, t: int, n: int, D: int) -> np.ndarray:
        """Actions ``[D]`` of the first ``n`` parameters of the trial with index ``t``."""
        return np.where(self._position[t, :D] < n, self.actions()[t, :D], np.nan)


def key_of(row: np.ndarray, digits: int | None = 9) -> bytes:
    """Key of a row of numbers, NaN where there is none; further empty columns do not change it.

    Actions in [0, 1] that differ only by rounding have the same key.
    """
    there = np.flatnonzero(~np.isnan(row))
    numbers = row[there] if digits is None else np.round(row[there], digits)
    return there.astype(np.int32).tobytes() + numbers.tobytes()


def row_of(columns: Columns, path: Path) -> np.ndarray:
    """Actions ``[D]`` of a path, without parameters and labels that are unknown."""
    raw = np.full(len(columns), np.nan)
    for name, distribution in zip(path.names, path.distributions, strict=True):
        column = columns.find(name, distribution)
        if column >= 0 and columns.axis(column).knows(path.values[name]):
            raw[column] = columns.axis(column).raw(path.values[name])
    return columns.actions(raw[None])[0]
