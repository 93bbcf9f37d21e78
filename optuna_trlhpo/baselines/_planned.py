"""What the rivals share: a trial follows a *plan*, which is made when it asks for its first parameter.

A plan is a dict of parameter values, such as those of a good trial with one of them changed. A parameter
that is in the plan, with a value that is valid in the present distribution, gets it; every other one is drawn
uniformly. That is all it takes to play define-by-run objectives: conditional parameters that the plan lacks
are random, those that are not asked for are passed over, and where a range has changed the rest still holds.

Plans are functions of the seed, the trial's number and the study's trials, and of nothing else. So a study
can be resumed by a new sampler, trials may run in threads or processes, and a sampler may be pickled at any
time. What has to be known of a trial later, and cannot be seen in it, is written to it as a note.
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
"""Plans of trials that never end (their process died) are forgotten when there are so many newer ones."""
_REDRAWS = 100


@dataclass
class RivalPlan:
    """What a trial is to do: ``values`` by parameter name; a ``note`` (JSON) is kept with the trial."""

    values: dict[str, Any] = field(default_factory=dict)
    note: dict[str, Any] = field(default_factory=dict)


class History:
    """The trials of a study as a plan for ``trial`` sees them.

    Attributes:
        finished: All that ended, failed ones too, by number.
        running: All that run, without ``trial`` itself, by number.
        space: The distribution that each name had last. In an objective without conditions it is the space.
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
        """The finished trials that have a value: completed ones, and pruned ones with their last report."""
        return [trial for trial in self.finished if self.score(trial) > -np.inf]

    def score(self, trial: FrozenTrial) -> float:
        """The larger the better; minus infinity for a trial without a value."""
        return self.signed(trial.values[0]) if trial.values else -np.inf

    def signed(self, value: float) -> float:
        """A value of the objective, or a report, as a score."""
        return -np.inf if np.isnan(value) else self._sign * value

    def repeats(self, values: Mapping[str, Any]) -> bool:
        """Whether a trial that is given ``values`` is one that is, or was, there already."""
        items = values.items()
        return any(tried <= items for tried in self._tried)

    def random_values(self, rng: np.random.Generator) -> dict[str, Any]:
        """A random value for every name that there is.

        A trial leaves out what its conditions leave out, so it is as random as if drawn name by name.
        """
        return {name: random_value(distribution, rng) for name, distribution in self.space.items()}

    def random_plan(self, rng: np.random.Generator) -> dict[str, Any]:
        """Random values that do not repeat a trial, if there are any that do not."""
        return self._unless_repeated(lambda: self.random_values(rng))

    def child(self, parent: FrozenTrial, rng: np.random.Generator) -> dict[str, Any]:
        """A mutation of ``parent`` that does not repeat a trial, if one is found."""
        return self._unless_repeated(lambda: self.mutation(parent, rng))

    def mutation(
        self, parent: FrozenTrial, rng: np.random.Generator, *, n_mutations: int = 1
    ) -> dict[str, Any]:
        """The parameters of ``parent``, some of them changed; random values for names that it lacks."""
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
    """A sampler whose trials follow plans; a subclass makes them in `_make_plan`.

    Args:
        seed: Of all that is random; None: another one each time.
    """

    def __init__(self, *, seed: int | None = None) -> None:
        check_integer("seed", seed, optional=True)
        self._seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else int(seed)
        self._lock = threading.RLock()
        self._plans: OrderedDict[Any, RivalPlan] = OrderedDict()

    def _make_plan(self, history: History, trial: FrozenTrial) -> RivalPlan:
        raise NotImplementedError

    def _answer(
        self, study: Study, trial: FrozenTrial, plan: RivalPlan, name: str, distribution: BaseDistribution
    ) -> Any:
        """The value for one parameter: the plan's, or a random one."""
        if name in plan.values and is_valid(distribution, plan.values[name]):
            return plan.values[name]
        return random_value(distribution, self._generator("value", trial.number, name))

    # What Optuna calls --------------------------------------------------------------------------------

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        check_single_objective(self, study)
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        check_single_objective(self, study)
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        check_single_objective(self, study)
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
            plan = self._make_plan(History(study, trial), trial)
            self._plans[key] = plan
            if plan.note:
                self._write_note(study, trial, plan)
            if len(self._plans) > _KEPT_PLANS:
                self._plans.popitem(last=False)
        return self._plans[key]

    def _write_note(self, study: Study, trial: FrozenTrial, plan: RivalPlan) -> None:
        # Samplers have no public way to write an attribute of a running trial; Optuna's own go this way too.
        study._storage.set_trial_system_attr(trial._trial_id, _NOTE, plan.note)

    def _generator(self, *purpose: int | str) -> np.random.Generator:
        """Of numbers that depend on the seed and on ``purpose``, and on nothing else."""
        texts = (word.encode(errors="surrogatepass") if isinstance(word, str) else word for word in purpose)
        words = (zlib.crc32(text) if isinstance(text, bytes) else text for text in texts)
        return np.random.default_rng((self._seed, *words))


def note_of(trial: FrozenTrial) -> dict[str, Any]:
    """The note that a trial's plan left, by whichever of these samplers; empty where there is none.

    Attributes may be anybody's, or damaged: a note with a part that no plan writes so is nothing.
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
}
"""Of a note, and how to tell that it is valid."""


def check_single_objective(sampler: BaseSampler, study: Study) -> None:
    if len(study.directions) > 1:
        raise ValueError(
            f"the study has {len(study.directions)} objectives; {type(sampler).__name__} takes one"
        )


def _key(study: Study, trial: FrozenTrial) -> tuple[Any, ...]:
    return study.study_name, trial.number, trial.datetime_start
