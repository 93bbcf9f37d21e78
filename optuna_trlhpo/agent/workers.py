"""Networks that other running trials of the study are about to try, in this process and in others.

The trials of this process have their plans in memory. Those of others note the planned layers with their
trial, where these are layers of a `LayerSpace`; of the rest, the parameters so far are known. What they have
reported is known before they end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from optuna_trlhpo.agent.course import Course
from optuna_trlhpo.agent.prior_knowledge import PriorKnowledge
from optuna_trlhpo.agent.replay import Replay
from optuna_trlhpo.agent.sequences import Networks, Plan, joined
from optuna_trlhpo.trials.announcements import layers_note, planned_layers
from optuna_trlhpo.trials.attributes import report_marks
from optuna_trlhpo.trials.episode import Episode, read_episode
from optuna_trlhpo.trials.inferred_reports import marks_by_names
from optuna_trlhpo.trials.order import in_order
from optuna_trlhpo.trials.study_reader import Reading


class Workers:
    """Other running trials, as seen by one that makes a plan.

    Args:
        reading: State of the study.
        courses: States of the running trials of this process, by number.
        replay: Memory of finished trials.
        knowledge: Knowledge of the space.
    """

    def __init__(
        self, reading: Reading, courses: Mapping[int, Course], replay: Replay, knowledge: PriorKnowledge
    ) -> None:
        self._reading, self._courses = reading, courses
        self._replay, self._knowledge = replay, knowledge
        self._number = reading.running.number
        self._others: list[FrozenTrial] | None = None

    @property
    def others(self) -> list[FrozenTrial]:
        """Trials of other processes that are running, or have ended since this process has looked."""
        if self._others is None:
            self._others = [other for other in self._reading.others() if other.number not in self._courses]
        return self._others

    def plans(self) -> list[Plan]:
        """Networks that others are about to try, as far as they are known."""
        here = (course.plan for number, course in self._courses.items() if number != self._number)
        plans = [plan for plan in here if plan is not None]
        running = [other for other in self.others if other.state == TrialState.RUNNING]
        return [*plans, *(plan for other in running if (plan := self._plan_of(other)) is not None)]

    def claim(self, layers: np.ndarray | None) -> bool:
        """Note planned layers with the trial; return whether no other process has planned or tried the same.

        Of two trials that note the same, the one that looks last sees both notes and cannot tell whether the
        other has seen its own. So it gives way, and where both look last, both do.

        Args:
            layers: ``[S, 4]`` actions; None for a plan that is no network of the space, which is not noted.
        """
        if layers is None:
            return True
        self._reading.announce(layers_note(layers))
        self._others = None
        return not any(
            theirs is not None and theirs.shape == layers.shape and np.allclose(theirs, layers)
            for theirs in map(self._layers_of, self.others)
        )

    def _layers_of(self, other: FrozenTrial) -> np.ndarray | None:
        """Layers that another trial has noted, or else those that it has ended with."""
        noted = planned_layers(other)
        if noted is not None or other.state == TrialState.RUNNING:
            return noted
        plan = self._plan_of(other)
        return None if plan is None else self._knowledge.layers_of(plan)

    def values(self) -> tuple[Networks, np.ndarray] | None:
        """Networks that others have reported a value of, and their scores ``[N]``; None if there are none."""
        if self._replay.n_weights or not self._replay.reports_are_values or not len(self._replay):
            return None
        networks, scores = [], []
        for other in self.others:
            episode = self._episode_of(other)
            if episode is None:
                continue
            for k, value in enumerate(_values_so_far(other, episode)):
                if not math.isnan(value):
                    networks.append(self._knowledge.network_of(episode.first(k + 1)))
                    scores.append(self._replay.score_report(value))
        return (joined(networks), np.array(scores)) if networks else None

    def _plan_of(self, other: FrozenTrial) -> Plan | None:
        layers = planned_layers(other)
        if layers is not None and self._knowledge.context is not None and self._knowledge.contains(layers):
            return self._knowledge.plan_of_layers(layers)
        episode = self._episode_of(other)
        return None if episode is None else self._knowledge.plan_of(episode)

    def _episode_of(self, other: FrozenTrial) -> Episode | None:
        """Steps of another trial; None if there are none, or one has a parameter that is not known."""
        other = in_order(other)
        marks = report_marks(other)
        if len(marks) < len(other.intermediate_values):  # the last ones are not noted while a trial runs
            marks = list(marks_by_names(other, grows=True) or marks)
        episode = read_episode(other, marks)
        known = all(self._replay.names.number(slot) >= 0 for slots in episode.slots for slot in slots)
        return episode if len(episode) and known else None


def _values_so_far(other: FrozenTrial, episode: Episode) -> Sequence[float]:
    """Return the value that a trial has reported after each of its steps; NaN where it has none."""
    values = episode.reports.tolist()
    last = max(other.intermediate_values, default=-1)
    if last > episode.last_reported:
        values[-1] = other.intermediate_values[last]
    elif other.state == TrialState.COMPLETE and other.values and math.isnan(values[-1]) and last < 0:
        values[-1] = other.values[0]
    return [value if math.isfinite(value) else math.nan for value in values]
