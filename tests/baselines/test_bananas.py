import numpy as np
import optuna
import pytest

from optuna_trlhpo import LayerSpace
from optuna_trlhpo.baselines import BananasSampler
from optuna_trlhpo.baselines.bananas import Encoder, Predictor, targets_of
from optuna_trlhpo.search_space.model import SpaceModel

NAMES = [f"x{i}" for i in range(8)]


def count(trial):
    return sum(trial.suggest_categorical(name, [0, 1, 2]) * (i + 1) for i, name in enumerate(NAMES))


def random_trials(objective, n_trials, **arguments):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), **arguments)
    study.optimize(objective, n_trials=n_trials)
    return study.trials


@pytest.mark.slow
def test_it_is_much_better_than_random_search():
    def mean_of_best(sampler):
        values = []
        for seed in range(2):
            study = optuna.create_study(sampler=sampler(seed=seed))
            study.optimize(count, n_trials=40)
            values.append(study.best_value)
        return np.mean(values)

    # Of 72 points random search is some 14 away from the best.
    assert mean_of_best(BananasSampler) < mean_of_best(optuna.samplers.RandomSampler) - 8


@pytest.mark.slow
def test_it_learns_conditions():
    def objective(trial):
        if trial.suggest_categorical("kind", ["a", "b"]) == "a":
            return 1 + abs(trial.suggest_float("left", -1, 1))
        return abs(trial.suggest_float("right", -1, 1) - 0.5)

    study = optuna.create_study(sampler=BananasSampler(seed=0))
    study.optimize(objective, n_trials=35)
    assert study.best_value < 0.05
    assert sum(trial.params["kind"] == "b" for trial in study.trials[10:]) >= 20


def test_the_networks_are_fitted_every_so_often(monkeypatch):
    from optuna_trlhpo.baselines import bananas

    sizes = []

    class Counting(Predictor):
        def __init__(self, trials, *rest):
            sizes.append(len(trials))
            super().__init__(trials, *rest)

    monkeypatch.setattr(bananas, "Predictor", Counting)
    study = optuna.create_study(sampler=BananasSampler(n_startup_trials=4, update_interval=3, seed=0))
    study.optimize(count, n_trials=12)
    assert sizes == [4, 7, 10]


def test_targets():
    scores = [-3.0, -2.0, -1.0, 0.0]
    targets = targets_of(scores)
    assert (np.diff(targets) > 0).all() and targets.mean() == pytest.approx(0)
    assert targets.std() == pytest.approx(1)
    np.testing.assert_allclose(targets, targets_of([1000 * score - 7 for score in scores]))  # whatever unit
    assert targets_of([1.0, 1.0, 1.0]).tolist() == [0, 0, 0]
    infinite = targets_of([-np.inf, 0.0, 1.0, np.inf])
    assert np.isfinite(infinite).all() and infinite[0] == infinite[1] < infinite[2] == infinite[3]
    assert targets_of([np.inf, np.inf]).tolist() == [0, 0]
    assert np.isfinite(targets_of([0.0, 1.0, 1.0, 1.0])).all()  # the median distance is 0


def test_encoder():
    def objective(trial):
        if trial.suggest_categorical("kind", ["a", "b"]) == "a":
            trial.suggest_float("rate", 1e-4, 1e-2, log=True)
        trial.suggest_int("n", 0, 2 + 2 * (trial.number % 2))
        return 0.0

    encoder = Encoder(random_trials(objective, 20))
    assert encoder.n_features == 2 + 2 + 2
    rows = encoder([{"kind": "a", "rate": 1e-3, "n": 1}, {"kind": "b", "n": 4, "unknown": 1}, {"n": 9}])
    rate = int(np.flatnonzero(encoder([{"rate": 1e-3}])[0])[0])  # whichever of the two came first
    n = 6 - rate
    np.testing.assert_allclose(rows[0][:2], [1, 0])
    np.testing.assert_allclose(rows[0][rate : rate + 2], [1, 0], atol=1e-6)  # the middle, logarithmically
    np.testing.assert_allclose(rows[0][n : n + 2], [1, -0.5])  # of 0 to 4
    np.testing.assert_allclose(rows[1][rate : rate + 2], [0, 0])
    np.testing.assert_allclose(rows[1][n : n + 2], [1, 1])
    np.testing.assert_allclose(rows[2][:2], [0, 0])


def test_the_predictor_ranks_what_it_has_not_seen_and_its_members_differ():
    trials = random_trials(count, 90)
    values = np.array([trial.value for trial in trials])
    predictor = Predictor(trials[:60], targets_of((-values[:60]).tolist()), seed=0)
    predicted = predictor.predict([trial.params for trial in trials[60:]])
    assert predicted.shape == (5, 30)
    found, true = (np.argsort(np.argsort(x)) for x in (predicted.mean(axis=0), -values[60:]))
    assert np.corrcoef(found, true)[0, 1] > 0.7
    assert (predicted.std(axis=0) > 0).all()
    other = Predictor(trials[:60], targets_of((-values[:60]).tolist()), seed=1)
    assert not np.allclose(predicted, other.predict([trial.params for trial in trials[60:]]))


@pytest.mark.slow
def test_nothing_is_tried_twice_until_all_is():
    study = optuna.create_study(sampler=BananasSampler(n_startup_trials=3, seed=0))
    study.optimize(
        lambda trial: trial.suggest_int("x", 0, 4) + trial.suggest_categorical("y", [0, 1, 2]), n_trials=15
    )
    assert len({str(trial.params) for trial in study.trials}) == 15


# Which parameters a trial would have ----------------------------------------------------------------------


def test_the_structure_of_an_objective_with_a_depth():
    """Whether another layer comes depends on a parameter far back."""

    def objective(trial):
        for k in range(trial.suggest_int("n_layers", 1, 4)):
            if trial.suggest_categorical(f"kind{k}", ["conv", "pool"]) == "conv":
                trial.suggest_int(f"filters{k}", 8, 128)
        return 0.0

    structure = SpaceModel.of(random_trials(objective, 60))
    whole = {"n_layers": 3} | {f"filters{k}": 64 for k in range(4)} | {f"kind{k}": "pool" for k in range(4)}
    whole["kind1"] = "conv"
    assert list(structure.play(whole)) == ["n_layers", "kind0", "kind1", "filters1", "kind2"]
    assert list(structure.play(whole | {"n_layers": 1})) == ["n_layers", "kind0"]


@pytest.mark.slow
def test_the_structure_of_a_layer_space():
    space = LayerSpace(max_layers=4)

    def objective(trial):
        space.suggest(trial)
        return 0.0

    trials = random_trials(objective, 200)
    structure = SpaceModel.of(trials[:150])
    same = [structure.play(trial.params) == trial.params for trial in trials[150:]]
    assert np.mean(same) > 0.75
    everything = {name: value for trial in trials for name, value in trial.params.items()}
    right = [list(structure.play(everything | trial.params)) == list(trial.params) for trial in trials[150:]]
    assert np.mean(right) > 0.75


def test_the_structure_of_nothing():
    assert SpaceModel.of([]).play({"x": 1}) == {}
