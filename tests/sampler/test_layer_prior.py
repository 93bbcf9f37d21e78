"""The prior for layers in a study: who is planned for from the first trial on, and what is planned."""

import re
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from safetensors.torch import save_file

from optuna_trlhpo import AgentConfig, LayerSpace, TRLHPOSampler
from optuna_trlhpo.agent.layer_prior import EMBEDDING, LayerTransformer, load_priors
from optuna_trlhpo.agent.planner import Planner
from optuna_trlhpo.trials.outcome_transforms import OutcomeTransform
from tests.helpers import replay_of

AGENT = AgentConfig(n_candidates=40, n_generations=2, fit_steps=2, random_interval=0)
SPACE = LayerSpace(input_shape=(1, 12, 12), max_layers=3, min_accuracy=None, min_improvement=None)


class Independent(optuna.samplers.RandomSampler):
    """Notes what it is asked for."""

    def __init__(self):
        super().__init__(seed=0)
        self.asked = []

    def sample_independent(self, study, trial, param_name, param_distribution):
        self.asked.append((trial.number, param_name))
        return super().sample_independent(study, trial, param_name, param_distribution)

    @property
    def trials(self):
        return sorted({number for number, _ in self.asked})


def sampler_of(**arguments):
    defaults: dict[str, Any] = {"seed": 0, "agent": AGENT, "n_startup_trials": 3}
    return TRLHPOSampler(**(defaults | arguments))


def accuracy_of(layers):
    return 0.9 - 0.1 * float(SPACE.encode(layers)[:, 1:].mean())


def grow(trial):
    for layers in SPACE.grow(trial):
        trial.report(accuracy_of(layers), step=len(layers) - 1)
    return accuracy_of(layers)


def suggest(trial):
    return accuracy_of(SPACE.suggest(trial))


both_forms = pytest.mark.parametrize("objective", [grow, suggest])


def run(sampler, objective, n_trials, direction="maximize"):
    study = optuna.create_study(direction=direction, sampler=sampler)
    study.optimize(objective, n_trials=n_trials)
    return [trial.params for trial in study.trials]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A prior that has learned nothing, and is quite sure of what it expects."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        transformer = LayerTransformer()
    mean, deviation = 3 * torch.ones(EMBEDDING), 0.1 * torch.ones(EMBEDDING)
    path = tmp_path_factory.mktemp("prior") / "mine.safetensors"
    save_file(
        {**transformer.state_dict(), "mean": mean, "deviation": deviation, "unit": torch.tensor(0.5)}, path
    )
    return path


# Who is planned for -----------------------------------------------------------------------------------


@both_forms
def test_the_first_trial_is_planned(objective, caplog):
    independent = Independent()
    sampler = sampler_of(independent_sampler=independent)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    optuna.logging.enable_propagation()
    try:
        run(sampler, objective, 2)
    finally:
        optuna.logging.disable_propagation()
    assert not independent.asked and "sampled independently" not in caplog.text


@both_forms
def test_without_a_prior_trials_begin_at_random(objective):
    independent = Independent()
    trials = run(sampler_of(layer_prior=False, independent_sampler=independent), objective, 5)
    n = 2 if objective is grow else 3  # whose reports tell as much
    assert independent.trials == list(range(n))
    asked = {pair for pair in independent.asked if "_kind" not in pair[1]}  # of kinds there may be one alone
    names = {(number, name) for number, params in enumerate(trials[:n]) for name in params}
    assert asked == {pair for pair in names if "_kind" not in pair[1]}


def test_where_there_are_no_layers_trials_begin_at_random():
    independent = Independent()
    run(sampler_of(independent_sampler=independent), lambda trial: trial.suggest_float("x", 0, 1), 5)
    assert independent.trials == [0, 1, 2]


@pytest.mark.slow
@both_forms
def test_what_stands_before_the_layers_begins_at_random(objective):
    independent = Independent()
    run(
        sampler_of(independent_sampler=independent),
        lambda trial: trial.suggest_float("rate", 0, 1) + objective(trial),
        5,
    )
    assert independent.asked == [(number, "rate") for number in range(3)]


@pytest.mark.slow
def test_layers_behind_another_parameter_are_planned_in_their_space(monkeypatch):
    planned: list[list[Any]] = []
    plan = Planner.plan

    def noted(search, *arguments):
        planned[-1].append(search.knowledge.context)
        return plan(search, *arguments)

    def behind(trial):
        planned.append([])
        return trial.suggest_float("rate", 0, 1) + suggest(trial)

    monkeypatch.setattr(Planner, "plan", noted)
    run(sampler_of(), behind, 6)
    assert all(spaces[-1] is not None for spaces in planned)


