"""What the default agent plans: which networks are trained, what parallel trials try, what it finds."""

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from optuna_trlhpo import AgentConfig, LayerSpace, TRLHPOSampler
from optuna_trlhpo.agent.sequences import network_key
from tests.helpers import replay_of

SPACE = LayerSpace(max_layers=4, input_shape=(1, 8, 8), min_accuracy=None, min_improvement=None)


def accuracy_of(layers):
    """Deeper is better up to three layers, and smaller layers are better."""
    return 0.9 - 0.1 * abs(len(layers) - 3) - 0.2 * float(SPACE.encode(layers)[:, 1:].mean())


def grow(study, space, *, seen=None):
    """One trial; what was trained, and what ``seen`` says of the trial each time."""
    trial, trained = study.ask(), []
    for layers in space.grow(trial):
        trained.append((layers, None if seen is None else seen(trial)))
        trial.report(accuracy_of(layers), step=len(layers) - 1)
    study.tell(trial, accuracy_of(layers))
    return trained


# Which networks are trained ------------------------------------------------------------------------------


def test_trials_at_random_train_every_prefix(make_sampler):
    sampler = make_sampler(n_startup_trials=14, layer_prior=False)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for _ in range(5):
        trained = grow(study, SPACE)
        assert [len(layers) for layers, _ in trained] == list(range(1, len(trained) + 1))


@pytest.mark.slow
@pytest.mark.parametrize(("n_startup_trials", "n_random"), [(0, 1), (2, 1), (4, 2), (8, 3), (9, 4)])
def test_a_start_ends_where_trials_have_brought_enough_values(make_sampler, n_startup_trials, n_random):
    """Three values for two startup trials; a trial at random brings four."""
    sampler = make_sampler(n_startup_trials=n_startup_trials, layer_prior=False)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    plans = [grow(study, SPACE, seen=lambda t: sampler.agent.courses[t.number].plan)[0][1] for _ in range(8)]
    assert [plan is None for plan in plans] == [number < n_random for number in range(8)]


def random_trials(n_trials, *, directions=("maximize",), sample=None, **arguments):
    """Numbers of the trials that no plan was made for."""
    sampler = TRLHPOSampler(**({"seed": 0, "n_startup_trials": 0, "layer_prior": False} | arguments))
    study = optuna.create_study(directions=list(directions), sampler=sampler)
    found = []
    for _ in range(n_trials):
        trial = study.ask()
        if sample is None:
            values = [accuracy_of(SPACE.suggest(trial))] * len(directions)
        else:
            values = [sample(trial)]
        course = sampler.agent.courses[trial.number]
        if course.plan is None and course.configuration.plan is None:
            found.append(trial.number)
        study.tell(trial, values)
    return found


def small(**settings):
    return AgentConfig(n_candidates=10, n_generations=1, fit_steps=1, **settings)


@pytest.mark.slow
def test_of_so_many_trials_that_grow_layers_one_is_random():
    assert random_trials(11, agent=small()) == [0, 4, 9]  # in the first nothing is known
    assert random_trials(8, agent=small(random_interval=3)) == [0, 2, 5]
    assert random_trials(8, agent=small(random_interval=0)) == [0]


def test_no_trial_is_random_where_all_have_the_same_parameters_or_several_objectives():
    assert random_trials(6, agent=small(), sample=lambda trial: trial.suggest_float("x", 0, 1)) == [0]
    assert random_trials(6, agent=small(), directions=("maximize", "minimize")) == [0]


def test_a_random_trial_trains_every_prefix_and_is_drawn_as_at_the_start():
    sampler = TRLHPOSampler(seed=0, n_startup_trials=4, layer_prior=False, agent=small())
    study = optuna.create_study(direction="maximize", sampler=sampler)
    trained = [grow(study, SPACE) for _ in range(5)][4]
    assert [len(layers) for layers, _ in trained] == [1, 2, 3, 4]
    anew = optuna.create_study(
        direction="maximize", sampler=TRLHPOSampler(seed=0, n_startup_trials=99, layer_prior=False)
    )
    for _ in range(5):
        grow(anew, SPACE)
    assert anew.trials[4].params == study.trials[4].params


