"""Arguments, the independent sampler, and its warning."""

import inspect
import re
from dataclasses import asdict
from typing import Any

import optuna
import pytest

from optuna_trlhpo import AgentConfig, LayerSpace, TRLHPOSampler


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"seed": -1}, "seed is -1; it must be an integer of at least 0, or None"),
        ({"seed": 0.5}, "seed is 0.5; it must be an integer"),
        ({"n_startup_trials": -3}, "n_startup_trials is -3; it must be an integer of at least 0"),
        ({"n_exploration_trials": "many"}, "n_exploration_trials is 'many'; it must be an integer"),
        (
            {"independent_sampler": "tpe"},
            "independent_sampler is 'tpe'; it must be an Optuna sampler, or None",
        ),
        ({"agent": {"width": 64}}, "agent is {'width': 64}; it must be an AgentConfig"),
    ],
)
def test_bad_arguments_are_named(arguments, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        TRLHPOSampler(**arguments)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        TRLHPOSampler.paper(**arguments)


def test_the_paper_is_the_same_machine_in_another_configuration():
    papers, default = asdict(AgentConfig.paper()), asdict(AgentConfig())
    differing = {name: value for name, value in papers.items() if value != default[name]}
    assert TRLHPOSampler.paper().settings["agent"] == differing != {}
    assert TRLHPOSampler().settings["agent"] == {}


class _Counting(optuna.samplers.RandomSampler):
    def __init__(self):
        super().__init__(seed=0)
        self.asked, self.reseeded, self.finished = [], 0, 0

    def sample_independent(self, study, trial, param_name, param_distribution):
        self.asked.append((trial.number, param_name))
        return super().sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self):
        self.reseeded += 1
        super().reseed_rng()

    def after_trial(self, study, trial, state, values):
        self.finished += 1
        super().after_trial(study, trial, state, values)


def test_the_independent_sampler_plays_the_start_and_what_is_new(make_sampler):
    independent = _Counting()
    study = optuna.create_study(sampler=make_sampler(independent_sampler=independent))

    def objective(trial):
        value = trial.suggest_float("x", 0, 1)
        if trial.number >= 5:
            value += trial.suggest_float("new", 0, 1)
        return value

    study.optimize(objective, n_trials=7)
    assert independent.asked == [(0, "x"), (1, "x"), (2, "x"), (5, "new")]
    assert independent.finished == 7
    study.sampler.reseed_rng()
    assert independent.reseeded == 1


@pytest.mark.parametrize("warn", [True, False])
def test_the_warning(make_sampler, warn, caplog):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    optuna.logging.enable_propagation()
    try:
        study = optuna.create_study(sampler=make_sampler(warn_independent_sampling=warn))
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=4)
        assert "sampled independently" not in caplog.text  # the start is not worth a warning
        study.optimize(lambda trial: trial.suggest_float("another", 0, 1), n_trials=1)
    finally:
        optuna.logging.disable_propagation()
    assert ("'another' in trial#4 is sampled independently" in caplog.text) == warn


@pytest.mark.parametrize("make", [TRLHPOSampler, TRLHPOSampler.paper])
def test_a_new_kind_of_layer_is_not_worth_a_warning(make, caplog):
    space = LayerSpace(max_layers=3, min_accuracy=None, min_improvement=None)

    def objective(trial):
        for layers in space.grow(trial):
            trial.report(0.1 * len(layers), step=len(layers) - 1)
        return 0.1 * len(layers)

    optuna.logging.enable_propagation()
    try:
        optuna.create_study(direction="maximize", sampler=make(seed=0)).optimize(objective, n_trials=5)
    finally:
        optuna.logging.disable_propagation()
    assert "sampled independently" not in caplog.text


def test_learning_never_raises_where_catch_does_not_help(make_sampler, monkeypatch):
    sampler = make_sampler(n_startup_trials=2)
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=4)

    def broken(*arguments, **settings):
        raise RuntimeError("broken")

    monkeypatch.setattr(sampler.agent.configurations.search, "plan", broken)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1, catch=(RuntimeError,))
    assert study.trials[-1].state == optuna.trial.TrialState.FAIL


# Arguments of other samplers ------------------------------------------------------------------------------

OURS = (
    "seed, n_startup_trials, n_exploration_trials, agent, independent_sampler, warm_start, layer_prior, "
    "repeat, time_budget, warn_independent_sampling"
)
SAMPLERS = [getattr(optuna.samplers, name) for name in optuna.samplers.__all__ if name.endswith("Sampler")]
THEIRS = {name for sampler in SAMPLERS for name in inspect.signature(sampler).parameters} - {"args", "kwargs"}


@pytest.mark.parametrize("name", sorted(THEIRS - set(OURS.split(", "))))
def test_what_only_others_have_is_named_and_so_is_what_there_is(name):
    unknown: dict[str, Any] = {name: None}
    said = f"has no argument '{name}'.*; its arguments are"
    with pytest.raises(TypeError, match=f"^TRLHPOSampler {said} {OURS}$"):
        TRLHPOSampler(**unknown)
    with pytest.raises(TypeError, match=f"^TRLHPOSampler.paper {said} seed, "):
        TRLHPOSampler.paper(**unknown)


def test_what_others_have_too_is_taken():
    assert THEIRS & set(OURS.split(", ")) == {
        *("seed", "n_startup_trials", "independent_sampler", "warn_independent_sampling")
    }
    TRLHPOSampler(seed=0, n_startup_trials=10, independent_sampler=None, warn_independent_sampling=False)


@pytest.mark.parametrize(
    ("argument", "instead"),
    [
        (
            "constraints_func",
            "the objective calls trial.set_constraint(name, value), which the sampler reads",
        ),
        ("n_ei_candidates", "pass agent=AgentConfig(n_candidates=...)"),
        ("source_trials", "pass warm_start=[study, ...]"),
        ("constant_liar", "it always considers the running trials"),
        ("multivariate", "it always considers parameters together"),
        ("group", "it always considers parameters together"),
        ("gamma", None),
        ("sead", None),
    ],
)
def test_what_to_do_instead(argument, instead):
    unknown: dict[str, Any] = {argument: 1}
    what = "" if instead is None else f": {instead}"
    sentence = f"TRLHPOSampler has no argument '{argument}'{what}; its arguments are {OURS}"
    with pytest.raises(TypeError, match=f"^{re.escape(sentence)}$"):
        TRLHPOSampler(**unknown)


def test_an_argument_without_a_name():
    sentence = f"TRLHPOSampler takes keyword arguments only, but got 7; its arguments are {OURS}"
    with pytest.raises(TypeError, match=f"^{re.escape(sentence)}$"):
        TRLHPOSampler(7)  # type: ignore[call-arg]


def test_a_subclass_hands_its_arguments_on():
    class Mine(TRLHPOSampler):
        def __init__(self, mine, **others):
            super().__init__(**others)

    assert Mine(1, seed=3).settings["seed"] == 3
    with pytest.raises(TypeError, match="^TRLHPOSampler has no argument 'gamma'"):
        Mine(1, gamma=0.1)


def test_the_signature_is_that_of_the_sampler():
    assert list(inspect.signature(TRLHPOSampler).parameters) == OURS.split(", ")
