"""Table II: what a study costs and stores, that it goes on where it stopped, and what the tables say."""

from __future__ import annotations

import re
import zlib

import numpy as np
import pytest
from optuna.samplers import RandomSampler

from optuna_trlhpo.benchmarks.__main__ import main
from optuna_trlhpo.benchmarks.harness.rows import read_rows
from optuna_trlhpo.benchmarks.reproduction import scales, table2
from optuna_trlhpo.benchmarks.reproduction.scales import PUBLISHED, Scale
from optuna_trlhpo.benchmarks.reproduction.table2_report import phases_of, report
from optuna_trlhpo.cnn.training.trainer import Trainer
from optuna_trlhpo.layers import describe

pytest.importorskip("sklearn", reason="needs scikit-learn (the extra 'cnn')")

IMAGES = 479
"""Validation images of digits."""


def accuracy_of(network: str, seed: int = 0) -> float:
    """Return the accuracy that `trained` gives a network: between .6 and 1."""
    return round((0.6 + 0.4 * (zlib.crc32(f"{network} {seed}".encode()) % 1000) / 1000) * IMAGES) / IMAGES


@pytest.fixture
def trained(monkeypatch):
    """Networks in the order of their trainings, none of which is real: their accuracy is `accuracy_of`."""
    networks: list[str] = []

    def validate(self, layers, *, seed, lineage=(), watch=None):
        networks.append(describe(layers))
        n = len(self.data.validation_labels)
        assert n == IMAGES
        return np.arange(n) < round(accuracy_of(networks[-1], seed) * n)

    monkeypatch.setattr(Trainer, "validate", validate)
    monkeypatch.setitem(scales.SCALES, "tiny", Scale(64, 64, epochs=1, max_macs=5e5, trainings=12, seeds=2))
    return networks


@pytest.fixture
def run(trained, tmp_path):
    def call(samplers=("random",), *, seeds=(0,), **others):
        return table2.run("tiny", samplers, seeds=seeds, problem="digits", out=tmp_path, **others)

    return call


def test_a_terminal_study_trains_once_a_trial(run, trained, tmp_path):
    (row,) = run()
    told = [row[name] for name in ("problem", "form", "sampler", "seed", "scale", "budget")]
    assert told == ["digits", "terminal", "random", 0, "tiny", 12]
    values = [accuracy_of(network) for network in trained]
    assert row["trainings"] == len(trained) == 12 and len(set(trained)) == 12
    assert row["trials"] == len(row["models"]) == 12 + row["hits"]
    best = max(values)
    assert row["curve"][0] == [1, values[0]] and row["curve"][-1] == [values.index(best) + 1, best]
    assert row["architecture"] == trained[values.index(best)]
    ends = [end for _, end in row["models"]]
    assert ends == sorted(ends) and 0 < row["best_seconds"] <= ends[-1] == row["seconds"]
    assert row["exploring"] is None and row["device"]
    assert read_rows(tmp_path) == [row] and run() == []


def test_a_progressive_study_pays_for_every_prefix(run, trained):
    (row,) = run(["trlhpo-paper"])
    assert row["form"] == "progressive" and row["exploring"] == 3
    assert 12 <= row["trainings"] == len(trained) <= 17  # the last trial is finished
    assert row["trials"] < row["trainings"]
    prefixes = {network.rpartition(" > ")[0] for network in trained} - {""}
    assert prefixes and prefixes <= set(trained)
    assert all(value == max(value, 0.6) for value, _ in row["models"])


