import optuna
import pytest
from optuna.trial import TrialState

from optuna_trlhpo.baselines import LocalSearchSampler
from optuna_trlhpo.baselines._planned import note_of

NAMES = [f"x{i}" for i in range(5)]


def total(trial):
    return sum(trial.suggest_categorical(name, [0, 1, 2]) for name in NAMES)


def differences(a, b):
    return sum(a.params[name] != b.params[name] for name in NAMES)


def run(objective, n_trials, **arguments):
    study = optuna.create_study(
        sampler=LocalSearchSampler(**({"n_startup_trials": 1, "seed": 0} | arguments))
    )
    study.optimize(objective, n_trials=n_trials)
    return study.trials


def test_it_moves_as_soon_as_a_neighbour_is_better():
    trials = run(total, 40)
    incumbent = trials[0]
    for trial in trials[1:]:
        if "of" not in note_of(trial):
            break
        assert note_of(trial)["of"] == incumbent.number and differences(trial, incumbent) == 1
        incumbent = min(incumbent, trial, key=lambda it: it.value)
    assert incumbent.value == 0  # a sum has one local optimum


def test_the_whole_neighbourhood_comes_before_a_move():
    trials = run(total, 60, whole_neighbourhood=True)
    centre, n_around = trials[0], 0
    while True:
        around = [trial for trial in trials if note_of(trial).get("of") == centre.number]
        best = min([centre, *around], key=lambda it: it.value)
        if best is centre:
            break
        tried = [trial for trial in trials if trial.number <= around[-1].number]
        assert sum(differences(trial, centre) == 1 for trial in tried) == 10  # all, but none of them twice
        n_around += 1
        centre = best
    assert centre.value == 0 and n_around >= 2


def test_a_network_is_never_tried_twice():
    trials = run(total, 200)
    assert len({str(trial.params) for trial in trials}) == 200  # of 243
    assert run(lambda trial: trial.suggest_int("x", 0, 3), 7)[-1].state == TrialState.COMPLETE  # of 4


def test_it_starts_anew_at_a_local_optimum():
    def flat(trial):
        total(trial)
        return 1.0

    trials = run(flat, 30)
    assert [trial.number for trial in trials if "of" not in note_of(trial)] == [0, 11, 22]  # ten neighbours
    assert [note_of(trial)["climb"] for trial in trials] == [0] * 11 + [1] * 11 + [2] * 8


def test_the_best_of_the_startup_trials_is_the_start():
    trials = run(total, 6, n_startup_trials=5)
    best = min(trials[:5], key=lambda trial: trial.value)
    assert note_of(trials[5])["of"] == best.number


@pytest.mark.parametrize("failure", ["raise", "nan", "prune"])
def test_what_fails_is_not_tried_again_and_not_followed(failure):
    def objective(trial):
        value = total(trial)
        if trial.number and value < 5:
            if failure == "raise":
                raise ValueError
            if failure == "prune":
                raise optuna.TrialPruned
            return float("nan")
        return value

    study = optuna.create_study(sampler=LocalSearchSampler(n_startup_trials=1, seed=0))
    study.optimize(objective, n_trials=60, catch=(ValueError,))
    assert len({str(trial.params) for trial in study.trials}) == 60
    for trial in study.trials:
        if "of" in note_of(trial):
            assert study.trials[note_of(trial)["of"]].state == TrialState.COMPLETE


def test_workers_share_a_neighbourhood():
    study = optuna.create_study(sampler=LocalSearchSampler(n_startup_trials=1, seed=0))
    study.optimize(total, n_trials=1)
    running = [study.ask() for _ in range(4)]
    for trial in running:
        total(trial)
    assert len({str(trial.params) for trial in running}) == 4
    assert all(differences(trial, study.trials[0]) == 1 for trial in running)


def test_conditions_and_the_rest_of_the_parent():
    """Where a kind changes, what depends on it is new, and what comes after stays."""

    def objective(trial):
        kind = trial.suggest_categorical("kind", ["a", "b"])
        trial.suggest_float(f"{kind}_size", 0, 1)
        trial.suggest_float("rate", 0, 1)
        return trial.number  # nothing is ever better than the first

    trials = run(objective, 9, n_numeric_neighbours=2)
    first = trials[0]
    around = [trial for trial in trials if note_of(trial).get("of") == 0]
    assert len(around) == 1 + 2 + 2
    for trial in around:
        changed = {name for name in first.params if trial.params.get(name) != first.params[name]}
        if "kind" in changed:
            assert trial.params["rate"] == first.params["rate"]
        else:
            assert len(changed) == 1
