"""What the figures of the agent show: attention, and what was expected."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import optuna
import pytest
from optuna.study import Study

from optuna_trlhpo import LayerSpace, parse
from optuna_trlhpo.trials.agent_record import AGENT_ATTRIBUTE, AgentRecord, Forecast
from optuna_trlhpo.visualization import attention_affinity_findings, plot_agent, plot_attention
from optuna_trlhpo.visualization._agent import get_agent_info
from optuna_trlhpo.visualization._attention import get_attention_info
from optuna_trlhpo.visualization._attention_affinity import get_attention_affinity_info
from optuna_trlhpo.visualization._plotly import GREY
from tests.helpers import agent_note_of

SPACE = LayerSpace(input_shape=(1, 12, 12), num_classes=4, max_layers=3)


def add(study: Study, text: str, reports: list[float], note: AgentRecord) -> None:
    params = SPACE.to_params(parse(text))
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.CategoricalDistribution([choice]) for name, choice in params.items()
    }
    trial = optuna.create_trial(
        params=params,
        distributions=distributions,
        intermediate_values=dict(enumerate(reports)),
        value=max(reports),
        system_attrs={AGENT_ATTRIBUTE: note.to_json()},
    )
    study.add_trial(trial)


def rows_with(last: list[float]) -> list[np.ndarray]:
    """Rows of one head in which the layer that was added last gets ``last[k - 1]``, and the question the
    rest."""
    rows = []
    for k, weight in enumerate(last, start=1):
        row = np.zeros((1, k + 1))
        row[0, k - 1], row[0, k] = weight, 1 - weight
        rows.append(row)
    return rows


# One trial --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paper", "scores", "transformer", "no layers, paper", "whole"])
def test_rows_sum_to_one_and_what_is_masked_is_blank(name: str, make: Callable[[str], Study]) -> None:
    study = make(name)
    info = get_attention_info(study, None)
    assert info.weights
    for weights in info.weights.values():
        H, S, columns = weights.shape
        assert columns == S + 1 == len(info.steps) + 1 and len(info.asked) == S
        np.testing.assert_allclose(np.nansum(weights, axis=2), 1, atol=columns / 2 / 4095)
        for k in range(1, S + 1):
            assert np.isnan(weights[:, k - 1, k:S]).all() and not np.isnan(weights[:, k - 1, :k]).any()
    for trace in plot_attention(study).data:
        cells = np.array(trace.z, dtype=float)
        assert np.isnan(cells).sum() == S * (S - 1) // 2


def test_every_head_is_on_the_menu(make: Callable[[str], Study]) -> None:
    study = make("paper")
    note = agent_note_of(study.trials[5])
    figure = plot_attention(study, study.trials[5])
    mean, *heads = figure.layout.updatemenus[0].buttons
    H = len(note.attention["actor"][0])
    assert [button.label for button in heads] == [f"head {h + 1}" for h in range(H)]
    for h, button in enumerate(heads):
        actor, critic = button.args[0]["z"]
        assert actor[0][0] == pytest.approx(note.attention["actor"][0][h, 0], abs=1e-4)
        assert critic[0][0] == pytest.approx(note.attention["critic"][0][h, 0], abs=1e-4)
    shown = mean.args[0]["z"][0][0][0]
    assert shown == pytest.approx(note.attention["actor"][0][:, 0].mean(), abs=1e-4)


def test_layers_are_named(make: Callable[[str], Study]) -> None:
    study = make("paper")
    info = get_attention_info(study, None)
    assert info.number == study.best_trial.number
    assert all(name.split()[1].startswith(("Conv(", "MaxPool(", "FCL(")) for name in info.steps)
    assert info.asked[0] == f"choosing {info.steps[1]}" and info.asked[-1] == "choosing the next step"
    assert get_attention_info(make("whole"), None).steps[0] == "n_layers"
    assert get_attention_info(make("no layers, paper"), None).steps == ["x"]


# All trials -------------------------------------------------------------------------------------------


def test_attention_that_follows_the_rewards_is_found() -> None:
    study = optuna.create_study(direction="maximize")
    rng = np.random.default_rng(0)
    for filters in range(8, 129, 8):
        for kernel in (3, 5):
            reward = float(rng.uniform(-0.2, 0.2))
            rows = rows_with([0.5, 0.4 + reward])
            text = f"Conv({filters},{kernel},1) > FCL(16,relu,bias)"
            add(study, text, [0.5, 0.5 + reward], AgentRecord("actor", attention={"critic": rows}))
    (found,) = get_attention_affinity_info(study, 0).found
    assert found.whose == "critic"
    assert found.agreement.statistic > 0.999 and found.agreement.p < 0.01
    assert found.difference.p < 0.01 and found.difference.statistic > 0
    assert len(found.removed) == 32 and all(one.position == 2 for one in found.removed)


def test_attention_by_place_alone_is_no_merit() -> None:
    """First layers help and get much, later ones harm and get little, whatever they are."""
    study = optuna.create_study(direction="maximize")
    rng = np.random.default_rng(1)
    for filters in range(8, 129, 8):
        reports = [0.6, 0.6 + float(rng.uniform(0.01, 0.1))]
        reports.append(reports[1] - float(rng.uniform(-0.02, 0.1)))
        weights = [0.5, 0.33 + float(rng.uniform(-0.01, 0.01)), 0.25 + float(rng.uniform(-0.01, 0.01))]
        text = f"Conv({filters},3,1) > FCL(32,relu,bias) > FCL(16,relu,bias)"
        add(study, text, reports, AgentRecord("actor", attention={"actor": rows_with(weights)}))
    (found,) = get_attention_affinity_info(study, 0).found
    assert found.difference.statistic > 0.05  # the paper's comparison finds a difference
    assert found.difference.expected == pytest.approx(found.difference.statistic, abs=0.01)  # by place
    assert found.agreement.p > 0.05
    lines = attention_affinity_findings(study)
    assert len(lines) == 3 and all(line.startswith("actor") for line in lines)


def test_a_layer_in_the_middle_is_removed_where_the_study_has_both() -> None:
    study = optuna.create_study(direction="maximize")
    rows = [np.full((1, k + 1), 1 / (k + 1)) for k in (1, 2, 3)]
    note = AgentRecord("actor", attention={"actor": rows})
    add(study, "Conv(8,3,1) > MaxPool(2,2,0) > FCL(16,relu,bias)", [0.25, 0.5, 0.75], note)
    add(study, "Conv(8,3,1) > FCL(16,relu,bias)", [0.25, 0.5], note)
    (found,) = get_attention_affinity_info(study, 0).found
    costs = {(len(one.network), one.position, one.network[-1].kind): one.cost for one in found.removed}
    assert costs == {
        (2, 2, "MaxPool"): 0.25,
        (2, 2, "FCL"): 0.25,
        (3, 3, "FCL"): 0.25,
        (3, 2, "FCL"): 0.25,  # the network without its pooling layer was tried: 0.75 - 0.5
    }
    assert all(one.lift == pytest.approx(1, abs=1e-3) for one in found.layers)


@pytest.mark.parametrize("before", [["lr"], ["lr", "dropout"], ["n_layers"]], ids=["one", "two", "depth"])
def test_what_is_suggested_before_the_layers_is_no_layer(before: list[str]) -> None:
    study = optuna.create_study(direction="maximize")
    network, n = parse("Conv(8,3,1) > FCL(16,relu,bias)"), len(before)
    params = {**dict.fromkeys(before, 2), **SPACE.to_params(network)}
    rows = [np.zeros((1, k + 1)) for k in range(1, n + 3)]
    for row in rows:
        row[0, : row.shape[1] - 1] = 0.1  # of all that is no layer
        row[0, -1] = 1 - row[0, :-1].sum()
    rows[n][0, n : n + 2] = 0.5, 1 - 0.5 - 0.1 * n
    rows[n + 1][0, n : n + 3] = 0.125, 0.25, 1 - 0.375 - 0.1 * n
    study.add_trial(
        optuna.create_trial(
            params=params,
            distributions={k: optuna.distributions.CategoricalDistribution([v]) for k, v in params.items()},
            value=0.75,
            system_attrs={AGENT_ATTRIBUTE: AgentRecord("actor", attention={"actor": rows}).to_json()},
        )
    )
    (found,) = get_attention_affinity_info(study, 0).found
    shares = {(len(one.network), one.position): one.share for one in found.layers}
    assert shares == pytest.approx({(1, 1): 0.5, (2, 1): 0.125, (2, 2): 0.25}, abs=1e-3)
    lifts = {(len(one.network), one.position): one.lift for one in found.layers}
    assert lifts[1, 1] == pytest.approx(0.5 * (n + 2), abs=1e-2)
    assert lifts[2, 2] == pytest.approx(0.25 * (n + 3), abs=1e-2)


# What was expected ------------------------------------------------------------------------------------


def test_q_against_the_return_by_hand() -> None:
    study = optuna.create_study(direction="maximize")
    note = AgentRecord("actor", q=(0.9, 0.2), exploration=0.5, losses=(0.1, -0.2))
    params = {"units_l0": 1, "units_l1": 1}
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.IntDistribution(1, 4) for name in params
    }
    trial = optuna.create_trial(
        params=params,
        distributions=distributions,
        intermediate_values={0: 0.5, 1: 0.75},
        value=0.75,
        system_attrs={AGENT_ATTRIBUTE: note.to_json(), "trlhpo:seen": [[1, 0]]},
    )
    study.add_trial(trial)
    info = get_agent_info(study)
    assert info.calibration.expected == [0.9, 0.2]
    # All that was to come, over the mean of first reports; what the second step added.
    assert info.calibration.realised == [0.25, 0.25]
    assert info.calibration.steps == [0, 1] and np.isnan(info.calibration.correlation)
    assert [series.values for series in info.losses] == [[0.1], [-0.2]]
    assert info.exploration[0].values == [0.5] and info.spread == [] and info.cache == []


def test_of_several_objectives_the_agent_says_why_it_has_nothing() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    note = AgentRecord("posterior").to_json()
    study.add_trial(optuna.create_trial(values=[1.0, 2.0], system_attrs={AGENT_ATTRIBUTE: note}))
    assert "it records no expected values in a study with several objectives" in get_agent_info(study).note


def test_of_two_agents_what_the_more_trials_have_is_compared() -> None:
    study = optuna.create_study(direction="maximize")
    plan = AgentRecord("posterior", plans=(Forecast(0, 1, 0.5, 0.4, 0.6),))
    for n, note in enumerate([AgentRecord("actor", q=(0.5,)), plan, plan]):
        trial = optuna.create_trial(
            params={"x": 0.5},
            distributions={"x": optuna.distributions.FloatDistribution(0, 1)},
            value=0.5 + n,
            system_attrs={AGENT_ATTRIBUTE: note.to_json()},
        )
        study.add_trial(trial)
    calibration = get_agent_info(study).calibration
    assert (calibration.unit, calibration.trials) == ("value of the plan", [1, 2])


@pytest.mark.slow
def test_what_came_need_not_begin_at_zero_and_bars_have_one_colour(make: Callable[[str], Study]) -> None:
    figure = plot_agent(make("default"))
    (points,) = [trace for trace in figure.data if trace.name == "value of the plan"]
    assert points.error_x.color == GREY and not isinstance(points.error_x.color, tuple)
    axis = figure.layout[points.yaxis.replace("y", "yaxis")]
    assert (axis.title.text, axis.rangemode) == ("Realised", "normal")


def test_plans_against_their_values_by_hand() -> None:
    study = optuna.create_study(direction="minimize")
    plans = (Forecast(0, 2, 0.5, 0.4, 0.6), Forecast(1, 2, 0.3, 0.2, 0.4))
    trial = optuna.create_trial(
        params={"units_l0": 1, "units_l1": 1},
        distributions={name: optuna.distributions.IntDistribution(1, 4) for name in ("units_l0", "units_l1")},
        value=0.25,
        system_attrs={AGENT_ATTRIBUTE: AgentRecord("posterior", plans=plans).to_json()},
        user_attrs={"trainings": "key 0:0.5:1 1:0.75:=1"},
    )
    study.add_trial(trial)
    info = get_agent_info(study)
    assert (info.calibration.expected, info.calibration.realised) == ([0.3], [0.25])  # of the last plan
    assert info.calibration.covered == 1
    assert info.spread[0].values == [pytest.approx(0.1)]
    assert info.cache[0].values == [0.5]


def test_what_the_real_agents_expect_is_compared(make: Callable[[str], Study]) -> None:
    for name in ("paper", "scores", "transformer", "default", "minimize", "no accuracy"):
        calibration = get_agent_info(make(name)).calibration
        assert calibration.trials and np.isfinite([*calibration.expected, *calibration.realised]).all(), name
    paper = get_agent_info(make("paper"))
    assert paper.calibration.unit == "Q of a step"
    assert max(np.abs(paper.calibration.realised)) <= 1
