"""What every rival must do: play any objective, be reproducible, survive threads and pickles."""

import pickle
import random
from collections import Counter

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import TrialState

from optuna_trlhpo import LayerSpace

SPACE = LayerSpace(max_layers=3, min_accuracy=None, min_improvement=None)


def anything(trial):
    """Conditions, all kinds of parameters, ranges that differ between trials, reports between parameters."""
    kind = trial.suggest_categorical("kind", ["a", "b", None])
    value = {"a": 0.0, "b": 1.0, None: 2.0}[kind]
    trial.report(value, step=0)
    if kind == "a":
        value += trial.suggest_float("rate", 1e-5, 1e-1, log=True)
        value += trial.suggest_int("units", 1, 1 + trial.number % 5) / 10
    else:
        value += trial.suggest_int("width", 1, 1000, log=True) / 1000
        trial.report(value, step=1)
        value += trial.suggest_float("drop", 0, 0.5 + 0.1 * (trial.number % 2), step=0.1)
    return value


def layers(trial):
    score = 0.0
    for network in SPACE.grow(trial):
        score += float(SPACE.encode(network)[-1].mean()) / 3
        trial.report(score, step=len(network) - 1)
    return score


def params(study):
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("objective", [anything, layers])
def test_it_plays(make, objective, direction):
    study = optuna.create_study(direction=direction, sampler=make(seed=0))
    study.optimize(objective, n_trials=20)
    assert len(study.trials) == 20
    assert {trial.state for trial in study.trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert len({str(trial.params) for trial in study.trials}) > 10


def test_failed_and_pruned_trials(make):
    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        match trial.number % 5:
            case 0:
                raise RuntimeError
            case 1:
                return float("nan")
            case 2:
                raise optuna.TrialPruned
            case 3:
                trial.report(x, step=3)
                raise optuna.TrialPruned
            case _:
                return float("inf") if trial.number % 2 else x

    study = optuna.create_study(sampler=make(seed=0))
    study.optimize(objective, n_trials=30, catch=(RuntimeError,))
    assert len({trial.params["x"] for trial in study.trials}) == 30


def test_enqueued_added_and_fixed(make):
    study = optuna.create_study(sampler=make(seed=0))
    study.enqueue_trial({"kind": "b", "width": 17})
    study.add_trial(optuna.create_trial(value=3.0))
    study.optimize(anything, n_trials=5)
    assert study.trials[0].params["width"] == 17
    study.sampler = optuna.samplers.PartialFixedSampler({"kind": "a"}, study.sampler)
    study.optimize(anything, n_trials=5)
    assert {trial.params["kind"] for trial in study.trials[-5:]} == {"a"}


def test_several_objectives_are_refused_with_a_sentence(make_single):
    study = optuna.create_study(directions=["minimize"] * 2, sampler=make_single())
    with pytest.raises(ValueError, match="the study has 2 objectives; .*Sampler supports one"):
        study.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 0.0), n_trials=1)


@pytest.mark.parametrize("objective", [anything, layers])
def test_equal_seeds_equal_runs_and_nothing_global_is_touched(make, objective):
    def states():
        numpys = np.random.get_state(legacy=False)["state"]["key"].tolist()
        return random.getstate(), numpys, torch.get_rng_state().tolist()

    before, runs = states(), []
    for seed in (0, 0, 1):
        study = optuna.create_study(sampler=make(seed=seed))
        study.optimize(objective, n_trials=12)
        runs.append(params(study))
    assert runs[0] == runs[1] != runs[2]
    assert states() == before


def test_a_resumed_study_goes_on_as_if_never_interrupted(make):
    """A new sampler on a stored study: all that matters is in the study."""
    whole = optuna.create_study(sampler=make(seed=0))
    whole.optimize(anything, n_trials=12)
    storage = optuna.storages.InMemoryStorage()
    for n_trials in (5, 1, 6):
        study = optuna.create_study(
            storage=storage, study_name="s", sampler=make(seed=0), load_if_exists=True
        )
        study.optimize(anything, n_trials=n_trials)
    assert params(study) == params(whole)


def test_a_sampler_pickled_inside_a_trial_goes_on(make):
    def run(interrupt):
        study = optuna.create_study(sampler=make(seed=0))
        study.optimize(anything, n_trials=5)
        trial = study.ask()
        trial.suggest_categorical("kind", ["a", "b", None])
        if interrupt:
            study.sampler = pickle.loads(pickle.dumps(study.sampler))
        trial.suggest_float("y", 0, 1)
        study.tell(trial, 0.5)
        study.optimize(anything, n_trials=5)
        return params(study)

    assert run(interrupt=True) == run(interrupt=False)


def test_threads(make):
    study = optuna.create_study(sampler=make(seed=0))
    study.optimize(anything, n_trials=30, n_jobs=3)
    states = Counter(trial.state for trial in study.trials)
    assert states[TrialState.COMPLETE] + states[TrialState.PRUNED] == 30
    assert len({str(trial.params) for trial in study.trials}) > 20


def test_hyperband(make):
    """Its samplers see one bracket only, with numbers missing and few attributes."""
    study = optuna.create_study(sampler=make(seed=0), pruner=optuna.pruners.HyperbandPruner(max_resource=4))

    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        for step in range(4):
            trial.report(x, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return x

    study.optimize(objective, n_trials=20)
    # What another bracket tried is unknown, and the ends of a range are tried more often than the rest.
    assert len({trial.params["x"] for trial in study.trials} - {0, 1}) >= 15


def test_one_sampler_for_two_studies_in_turn(make):
    sampler = make(seed=0)
    studies = [optuna.create_study(sampler=sampler, direction=way) for way in ("minimize", "maximize")]
    for _ in range(8):
        for study in studies:
            study.optimize(anything, n_trials=1)
    alone = optuna.create_study(sampler=make(seed=0), direction="maximize")
    alone.optimize(anything, n_trials=8)
    assert params(studies[1]) == params(alone)


def test_bad_seeds(make):
    for seed in (-1, 0.5, "x", True):
        with pytest.raises(ValueError, match="seed is .*; it must be an integer of at least 0, or None"):
            make(seed=seed)
