"""Importances: one bar for each choice, whatever was left of it to choose from."""

from __future__ import annotations

import optuna
import pytest
from optuna import Trial
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.study import Study

from optuna_trlhpo import LayerSpace
from optuna_trlhpo.layers import network_in, unmasked
from optuna_trlhpo.layers.kinds import CNN
from optuna_trlhpo.visualization import plot_importances, with_plain_names

SMALL = LayerSpace(
    input_shape=(1, 12, 12), max_layers=4, max_parameters=5_000, vocabulary=CNN, min_accuracy=None
)


def study_of(play: object, n_trials: int = 25, **arguments: object) -> Study:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1), **arguments)  # type: ignore[arg-type]
    study.optimize(play, n_trials=n_trials, catch=(RuntimeError,))  # type: ignore[arg-type]
    return study


def small(trial: Trial) -> float:
    rate = trial.suggest_float("rate_of_learning", 1e-4, 1, log=True)
    layers = SMALL.suggest(trial)
    if trial.number == 7:
        raise RuntimeError
    trial.report(0.5, step=0)
    trial.set_user_attr("depth", len(layers))
    return SMALL.parameters(layers) / 5_000 + rate


def test_a_choice_has_one_name_and_everything_else_stays() -> None:
    study = study_of(small)
    study.set_metric_names(["size"])
    study.set_user_attr("note", "mine")
    plain = with_plain_names(study)
    assert plain.metric_names == ["size"] and plain.user_attrs["note"] == "mine"
    assert plain.directions == study.directions
    before = {name for trial in study.trials for name in trial.params}
    after = {name for trial in plain.trials for name in trial.params}
    assert any("_of_" in name for name in before - {"rate_of_learning"})
    assert after == {unmasked(name) for name in before} and "rate_of_learning" in after
    for trial, other in zip(study.trials, plain.trials, strict=True):
        assert network_in(other.params) == network_in(trial.params)
        assert (other.values, other.state, other.intermediate_values, other.user_attrs) == (
            trial.values,
            trial.state,
            trial.intermediate_values,
            trial.user_attrs,
        )
        assert other.datetime_complete == trial.datetime_complete
        for name, value in other.params.items():
            assert other.distributions[name]._contains(other.distributions[name].to_internal_repr(value))
    assert {name for trial in study.trials for name in trial.params} == before  # the study is as it was


def test_names_that_only_look_like_layers_stay() -> None:
    def play(trial: Trial) -> float:
        kind = trial.suggest_categorical("layer1_kind_of_wood", ["oak", "fir"])
        return trial.suggest_int("layer1_conv_filters", 1, 999) + (kind == "oak")

    plain = with_plain_names(study_of(play, 5))
    assert set(plain.trials[0].params) == {"layer1_kind_of_wood", "layer1_conv_filters"}


def test_two_names_of_one_choice_in_a_trial_are_left_apart() -> None:
    study = optuna.create_study()
    kinds = CategoricalDistribution(["Conv", "MaxPool", "FCL"])
    params = {"layer2_kind": "Conv", "layer2_kind_of_pool_fcl": "FCL"}
    two = CategoricalDistribution(["MaxPool", "FCL"])
    study.add_trial(
        optuna.create_trial(
            value=1.0,
            params=params,
            distributions={"layer2_kind": kinds, "layer2_kind_of_pool_fcl": two},
        )
    )
    assert with_plain_names(study).trials[0].params == params


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_what_decides_comes_first(direction: str) -> None:
    def play(trial: Trial) -> float:
        return trial.suggest_float("weighty", 0, 1) ** 2 + 0.01 * trial.suggest_float("idle", 0, 1)

    (bar,) = plot_importances(study_of(play, 60, direction=direction)).data
    assert list(bar.y) == ["idle", "weighty"] and bar.x[1] > 0.8 > bar.x[0]


def test_only_the_most_important_are_shown_and_the_rest_is_counted() -> None:
    figure = plot_importances(study_of(small, 40), top=6)
    (bar,) = figure.data
    assert len(bar.y) == 6 and not any("_of_" in name for name in bar.y if name != "rate_of_learning")
    assert "further parameters matter less" in figure.layout.title.subtitle.text


def test_one_of_several_objectives() -> None:
    def play(trial: Trial) -> tuple[float, float]:
        x, n = trial.suggest_float("x", 0, 1), trial.suggest_int("n", 1, 9)
        return x, n

    study = study_of(play, 60, directions=["minimize", "maximize"])
    assert [plot_importances(study, objective=k).data[0].y[-1] for k in range(2)] == ["x", "n"]
    with pytest.raises(ValueError, match="objective is 2"):
        plot_importances(study, objective=2)


@pytest.mark.parametrize("top", [0, 1.5, True])
def test_a_wrong_number_of_bars_is_named(top: object) -> None:
    with pytest.raises(ValueError, match=f"top is {top}; it must be a positive integer"):
        plot_importances(study_of(small, 3), top=top)  # type: ignore[arg-type]


def test_integers_of_a_layer_have_their_whole_range() -> None:
    plain = with_plain_names(study_of(small))
    widths = [
        distribution
        for trial in plain.trials
        for name, distribution in trial.distributions.items()
        if name == "layer1_conv_filters"
    ]
    assert widths and all(isinstance(one, IntDistribution) and one == widths[0] for one in widths)
