"""Several workers on one study: none tries what another is about to try, and each learns from all."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import optuna
import pytest
from optuna import Study, Trial
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import TrialState

from optuna_trlhpo import LayerSpace, TRLHPOSampler, describe
from optuna_trlhpo.layers import Network, network_in
from optuna_trlhpo.trials.announcements import PLAN_ATTRIBUTE, layers_note, planned_layers
from optuna_trlhpo.trials.attributes import write_to_trial

SPACE = LayerSpace(max_layers=4, min_accuracy=None, min_improvement=None)


def accuracy_of(layers: Network) -> float:
    actions = SPACE.encode(layers)
    return 0.5 + 0.1 * len(layers) - 0.015 * len(layers) ** 2 - 0.2 * abs(float(actions[:, 1:3].mean()) - 0.4)


def grown(trial: Trial) -> float:
    best = 0.0
    for layers in SPACE.grow(trial):
        trial.report(accuracy_of(layers), step=len(layers) - 1)
        best = max(best, accuracy_of(layers))
    return best


def suggested(trial: Trial) -> float:
    return accuracy_of(SPACE.suggest(trial))


def loop(trial: Trial) -> float:
    return float(sum(trial.suggest_int(f"w{i}", 1, 4) for i in range(trial.suggest_int("depth", 1, 3))))


def workers(
    n: int, *, seed: int | None = None, storage: BaseStorage | None = None, **arguments: Any
) -> list[Study]:
    """Studies with samplers of their own on one storage, as in processes that know nothing of each other."""
    storage = storage or InMemoryStorage()
    return [
        optuna.create_study(
            study_name="shared",
            storage=storage,
            load_if_exists=True,
            direction="maximize",
            sampler=TRLHPOSampler(seed=k if seed is None else seed, **arguments),
        )
        for k in range(n)
    ]


@pytest.mark.parametrize("same_seed", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("play", [suggested, pytest.param(grown, marks=pytest.mark.slow)])
def test_no_worker_tries_a_network_that_another_is_about_to_try(play: Any, same_seed: bool) -> None:
    studies = workers(4, seed=7 if same_seed else None)
    networks = []
    for _ in range(6):
        trials = [study.ask() for study in studies]
        values = [play(trial) for trial in trials]  # all before any of them ends
        networks += [describe(network_in(trial.params)) for trial in trials]
        for study, trial, value in zip(studies, trials, values, strict=True):
            study.tell(trial, value)
    assert len(set(networks)) == len(networks)


class Late(InMemoryStorage):
    """A storage in which another worker is faster: it acts before a plan is noted."""

    def __init__(self) -> None:
        super().__init__()
        self.faster: Any = None
        self.noted: list[Any] = []

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        if key == PLAN_ATTRIBUTE:
            faster, self.faster = self.faster, None
            if faster is not None:
                faster()
            self.noted.append(value)
        super().set_trial_system_attr(trial_id, key, value)


@pytest.mark.parametrize("prior", [True, False])
@pytest.mark.parametrize("faster_is_first", [True, False])
def test_the_worker_that_notes_a_plan_later_gives_way(faster_is_first: bool, prior: bool) -> None:
    storage = Late()
    space = LayerSpace(max_layers=1, max_parameters=60_000, min_accuracy=None, min_improvement=None)

    def suggested(trial: Trial) -> float:
        return accuracy_of(space.suggest(trial))

    # The same seed, and a space of 47 networks, so that both often plan the same.
    slow, fast = workers(2, seed=7, storage=storage, layer_prior=prior, n_startup_trials=2)
    for study in (slow, fast):
        study.optimize(suggested, n_trials=2)
    networks = [describe(network_in(trial.params)) for trial in slow.trials]
    conflicts = 0
    for _ in range(18):
        first = (fast if faster_is_first else slow).ask()
        second = (slow if faster_is_first else fast).ask()
        mine, theirs = (second, first) if faster_is_first else (first, second)
        storage.noted = []
        storage.faster = lambda trial=theirs: suggested(trial)
        suggested(mine)
        storage.faster = None
        conflicts += len(storage.noted) > len({str(note) for note in storage.noted})
        for study, trial in ((slow, mine), (fast, theirs)):
            layers = network_in(trial.params)
            networks.append(describe(layers))
            study.tell(trial, accuracy_of(layers))
    assert conflicts > 0
    assert len(set(networks)) == len(networks)


@pytest.mark.parametrize("n_workers", [1, 4])
def test_random_networks_do_not_repeat_either(n_workers: int) -> None:
    """Of the 47 networks with one convolution, 40 are drawn."""
    space = LayerSpace(max_layers=1, max_parameters=60_000, min_accuracy=None, min_improvement=None)

    def whole(trial: Trial) -> float:
        return float(len(space.suggest(trial)))

    studies = workers(n_workers, layer_prior=False, n_startup_trials=100)
    networks = []
    for _ in range(40 // n_workers):
        trials = [study.ask() for study in studies]
        values = [whole(trial) for trial in trials]
        networks += [describe(network_in(trial.params)) for trial in trials]
        for study, trial, value in zip(studies, trials, values, strict=True):
            study.tell(trial, value)
    assert len(set(networks)) == len(networks)


def test_nor_do_those_before_the_papers_agent_takes_over() -> None:
    study = optuna.create_study(
        direction="maximize", sampler=TRLHPOSampler.paper(seed=1, n_startup_trials=40)
    )
    space = LayerSpace(max_layers=1, max_parameters=60_000, min_accuracy=None, min_improvement=None)
    study.optimize(lambda trial: accuracy_of(space.suggest(trial)), n_trials=40)
    assert len({describe(network_in(trial.params)) for trial in study.trials}) == 40


def test_a_sampler_of_ones_own_draws_its_networks_itself() -> None:
    (study,) = workers(
        1, layer_prior=False, n_startup_trials=100, independent_sampler=optuna.samplers.RandomSampler(seed=5)
    )
    (other,) = workers(1)
    other.sampler = optuna.samplers.RandomSampler(seed=5)
    for one in (study, other):
        one.optimize(suggested, n_trials=3)
    assert [trial.params for trial in study.trials] == [trial.params for trial in other.trials]


def test_nor_a_configuration() -> None:
    studies = workers(4)
    configurations = []
    for _ in range(15):
        trials = [study.ask() for study in studies]
        values = [loop(trial) for trial in trials]
        configurations += [tuple(sorted(trial.params.items())) for trial in trials]
        for study, trial, value in zip(studies, trials, values, strict=True):
            study.tell(trial, value)
    assert len(set(configurations)) == len(configurations)  # 60 of 84


@pytest.mark.parametrize("play", [suggested, loop])
def test_a_batch_that_is_asked_at_once_is_spread_out(play: Any) -> None:
    (study,) = workers(1)
    study.optimize(play, n_trials=12)
    trials = [study.ask() for _ in range(8)]
    for trial in trials:
        play(trial)
    assert len({tuple(sorted(trial.params.items())) for trial in trials}) == 8


def test_reports_of_trials_that_still_run_elsewhere_are_learned() -> None:
    one, other = workers(2)
    one.optimize(grown, n_trials=8)
    running = one.ask()
    growth = SPACE.grow(running)
    layers = next(growth)
    running.report(0.3, step=len(layers) - 1)  # worse than any
    other.optimize(grown, n_trials=2)  # the first one explores
    assert isinstance(other.sampler, TRLHPOSampler)
    planner = other.sampler.agent.networks.planner
    values = planner.values_of(planner.critic.values)
    finished = {value for trial in one.trials for value in trial.intermediate_values.values() if trial.values}
    assert values is not None
    # The worst that has finished is as low as a score can be, see `OutcomeTransform`.
    assert np.isclose(values, min(finished), atol=1e-6).sum() == 2


def test_the_plan_is_noted_as_layers_and_is_what_comes() -> None:
    (study,) = workers(1)
    study.optimize(suggested, n_trials=10)
    noted = [(planned_layers(trial), network_in(trial.params)) for trial in study.trials]
    planned = [(layers, network) for layers, network in noted if layers is not None]
    assert len(planned) >= 5
    same = [
        len(layers) == len(network) and np.allclose(layers, SPACE.encode(network), atol=1e-3)
        for layers, network in planned
    ]
    assert sum(same) >= 0.8 * len(planned)


@pytest.mark.parametrize(
    "note",
    [
        *(None, 3, "x", [], {}, {"layers": 3}, {"layers": []}, {"layers": [[]]}, {"layers": [[0.1] * 3]}),
        *({"layers": [[0.1, 0.2, "x", 0.3]]}, {"layers": [[2.0] * 4]}, {"layers": [[0.5] * 4] * 65}),
        {"layers": [[0.5, None, 0.5, 0.5]]},
    ],
    ids=repr,
)
def test_a_damaged_note_counts_as_none(note: Any) -> None:
    one, other = workers(2)
    one.optimize(suggested, n_trials=3)
    running = one.ask()
    write_to_trial(one, one.trials[running.number], PLAN_ATTRIBUTE, note)
    other.optimize(suggested, n_trials=2)
    assert planned_layers(one.trials[running.number]) is None
    assert all(trial.state == TrialState.COMPLETE for trial in other.trials if trial.number != running.number)


def test_layers_outside_of_the_space_count_as_none() -> None:
    one, other = workers(2)
    one.optimize(suggested, n_trials=3)
    running = one.ask()
    beyond = np.full((5, 4), 0.99)  # deeper than the space allows
    write_to_trial(one, one.trials[running.number], PLAN_ATTRIBUTE, layers_note(beyond))
    other.optimize(suggested, n_trials=2)
    assert all(trial.state == TrialState.COMPLETE for trial in other.trials if trial.number != running.number)


def last_of(hours: float, *, later: int = 25) -> list[dict[str, Any]]:
    """What a worker tries last, while a trial runs that began so many hours before, and claims the best.

    So many trials have finished since.
    """
    storage = InMemoryStorage()
    study = optuna.create_study(
        storage=storage, study_name="s", direction="maximize", sampler=TRLHPOSampler(seed=1)
    )
    study.optimize(suggested, n_trials=10)
    best = network_in(study.best_trial.params)
    running = optuna.create_trial(
        state=TrialState.RUNNING, system_attrs={PLAN_ATTRIBUTE: layers_note(SPACE.encode(best))}
    )
    running.datetime_start = datetime.now() - timedelta(hours=hours)
    study.add_trial(running)
    elsewhere = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1))
    elsewhere.optimize(suggested, n_trials=later)
    study.add_trials(elsewhere.trials)
    study.optimize(suggested, n_trials=4)
    return [trial.params for trial in study.trials[-4:]]


def test_a_trial_that_has_run_for_ever_is_taken_for_abandoned() -> None:
    assert last_of(hours=24) == last_of(hours=240)
    assert last_of(hours=0) != last_of(hours=24)


def test_a_clock_that_is_wrong_makes_no_trial_look_abandoned() -> None:
    assert last_of(hours=24, later=5) == last_of(hours=0, later=5) == last_of(hours=-24, later=5)


class Unsteady(InMemoryStorage):
    """A storage that fails at some calls, as a database does that is away for a minute."""

    def __init__(self) -> None:
        super().__init__()
        self.fails = iter(())

    def _perhaps(self) -> None:
        if next(self.fails, False):
            raise ConnectionError("the storage is away")

    def get_all_trials(self, *arguments: Any, **named: Any) -> Any:
        self._perhaps()
        return super().get_all_trials(*arguments, **named)

    def set_trial_system_attr(self, *arguments: Any, **named: Any) -> None:
        self._perhaps()
        super().set_trial_system_attr(*arguments, **named)

    def set_study_system_attr(self, *arguments: Any, **named: Any) -> None:
        self._perhaps()
        super().set_study_system_attr(*arguments, **named)


@pytest.mark.parametrize("play", [suggested, grown, loop])
def test_a_storage_that_is_away_for_a_while_costs_no_more_than_the_trials_of_this_while(play: Any) -> None:
    storage = Unsteady()
    (study,) = workers(1, storage=storage)
    study.optimize(play, n_trials=8)
    rng = np.random.default_rng(2000)
    storage.fails = iter(rng.random(60) < 0.3)
    n_failures = 0
    for _ in range(20):
        try:
            study.optimize(play, n_trials=1)
        except ConnectionError:
            n_failures += 1
    storage.fails = iter(())
    study.optimize(play, n_trials=4)
    assert n_failures >= 5
    assert [trial.state for trial in study.trials[-4:]] == [TrialState.COMPLETE] * 4
    # What it goes on with is what a new sampler knows.
    before = study.trials[:-1]
    again = optuna.create_study(direction="maximize", sampler=TRLHPOSampler(seed=0))
    again.add_trials(before)
    again.optimize(play, n_trials=1)
    assert again.trials[-1].params == study.trials[-1].params


def test_a_network_that_another_has_noted_is_given_up() -> None:
    one, other = workers(2, seed=5)
    one.optimize(suggested, n_trials=10)
    first, second = one.ask(), other.ask()
    mine = SPACE.suggest(second)
    # As if the other had noted it at the same time, unseen.
    write_to_trial(one, one.trials[first.number], PLAN_ATTRIBUTE, layers_note(SPACE.encode(mine)))
    assert SPACE.suggest(other.ask()) != mine  # a later trial gives way
    theirs = SPACE.suggest(first)
    notes = [planned_layers(one.trials[trial.number]) for trial in (first, second)]
    assert notes[1] is not None and np.allclose(notes[1], SPACE.encode(mine), atol=1e-3)
    assert theirs != mine  # what it had noted was replaced by its own plan, which counts the others
