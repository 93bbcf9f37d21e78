"""The loss of the critic that is stored with a planned trial."""

from __future__ import annotations

import numpy as np
import optuna
from optuna.trial import Trial

from optuna_trlhpo import LayerSpace, TRLHPOSampler
from optuna_trlhpo.trials.agent_record import read_agent
from optuna_trlhpo.visualization import plot_agent

SPACE = LayerSpace(input_shape=(1, 14, 14), max_layers=3, min_accuracy=None, min_improvement=None)


def grown(trial: Trial) -> float:
    value = 0.0
    for layers in SPACE.grow(trial):
        value = 0.5 + 0.01 * layers[0].values[1] - 0.02 * len(layers)
        trial.report(value, step=len(layers) - 1)
    return value


def smooth(trial: Trial) -> float:
    return (trial.suggest_float("x", 0, 1) - 0.3) ** 2


def losses(study: optuna.Study) -> list[float]:
    records = [record for trial in study.trials if (record := read_agent(trial)) is not None]
    assert all(record.losses is None or record.losses[1] is None for record in records)  # no actor learns
    return [record.losses[0] for record in records if record.losses is not None]


def test_planned_networks_and_configurations_have_it() -> None:
    for objective in (grown, smooth):
        study = optuna.create_study(sampler=TRLHPOSampler(seed=0))
        study.optimize(objective, n_trials=16)
        found = losses(study)
        assert len(found) >= 4 and np.isfinite(found).all()
        titles = [annotation.text for annotation in plot_agent(study).layout.annotations]
        assert "Losses" in titles


def test_values_that_are_predicted_make_it_fall() -> None:
    study = optuna.create_study(sampler=TRLHPOSampler(seed=0))
    study.optimize(smooth, n_trials=40)
    found = losses(study)
    assert np.mean(found[-5:]) < np.mean(found[:5])
