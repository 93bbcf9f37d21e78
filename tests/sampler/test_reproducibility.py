"""Equal seeds, other processes, pickles, stored studies, threads."""

import pickle
import subprocess
import sys
import textwrap

import numpy as np
import optuna
import pytest
from optuna.study import StudyDirection

from optuna_trlhpo import LayerSpace, TRLHPOSampler
from tests.helpers import replay_of, value_of

SPACE = LayerSpace(max_layers=3, min_accuracy=None, min_improvement=None)


def objective(trial):
    score = 0.0
    for layers in SPACE.grow(trial):
        score += float(SPACE.encode(layers)[-1].mean()) / 3
        trial.report(score, step=len(layers) - 1)
    return score


def params(study):
    return [trial.params for trial in study.trials]


@pytest.fixture(params=["default", "paper"])
def make(request, make_sampler):
    return make_sampler if request.param == "default" else lambda: TRLHPOSampler.paper(seed=0)


@pytest.mark.slow
def test_two_runs_with_one_seed_are_equal(make):
    runs = []
    for _ in range(2):
        study = optuna.create_study(direction="maximize", sampler=make())
        study.optimize(objective, n_trials=10)
        runs.append(params(study))
    assert runs[0] == runs[1]


@pytest.mark.slow
def test_other_seeds_differ(make_sampler):
    runs = []
    for seed in (0, 1):
        study = optuna.create_study(direction="maximize", sampler=make_sampler(seed=seed))
        study.optimize(objective, n_trials=6)
        runs.append(params(study))
    assert all(a != b for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("layer_prior", [False, True])
def test_the_global_generators_are_left_alone(make_sampler, layer_prior):
    import random

    import numpy as np
    import torch

    def states():
        return (
            random.getstate(),
            np.random.get_state(legacy=False)["state"]["key"].tolist(),
            torch.get_rng_state().tolist(),
        )

    before = states()
    study = optuna.create_study(direction="maximize", sampler=make_sampler(layer_prior=layer_prior))
    study.optimize(objective, n_trials=6)
    assert states() == before


@pytest.mark.slow
def test_a_run_in_another_process_is_equal():
    program = textwrap.dedent(
        """
        import json, optuna
        from optuna_trlhpo import TRLHPOSampler
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(sampler=TRLHPOSampler(seed=7, n_startup_trials=3))
        def objective(trial):
            x, kind = trial.suggest_float("x", 0, 1), trial.suggest_categorical("kind", ["a", "b"])
            return x + (kind == "a")
        study.optimize(objective, n_trials=8)
        print(json.dumps([trial.params for trial in study.trials]))
        """
    )
    runs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        for _ in "ab"
    ]
    assert runs[0].stdout == runs[1].stdout != ""


@pytest.mark.slow
def test_a_pickled_sampler_continues_as_the_uninterrupted_one(make):
    whole = optuna.create_study(direction="maximize", sampler=make())
    whole.optimize(objective, n_trials=12)
    parts = optuna.create_study(direction="maximize", sampler=make())
    parts.optimize(objective, n_trials=7)
    parts.sampler = pickle.loads(pickle.dumps(parts.sampler))
    parts.optimize(objective, n_trials=5)
    assert params(parts) == params(whole)


@pytest.mark.slow
def test_a_new_sampler_of_the_paper_continues_as_the_uninterrupted_one(tmp_path):
    def make():
        return TRLHPOSampler.paper(seed=0)

    whole = optuna.create_study(direction="maximize", sampler=make())
    whole.optimize(objective, n_trials=24)
    storage = f"sqlite:///{tmp_path}/study.db"
    parts = optuna.create_study(direction="maximize", sampler=make(), storage=storage, study_name="parts")
    for n_trials in (9, 1, 14):
        parts.optimize(objective, n_trials=n_trials)
        parts.sampler = make()
    assert params(parts) == params(whole)


