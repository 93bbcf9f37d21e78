"""Parts of the agent that can be exchanged or left out: each runs to the end, and is of consequence."""

import statistics
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from optuna_trlhpo import AgentConfig, LayerSpace, TRLHPOSampler
from optuna_trlhpo.agent.ensemble import Ensemble
from optuna_trlhpo.agent.gaussian_process import GaussianProcess
from optuna_trlhpo.agent.surrogate import make_surrogate
from optuna_trlhpo.trials.attributes import MARKS_ATTRIBUTE
from tests.helpers import agent_note_of, agent_with, replay_of, value_of

SMALL: dict[str, Any] = dict(n_candidates=20, fit_steps=2, random_interval=0)


def agent_of(critic="posterior", **settings):
    return agent_with(
        critic,
        of_ensembles=dict(n_critics=2),
        of_transformers=dict(width=8, heads=2, blocks=1, expansion=1),
        **(SMALL | settings),
    )


SPACE = LayerSpace(input_shape=(1, 8, 8), max_layers=3, min_accuracy=None, min_improvement=None)
SWITCHES = [
    dict(critic="perceptron"),
    dict(critic="transformer"),
    dict(targets="rank"),
    dict(mutations=False),
    dict(read_reports=False),
    dict(acquisition="thompson"),
    dict(critic="transformer", targets="rank", mutations=False, read_reports=False),
]


def objective(trial):
    for layers in SPACE.grow(trial):
        value = 0.9 - 0.3 * float(SPACE.encode(layers)[:, 1:].mean()) + 0.02 * len(layers)
        trial.report(value, step=len(layers) - 1)
    return value


def play(n_trials=7, **settings):
    agent = agent_of(**settings)
    sampler = TRLHPOSampler(seed=0, n_startup_trials=8, agent=agent, layer_prior=False)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=n_trials)
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
    return study


@pytest.fixture(scope="module")
def default():
    return [trial.params for trial in play().trials]


@pytest.mark.slow
@pytest.mark.parametrize("settings", SWITCHES, ids=str)
def test_a_switch_is_of_consequence(settings, default):
    found = [trial.params for trial in play(**settings).trials]
    assert found[:4] == default[:4]  # the start is the same
    assert found[4:] != default[4:]
    assert found == [trial.params for trial in play(**settings).trials]


@pytest.mark.parametrize("read_reports", [True, False])
def test_reports_that_are_not_read_leave_no_note(read_reports):
    study = play(5, read_reports=read_reports)
    noted = [MARKS_ATTRIBUTE in trial.system_attrs for trial in study.trials]
    assert any(noted) == read_reports
    assert all(len(trial.intermediate_values) > 1 for trial in study.trials[:4])  # there was something
    outcomes = replay_of(study.sampler).rows(np.arange(4), "outcomes")["outcomes"]
    assert (outcomes[:, 0, 0] == outcomes[:, 0, 0]).any() == read_reports  # of the first layers


def test_the_critic_is_the_one_that_is_named():
    assert isinstance(make_surrogate(AgentConfig(), 0), GaussianProcess)
    for body in ("perceptron", "transformer"):
        critic = make_surrogate(AgentConfig(critic=body), 0)
        assert isinstance(critic, Ensemble)
        assert type(critic.body).__name__.lower().count(body) == 1


@pytest.mark.slow
@pytest.mark.parametrize("critic", ["perceptron", "transformer"])
def test_another_critic_takes_what_is_expected(critic):
    """With a prior for layers and an earlier study it plans from the first trial on, and by what they say."""
    earlier = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    earlier.optimize(objective, n_trials=20)
    opposite = optuna.create_study(direction="minimize")
    opposite.add_trials(earlier.trials)
    firsts = []
    for source in (opposite, earlier):
        sampler = TRLHPOSampler(seed=0, agent=agent_of(critic), warm_start=[source])
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.optimize(objective, n_trials=1)
        assert agent_note_of(study.trials[0]).by == critic
        firsts.append(study.best_value)
    values = [value_of(trial) for trial in earlier.trials]
    middle, spread = statistics.fmean(values), statistics.stdev(values)
    assert firsts[0] < middle - spread and middle + spread < firsts[1]
