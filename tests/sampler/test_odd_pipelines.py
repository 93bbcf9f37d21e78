"""Pipelines with a peculiarity that once ended a study, or made it repeat itself while something was left."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from optuna_trlhpo import TRLHPOSampler
from optuna_trlhpo.trials.values import value_key


def sampler(seed=1, **arguments):
    arguments = {"layer_prior": False, "n_startup_trials": 6, "warn_independent_sampling": False, **arguments}
    return TRLHPOSampler(seed=seed, **arguments)


def play(objective, n_trials, *, study=None, seed=1, catch=(), **arguments):
    study = optuna.create_study(**arguments) if study is None else study
    study.sampler = sampler(seed)
    study.optimize(objective, n_trials=n_trials, catch=catch)
    return study


def distinct(trials):
    return len({repr(sorted((name, value_key(v)) for name, v in trial.params.items())) for trial in trials})


# What ended a study --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_numbered_parameters_may_be_of_several_kinds():
    def objective(trial):
        loss = 0.0
        for i in range(trial.suggest_int("n", 1, 5)):
            loss += (
                trial.suggest_categorical(f"p{i}", [1, 2])
                if i % 2
                else trial.suggest_float(f"p{i}", 0, i + 1)
            )
        return loss

    assert distinct(play(objective, 30).trials) == 30


@pytest.mark.slow
@pytest.mark.parametrize("choices", [(1.0, math.inf), (-math.inf, math.inf), (math.nan, 2.0, 3.0)])
def test_a_choice_without_end_may_decide_what_follows(choices):
    def objective(trial):
        clip = trial.suggest_categorical("clip", choices)
        return trial.suggest_float("x", 0, 1) if clip == choices[-1] else trial.suggest_int("y", 0, 50)

    assert distinct(play(objective, 25).trials) == 25


def test_a_sampler_of_many_parameters_can_be_copied():
    study = play(lambda trial: sum(trial.suggest_int(f"f_{i}", 0, 1) for i in range(300)), 3)
    found = []
    for copied in (study.sampler, pickle.loads(pickle.dumps(study.sampler)), copy.deepcopy(study.sampler)):
        again = copy.deepcopy(study)
        again.sampler = copied
        again.optimize(lambda t: t.suggest_int("f_0", 0, 1) + t.suggest_int("g", 0, 1), n_trials=3)
        found.append([trial.params for trial in again.trials[3:]])
    assert found[0] == found[1] == found[2]
    assert len({repr(tried) for tried in found[0]}) == 3  # of four: none is repeated


def test_a_running_trial_may_have_a_label_that_nobody_knows():
    study = optuna.create_study(sampler=sampler())
    known = {"k": CategoricalDistribution(["p", "q"]), "a": FloatDistribution(0, 20)}
    for i in range(12):
        params = {"k": "p", "a": float(i)}
        study.add_trial(create_trial(params=params, distributions=known, value=float(i)))
    other = CategoricalDistribution(["new", "p"])
    running = create_trial(state=TrialState.RUNNING, params={"k": "new"}, distributions={"k": other})
    study._storage.create_new_trial(study._study_id, template_trial=running)
    assert 0 <= study.ask().suggest_float("a", 0, 20) <= 20


# What made it repeat itself ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_place_where_trials_fail_is_left(seed):
    """The trial fails before it has asked for all."""

    def objective(trial):
        a, b = trial.suggest_int("a", 0, 3), trial.suggest_int("b", 0, 3)
        if a == b:
            raise ValueError
        return a + b + trial.suggest_int("c", 0, 2)

    study = play(objective, 50, seed=seed, catch=(ValueError,))
    failed = [trial for trial in study.trials if trial.state == TrialState.FAIL]
    assert distinct(study.trials) == 36 + 4 and len(failed) <= 8


def test_a_place_without_a_value_is_left():
    def objective(trial):
        a = trial.suggest_int("a", 0, 4)
        return math.nan if a == 0 else a + trial.suggest_int("b", 0, 6)

    study = play(objective, 30)
    assert distinct(study.trials) == 4 * 7 + 1


def test_one_trial_that_fails_is_no_evidence():
    """It may have been interrupted."""

    def objective(trial):
        a = trial.suggest_int("a", 0, 1)
        if trial.number == 3:
            raise ValueError
        return a + trial.suggest_int("b", 0, 4)

    study = play(objective, 11, catch=(ValueError,))
    assert distinct(trial for trial in study.trials if trial.state == TrialState.COMPLETE) == 10


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("only", [dict(low=2.0, high=2.0), dict(low=2.0, high=2.0, log=True)])
def test_a_number_with_one_value_makes_no_difference(seed, only):
    def objective(trial):
        return trial.suggest_float("rate", 1e-4, 0.1, log=True) + trial.suggest_float("only", **only)

    assert distinct(play(objective, 30, seed=seed).trials) == 30


def whole(name, low, high):
    return lambda trial: trial.suggest_int(name, low, high)


def both(*parts):
    return lambda trial: sum(part(trial) for part in parts)


A, B = whole("a", 0, 4), whole("b", 0, 9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after", "n"),
    [
        (whole("x", 10, 19), whole("x", 0, 9), 10),
        (A, whole("renamed", 0, 4), 5),
        (A, both(A, B), 50),
        (A, both(B, A), 50),
        (both(whole("a", 5, 7), whole("b", 0, 4)), both(whole("a", 0, 2), whole("b", 0, 4)), 15),
    ],
    ids=["another range", "renamed", "one more behind", "one more in front", "another range in front"],
)
def test_code_that_has_changed_begins_anew(before, after, n):
    study = play(before, 5 if before is A else n)
    first = len(study.trials)
    play(after, n, study=study, seed=2)
    assert distinct(study.trials[first:]) == n


def test_enqueued_values_out_of_range_use_up_nothing():
    study = optuna.create_study()
    study.enqueue_trial({"x": 100})
    study.enqueue_trial({"x": -3})
    play(whole("x", 0, 19), 22, study=study)
    assert {trial.params["x"] for trial in study.trials} == {*range(20), 100, -3}


@pytest.mark.parametrize("choices", [(1, 1.0, "1", None), (1, True, "1"), (0, False), ("a", "a", "b")])
def test_choices_that_optuna_cannot_tell_apart_are_one(choices):
    n = 6 * len({choices.index(choice) for choice in choices})

    def objective(trial):
        return trial.suggest_int("x", 0, 5) + (trial.suggest_categorical("c", choices) is None)

    assert distinct(play(objective, n).trials) == n


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Choices for a categorical")
def test_tuples_are_lists_to_a_storage():
    def objective(trial):
        return trial.suggest_int("x", 0, 5) + (trial.suggest_categorical("c", [(1, 2), (3, 4), None]) is None)

    here, there = play(objective, 18), play(objective, 18, storage="sqlite://")
    assert distinct(here.trials) == distinct(there.trials) == 18
    assert [trial.params["x"] for trial in here.trials] == [trial.params["x"] for trial in there.trials]


def test_workers_see_an_end_behind_what_is_not_asked_for():
    """The last parameter has one value, so the sampler decides nothing behind the one before."""

    def objective(trial):
        return trial.suggest_int("a", 0, 5) + trial.suggest_int("only", 0, 0)

    for seed in range(6):
        study = play(objective, 2, seed=seed)
        together = [study.ask() for _ in range(4)]
        assert len({trial.suggest_int("a", 0, 5) for trial in together}) == 4
        assert {trial.params["a"] for trial in study.trials} == set(range(6))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_trials_that_run_together_share_what_is_left(seed):
    """Some are planned, one is left to chance; each is asked for a parameter in turn."""

    def layers(trial):
        n = trial.suggest_int("n", 1, 3)
        yield
        for i in range(n):
            trial.suggest_int(f"w{i}", 0, 2)
            yield

    def objective(trial):
        return sum(1 for _ in layers(trial))

    study = play(objective, 24, seed=seed)
    for _ in range(3):
        together = [study.ask() for _ in range(5)]
        running = [layers(trial) for trial in together]
        while running:
            running = [steps for steps in running if next(steps, "done") != "done"]
        for trial in together:
            study.tell(trial, 0.0)
    assert distinct(study.trials) == 3 + 9 + 27


@pytest.mark.slow
def test_where_nothing_comes_as_planned_few_plans_are_made(caplog):
    """The names are of no order; planned anew for each of them, a trial of 20 took seconds."""

    def objective(trial):
        names = np.random.default_rng(trial.number).choice(100, 20, replace=False)
        return sum(trial.suggest_float(f"p{name}", 0, 1) for name in names)

    study = play(objective, 30)
    study.sampler = TRLHPOSampler(seed=0)  # which warns where it knows nothing
    optuna.logging.enable_propagation()
    try:
        with caplog.at_level("WARNING", logger="optuna"):
            study.optimize(objective, n_trials=1)
            running = study.sampler.agent.courses[30].configuration
    finally:
        optuna.logging.disable_propagation()
    assert running.n_rejected >= 15 and running.n_plans <= 7
    assert "sampled independently" not in caplog.text  # the names are known
