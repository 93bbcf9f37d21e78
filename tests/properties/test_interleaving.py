"""Workers that take turns at every suggestion, that begin, end, fail, die and come back in any order.

Each worker has a sampler of its own, as a process has, and each trial a thread of its own, of which one runs
at a time. So whatever one worker does happens between two suggestions of another.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import optuna
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from optuna import Study, Trial
from optuna.distributions import BaseDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from optuna_trlhpo import LayerSpace, TRLHPOSampler, describe
from optuna_trlhpo.benchmarks.problems.synthetic import depths
from optuna_trlhpo.layers import network_in
from tests.properties.test_programs import Program, check_values, play, programs

# `make soak` has many.
N_SESSIONS = int(os.environ.get("TRLHPO_SESSIONS", "6"))
SPACE = LayerSpace(max_layers=3, min_accuracy=None, min_improvement=None)


def suggested(trial: Trial) -> float:
    return float(SPACE.encode(SPACE.suggest(trial))[:, 1].mean())


def grown(trial: Trial) -> float:
    accuracy = 0.0
    for layers in SPACE.grow(trial):
        accuracy = float(SPACE.encode(layers)[:, 1].mean())
        trial.report(accuracy, step=len(layers) - 1)
    return accuracy


class Abandoned(BaseException):
    """Ends the thread of a trial whose worker has died."""


class Turn(threading.Thread):
    """A running trial, which goes on when it is told to, up to its next suggestion."""

    def __init__(self, trial: Trial, objective: Callable[[Trial], float]) -> None:
        super().__init__(daemon=True)
        self.trial, self.objective = trial, objective
        self.value: float | None = None
        self.error: BaseException | None = None
        self.is_done = self.is_abandoned = False
        self._go, self._pausing = threading.Semaphore(0), threading.Semaphore(0)
        self.start()

    def run(self) -> None:
        self._go.acquire()
        try:
            if not self.is_abandoned:
                self.value = self.objective(self.trial)
        except (optuna.TrialPruned, Abandoned):
            pass
        except BaseException as error:
            self.error = error
        self.is_done = True
        self._pausing.release()

    def pause(self) -> None:
        self._pausing.release()
        self._go.acquire()
        if self.is_abandoned:
            raise Abandoned

    def go_on(self) -> None:
        self._go.release()
        self._pausing.acquire()
        if self.error is not None:
            raise self.error

    def abandon(self) -> None:
        self.is_abandoned = True
        if not self.is_done:
            self.go_on()
        self.join()


class Turning(TRLHPOSampler):
    """Sampler that lets others have their turn before each suggestion."""

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        thread = threading.current_thread()
        if isinstance(thread, Turn):
            thread.pause()
        return super().sample_independent(study, trial, param_name, param_distribution)


OBJECTIVES = {"suggested": suggested, "grown": grown, "depths": depths}


class Interleaving(RuleBasedStateMachine):
    """One study, and its workers."""

    @initialize(
        objective=st.one_of(st.sampled_from(sorted(OBJECTIVES)), programs()),
        prior=st.booleans(),
        n_workers=st.integers(2, 4),
        before=st.integers(0, 8),
    )
    def begin(self, objective: str | Program, prior: bool, n_workers: int, before: int) -> None:
        self.name = objective if isinstance(objective, str) else "program"
        self.objective: Callable[[Trial], float] = (
            OBJECTIVES[objective] if isinstance(objective, str) else partial(play, objective)
        )
        self.prior = prior
        self.storage = InMemoryStorage()
        self.workers = [self.worker(seed) for seed in range(2000, 2000 + n_workers)]
        self.turns: list[tuple[int, Turn]] = []
        self.workers[0].optimize(self.objective, n_trials=before)

    def worker(self, seed: int) -> Study:
        sampler = Turning(
            seed=seed, n_startup_trials=3, layer_prior=self.prior, warn_independent_sampling=False
        )
        return optuna.create_study(
            study_name="s", storage=self.storage, direction="maximize", sampler=sampler, load_if_exists=True
        )

    def chosen(self, which: int) -> tuple[int, Turn]:
        return self.turns[which % len(self.turns)]

    @precondition(lambda self: len(self.turns) < 6)
    @rule(which=st.integers(0, 3))
    def ask(self, which: int) -> None:
        place = which % len(self.workers)
        self.turns.append((place, Turn(self.workers[place].ask(), self.objective)))

    @precondition(lambda self: self.turns)
    @rule(which=st.integers(0, 9), n=st.integers(1, 6))
    def go_on(self, which: int, n: int) -> None:
        _, turn = self.chosen(which)
        for _ in range(n):
            if not turn.is_done:
                turn.go_on()

    @precondition(lambda self: self.turns)
    @rule(which=st.integers(0, 9), fails=st.booleans())
    def end(self, which: int, fails: bool) -> None:
        place, turn = self.chosen(which)
        while not turn.is_done and not fails:
            turn.go_on()
        state = TrialState.COMPLETE
        if fails:
            turn.abandon()
            state = TrialState.FAIL
        elif turn.value is None:
            state = TrialState.PRUNED
        value = turn.value if state == TrialState.COMPLETE else None
        self.workers[place].tell(turn.trial, value, state=state)
        self.turns.remove((place, turn))

    @rule(which=st.integers(0, 3))
    def die(self, which: int) -> None:
        """The trials of a worker run for ever, and another worker begins in its place."""
        place = which % len(self.workers)
        for other, turn in [*self.turns]:
            if other == place:
                turn.abandon()
                self.turns.remove((other, turn))
        self.workers[place] = self.worker(2000 + place)

    @rule(seed=st.integers(2000, 2003))
    def enqueue(self, seed: int) -> None:
        elsewhere = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed))
        elsewhere.optimize(self.objective, n_trials=1)
        params = elsewhere.trials[0].params
        self.workers[0].enqueue_trial(dict(list(params.items())[: 1 + seed % 3]))

    @invariant()
    def every_value_is_allowed(self) -> None:
        for number, trial in enumerate(self.workers[0].get_trials(deepcopy=False)):
            assert trial.number == number
            check_values(trial)

    @invariant()
    def no_network_comes_twice(self) -> None:
        if self.name != "suggested":
            return
        trials = self.workers[0].get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        free = [trial for trial in trials if "fixed_params" not in trial.system_attrs]
        networks = [describe(network_in(trial.params)) for trial in free]
        assert len(set(networks)) == len(networks)

    def teardown(self) -> None:
        for _, turn in self.turns:
            turn.abandon()


TestInterleaving = pytest.mark.slow(Interleaving.TestCase)
TestInterleaving.settings = settings(
    max_examples=N_SESSIONS, stateful_step_count=25, phases=(Phase.explicit, Phase.generate), deadline=None
)
