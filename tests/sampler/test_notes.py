"""The sampler notes what its agent made of a trial; the note changes nothing, and never breaks anything."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.study import StudyDirection

from optuna_trlhpo import AgentConfig, LayerSpace, TRLHPOSampler, sampler
from optuna_trlhpo.trials import study_reader
from optuna_trlhpo.trials.agent_record import (
    AGENT_ATTRIBUTE,
    CHANCE,
    INCUMBENT_NEIGHBOUR,
    MOST_CHARACTERS,
    read_agent,
)
from optuna_trlhpo.trials.attributes import SAMPLER_ATTRIBUTE, read_from_study
from tests.helpers import agent_note_of, agent_with, value_of

SPACE = LayerSpace(max_layers=4, min_accuracy=None, min_improvement=None)
SMALL: dict[str, Any] = dict(width=16, heads=2, blocks=2)


def objective(trial):
    value = 0.0
    for layers in SPACE.grow(trial):
        value = 0.5 + 0.1 * len(layers) * float(SPACE.encode(layers).mean())
        trial.report(value, step=len(layers) - 1)
    return value


def make(agent):
    if agent == "paper":
        return TRLHPOSampler.paper(seed=0, agent=AgentConfig.paper(**SMALL), warn_independent_sampling=False)
    config = agent_with(
        agent,
        of_ensembles=dict(n_critics=3),
        of_transformers=SMALL,
        n_candidates=10,
        fit_steps=1,
        random_interval=0,
    )
    return TRLHPOSampler(seed=0, n_startup_trials=2, agent=config, layer_prior=False)


def run(agent, n=8, **create):
    study = optuna.create_study(**({"direction": "maximize", "sampler": make(agent)} | create))
    study.optimize(objective, n_trials=n)
    return study


AGENTS = ["paper", "posterior", "transformer", "perceptron"]


@pytest.fixture(scope="module")
def studies():
    return {agent: run(agent) for agent in AGENTS}


@pytest.mark.slow
@pytest.mark.parametrize("agent", AGENTS)
def test_what_the_agent_decided_has_a_small_note(studies, agent):
    trials = studies[agent].trials
    notes = [trial.system_attrs.get(AGENT_ATTRIBUTE) for trial in trials]
    first = next(k for k, note in enumerate(notes) if note is not None)
    assert 0 < first <= 2 and None not in notes[first:]  # at first chance decides
    assert all(len(json.dumps(note)) <= MOST_CHARACTERS for note in notes[first:])
    assert {note["by"] for note in notes[first:]} == {"actor" if agent == "paper" else agent}


def test_the_papers_agent_attends_to_what_is_there_alone(studies):
    for trial in studies["paper"].trials:
        note = read_agent(trial)
        if note is None:
            continue
        S = len(trial.intermediate_values)
        assert len(note.q) == S and note.losses is not None or trial.number < 2
        assert note.exploration == 1 - trial.number / 200
        for whose in ("actor", "critic"):
            rows = note.attention[whose]
            # Row k holds k layers and the question: what was not there yet has no place to get a weight.
            assert [row.shape for row in rows] == [(4, k + 1) for k in range(1, S + 1)]
            for row in rows:
                assert (row > 0).all()
                np.testing.assert_allclose(row.sum(axis=1), 1, atol=row.shape[1] / 2 / 4095)


def test_a_critic_of_transformers_attends_to_the_layers_of_its_plan(studies):
    some = [read_agent(trial) for trial in studies["transformer"].trials]
    noted = [note for note in some if note is not None and note.plans]
    assert noted
    for note in noted:
        assert set(note.attention) == {"critic"}
        rows = note.attention["critic"]
        assert [row.shape for row in rows] == [(4, k + 1) for k in range(1, note.plans[-1].steps + 1)]
        for row in rows:
            np.testing.assert_allclose(row.sum(axis=1), 1, atol=row.shape[1] / 2 / 4095)
            assert (row[:, :-1].sum(axis=1) > 0).all()


@pytest.mark.parametrize("agent", ["posterior", "perceptron"])
def test_others_have_no_attention_and_expect_values(studies, agent):
    for trial in studies[agent].trials:
        note = read_agent(trial)
        if note is not None:
            assert note.attention == {}
            assert all(plan.low <= plan.value <= plan.high and plan.steps <= 4 for plan in note.plans)


@pytest.mark.slow
def test_what_is_expected_is_in_the_unit_of_the_values():
    """A critic that knows a function well expects about what comes, also where less is better."""

    def bowl(sign):
        return lambda trial: 10 - sign * (trial.suggest_float("x", 0, 1) - 0.3) ** 2

    for sign, direction in ((1, StudyDirection.MAXIMIZE), (-1, StudyDirection.MINIMIZE)):
        study = optuna.create_study(direction=direction, sampler=TRLHPOSampler(seed=0))
        study.optimize(bowl(sign), n_trials=20)
        for trial in study.trials[-4:]:
            plan = agent_note_of(trial).plans[-1]
            assert plan.value == pytest.approx(trial.value, abs=0.05) and plan.low < plan.high


def test_ranks_are_turned_into_values_too():
    sampler = TRLHPOSampler(seed=0, agent=AgentConfig(targets="rank"), n_startup_trials=3)
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: 7 + trial.suggest_float("x", 0, 1), n_trials=8)
    values = [value_of(trial) for trial in study.trials]
    (plan,) = agent_note_of(study.trials[-1]).plans
    assert min(values) - 1e-4 <= plan.low <= plan.value <= plan.high <= max(values) + 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["paper", "posterior", "transformer"])
def test_a_note_that_cannot_be_written_breaks_and_changes_nothing(studies, agent, monkeypatch, caplog):
    def refuse(study, trial, name, value):
        if name == AGENT_ATTRIBUTE:
            raise RuntimeError("no room")
        study._storage.set_trial_system_attr(trial._trial_id, name, value)

    for module in (sampler, study_reader):
        monkeypatch.setattr(module, "write_to_trial", refuse)
    optuna.logging.enable_propagation()
    with caplog.at_level("WARNING", logger="optuna"):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = run(agent)
    optuna.logging.disable_propagation()
    assert [trial.params for trial in study.trials] == [trial.params for trial in studies[agent].trials]
    assert all(trial.state.name == "COMPLETE" for trial in study.trials)
    assert "was not stored: RuntimeError('no room')" in caplog.text


def test_the_settings_are_noted_once(studies):
    kept = read_from_study(studies["paper"], SAMPLER_ATTRIBUTE)
    assert kept == json.loads(json.dumps(make("paper").settings))
    assert kept["seed"] == 0 and kept["agent"]["progressive_reward"] is True
    assert kept["agent"]["heads"] == 2 and "gamma" not in kept["agent"]  # that is the default


def test_the_settings_are_those_of_the_latest_sampler():
    study = run("paper", n=4)
    study.sampler = make("posterior")
    study.optimize(objective, n_trials=3)
    assert read_from_study(study, SAMPLER_ATTRIBUTE) == json.loads(json.dumps(make("posterior").settings))


@pytest.mark.parametrize("agent", ["paper", "posterior"])
def test_no_trial_fails_for_a_note(monkeypatch, caplog, agent):
    def refuse(*args):
        raise RuntimeError("no room")

    for module in (sampler, study_reader):
        monkeypatch.setattr(module, "write_to_trial", refuse)
    monkeypatch.setattr(optuna.Study, "set_user_attr", refuse)
    optuna.logging.enable_propagation()
    with caplog.at_level("WARNING", logger="optuna"):
        study = run(agent, n=4)
    optuna.logging.disable_propagation()
    assert all(trial.state.name == "COMPLETE" for trial in study.trials)
    assert "The settings of the space were not stored in the study: RuntimeError('no room')" in caplog.text
    assert "The attribute 'trlhpo:" in caplog.text


@pytest.mark.slow
def test_notes_reach_a_stored_study_and_brackets_of_hyperband(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    pruner = optuna.pruners.HyperbandPruner(max_resource=4)
    run("paper", n=6, storage=url, study_name="stored", pruner=pruner)
    study = optuna.load_study(study_name="stored", storage=url)
    assert sum(read_agent(trial) is not None for trial in study.trials) >= 3
    assert read_from_study(study, SAMPLER_ATTRIBUTE)["sampler"] == "TRLHPOSampler"


@pytest.mark.slow
def test_threads_note_each_their_own():
    study = optuna.create_study(direction="maximize", sampler=make("paper"))
    study.optimize(objective, n_trials=12, n_jobs=3)
    noted = [(trial, note) for trial in study.trials if (note := read_agent(trial)) is not None]
    assert len(noted) >= 6  # all but those that began before another one had ended
    for trial, note in noted:
        assert len(note.q) == len(trial.intermediate_values)
        assert note.exploration == 1 - trial.number / 200


def test_plans_for_any_objective_have_an_origin():
    def play(trial):
        return sum(trial.suggest_int(f"x{i}", 0, 9) for i in range(trial.suggest_int("n", 1, 3)))

    study = optuna.create_study(sampler=TRLHPOSampler(seed=0, warn_independent_sampling=False))
    study.optimize(play, n_trials=20)
    records = [record for trial in study.trials if (record := read_agent(trial)) is not None]
    assert {record.origin for record in records if record.plans} == {INCUMBENT_NEIGHBOUR, CHANCE}
    assert all(record.asked == ("plain",) for record in records)
    without = TRLHPOSampler(seed=0, agent=AgentConfig(mutations=False), warn_independent_sampling=False)
    other = optuna.create_study(sampler=without)
    other.optimize(play, n_trials=14)
    records = [record for trial in other.trials if (record := read_agent(trial)) is not None]
    assert {record.origin for record in records if record.plans} == {CHANCE}


def test_a_record_that_is_wrong_in_part_is_not_read():
    def read(**wrong):
        stored = {"by": "posterior", "corrected": [2], "given": [0], "excluded": ["0a"], **wrong}
        return read_agent(optuna.create_trial(value=0, system_attrs={AGENT_ATTRIBUTE: stored}))

    record = read()
    assert (record.corrected, record.given, record.excluded) == ((2,), (0,), ("0a",))
    for wrong in (
        {"asked": ["x"]},
        {"corrected": [-1]},
        {"corrected": "ab"},
        {"given": ["x"]},
        {"excluded": 3},
    ):
        assert read(**wrong) is None
