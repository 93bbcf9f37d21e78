"""A network leaves as an ExecuTorch program, which ExecuTorch's own runtime runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from torch import Tensor, nn

from optuna_trlhpo.cnn import CNNObjective, build_network, export_network
from optuna_trlhpo.cnn.deploy import export as writing
from optuna_trlhpo.cnn.deploy.running import executorch_runner
from optuna_trlhpo.layers import ACTIVATIONS, FCL, TABLE_I, Conv, Layer, Vocabulary, kinds, parse
from optuna_trlhpo.layers.sequences import CNN1D
from tests.cnn.conftest import disturbed
from tests.cnn.test_export import apart, kinds_of, network_with

pytest.importorskip("executorch", reason="the extra executorch is not installed")

FEED_FORWARD = (TABLE_I, kinds.CNN, kinds.MLP, CNN1D)
EVERYTHING = (
    "SameConv(8,3,1) > SeparableConv(8,3,1) > Residual(16,3,2) > MaxPool(2,2,0) > Dropout(20) > "
    "BatchNorm() > GlobalPool() > FCL(16,relu,bias)"
)


def method(path: Path, name: str) -> Any:
    """A method of the program, as somebody without this package calls it."""
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(path.read_bytes())
    return lambda *inputs: program.load_method(name).execute(inputs)[0]


def outputs(path: Path, inputs: Tensor) -> Tensor:
    forward = method(path, "forward")
    return torch.cat([forward(one[None]) for one in inputs])


def random_inputs(n: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(n))


def test_program_computes_what_the_network_computes(tmp_path: Path) -> None:
    network = disturbed(build_network(parse(EVERYTHING), (1, 28, 28), 10)).eval()
    notes = {"architecture": EVERYTHING, "mean": [0.5], "classes": ["nought", "größer"]}
    exported = export_network(network, tmp_path / "net.pte", (1, 28, 28), metadata=notes)
    assert (exported.format, exported.files) == ("ExecuTorch", (tmp_path / "net.pte",))
    assert exported.difference <= 1e-4 and exported.bytes == (tmp_path / "net.pte").stat().st_size
    inputs = random_inputs(4, (1, 28, 28))
    assert apart(network, outputs(tmp_path / "net.pte", inputs).numpy(), inputs) <= 1e-4
    found = json.loads(method(tmp_path / "net.pte", "metadata")())
    assert found["architecture"] == EVERYTHING
    assert [json.loads(found[key]) for key in ("mean", "classes")] == [[0.5], ["nought", "größer"]]
    # The whole of it is XNNPACK's: no operation is left to the portable kernels, which are slow.
    assert b"aten::" not in (tmp_path / "net.pte").read_bytes()


@pytest.mark.slow
def test_int8_program_is_small_and_as_accurate(
    found: tuple[CNNObjective, optuna.Study], tmp_path: Path
) -> None:
    objective, study = found
    trial = study.best_trial
    network = objective.refit(trial).network
    exported = objective.export(trial, tmp_path / "a.pte", network=network)  # in the objective's own format
    floats = objective.export(trial, tmp_path / "b.pte", network=network, quantize=None)
    assert exported.quantize == "int8" and floats.quantize is None and floats.accuracy is None
    assert exported.accuracy is not None and exported.float_accuracy is not None
    assert exported.accuracy >= exported.float_accuracy - 0.02
    # What is reported is what somebody else measures.
    images, labels = objective.data.validation_images, objective.data.validation_labels
    right = outputs(tmp_path / "a.pte", images).argmax(dim=1) == labels
    assert float(right.double().mean()) == pytest.approx(exported.accuracy)
    notes = json.loads(method(tmp_path / "a.pte", "metadata")())
    assert notes["architecture"] == trial.user_attrs["architecture"]


@pytest.mark.slow
def test_weights_are_a_byte_each(tmp_path: Path) -> None:
    network = build_network((FCL(256, "relu", True),), (128,), 4).eval()
    weights = 128 * 256 + 256 * 4
    floats = export_network(network, tmp_path / "a.pte", (128,))
    calibration = random_inputs(50, (128,))
    int8 = export_network(network, tmp_path / "b.pte", (128,), quantize="int8", calibration=calibration)
    assert 4 * weights < floats.bytes < 4 * weights + 6_000
    assert weights < int8.bytes < weights + 10_000
    assert b"aten::" not in (tmp_path / "b.pte").read_bytes()  # none is computed in floats
    found = outputs(tmp_path / "b.pte", calibration)
    with torch.no_grad():
        wanted = network(calibration)
    assert not torch.equal(found, wanted)
    assert (found - wanted).abs().max() < 0.05 * wanted.abs().max()


class NoKernel(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return torch.linalg.svdvals(inputs)


class Chooses(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs if inputs.sum() > 0 else -inputs


@pytest.mark.parametrize("module", [NoKernel(), Chooses()], ids=["no kernel", "depends on its input"])
def test_what_cannot_be_a_program_is_told(module: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot be written for ExecuTorch \(.+\); use the suffix .onnx or"):
        export_network(module, tmp_path / "net.pte", (3, 3))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "shape", "calibration", "error"),
    [
        ("Conv(8,3,1)", (1, 8, 8), None, "calibration is NoneType; to quantise, it must be finite numbers"),
        ("LSTM(8,1)", (9, 4), torch.zeros(3, 9, 4), r"with LSTM, which stays floats, it must be None"),
    ],
)
def test_bad_input(tmp_path: Path, text: str, shape: tuple[int, ...], calibration: Any, error: str) -> None:
    network = build_network(parse(text), shape, 4)
    with pytest.raises(ValueError, match=error):
        export_network(network, tmp_path / "a.pte", shape, quantize="int8", calibration=calibration)
    assert list(tmp_path.iterdir()) == []


def test_failed_quantisation_leaves_no_file_of_floats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = writing.executorch_program

    def broken(network: nn.Module, shape: Any, notes: Any, calibration: Tensor | None = None) -> bytes:
        if calibration is not None:
            raise RuntimeError("no room")
        return right(network, shape, notes)

    monkeypatch.setattr(writing, "executorch_program", broken)
    network = build_network(parse("Conv(8,3,1)"), (1, 8, 8), 4)
    with pytest.raises(RuntimeError, match="no room"):
        export_network(
            network, tmp_path / "a.pte", (1, 8, 8), quantize="int8", calibration=torch.zeros(5, 1, 8, 8)
        )
    assert list(tmp_path.iterdir()) == []


def test_loaded_program_outlives_its_file(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(3, 2)).eval()
    export_network(network, tmp_path / "a.pte", (3,))
    run = executorch_runner(tmp_path / "a.pte")
    (tmp_path / "a.pte").write_bytes(b"another file")
    inputs = random_inputs(5, (3,))
    assert apart(network, run(inputs).numpy(), inputs) <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("vocabulary", "kind"), kinds_of(FEED_FORWARD))
def test_every_kind_agrees(vocabulary: Vocabulary, kind: type[Layer], tmp_path: Path) -> None:
    network, shape = network_with(vocabulary, kind)
    export_network(network, tmp_path / "float.pte", shape)
    inputs = random_inputs(50, shape)
    assert apart(network, outputs(tmp_path / "float.pte", inputs).numpy(), inputs) <= 1e-4
    export_network(network, tmp_path / "int8.pte", shape, quantize="int8", calibration=inputs)
    with torch.no_grad():
        wanted = network(inputs)
    assert (outputs(tmp_path / "int8.pte", inputs) - wanted).abs().max() < 0.05 * wanted.abs().max()


@pytest.mark.slow
def test_recurrent_network_agrees(tmp_path: Path) -> None:
    network = build_network(parse("LSTM(8,1)"), (3, 5), 4).eval()  # each step takes time to write
    export_network(network, tmp_path / "net.pte", (3, 5))
    inputs = random_inputs(3, (3, 5))
    assert apart(network, outputs(tmp_path / "net.pte", inputs).numpy(), inputs) <= 1e-4


@pytest.mark.slow
def test_every_activation_agrees(tmp_path: Path) -> None:
    layers = (Conv(8, 3, 1), *(FCL(16, name, True) for name in ACTIVATIONS))
    network = build_network(layers, (1, 8, 8), 10)
    assert export_network(network, tmp_path / "net.pte", (1, 8, 8)).difference <= 1e-4
