"""Common parts of the baselines: a trial follows a *plan*, made when it asks for its first parameter.

A plan is a dict of parameter values, such as those of a good trial with one of them changed. A parameter
that is in the plan, with a value that is valid in the present distribution, gets this value; every other one
is drawn uniformly. This suffices for define-by-run objectives: conditional parameters that the plan lacks are
random, those that are not asked for are skipped, and where a range has changed the other values remain valid.

Plans depend only on the seed, the trial's number and the study's trials. So a new sampler can resume a study,
trials may run in threads or processes, and a sampler may be pickled at any time. Information about a trial
that is needed later, and cannot be read from the trial, is stored with it as a note.
"""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_trlhpo._checks import check_integer
from optuna_trlhpo.baselines._values import is_valid, mutated, random_value

_NOTE = "baselines:note"
_KEPT_PLANS = 1024
"""Limit on the stored plans: those of trials that never end (their process died) are discarded."""
_REDRAWS = 100


@dataclass
class RivalPlan:
    """Plan of a trial: ``values`` by parameter name, and a ``note`` (JSON) that is stored with the trial."""

    values: dict[str, Any] = field(default_factory=dict)
    note: dict[str, Any] = field(default_factory=dict)


class History:
    """Trials of a study, as seen by a plan for ``trial``.

    Attributes:
        finished: All finished trials, including failed ones, by number.
        running: All running trials without ``trial`` itself, by number.
        space: Latest distribution of each name. In an objective without conditions it is the search space.
    """

    def __init__(self, study: Study, trial: FrozenTrial) -> None:
        self._sign = 1 if study.direction == StudyDirection.MAXIMIZE else -1
        self.finished: list[FrozenTrial] = []
        self.running: list[FrozenTrial] = []
        for other in study.get_trials(deepcopy=False):
            if other.state.is_finished():
                self.finished.append(other)
            elif other.state == TrialState.RUNNING and other.number != trial.number:
                self.running.append(other)
        self.space: dict[str, BaseDistribution] = {}
        for other in self.finished:
            self.space |= other.distributions
        self._tried = [other.params.items() for other in self.finished + self.running if other.params]

    @property
    def scored(self) -> list[FrozenTrial]:
        """Finished trials with a value: completed ones, and pruned ones with their last report."""
        return [trial for trial in self.finished if self.score(trial) > -np.inf]

    def score(self, trial: FrozenTrial) -> float:
        """Score of a trial, the larger the better; minus infinity without a value."""
        return self.signed(trial.values[0]) if trial.values else -np.inf

    def signed(self, value: float) -> float:
        """Score of a value of the objective, or of a report."""
        return -np.inf if np.isnan(value) else self._sign * value

    def repeats(self, values: Mapping[str, Any]) -> bool:
        """Return whether a trial with ``values`` would repeat another one."""
        items = values.items()
        return any(tried <= items for tried in self._tried)

    def random_values(self, rng: np.random.Generator) -> dict[str, Any]:
        """Draw a random value for every known name.

        A trial ignores the names that its conditions exclude, so it is as random as if drawn name by name.
        """
        return {name: random_value(distribution, rng) for name, distribution in self.space.items()}

    def random_plan(self, rng: np.random.Generator) -> dict[str, Any]:
        """Draw random values that do not repeat a trial, if there are any."""
        return self._unless_repeated(lambda: self.random_values(rng))

    def child(self, parent: FrozenTrial, rng: np.random.Generator) -> dict[str, Any]:
        """Mutate ``parent`` without repeating a trial, if possible."""
        return self._unless_repeated(lambda: self.mutation(parent, rng))

    def mutation(
        self, parent: FrozenTrial, rng: np.random.Generator, *, n_mutations: int = 1
    ) -> dict[str, Any]:
        """Parameters of ``parent`` with some of them changed; random values for names that it lacks."""
        values = self.random_values(rng) | parent.params
        names = [name for name, distribution in parent.distributions.items() if not distribution.single()]
        for i in rng.permutation(len(names))[:n_mutations]:
            name = names[i]
            values[name] = mutated(name, parent.distributions[name], values[name], rng)
        return values

    def _unless_repeated(self, draw: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        values = draw()
        for _ in range(_REDRAWS):
            if not self.repeats(values):
                break
            values = draw()
        return values


class PlannedSampler(BaseSampler):
    """Sampler whose trials follow plans; a subclass makes the plans in `_make_plan`.

    Args:
        seed: Random seed. None draws a new one.
    """

    def __init__(self, *, seed: int | None = None) -> None:
        check_integer("seed", seed, optional=True)
        self._seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else int(seed)
        self._lock = threading.RLock()
        self._plans: OrderedDict[Any, RivalPlan] = OrderedDict()

    def _make_plan(self, history: History, trial: FrozenTrial) -> RivalPlan:
        raise NotImplementedError

    def _new_plan(self, study: Study, trial: FrozenTrial) -> RivalPlan:
        """Plan of a trial that has none yet. A subclass that needs no `History` overrides this."""
        return self._make_plan(History(study, trial), trial)

    def _check_study(self, study: Study) -> None:
        """Raise a `ValueError` if the sampler does not support the study."""
        check_single_objective(self, study)

    def _answer(
        self, study: Study, trial: FrozenTrial, plan: RivalPlan, name: str, distribution: BaseDistribution
    ) -> Any:
        """Value for one parameter: the plan's, or a random one."""
        if name in plan.values and is_valid(distribution, plan.values[name]):
            return plan.values[name]
        return random_value(distribution, self._generator("value", trial.number, name))

    # Methods that Optuna calls ------------------------------------------------------------------------

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        self._check_study(study)
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._check_study(study)
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        self._check_study(study)
        with self._lock:
            return self._answer(study, trial, self._plan_of(study, trial), param_name, param_distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        with self._lock:
            self._plans.pop(_key(study, trial), None)

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            state = {name: value for name, value in vars(self).items() if name != "_lock"}
            return state | {"_plans": self._plans.copy()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = threading.RLock()

    # Plans --------------------------------------------------------------------------------------------

    def _plan_of(self, study: Study, trial: FrozenTrial) -> RivalPlan:
        key = _key(study, trial)
        if key not in self._plans:
            plan = self._new_plan(study, trial)
            self._plans[key] = plan
            if plan.note:
                self._write_note(study, trial, plan)
            if len(self._plans) > _KEPT_PLANS:
                self._plans.popitem(last=False)
        return self._plans[key]

    def _write_note(self, study: Study, trial: FrozenTrial, plan: RivalPlan) -> None:
        # Samplers have no public way to write an attribute of a running trial; Optuna's own do the same.
        study._storage.set_trial_system_attr(trial._trial_id, _NOTE, plan.note)

    def _generator(self, *purpose: int | str) -> np.random.Generator:
        """Random generator that depends only on the seed and on ``purpose``."""
        texts = (word.encode(errors="surrogatepass") if isinstance(word, str) else word for word in purpose)
        words = (zlib.crc32(text) if isinstance(text, bytes) else text for text in texts)
        return np.random.default_rng((self._seed, *words))


def note_of(trial: FrozenTrial) -> dict[str, Any]:
    """Note of a trial's plan, by any of these samplers; empty where there is none.

    Attributes may be of other origin, or damaged: a note with an invalid part is ignored.
    """
    note = trial.system_attrs.get(_NOTE)
    if not isinstance(note, dict) or ("of" in note) != ("change" in note):
        return {}
    return note if all(is_right(note[part]) for part, is_right in _PARTS.items() if part in note) else {}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_count, value))


_PARTS: dict[str, Callable[[Any], bool]] = {
    "climb": _is_count,
    "of": _is_count,
    "change": _is_count,
    "grows": _is_pair,
    "seen": lambda value: isinstance(value, list) and all(map(_is_pair, value)),
    "cut": lambda value: value is True,
    "turn": _is_count,
    "agent": lambda value: isinstance(value, str),
    "from": _is_count,
}
"""Parts of a note, each with its validity check."""


def check_single_objective(sampler: BaseSampler, study: Study) -> None:
    """Raise a `ValueError` if the study has several objectives."""
    if len(study.directions) > 1:
        raise ValueError(
            f"the study has {len(study.directions)} objectives; {type(sampler).__name__} supports one"
        )


def _key(study: Study, trial: FrozenTrial) -> tuple[Any, ...]:
    return study.study_name, trial.number, trial.datetime_start
