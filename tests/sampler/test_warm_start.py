"""What is learned from earlier studies: how much it helps, how little it may harm, what they may lack."""

import pickle
import re
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import TrialState

from optuna_trlhpo import AgentConfig, LayerSpace, TRLHPOSampler
from optuna_trlhpo.agent.name_table import NameTable
from optuna_trlhpo.agent.transfer import NetworkSource
from optuna_trlhpo.trials.earlier_study import EarlierStudy

AGENT = AgentConfig(n_candidates=40, n_generations=2, fit_steps=2)


def bowl(trial):
    """0 at (0.3, 0.8), the best there is; at random -0.26 in the mean, and one in 20 above -0.016."""
    return -((trial.suggest_float("x", 0, 1) - 0.3) ** 2) - (trial.suggest_float("y", 0, 1) - 0.8) ** 2


def at_random(objective, n_trials=25, direction="maximize", **more):
    """An earlier study."""
    directions = more or {"direction": direction}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), **directions)
    study.optimize(objective, n_trials=n_trials)
    return study


def sampler_of(*sources, **arguments):
    """Without trials at random, of which a warm start has some."""
    defaults: dict[str, Any] = {"seed": 0, "agent": AGENT, "warm_start": sources, "n_startup_trials": 0}
    return TRLHPOSampler(**(defaults | arguments))


def run(sampler, objective, n_trials, direction="maximize"):
    study = optuna.create_study(direction=direction, sampler=sampler)
    study.optimize(objective, n_trials=n_trials)
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
    return study


def params(study):
    return [trial.params for trial in study.trials]


class Independent(optuna.samplers.RandomSampler):
    """Notes what it is asked for."""

    def __init__(self):
        super().__init__(seed=0)
        self.asked = []

    def sample_independent(self, study, trial, param_name, param_distribution):
        self.asked.append((trial.number, param_name))
        return super().sample_independent(study, trial, param_name, param_distribution)


# What it is worth -------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_first_trial_is_better_than_chance(direction):
    """Whatever the directions of the two studies are: what was good there is aimed at here."""
    source = at_random(lambda trial: -bowl(trial), direction="minimize")
    assert source.best_value > 0.001
    sign = 1 if direction == "maximize" else -1
    firsts = [
        run(sampler_of(source, seed=seed), lambda trial: sign * bowl(trial), 1, direction).best_value
        for seed in range(4)
    ]
    assert (np.array(firsts) * sign > -0.016).all()


def test_so_is_the_second():
    source = at_random(bowl)
    seconds = [run(sampler_of(source, seed=seed), bowl, 2).trials[1].value for seed in range(3)]
    assert min(seconds) > -0.016


def test_a_misleading_study_does_not_hide_the_optimum():
    """What is best here was worst there. At random one study of 13 comes as near in 25 trials."""
    source = at_random(lambda trial: -bowl(trial))
    found = [run(sampler_of(source, seed=seed), bowl, 25) for seed in range(2)]
    assert all(study.trials[0].value < -0.3 for study in found)  # it did mislead
    assert all(study.best_value > -0.001 for study in found)


@pytest.mark.parametrize(("n_startup", "random_ones"), [(6, [1, 3, 5]), (8, [1, 3, 5, 7]), (0, [])])
def test_of_the_startup_every_second_trial_is_random_for_a_source_may_mislead(n_startup, random_ones):
    independent = Independent()
    run(sampler_of(at_random(bowl), n_startup_trials=n_startup, independent_sampler=independent), bowl, 12)
    assert sorted({number for number, _ in independent.asked}) == random_ones


def test_the_best_of_a_study_are_candidates_as_they_are():
    """With a single variation it is one of them that is tried first."""
    source = at_random(bowl)
    study = run(sampler_of(source, agent=AgentConfig(n_candidates=1, n_generations=1)), bowl, 1)
    best = sorted(source.trials, key=lambda trial: -trial.value)[:10]
    assert study.trials[0].params in [trial.params for trial in best]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_of_many_trials_the_best_are_kept(direction):
    study = at_random(lambda trial: trial.suggest_float("x", 0, 1), 130, direction)
    source = NetworkSource(AGENT, EarlierStudy(study), study.directions, 0, NameTable())
    values = sorted((trial.params["x"] for trial in study.trials), reverse=direction == "maximize")
    assert len(source.networks.names) == 130
    assert source.best.actions[:, 0, 0].tolist() == pytest.approx(values[:100])


