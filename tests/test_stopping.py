"""When a study stops because no gain is expected any more."""

from __future__ import annotations

import logging
import math
from typing import Any

import optuna
import pytest
from optuna import Trial
from optuna.trial import TrialState

from optuna_trlhpo import LayerSpace, StopWithoutGain, TRLHPOSampler
from optuna_trlhpo.trials.agent_record import AGENT_ATTRIBUTE, AgentRecord, read_agent

SPACE = LayerSpace(max_layers=3, min_accuracy=None, min_improvement=None)


def loop(trial: Trial) -> float:
    n = trial.suggest_int("depth", 1, 3)
    return sum((trial.suggest_float(f"w{i}", 0, 1) - 0.3) ** 2 for i in range(n)) / n


def branch(trial: Trial) -> float:
    if trial.suggest_categorical("model", ["forest", "svm"]) == "forest":
        return abs(trial.suggest_int("trees", 10, 500) - 200) / 500
    return abs(math.log10(trial.suggest_float("C", 1e-3, 1e3, log=True)) - 1) / 6


def grown(trial: Trial) -> float:
    score = 0.0
    for layers in SPACE.grow(trial):
        score = 0.5 + float(SPACE.encode(layers)[-1][:2].mean()) / 3
        trial.report(score, step=len(layers) - 1)
    return -score


def told(gains: list[float | None], state: TrialState = TrialState.COMPLETE) -> optuna.Study:
    study = optuna.create_study()
    for gain in gains:
        note = AgentRecord("posterior", origin="chance", gain=gain).to_json()
        value = 0.0 if state == TrialState.COMPLETE else None
        study.add_trial(optuna.create_trial(state=state, value=value, system_attrs={AGENT_ATTRIBUTE: note}))
    return study


def test_all_latest_planned_trials_must_promise_less() -> None:
    stop = StopWithoutGain(0.01, n_planned=3, min_trials=5)
    assert stop.expected_gain(told([0.5, 0.02, 0.001, None, 0.004])) == 0.02
    assert stop.expected_gain(told([0.5, 0.001, None, 0.002, None, 0.004])) == 0.004
    assert stop.expected_gain(told([0.001] * 4)) == math.inf  # too few trials
    assert stop.expected_gain(told([None, None, None, 0.001, 0.002])) == math.inf  # too few planned ones
    assert stop.expected_gain(told([0.001] * 5, TrialState.FAIL)) == 0.001  # they were planned all the same


@pytest.mark.parametrize(
    "play", [loop, *(pytest.param(play, marks=pytest.mark.slow) for play in (branch, grown))]
)
def test_a_study_stops_when_it_has_found_what_there_is(play: Any) -> None:
    study = optuna.create_study(sampler=TRLHPOSampler(seed=0))
    study.optimize(play, n_trials=150, callbacks=[StopWithoutGain(0.002)])
    n = len(study.trials)
    assert 20 <= n < 150
    study.optimize(play, n_trials=30)
    assert study.trials[n - 1].number == n - 1
    assert min(trial.values[0] for trial in study.trials[:n]) - study.best_value < 0.02


def test_a_gain_is_in_the_unit_of_the_objective_and_falls() -> None:
    def gains(factor: float) -> list[float]:
        study = optuna.create_study(
            direction="maximize" if factor < 0 else "minimize", sampler=TRLHPOSampler(seed=1)
        )
        study.optimize(lambda trial: factor * (loop(trial) + 2), n_trials=25)
        records = [read_agent(trial) for trial in study.trials]
        return [record.gain for record in records if record is not None and record.gain is not None]

    small, large = gains(1), gains(-1000)
    assert len(small) >= 10 and all(gain >= 0 for gain in small)
    assert large == pytest.approx([1000 * gain for gain in small], rel=1e-2, abs=1e-3)
    assert max(small[-5:]) < max(small[:5])


def test_several_objectives_are_refused() -> None:
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=TRLHPOSampler(seed=0))
    with pytest.raises(ValueError, match="study has 2 objectives; StopWithoutGain needs a study with one"):
        study.optimize(
            lambda trial: (trial.suggest_float("x", 0, 1), 1.0), 12, callbacks=[StopWithoutGain(0.1)]
        )
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)


@pytest.mark.parametrize("make", [optuna.samplers.RandomSampler, TRLHPOSampler.paper])
def test_with_a_sampler_that_expects_nothing_it_says_once_that_it_does_not_stop(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    optuna.logging.enable_propagation()
    study = optuna.create_study(sampler=make(seed=0))
    with caplog.at_level(logging.WARNING):
        study.optimize(loop, n_trials=6, callbacks=[StopWithoutGain(1e9, min_trials=4)])
    optuna.logging.disable_propagation()
    said = [record.message for record in caplog.records if "StopWithoutGain" in record.message]
    assert len(study.trials) == 6 and len(set(said)) == 1
    assert said[0].startswith("None of the 4 finished trials has an expected gain")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(min_gain=0.0), "min_gain is 0.0; it must be a positive number"),
        (dict(min_gain="1"), "min_gain is '1'; it must be a positive number"),
        (dict(min_gain=0.1, n_planned=0), "n_planned is 0; it must be a positive integer"),
        (dict(min_gain=0.1, min_trials=2.5), "min_trials is 2.5; it must be a positive integer"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StopWithoutGain(**arguments)


def test_it_shows_its_arguments() -> None:
    assert repr(StopWithoutGain(0.001)) == "StopWithoutGain(0.001, n_planned=10, min_trials=20)"
