"""A trained network is written in three forms, each of which gives what the network gives."""

from __future__ import annotations

import importlib.util
import json
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import optuna
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from optuna_trlhpo.cnn import CNNObjective, build_network, export_network
from optuna_trlhpo.cnn.deploy import source
from optuna_trlhpo.layers import ACTIVATIONS, FCL, TABLE_I, Conv, Layer, MaxPool, Vocabulary, kinds, parse

SHAPES = {3: (2, 19, 19), 2: (7, 5), 1: (6,)}
VOCABULARIES = (TABLE_I, kinds.CNN, kinds.MLP, kinds.LSTM)


def one_of(kind: type[Layer]) -> Layer:
    """A layer of the kind, with the middle one of each hyper-parameter's values."""
    if kind is MaxPool or kind is kinds.AvgPool:
        return kind(3, 2, 1)
    return kind(*(hp.values[len(hp.values) // 2] for hp in kind.hyperparameters))


def network_with(vocabulary: Vocabulary, kind: type[Layer]) -> tuple[nn.Module, tuple[int, ...]]:
    """Untrained but unlike a new one: with statistics and weights of its own, behind a first layer."""
    shape = SHAPES[vocabulary.axes]
    layers = (one_of(vocabulary.first[0]), one_of(kind), FCL(16, "relu", True))
    network = build_network(layers, shape, 4)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(0.1 + 0.5 * torch.rand(tensor.shape, generator=generator))
    return network.eval(), shape


def apart(network: nn.Module, found: np.ndarray, inputs: Tensor) -> float:
    with torch.no_grad():
        wanted = network(inputs).numpy()
    assert found.shape == wanted.shape
    return float((np.abs(found - wanted) / np.maximum(np.abs(wanted), 1)).max())


def name_of(vocabulary: Vocabulary) -> str:
    return vocabulary.name or "table_i"


def marks_of(vocabulary: Vocabulary, slow: Sequence[Vocabulary]) -> list[pytest.MarkDecorator]:
    """PyTorch takes a second for each network that it exports."""
    return [pytest.mark.slow] if vocabulary in slow else []


def kinds_of(vocabularies: Sequence[Vocabulary], slow: Sequence[Vocabulary] = ()) -> list[Any]:
    return [
        pytest.param(it, kind, id=f"{name_of(it)}-{kind.kind}", marks=marks_of(it, slow))
        for it in vocabularies
        for kind in it.kinds
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("vocabulary", "kind"), kinds_of(VOCABULARIES, slow=VOCABULARIES[1:]))
def test_onnx_agrees_on_every_kind(vocabulary: Vocabulary, kind: type[Layer], tmp_path: Path) -> None:
    network, shape = network_with(vocabulary, kind)
    exported = export_network(network, tmp_path / "net.onnx", shape)
    assert exported.difference <= 1e-4
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    for size in (1, 4):  # the batch is free
        inputs = torch.randn(size, *shape, generator=torch.Generator().manual_seed(size))
        (found,) = session.run(None, {"input": inputs.numpy()})
        assert apart(network, found, inputs) <= 1e-4


@pytest.mark.parametrize(("vocabulary", "kind"), kinds_of(VOCABULARIES))
def test_source_agrees_on_every_kind(vocabulary: Vocabulary, kind: type[Layer], tmp_path: Path) -> None:
    network, shape = network_with(vocabulary, kind)
    export_network(network, tmp_path / "net.py", shape)
    loaded = load_source(tmp_path / "net.py")
    inputs = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert apart(network, loaded(inputs).numpy(), inputs) <= 1e-6
    # It trains as the network does: what drops out, drops out there too.
    dropping = [module for module in loaded.modules() if isinstance(module, nn.Dropout | nn.Dropout2d)]
    assert bool(dropping) == (kind is kinds.Dropout)


@pytest.mark.slow
@pytest.mark.parametrize(
    "vocabulary",
    [pytest.param(it, id=name_of(it), marks=marks_of(it, VOCABULARIES[1:])) for it in VOCABULARIES],
)
def test_program_agrees(vocabulary: Vocabulary, tmp_path: Path) -> None:
    for kind in vocabulary.kinds:
        network, shape = network_with(vocabulary, kind)
        export_network(network, tmp_path / "net.pt2", shape)
        loaded = torch.export.load(tmp_path / "net.pt2").module()
        inputs = torch.randn(6, *shape)
        with torch.no_grad():
            assert apart(network, loaded(inputs).numpy(), inputs) <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["onnx", "py"])
def test_every_activation_agrees(suffix: str, tmp_path: Path) -> None:
    layers = (Conv(8, 3, 1), *(FCL(16, name, True) for name in ACTIVATIONS))
    assert export_network(
        build_network(layers, (1, 8, 8), 10), tmp_path / f"net.{suffix}", (1, 8, 8)
    ).difference <= 1e-4  # fmt: skip


def load_source(path: Path) -> nn.Module:
    spec = importlib.util.spec_from_file_location("exported", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load()


@pytest.mark.slow
def test_source_stands_alone(tmp_path: Path) -> None:
    text = "Residual(8,3,2) > Dropout(20) > GlobalPool() > FCL(16,gelu,bias)"
    network = build_network(parse(text), (1, 8, 8), 10).eval()
    export_network(network, tmp_path / "net.py", (1, 8, 8), metadata={"architecture": text, "mean": [0.5]})
    source = (tmp_path / "net.py").read_text()
    assert "optuna" not in source
    assert f"architecture: {text}\nmean: [0.5]" in source
    assert "nn.BatchNorm2d(8)\n" in source  # nothing that another version of PyTorch may not know
    code = (
        "import sys, torch, net\n"
        "out = net.load()(torch.ones(2, 1, 8, 8))\n"
        "assert not [name for name in sys.modules if 'optuna' in name]\n"
        "print(*out[0].tolist())"
    )
    # In an interpreter of its own, without this package.
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120
    ).stdout
    with torch.no_grad():
        wanted = network(torch.ones(2, 1, 8, 8))[0].numpy()
    np.testing.assert_allclose([float(it) for it in printed.split()], wanted, atol=1e-5)


def test_the_network_is_left_as_it_is(tmp_path: Path) -> None:
    network = build_network(parse("SameConv(8,3,1)"), (1, 8, 8), 10).train()
    network.to(memory_format=torch.channels_last)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    export_network(network, tmp_path / "net.py", (1, 8, 8))
    assert network.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


class Scales(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(3))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.factor


class Chooses(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs if inputs.sum() > 0 else -inputs


@pytest.mark.parametrize("module", [Scales(), Chooses(), nn.Conv1d(3, 3, 1, padding_mode="circular")])
def test_what_cannot_be_source_is_told(module: nn.Module, tmp_path: Path) -> None:
    shape = (3, 4) if isinstance(module, nn.Conv1d) else (3,)
    with pytest.raises(ValueError, match=r"cannot be written as source .*use the suffix .onnx or .pt2"):
        export_network(nn.Sequential(module), tmp_path / "net.py", shape)


def test_wrong_numbers_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = source.constructor_call
    monkeypatch.setattr(source, "constructor_call", lambda it: right(it).replace("ReLU", "Tanh"))
    with pytest.raises(
        RuntimeError, match="differ from those of the network by up to .*; do not use the file"
    ):
        export_network(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), tmp_path / "net.py", (3,))


@pytest.fixture(scope="module")
def found() -> tuple[CNNObjective, optuna.Study]:
    objective = CNNObjective("digits", epochs=1, max_layers=2, device="cpu")
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=2)
    return objective, study


@pytest.mark.slow
def test_objective_exports_with_what_a_reader_needs(
    found: tuple[CNNObjective, optuna.Study], tmp_path: Path
) -> None:
    objective, study = found
    best = study.best_trial
    network = objective.refit(best).network
    objective.export(best, tmp_path / "net.onnx", network=network)
    objective.export(best, tmp_path / "more" / "net.py")  # trained anew, and a folder that there was not
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    notes = session.get_modelmeta().custom_metadata_map
    assert notes["architecture"] == best.user_attrs["architecture"]
    assert json.loads(notes["mean"]) == pytest.approx(objective.data.mean)
    inputs = objective.data.validation_images[:5]
    assert apart(network, session.run(None, {"input": inputs.numpy()})[0], inputs) <= 1e-4
    with torch.no_grad():  # an equal seed trains an equal network
        again = load_source(tmp_path / "more" / "net.py")(inputs)
    assert apart(network, again.numpy(), inputs) <= 1e-4
    # Whoever may read the source may read its weights.
    modes = {
        stat.S_IMODE((tmp_path / "more" / name).stat().st_mode) for name in ("net.py", "net.safetensors")
    }
    assert len(modes) == 1
    with safe_open(tmp_path / "more" / "net.safetensors", "pt") as weights:
        assert weights.metadata()["architecture"] == best.user_attrs["architecture"]


def test_another_network_is_not_exported_as_the_trials(
    found: tuple[CNNObjective, optuna.Study], tmp_path: Path
) -> None:
    objective, study = found
    other = build_network(parse("Conv(8,7,1)"), (1, 8, 8), 10)
    assert study.best_trial.user_attrs["architecture"] != "Conv(8,7,1)"
    for wrong in (other, "x"):
        with pytest.raises(
            ValueError,
            match="network has another architecture than the trial; it must be a network that refit returned",
        ):
            objective.export(study.best_trial, tmp_path / "net.py", network=wrong)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [3, None, "best"])