def test_two_studies_are_heard():
    """Each knows one of the two parameters."""

    def of_x(trial):
        return -((trial.suggest_float("x", 0, 1) - 0.3) ** 2) - 0 * trial.suggest_float("y", 0, 1)

    def of_y(trial):
        return -((trial.suggest_float("y", 0, 1) - 0.8) ** 2) - 0 * trial.suggest_float("x", 0, 1)

    sources = at_random(of_x), at_random(of_y)
    firsts = [run(sampler_of(*sources, seed=seed), bowl, 1).best_value for seed in range(3)]
    assert np.mean(firsts) > -0.03


def test_several_objectives():
    def two(trial):
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        return x + y**2, 1 - x + y**2  # the front is y = 0

    directions = [StudyDirection.MINIMIZE] * 2
    source, firsts = at_random(two, directions=directions), []
    for seed in range(3):
        study = optuna.create_study(directions=directions, sampler=sampler_of(source, seed=seed))
        study.optimize(two, n_trials=1)
        firsts.append(study.trials[0].params["y"])
    assert np.mean(firsts) < 0.25


# When it is read --------------------------------------------------------------------------------------


def test_studies_are_read_once():
    """What is added to them later changes nothing, be it while the sampler waits or while it runs."""
    source = at_random(bowl, 12)
    expected = params(run(sampler_of(source), bowl, 6))
    sampler = sampler_of(source)
    source.optimize(lambda trial: 100 - bowl(trial), n_trials=12)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(bowl, n_trials=3)
    source.optimize(lambda trial: 100 - bowl(trial), n_trials=12)
    study.optimize(bowl, n_trials=3)
    assert params(study) == expected
    assert params(run(sampler_of(source), bowl, 6)) != expected  # a sampler that is made now has read them


def test_equal_seeds_equal_runs():
    source = at_random(bowl, 12)
    runs = [params(run(sampler_of(source, seed=seed), bowl, 6)) for seed in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert all(one != other for one, other in zip(runs[0], runs[2], strict=True))


def test_a_pickled_sampler_goes_on_as_the_uninterrupted_one():
    source = at_random(bowl, 12)
    expected = params(run(sampler_of(source), bowl, 6))
    study = optuna.create_study(direction="maximize", sampler=pickle.loads(pickle.dumps(sampler_of(source))))
    study.optimize(bowl, n_trials=3)
    study.sampler = pickle.loads(pickle.dumps(study.sampler))
    study.optimize(bowl, n_trials=3)
    assert params(study) == expected


def test_another_study_begins_with_the_same_sources():
    source = at_random(bowl, 12)
    sampler = sampler_of(source)
    assert params(run(sampler, bowl, 4)) == params(run(sampler, bowl, 4))


# Studies that are not alike ------------------------------------------------------------------------------


def conditional(trial):
    if trial.suggest_categorical("kind", ["line", "bowl"]) == "line":
        return -1 - trial.suggest_float("slope", 0, 1)
    return bowl(trial)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("earlier", "now"),
    [(conditional, bowl), (bowl, conditional), (conditional, conditional)],
    ids=["parameters it lacks", "parameters the source lacks", "the same"],
)
def test_conditional_parameters(earlier, now):
    source = at_random(earlier, 30)
    studies = [run(sampler_of(source, seed=seed), now, 4) for seed in range(3)]
    # At random one pair of trials in three comes so near, and one in six where there is a kind to choose.
    assert all(max(trial.value for trial in study.trials[:2]) > -0.05 for study in studies)


def test_what_the_source_lacks_is_sampled_independently_at_first():
    independent = Independent()

    def more(trial):
        return bowl(trial) + trial.suggest_float("new", 0, 1)

    study = run(sampler_of(at_random(bowl), independent_sampler=independent), more, 3)
    assert independent.asked == [(0, "new")]
    assert bowl(optuna.trial.FixedTrial(study.trials[0].params)) > -0.05


