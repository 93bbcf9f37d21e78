"""The compression of known networks goes on after an interruption, and is tested once at its end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from optuna_trlhpo.benchmarks.__main__ import main
from optuna_trlhpo.benchmarks.harness.rows import read_rows
from optuna_trlhpo.benchmarks.training import compression as module
from optuna_trlhpo.cnn import CompressObjective, NarrowingAdapter, UNet

SIZES = {"train_size": 32, "validation_size": 20, "test_size": 20}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    brief = replace(
        module.SETTINGS["unet"],
        make=lambda: UNet(1, 11, width=4, depth=1),
        sizes=SIZES,
        training={"epochs": 1, "batch_size": 16},
    )
    monkeypatch.setitem(module.SETTINGS, "unet", brief)


@pytest.mark.parametrize(
    "sampler", ["trlhpo", *(pytest.param(it, marks=pytest.mark.slow) for it in ("tpe", "nsga2"))]
)
def test_row_and_report(sampler: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["compress", "--network", "unet", "--sampler", sampler, "--minutes", "0.03"]
    arguments += ["--repeats", "1", "--first-seed", "2000", "--out", str(tmp_path)]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    (row,) = read_rows(tmp_path)
    assert row["trials"] >= 1 and set(row["values"]) == set(
        NarrowingAdapter(UNet(1, 11, width=4, depth=1), (1, 32, 32)).ranges
    )
    first, second = row["original"], row["result"]
    assert second["parameters"] < first["parameters"] and len(second["accuracies"]) == 1
    assert row["gain"] == pytest.approx(second["accuracy"] - first["accuracy"], abs=1e-5)
    assert f"{second['parameters']:,} of {first['parameters']:,}" in text and "83x" in text
    assert main(arguments) == 0 and len(read_rows(tmp_path)) == 1


@pytest.mark.slow
def test_search_goes_on_after_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    how: dict[str, Any] = dict(seeds=[2000], minutes=0.02, repeats=1, sampler="random", out=tmp_path)

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CompressObjective, "smallest", interrupted)
        with pytest.raises(KeyboardInterrupt):
            module.run(["unet"], **how)
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path}/unet/random-2000.db")
    starts = NarrowingAdapter(UNet(1, 11, width=4, depth=1), (1, 32, 32)).scaled(module.SHARES[0])
    assert study.trials[0].params == starts
    (row,) = module.run(["unet"], **how)
    assert "error" not in row
    again = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path}/unet/random-2000.db")
    assert len(again.trials) <= len(study.trials) + 1
    begun = [trial.datetime_start for trial in again.trials]
    assert begun[: len(study.trials)] == [trial.datetime_start for trial in study.trials]


def test_failures_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no power")

    monkeypatch.setattr(CompressObjective, "smallest", broken)
    arguments = ["compress", "--network", "unet", "--sampler", "random", "--minutes", "0.01"]
    assert main([*arguments, "--out", str(tmp_path)]) == 1
    assert "RuntimeError: no power" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--sampler", "x"], "sampler"),
        (["--minutes", "0"], "minutes is 0; it must be positive"),
        (["--repeats", "0"], "repeats is 0"),
        (["--searches", "0"], "searches is 0"),
    ],
)
def test_wrong_arguments_are_errors(
    wrong: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compress", *wrong, "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["vgg11", "googlenet"])
def test_networks_for_images_of_32_pixels_can_be_narrowed(name: str) -> None:
    adapter = NarrowingAdapter(module.SETTINGS[name].make(), (3, 32, 32))
    smallest = adapter.build(adapter.scaled(module.SHARES[-1]))
    own, original = (
        sum(it.numel() for it in network.parameters()) for network in (smallest, module.SETTINGS[name].make())
    )
    assert original / own > 83
