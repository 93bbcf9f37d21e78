"""What the figures of layers show, computed by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.study import Study

from optuna_trlhpo import LayerSpace, parse
from optuna_trlhpo.space.growth import SPACE_ATTRIBUTE
from optuna_trlhpo.visualization import (
    _search_tree,
    layer_affinity_findings,
    plot_architecture,
    plot_layer_rewards,
    plot_search_tree,
)
from optuna_trlhpo.visualization._architecture import get_architecture_info
from optuna_trlhpo.visualization._layer_affinity import get_layer_affinity_info
from optuna_trlhpo.visualization._layer_rewards import get_layer_rewards_info
from optuna_trlhpo.visualization._pareto_layers import get_pareto_layers_info
from optuna_trlhpo.visualization._search_tree import get_search_tree_info
from optuna_trlhpo.visualization._study import read_layers

SPACE = LayerSpace(input_shape=(1, 12, 12), num_classes=4, max_layers=3)
A, B, C = "Conv(8,3,1)", "MaxPool(2,2,0)", "FCL(16,relu,bias)"


def add(study: Study, text: str, *reports: float, value: float | None = None, **more: Any) -> None:
    """A finished trial of that network that reported these values; NaN: nothing at that step."""
    params = SPACE.to_params(parse(text))
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.CategoricalDistribution([choice]) for name, choice in params.items()
    }
    kept = {step: report for step, report in enumerate(reports) if report == report}
    study.add_trial(
        optuna.create_trial(
            params=params,
            distributions=distributions,
            intermediate_values=kept,
            value=reports[-1] if value is None else value,
            **more,
        )
    )


@pytest.fixture
def study() -> Study:
    study = optuna.create_study(direction="maximize")
    study.set_user_attr(SPACE_ATTRIBUTE, SPACE.settings)
    nan = float("nan")
    add(study, f"{A} > {B} > {C}", 0.5, 0.75, 0.625, value=0.75)
    add(study, f"{A} > {C}", 0.5, 0.25, value=0.5)
    add(study, f"{A} > {B} > FCL(32,relu,bias)", nan, nan, 0.875)  # the networks before it: see the first
    add(study, f"{A} > {C}", 0.5, 0.25, value=0.5)
    return study


def test_rewards_by_hand(study: Study) -> None:
    rewards = [
        (one.number, one.position, one.layer.kind, one.reward)
        for one in get_layer_rewards_info(study, 0).rewards
    ]
    assert rewards == [
        (0, 1, "Conv", 0.5),
        (0, 2, "MaxPool", 0.25),
        (0, 3, "FCL", -0.125),
        (1, 1, "Conv", 0.5),
        (1, 2, "FCL", -0.25),
        (2, 3, "FCL", 0.125),
        (3, 1, "Conv", 0.5),
        (3, 2, "FCL", -0.25),
    ]


def test_of_error_rates_less_is_better() -> None:
    study = optuna.create_study(direction="minimize")
    add(study, f"{A} > {C}", 0.25, 0.5, value=0.25)
    rewards = get_layer_rewards_info(study, 0).rewards
    assert [one.reward for one in rewards] == [-0.25]  # a loss perhaps: what nothing has lost is not known
    study.set_metric_names(["error rate"])
    rewards = get_layer_rewards_info(study, 0).rewards
    assert [one.reward for one in rewards] == [0.75, -0.25]


def test_of_other_values_the_first_layer_has_no_reward() -> None:
    study = optuna.create_study(direction="maximize")
    add(study, f"{A} > {C}", 20.0, 50.0)
    assert [(one.position, one.reward) for one in get_layer_rewards_info(study, 0).rewards] == [(2, 30.0)]


def test_pairs_by_hand(study: Study) -> None:
    info = get_layer_affinity_info(study, 0)
    found = {pair.name: (pair.negative, pair.positive, pair.n) for pair in info.pairs}
    # The network of trials 1 and 3 counts once.
    assert found == {"MaxPool - FCL": (1, 1, 2), "Conv - FCL": (1, 0, 1), "Conv - MaxPool": (0, 1, 1)}
    assert [pair.name for pair in info.pairs][:2] == ["Conv - FCL", "MaxPool - FCL"]
    assert info.overall == 0.5
    # A share of 1 in 2: the interval of Wilson is symmetric about a half.
    (half,) = [pair for pair in info.pairs if pair.n == 2]
    assert half.low + half.high == pytest.approx(1) and half.low == pytest.approx(0.0945, abs=1e-4)
    assert layer_affinity_findings(study)[0] == "2 of 4 layers after another layer (50%) had a negative gain:"


def test_a_layer_that_changes_nothing_is_neither() -> None:
    study = optuna.create_study(direction="maximize")
    add(study, f"{A} > {C}", 0.5, 0.5)
    (pair,) = get_layer_affinity_info(study, 0).pairs
    assert (pair.negative, pair.positive, pair.n) == (0, 0, 1)


def test_reports_of_epochs_are_no_values_of_prefixes() -> None:
    study = optuna.create_study(direction="maximize")
    add(study, f"{A} > {C}", 0.1, 0.2, 0.3, 0.4)
    add(study, f"{A} > {B} > {C}", 0.1, 0.2, 0.3, value=0.9)  # as many epochs as layers
    add(study, f"{A} > {B} > {C}", 0.1, 0.9, 0.3, value=0.9)
    values = [trial.values for trial in read_layers(study).trials]
    assert values == [{2: 0.4}, {3: 0.9}, {1: 0.1, 2: 0.9, 3: 0.3}]


def test_tree_by_hand(study: Study) -> None:
    nodes = get_search_tree_info(study, 0).nodes
    found: dict[int, list[Any]] = {len(node.network): [] for node in nodes}
    for node in nodes:
        found[len(node.network)].append((node.trials, node.best, node.value, node.is_on_best))
        if node.network:
            assert nodes[node.parent].network == node.network[:-1]
    assert found == {
        0: [(4, 0.875, None, True)],
        1: [(4, 0.875, 0.5, True)],
        2: [(2, 0.875, 0.75, True), (2, 0.25, 0.25, False)],  # the better branch first, which is on top
        3: [(1, 0.875, 0.875, True), (1, 0.625, 0.625, False)],
    }
    leaves = [node.y for node in nodes if node.network and all(o.network[:-1] != node.network for o in nodes)]
    assert sorted(leaves) == [0.0, 1.0, 2.0]


def test_a_large_tree_is_drawn_in_part(monkeypatch: pytest.MonkeyPatch, study: Study) -> None:
    info = get_search_tree_info(study, 0)
    monkeypatch.setattr(_search_tree, "MOST_NODES", 5)
    monkeypatch.setattr(_search_tree, "BEST_DRAWN", 1)
    nodes = _search_tree.drawn_nodes(info)
    assert [(len(node.network), node.trials, node.is_on_best) for node in nodes] == [
        (0, 4, True),
        (1, 4, True),
        (2, 2, True),
        (2, 2, False),
        (3, 1, True),
    ]
    assert [nodes[node.parent].network for node in nodes[1:]] == [node.network[:-1] for node in nodes[1:]]
    assert sorted(node.y for node in nodes if len(node.network) == 2) == [0.0, 1.0]  # they closed up
    figure = plot_search_tree(study)
    assert figure.layout.title.subtitle.text.startswith("5 of 6 prefixes")
    assert len(figure.data[-1].x) == 5


def test_front_by_hand(study: Study) -> None:
    info = get_pareto_layers_info(study, "layers", 0)
    assert [(point.cost, point.value, point.is_best) for point in info.points] == [
        (1, 0.5, True),
        (2, 0.75, True),
        (2, 0.25, False),
        (3, 0.875, True),
        (3, 0.625, False),
    ]
    macs = get_pareto_layers_info(study, "macs", 0)
    assert {point.network: point.cost for point in macs.points} == {
        network: SPACE.macs(network) for network in read_layers(study).values
    }
    with pytest.raises(ValueError, match="cost is 'energy'; it must be one of macs, parameters"):
        get_pareto_layers_info(study, "energy", 0)


def test_a_front_of_errors_goes_down() -> None:
    study = optuna.create_study(direction="minimize")
    add(study, f"{A} > {C}", 0.5, 0.25)
    info = get_pareto_layers_info(study, "layers", 0)
    assert [point.is_best for point in info.points] == [True, True]


def test_architecture_adds_up(study: Study) -> None:
    info = get_architecture_info(study, None)
    best = parse(f"{A} > {B} > FCL(32,relu,bias)")
    assert (info.number, info.value, info.left_out) == (2, 0.875, "")
    assert (info.parameters, info.macs) == (SPACE.parameters(best), SPACE.macs(best))
    assert [part.shape for part in info.parts] == ["1x12x12", "8x10x10", "8x5x5", "32", "4"]
    assert [part.reward for part in info.parts] == [None, None, None, 0.125, None]
    texts = [annotation.text for annotation in plot_architecture(study).layout.annotations]
    for text in (A, B, "FCL(32,relu,bias)", "8x10x10", f"{SPACE.macs(best[:1]) - 800 * 4:,}"):
        assert text in texts


def test_the_best_is_within_its_constraints() -> None:
    study = optuna.create_study(direction="maximize")
    study.set_user_attr(SPACE_ATTRIBUTE, SPACE.settings)
    add(study, f"{A} > {C}", 0.5, 0.75, constraints={"macs": 1.0})
    info = get_architecture_info(study, None)
    assert info.parts == [] and info.note == "No trial with layers satisfies all its constraints."
    add(study, f"{A} > {B}", 0.5, 0.625, constraints={"macs": 0.0})
    assert get_architecture_info(study, None).number == 1
    on_best = [node.network for node in get_search_tree_info(study, 0).nodes if node.is_on_best]
    assert on_best[-1] == parse(f"{A} > {B}")


def test_small_values_are_told_apart() -> None:
    study = optuna.create_study(direction="minimize")
    add(study, f"{A} > {C}", 5e-6, 3e-6)
    figure = plot_architecture(study)
    assert figure.layout.title.text.endswith("3e-06")
    assert "+2e-06" in [annotation.text for annotation in figure.layout.annotations]


def test_a_trial_that_is_none(study: Study) -> None:
    with pytest.raises(ValueError, match="trial is True; the study has the trials 0 to 3"):
        plot_architecture(study, True)
    with pytest.raises(ValueError, match="trial is 0; the study has no trial"):
        plot_architecture(optuna.create_study(), 0)


def test_a_kind_that_lies_outside_is_named() -> None:
    study = optuna.create_study(direction="maximize")
    for k in range(8):
        add(study, f"{A} > {B} > FCL({16 + 16 * k},relu,bias)", 0.8, 0.80 + 0.001 * k, 0.81)
    subtitle = plot_layer_rewards(study).layout.title.subtitle.text
    assert subtitle == "First layers and outliers are out of range, all of Conv; double-click to show all."


def test_what_made_the_network_worse_is_left_out(study: Study) -> None:
    for trial in (0, study.trials[0]):
        info = get_architecture_info(study, trial)
        assert ([part.name for part in info.parts[1:-1]], info.left_out) == ([A, B], C)
    assert f"tried after it and discarded: {C}" in [
        annotation.text for annotation in plot_architecture(study, 0).layout.annotations
    ]


def test_without_a_space_there_are_layers_and_no_costs() -> None:
    study = optuna.create_study(direction="maximize")
    add(study, A, 0.5)
    info = get_architecture_info(study, None)
    assert [part.name for part in info.parts] == ["input", A, "classifier"]
    assert info.parameters is None and info.macs is None
    assert get_architecture_info(study, None, SPACE).macs == SPACE.macs(parse(A))


def test_a_space_that_does_not_fit_is_said(study: Study) -> None:
    small = LayerSpace(input_shape=(1, 4, 4), num_classes=4)
    study_of_large = optuna.create_study(direction="maximize")
    add(study_of_large, "Conv(8,7,1)", 0.5)
    assert "does not fit the space" in get_architecture_info(study_of_large, None, small).note


def test_the_study_notes_its_space_once(make: Callable[[str], Study]) -> None:
    from tests.visualization import conftest

    study = make("random")
    assert read_layers(study).space == conftest.SPACE
    assert read_layers(make("other kinds")).space == conftest.OF_OTHER_KINDS
    writes = []
    study = optuna.create_study(direction="maximize")
    study.set_user_attr = lambda *args: writes.append(args)  # type: ignore[method-assign]
    trial = study.ask()
    trial.study = study
    next(conftest.SPACE.grow(trial))
    assert writes == [(SPACE_ATTRIBUTE, conftest.SPACE.settings)]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "settings are {}; they must have the keys input_shape, "),
        ([], r"settings are \[\]; they must have the keys input_shape, "),
        ({**SPACE.settings, "vocabulary": "unheard"}, "unheard"),
        ({**SPACE.settings, "max_layers": 0}, "max_layers is 0; it must be an integer of at least 1"),
    ],
)
def test_settings_that_are_none(settings: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        LayerSpace.from_settings(settings)  # type: ignore[arg-type]


def test_several_objectives_each_have_their_direction() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.set_metric_names(["accuracy", "MACs"])
    params = {"n_layers": 1, **SPACE.to_params(parse(A))}
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.CategoricalDistribution([choice]) for name, choice in params.items()
    }
    study.add_trial(optuna.create_trial(params=params, distributions=distributions, values=[0.5, 7.0]))
    first, second = read_layers(study, 0), read_layers(study, 1)
    assert (first.sign, first.value_name, first.trials[0].values) == (1.0, "accuracy", {1: 0.5})
    assert (second.sign, second.value_name, second.trials[0].values) == (-1.0, "MACs", {1: 7.0})
