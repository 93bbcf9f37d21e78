"""Parameters and MACs against sums worked out by hand, and against the space's own arithmetic."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from optuna_trlhpo.cnn import CNNObjective, best_network
from optuna_trlhpo.cnn.deploy import cost as module
from optuna_trlhpo.cnn.deploy.cost import count_parameters, measure_cost
from optuna_trlhpo.cnn.model import build_network
from optuna_trlhpo.layers import Vocabulary, describe, parse
from optuna_trlhpo.layers.counting import count_macs
from optuna_trlhpo.layers.kinds import CNN, LSTM, MLP
from optuna_trlhpo.layers.sequences import CNN1D
from optuna_trlhpo.space import LayerSpace


@pytest.mark.parametrize(
    ("text", "parameters", "macs"),
    [
        # (8, 6, 6): 8 filters of 9 weights at 36 places; then 288 -> 10.
        ("Conv(8,3,1)", 8 * 9 + 8 + 288 * 10 + 10, 36 * 8 * 9 + 288 * 10),
        # stride 2: (16, 3, 3)
        ("Conv(16,3,2)", 16 * 9 + 16 + 144 * 10 + 10, 9 * 16 * 9 + 144 * 10),
        # pooling to (8, 3, 3) is free
        ("Conv(8,3,1) > MaxPool(2,2,0)", 80 + 72 * 10 + 10, 2592 + 72 * 10),
        # a second convolution sees 8 channels: (24, 2, 2)
        ("Conv(8,3,1) > Conv(24,5,1)", 80 + 24 * 8 * 25 + 24 + 970, 2592 + 4 * 24 * 8 * 25 + 960),
        ("Conv(8,3,1) > FCL(16,relu,bias)", 80 + 288 * 16 + 16 + 170, 2592 + 288 * 16 + 160),
        ("Conv(8,3,1) > FCL(16,gelu,nobias)", 80 + 288 * 16 + 170, 2592 + 288 * 16 + 160),
    ],
)
def test_costs_by_hand(text: str, parameters: int, macs: int) -> None:
    network = build_network(parse(text), (1, 8, 8), 10)
    assert count_parameters(network) == parameters
    assert count_macs(network, (1, 8, 8)) == macs
    assert LayerSpace(input_shape=(1, 8, 8)).macs(parse(text)) == macs


@pytest.mark.parametrize("input_shape", [(1, 28, 28), (3, 15, 20)])
def test_macs_equal_those_of_the_space(input_shape: tuple[int, int, int]) -> None:
    space, rng = LayerSpace(input_shape=input_shape, num_classes=7), np.random.default_rng(1)
    for _ in range(20):
        layers = space.decode(rng.random((rng.integers(1, 7), 4)))
        with torch.device("meta"):
            network = build_network(layers, input_shape, 7)
        assert count_macs(network, input_shape) == space.macs(layers), describe(layers)


def test_counting_leaves_the_network_as_it_is() -> None:
    network = build_network(parse("Conv(8,3,1)"), (1, 8, 8), 10).train()
    before = [p.clone() for p in network.parameters()]
    count_macs(network, (1, 8, 8))
    assert network.training
    assert all(
        p.device.type == "cpu" and p.equal(b) for p, b in zip(network.parameters(), before, strict=True)
    )


# What a network costs, layer by layer


def parts_of(text: str, input_shape: tuple[int, int, int]) -> dict[str, nn.Module]:
    network = build_network(parse(text), input_shape, 10)
    return {f"{k} {type(part).__name__}": part for k, part in enumerate(network)}


def test_counts_by_hand() -> None:
    cost = measure_cost(parts_of("Conv(8,3,1) > MaxPool(2,2,0)", (1, 8, 8)), (1, 8, 8), latency=False)
    conv, relu, pool, flat, classifier = cost.parts
    assert [part.output_shape for part in cost.parts] == [(8, 6, 6), (8, 6, 6), (8, 3, 3), (72,), (10,)]
    assert (conv.macs, relu.macs, pool.macs, flat.macs, classifier.macs) == (36 * 8 * 9, 0, 0, 0, 720)
    assert (conv.parameters, classifier.parameters) == (80, 730)
    assert (conv.output_bytes, classifier.output_bytes) == (4 * 8 * 36, 4 * 10)
    assert (cost.parameters, cost.macs, cost.flops) == (810, 2592 + 720, 2 * (2592 + 720))
    assert cost.model_bytes == 4 * 810
    assert cost.peak_activation_bytes == 4 * (288 + 288)  # into the part that is ReLU, and out of it
    assert cost.latency is None and cost.joules is None and conv.latency is None
    assert "latency" not in str(cost).splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("vocabulary", "shape", "n"),
    [(CNN, (1, 8, 8), 100), (MLP, (20,), 100), (LSTM, (12, 3), 30), (CNN1D, (12, 3), 50)],
    ids=["cnn", "mlp", "lstm", "sequences"],
)
def test_peaks_are_what_the_space_limits(vocabulary: Vocabulary, shape: tuple[int, ...], n: int) -> None:
    labels = np.arange(20) % 3
    inputs = np.random.default_rng(0).normal(size=(20, *shape)).astype(np.float32)
    objective = CNNObjective((inputs, labels), vocabulary=vocabulary, max_layers=3, device="cpu")
    rng, seen = np.random.default_rng(1), set()
    for _ in range(n):
        layers = objective.space.draw(rng)
        seen |= {type(layer) for layer in layers}
        cost = best_network.cost(layers, objective.trainer, objective.space, latency=False)
        assert cost.peak_activation_bytes == objective.space.activation_bytes(layers), describe(layers)
    assert seen == set(vocabulary.kinds)


def test_buffers_are_part_of_the_model_and_other_numbers_have_other_sizes() -> None:
    cost = measure_cost({"norm": nn.BatchNorm2d(4).double()}, (4, 2, 2), latency=False)
    assert cost.parameters == 8
    assert cost.model_bytes == 8 * (8 + 8) + 8  # two running statistics of four numbers, and a counter


def test_latency_is_of_the_whole_and_of_each_part() -> None:
    cost = measure_cost(
        parts_of("Conv(64,5,1) > FCL(16,relu,bias)", (1, 28, 28)),
        (1, 28, 28),
        batch_size=4,
        threads=2,
        seconds=0.01,
    )
    assert cost.latency is not None and all(part.latency is not None for part in cost.parts)
    assert all(part.latency.median > 0 for part in cost.parts if part.latency is not None)
    assert cost.latency.median > 0 and cost.latency.spread >= 0
    assert cost.setting == "the CPU, 2 threads, batch size 4"
    assert "latency on the CPU, 2 threads, batch size 4" in str(cost)


def test_measuring_leaves_the_network_as_it_is() -> None:
    parts = {"drop": nn.Dropout(0.5).train(), "norm": nn.BatchNorm1d(3).eval()}
    generator, threads = torch.random.get_rng_state(), torch.get_num_threads()
    measure_cost(parts, (3,), seconds=0.01)
    assert parts["drop"].training and not parts["norm"].training
    assert torch.get_num_threads() == threads
    assert generator.equal(torch.random.get_rng_state())


def test_energy_is_that_of_the_counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RAPL", tmp_path)
    monkeypatch.setattr(module, "SECONDS_OF_ENERGY", 0.05)
    layer = {"layer": nn.Linear(3, 2)}
    assert measure_cost(layer, (3,), seconds=0.01).joules is None  # nothing counts
    calls = iter([1_000_000, 3_000_000])
    monkeypatch.setattr(module, "joules_of_cpu", lambda: next(calls) / 1e6)
    cost = measure_cost(layer, (3,), seconds=0.01)
    assert cost.joules is not None and 0 < cost.joules <= 2 and "mJ per batch" in str(cost)
    again = iter([3_000_000, 1_000_000])  # the counter has begun anew
    monkeypatch.setattr(module, "joules_of_cpu", lambda: next(again) / 1e6)
    assert measure_cost(layer, (3,), seconds=0.01).joules is None


def test_two_processors_are_counted_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RAPL", tmp_path)
    assert module.joules_of_cpu() is None
    for name in ("intel-rapl:0", "intel-rapl:1", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text("1500000\n")
    assert module.joules_of_cpu() == 3.0


@pytest.mark.parametrize(
    ("parts", "arguments", "message"),
    [
        ({}, {}, "parts is empty; a network must have at least one part"),
        ({"a": nn.Identity()}, {"threads": 0}, "threads is 0; it must be positive"),
        ({"a": nn.Identity()}, {"batch_size": -1}, "batch_size is -1; it must be positive"),
    ],
)
def test_what_cannot_be_measured(
    parts: dict[str, nn.Module], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        measure_cost(parts, (3,), **arguments)


@pytest.mark.slow
def test_the_import_is_silent() -> None:
    program = "import optuna_trlhpo, optuna_trlhpo.cnn, optuna_trlhpo.sklearn, optuna_trlhpo.baselines"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""


def test_measuring_says_nothing_of_cuda() -> None:
    """In a new process, for the warning comes with an import."""
    code = (
        "from torch import nn; from optuna_trlhpo.cnn.deploy.cost import measure_latency; "
        "measure_latency(nn.Linear(3, 2), (3,), seconds=0.01)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