@pytest.fixture
def interrupt(run, monkeypatch):
    """Runs a study that is interrupted before a training, and runs it again."""
    validate = Trainer.validate

    def call(samplers, *, before, networks):
        def interrupted(self, layers, **others):
            if len(networks) == before:
                raise KeyboardInterrupt
            return validate(self, layers, **others)

        monkeypatch.setattr(Trainer, "validate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(samplers)
        monkeypatch.setattr(Trainer, "validate", validate)
        (row,) = run(samplers)
        return row

    return call


def test_an_interrupted_study_goes_on(interrupt, trained):
    row = interrupt(["random"], before=7, networks=trained)
    assert row["trainings"] == len(trained) == 12  # the seven before count, and are not trained again
    assert len(set(trained)) == 12
    assert row["hits"] <= 2  # Optuna's sampler did not begin again


def test_an_interrupted_agent_goes_on_as_if_it_had_not_been(interrupt, trained, tmp_path):
    (whole,) = table2.run("tiny", ["trlhpo-paper"], seeds=[0], problem="digits", out=tmp_path / "whole")
    trained.clear()
    row = interrupt(["trlhpo-paper"], before=8, networks=trained)
    for name in ("curve", "architecture", "trainings", "trials", "hits"):
        assert row[name] == whole[name], name


def test_a_study_that_fails_is_told_and_goes_on(run, trained):
    class Broken(RandomSampler):
        calls = 0

        def sample_independent(self, *arguments):
            Broken.calls += 1
            if Broken.calls == 30:
                raise ZeroDivisionError("broken")
            return super().sample_independent(*arguments)

    (row,) = run({"broken": Broken})
    assert row["error"] == "ZeroDivisionError: broken"
    before = len(trained)
    assert 1 < before < 12
    (row,) = run({"broken": Broken})
    assert row["trainings"] == 12 == len(trained)


def test_seeds_share_networks_but_no_values(run, trained):
    one, two = run(seeds=[0, 1])
    assert accuracy_of(one["architecture"], 0) == one["curve"][-1][1]
    assert accuracy_of(two["architecture"], 1) == two["curve"][-1][1]


def test_the_remaining_time_is_shown(run, capsys):
    run(progress=True)
    told = capsys.readouterr().err
    assert re.search(r"random, seed 0: 2 of 12 trainings, [0-9]+ s left", told)


def test_without_mnist_digits_are_played_and_it_is_said(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(scales.SCALES, "minutes", scales.SCALES["tiny"])
    samplers = ["--samplers", "random", "trlhpo-prior", "--seeds", "1"]
    folders = ["--data-root", str(tmp_path), "--out", str(tmp_path / "rows")]
    assert main(["table2", *samplers, *folders, "--markdown", str(tmp_path / "table.md")]) == 0
    told = capsys.readouterr().out
    assert "Scikit-learn's digits replace MNIST" in told and "trlhpo-prior is left out" in told
    assert "## Table II on digits, scale minutes" in told and "The paper's numbers are of MNIST" in told
    assert [row["sampler"] for row in read_rows(tmp_path / "rows")] == ["random"]
    assert (tmp_path / "table.md").read_text() in told


def test_mnist_is_asked_for_before_the_first_study(trained, tmp_path):
    with pytest.raises(FileNotFoundError, match="MNIST"):
        table2.run("tiny", ["random"], seeds=[0], out=tmp_path, data_root=tmp_path)
    assert read_rows(tmp_path) == []


# Tables ------------------------------------------------------------------------------------------------


def row_of(sampler, seed, models, *, exploring=None, best=0.9, seconds=100.0, **others):
    return {
        "problem": "mnist",
        "form": "terminal",
        "sampler": sampler,
        "seed": seed,
        "scale": "minutes",
        "budget": 100,
        "curve": [[1, 0.5], [40, best]],
        "models": models,
        "exploring": exploring,
        "best_seconds": 36.0,
        "trainings": 100,
        "trials": 101,
        "hits": 1,
        "seconds": seconds,
        "training_seconds": seconds - 10,
        "versions": {"python": "3"},
        "machine": "abacus",
        "device": "cpu",
        **others,
    }


PAPER = [[0.7, 10], [0.8, 50], [0.9, 100]]
ROWS = [
    row_of("trlhpo-paper", 0, PAPER, exploring=1),
    row_of("trlhpo-paper", 1, PAPER, exploring=1, seconds=60.0),
    row_of("random", 0, [[0.5, 20], [0.6, 100], [0.99, 101]], best=0.95),
    row_of("random", 1, [[0.7, 20], [0.8, 61]], best=0.93),
    row_of("tpe", 2, [[0.5, 1]]),
]


def by_sampler(rows):
    return {
        name: {row["seed"]: row for row in rows if row["sampler"] == name}
        for name in ("trlhpo-paper", "random", "tpe")
    }


def test_models_count_until_the_papers_agent_ends():
    paper = phases_of(by_sampler(ROWS), "trlhpo-paper")
    assert paper.exploring == pytest.approx([70, 70])
    assert paper.exploiting == pytest.approx([80, 90, 80])  # the second study ends after 60 seconds
    random = phases_of(by_sampler(ROWS), "random")
    assert (random.exploring, random.exploiting) == ([], pytest.approx([50, 60, 70]))
    assert phases_of(by_sampler(ROWS), "tpe") == ([], [])  # no study of the paper's agent has this seed


def table_lines(text):
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| ")
    ]


def test_the_tables_are_what_was_measured():
    lines = table_lines(report(ROWS, "mnist", "minutes"))
    published = {line[0]: line for line in lines[2:5]}
    assert published["trlhpo-paper"] == [
        # .             paper             best             difference  hours                      AccTime
        *("trlhpo-paper", "99.1 (TRL-HPO)", "90.00 ± 0.00", "-9.10", "99.3", "0.01", "0.0222", "94.6 ± 3.8"),
        *("83.33 ± 5.77", "-11.27", ""),
    ]
    # Welch by hand: (60 - 83.3) / sqrt(100 / 3 + 33.3 / 3) = -3.5, with 3.2 degrees of freedom
    assert published["random"][2:] == [
        "94.00 ± 1.41",
        "",
        "",
        "0.01",
        "0.0278",
        "",
        "60.00 ± 10.00",
        "",
        "0.036",
    ]
    phases = lines[7:10]
    assert phases[0] == ["trlhpo-paper", "2", "70.00 ± 0.00", "70.00", "3", "83.33 ± 5.77", "90.00"]
    assert phases[1] == ["random", "", "", "", "3", "60.00 ± 10.00", "70.00"]
    regrets = {line[0]: line for line in lines[12:]}
    assert regrets["trlhpo-paper"][:7] == ["trlhpo-paper", "terminal", "2", "50.000 ± 0.000"] + [
        *("10.000 ± 0.000", "10.000 ± 0.000", "")
    ]
    assert regrets["random"][3:] == ["50.000 ± 0.000", "6.000 ± 1.000", "6.000 ± 1.000"] + [
        *("0.500", "100", "101", "1", "90", "10")
    ]


def test_the_published_numbers_stand_beside():
    assert PUBLISHED["metaqnn"] == ("MetaQNN", 99.5, "192-240", 88.5, 4.3)
    lines = table_lines(report([row_of("multi-agent", 0, PAPER)], "mnist", "minutes"))
    assert lines[2][:5] == ["multi-agent", "95.8 (Neary)", "90.00", "-5.80", "1.78"]
    assert lines[2][7:] == ["95.8", "", "", ""]  # without the paper's agent there is no time to compare at


def test_without_rows_a_sentence_says_so():
    failed = row_of("random", 0, [], error="gone")
    text = report([failed], "mnist", "minutes")
    assert text.startswith("There is no complete study of mnist at the scale minutes.") and "gone" in text
