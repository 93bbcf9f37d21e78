"""`CNNObjective` with other kinds of layer, for images, tables and sequences."""

from __future__ import annotations

import numpy as np
import optuna
import pytest

from optuna_trlhpo import TRLHPOSampler
from optuna_trlhpo.cnn import CNNObjective
from optuna_trlhpo.cnn.data.datasets import load_data
from optuna_trlhpo.layers import Vocabulary
from optuna_trlhpo.layers.kinds import CNN, LSTM, MLP
from optuna_trlhpo.layers.sequences import CNN1D
from tests.cnn.test_objective import stripes


def rows(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Six features, of which two tell the class."""
    labels = np.arange(n) % 3
    features = np.random.default_rng(0).standard_normal((n, 6))
    features[:, 2] += 3 * (labels == 1)
    features[:, 4] -= 3 * (labels == 2)
    return features, labels


def rhythms(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Sequences of 12 steps and two features, that rise or fall."""
    labels = np.arange(n) % 2
    noise = np.random.default_rng(0).standard_normal((n, 12, 2))
    return noise + np.where(labels, 1, -1)[:, None, None] * np.linspace(-2, 2, 12)[:, None], labels


@pytest.mark.slow
@pytest.mark.parametrize(
    ("vocabulary", "data"),
    [(CNN, stripes(150)), (MLP, rows(150)), (LSTM, rhythms(150)), (CNN1D, rhythms(150))],
    ids=["cnn", "mlp", "lstm", "sequences"],
)
def test_any_vocabulary_is_searched_trained_and_refitted(
    vocabulary: Vocabulary, data: tuple[np.ndarray, np.ndarray]
) -> None:
    inputs, labels = data
    objective = CNNObjective(
        (*data, inputs[:40], labels[:40]),
        epochs=8,
        batch_size=16,
        learning_rate=1e-2,
        max_layers=3,
        device="cpu",
        vocabulary=vocabulary,
        max_macs=1e5,
    )
    study = optuna.create_study(direction="maximize", sampler=TRLHPOSampler(seed=0))
    study.optimize(objective, n_trials=5)
    assert study.best_value > 0.8
    refit = objective.refit(study.best_trial)
    assert refit.test_accuracy is not None and refit.test_accuracy > 0.8
    assert "classifier" in objective.table(study.best_trial)
    assert objective.cost(study.best_trial, latency=False).macs == refit.macs
    assert objective.confirm(study, top=1, repeats=1)[0].architecture == refit.architecture


@pytest.mark.parametrize(("axes", "data"), [(1, rows(60)), (2, rhythms(60))])
def test_features_are_standardised_each_by_itself(axes: int, data: tuple[np.ndarray, np.ndarray]) -> None:
    loaded = load_data(data, axes=axes, device="cpu")
    flat = loaded.train_images.reshape(-1, loaded.input_shape[-1])
    assert flat.mean(dim=0).abs().max() < 1e-5 and (flat.std(dim=0, correction=0) - 1).abs().max() < 1e-5
    assert len(loaded.mean) == loaded.input_shape[-1]


@pytest.mark.parametrize(
    ("axes", "data", "message"),
    [
        (1, stripes(20), r"images has shape \(20, 8, 8\); it must be \(n, features\)"),
        (2, rows(20), r"images has shape \(20, 6\); it must be \(n, steps, features\)"),
        (1, "digits", r"data is a str; a vocabulary for rows of a table, such as kinds.MLP, takes a tuple"),
    ],
)
def test_inputs_of_the_wrong_axes_are_named(axes: int, data: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_data(data, axes=axes, device="cpu")
