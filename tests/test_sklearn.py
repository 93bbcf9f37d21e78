"""`TRLHPOClassifier` is a classifier of scikit-learn."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch

pytest.importorskip("sklearn", reason="the extra cnn is not installed")

from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from optuna_trlhpo.cnn import export_network
from optuna_trlhpo.cnn.objective import CNNObjective
from optuna_trlhpo.layers import Vocabulary, parse
from optuna_trlhpo.layers.kinds import CNN, LSTM
from optuna_trlhpo.layers.sequences import CNN1D
from optuna_trlhpo.sklearn import TRLHPOClassifier

QUICK: dict[str, Any] = dict(n_trials=2, confirm=1, epochs=20, random_state=0, device="cpu")
EXPECTED_FAILURES: dict[str, str] = {}
"""Checks of scikit-learn's that are not passed, and why; there are none."""


@pytest.mark.slow
@parametrize_with_checks([TRLHPOClassifier(**QUICK)], expected_failed_checks=lambda _: EXPECTED_FAILURES)
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def digits(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    X, y = load_digits(return_X_y=True)
    return X[:n].reshape(-1, 8, 8) / 16, y[:n]


@pytest.mark.slow
@pytest.mark.parametrize("axes", [3, 4])
def test_images_are_classified(axes: int) -> None:
    X, y = digits()
    X = X if axes == 3 else X[:, None]
    names = np.array([f"digit {k}" for k in range(10)])
    epochs = 20 if axes == 3 else None  # None: as many as the number of images asks for
    more = {"n_trials": 3, "confirm": 2, "epochs": epochs}
    model = TRLHPOClassifier(**QUICK | more).fit(X[:200], names[y[:200]])
    assert model.score(X[200:], names[y[200:]]) > 0.8
    assert model.classes_.tolist() == names.tolist()
    probabilities = model.predict_proba(X[200:])
    assert probabilities.shape == (100, 10) and np.allclose(probabilities.sum(axis=1), 1)
    assert (model.classes_[probabilities.argmax(axis=1)] == model.predict(X[200:])).all()
    assert parse(model.architecture_)[0].kind == "Conv" and len(model.study_.trials) == 3


@pytest.mark.slow
def test_rows_are_classified_in_a_pipeline_under_cross_validation() -> None:
    X, y = load_iris(return_X_y=True)
    scores = cross_val_score(make_pipeline(StandardScaler(), TRLHPOClassifier(**QUICK)), X, y, cv=3)
    assert scores.mean() > 0.85


@pytest.mark.slow
def test_its_arguments_can_be_searched() -> None:
    X, y = load_iris(return_X_y=True)
    search = GridSearchCV(TRLHPOClassifier(**QUICK), {"max_layers": [1, 2]}, cv=2).fit(X, y)
    assert search.best_params_["max_layers"] in (1, 2)


@pytest.mark.slow
def test_equal_states_equal_models() -> None:
    X, y = load_iris(return_X_y=True)
    model = TRLHPOClassifier(**QUICK)
    first, second = clone(model).fit(X, y), clone(model).fit(X, y)
    other = clone(model).set_params(random_state=1).fit(X, y)
    assert (first.predict_proba(X) == second.predict_proba(X)).all()
    assert (first.predict_proba(X) != other.predict_proba(X)).any()
    assert (pickle.loads(pickle.dumps(first)).predict_proba(X) == first.predict_proba(X)).all()


@pytest.mark.slow
def test_limits_and_vocabularies_are_those_that_are_named() -> None:
    X, y = digits(200)
    model = TRLHPOClassifier(**QUICK, vocabulary=CNN, max_parameters=2_000, max_macs=1e5).fit(X, y)
    assert sum(parameter.numel() for parameter in model.network_.parameters()) <= 2_000
    names = {name for trial in model.study_.trials for name in trial.params}
    assert "layer1_cnn_kind_of_conv_sameconv_sepconv_residual" in names or "layer1_cnn_kind" in names


def test_limits_in_bytes_hold_in_the_file(tmp_path: Path) -> None:
    X, y = digits(200)
    limits: dict[str, Any] = dict(max_model_bytes=16_000, max_activation_bytes=4_000, quantize="int8")
    model = TRLHPOClassifier(**QUICK, **limits).fit(X, y)
    images = torch.from_numpy(X[:50, None].astype(np.float32))
    file = tmp_path / "net.onnx"
    exported = export_network(model.network_, file, (1, 8, 8), quantize="int8", calibration=images)
    assert exported.bytes <= 16_000
    names = {name for trial in model.study_.trials for name in trial.params}
    assert any(name.startswith("layer1_cnn_kind") for name in names)


def test_rows_have_limits_too() -> None:
    X, y = load_iris(return_X_y=True)
    model = TRLHPOClassifier(**QUICK, max_parameters=400).fit(X, y)
    assert sum(parameter.numel() for parameter in model.network_.parameters()) <= 400


@pytest.mark.slow
def test_training_images_are_augmented() -> None:
    X, y = digits(200)
    model, plain = (TRLHPOClassifier(**QUICK, augment=augment).fit(X, y) for augment in ("characters", None))
    assert (model.predict_proba(X) != plain.predict_proba(X)).any()
    with pytest.raises(ValueError, match="augment is 'mirror'"):
        TRLHPOClassifier(**QUICK, augment="mirror").fit(X, y)


@pytest.mark.slow
@pytest.mark.parametrize("vocabulary", [LSTM, CNN1D])
def test_sequences_are_classified(vocabulary: Vocabulary) -> None:
    y = np.arange(120) % 2
    X = np.random.default_rng(0).standard_normal((120, 10, 2)) + np.where(y, 1, -1)[:, None, None]
    model = TRLHPOClassifier(**QUICK, vocabulary=vocabulary).fit(X, y)
    assert model.score(X, y) > 0.9


@pytest.mark.slow
def test_a_study_is_gone_on_with() -> None:
    X, y = load_iris(return_X_y=True)
    study = optuna.create_study(direction="maximize")
    model = TRLHPOClassifier(**QUICK, study=study).fit(X, y)
    assert model.study_ is study and len(study.trials) == 2
    model.fit(X, y)
    assert len(study.trials) == 4


@pytest.mark.slow
def test_another_data_sets_networks_are_not_chosen() -> None:
    """As under cross validation with a study that is stored, which the folds share."""
    X, y = load_iris(return_X_y=True)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    TRLHPOClassifier(**QUICK, study=study).fit(X, y)
    noise = np.random.default_rng(0).permutation(y)
    for confirm in (1, 2):
        model = TRLHPOClassifier(**QUICK | {"confirm": confirm}, study=study).fit(X, noise)
        assert model.study_ is study
        values = [trial.value or 0 for trial in study.trials]
        assert max(values[:2]) > max(values[2:])
        assert model.architecture_ in {trial.user_attrs["architecture"] for trial in study.trials[2:]}
        assert model.architecture_ not in {trial.user_attrs["architecture"] for trial in study.trials[:2]}


@pytest.mark.slow
def test_networks_beyond_the_limits_are_not_chosen() -> None:
    """Of a study whose earlier trials had none."""
    X, y = load_iris(return_X_y=True)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    TRLHPOClassifier(**QUICK | {"n_trials": 4}, study=study).fit(X, y)
    limit = min(trial.user_attrs["parameters"] for trial in study.trials)
    for confirm in (1, 2):
        model = TRLHPOClassifier(
            **QUICK | {"confirm": confirm, "n_trials": 1}, study=study, max_parameters=limit
        ).fit(X, y)
        assert sum(parameter.numel() for parameter in model.network_.parameters()) <= limit


def test_at_least_one_trial_is_run() -> None:
    X, y = load_iris(return_X_y=True)
    for n_trials in (5, None):
        model = TRLHPOClassifier(**QUICK | {"n_trials": n_trials, "epochs": 1}, timeout=0).fit(X, y)
        assert len(model.study_.trials) == 1
    assert isinstance(model.study_.pruner, optuna.pruners.NopPruner)


def test_a_search_without_a_network_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def prune(*_: Any) -> float:
        raise optuna.TrialPruned

    monkeypatch.setattr(CNNObjective, "__call__", prune)
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match="none of the 2 trials of the search completed"):
        TRLHPOClassifier(**QUICK).fit(X, y)


