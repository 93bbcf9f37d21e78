"""The loop of a tutorial and ours: as accurate, and what is measured of them."""

from __future__ import annotations

import copy
import re
import statistics
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from optuna_trlhpo.benchmarks.__main__ import main
from optuna_trlhpo.benchmarks.training import engine, plain_loop
from optuna_trlhpo.cnn.model import build_network
from optuna_trlhpo.cnn.training.fast_layout import place
from optuna_trlhpo.cnn.training.loop import predict_correct, train
from optuna_trlhpo.layers import parse

pytest.importorskip("torchvision")


def digits() -> tuple[Tensor, Tensor]:
    """uint8 images of 8x8."""
    data = pytest.importorskip("sklearn.datasets").load_digits()
    return (torch.from_numpy(data.images) * 15.9).to(torch.uint8), torch.from_numpy(data.target)


@pytest.mark.slow
def test_our_loop_is_as_accurate_as_the_plain_one() -> None:
    images, labels = digits()
    network, device, n = parse("Conv(16,3,1) > MaxPool(2,2,0) > FCL(32,relu,bias)"), torch.device("cpu"), 900
    standardised = plain_loop.standardised(images, device)
    plain, ours = [], []
    for seed in range(6):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            initial = build_network(network, (1, 8, 8), 10)
        generator = torch.Generator().manual_seed(seed)
        parts = (images[:n], labels[:n]), (images[n:], labels[n:])
        correct = plain_loop.plain_loop(
            copy.deepcopy(initial), *parts, epochs=4, batch_size=32, learning_rate=2e-3, generator=generator
        )
        plain.append(float(correct.double().mean()))
        model = place(initial, device)
        train(
            model,
            standardised[:n],
            labels[:n],
            epochs=4,
            batch_size=32,
            learning_rate=2e-3,
            schedule="constant",
            generator=torch.Generator().manual_seed(seed),
        )
        ours.append(float(predict_correct(model, standardised[n:], labels[n:]).double().mean()))
    noise = statistics.stdev(plain + ours) * (2 / len(plain)) ** 0.5
    assert min(plain + ours) > 0.85 and noise < 0.01
    assert abs(statistics.fmean(ours) - statistics.fmean(plain)) < 3 * noise


def test_the_operations_of_a_training_by_hand() -> None:
    model = build_network(parse("Conv(8,3,1)"), (1, 28, 28), 10)
    convolution, classifier = 2 * 8 * 26 * 26 * 9, 2 * 8 * 26 * 26 * 10
    # Forward, and backward for the weights; for the inputs of the classifier alone, images need no gradient.
    assert engine.training_flops(model, torch.zeros(4, 1, 28, 28)) == 2 * convolution + 3 * classifier


@pytest.mark.slow
def test_the_limit_is_of_the_shortest_of_ten_times() -> None:
    """By a clock that says 10 s, 9 s, ..., 1 s for either operation; they are carried out as often."""
    lengths, now, calls = [*range(10, 0, -1)] * 2, 0.0, 0

    def clock() -> float:
        nonlocal now, calls
        now += lengths[calls // 2] if calls % 2 else 100.0
        calls += 1
        return now

    with FlopCounterMode(display=False) as counter:
        rates = engine.measure_limit(torch.device("cpu"), clock)
    product, convolution = 2 * 1024**3, 2 * 32 * (128 * 26 * 26) * (128 * 3 * 3)
    assert rates == {"matrix product": product, "convolution": convolution}
    assert calls == 40 and counter.get_total_flops() == 11 * (product + convolution)  # once to warm up


def test_random_images_stand_in_for_missing_ones(tmp_path: Path) -> None:
    images, labels, what = plain_loop.load_pixels(20, tmp_path)
    assert what == "random images"
    assert (
        images.shape == (20, 28, 28)
        and images.dtype == torch.uint8
        and set(labels.tolist()) <= set(range(10))
    )


@pytest.mark.slow
def test_the_command_ends_with_its_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(engine, "NETWORKS", engine.NETWORKS[:2])
    command = ["engine", "--devices", "cpu", "--images", "256", "--rounds", "1", "--data-root", str(tmp_path)]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    (speedup, share) = re.fullmatch(
        r"engine cpu speedup (\d+\.\d\d) limit-share (\d\.\d\d)", lines[-1]
    ).groups()  # type: ignore[union-attr]
    rows = [line.split(" | ") for line in lines if line.startswith("| Conv")]
    assert len(rows) == 2 and "random images" in lines[0]
    speedups = [float(row[5]) for row in rows]
    assert float(speedup) == pytest.approx(statistics.geometric_mean(speedups), rel=0.01)
    assert share == rows[-1][7]
    plain, ours = (float(rows[0][column].replace(",", "")) for column in (3, 4))
    assert ours / plain == pytest.approx(speedups[0], rel=0.01)


def test_wrong_arguments_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["engine", "--images", "0"]) == 2
    assert "images is 0; it must be at least 1" in capsys.readouterr().err
    assert main(["engine", "--devices", "gpu"]) == 2
    assert "device is 'gpu'" in capsys.readouterr().err
