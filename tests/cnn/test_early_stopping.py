"""Hopeless networks are stopped early, by any pruner of Optuna and with all that a study knows."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.pruners import (
    HyperbandPruner,
    MedianPruner,
    PatientPruner,
    SuccessiveHalvingPruner,
    ThresholdPruner,
)
from optuna.trial import FixedTrial, TrialState

from optuna_trlhpo.cnn.training import early_stopping, trainer
from optuna_trlhpo.cnn.training.cache import read_curves
from optuna_trlhpo.cnn.training.early_stopping import Curves
from optuna_trlhpo.trials.training_record import TRAININGS_ATTRIBUTE
from tests.cnn.test_cache import add, trained  # noqa: F401 - a fixture
from tests.cnn.test_objective import THREE, make, make_params, run

ONE, OTHER = "Conv(8,3,1)", "Conv(16,3,1)"


def with_curves(monkeypatch: pytest.MonkeyPatch, *curves: list[float]) -> list[int]:
    """From now on the networks have these learning curves; the epochs that each was trained for."""
    epochs_of: list[int] = []

    def fake(model: Any, *_: Any, epochs: int, after_epoch: Any, **__: Any) -> None:
        epochs_of.append(0)
        for epoch in range(1, epochs + 1):
            epochs_of[-1] = epoch
            if after_epoch is not None and after_epoch(epoch):
                return

    def share(model: Any, images: Any, labels: Any) -> Any:
        import torch

        curve = curves[len(epochs_of) - 1]
        return torch.arange(len(labels)) < round(curve[epochs_of[-1] - 1] * len(labels))

    monkeypatch.setattr(trainer, "train", fake)
    monkeypatch.setattr(trainer, "predict_correct", share)
    monkeypatch.setattr(early_stopping, "predict_correct", share)
    return epochs_of


def test_a_hopeless_network_is_stopped_and_reported_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    epochs = with_curves(monkeypatch, [0.5, 0.6, 0.8], [0.4, 0.4, 0.9], [0.5, 0.55, 0.9])
    objective = make(epochs=3, max_layers=1, early_stop=MedianPruner(n_startup_trials=1))
    study = run(objective, network=ONE)
    stopped = add(study, objective, OTHER)
    assert epochs == [3, 1]
    assert stopped.state == TrialState.COMPLETE and stopped.value == stopped.intermediate_values[0] == 0.4
    entries = [trial.user_attrs[TRAININGS_ATTRIBUTE].split(":") for trial in study.trials]
    assert [entry[-1] for entry in entries] == ["0.5/0.6", "0.4!"]
    add(study, objective, "Conv(24,3,1)")
    assert epochs == [3, 1, 2]
    assert [curve.stopped for curve in read_curves(study, objective.trainer.setting)] == [False, True, True]


def test_networks_are_compared_with_their_like(monkeypatch: pytest.MonkeyPatch) -> None:
    epochs = with_curves(monkeypatch, [0.5, 0.8], [0.4, 0.9], [0.3, 0.3], [0.3, 0.9], [0.45, 0.8])
    objective = make(max_layers=2, early_stop=MedianPruner(n_startup_trials=1))
    study = run(objective, network="Conv(8,3,1) > MaxPool(2,2,0)")
    assert epochs == [2, 2]  # the second layer's is worse at first, but the first of its kind
    add(study, objective, "Conv(16,3,1) > MaxPool(2,2,0)")
    assert epochs == [2, 2, 1, 1]


def test_what_was_stopped_is_looked_up_but_not_by_who_stops_nothing(
    trained: list[int],  # noqa: F811
) -> None:
    hopeless = ThresholdPruner(lower=1.1)
    study = run(make(max_layers=1, early_stop=hopeless), network=ONE)
    again = add(study, make(max_layers=1, early_stop=hopeless), ONE)
    assert len(trained) == 1 and again.value == study.trials[0].value
    whole = add(study, make(max_layers=1), ONE)
    assert len(trained) == 2
    assert whole.value == run(make(max_layers=1), network=ONE).best_value
    # From here on the network is known whole, to all.
    assert add(study, make(max_layers=1, early_stop=hopeless), ONE).value == whole.value
    assert len(trained) == 3  # the run of its own study


def test_a_network_that_is_not_stopped_has_its_usual_value() -> None:
    watched = run(make(early_stop=ThresholdPruner(lower=0.0)), network=THREE).trials[0]
    assert watched.intermediate_values == run(make(), network=THREE).trials[0].intermediate_values


@pytest.mark.slow
@pytest.mark.parametrize("pruner", [MedianPruner(n_startup_trials=1), SuccessiveHalvingPruner()])
def test_what_a_study_knows_counts_after_a_restart(
    pruner: optuna.pruners.BasePruner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rest = [[0.9, 0.9, 0.9], [0.8, 0.8, 0.8], [0.7, 0.7, 0.7], [0.6, 0.6, 0.6], [0.1, 0.1, 0.1]]
    networks = [f"Conv({8 * k},3,1)" for k in range(1, 6)]
    outcomes = []
    for restarts in (False, True):
        epochs = with_curves(monkeypatch, *rest)
        storage = f"sqlite:///{tmp_path}/{restarts}.db"
        study = optuna.create_study(direction="maximize", storage=storage, study_name="s")
        objective = make(epochs=3, max_layers=1, early_stop=pruner)
        for network in networks:
            if restarts:
                study = optuna.load_study(study_name="s", storage=storage)
                objective = make(epochs=3, max_layers=1, early_stop=pruner)
            add(study, objective, network)
        outcomes.append(epochs)
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0] == 3 and outcomes[0][-1] < 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "pruner",
    [MedianPruner(n_startup_trials=2), HyperbandPruner(max_resource=3), PatientPruner(MedianPruner(), 1)],
    ids=lambda pruner: type(pruner).__name__,
)
def test_any_pruner_and_several_threads(pruner: optuna.pruners.BasePruner) -> None:
    objective = make(epochs=3, early_stop=pruner)
    sampler, none = optuna.samplers.RandomSampler(seed=0), optuna.pruners.NopPruner()
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=none)
    study.optimize(objective, n_trials=8, n_jobs=2)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 8
    curves = list(read_curves(study, objective.trainer.setting))
    assert curves and all(len(curve.accuracies) <= 2 for curve in curves)


def test_a_stopped_network_hands_down_what_it_has(trained: list[int]) -> None:  # noqa: F811
    kwargs: dict[str, Any] = {"epochs": 3, "inherit": True, "early_stop": ThresholdPruner(lower=1.1)}
    first = run(make(**kwargs), network=THREE)
    assert all(
        curve.stopped and len(curve.accuracies) == 1
        for curve in read_curves(first, make(**kwargs).trainer.search_setting)
    )
    other = "Conv(8,3,1) > MaxPool(2,2,0) > FCL(24,relu,bias)"
    expected = run(make(**kwargs), network=other).trials[0].intermediate_values
    trained.clear()
    # By an objective without weights: the two before are looked up, and trained again for one epoch each.
    assert add(first, make(**kwargs), other).intermediate_values == expected
    assert len(trained) == 3


def test_a_curve_ends_even_where_the_training_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = make(max_layers=1, early_stop=MedianPruner(n_startup_trials=0))

    def broken(*_: Any, **__: Any) -> None:
        raise KeyError

    monkeypatch.setattr(trainer, "train", broken)
    with pytest.raises(KeyError):
        run(objective, network=ONE)
    assert objective.evaluation.early_stop is not None
    (study,) = objective.evaluation.early_stop.curves.studies.values()
    assert [trial.state for trial in study.trials] == [TrialState.FAIL]


def test_fixed_trials_are_trained_to_the_end_and_objectives_can_be_sent() -> None:
    objective = make(early_stop=ThresholdPruner(lower=1.1))
    run(objective, network=ONE)
    copied = pickle.loads(pickle.dumps(objective))
    assert copied(FixedTrial(make_params(ONE))) == make()(FixedTrial(make_params(ONE)))
    assert run(copied, network=ONE).trials[0].user_attrs[TRAININGS_ATTRIBUTE].endswith("!")


def test_curves_are_those_of_their_depth() -> None:
    curves = Curves(MedianPruner(n_startup_trials=1))
    curves.add(depth=1, curve=[0.9], stopped=False)
    for depth, prune in ((1, True), (2, False)):
        trial = curves.begin(depth)
        trial.report(0.5, step=1)
        assert trial.should_prune() == prune


def test_one_epoch_has_nothing_to_stop() -> None:
    with pytest.raises(
        ValueError, match="epochs is 1; early_stop needs at least 2, because it never stops a training"
    ):
        make(epochs=1, early_stop=optuna.pruners.MedianPruner())
    make(epochs=1, inherit=True, inherited_epochs=2, early_stop=optuna.pruners.MedianPruner())


def test_something_else_is_no_pruner() -> None:
    with pytest.raises(ValueError, match="early_stop is 'median'; it must be an Optuna pruner, or None"):
        make(early_stop="median")