def test_what_is_no_trial_is_said(found: tuple[CNNObjective, optuna.Study], wrong: object) -> None:
    with pytest.raises(ValueError, match="it must be a trial, or a row of the result of confirm"):
        found[0].export(wrong, "net.py")  # type: ignore[arg-type]


def test_a_bad_path_costs_no_training(
    found: tuple[CNNObjective, optuna.Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective, study = found
    monkeypatch.setattr(CNNObjective, "refit", lambda *_, **__: pytest.fail("it was trained"))
    with pytest.raises(
        ValueError, match=r"'net.tflite'; it must end in .onnx \(ONNX\), .pte \(ExecuTorch\), .pt2"
    ):
        objective.export(study.best_trial, "net.tflite")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'onnxruntime, .*pip install "optuna-trlhpo\[export\]"'):
        objective.export(study.best_trial, tmp_path / "net.onnx")
    with pytest.raises(ImportError, match=r'needs executorch; .*pip install "optuna-trlhpo\[executorch\]"'):
        objective.export(study.best_trial, tmp_path / "net.pte")
    assert list(tmp_path.iterdir()) == []


RELU, NORM = nn.ReLU(), nn.BatchNorm2d(2)


class Doubled(nn.BatchNorm2d):
    """A normalisation that does something else."""

    def forward(self, inputs: Tensor) -> Tensor:
        return 2 * inputs


class Backwards(nn.Sequential):
    """Calls its children in another order than they are listed."""

    def forward(self, inputs: Tensor) -> Tensor:
        for module in reversed(self):
            inputs = module(inputs)
        return inputs


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.BatchNorm1d(4)), (3, 9)),
        (nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.BatchNorm1d(5)), (3, 4)),
        (nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, affine=False)), (2, 5, 5)),
        (Backwards(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)), (2, 5, 5)),
        (nn.Sequential(RELU, nn.Conv2d(2, 2, 1), RELU, nn.BatchNorm2d(2)), (2, 5, 5)),
        (nn.Sequential(NORM, nn.Conv2d(2, 2, 1), NORM, nn.Conv2d(2, 2, 1)), (2, 5, 5)),
        (nn.BatchNorm2d(2), (2, 5, 5)),
        (nn.Sequential(nn.Conv2d(2, 2, 1), Doubled(2)), (2, 5, 5)),
    ],
    ids=["sequence", "features", "no weights", "another order", "ReLU twice", "twice", "alone", "subclass"],
)
def test_normalisations_are_folded_wherever_they_stand(
    network: nn.Module, shape: tuple[int, ...], tmp_path: Path
) -> None:
    for part in network.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            assert part.running_mean is not None and part.running_var is not None
            part.running_mean += torch.linspace(0.1, 1, len(part.running_mean))
            part.running_var += torch.linspace(0.1, 1, len(part.running_var))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert export_network(network, tmp_path / "a.onnx", shape).difference < 1e-4
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