def test_what_was_planned_before_the_layers_has_no_say_in_a_random_trial():
    sampler = TRLHPOSampler(seed=0, n_startup_trials=0, layer_prior=False, agent=small(random_interval=3))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    depths: list[list[int]] = []
    for _ in range(6):
        trial = study.ask()
        trial.suggest_float("rate", 0, 1)
        depths.append([])
        for layers in SPACE.grow(trial):
            depths[-1].append(len(layers))
            trial.report(accuracy_of(layers), step=len(layers) - 1)
        study.tell(trial, accuracy_of(layers))
    assert depths[2] == depths[5] == [1, 2, 3, 4]


def test_the_papers_agent_leaves_no_trial_to_chance():
    sampler = TRLHPOSampler.paper(seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for _ in range(6):
        grow(study, SPACE)
    assert [sampler.agent.courses.get(n) is None for n in range(6)] == [True] * 5 + [False]
    assert study.trials[4].system_attrs.keys() == study.trials[3].system_attrs.keys()


@pytest.mark.slow
def test_the_network_that_was_planned_is_trained(make_sampler):
    sampler = make_sampler()
    study = optuna.create_study(direction="maximize", sampler=sampler)
    first_depths = []
    for number in range(16):
        trained = grow(study, SPACE, seen=lambda trial: sampler.agent.courses[trial.number].plan)
        if number < 3:
            continue
        layers, plan = trained[0]
        assert len(layers) == len(plan.names) or len(layers) == SPACE.max_layers
        assert replay_of(sampler).has_value(plan.key) is False  # of all that was known then
        first_depths.append(len(layers))
        for deeper, later in trained[1:]:  # what is trained behind it is planned too
            assert len(deeper) == len(later.names) or len(deeper) == SPACE.max_layers
    assert max(first_depths) > 1  # there was something to skip
    assert len(study.trials[-1].params) > 0


def test_a_deeper_network_is_weighed_against_all_but_the_one_that_it_grows_from(make_sampler, monkeypatch):
    sampler, asked = make_sampler(n_startup_trials=8, layer_prior=False), []
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for _ in range(3):
        grow(study, SPACE)
    plan = type(sampler.agent.networks.planner).plan

    def noted(search, point, own, weights, rng, pending, running, *more):
        found = plan(search, point, own, weights, rng, pending, running, *more)
        asked.append((point, own, running, found))
        return found

    monkeypatch.setattr(type(sampler.agent.networks.planner), "plan", noted)
    trained = grow(study, SPACE, seen=lambda trial: asked.clear())  # what is left was asked behind the last
    (_, _, other, another), (grown, own, running, deeper) = asked
    assert running is None and other is not None and len(deeper.names) > grown.step == other.step > 0
    assert own[-1] == 0 or own[other.step - 1] == accuracy_of(trained[-1][0])
    step = other.step
    key = network_key(other.names[:step], other.indices[:step], other.actions[:step])
    assert another.key != key


@pytest.mark.slow
def test_a_trial_of_the_agents_is_replayed_as_it_was_played(make_sampler):
    study = optuna.create_study(direction="maximize", sampler=make_sampler())
    skipped = 0
    for _ in range(12):
        trained = [layers for layers, _ in grow(study, SPACE)]
        assert list(SPACE.grow(study.trials[-1])) == trained
        skipped += len(trained[-1]) - len(trained)
    assert skipped > 0


@pytest.mark.slow
@pytest.mark.parametrize("train_prefixes", ["all", 2])
def test_a_space_that_knows_what_to_train_does_not_ask(make_sampler, train_prefixes):
    study = optuna.create_study(direction="maximize", sampler=make_sampler())
    space = LayerSpace(
        max_layers=3,
        input_shape=(1, 8, 8),
        min_accuracy=None,
        min_improvement=None,
        train_prefixes=train_prefixes,
    )
    for _ in range(6):
        depths = [len(layers) for layers, _ in grow(study, space)]
        assert depths == ([1, 2, 3] if train_prefixes == "all" else [2, 3])


def test_the_papers_agent_has_every_prefix_trained():
    study = optuna.create_study(direction="maximize", sampler=TRLHPOSampler.paper(seed=0))
    for _ in range(6):
        assert [len(layers) for layers, _ in grow(study, SPACE)] == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_wrapper_around_the_sampler_fixes_a_parameter_and_nothing_else(make_sampler):
    sampler = optuna.samplers.PartialFixedSampler({"layer1_conv_kernel": 3}, make_sampler())
    study = optuna.create_study(direction="maximize", sampler=sampler)
    trained = [grow(study, SPACE) for _ in range(5)]
    assert all(networks[-1][0][0].kernel == 3 for networks in trained)
    assert sum(map(len, trained)) <= 7  # one network a trial, mostly, where all prefixes would be 20


@pytest.mark.slow
def test_an_enqueued_network_is_trained(make_sampler):
    """It is not what the agent planned; it is learned from like any."""
    sampler = make_sampler()
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for _ in range(6):
        grow(study, SPACE)
    wanted = SPACE.decode(
        np.array([[0, 0.1, 0.1, 0.1], [0.5, 0.1, 0.1, 0.1], [1, 0.1, 0.1, 0.1], [1, 0, 0, 0]])
    )
    study.enqueue_trial(SPACE.to_params(wanted))
    assert grow(study, SPACE)[-1][0] == wanted
    for _ in range(3):
        grow(study, SPACE)
    assert len(replay_of(sampler)) == 9


@pytest.mark.slow
def test_networks_of_layers_are_all_of_the_space(make_sampler):
    """A tight cap: the agent plans nothing that does not fit."""
    space = LayerSpace(
        max_layers=4, input_shape=(1, 8, 8), max_macs=6_000, min_accuracy=None, min_improvement=None
    )
    sampler = make_sampler()
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for _ in range(25):
        for layers, _ in grow(study, space):
            space.check(layers)
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
    assert len({str(trial.params) for trial in study.trials[3:]}) > 18


def test_a_space_that_has_shrunk_is_searched_on(make_sampler):
    """A study goes on with fewer layers: what was deeper is remembered, and not planned again."""
    sampler = make_sampler(n_startup_trials=14, layer_prior=False)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for _ in range(5):
        assert len(grow(study, SPACE)[-1][0]) == 4
    smaller = LayerSpace(max_layers=2, input_shape=(1, 8, 8), min_accuracy=None, min_improvement=None)
    for _ in range(4):
        assert len(grow(study, smaller)[-1][0]) <= 2


@pytest.mark.slow
def test_a_trial_without_reports_after_trials_with_reports(make_sampler):
    """Without stop rules nothing need be reported: what was tried is known by its value, and not repeated."""
    study, tried = optuna.create_study(direction="maximize", sampler=make_sampler()), []
    few = LayerSpace(  # 19 networks: five convolutions, and 7 x 2 layers that may stand behind one of them
        max_layers=2,
        input_shape=(1, 5, 5),
        num_classes=2,
        max_macs=250,
        min_accuracy=None,
        min_improvement=None,
    )
    for number in range(14):
        trial = study.ask()
        for layers in few.grow(trial):
            if number < 6:
                trial.report(few.macs(layers) / 250, step=len(layers) - 1)
        study.tell(trial, few.macs(layers) / 250)
        tried.append(layers)
    assert len(set(tried)) >= 13


@pytest.mark.slow
def test_the_space_of_another_study_is_forgotten(make_sampler):
    def flat(study):
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1) ** 2, n_trials=9)
        return [trial.params for trial in study.trials]

    used = make_sampler()
    study = optuna.create_study(direction="maximize", sampler=used)
    for _ in range(6):
        grow(study, SPACE)
    assert flat(optuna.create_study(sampler=used)) == flat(optuna.create_study(sampler=make_sampler()))


