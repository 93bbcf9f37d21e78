"""Reads a study for an agent: newly finished trials, and the state of a running one.

The reader tracks what a storage does not: the order in which a running trial was asked for its parameters,
and which report came before which of them. It stores both, for other processes and for later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import optuna
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_trlhpo.trials.announcements import PLAN_ATTRIBUTE
from optuna_trlhpo.trials.attributes import MARKS_ATTRIBUTE, fixed_params, report_marks, write_to_trial
from optuna_trlhpo.trials.episode import new_mark
from optuna_trlhpo.trials.order import ORDER_ATTRIBUTE, in_order, keeps_order, order_note, reordered
from optuna_trlhpo.trials.path import Path
from optuna_trlhpo.trials.rewards import signs_of
from optuna_trlhpo.trials.running_trial import RunningTrial

_logger = optuna.logging.get_logger("optuna.trlhpo.sampler")

_MOST_RUNNING = 200
"""Largest number of other running trials that are read: the latest ones."""
_ABANDONED = 20
"""A trial is taken for abandoned that runs so many times as long as the longest that has finished, while so
many later trials have finished for each that runs."""
_LEAST_AGE = timedelta(minutes=1)
"""Age that an abandoned trial has at least."""


class Reading(NamedTuple):
    """The state of a study when a running trial asks for something."""

    trial: FrozenTrial
    """The trial, with its parameters in the order in which they were asked for."""
    running: RunningTrial
    """The state of the trial as observed while it ran."""
    directions: Sequence[StudyDirection]
    """Directions of the study's objectives."""
    is_new_study: bool
    """Whether everything read before belongs to another study."""
    finished: list[FrozenTrial] | None
    """The trials finished since the last reading, as the storage returns them; None within a trial."""
    keeps_order: bool
    """Whether the storage lists their parameters in the order in which they were asked for."""
    given: list[str]
    """The parameters that the trial has got since the last call without asking the sampler."""
    others: Callable[[], list[FrozenTrial]]
    """Reads the trials that are running now, or have ended since the last reading."""
    announce: Callable[[Any], None]
    """Notes the plan of the trial for other processes, as JSON."""


