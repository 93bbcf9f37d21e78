"""The search of networks for small devices goes on after an interruption, and is tested once at its end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from optuna_trlhpo.benchmarks.__main__ import main
from optuna_trlhpo.benchmarks.harness.rows import read_rows
from optuna_trlhpo.benchmarks.training import small_networks as module


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    brief = replace(module.SETTINGS["digits-2000"], search={"epochs": 1}, whole={"epochs": 1}, leaders=2)
    monkeypatch.setitem(module.SETTINGS, "digits-2000", replace(brief, refit_epochs=2))


@pytest.mark.slow
def test_row_and_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["small", "--settings", "digits-2000", "--searches", "1", "--refits", "2"]
    arguments += ["--out", str(tmp_path)]
    assert main([*arguments, "--minutes", "0.05"]) == 0
    text = capsys.readouterr().out
    (row,) = read_rows(tmp_path)
    assert row["parameters"] <= 2000 and row["macs"] <= 1e5
    assert len(row["test_errors"]) == len(row["int8_errors"]) == len(row["int8_losses"]) == 2
    assert row["bytes"] < row["float_bytes"] and row["accuracies"] == sorted(row["accuracies"], reverse=True)
    assert "| digits-2000 | 1 |" in text and row["architecture"] in text
    assert "0.05 minutes, limits: max_parameters 2000" in text
    assert main([*arguments, "--minutes", "0.05"]) == 0 and len(read_rows(tmp_path)) == 1


@pytest.mark.slow
def test_search_goes_on_after_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    how: dict[str, Any] = dict(seeds=[1], minutes=0.05, refits=1, out=tmp_path)

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module.CNNObjective, "confirm", interrupted)
        with pytest.raises(KeyboardInterrupt):
            module.run(["digits-2000"], **how)
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path}/digits-2000/trlhpo-1.db")
    (row,) = module.run(["digits-2000"], **how)
    # The time was up, so at most the trial that an interruption cut short is made up for.
    assert len(study.trials) <= row["trials"] <= len(study.trials) + 2


@pytest.mark.slow
def test_failures_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no power")

    monkeypatch.setattr(module.CNNObjective, "confirm", broken)
    (row,) = module.run(["digits-2000"], seeds=[0], minutes=0.02, refits=1, out=tmp_path)
    assert row["error"] == "RuntimeError: no power"
    text = module.report([row], ["digits-2000"])
    assert text.startswith("There is no complete search.\n") and "seed 0: RuntimeError: no power" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist1d-8000", "cancer-1000"])
def test_other_kinds_of_data_are_searched_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    setting = module.SETTINGS[name]
    brief = replace(setting, search={**setting.search, "epochs": 1}, whole={**setting.whole, "epochs": 2})
    monkeypatch.setitem(module.SETTINGS, name, replace(brief, leaders=1, refit_epochs=2))
    (row,) = module.run([name], seeds=[2000], minutes=0.05, refits=1, out=tmp_path)
    assert "error" not in row
    assert row["parameters"] <= setting.limits["max_parameters"] and row["bytes"] < row["float_bytes"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ["--settings", "mnist"],
            "unknown setting mnist; there are mnist-8000, mnist-33000, digits-2000",
        ),
        (["--sampler", "mine"], "unknown sampler mine"),
        (["--minutes", "0"], "minutes is 0; it must be positive"),
        (["--refits", "0"], "refits is 0; it must be at least 1"),
    ],
)
def test_bad_arguments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], error: str
) -> None:
    assert main(["small", *arguments, "--out", str(tmp_path)]) == 2
    assert error in capsys.readouterr().err
