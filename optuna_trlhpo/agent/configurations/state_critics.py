"""Critics of configurations: one that judges by parameters alone, and one that also reads reports.

Notation: N configurations with a value, R reports of the running trial, D columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from optuna_trlhpo.agent.configurations.columns import padded
from optuna_trlhpo.agent.configurations.critic import ConfigurationCritic
from optuna_trlhpo.agent.configurations.memory import ConfigurationMemory, Known, key_of
from optuna_trlhpo.agent.steering import Steering, surprises
from optuna_trlhpo.trials.outcome_transforms import normal_scores, ranks_of


class StateCritics:
    """Critics of one study.

    Args:
        make_critic: Creates a critic.
        memory: Memory of the study.

    Attributes:
        plain: Critic that reads parameters alone, as for a trial that has reported nothing.
        steering: Decides whether reports inform what follows.
    """

    def __init__(self, make_critic: Callable[[], ConfigurationCritic], memory: ConfigurationMemory) -> None:
        self._memory = memory
        self.plain = make_critic()
        self.steering = Steering(make_critic)
        self._forecast = make_critic()  # of reports
        self._differs = False  # whether equal parameters were followed by different reports

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
            own: R rows of the parameters that the running trial had at each of its reports.
            reports: R reports of the running trial; more is better.
            pending: Rows of other running trials; the expectation replaces their outcome.
            varies: Whether values decide which parameters there are.

        Returns:
            The critic, what it was conditioned on, and the context of the running trial, ``[R]`` or empty.
        """
        memory, R = self._memory, len(reports)

        def condition(critic: ConfigurationCritic, known: Known) -> None:
            critic.condition(
                known,
                pending,
                n_trials=len(memory),
                mean_size=memory.mean_size,
                varies=varies,
                is_noisy=memory.reports_steer,  # what decides between parameters makes values inexact
                after=memory.after_reports() if known.contexts.shape[1] else (),
            )

        without = known._replace(contexts=np.zeros((len(known.values), 0)))
        condition(self.plain, without)
        informed_critic = self.steering.critic(len(memory)) if R else None
        if informed_critic is None or self.plain.evidence is None:
            return self.plain, without, np.zeros(0)
        contexts, context = self._contexts(known, own, reports, varies=varies)
        informed = known._replace(contexts=contexts)
        condition(informed_critic, informed)
        assert informed_critic.evidence is not None and self.plain.evidence is not None
        if self.steering.judge(informed_critic.evidence, self.plain.evidence, len(memory)):
            return informed_critic, informed, context
        return self.plain, without, np.zeros(0)

    @property
    def may_repeat(self) -> bool:
        """Whether a configuration has no one value: reports inform what follows, and are not always the same.

        After equal parameters there must have been different reports.
        """
        return self.steering.acts and self._differs

    def _contexts(
        self, known: Known, own: Sequence[np.ndarray], reports: Sequence[float], *, varies: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Surprise at each report: ``[N, R]`` before a configuration ended, ``[R]`` of the running trial."""
        memory, R, D = self._memory, len(reports), known.actions.shape[1]
        trials = np.unique(known.trial[known.trial >= 0])
        found = [
            (row, k, n, report, memory.prefix(t, n, D))
            for row, t in enumerate(trials.tolist())
            for k, (n, report) in enumerate(memory.reports_of(t)[:R])
        ]
        found += [
            (len(trials), k, 0, report, row) for k, (report, row) in enumerate(zip(reports, own, strict=True))
        ]
        of_trial, numbers, ends = (np.array([one[i] for one in found], dtype=np.int64) for i in range(3))
        values = np.array([one[3] for one in found])
        plain = surprises(values, numbers)
        reported: dict[tuple[int, bytes], float] = {}  # by number and parameters
        for _, k, _, report, row in found:
            self._differs |= reported.setdefault((k, key_of(row)), report) != report
        for number in range(R):
            mine = numbers == number
            values[mine] = normal_scores(ranks_of(values[mine]))
        rows = padded([one[4] for one in found], D)
        self._forecast.condition(
            Known(rows, np.zeros((len(rows), 0)), values, of_trial),
            (),
            n_trials=len(memory),
            mean_size=memory.mean_size,
            varies=varies,
            is_noisy=True,
        )
        errors = self._forecast.surrogate.leave_one_out()
        assert errors is not None
        by_trial = np.full((len(trials) + 1, 2, R), np.nan)
        before = np.zeros((len(trials) + 1, R), dtype=np.int64)
        by_trial[of_trial, 0, numbers] = surprises(errors, numbers)
        by_trial[of_trial, 1, numbers] = plain
        before[of_trial, numbers] = ends
        of_row = np.where(known.trial < 0, len(trials), np.searchsorted(trials, known.trial))
        sizes = (~np.isnan(known.actions)).sum(axis=1)
        there = (before[of_row] > 0) & (before[of_row] < sizes[:, None])
        contexts = np.where(there[:, None], by_trial[of_row], np.nan)
        return contexts.reshape(len(contexts), 2 * R), by_trial[-1].ravel()