@pytest.mark.slow
def test_threads_that_are_measured() -> None:
    X, y = digits(60)
    model = TRLHPOClassifier(**QUICK | {"epochs": 1}, threads="auto").fit(X, y)
    assert model.predict(X).shape == (60,)


def test_it_is_quiet_and_leaves_the_log_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    X, y = load_iris(return_X_y=True)
    before = optuna.logging.get_verbosity()
    TRLHPOClassifier(**QUICK).fit(X, y)
    assert capsys.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == before


@pytest.mark.parametrize(
    ("arguments", "y", "message"),
    [
        ({"validation_fraction": 1.0}, [0, 1] * 10, "validation_fraction is 1.0; it must be between 0 and 1"),
        ({}, [3] * 20, "y contains one class only, .*3.*; a classifier needs at least two"),
        ({}, [3] * 19 + [7], "class 7 occurs once in y; each class must occur at least twice"),
        ({"batch_size": 0}, [0, 1] * 10, "batch_size is 0; it must be a positive integer"),
        *[
            ({name: value}, [0, 1] * 10, f"{name} is {value}; it must be a positive integer")
            for name, value in (("n_trials", 0), ("n_trials", -1), ("n_trials", 2.5), ("confirm", 0))
        ],
        *[
            (
                {"timeout": value},
                [0, 1] * 10,
                f"timeout is {value!r}; it must be a number of seconds of at least 0, or None",
            )
            for value in (-1, math.nan, "fast", True)
        ],
        ({"n_trials": None}, [0, 1] * 10, "n_trials and timeout are both None; at least one must limit the"),
    ],
)
def test_what_cannot_be_used(arguments: dict[str, Any], y: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TRLHPOClassifier(**QUICK | arguments).fit(np.random.default_rng(0).random((20, 4)), np.array(y))


def test_inputs_of_another_shape_are_named() -> None:
    X, y = digits(60)
    model = TRLHPOClassifier(**QUICK | {"epochs": 1}).fit(X, y)
    with pytest.raises(ValueError, match=r"X has inputs of shape \(8, 4\); the model was fitted on \(8, 8\)"):
        model.predict(X[:, :, :4])