def test_what_stands_behind_the_layers_begins_at_random():
    independent = Independent()
    run(
        sampler_of(independent_sampler=independent),
        lambda trial: suggest(trial) + trial.suggest_float("rate", 0, 1),
        3,
    )
    assert independent.asked == [(0, "rate")]


def test_of_several_objectives_it_knows_nothing():
    independent = Independent()
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=sampler_of(independent_sampler=independent)
    )

    def objective(trial):
        layers = SPACE.suggest(trial)
        return accuracy_of(layers), SPACE.macs(layers)

    study.optimize(objective, n_trials=3)
    assert {number for number, _ in independent.asked} == {0, 1, 2}


def test_the_papers_agent_knows_nothing_of_it():
    independent = Independent()
    sampler = TRLHPOSampler.paper(seed=0, independent_sampler=independent)
    run(sampler, grow, 2)
    assert not sampler.settings["layer_prior"] and independent.trials[0] == 0
    for sampler in (TRLHPOSampler.paper(agent=AGENT), TRLHPOSampler(agent=AgentConfig.paper())):
        assert not sampler.settings["layer_prior"]


# What is planned --------------------------------------------------------------------------------------


def expected(layers, path):
    prior = load_priors(path)[0]
    features = SPACE.layer_features(SPACE.encode(layers))
    assert features is not None
    return float((prior([features]) @ prior.means)[0])


@pytest.mark.slow
@both_forms
def test_the_first_network_is_one_of_which_much_is_expected(objective, file):
    rng = np.random.default_rng(0)
    chance = np.array([expected(SPACE.draw(rng), file) for _ in range(200)])
    firsts = [SPACE.from_params(run(sampler_of(seed=s, layer_prior=file), objective, 1)[0]) for s in range(3)]
    assert all(expected(layers, file) > np.quantile(chance, 0.97) for layers in firsts)
    assert len(set(firsts)) == 3  # and not for all the same


@pytest.mark.slow
@both_forms
def test_errors_and_accuracies_are_the_same_to_it(objective):
    def error(trial):
        if objective is suggest:
            return 1 - suggest(trial)
        for layers in SPACE.grow(trial):
            trial.report(1 - accuracy_of(layers), step=len(layers) - 1)
        return 1 - accuracy_of(layers)

    assert run(sampler_of(), objective, 4) == run(sampler_of(), error, 4, direction="minimize")


def test_a_file_of_ones_own(file):
    mine, same, theirs = (run(sampler_of(layer_prior=prior), suggest, 2) for prior in (file, str(file), True))
    assert mine == same != theirs


@pytest.mark.slow
def test_every_network_is_of_the_space(file):
    space = LayerSpace(
        input_shape=(1, 8, 8), max_layers=4, max_macs=6_000, min_accuracy=None, min_improvement=None
    )

    def objective(trial):
        layers = space.suggest(trial)
        space.check(layers)
        assert len(layers) == trial.params["n_layers"]
        return 0.5

    assert len({str(params) for params in run(sampler_of(layer_prior=file), objective, 5)}) == 5


def test_its_unit_is_that_of_scores_where_there_are_layers(file):
    def in_space(trial):
        return suggest(trial) if trial.number < 3 else SPACE.suggest(trial) and 0.0

    def in_none(trial):
        return trial.suggest_float("x", 0, 1)

    for objective, unit in ((in_space, 0.5), (in_none, None)):
        sampler = sampler_of(layer_prior=file, n_startup_trials=1)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.optimize(objective, n_trials=4)
        values = np.array([trial.value for trial in study.trials[:3]])  # what was known at the last trial
        scores = (
            replay_of(sampler).scores
            if objective is in_space
            else sampler.agent.configurations.search.memory.scores
        )
        assert scores.unit == pytest.approx(OutcomeTransform(values, unit).unit)
        assert OutcomeTransform(values, 0.5).unit != pytest.approx(OutcomeTransform(values).unit)


@pytest.mark.slow
def test_that_reports_are_values_is_found_out():
    """Else no trial ever grows on after its first report."""
    sampler = sampler_of()
    run(sampler, grow, 6)
    assert replay_of(sampler).reports_are_values


# What is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [None, 1, 0.5, ["file"], b"file"], ids=repr)
def test_what_is_no_prior(wrong):
    sentence = f"layer_prior is {wrong!r}; it must be True, False or the path of a file"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        TRLHPOSampler(layer_prior=wrong)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.safetensors"):
        TRLHPOSampler(layer_prior=tmp_path / "nowhere.safetensors")
