from collections import Counter

import optuna

from optuna_trlhpo.baselines import RegularizedEvolutionSampler

NAMES = [f"x{i}" for i in range(8)]


def count(trial):
    return sum(trial.suggest_categorical(name, [0, 1, 2]) for name in NAMES)


def add(study, value, **params):
    distribution = optuna.distributions.CategoricalDistribution([0, 1, 2])
    whole = {name: 0 for name in NAMES} | params
    trial = optuna.create_trial(
        params=whole, distributions={name: distribution for name in NAMES}, value=value
    )
    study.add_trial(trial)


def differences(a, b):
    return sum(a.params[name] != b.params[name] for name in NAMES)


def test_a_child_has_one_change():
    study = optuna.create_study(
        sampler=RegularizedEvolutionSampler(population_size=1, tournament_size=1, seed=0)
    )
    study.optimize(count, n_trials=20)
    for parent, child in zip(study.trials, study.trials[1:], strict=False):
        assert differences(parent, child) == 1  # a population of one: each is the child of the one before


def test_the_oldest_dies_however_good_it_is():
    """The best trial is the first one; it is everybody's parent until three younger ones are there."""
    study = optuna.create_study(
        sampler=RegularizedEvolutionSampler(population_size=3, tournament_size=50, seed=0)
    )
    best = {name: 2 for name in NAMES}
    add(study, -100, **best)
    add(study, 1)
    add(study, 2)
    study.optimize(lambda trial: count(trial) + 50, n_trials=1)
    assert differences(study.trials[0], study.trials[3]) == 1
    study.optimize(lambda trial: count(trial) + 50, n_trials=1)  # now the population is trials 1, 2, 3
    assert differences(study.trials[1], study.trials[4]) == 1  # whose best is trial 1


def test_the_best_of_a_tournament_is_the_parent():
    study = optuna.create_study(direction="maximize")
    for i in range(10):
        add(study, i, **{name: (i >> k) % 2 for k, name in enumerate(NAMES)})
    parents: Counter[int] = Counter()
    population = study.trials
    for seed in range(80):
        study.sampler = RegularizedEvolutionSampler(population_size=10, tournament_size=5, seed=seed)
        trial = study.ask()
        count(trial)
        near = [other.number for other in population if differences(other, trial) == 1]
        parents.update(near if len(near) == 1 else [])
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    # The best of ten is the best of five drawn in 41 % of all tournaments, the third worst in 0.2 %.
    assert parents[9] > 15 and parents[0] + parents[1] + parents[2] <= 1


def test_failed_trials_have_no_place_in_the_population():
    study = optuna.create_study(
        sampler=RegularizedEvolutionSampler(population_size=2, tournament_size=9, seed=0)
    )
    add(study, 0)
    add(study, 1, x0=1, x1=1, x2=1)

    def fails(trial):
        count(trial)
        raise ValueError

    study.optimize(fails, n_trials=5, catch=(ValueError,))
    study.optimize(count, n_trials=1)
    assert differences(study.trials[0], study.trials[-1]) == 1


def test_it_is_better_than_random_search():
    def mean_of_best(sampler):
        values = []
        for seed in range(8):
            study = optuna.create_study(sampler=sampler(seed=seed))
            study.optimize(count, n_trials=80)
            values.append(study.best_value)
        return sum(values) / len(values)

    assert mean_of_best(RegularizedEvolutionSampler) < mean_of_best(optuna.samplers.RandomSampler) - 0.5
