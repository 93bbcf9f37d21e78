"""What a network weighs is counted before it is trained, and no limit in bytes is exceeded by its file."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from torch import nn

from optuna_trlhpo import TRLHPOSampler, kinds
from optuna_trlhpo.cnn import CNNObjective, Device, build_network, devices, export_network
from optuna_trlhpo.layers import (
    FCL,
    TABLE_I,
    Conv,
    Hyperparameter,
    Layer,
    Shape,
    Vocabulary,
    describe,
    parse,
)
from optuna_trlhpo.space import LayerSpace
from tests.cnn.conftest import disturbed
from tests.cnn.test_objective import make, run

INPUTS = {3: (2, 17, 17), 2: (9, 4), 1: (12,)}


@pytest.mark.parametrize(
    ("vocabulary", "quantize"),
    [
        (TABLE_I, "int8"),
        (kinds.CNN, "int8"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                (TABLE_I, None),
                (kinds.CNN, None),
                (kinds.CNN1D, None),
                (kinds.CNN1D, "int8"),
                (kinds.MLP, "int8"),
                (kinds.LSTM, None),
            ]
        ),
    ],
)
def test_no_file_is_larger_than_the_space_counts(
    tmp_path: Path, vocabulary: Vocabulary, quantize: str | None
) -> None:
    shape = INPUTS[vocabulary.axes]
    space = LayerSpace(input_shape=shape, vocabulary=vocabulary, quantize=quantize, max_parameters=15_000)
    rng = np.random.default_rng(5)
    for _ in range(3):
        layers = space.draw(rng)
        network = disturbed(build_network(layers, shape, 10))
        metadata = {"architecture": describe(layers), "input": 90 * "x", "mean": [0.12345678] * shape[0]}
        calibration = None if quantize is None else torch.randn(20, *shape)
        exported = export_network(
            network, tmp_path / "a.onnx", shape, quantize=quantize, calibration=calibration, metadata=metadata
        )
        assert 0.4 * space.model_bytes(layers) < exported.bytes <= space.model_bytes(layers), describe(layers)


@dataclass(frozen=True)
class Tuned(Layer):
    """Two convolutions, a sum and a normalisation, whose bytes are counted on the modules."""

    kind, prefix = "Tuned", "tuned"
    hyperparameters = (Hyperparameter("filters", (8, 16)),)
    filters: int

    def output_shape(self, shape: Shape) -> Shape | None:
        return (self.filters, *shape[1:]) if len(shape) == 3 else None

    def modules(self, shape: Shape) -> list[nn.Module]:
        return [nn.Conv2d(shape[0], self.filters, 1), nn.Sigmoid(), nn.BatchNorm2d(self.filters), nn.ReLU()]


@pytest.mark.slow
@pytest.mark.parametrize("quantize", [None, "int8"])
def test_kind_of_ones_own_is_counted_on_its_modules(tmp_path: Path, quantize: str | None) -> None:
    mine = Vocabulary("bytesofonesown", (Conv, Tuned, FCL), first=(Conv,))
    space = LayerSpace(vocabulary=mine, max_model_bytes=60_000, quantize=quantize)
    rng = np.random.default_rng(0)
    networks = [layers for layers in (space.draw(rng) for _ in range(50)) if Tuned in map(type, layers)]
    for layers in networks[:2]:
        calibration = None if quantize is None else torch.randn(20, 1, 28, 28)
        network = disturbed(build_network(layers, (1, 28, 28), 10))
        exported = export_network(
            network, tmp_path / "a.onnx", (1, 28, 28), quantize=quantize, calibration=calibration
        )
        assert exported.bytes <= space.model_bytes(layers) <= 60_000


def test_cost_says_what_the_file_weighs(found: tuple[CNNObjective, optuna.Study], tmp_path: Path) -> None:
    objective, study = found
    cost = objective.cost(study.best_trial, latency=False).quantised
    assert cost is not None and cost.format == "int8"
    exported = objective.export(study.best_trial, tmp_path / "a.onnx")
    floats = objective.export(study.best_trial, tmp_path / "b.onnx", quantize=None)
    assert cost.model_bytes == exported.bytes == (tmp_path / "a.onnx").stat().st_size
    assert cost.float_model_bytes == floats.bytes
    layers = parse(study.best_trial.user_attrs["architecture"])
    assert cost.peak_activation_bytes == objective.space.activation_bytes(layers)
    assert objective.cost(study.best_trial, latency=False, quantize=None).quantised is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [
        "Conv(8,3,1) > BatchNorm() > AvgPool(2,1,1) > BatchNorm() > AvgPool(2,1,0) > BatchNorm()",
        "SameConv(8,3,1) > SameConv(8,3,1) > Residual(8,3,1) > SeparableConv(8,3,1)",
    ],
)
def test_cost_is_exact_where_normalisations_are_alike(tmp_path: Path, network: str) -> None:
    objective = make(vocabulary=kinds.CNN, max_layers=6, max_macs=1e6, quantize="int8", epochs=1)
    trial = optuna.trial.create_trial(value=0.5, user_attrs={"architecture": network})
    cost = objective.cost(trial, latency=False).quantised
    assert cost is not None
    assert cost.model_bytes == objective.export(trial, tmp_path / "a.onnx").bytes
    assert cost.float_model_bytes == objective.export(trial, tmp_path / "b.onnx", quantize=None).bytes


@pytest.mark.slow
def test_latency_of_both_files(found: tuple[CNNObjective, optuna.Study]) -> None:
    objective, study = found
    cost = objective.cost(study.best_trial)
    assert cost.quantised is not None and cost.quantised.latency is not None
    assert cost.quantised.latency.median > 0 and cost.quantised.float_latency is not None
    text = str(cost)
    assert "int8: a file of" in text and "latency in onnxruntime" in text


def test_no_network_beyond_the_bytes_is_trained_or_written(tmp_path: Path) -> None:
    limits: dict[str, Any] = {"max_model_bytes": 9_000, "max_activation_bytes": 1_500, "quantize": "int8"}
    objective = CNNObjective("digits", epochs=1, **limits)
    study = optuna.create_study(
        direction="maximize", sampler=TRLHPOSampler(seed=0), pruner=optuna.pruners.NopPruner()
    )
    study.optimize(objective, n_trials=6)
    for trial in study.trials:
        layers = parse(trial.user_attrs["architecture"])
        assert objective.space.model_bytes(layers) <= 9_000
        assert objective.space.activation_bytes(layers) <= 1_500
    exported = objective.export(study.best_trial, tmp_path / "a.onnx")
    assert exported.bytes <= 9_000


def test_activations_take_a_quarter_in_int8() -> None:
    layers = parse("Conv(8,3,1)")
    assert LayerSpace(quantize="int8").activation_bytes(layers) * 4 == LayerSpace().activation_bytes(layers)
    assert not LayerSpace(max_activation_bytes=7_000).position(()).fits(layers[0])
    assert LayerSpace(max_activation_bytes=7_000, quantize="int8").position(()).fits(layers[0])


def test_limit_that_nothing_meets_names_the_least() -> None:
    with pytest.raises(
        ValueError, match=r"max_model_bytes is 1,000; the cheapest network of this space takes"
    ):
        LayerSpace(max_model_bytes=1_000, quantize="int8")
    with pytest.raises(ValueError, match=r"quantize is 8; it must be one of int8, or None"):
        LayerSpace(quantize=8)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"max_model_bytes is -1; it must be positive"):
        LayerSpace(max_model_bytes=-1)


def test_numbers_of_numpy_are_limits() -> None:
    space = LayerSpace(max_parameters=np.uint16(8_000), max_model_bytes=np.uint32(40_000))  # type: ignore[arg-type]
    assert space.draw(np.random.default_rng(0)) and json.dumps(space.settings)
    with pytest.raises(ValueError, match="max_macs is"):
        LayerSpace(max_macs=np.complex64(3))  # type: ignore[arg-type]


def test_settings_of_a_space_keep_the_limits_and_old_ones_have_none() -> None:
    space = LayerSpace(max_model_bytes=30_000, quantize="int8")
    assert LayerSpace.from_settings(space.settings) == space
    old = {
        name: value
        for name, value in LayerSpace().settings.items()
        if name not in ("max_model_bytes", "quantize")
    }
    assert LayerSpace.from_settings(old) == LayerSpace()


def test_actor_reads_limits_in_bytes_as_those_of_floats() -> None:
    floats = LayerSpace(vocabulary=kinds.CNN, max_activation_bytes=40_000, max_parameters=20_000)
    int8 = LayerSpace(
        vocabulary=kinds.CNN, max_activation_bytes=10_000, max_model_bytes=20_000, quantize="int8"
    )
    assert np.allclose(floats.space_features, int8.space_features)


def test_limits_open_the_extended_vocabulary() -> None:
    def space(**how: Any) -> LayerSpace:
        return CNNObjective("digits", **how).space

    assert space().vocabulary == TABLE_I and space().max_layers == 6
    for limit in ("max_macs", "max_parameters", "max_activation_bytes", "max_model_bytes"):
        assert space(**{limit: 100_000}).vocabulary == kinds.CNN
        assert space(**{limit: 100_000}).max_layers == 8
    assert space(max_macs=1e5, max_layers=3).max_layers == 3
    assert space(max_macs=1e5, vocabulary=TABLE_I).vocabulary == TABLE_I
    assert CNNObjective.paper("digits", max_macs=1e5).space.vocabulary == TABLE_I


def test_devices_have_limits_of_their_data_sheets() -> None:
    every = (devices.STM32F103C8, devices.STM32L432KC, devices.NRF52840)
    assert [it.flash_bytes // 1024 for it in every] == [64, 256, 1024]
    assert [it.ram_bytes // 1024 for it in every] == [20, 64, 256]
    objective = CNNObjective("digits", **devices.STM32L432KC.limits(0.25))
    assert objective.space.max_model_bytes == 65_536 and objective.space.quantize == "int8"
    with pytest.raises(ValueError, match="share is 0; it must be above 0 and at most 1"):
        Device("mine", 1, 1).limits(0)
    with pytest.raises(ValueError, match="flash_bytes is '64k'"):
        Device("mine", "64k", 5)  # type: ignore[arg-type]


def test_wide_matrix_is_within_the_count() -> None:
    space = LayerSpace(input_shape=(1, 8, 8), quantize="int8")
    assert space.model_bytes((Conv(8, 3, 1), FCL(512, "relu", True))) > 8 * 36 * 512


def test_networks_of_other_masks_are_read() -> None:
    """As of a study of an earlier version, which let normalisations follow themselves."""
    space = LayerSpace(vocabulary=kinds.CNN)
    network = parse("SameConv(8,3,1) > BatchNorm() > Conv(8,3,1)")
    params = {name.split("_of_")[0]: value for name, value in space.to_params(network).items()}
    assert params != space.to_params(network) and space.from_params(params) == network


def test_study_of_other_layers_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    study = run(make(epochs=1))
    optuna.logging.enable_propagation()
    with caplog.at_level(logging.WARNING):
        study.optimize(make(epochs=1, vocabulary=kinds.CNN), n_trials=1)
    assert "begun with the layers of Table I and goes on with those of vocabulary 'cnn'" in caplog.text