@pytest.mark.parametrize("known", ["x", "z"])
def test_what_the_source_has_another_parameter_for_is_sampled_independently(known):
    independent = Independent()
    source = at_random(bowl)
    run(
        sampler_of(source, independent_sampler=independent),
        lambda trial: trial.suggest_float(known, 0, 1) + trial.suggest_float("new", 0, 1),
        2,
    )
    assert independent.asked == [(0, name) for name in (known, "new") if name != "x"]


def test_a_step_that_has_more_parameters_than_in_the_source():
    def more(trial):
        return trial.suggest_float("units_l0", 0, 1) + trial.suggest_float("rate_l0", 0, 1)

    source, independent = at_random(lambda trial: trial.suggest_float("units_l0", 0, 1)), Independent()
    study = run(sampler_of(source, independent_sampler=independent), more, 3)
    assert independent.asked == [(0, "rate_l0")]  # the one that is new, and only once
    assert study.trials[0].params["units_l0"] > 0.95  # there was more for more of it


def test_a_study_of_other_parameters_is_of_no_consequence():
    found = []
    for a in (1, -1):
        source = at_random(lambda t, a=a: a * t.suggest_float("a", 0, 1) - t.suggest_float("b", 0, 1))
        found.append(run(sampler_of(source), lambda trial: -((trial.suggest_int("z", 0, 20) - 7) ** 2), 15))
    assert params(found[0]) == params(found[1])
    assert found[0].best_value == 0 and len({trial.params["z"] for trial in found[0].trials}) == 15


def test_pruned_and_failed_trials_of_a_source():
    def partly(trial):
        value = bowl(trial)
        if trial.number % 3 == 0:
            raise RuntimeError
        if trial.number % 3 == 1:
            trial.report(value, step=0)
            raise optuna.TrialPruned
        return value

    source = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    source.optimize(partly, n_trials=45, catch=RuntimeError)
    assert len(EarlierStudy(source).trials) == 30
    assert run(sampler_of(source), bowl, 1).best_value > -0.05


# Layers -----------------------------------------------------------------------------------------------

RULES: dict[str, Any] = dict(max_layers=3, min_accuracy=None, min_improvement=None)
SMALL, LARGE = LayerSpace(input_shape=(1, 8, 8), **RULES), LayerSpace(input_shape=(3, 20, 20), **RULES)


def grown(space, *, whole=False):
    """Better with fewer filters in the first layer, and with three layers; what is played is valid."""

    def value(layers):
        return 0.9 - 0.004 * layers[0].filters - 0.05 * (3 - len(layers))

    def objective(trial):
        if whole:
            layers = space.suggest(trial)
            space.check(layers)
            return value(layers)
        for layers in space.grow(trial):
            space.check(layers)
            trial.report(value(layers), step=len(layers) - 1)
        return value(layers)

    return objective


@pytest.mark.slow
@pytest.mark.parametrize("layer_prior", [False, True])
@pytest.mark.parametrize("whole", [False, True], ids=["grow", "suggest"])
@pytest.mark.parametrize(("earlier", "now"), [(SMALL, LARGE), (LARGE, SMALL)], ids=["larger", "smaller"])
def test_layers_on_images_of_another_size(earlier, now, whole, layer_prior):
    source = at_random(grown(earlier, whole=whole))
    independent = Independent()
    sampler = sampler_of(source, layer_prior=layer_prior, independent_sampler=independent)
    study = run(sampler, grown(now, whole=whole), 3)
    assert not independent.asked
    if not layer_prior:  # else there are two that may disagree
        assert study.trials[0].params["layer1_conv_filters"] <= 32 and study.trials[0].value > 0.7


@pytest.mark.parametrize("layer_prior", [False, True])
def test_layers_after_a_study_without_layers(layer_prior):
    """It tells no network from another: what was good there does not decide which is tried first."""
    independent = Independent()
    sampler = sampler_of(at_random(conditional), layer_prior=layer_prior, independent_sampler=independent)
    run(sampler, grown(SMALL), 2)
    assert not independent.asked  # networks of the space are imagined, so the first trial is planned
    knowledge = sampler.agent.networks.knowledge
    assert len(knowledge.space_samples.names) > 100
    assert knowledge.sources[0].expect(knowledge.space_samples).std() < 1e-6


