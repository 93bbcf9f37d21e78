"""Decisions for objectives of any kind, parameter by parameter, without repeating a configuration.

A trial is planned as a whole when it asks for its first parameter, and again when it reports something or
asks for another parameter than expected. `running` holds the state of a planned trial.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_trlhpo.agent.configurations.given import GivenValues
from optuna_trlhpo.agent.configurations.memory import key_of, read_record, row_of
from optuna_trlhpo.agent.configurations.plan import ConfigurationPlan
from optuna_trlhpo.agent.configurations.planner import ConfigurationPlanner
from optuna_trlhpo.agent.configurations.running import PlannedTrial
from optuna_trlhpo.search_space.explored import Explored, all_values
from optuna_trlhpo.search_space.model import END, Next
from optuna_trlhpo.trials.agent_record import AgentRecord
from optuna_trlhpo.trials.announcements import Announced, digest_of
from optuna_trlhpo.trials.attributes import fixed_params
from optuna_trlhpo.trials.episode import ReportMarks
from optuna_trlhpo.trials.path import Path
from optuna_trlhpo.trials.values import fixed_value, on_grid, still_holds, value_key

_logger = optuna.logging.get_logger("optuna.trlhpo.sampler")

_MOST_PENDING = 32
"""Largest number of running trials whose outcome is predicted for a plan: the latest ones."""
_ALWAYS = 8
"""Number of reports up to which each one leads to a new plan; later a plan is made when they have doubled."""
_FAILS_AGAIN = 2
"""Number of failures directly after the same parameters at which these are avoided."""
_TRUSTED = 2
"""Number of plans that a trial did not follow before fewer candidates are compared."""
_IN_VAIN = 4
"""Number of plans that a trial did not follow before most of its values are left to chance."""
_ATTEMPTS = 5
"""Largest number of plans made where other workers announce the same one."""


class ConfigurationAgent:
    """Agent that learns from trials of any objective and decides for running ones.

    Args:
        planner: Planner, which has learned nothing of the study yet.
        directions: Directions of the study's K objectives.
        repeat: Whether tried configurations may be tried again.
    """

    def __init__(
        self, planner: ConfigurationPlanner, directions: Sequence[StudyDirection], *, repeat: bool = False
    ) -> None:
        self._directions = directions
        self._repeat = repeat
        self._has_warned = False
        self.search = planner
        self.explored = Explored()
        self._failed: Counter[str] = Counter()  # by digest: trials that failed before they were complete
        self._given = GivenValues()

    def catch_up(self, trial: FrozenTrial, record: AgentRecord) -> None:
        """Learn what another sampler learned while a finished trial was running.

        Args:
            trial: The trial, with its parameters in the order in which they were asked for.
            record: Its record.
        """
        path, fixed = Path.of_trial(trial), fixed_params(trial)
        for n, (name, distribution) in enumerate(zip(path.names, path.distributions, strict=True)):
            if n in record.corrected:
                self.search.model.correct(path.first(n), name, distribution)
            if not (name in fixed or n in record.given or distribution.single()):
                self.explored.meet([*path.values.items()][:n], name, distribution)
        self._given.catch_up(path, record.given, fixed)

    def observe(self, trial: FrozenTrial, marks: ReportMarks, *, judge: bool = True) -> bool:
        """Learn from a finished trial, whose parameters are in the order in which they were asked for.

        Args:
            trial: The trial.
            marks: Number of parameters and step of each report.
            judge: Whether its value is that of its configuration.

        Returns:
            Whether its configuration is to be judged. For a failed trial it is not, unless the trial asked
            for all its parameters: the trial may have been interrupted.
        """
        record = read_record(trial, marks, self._directions)
        path = record.path
        following = self.search.model.next(path)
        judged = judge and (trial.state != TrialState.FAIL or following is END)
        self.search.observe(record if judged else replace(record, outcomes=()))
        if trial.state == TrialState.FAIL and isinstance(following, Next):
            # A single trial may have been interrupted; after a second failure the parameters are avoided.
            self._failed[digest_of(path.values)] += 1
            if self._failed[digest_of(path.values)] < _FAILS_AGAIN:
                return False
            self.search.avoid(path)
        if trial.state == TrialState.PRUNED and following is not END:
            self.search.avoid(path)
        self.explored.add(
            [(name, d, path.values[name]) for name, d in zip(path.names, path.distributions, strict=True)],
            {*self._given.names, *fixed_params(trial)},
        )
        return judged

    def note_given(self, trial: PlannedTrial, names: Iterable[str]) -> None:
        """Note that ``trial`` got these parameters without asking, as from a sampler that fixes some."""
        self._given.note(trial, names)

    def _fixed(self, trial: PlannedTrial) -> Mapping[str, Any]:
        """Values, by name, that these parameters will have if the trial asks for them."""
        return self._given.expected(trial.fixed)

    def repeats(self, trial: PlannedTrial) -> bool:
        """Return whether a trial may repeat a configuration: the user allows it, or none is left."""
        if self._repeat:
            return True
        nothing_left = self.explored.all_tried(self._fixed(trial))
        if nothing_left and not trial.fixed and not self._has_warned:
            self._has_warned = True
            _logger.warning("All configurations have been tried; from now on trials repeat some of them.")
        return nothing_left

    def _may_repeat(self, trial: PlannedTrial) -> bool:
        """Return whether ``trial`` may end as another one did.

        It may where its own reports inform what follows.
        """
        return (self.search.critics.may_repeat and bool(trial.reports)) or self.repeats(trial)

    def propose(
        self,
        trial: PlannedTrial,
        name: str,
        distribution: BaseDistribution,
        *,
        weights: np.ndarray,
        generator: Callable[..., np.random.Generator],
        pending: Sequence[PlannedTrial],
        others: Callable[[], Sequence[Announced]],
        announce: Callable[[ConfigurationPlan], None],
    ) -> tuple[bool, Any]:
        """Propose a value for a parameter.

        Args:
            trial: Trial that asks for the parameter.
            name: Name of the parameter.
            distribution: Distribution of the parameter.
            weights: ``[K]`` the trial's weights of the objectives.
            generator: Creates random generators from a purpose and numbers.
            pending: Other running trials of this process.
            others: Reads the running trials of the study from the storage.
            announce: Writes the plan to the storage, before ``others`` is called again.

        Returns:
            Whether something is known of the parameter, and a value for it.
        """
        n = len(trial.path)
        plan = trial.plan
        if plan is not None and not self._goes_on(plan, trial, name, distribution):
            trial.rejected.append(plan.path)
            plan = None
            if self._is_in_vain(trial):
                return False, None
        if plan is None and n:
            self._correct(trial, name, distribution)
        if plan is None and not self.search.knows(name, distribution):
            return False, None
        if plan is None or self._is_outdated(trial):
            plan = self._plan(trial, name, distribution, weights, generator, pending, others, announce)
            trial.plan, trial.n_planned = plan, len(trial.reports)
            trial.n_plans += plan is not None
        if plan is None:
            return False, None
        value = plan.path.values[name]
        if isinstance(distribution, IntDistribution | FloatDistribution):
            value = plan.path.values[name] = on_grid(distribution, value)
        else:  # a storage may return a choice as another object, which Optuna would reject
            assert isinstance(distribution, CategoricalDistribution)
            value = next(c for c in distribution.choices if value_key(c) == value_key(value))
        return True, self.allow(trial, name, distribution, value, generator("open", trial.number, n), ())

    def allow(
        self,
        trial: PlannedTrial,
        name: str,
        distribution: BaseDistribution,
        wanted: Any,
        rng: np.random.Generator,
        others: Iterable[Announced],
        claimed: Sequence[Any] = (),
    ) -> Any:
        """``wanted``, or another value if all configurations with it have been tried, or it is claimed."""
        if self._may_repeat(trial):
            return wanted
        fixed = self._fixed(trial)
        taken = list(claimed)
        so_far = trial.path.values
        pairs = [(known, so_far[known]) for known in trial.path.names]
        behind: dict[Any, int] = defaultdict(int)  # by the key of a value: running trials that have it
        for other in others:
            theirs = other.trial.params
            if name not in theirs or not all(
                known in theirs and value_key(theirs[known]) == value_key(value)
                for known, value in so_far.items()
            ):
                continue
            value, key = theirs[name], value_key(theirs[name])
            behind[key] += other.trial.state == TrialState.RUNNING
            path = trial.path.copy()
            path.push(name, distribution, value)
            ends = len(theirs) == len(path) and self._is_complete(path, fixed)
            if ends or self.explored.least_open([*pairs, (name, value)], fixed) <= behind[key]:
                taken.append(value)
        return self.explored.open_value(pairs, name, distribution, wanted, rng, taken, fixed)

    def claim(
        self,
        trial: PlannedTrial,
        name: str,
        distribution: BaseDistribution,
        wanted: Any,
        rng: np.random.Generator,
        others: Callable[[], Sequence[Announced]],
        announce: Callable[[Mapping[str, Any]], None],
    ) -> Any:
        """Choose a value as `allow` does, for a parameter without a plan.

        If it completes the configuration, the configuration is announced, and another value is drawn if
        another worker has announced the same one.
        """
        known, claimed = others(), []
        value = self.allow(trial, name, distribution, wanted, rng, known)
        for _ in range(_ATTEMPTS):
            path = trial.path.copy()
            path.push(name, distribution, value)
            if self._may_repeat(trial) or not self._is_complete(path, self._fixed(trial)):
                break
            announce(path.values)
            digest, known = digest_of(path.values), others()
            if not any(digest in (other.digest, digest_of(other.trial.params)) for other in known):
                break
            claimed.append(value)
            value = self.allow(trial, name, distribution, wanted, rng, known, claimed)
        return value

    def meet(self, trial: PlannedTrial, name: str, distribution: BaseDistribution) -> None:
        """Note that a trial asks for a parameter."""
        self._given.asked(name)
        values = trial.path.values
        self.explored.meet([(known, values[known]) for known in trial.path.names], name, distribution)

    def _is_complete(self, path: Path, fixed: Mapping[str, Any]) -> bool:
        """Return whether ``path`` decides the configuration.

        Parameters that follow with a single possible value, or a fixed one, are appended to ``path``.
        """
        following = self.search.model.next(path)
        while isinstance(following, Next) and following.sure:
            name, distribution = following.name, following.distribution
            values = fixed_value(fixed, name, distribution)
            if not values and distribution.single():
                values = [next(all_values(distribution))]
            if not values:
                return False
            path.push(name, distribution, values[0])
            following = self.search.model.next(path)
        return not isinstance(following, Next)

    def _goes_on(
        self, plan: ConfigurationPlan, trial: PlannedTrial, name: str, distribution: BaseDistribution
    ) -> bool:
        """Return whether the trial follows the plan in its last parameter and in the one it asks for."""
        n, planned = len(trial.path), plan.path
        if len(planned) <= n or planned.names[n] != name:
            return False
        if n and (
            planned.names[n - 1] != trial.path.names[n - 1]
            or value_key(planned.values[planned.names[n - 1]])
            != value_key(trial.path.values[trial.path.names[n - 1]])
        ):
            return False
        expected = planned.distributions[n]
        return (
            expected is distribution
            or expected == distribution
            or still_holds(distribution, planned.values[name])
        )

    def _correct(self, trial: PlannedTrial, name: str, distribution: BaseDistribution) -> None:
        """Correct the space model if it predicts another parameter than the one that is asked for."""
        expected = self.search.model.next(trial.path)
        if not isinstance(expected, Next) or expected.name != name or expected.distribution != distribution:
            self.search.model.correct(trial.path, name, distribution)
            trial.corrected.append(len(trial.path))

    @staticmethod
    def _is_outdated(trial: PlannedTrial) -> bool:
        n = len(trial.reports)
        return n != trial.n_planned and (n <= _ALWAYS or n >= 2 * trial.n_planned)

    @staticmethod
    def _is_in_vain(trial: PlannedTrial) -> bool:
        """Return whether the trial left so many plans unused that another one is not worth its time."""
        n = trial.n_rejected
        return n > _IN_VAIN and n & (n - 1) != 0  # then a plan is made only when the number has doubled

    def _plan(
        self,
        trial: PlannedTrial,
        name: str,
        distribution: BaseDistribution,
        weights: np.ndarray,
        generator: Callable[..., np.random.Generator],
        pending: Sequence[PlannedTrial],
        others: Callable[[], Sequence[Announced]],
        announce: Callable[[ConfigurationPlan], None],
    ) -> ConfigurationPlan | None:
        n, search = len(trial.path), self.search
        mine = {other.number for other in pending if other.plan is not None} | {trial.number}
        planned = [other.plan.path for other in pending if other.plan is not None]
        rows = [row_of(search.columns, path) for path in planned]
        taken = {key_of(row) for row in [*rows, *(row_of(search.columns, path) for path in trial.rejected)]}
        around = others()
        elsewhere = [other for other in around if other.trial.number not in mine]
        rows += [
            row_of(search.columns, Path.of_trial(other.trial)) for other in elsewhere if other.trial.params
        ]
        crowded = self._crowded(trial, around)
        repeats = self.repeats(trial)
        plan = None
        for attempt in range(_ATTEMPTS):
            plan = search.plan(
                trial.path,
                (name, distribution),
                trial.reports,
                weights,
                generator("propose", trial.number, n, *([attempt] if attempt else [])),
                rows[-_MOST_PENDING:],
                taken,
                repeat=repeats,
                fixed=self._fixed(trial),
                sort=trial.plan.sort if trial.plan is not None else None,
                spread=attempt,
                crowded=crowded,
                effort=1 / max(1, trial.n_rejected - _TRUSTED),
            )
            if plan is None:
                return None
            announce(plan)
            digest = digest_of(plan.path.values)
            elsewhere = [other for other in others() if other.trial.number not in mine]
            if self._may_repeat(trial) or not any(
                digest == other.digest or digest == digest_of(other.trial.params) for other in elsewhere
            ):
                return plan
            taken.add(plan.key)
        return plan

    def _crowded(self, trial: PlannedTrial, others: Sequence[Announced]) -> list[Path]:
        """Paths of running trials that will together try all configurations left after these paths."""
        if self.repeats(trial):
            return []
        fixed = self._fixed(trial)
        paths = [
            Path.of_trial(other.trial)
            for other in others
            if other.trial.params and other.trial.state == TrialState.RUNNING
        ]
        pairs = [[*path.values.items()] for path in paths]
        return [
            path
            for path, mine in zip(paths, pairs, strict=True)
            if self.explored.least_open(mine, fixed) <= sum(theirs[: len(mine)] == mine for theirs in pairs)
        ]
