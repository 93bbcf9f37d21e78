"""Critics of configurations: one that judges by parameters alone, and one that also reads reports.

Notation: N configurations with a value, R reports of a trial that are read, D columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from optuna_trlhpo.agent.configurations.columns import padded
from optuna_trlhpo.agent.configurations.critic import ConfigurationCritic
from optuna_trlhpo.agent.configurations.memory import ConfigurationMemory, Known, key_of
from optuna_trlhpo.agent.steering import Steering, surprises
from optuna_trlhpo.trials.outcome_transforms import normal_scores, ranks_of

_MOST_CONTEXTS = 32
"""Largest number of reports of a trial, the first ones, that are read."""


class StateCritics:
    """Critics of one study.

    Args:
        make_critic: Creates a critic.
        memory: Memory of the study.

    Attributes:
        plain: Critic that reads parameters alone, as for a trial that has reported nothing.
        steering: Decides whether reports inform what follows.
        losses: Loss of the plain critic when it last learned, see `AgentRecord`; None before.
    """

    def __init__(self, make_critic: Callable[[], ConfigurationCritic], memory: ConfigurationMemory) -> None:
        self._memory = memory
        self.plain = make_critic()
        self.steering = Steering(make_critic)
        self._forecast = make_critic()  # of reports
        self._differs = False  # whether equal parameters were followed by different reports
        self._n_contexts = 0  # R
        self.losses: tuple[float, None] | None = None

    def learn(self, known: Known, *, varies: bool, n_trials: int) -> None:
        """Let the critics learn from all that is known.

        Args:
            known: Configurations with a value.
            varies: Whether values decide which parameters there are.
            n_trials: Number of finished trials since the critics learned.
        """
        memory = self._memory
        self._condition(self.plain, _without(known), (), varies=varies, n_trials=n_trials)
        if self.plain.evidence is not None:
            self.losses = -self.plain.evidence / max(len(known.values), 1), None
        self._n_contexts = memory.most_reports(_MOST_CONTEXTS)
        informed = self.steering.candidate(len(memory)) if self._n_contexts else None
        if informed is None or self.plain.evidence is None:
            return
        contexts, _ = self._contexts(known, (), (), varies=varies, n_trials=n_trials)
        if np.isnan(contexts).all():
            return
        self._condition(informed, known._replace(contexts=contexts), (), varies=varies, n_trials=n_trials)
        assert informed.evidence is not None
        self.steering.judge(informed.evidence, self.plain.evidence, len(memory))

    def conditioned(
        self,
        known: Known,
        own: Sequence[np.ndarray],
        reports: Sequence[float],
        pending: Sequence[np.ndarray],
        *,
        varies: bool,
    ) -> tuple[ConfigurationCritic, Known, np.ndarray]:
        """Condition the critics on all that is known, and choose one for the plan of a running trial.

        Args:
            known: Configurations with a value.
            own: Rows of the parameters that the running trial had at each of its reports.
            reports: Reports of the running trial; more is better.
            pending: Rows of other running trials; the expectation replaces their outcome.
            varies: Whether values decide which parameters there are.

        Returns:
            The critic, what it was conditioned on, and the context of the running trial, ``[2 R]`` or empty.
        """
        critic, context = self.plain, np.zeros(0)
        if len(reports) and self.steering.acts:
            assert self.steering.critic is not None
            critic = self.steering.critic
            contexts, context = self._contexts(known, own, reports, varies=varies)
            known = known._replace(contexts=contexts)
        else:
            known = _without(known)
        self._condition(critic, known, pending, varies=varies)
        return critic, known, context

    def _condition(
        self,
        critic: ConfigurationCritic,
        known: Known,
        pending: Sequence[np.ndarray],
        *,
        varies: bool,
        n_trials: int = 0,
    ) -> None:
        memory = self._memory
        critic.condition(
            known,
            pending,
            mean_size=memory.mean_size,
            varies=varies,
            is_noisy=memory.reports_steer,  # what decides between parameters makes values inexact
            after=memory.after_reports() if known.contexts.shape[1] else (),
            n_trials=n_trials,
        )

    @property
    def may_repeat(self) -> bool:
        """Whether a configuration has no one value: reports inform what follows, and are not always the same.

        After equal parameters there must have been different reports.
        """
        return self.steering.acts and self._differs

    def _contexts(
        self,
        known: Known,
        own: Sequence[np.ndarray],
        reports: Sequence[float],
        *,
        varies: bool,
        n_trials: int = 0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Surprise at each report, and the report's rank.

        Args:
            known: Configurations with a value.
            own: As in `conditioned`.
            reports: As in `conditioned`. Other trials' later reports are left out.
            varies: As in `conditioned`.
            n_trials: Number of finished trials since the forecast of reports learned, if it is to learn now.

        Returns:
            ``[N, 2 R]`` of the reports before a configuration ended, ``[2 R]`` of the running trial.
        """
        memory, R, D = self._memory, self._n_contexts, known.actions.shape[1]
        trials = np.unique(known.trial[known.trial >= 0])
        most = R if n_trials else min(R, len(reports))
        found = [
            (row, k, n, report, memory.prefix(t, n, D))
            for row, t in enumerate(trials.tolist())
            for k, (n, report) in enumerate(memory.reports_of(t)[:most])
        ]
        found += [
            (len(trials), k, 0, report, row)
            for k, (report, row) in enumerate(zip(reports[:most], own[:most], strict=True))
        ]
        of_trial, numbers, ends = (np.array([one[i] for one in found], dtype=np.int64) for i in range(3))
        values = np.array([one[3] for one in found])
        plain = surprises(values, numbers)
        if n_trials:
            reported: dict[tuple[int, bytes], float] = {}  # by number and parameters
            for _, k, _, report, row in found:
                self._differs |= reported.setdefault((k, key_of(row)), report) != report
        for number in range(most):
            mine = numbers == number
            values[mine] = normal_scores(ranks_of(values[mine]))
        rows = padded([one[4] for one in found], D)
        by_trial = np.full((len(trials) + 1, 2, R), np.nan)
        if len(found):
            self._forecast.condition(
                Known(rows, np.zeros((len(rows), 0)), values, of_trial),
                (),
                mean_size=memory.mean_size,
                varies=varies,
                is_noisy=True,
                n_trials=n_trials,
            )
            errors = self._forecast.surrogate.leave_one_out()
            assert errors is not None
            by_trial[of_trial, 0, numbers] = surprises(errors, numbers)
            by_trial[of_trial, 1, numbers] = plain
        before = np.zeros((len(trials) + 1, R), dtype=np.int64)
        before[of_trial, numbers] = ends
        of_row = np.where(known.trial < 0, len(trials), np.searchsorted(trials, known.trial))
        sizes = (~np.isnan(known.actions)).sum(axis=1)
        there = (before[of_row] > 0) & (before[of_row] < sizes[:, None])
        contexts = np.where(there[:, None], by_trial[of_row], np.nan)
        return contexts.reshape(len(contexts), 2 * R), by_trial[-1].ravel()


def _without(known: Known) -> Known:
    """``known`` without contexts."""
    return known._replace(contexts=np.zeros((len(known.values), 0)))