@pytest.mark.slow
def test_a_sampler_pickled_inside_a_trial_continues_it(make_sampler):
    def run(interrupt):
        study = optuna.create_study(direction="maximize", sampler=make_sampler())
        study.optimize(objective, n_trials=5)
        trial = study.ask()
        growth = SPACE.grow(trial)
        for layers in growth:
            trial.report(0.5, step=len(layers) - 1)
            if interrupt:
                study.sampler = pickle.loads(pickle.dumps(study.sampler))
        return trial.params

    assert run(interrupt=True) == run(interrupt=False)


@pytest.mark.slow
def test_a_new_sampler_on_a_stored_study_learns_from_it_and_does_not_repeat_it(make_sampler, tmp_path):
    storage = f"sqlite:///{tmp_path}/study.db"

    def objective(trial):
        return trial.suggest_float("x", 0, 1) + trial.suggest_float("y", 0, 1)

    optuna.create_study(storage=storage, study_name="s", sampler=make_sampler()).optimize(
        objective, n_trials=8
    )
    for n_known in (8, 10):  # inside one study two new samplers, each with the same seed
        sampler = make_sampler()
        study = optuna.load_study(study_name="s", storage=storage, sampler=sampler)
        study.optimize(objective, n_trials=2)
        assert (
            len(replay_of(sampler)) == n_known + 1
        )  # all but its last own trial, which nobody asked about yet
    suggestions = [tuple(trial.params.values()) for trial in study.trials]
    assert len(set(suggestions)) == len(suggestions) == 12


def test_a_resumed_start_does_not_repeat_itself(make_sampler, tmp_path):
    storage = f"sqlite:///{tmp_path}/study.db"
    for _ in range(3):
        study = optuna.create_study(
            storage=storage, study_name="s", sampler=make_sampler(), load_if_exists=True
        )
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert len({trial.params["x"] for trial in study.trials}) == 3


@pytest.mark.slow
def test_two_threads(make_sampler):
    study = optuna.create_study(direction="maximize", sampler=make_sampler())
    study.optimize(objective, n_trials=24, n_jobs=2)
    assert len(study.trials) == 24
    assert all(trial.state == optuna.trial.TrialState.COMPLETE for trial in study.trials)
    assert len({str(trial.params) for trial in study.trials}) > 20


@pytest.mark.slow
def test_two_processes_on_one_storage(tmp_path):
    program = textwrap.dedent(
        """
        import sys, optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
        from optuna_trlhpo import TRLHPOSampler
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(sys.argv[1])), study_name="s", load_if_exists=True,
            sampler=TRLHPOSampler(seed=0, n_startup_trials=3),
        )
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=8)
        """
    )
    command = [sys.executable, "-c", program, str(tmp_path / "journal")]
    workers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for worker in workers:
        _, said = worker.communicate(timeout=120)
        assert worker.returncode == 0, said
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    study = optuna.load_study(
        study_name="s", storage=JournalStorage(JournalFileBackend(str(tmp_path / "journal")))
    )
    assert len({trial.params["x"] for trial in study.trials}) == len(study.trials) == 16


def test_another_study_is_learned_from_scratch(make_sampler):
    sampler = make_sampler()
    for _ in range(2):
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=5)
        assert len(replay_of(sampler)) == 4


@pytest.mark.slow
def test_another_study_of_the_same_name_is_learned_from_scratch(make_sampler):
    sampler = make_sampler()
    maximize, minimize = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
    for direction, n_trials in ((maximize, 8), (minimize, 6), (minimize, 4), (minimize, 7)):
        study = optuna.create_study(study_name="same", direction=direction, sampler=sampler)
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=n_trials)
        assert len(replay_of(sampler)) == n_trials - 1
        rows = replay_of(sampler).rows(np.arange(n_trials - 1))
        sign = 1 if direction == maximize else -1
        assert rows["outcomes"][:, 0, 0].tolist() == [sign * value_of(trial) for trial in study.trials[:-1]]
