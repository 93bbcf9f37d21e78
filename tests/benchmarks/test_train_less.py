"""What training less saves: what is trained in each way, what is kept, and what the table says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optuna_trlhpo.benchmarks.__main__ import main
from optuna_trlhpo.benchmarks.layer_prior.training_table import read_rows
from optuna_trlhpo.benchmarks.training import train_less
from optuna_trlhpo.benchmarks.training.train_less import AGAIN, FULL, WAYS, Ranking, report, run
from optuna_trlhpo.cnn.data.datasets import load_data

pytest.importorskip("sklearn", reason="needs scikit-learn (the extra 'cnn')")
pytest.importorskip("scipy", reason="needs scipy (the extra 'bench')")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        train_less,
        "load",
        lambda _, images: load_data("digits", train_size=images, validation_size=100, device="cpu"),
    )


def rows_in(out: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(out.glob("*.jsonl")) for row in read_rows(path)]


@pytest.mark.slow
def test_every_way_trains_what_it_says(tmp_path: Path) -> None:
    run(list(WAYS), networks=4, images=60, out=tmp_path, data_root="data")
    of_way: dict[str, dict[str, Any]] = {}
    for row in rows_in(tmp_path):
        of_way.setdefault(row["way"], {})[row["network"]] = row
    assert of_way.keys() == WAYS.keys() and all(len(rows) == 4 for rows in of_way.values())
    for network, whole in of_way[FULL].items():
        depth = network.count(">") + 1
        assert whole["depths"] == list(range(1, depth + 1)) and depth in (2, 3, 4)
        assert of_way[AGAIN][network]["depths"] == whole["depths"]
        # Without a network to inherit from all begin alike.
        assert of_way["inherited"][network]["accuracies"][0] == whole["accuracies"][0]
        halves = of_way["blocks of 2, inherited, half the epochs"][network]
        assert halves["depths"] == {2: [2], 3: [2, 3], 4: [2, 4]}[depth]
        assert halves["accuracies"][0] == whole["accuracies"][1]
        watched = of_way["early stop of the worse half"][network]
        assert all(len(curve) in (1, 2, 3) for curve in watched["curves"])
    changed = [
        of_way[name][network]["accuracies"][-1] != whole["accuracies"][-1]
        for name in (AGAIN, "inherited", "half the epochs")
        for network, whole in of_way[FULL].items()
    ]
    assert np.mean(changed) > 0.5
    text = report(rows_in(tmp_path), images=60)
    table = {cells[1]: cells for line in text.splitlines() if len(cells := line.split("| ")) > 5}
    assert [name.strip() for name in table][2:] == [*WAYS, "blocks of 2", "blocks of 3"]
    assert table["blocks of 2 "][4].startswith("1.000")  # the same trainings
    assert table[f"{FULL} "][3].strip() == "0 %"


@pytest.mark.slow
def test_what_was_broken_off_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    way, grow = "early stop of the worse half", train_less.grow
    grown: list[Any] = []

    def noting(network: Any, *args: Any) -> Any:
        if len(grown) == 7:
            raise KeyboardInterrupt
        grown.append(network)
        return grow(network, *args)

    arguments: dict[str, Any] = {"networks": 9, "images": 60, "data_root": "data"}
    run([way], out=tmp_path / "at once", **arguments)
    monkeypatch.setattr(train_less, "grow", noting)
    with pytest.raises(KeyboardInterrupt):
        run([way], out=tmp_path / "broken", **arguments)
    monkeypatch.setattr(train_less, "grow", grow)
    run([way], out=tmp_path / "broken", **arguments)
    first, second = (rows_in(tmp_path / name) for name in ("at once", "broken"))
    for one, other in zip(first, second, strict=True):
        for name in ("network", "depths", "accuracies", "curves", "stopped"):
            assert one[name] == other[name]
    assert any(any(row["stopped"]) for row in first)


def test_rankings_by_hand() -> None:
    same, turned = Ranking.of([1, 2, 3, 4, 5], [0.1, 0.2, 0.3, 0.4, 0.5]), Ranking.of([3, 2, 1], [1, 2, 3])
    assert (same.spearman, same.kendall, same.error) == pytest.approx((1, 1, 0))
    assert (turned.spearman, turned.kendall) == pytest.approx((-1, -1))
    assert Ranking.of([1, 2, 4, 3, 6, 5], [1, 2, 3, 4, 5, 6]).error > 0


@pytest.mark.slow
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train-less", "--networks", "4", "--images", "60", "--out", str(tmp_path / "rows")]
    page = tmp_path / "docs" / "page.md"
    assert main([*command, "--ways", FULL, AGAIN, "--markdown", str(page)]) == 0
    assert capsys.readouterr().out.strip() == page.read_text().strip()
    assert "4 random networks" in page.read_text() and "| again |" in page.read_text()
    assert main([*command, "--ways", "other"]) == 2
    assert "unknown way other" in capsys.readouterr().err
    assert report([]).startswith("There is no reference: no network was trained")