# Trials that run at the same time ------------------------------------------------------------------------


def play_two_by_two(study, suggest, value, n):
    """Two workers; what each pair of trials that ran together tried."""
    pairs = []
    for _ in range(n):
        trials = [study.ask(), study.ask()]
        tried = [suggest(trial) for trial in trials]
        pairs.append(tried)
        for trial, values in zip(trials, tried, strict=True):
            study.tell(trial, value(values))
    return pairs


def test_two_workers_do_not_try_the_same(make_sampler):
    def suggest(trial):
        return tuple(trial.suggest_int(name, 0, 2) for name in ("a", "b", "c"))

    study = optuna.create_study(sampler=make_sampler(n_startup_trials=6))
    pairs = play_two_by_two(study, suggest, lambda values: float(sum(values)), 11)
    assert all(one != other for one, other in pairs[3:])
    agents = [values for pair in pairs[3:] for values in pair]
    assert len(set(agents)) == len(agents) == 16  # nor what was tried before: there are 27


def test_two_threads_try_different_things(make_sampler):
    study = optuna.create_study(sampler=make_sampler(n_startup_trials=6))
    study.optimize(
        lambda trial: float(sum(trial.suggest_int(name, 0, 3) for name in ("a", "b"))), n_trials=14, n_jobs=2
    )
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
    agents = [tuple(trial.params.values()) for trial in study.trials[8:]]
    assert len(set(agents)) >= len(agents) - 1  # of 16


