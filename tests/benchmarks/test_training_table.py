"""Networks that are really trained, the table made of them, and the surrogate on it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import optuna
import pytest

from optuna_trlhpo.benchmarks.__main__ import main
from optuna_trlhpo.benchmarks.layer_prior import training_table
from optuna_trlhpo.benchmarks.layer_prior.training_table import read_rows, train_table, vary
from optuna_trlhpo.benchmarks.problems import tasks
from optuna_trlhpo.benchmarks.problems.mnist_layers import (
    MnistLayers,
    TabulatedTraining,
    read_table,
    write_table,
)
from optuna_trlhpo.benchmarks.problems.tasks import TASKS
from optuna_trlhpo.layers import describe, parse

pytest.importorskip("sklearn", reason="needs scikit-learn (the extra 'cnn')")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
    task = dataclasses.replace(TASKS["digits"], train_size=64, validation_size=32, epochs=4, begin_varying=4)
    monkeypatch.setitem(tasks.TASKS, "tiny", task)
    return "tiny"


def synthetic_table(n: int = 200) -> list[TabulatedTraining]:
    """More channels in the first layer, better; twice each, with a little noise."""
    rng, space = np.random.default_rng(0), TASKS["mnist"].space
    networks = {space.draw(rng, depth=int(rng.integers(1, 4))) for _ in range(n)}
    rows = []
    for network in sorted(networks, key=describe):
        for seed in range(2):
            accuracy = 0.8 + 0.15 * network[0].values[0] / 128 + 0.002 * float(rng.standard_normal())
            rows.append(TabulatedTraining(describe(network), seed, accuracy, (0.5,) * 4, 10, 10, 0.1))
    return rows


def test_random_networks_and_their_variations_belong_to_the_space():
    rng = np.random.default_rng(0)
    for k in range(100):
        space = TASKS["mnist" if k < 50 else "digits-16-cnn"].spaces[0]
        network = space.draw(rng)
        space.check(network)
        varied = vary(space, network, rng)
        space.check(varied)
        assert varied != network


def test_every_prefix_is_trained_and_a_call_goes_on_where_the_last_one_ended(tiny, tmp_path):
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    list(train_table(tiny, whole, n_networks=9, seed=3))
    list(train_table(tiny, parts, n_networks=4, seed=3))
    n_before = len(read_rows(parts))
    with parts.open("a") as file:
        file.write('{"architecture": "Conv(8')  # cut off
    list(train_table(tiny, parts, n_networks=n_before, seed=3))
    assert len(read_rows(parts)) == n_before
    rows = read_rows(whole)
    assert 9 <= len(rows) <= 9 + 5
    known = {row["architecture"] for row in rows}
    for row in rows:
        network = parse(row["architecture"])
        assert {describe(network[: k + 1]) for k in range(len(network))} <= known
        assert len(row["curve"]) == 4 and row["curve"][-1] == row["accuracy"]
        assert row["seconds"] > 0 and row["parameters"] > 0
    strip = [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
    again = [{key: value for key, value in row.items() if key != "seconds"} for row in read_rows(parts)]
    assert again == strip[: len(again)]


def test_repetitions_have_seeds_of_their_own(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(training_table, "REPEATED_SHARE", 0.5)
    path = tmp_path / "rows.jsonl"
    list(train_table(tiny, path, n_networks=14))
    pairs = [(row["architecture"], row["seed"]) for row in read_rows(path)]
    assert len(set(pairs)) == len(pairs) > len({architecture for architecture, _ in pairs})


def test_the_command_trains_and_writes_a_table(tiny, tmp_path, capsys):
    rows, table = tmp_path / "rows.jsonl", tmp_path / "table.csv.gz"
    assert main(["train", str(rows), "--task", tiny, "--networks", "3", "--table", str(table)]) == 0
    assert "trainings in" in capsys.readouterr().out
    written = [json.loads(line) for line in rows.read_text().splitlines()]
    read = read_table(table)
    assert {(row["architecture"], row["accuracy"]) for row in written} == {
        (r.architecture, r.accuracy) for r in read
    }


def test_a_table_is_the_same_file_each_time(tmp_path):
    rows = [row._asdict() for row in synthetic_table(5)]
    write_table(rows, tmp_path / "a")
    write_table(reversed(rows), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_table(tmp_path / "a") == sorted(
        synthetic_table(5), key=lambda row: (row.architecture, row.seed)
    )


def test_the_surrogate_learns_and_promises_nothing_better_than_was_seen():
    problem = MnistLayers(synthetic_table())
    seen = [row.accuracy for row in synthetic_table()]
    assert problem.optimum <= max(seen)
    few, many = problem.true_value("Conv(8,5,2)"), problem.true_value("Conv(128,5,3)")
    assert many - few > 0.08
    assert 0.001 < problem.surrogate.noise < 0.05
    assert problem.regret("Conv(8,5,2)") == pytest.approx(100 * (problem.optimum - few))


@pytest.mark.parametrize("form", ["progressive", "terminal"])
def test_the_problem_is_played_in_both_forms(form):
    objective = MnistLayers(synthetic_table()).objective(form, seed=0, budget=5)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    while not objective.evaluator.exhausted:
        study.optimize(objective, n_trials=1)
    assert objective.evaluator.trainings == 5
    assert any(trial.intermediate_values for trial in study.trials) == (form == "progressive")


def test_the_published_table_is_what_the_task_says():
    table = read_table()
    space = TASKS["mnist"].space
    assert len({row.architecture for row in table}) > 1000
    for row in table[::97]:
        network = parse(row.architecture)
        space.check(network)
        assert row.macs == space.macs(network) <= TASKS["mnist"].max_macs
        assert 0 <= row.accuracy <= 1 and row.curve[-1] == pytest.approx(row.accuracy, abs=1e-4)