class StudyReader:
    """Reads one study at a time; with another study it starts afresh.

    Args:
        read_reports: Whether to use reports.
    """

    def __init__(self, *, read_reports: bool) -> None:
        self._read_reports = read_reports
        self.forget()

    def forget(self) -> None:
        """Discard everything, so that the next call reads the whole study again."""
        self._study: tuple[str, tuple[StudyDirection, ...]] | None = None
        self._read: dict[int, datetime | None] = {}  # number of a finished trial -> its start time
        self._n_seen = 0  # trials of lower numbers have been read, but for these:
        self._unfinished: set[int] = set()
        self._running: dict[int, RunningTrial] = {}
        self._longest = timedelta()  # that a finished trial took

    def finished_numbers(self, study: Study) -> list[int] | None:
        """Return the numbers of the finished trials that were read; None if those of another study were."""
        is_mine = (study.study_name, tuple(study.directions)) == self._study
        return sorted(self._read) if is_mine else None

    def resume(self, study: Study, finished: Sequence[FrozenTrial]) -> None:
        """Begin with a study of which these trials were read before."""
        self._begin(study)
        self._read = {trial.number: trial.datetime_start for trial in finished}
        self._longest = max((trial.duration or timedelta() for trial in finished), default=timedelta())

    def read(self, study: Study, trial: FrozenTrial, name: str | None = None) -> Reading:
        """Read the current state of the study.

        Args:
            study: The study.
            trial: A running trial of the study.
            name: The requested parameter. None if no parameter is requested.
        """
        directions = tuple(study.directions)
        is_new_study = (study.study_name, directions) != self._study or self._is_another(trial)
        if is_new_study:
            self._begin(study)
        finished = None
        if trial.number not in self._running:
            is_another, finished = self._news(study)
            is_new_study = is_new_study or is_another
            # The storage has marks if another process began this trial.
            marks = [(n, step) for n, step in report_marks(trial)]
            running = RunningTrial(trial.number, fixed_params(trial), marks=marks, n_written=len(marks))
            self._running[trial.number] = running
        ordered, given = self._follow(trial, name)
        running = self._running[trial.number]
        if name is not None:
            self._note_reports(study, ordered, running, name)
        return Reading(
            ordered,
            running,
            directions,
            is_new_study,
            finished,
            keeps_order(study),
            given,
            lambda: self._others(study, trial),
            lambda note: self._write(study, trial, PLAN_ATTRIBUTE, note),
        )

    def close(self, study: Study, trial: FrozenTrial) -> Reading | None:
        """Store the state of a trial that ends, and return it; None if the trial was not observed."""
        if self._study is None or self._study[0] != study.study_name or trial.number not in self._running:
            return None
        reading = self.read(study, trial)
        marks = reading.running.marks
        # An empty list also says that the sampler observed the reports.
        unnoted = trial.intermediate_values and self._read_reports and not marks
        if reading.running.n_written < len(marks) or unnoted:
            write_to_trial(study, trial, MARKS_ATTRIBUTE, marks)
        names = list(reading.trial.params)
        if list(trial.params) != names or not reading.keeps_order:
            write_to_trial(study, trial, ORDER_ATTRIBUTE, order_note(names))
        return reading

    def _begin(self, study: Study) -> None:
        self.forget()
        self._study = study.study_name, tuple(study.directions)

    def _is_another(self, trial: FrozenTrial) -> bool:
        """Return whether ``trial`` has the number of a trial read before but is a different one."""
        return self._read.get(trial.number, trial.datetime_start) != trial.datetime_start

    def _news(self, study: Study) -> tuple[bool, list[FrozenTrial]]:
        """Return whether the study was replaced by one of the same name, and the newly finished trials."""
        trials, n_seen = self._unread(study)
        is_another = any(self._is_another(trial) for trial in trials)
        if is_another:
            self._begin(study)
            trials, n_seen = self._unread(study)
        self._n_seen = n_seen
        finished = []
        for trial in trials:
            if not trial.state.is_finished():
                self._unfinished.add(trial.number)
                continue
            self._unfinished.discard(trial.number)
            if trial.number in self._read:
                continue
            self._running.pop(trial.number, None)
            self._read[trial.number] = trial.datetime_start
            self._longest = max(self._longest, trial.duration or timedelta())
            finished.append(trial)
        return is_another, finished

    def _unread(self, study: Study) -> tuple[list[FrozenTrial], int]:
        """Return the trials that have not been read, with some others; and the first number not seen then.

        The last trial that was read is among them: by it another study of the same name is recognised.
        """
        trials = study.get_trials(deepcopy=False)
        if not trials or trials[-1].number != len(trials) - 1:  # a bracket of Hyperband's, which has gaps
            return trials, self._n_seen
        n = min(self._n_seen, len(trials))
        unfinished = [trials[number] for number in sorted(self._unfinished) if number < n - 1]
        return [*unfinished, *trials[max(n - 1, 0) :]], max(self._n_seen, len(trials))

    def _follow(self, trial: FrozenTrial, name: str | None) -> tuple[FrozenTrial, list[str]]:
        """Return the running ``trial`` with its parameters in order, and those that it got without asking.

        Args:
            trial: The running trial.
            name: The requested parameter, if any.
        """
        trial = in_order(trial)
        running = self._running[trial.number]
        last = running.path.names[-1:]
        if any(known not in trial.params for known in last) or len(trial.params) < len(running.path):
            running = replace(running, path=Path(), reports=[], asked=None)  # the trial has started again
            self._running[trial.number] = running
        given = running.catch_up(trial.params, trial.distributions)
        running.asked = name
        return reordered(trial, running.path.names), given

    def _note_reports(self, study: Study, trial: FrozenTrial, running: RunningTrial, name: str) -> None:
        """Record that the trial reported something before it asked for this parameter.

        Optuna does not store the order of reports and parameters, so it can be observed only now.
        """
        if not self._read_reports:
            return
        mark = new_mark(trial, name, running.n_asked, running.marks)
        running.n_asked = len(trial.params) + 1
        if mark is None:
            return
        n, last = mark
        running.marks.append(mark)
        sign = float(signs_of(study.directions)[0])
        running.reports.append((n, sign * trial.intermediate_values[last]))
        # The list is rewritten as a whole, so only when it has doubled, and at the end of the trial.
        if len(running.marks) >= 2 * running.n_written:
            self._write(study, trial, MARKS_ATTRIBUTE, running.marks)
            running.n_written = len(running.marks)

    def _others(self, study: Study, trial: FrozenTrial) -> list[FrozenTrial]:
        trials = [
            other
            for other in self._unread(study)[0]
            if other.number != trial.number
            and other.number not in self._read
            and other.state != TrialState.WAITING
        ]
        n_running = sum(other.state == TrialState.RUNNING for other in trials)
        others = [other for other in trials if not self._is_abandoned(other, trial, n_running)]
        return others[-_MOST_RUNNING:]

    def _is_abandoned(self, other: FrozenTrial, trial: FrozenTrial, n_running: int) -> bool:
        """Return whether a trial still seems to run, though its process must be gone.

        Its age is that at which this trial began. The clocks of two machines may differ, so the number of
        trials that have finished since must agree. With heartbeats Optuna marks such a trial as failed.
        """
        if other.state != TrialState.RUNNING or other.datetime_start is None or trial.datetime_start is None:
            return False
        age = trial.datetime_start - other.datetime_start
        if age <= max(_ABANDONED * self._longest, _LEAST_AGE):
            return False
        return len(self._read) - other.number >= _ABANDONED * n_running

    @staticmethod
    def _write(study: Study, trial: FrozenTrial, name: str, value: Any) -> None:
        try:
            write_to_trial(study, trial, name, value)
        except Exception as error:  # it would fail the trial, which does not need the attribute
            _logger.warning(f"The attribute {name!r} of trial#{trial.number} was not stored: {error!r}")
