"""Fronts of error against MACs, and the area that they are worth."""

from __future__ import annotations

import math

import pytest
from optuna.samplers import RandomSampler

from optuna_trlhpo.benchmarks.__main__ import main
from optuna_trlhpo.benchmarks.harness.rows import read_rows
from optuna_trlhpo.benchmarks.search.pareto import FrontPoint, front, hypervolume, report, run
from optuna_trlhpo.layers import parse

pytest.importorskip("sklearn", reason="needs scikit-learn (the extra 'bench')")

WORST, BEST = FrontPoint(100, 1.0, ""), FrontPoint(1, 0.01, "")


def test_what_is_dominated_is_not_on_the_front() -> None:
    points = [
        FrontPoint(5, 0.2, "a"),
        FrontPoint(5, 0.3, "b"),
        FrontPoint(9, 0.2, "c"),
        FrontPoint(9, 0.1, "d"),
        FrontPoint(2, 0.5, "e"),
    ]
    assert [point.network for point in front(points)] == ["e", "a", "d"]
    assert front([]) == []


def test_areas_by_hand() -> None:
    def share(*points: tuple[float, float]) -> float:
        return hypervolume([FrontPoint(*point, "") for point in points], worst=WORST, best=BEST)

    assert share() == 0
    assert share((1, 0.01)) == pytest.approx(1)
    assert share((10, 0.1)) == pytest.approx(1 / 4)
    assert share((10, 0.1), (1, math.sqrt(0.1))) == pytest.approx(1 / 4 + 1 / 8)
    assert share((10, 0.1), (20, 0.2)) == pytest.approx(1 / 4)  # the second is dominated
    assert share((100, 0.1), (10, 1.0), (500, 0.01)) == 0  # no better than the reference point
    assert share((0.1, 0.001)) == pytest.approx(1)  # what is better than the best is held to be the best


@pytest.mark.slow
def test_a_study_is_judged_by_the_truth(tmp_path) -> None:
    rows = run(("random", "nsga2"), seeds=[0, 1], budget=12, out=tmp_path)
    assert len(rows) == 4 and not any("error" in row for row in rows)
    for row in rows:
        starts, shares = zip(*row["hypervolumes"], strict=True)
        assert list(starts) == sorted(set(starts)) and starts[0] == 1 and starts[-1] <= row["trainings"] == 12
        assert all(0 <= share < 1 for share in shares)
        macs, errors, networks = zip(*row["front"], strict=True)
        assert list(macs) == sorted(macs) and list(errors) == sorted(errors, reverse=True)
        assert all(parse(network) for network in networks)
    assert run(("random", "nsga2"), seeds=[0, 1], budget=12, out=tmp_path) == []  # nothing is run twice
    text = report(read_rows(tmp_path), budget=12, reference="random")
    assert "| sampler | seeds | @12 | p against random |" in text and text.count("\n| nsga2 | 2 |") == 1
    assert "no complete study" in report(read_rows(tmp_path), budget=13)


@pytest.mark.slow
def test_the_command(tmp_path, capsys) -> None:
    options = ["--seeds", "1", "--budget", "3", "--out", str(tmp_path)]
    assert main(["pareto", "--samplers", "random", *options]) == 0
    assert "| random | 1 |" in capsys.readouterr().out
    assert main(["pareto", "--samplers", "nobody", *options]) == 2
    assert "unknown sampler nobody" in capsys.readouterr().err


@pytest.mark.slow
def test_a_sampler_that_fails_is_told_of(tmp_path) -> None:
    class Broken(RandomSampler):
        def __init__(self, seed):
            super().__init__(seed)

        def sample_independent(self, *_):
            raise ZeroDivisionError("broken")

    (row,) = run({"broken": Broken}, seeds=[0], budget=2, out=tmp_path)
    assert "ZeroDivisionError" in row["error"]
    (whole,) = run(("random",), seeds=[0], budget=2, out=tmp_path)
    assert "failed: mnist-layers (terminal), broken, seed 0" in report([row, whole], budget=2)
