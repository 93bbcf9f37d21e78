"""Common parts of the samplers that learn Q-tables from the finished trials of a study.

All that is learned is a function of the seed and of the finished trials, in the order in which they finished.
A learner holds it. A sampler keeps the learners of its studies and advances one by the trials that have
finished since; a new sampler learns from all trials of the study, one after the other, and arrives at the
same tables.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optuna_trlhpo._checks import check_integer, check_positive_number, is_number
from optuna_trlhpo.baselines._planned import PlannedSampler, RivalPlan
from optuna_trlhpo.baselines._values import random_value
from optuna_trlhpo.baselines.q_learning.actions import value_of
from optuna_trlhpo.baselines.q_learning.position import TrialPosition
from optuna_trlhpo.layers import unmasked
from optuna_trlhpo.trials.attributes import write_to_trial
from optuna_trlhpo.trials.order import ORDER_ATTRIBUTE, in_order, keeps_order, order_note
from optuna_trlhpo.trials.values import value_key

_logger = optuna.logging.get_logger("optuna.trlhpo.baselines")

_KEPT_LEARNERS = 16
"""Limit on the learners: one for each study, or bracket of `HyperbandPruner`, that is played in turn."""
_LAST = datetime.max

AnyLearner = TypeVar("AnyLearner", bound="Learner")
Generators = Callable[..., np.random.Generator]
"""Makes a random generator that depends only on the seed and on its arguments."""
Identity = tuple[str, int, datetime | None]
"""Name of a study, and number and start of a trial: two storages may each have a study of this name."""


class Learner(ABC):
    """What was learned from some finished trials, in their order.

    Attributes:
        learned: The trials, in this order.
    """

    def __init__(self) -> None:
        self.learned: list[Identity] = []
        self._models: set[Hashable] = set()

    def knows(self, params: Mapping[str, Any]) -> bool:
        """Return whether a trial has had this configuration."""
        return model_key(params) in self._models

    @property
    def n_models(self) -> int:
        """Number of different configurations among the trials."""
        return len(self._models)

    def learn(self, trial: FrozenTrial, identity: Identity, generators: Generators) -> None:
        """Learn from the trial that finished next."""
        self.learned.append(identity)
        if trial.params:
            self._models.add(model_key(trial.params))
        self._learn(trial, generators)

    @abstractmethod
    def _learn(self, trial: FrozenTrial, generators: Generators) -> None:
        """Update the tables."""


class PolicyLearner(Learner):
    """Learner with a greedy policy for every choice of a trial."""

    @abstractmethod
    def choose(
        self, position: TrialPosition, name: str, distribution: BaseDistribution, rng: np.random.Generator
    ) -> int:
        """Return the greedy action for a parameter."""


def model_key(params: Mapping[str, Any]) -> Hashable:
    """Return a key that is equal for equal configurations, in whatever order their parameters are."""
    return frozenset((name, value_key(value)) for name, value in params.items())


@dataclass
class LearnedPlan(RivalPlan):
    """Plan of a trial that knows the position in it."""

    position: TrialPosition = field(default_factory=lambda: TrialPosition(1))


@dataclass
class QPlan(LearnedPlan):
    """Plan of a trial that follows the policy of a learner."""

    learner: PolicyLearner | None = None
    epsilon: float = 0.0


class LearningSampler(PlannedSampler, Generic[AnyLearner]):
    """Sampler with a learner for each study, which a subclass makes.

    Args:
        n_bins: Largest number of actions of a number.
        seed: Random seed. None draws a new one.
    """

    def __init__(self, *, n_bins: int, seed: int | None) -> None:
        super().__init__(seed=seed)
        check_integer("n_bins", n_bins, least=1)
        self._n_bins = n_bins
        self._learners: list[AnyLearner] = []

    @abstractmethod
    def _make_learner(self, study: Study) -> AnyLearner:
        """Learner for a study, which has learned nothing yet."""

    def _answer(
        self, study: Study, trial: FrozenTrial, plan: RivalPlan, name: str, distribution: BaseDistribution
    ) -> Any:
        assert isinstance(plan, LearnedPlan)
        plan.position.catch_up(trial)
        return super()._answer(study, trial, plan, name, distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        with self._lock:
            plan = self._plans.get((study.study_name, trial.number, trial.datetime_start))
            if isinstance(plan, LearnedPlan) and not keeps_order(study):
                plan.position.catch_up(trial)
                note = order_note(list(plan.position.values))
                try:  # an exception would end the study
                    write_to_trial(study, trial, ORDER_ATTRIBUTE, note)
                except Exception as error:
                    _logger.warning(
                        f"The order of the parameters of trial {trial.number} was not stored: {error!r}"
                    )
            super().after_trial(study, trial, state, values)

    def _learner_of(self, study: Study) -> AnyLearner:
        """Return the learner that has learned from all finished trials of the study."""
        finished = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
        finished.sort(key=lambda trial: (trial.datetime_complete or _LAST, trial.number))
        identities = [(study.study_name, trial.number, trial.datetime_start) for trial in finished]
        known = [it for it in self._learners if it.learned == identities[: len(it.learned)]]
        learner = max(known, key=lambda it: len(it.learned), default=None)
        if learner is None:
            learner = self._make_learner(study)
        for trial, identity in zip(
            finished[len(learner.learned) :], identities[len(learner.learned) :], strict=True
        ):
            learner.learn(in_order(trial), identity, self._generator)
        if learner.learned:  # without trials it might be taken for the learner of another study
            self._learners = [it for it in self._learners if it is not learner][-_KEPT_LEARNERS + 1 :]
            self._learners.append(learner)
        return learner


class QSampler(LearningSampler[PolicyLearner]):
    """Epsilon-greedy sampler: each step of a trial is random with a probability, and greedy otherwise.

    A subclass makes the learner of a study and knows the probability.
    """

    @abstractmethod
    def _epsilon(self, n_models: int) -> float:
        """Probability of a random step after a number of different configurations."""

    def _new_plan(self, study: Study, trial: FrozenTrial) -> RivalPlan:
        learner = self._learner_of(study)
        return QPlan(
            learner=learner, position=TrialPosition(self._n_bins), epsilon=self._epsilon(learner.n_models)
        )

    def _answer(
        self, study: Study, trial: FrozenTrial, plan: RivalPlan, name: str, distribution: BaseDistribution
    ) -> Any:
        assert isinstance(plan, QPlan) and plan.learner is not None
        position = plan.position
        position.catch_up(trial)
        step = unmasked(name) if position.is_new_step(name) else position.steps[-1].choices[0][0]
        rng = self._generator("value", trial.number, name)
        if self._generator("explore", trial.number, step).random() < plan.epsilon:
            return random_value(distribution, rng)
        action = plan.learner.choose(position, name, distribution, rng)
        return value_of(name, distribution, action, self._n_bins, rng)


class EpsilonSchedule:
    """Probability of a random step by the number of different configurations so far.

    Args:
        phases: Pairs of a probability and the number of configurations that it lasts. The last one stays.
        n_trials: Number of configurations to which the phases are scaled together. None: as they stand.

    Raises:
        ValueError: If the phases are no such pairs, or ``n_trials`` is not a positive integer.

    Examples:
        >>> schedule = EpsilonSchedule(((1.0, 60), (0.1, 40)), n_trials=10)
        >>> [schedule(n) for n in (0, 5, 6, 9, 1000)]
        [1.0, 1.0, 0.1, 0.1, 0.1]
    """

    def __init__(self, phases: Sequence[tuple[float, int]], n_trials: int | None) -> None:
        check_integer("n_trials", n_trials, least=1, optional=True)
        are_pairs = isinstance(phases, Sequence) and all(
            isinstance(pair, Sequence) and len(pair) == 2 and all(map(is_number, pair)) for pair in phases
        )
        if not are_pairs or not phases or not all(0 <= share <= 1 and 0 < n < np.inf for share, n in phases):
            raise ValueError(
                f"epsilon_schedule is {phases!r}; it must be pairs of a probability from 0 to 1 and a "
                "positive number of configurations, such as ((1.0, 60), (0.1, 40))"
            )
        total = sum(n for _, n in phases)
        scale = 1.0 if n_trials is None else n_trials / total
        ends = np.cumsum([n for _, n in phases]) * scale
        self._phases = [(float(end), float(share)) for end, (share, _) in zip(ends, phases, strict=True)]

    def __call__(self, n_models: int) -> float:
        """Return the probability after ``n_models`` different configurations."""
        return next((share for end, share in self._phases if n_models < end), self._phases[-1][1])


def check_learning_rate(value: Any) -> None:
    """Raise a ``ValueError`` unless ``value`` is in (0, 1]."""
    check_positive_number("learning_rate", value)
    if value > 1:
        raise ValueError(f"learning_rate is {value!r}; it must be at most 1")
