"""A search with and without what spares trainings: what each trains, and what the table says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from optuna_trlhpo.benchmarks.__main__ import main
from optuna_trlhpo.benchmarks.harness.rows import read_rows
from optuna_trlhpo.benchmarks.training import engine_search
from optuna_trlhpo.benchmarks.training.engine_search import ENGINE, PLAIN, make_objective, report, run
from optuna_trlhpo.cnn import savings
from optuna_trlhpo.layers import parse

pytest.importorskip("sklearn", reason="needs scikit-learn (the extra 'cnn')")
pytest.importorskip("torchvision", reason="needs torchvision (the extra 'cnn')")

TWO = "Conv(8,3,1) > MaxPool(2,2,0)"


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_search, "DATASET", "digits")
    monkeypatch.setattr(engine_search, "EPOCHS", 2)


@pytest.mark.slow
def test_the_plain_objective_trains_all_again_and_is_no_worse() -> None:
    plain, engine = (make_objective(arm, seed=0, images=400, data_root="data") for arm in (PLAIN, ENGINE))
    for objective, trained, looked_up in ((plain, 4, 0), (engine, 2, 2)):
        objective.space.min_accuracy = None  # so that both layers are trained
        sampler = optuna.samplers.RandomSampler(seed=0)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        params = objective.space.to_params(parse(TWO))
        for _ in range(2):
            study.enqueue_trial(params)
        objective.space.max_layers = 2
        study.optimize(objective, n_trials=2)
        counted = savings(study)
        assert (counted.trained, counted.looked_up) == (trained, looked_up)
        assert study.best_value > 0.5
        assert study.trials[0].intermediate_values == study.trials[1].intermediate_values
    pixels = engine_search.pixels_of(plain.data.train_images, plain.data)
    assert pixels.shape == (400, 8, 8) and pixels.min() == 0 and 200 < pixels.max() <= 255


@pytest.mark.slow
def test_rows_are_made_once_and_summed_up(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"trials": 2, "images": 200, "refits": 2, "out": tmp_path}
    rows = run(seeds=range(2), **arguments)
    studies = [(row["sampler"], row["seed"]) for row in rows]
    assert studies == [(PLAIN, 0), (ENGINE, 0), (PLAIN, 1), (ENGINE, 1)]
    assert not any("error" in row for row in rows)
    assert run(seeds=range(2), **arguments) == []
    text = report(rows, trials=2, images=200, refits=2)
    match = re.search(
        r"engine-search seeds 2 time-share (\S+) \(at most 0.333\) test-error-change (\S+)", text
    )
    assert match is not None
    seconds = {arm: sum(row["seconds"] for row in rows if row["sampler"] == arm) for arm in (PLAIN, ENGINE)}
    errors = {
        arm: np.mean([row["test_errors"] for row in rows if row["sampler"] == arm]) for arm in (PLAIN, ENGINE)
    }
    assert float(match[1]) == pytest.approx(seconds[ENGINE] / seconds[PLAIN], abs=1e-3)
    assert float(match[2]) == pytest.approx(100 * (errors[ENGINE] - errors[PLAIN]), abs=1e-3)
    assert report(rows, trials=3).startswith("There is no seed with a complete study of both.")


@pytest.mark.slow
def test_rows_of_other_settings_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: dict[str, Any] = {"trials": 1, "images": 100, "refits": 1, "out": tmp_path}
    rows = run(seeds=[0], **arguments)
    monkeypatch.setitem(engine_search.REDUCED, "early_stop", optuna.pruners.MedianPruner(n_startup_trials=9))
    assert report(rows, trials=1, images=100, refits=1).startswith("There is no seed")
    assert len(run([ENGINE], seeds=[0], **arguments)) == 1
    monkeypatch.setattr(engine_search, "EPOCHS", 3)
    assert len(run([PLAIN], seeds=[0], **arguments)) == 1


@pytest.mark.slow
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["engine-search", "--seeds", "1", "--trials", "1", "--images", "100", "--refits", "1"]
    assert main([*command, "--out", str(tmp_path)]) == 0
    assert "engine-search seeds 1 time-share" in capsys.readouterr().out.splitlines()[-2]
    assert len(read_rows(tmp_path)) == 2
    assert main([*command, "--arms", "fast", "--out", str(tmp_path)]) == 2
    assert "unknown arm fast" in capsys.readouterr().err
