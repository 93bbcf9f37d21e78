"""Memory of finished trials, and its conversion to the agent's tensors.

Episodes are stored unchanged (actions, reports, outcomes). Ranks are computed when episodes are read, against
all that is known by then, so that acting and learning always use the same scale.

Notation: B trials, S steps, A action slots, P performance values, M members of the critic; K objectives, but
in `Steps` and `Batch` K kinds of a step.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from optuna.study import StudyDirection

from optuna_trlhpo.agent.config import AgentConfig
from optuna_trlhpo.agent.name_table import NameTable
from optuna_trlhpo.agent.ring_buffer import RingBuffer
from optuna_trlhpo.agent.sequences import DecisionPoint, Networks, network_key
from optuna_trlhpo.agent.step_encoding import allowed_kinds
from optuna_trlhpo.layers import ACTION_SLOTS
from optuna_trlhpo.trials.episode import Episode, Request
from optuna_trlhpo.trials.outcome_transforms import (
    HIGHEST_SCORE,
    EmpiricalCDF,
    OutcomeTransform,
    normal_scores,
    ranks_of,
    ranks_of_scores,
    scalarise,
)
from optuna_trlhpo.trials.parameters import ParameterSpec
from optuna_trlhpo.trials.rewards import returns_of, signs_of

_MEMBER_SHARE = 0.7
"""Share of the trials that each member of the critic learns from, so that members differ (bootstrap)."""
_BATCH_STEPS = 256
"""Largest number of steps in a batch: with long trials a batch has fewer trials, for the same run time."""
_BEST, _LATEST, _OTHERS = 120, 100, 80
"""Numbers of networks that the critic is conditioned on, where there are more than these together."""
_MOST_TIMED = 300
"""Largest number of trials from which the seconds of others are estimated: the latest ones."""
_MOST_REPORTS = 300
"""Largest number of reports from which others are forecast: those of the latest trials."""


class Replay:
    """Memory of episodes, which provides states, batches and networks with their values.

    Args:
        config: Settings of the agent, kept as an attribute.
        directions: Directions of the study's K objectives.
        seed: Random seed of the draws per trial.
        names: Table shared by all memories whose networks are compared. None creates a new one.

    Attributes:
        n_added: Number of trials that were remembered, forgotten ones included.
    """

    def __init__(
        self,
        config: AgentConfig,
        directions: Sequence[StudyDirection],
        seed: int,
        names: NameTable | None = None,
    ) -> None:
        self.config = config
        self._seed = seed
        self._signs = signs_of(directions)
        self.n_weights = len(directions) if len(directions) > 1 else 0
        self._outcome_cdfs = [EmpiricalCDF() for _ in directions]
        self._reports: list[EmpiricalCDF] = []  # by step
        self.names = NameTable() if names is None else names
        self._known: Counter[tuple[int, int]] = Counter()  # (slot, name) -> number of steps with it
        filling = dict(
            actions=np.nan,
            names=-1,
            indices=-1,
            n_values=0,
            allowed=0.0,
            valued=0.0,
            reports=np.nan,
            performance=np.nan,
            outcomes=np.nan,
            seconds=np.nan,
            mask=0.0,
        )
        self.n_added = 0
        self._tried: set[bytes] = set()  # `network_key` of every trial
        self._valued: dict[bytes, np.ndarray] = {}  # networks by `network_key` -> their latest outcomes
        self.scores = OutcomeTransform(np.full(1, -9.0))  # of a single objective; not yet of errors
        self._known_outcomes = np.zeros(0)
        self._first_outcomes: list[float] = []  # of each trial, the first that is known of a single objective
        self._chosen = np.zeros(0, dtype=np.int64)  # trials of the last `networks`
        self.reports_are_values = True
        """Whether the last trial with intermediate reports reported values of its networks."""
        self.reports_between = False
        """Whether a trial has reported something before its last step."""
        self._ring = RingBuffer(capacity=config.replay_capacity, filling=filling)

    def __len__(self) -> int:
        return len(self._ring)

    def add(self, number: int, episode: Episode, outcomes: np.ndarray, seconds: float = math.nan) -> None:
        """Remember trial ``number``.

        Args:
            number: Number of the trial.
            episode: The trial.
            outcomes: ``[S, K]`` outcomes from `trials.rewards.signed_outcomes`.
            seconds: Seconds that the trial took; NaN where they are unknown, or the trial was cut short.
        """
        names, indices, n_values = self.names.learn_all(episode)
        best = np.fmax.reduce(outcomes, axis=0)
        for cdf, outcome in zip(self._outcome_cdfs, best, strict=True):
            cdf.add(outcome)
        if not self.n_weights:
            self._first_outcomes.extend(outcomes[~np.isnan(outcomes)][:1])
        reports = self._signs[0] * episode.reports
        for k, report in enumerate(reports):
            if k == len(self._reports):
                self._reports.append(EmpiricalCDF())
            if not np.isnan(report):
                self._reports[k].add(report)
        rng = np.random.default_rng((self._seed, number))
        mask = rng.random(self.config.n_critics) < _MEMBER_SHARE
        mask[rng.integers(len(mask))] = True  # at least one member learns from each trial
        self._known.update(_places(names))
        if self.n_added >= self.config.replay_capacity:  # this trial replaces the oldest one
            row = np.array([self.n_added % self.config.replay_capacity])
            self._known.subtract(_places(self._ring.rows(row, "names")["names"][0]))
        self._tried.add(network_key(names, indices, episode.actions))
        self.n_added += 1
        between = ~np.isnan(reports)
        are_values = between & ~np.isnan(outcomes[:, 0])
        if between[:-1].any():
            self.reports_are_values = bool(are_values[:-1].any())
            self.reports_between = True
        self._ring.add(
            dict(
                actions=episode.actions,
                names=names,
                indices=indices,
                n_values=n_values,
                allowed=np.array([allowed_kinds(slots) for slots in episode.slots]),
                valued=self._new_values(names, indices, episode.actions, outcomes),
                reports=reports,
                performance=episode.performance.astype(np.float32),
                outcomes=outcomes,
                seconds=np.append(np.full(len(episode) - 1, np.nan), seconds),
                mask=np.tile(mask.astype(np.float32), (len(episode), 1)),
            )
        )

    # Names --------------------------------------------------------------------------------------------

    def rows(self, rows: np.ndarray, *names: str) -> dict[str, np.ndarray]:
        """Arrays of remembered trials, all or those in ``names``; see `RingBuffer.rows`."""
        return self._ring.rows(rows, *names)

    def knows(self, slots: Sequence[ParameterSpec]) -> bool:
        """Return whether a remembered trial has the last of ``slots`` at that place of a step."""
        place, number = len(slots) - 1, self.names.number(slots[-1])
        return self._known[place, number] > 0

    # Networks -----------------------------------------------------------------------------------------

    def _new_values(
        self, names: np.ndarray, indices: np.ndarray, actions: np.ndarray, outcomes: np.ndarray
    ) -> np.ndarray:
        """``[S]`` 1 where the network up to that step has a new value, 2 where a repeated one, else 0."""
        valued = np.zeros(len(names))
        for k in np.flatnonzero(~np.isnan(outcomes).any(axis=1)):
            key = network_key(names[: k + 1], indices[: k + 1], actions[: k + 1])
            repeats = key in self._valued and np.array_equal(self._valued[key], outcomes[k])
            self._valued[key] = outcomes[k]
            valued[k] = 2 if repeats else 1
        return valued

    @property
    def n_values(self) -> int:
        """Number of networks with a value."""
        return len(self._valued)

    def has_tried(self, episode: Episode) -> bool:
        """Return whether a remembered trial was this network."""
        key = network_key(*self.names.learn_all(episode)[:2], episode.actions)
        return key in self._tried

    def has_value(self, key: bytes) -> bool:
        """Return whether the network with this key (from `network_key`) already has a value."""
        return key in self._valued

    def networks(
        self,
        rng: np.random.Generator,
        weights: np.ndarray,
        *,
        unit: float | None = None,
        repeats: bool = False,
    ) -> tuple[Networks, np.ndarray]:
        """Networks with a value, and their values ``[N]`` as scores.

        If there are too many, the best, the latest and a random sample of the others are chosen.

        Args:
            rng: Random generator.
            weights: ``[K]`` weights of the objectives, as in `state`.
            unit: Unit of the scores, as in `OutcomeTransform`.
            repeats: Whether a value counts again if another trial with other reports had brought it.
        """
        if not len(self):
            return Networks.empty(0, 1), np.zeros(0)
        rows = self._ring.rows(np.arange(len(self._ring)), "outcomes", "valued", "reports")
        there = rows["valued"] == 1
        if repeats:  # a repeated value is news where the trial had reported something before
            reported = np.cumsum(~np.isnan(rows["reports"]), axis=1) > 0
            there |= (rows["valued"] == 2) & np.pad(reported[:, :-1], [(0, 0), (1, 0)])
        trial, step = np.nonzero(there)
        outcomes = rows["outcomes"][trial, step]
        if outcomes.shape[1] == 1 and self.config.targets == "log_error":
            self.scores = OutcomeTransform(outcomes[:, 0], unit)
            values = self.scores(outcomes[:, 0])
        else:
            ranks = scalarise(np.stack([ranks_of(column) for column in outcomes.T], axis=-1), weights[None])
            values = normal_scores(ranks_of(ranks))
            self._known_outcomes = outcomes[:, 0]
        if len(values) > _BEST + _LATEST + _OTHERS:
            order = np.argsort(-values, kind="stable")
            best, rest = order[:_BEST], np.sort(order[_BEST:])
            others = rng.choice(rest[:-_LATEST], _OTHERS, replace=False)
            chosen = np.sort(np.concatenate([best, rest[-_LATEST:], others]))
            trial, step, values = trial[chosen], step[chosen], values[chosen]
        self._chosen = trial
        return self._cut(trial, step), values

    def reported(self) -> tuple[np.ndarray, Networks, np.ndarray, np.ndarray, np.ndarray]:
        """Reports between the steps of the T trials to which the last `networks` belong.

        Returns:
            ``[N]`` the trial of each network, 0 to T - 1; the M prefixes that were reported on; and ``[M]``
            of each the trial, the step and the report, of which more is better.
        """
        rows, of_network = np.unique(self._chosen, return_inverse=True)
        if not len(rows):
            return of_network, Networks.empty(0, 1), *np.zeros((2, 0), dtype=np.int64), np.zeros(0)
        reports = self._ring.rows(rows, "reports")["reports"]
        trial, step = (places[-_MOST_REPORTS:] for places in np.nonzero(~np.isnan(reports)))
        return of_network, self._cut(rows[trial], step), trial, step, reports[trial, step]

    @property
    def score_unit(self) -> float | None:
        """Unit of the scores of the last `networks`, in logarithms of the error; None for other scores."""
        return self.scores.unit if self.scores.of_errors and len(self) else None

    def trials(self, rng: np.random.Generator, n: int) -> Networks:
        """Up to ``n`` finished trials, with all their steps."""
        rows = np.arange(len(self._ring))
        if not len(rows):
            return Networks.empty(0, 1)
        if len(rows) > n:
            rows = np.sort(rng.choice(rows, n, replace=False))
        return self._cut(rows, np.full(len(rows), 10**6))

    def timed(self) -> tuple[Networks, np.ndarray]:
        """Networks of the latest trials whose seconds are known, and these ``[N]``."""
        if not len(self):
            return Networks.empty(0, 1), np.zeros(0)
        seconds = self._ring.rows(np.arange(len(self._ring)), "seconds")["seconds"]
        trial, step = (places[-_MOST_TIMED:] for places in np.nonzero(~np.isnan(seconds)))
        return self._cut(trial, step), seconds[trial, step]

    def score_report(self, report: float) -> float:
        """Score of a network with that report, on the scale of the last `networks`."""
        outcome = self._signs[:1] * report
        if self.config.targets == "log_error":
            return float(self.scores(outcome)[0])
        return float(normal_scores(ranks_of(np.append(self._known_outcomes, outcome)))[-1])

    def signed(self, reports: np.ndarray) -> np.ndarray:
        """Reports with the sign of the first objective: more is better."""
        return self._signs[0] * reports

    def values_of(self, scores: np.ndarray) -> np.ndarray | None:
        """Values of the objective with these scores, the inverse of `score_report`.

        None where no network has a value yet, and with several objectives, which a score combines.
        """
        if self.n_weights or not len(self):
            return None
        if self.config.targets == "log_error":
            return self._signs[0] * self.scores.inverse(scores)
        return self._signs[0] * np.quantile(self._known_outcomes, ranks_of_scores(scores))

    def decision_point(self, request: Request) -> DecisionPoint:
        """Decision point of a running trial, as arrays. A request without slots is for any parameter."""
        steps = [*request.before.slots, request.slots]
        shape = (len(steps), ACTION_SLOTS)
        names, indices = np.full(shape, -1, dtype=np.int64), np.full(shape, -1, dtype=np.int64)
        n_values, actions = np.zeros(shape, dtype=np.int64), np.full(shape, np.nan)
        for k, slots in enumerate(steps):
            names[k] = self.names.numbers(slots)
            indices[k, : len(slots)] = [slot.index for slot in slots]
            n_values[k, : len(slots)] = [slot.n_values for slot in slots]
        actions[:-1] = request.before.actions
        actions[-1, : len(request.actions)] = request.actions
        return DecisionPoint(actions, names, indices, n_values, len(steps) - 1, len(request.actions))

    def _cut(self, trial: np.ndarray, step: np.ndarray) -> Networks:
        """Networks of the trials ``trial``, each up to the step in ``step``."""
        rows = self._ring.rows(trial, "actions", "names", "indices", "n_values")
        behind = np.arange(rows["names"].shape[1]) > step[:, None]
        return Networks(
            np.where(behind[..., None], np.nan, rows["actions"]),
            np.where(behind[..., None], -1, rows["names"]),
            np.where(behind[..., None], -1, rows["indices"]),
            np.where(behind[..., None], 0, rows["n_values"]),
            np.full(behind.shape, np.nan),
            np.zeros((len(trial), 0)),
            np.zeros((len(trial), 0)),
        )

    # Scales -------------------------------------------------------------------------------------------

    def draw_weights(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """``[n, K]`` weights of the objectives, or ``[n, 0]`` with a single objective."""
        if self.n_weights == 0:
            return np.zeros((n, 0))
        return rng.dirichlet(np.ones(self.n_weights), size=n) + 1e-3

    def sample(self, rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
        """Arrays of ``n`` remembered trials, drawn with replacement; see `RingBuffer.rows`."""
        return self._ring.rows(self._ring.sample(rng, n))

    @property
    def longest(self) -> int:
        """Largest number of steps of a trial."""
        return len(self._reports)

    @property
    def first_outcome(self) -> float:
        """Mean of the first outcome that is known of each trial, in the unit of `unit_outcomes`."""
        if self.n_weights:
            return 0.5  # the mean rank
        return float(self.unit(np.array(self._first_outcomes)).mean())

    def unit(self, reports: np.ndarray) -> np.ndarray:
        """Outcomes or reports of a single objective in [0, 1], see `EmpiricalCDF.unit`."""
        return self._outcome_cdfs[0].unit(reports)

    def rank_reports(self, reports: np.ndarray) -> np.ndarray:
        """Reports ``[B, S]`` as ranks among those at the same step."""
        ranks = np.full(reports.shape, np.nan)
        for k, scale in enumerate(self._reports[: reports.shape[1]]):
            ranks[:, k] = scale.rank(reports[:, k])
        return ranks

    def _ranks(self, outcomes: np.ndarray) -> np.ndarray:
        return np.stack([cdf.rank(outcomes[..., i]) for i, cdf in enumerate(self._outcome_cdfs)], axis=-1)

    def scores_of(self, outcomes: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Returns ``[B, S]`` of outcomes ``[B, S, K]`` in [-1, 1]."""
        ranks = scalarise(self._ranks(returns_of(outcomes)), weights[:, None, :])
        return normal_scores(ranks) / HIGHEST_SCORE

    def unit_outcomes(self, outcomes: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Scalar outcomes ``[B, S]`` in [0, 1]: accuracies are unchanged, all others become ranks."""
        if self.n_weights:
            return scalarise(self._ranks(outcomes), weights[:, None, :])
        return self.unit(outcomes[..., 0])


def _places(names: np.ndarray) -> list[tuple[int, int]]:
    """Positions of the names ``[S, A]``: for each the slot in its step, and its number."""
    return [(place, number) for step in names.tolist() for place, number in enumerate(step) if number >= 0]