# What is found ------------------------------------------------------------------------------------------


def best_values(make, objective, n_trials, *, n_seeds=3, direction="minimize"):
    found = []
    for seed in range(n_seeds):
        study = optuna.create_study(sampler=make(seed), direction=direction)
        study.optimize(objective, n_trials=n_trials)
        found.append(study.best_value)
    return np.array(found)


@pytest.mark.slow
def test_a_smooth_function_is_found_sooner_than_by_others():
    def sphere(trial):
        return sum((trial.suggest_float(f"x{i}", 0, 1) - 0.2 - 0.1 * i) ** 2 for i in range(5))

    ours = best_values(lambda seed: TRLHPOSampler(seed=seed), sphere, 80)
    tpe = best_values(lambda seed: optuna.samplers.TPESampler(seed=seed), sphere, 80)
    chance = best_values(lambda seed: optuna.samplers.RandomSampler(seed=seed), sphere, 80)
    assert (ours < 0.01).all()
    assert ours.mean() < 0.5 * tpe.mean() < 0.5 * chance.mean()


@pytest.mark.slow
def test_choices_that_add_up_are_found():
    """Eight choices of three, 6,561 combinations: what each is worth can be told after a few dozen."""
    worth = np.random.default_rng(5).random((8, 3))

    def toy(trial):
        chosen = [trial.suggest_categorical(f"choice_{name}", [0, 1, 2]) for name in "abcdefgh"]
        return float(worth[np.arange(8), chosen].sum())

    found = best_values(lambda seed: TRLHPOSampler(seed=seed), toy, 60, direction="maximize")
    np.testing.assert_allclose(found, worth.max(axis=1).sum())


def test_a_choice_that_the_start_left_out_is_tried(make_sampler):
    study = optuna.create_study(direction="maximize", sampler=make_sampler())
    study.optimize(lambda trial: float(trial.suggest_categorical("choice", list(range(12)))), n_trials=14)
    assert {trial.params["choice"] for trial in study.trials} == set(range(12))


@pytest.mark.slow
@pytest.mark.parametrize("acquisition", ["expected_improvement", "thompson"])
def test_what_depends_on_a_choice_is_planned_with_it(acquisition):
    def objective(trial):
        if trial.suggest_categorical("kind", ["line", "bowl"]) == "line":
            return 1 + trial.suggest_float("slope", 0, 1)
        return (trial.suggest_float("x", 0, 1) - 0.3) ** 2 + (trial.suggest_float("y", 0, 1) - 0.8) ** 2

    sampler = TRLHPOSampler(seed=0, agent=AgentConfig(acquisition=acquisition))
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=40)
    assert study.best_value < 0.003
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)


@pytest.mark.slow
@pytest.mark.parametrize("acquisition", ["expected_improvement", "thompson"])
def test_two_runs_with_one_seed_are_equal(acquisition):
    def objective(trial):
        layers = trial.suggest_int("n_layers", 1, 3)
        units = [trial.suggest_int(f"units_{k}", 1, 64, log=True) for k in range(layers)]
        return float(sum(units)) * trial.suggest_float("rate", 1e-4, 1, log=True)

    runs = []
    for seed in (0, 0, 1):
        sampler = TRLHPOSampler(seed=seed, n_startup_trials=3, agent=AgentConfig(acquisition=acquisition))
        study = optuna.create_study(sampler=sampler)
        study.optimize(objective, n_trials=10)
        runs.append([trial.params for trial in study.trials])
    assert runs[0] == runs[1]
    assert all(one != other for one, other in zip(runs[0], runs[2], strict=True))