def test_sources_are_learned_once(monkeypatch):
    learned = []
    learn = NetworkSource.learn

    def noting(source, *arguments):
        learned.append(source)
        return learn(source, *arguments)

    monkeypatch.setattr(NetworkSource, "learn", noting)

    def objective(trial):
        trial.suggest_float("rate", 0, 1)
        return grown(SMALL)(trial)

    run(sampler_of(at_random(objective, 8), at_random(bowl, 9)), objective, 4)
    assert [len(source.networks.names) for source in learned] == [8, 9]


@pytest.mark.slow
def test_the_papers_agent_begins_with_what_an_earlier_study_taught_it():
    """Its first trial is not uniform, and its first trials are better than an untrained agent's."""

    def rising(trial):
        score = 0.0
        for layers in SMALL.grow(trial):
            score += float(SMALL.encode(layers)[-1].mean()) / SMALL.max_layers
            trial.report(score, step=len(layers) - 1)
        return score

    earlier = optuna.create_study(direction="maximize", sampler=TRLHPOSampler.paper(seed=1))
    earlier.optimize(rising, n_trials=150)
    means = []
    for warm_start in ([], [earlier]):
        independent = Independent()
        sampler = TRLHPOSampler.paper(
            seed=0, n_exploration_trials=0, warm_start=warm_start, independent_sampler=independent
        )
        study = run(sampler, rising, 8)
        assert bool(independent.asked) == (not warm_start)
        means.append(np.mean([trial.value for trial in study.trials[1:]]))
    assert means[1] > means[0] + 0.05


# What is refused --------------------------------------------------------------------------------------


def test_a_study_without_a_finished_trial_is_named():
    empty = optuna.create_study(study_name="nothing yet")
    failed = optuna.create_study(study_name="all failed")
    failed.optimize(lambda trial: 1 / 0, n_trials=2, catch=ZeroDivisionError)
    without = at_random(lambda trial: 0.5, 3)  # finished, and without a parameter
    for study in (empty, failed, without):
        sentence = f"warm_start: the study {study.study_name!r} has no finished trial to learn from"
        with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
            sampler_of(at_random(bowl, 3), study)


def test_what_is_no_list_of_studies():
    study = at_random(bowl, 3)
    mistakes: list[Any] = [study, ["study"], [study, None], "study"]
    for wrong in mistakes:
        sentence = f"warm_start is {wrong!r}; it must be a list of studies"
        with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
            TRLHPOSampler(warm_start=wrong)


@pytest.mark.parametrize("wrong", [None, 5])
def test_what_is_no_list_at_all(wrong):
    with pytest.raises(ValueError, match="^warm_start is .*; it must be a list of studies$"):
        TRLHPOSampler(warm_start=wrong)


def test_a_generator_of_studies_is_read():
    sampler = TRLHPOSampler(warm_start=(study for study in [at_random(bowl, 3)]))
    assert len(sampler.settings["warm_start"]) == 1


@pytest.mark.parametrize("n_trials", [1, 2])
def test_a_study_with_another_number_of_objectives_is_named(n_trials):
    """Every trial fails for it, not the first alone: afterwards nothing is half begun."""
    source = at_random(lambda trial: (bowl(trial), 1.0), directions=["maximize", "minimize"])
    study = optuna.create_study(direction="maximize", sampler=sampler_of(source))
    sentence = (
        f"warm_start: the number of objectives of study {source.study_name!r} is 2; it must equal that of "
        "the optimised study, 1"
    )
    for _ in range(n_trials):
        with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
            study.optimize(bowl, n_trials=1)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL] * n_trials


def test_one_objective_is_too_few_for_two():
    study = optuna.create_study(directions=["maximize"] * 2, sampler=sampler_of(at_random(bowl, 3)))
    with pytest.raises(ValueError, match="is 1; it must equal that of the optimised study, 2$"):
        study.optimize(lambda trial: (bowl(trial), 0.0), n_trials=1)
