"""Whatever is done to a study, in whatever order: trials that wait, run, fail or come from elsewhere, other
sampler objects, pickles.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from optuna_trlhpo import TRLHPOSampler
from optuna_trlhpo.benchmarks.problems.pipelines import PIPELINES, Pipeline

NAMES = (
    "depth-first",
    "flags",
    "choice-of-model",
    "masked-names",
    "falling-ranges",
    "soon-exhausted",
    "layers-reported",
    "invalid-region",
)
SEEDS = st.integers(2000, 2003)


def make_sampler(seed: int) -> TRLHPOSampler:
    return TRLHPOSampler(seed=seed, n_startup_trials=3, layer_prior=False, warn_independent_sampling=False)


def played(pipeline: Pipeline, seed: int) -> FrozenTrial:
    """A finished trial of random values, of a study of its own."""
    study = optuna.create_study(direction=pipeline.direction, sampler=RandomSampler(seed))
    study.optimize(pipeline.play, n_trials=1)
    return study.trials[0]


class Sessions(RuleBasedStateMachine):
    """One study of one pipeline, and what may befall it."""

    @initialize(name=st.sampled_from(NAMES), seed=SEEDS)
    def begin(self, name: str, seed: int) -> None:
        self.pipeline = PIPELINES[name]
        self.seed = seed
        self.storage = optuna.storages.InMemoryStorage()
        self.study = optuna.create_study(
            storage=self.storage,
            study_name="s",
            direction=self.pipeline.direction,
            sampler=make_sampler(seed),
        )
        self.running: list[tuple[Trial, float | None]] = []
        self.fixed: list[dict[str, Any]] = []

    # Trials -----------------------------------------------------------------------------------------

    @rule(n=st.integers(1, 3))
    def optimize(self, n: int) -> None:
        self.study.optimize(self.pipeline.play, n_trials=n)

    @rule()
    def ask(self) -> None:
        """Begin a trial, which then goes on running."""
        waiting = [trial for trial in self.study.trials if trial.state == TrialState.WAITING]
        trial = self.study.ask()
        try:
            value: float | None = self.pipeline.play(trial)
        except optuna.TrialPruned:
            value = None
        self.running.append((trial, value))
        if waiting:
            fixed = waiting[0].system_attrs["fixed_params"]
            assert {name: trial.params[name] for name in fixed if name in trial.params} == {
                name: value for name, value in fixed.items() if name in trial.params
            }

    def _tell(self, which: int, tell: Callable[[Trial, float | None], object]) -> None:
        tell(*self.running.pop(which % len(self.running)))

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 9))
    def tell(self, which: int) -> None:
        def tell(trial: Trial, value: float | None) -> object:
            state = TrialState.PRUNED if value is None else TrialState.COMPLETE
            return self.study.tell(trial, value, state=state)

        self._tell(which, tell)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 9), state=st.sampled_from([TrialState.FAIL, TrialState.PRUNED]))
    def end_badly(self, which: int, state: TrialState) -> None:
        self._tell(which, lambda trial, value: self.study.tell(trial, state=state))

    @rule(seed=SEEDS, share=st.floats(0, 1))
    def enqueue(self, seed: int, share: float) -> None:
        """All of a network, or its beginning."""
        params = played(self.pipeline, seed).params
        n = max(1, round(share * len(params)))
        self.study.enqueue_trial(dict(list(params.items())[:n]))

    @rule(seed=SEEDS)
    def add(self, seed: int) -> None:
        """A trial from elsewhere, perhaps one that is there already."""
        self.study.add_trial(played(self.pipeline, seed))

    # Samplers ---------------------------------------------------------------------------------------

    @rule(seed=SEEDS)
    def take_another_sampler(self, seed: int) -> None:
        self.study.sampler = make_sampler(seed)

    @rule()
    def start_again(self) -> None:
        """As a program does that is started anew."""
        self.study = optuna.load_study(storage=self.storage, study_name="s", sampler=make_sampler(self.seed))
        self.running = [(Trial(self.study, trial._trial_id), value) for trial, value in self.running]

    @rule()
    def pickle_the_sampler(self) -> None:
        self.study.sampler = pickle.loads(pickle.dumps(self.study.sampler))

    @rule()
    def serve_another_study(self) -> None:
        other = optuna.create_study(sampler=self.study.sampler)
        other.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)

    # What holds -------------------------------------------------------------------------------------

    @invariant()
    def every_value_is_allowed(self) -> None:
        for number, trial in enumerate(self.study.get_trials(deepcopy=False)):
            assert trial.number == number
            for name, value in trial.params.items():
                distribution = trial.distributions[name]
                assert distribution._contains(distribution.to_internal_repr(value))

    @invariant()
    def what_runs_runs_on(self) -> None:
        states = [trial.state for trial in self.study.get_trials(deepcopy=False)]
        assert states.count(TrialState.RUNNING) == len(self.running)


TestSessions = pytest.mark.slow(Sessions.TestCase)
TestSessions.settings = settings(max_examples=12, stateful_step_count=15)
