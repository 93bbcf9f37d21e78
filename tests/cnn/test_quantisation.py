"""Networks leave as 8-bit integers: what the file holds, what it loses, and what is refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import optuna
import pytest
import torch

from optuna_trlhpo.cnn import CNNObjective, build_network, export_network
from optuna_trlhpo.cnn import found_networks as module
from optuna_trlhpo.layers import (
    kinds,
    parse,
)
from optuna_trlhpo.space import LayerSpace


def test_int8_file_is_small_and_as_accurate(found: tuple[CNNObjective, optuna.Study], tmp_path: Path) -> None:
    objective, study = found
    trial = study.best_trial
    network = objective.refit(trial).network
    exported = objective.export(trial, tmp_path / "a.onnx", network=network)
    floats = objective.export(trial, tmp_path / "b.onnx", network=network, quantize=None)
    assert exported.quantize == "int8" and floats.quantize is None and floats.accuracy is None
    assert exported.float_accuracy is not None and exported.accuracy is not None
    assert exported.accuracy >= exported.float_accuracy - 0.02
    # What is reported is what somebody else measures.
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"))
    images, labels = objective.data.validation_images.numpy(), objective.data.validation_labels.numpy()
    logits = session.run(None, {"input": images})[0]
    assert logits.dtype == np.float32
    assert np.mean(logits.argmax(axis=1) == labels) == pytest.approx(exported.accuracy)
    assert json.loads(session.get_modelmeta().custom_metadata_map["mean"])


def test_weights_and_activations_are_eight_bits(tmp_path: Path) -> None:
    network = build_network(parse("Conv(8,3,1) > MaxPool(2,2,0) > FCL(16,relu,bias)"), (1, 8, 8), 4)
    export_network(
        network, tmp_path / "a.onnx", (1, 8, 8), quantize="int8", calibration=torch.randn(9, 1, 8, 8)
    )
    graph = onnx.load(tmp_path / "a.onnx").graph
    matrices = [tensor for tensor in graph.initializer if len(tensor.dims) >= 2]
    assert len(matrices) == 3 and {tensor.data_type for tensor in matrices} == {onnx.TensorProto.INT8}
    # A scale for each output channel of a convolution.
    numbers = {it.name: onnx.numpy_helper.to_array(it) for it in graph.initializer}
    scales = [numbers[node.input[1]] for node in graph.node if node.op_type == "DequantizeLinear"]
    assert (8,) in {scale.shape for scale in scales}
    # Every operation that computes takes what was quantised before.
    made = {name: node.op_type for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm", "MaxPool"):
            assert made[node.input[0]] == "DequantizeLinear", node.op_type


@pytest.mark.slow
def test_file_of_floats_has_little_beside_its_weights(tmp_path: Path) -> None:
    network = build_network(parse("SameConv(8,3,1) > Residual(16,3,2) > GlobalPool()"), (1, 28, 28), 10)
    exported = export_network(network, tmp_path / "a.onnx", (1, 28, 28))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert 4 * parameters < exported.bytes + 1000 and exported.bytes < 4 * parameters + 3000


@pytest.mark.slow
def test_any_batch_size(tmp_path: Path) -> None:
    network = build_network(parse("SameConv(8,3,1) > GlobalPool()"), (1, 8, 8), 4)
    export_network(
        network, tmp_path / "a.onnx", (1, 8, 8), quantize="int8", calibration=torch.randn(9, 1, 8, 8)
    )
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"))
    for n in (1, 3, 200):
        assert session.run(None, {"input": np.zeros((n, 1, 8, 8), np.float32)})[0].shape == (n, 4)


@pytest.mark.slow
def test_loss_is_said(
    found: tuple[CNNObjective, optuna.Study],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    objective, study = found
    optuna.logging.enable_propagation()
    monkeypatch.setattr(module, "accuracy_of_file", lambda *_: 0.25)
    with caplog.at_level(logging.WARNING):
        exported = objective.export(study.best_trial, tmp_path / "a.onnx")
    assert exported.accuracy == 0.25 and "classifies 25.00% of the validation images" in caplog.text


@pytest.mark.parametrize(
    ("path", "how", "error"),
    [
        (
            "a.py",
            {"quantize": "int8"},
            r"path is '.*a.py'; with quantize='int8' it must end in .onnx or .pte",
        ),
        ("a.onnx", {"quantize": "int4"}, "quantize is 'int4'; it must be one of int8, or None"),
        ("a.onnx", {"quantize": "int8"}, "calibration is NoneType; to quantise, it must be finite numbers"),
        (
            "a.onnx",
            {"quantize": "int8", "calibration": torch.zeros(5, 8, 8)},
            r"calibration has the shape \(5, 8, 8\)",
        ),
    ],
)
def test_bad_input(tmp_path: Path, path: str, how: dict[str, Any], error: str) -> None:
    network = build_network(parse("Conv(8,3,1)"), (1, 8, 8), 4)
    with pytest.raises(ValueError, match=error):
        export_network(network, tmp_path / path, (1, 8, 8), **how)
    assert not list(tmp_path.iterdir())


def test_failed_quantisation_leaves_no_file_of_floats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optuna_trlhpo.cnn.deploy import export

    def broken(*_: Any) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(export, "quantised", broken)
    network = build_network(parse("Conv(8,3,1)"), (1, 8, 8), 4)
    with pytest.raises(RuntimeError, match="no room"):
        export_network(
            network, tmp_path / "a.onnx", (1, 8, 8), quantize="int8", calibration=torch.zeros(5, 1, 8, 8)
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_other_formats_stay_floats(found: tuple[CNNObjective, optuna.Study], tmp_path: Path) -> None:
    objective, study = found
    exported = objective.export(study.best_trial, tmp_path / "a.py")
    assert exported.quantize is None and exported.difference < 1e-4


def test_recurrent_layers_are_not_said_to_be_int8(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"quantize is 'int8'; with layers LSTM, which stay floats, it must"):
        LayerSpace(input_shape=(9, 4), vocabulary=kinds.LSTM, quantize="int8")
    network = build_network(parse("LSTM(8,1)"), (9, 4), 3)
    with pytest.raises(ValueError, match=r"with LSTM, which stays floats, it must be None"):
        export_network(
            network, tmp_path / "a.onnx", (9, 4), quantize="int8", calibration=torch.zeros(3, 9, 4)
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("calibration", "error"),
    [
        (torch.zeros(0, 1, 8, 8), r"calibration has the shape \(0, 1, 8, 8\)"),
        (torch.full((3, 1, 8, 8), torch.nan), "calibration has numbers that are not finite"),
        ("images", r"calibration is str; to quantise, it must be finite numbers \(N, 1, 8, 8\)"),
    ],
)
def test_bad_calibration(tmp_path: Path, calibration: Any, error: str) -> None:
    network = build_network(parse("Conv(8,3,1)"), (1, 8, 8), 4)
    with pytest.raises(ValueError, match=error):
        export_network(network, tmp_path / "a.onnx", (1, 8, 8), quantize="int8", calibration=calibration)


def test_calibration_of_other_numbers(tmp_path: Path) -> None:
    network = build_network(parse("Conv(8,3,1)"), (1, 8, 8), 4)
    for calibration in (np.zeros((3, 1, 8, 8), np.uint8), torch.zeros(3, 1, 8, 8, dtype=torch.float64)):
        export_network(
            network,
            tmp_path / "a.onnx",
            (1, 8, 8),
            quantize="int8",
            calibration=calibration,  # type: ignore[arg-type]
        )
