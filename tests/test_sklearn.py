"""`TRLHPOClassifier` is a classifier of scikit-learn."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import optuna
import pytest

pytest.importorskip("sklearn", reason="the extra cnn is not installed")

from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from optuna_trlhpo.kinds import CNN, LSTM
from optuna_trlhpo.layers import parse
from optuna_trlhpo.sklearn import TRLHPOClassifier

QUICK: dict[str, Any] = dict(n_trials=2, confirm=1, random_state=0, device="cpu")
EXPECTED_FAILURES: dict[str, str] = {}
"""Checks of scikit-learn's that are not passed, and why; there are none."""


@parametrize_with_checks(
    [TRLHPOClassifier(**QUICK, epochs=20)], expected_failed_checks=lambda _: EXPECTED_FAILURES
)
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def digits(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    X, y = load_digits(return_X_y=True)
    return X[:n].reshape(-1, 8, 8) / 16, y[:n]


@pytest.mark.parametrize("axes", [3, 4])
def test_images_are_classified(axes: int) -> None:
    X, y = digits()
    X = X if axes == 3 else X[:, None]
    names = np.array([f"digit {k}" for k in range(10)])
    model = TRLHPOClassifier(**QUICK | {"n_trials": 3, "confirm": 2}).fit(X[:200], names[y[:200]])
    assert model.score(X[200:], names[y[200:]]) > 0.8
    assert model.classes_.tolist() == names.tolist()
    probabilities = model.predict_proba(X[200:])
    assert probabilities.shape == (100, 10) and np.allclose(probabilities.sum(axis=1), 1)
    assert (model.classes_[probabilities.argmax(axis=1)] == model.predict(X[200:])).all()
    assert parse(model.architecture_)[0].kind == "Conv" and len(model.study_.trials) == 3


def test_rows_are_classified_in_a_pipeline_under_cross_validation() -> None:
    X, y = load_iris(return_X_y=True)
    scores = cross_val_score(make_pipeline(StandardScaler(), TRLHPOClassifier(**QUICK)), X, y, cv=3)
    assert scores.mean() > 0.85


def test_its_arguments_can_be_searched() -> None:
    X, y = load_iris(return_X_y=True)
    search = GridSearchCV(TRLHPOClassifier(**QUICK), {"max_layers": [1, 2]}, cv=2).fit(X, y)
    assert search.best_params_["max_layers"] in (1, 2)


def test_equal_states_equal_models() -> None:
    X, y = load_iris(return_X_y=True)
    model = TRLHPOClassifier(**QUICK)
    first, second = clone(model).fit(X, y), clone(model).fit(X, y)
    other = clone(model).set_params(random_state=1).fit(X, y)
    assert (first.predict_proba(X) == second.predict_proba(X)).all()
    assert (first.predict_proba(X) != other.predict_proba(X)).any()
    assert (pickle.loads(pickle.dumps(first)).predict_proba(X) == first.predict_proba(X)).all()


def test_limits_and_vocabularies_are_those_that_are_named() -> None:
    X, y = digits(200)
    model = TRLHPOClassifier(**QUICK, vocabulary=CNN, max_parameters=2_000, max_macs=1e5).fit(X, y)
    assert sum(parameter.numel() for parameter in model.network_.parameters()) <= 2_000
    names = {name for trial in model.study_.trials for name in trial.params}
    assert "layer1_cnn_kind_of_conv_sameconv_sepconv_residual" in names or "layer1_cnn_kind" in names


def test_sequences_are_classified() -> None:
    y = np.arange(120) % 2
    X = np.random.default_rng(0).standard_normal((120, 10, 2)) + np.where(y, 1, -1)[:, None, None]
    model = TRLHPOClassifier(**QUICK, vocabulary=LSTM).fit(X, y)
    assert model.score(X, y) > 0.9


def test_a_study_is_gone_on_with() -> None:
    X, y = load_iris(return_X_y=True)
    study = optuna.create_study(direction="maximize")
    model = TRLHPOClassifier(**QUICK, study=study).fit(X, y)
    assert model.study_ is study and len(study.trials) == 2
    model.fit(X, y)
    assert len(study.trials) == 4


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
        ({}, [3] * 20, "y holds one class only, .*3.*; a classifier needs two"),
        ({}, [0] * 19 + [1], "class 1 has 1 of the images"),
        ({"batch_size": 0}, [0, 1] * 10, "batch_size is 0; it must be a positive integer"),
    ],
)
def test_what_cannot_be_used(arguments: dict[str, Any], y: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TRLHPOClassifier(**QUICK | arguments).fit(np.random.default_rng(0).random((20, 4)), np.array(y))


def test_inputs_of_another_shape_are_named() -> None:
    X, y = digits(60)
    model = TRLHPOClassifier(**QUICK, epochs=1).fit(X, y)
    with pytest.raises(ValueError, match=r"X has inputs of shape \(8, 4\); the model was fitted on \(8, 8\)"):
        model.predict(X[:, :, :4])
