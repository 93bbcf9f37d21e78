"""A network is cut in two, and the two parts, run one after the other, are the network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import optuna
import pytest
import torch
from torch import nn

from optuna_trlhpo.cnn import Budget, CNNObjective, build_network, measure_cost
from optuna_trlhpo.cnn.deploy.partition import choose, cuts, write_parts
from optuna_trlhpo.cnn.model import classifier_modules, layer_modules
from optuna_trlhpo.layers import kinds, parse
from optuna_trlhpo.trials.training_record import accuracies

TEXT = "Conv(8,3,1) > MaxPool(2,2,0) > Conv(16,3,1) > FCL(16,relu,bias)"
SHAPE = (1, 8, 8)
SHAPES = [SHAPE, (8, 6, 6), (8, 3, 3), (16, 1, 1), (16,)]


def parts() -> dict[str, nn.Module]:
    layers = parse(TEXT)
    found: dict[str, nn.Module] = {
        str(layer): nn.Sequential(*layer_modules(layer, shape))
        for layer, shape in zip(layers, SHAPES, strict=False)
    }
    return {**found, "classifier": nn.Sequential(*classifier_modules(SHAPES[-1], 10))}


FOUND = cuts(measure_cost(parts(), SHAPE, latency=False), SHAPE, {1: 0.5, 4: 0.9})


def test_cuts_by_hand() -> None:
    assert [cut.after for cut in FOUND] == ["input", *parts()]
    assert [cut.layers for cut in FOUND] == [0, 1, 2, 3, 4, 4]
    assert [cut.crossing_bytes for cut in FOUND] == [4 * 64, 4 * 8 * 36, 4 * 8 * 9, 4 * 16, 4 * 16, 0]
    macs = [0, 8 * 36 * 9, 0, 16 * 8 * 9, 16 * 16, 160]
    assert [cut.device_macs for cut in FOUND] == np.cumsum(macs).tolist()
    assert {cut.device_macs + cut.server_macs for cut in FOUND} == {sum(macs)}
    assert [cut.device_parameters for cut in FOUND] == np.cumsum([0, 80, 0, 1168, 272, 170]).tolist()
    assert [cut.accuracy_alone for cut in FOUND] == [None, 0.5, None, None, 0.9, 0.9]
    assert {cut.device_latency for cut in FOUND} == {None}


@pytest.mark.parametrize(
    ("budget", "after"),
    [
        (Budget(), "classifier"),  # nothing need cross
        (Budget(macs=3900), "Conv(16,3,1)"),  # of two that send 64 bytes, the one with less to do
        (Budget(parameters=1000), "input"),  # 256 bytes, where behind MaxPool 288 cross
        (Budget(macs=3900, crossing_bytes=64), "Conv(16,3,1)"),
    ],
)
def test_the_fewest_bytes_within_the_budget(budget: Budget, after: str) -> None:
    assert choose(FOUND, budget).after == after


def test_no_cut_is_told_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no cut is within Budget\(.*after 'input', transfers 256 bytes"):
        choose(FOUND, Budget(macs=100, crossing_bytes=10))
    with pytest.raises(ValueError, match="macs is -1; it must be a number of at least 0"):
        Budget(macs=-1)


def run(path: Path | None, inputs: np.ndarray) -> np.ndarray:
    if path is None:
        return inputs
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": inputs})[0]


@pytest.mark.slow
def test_chained_parts_are_the_whole_wherever_it_is_cut(tmp_path: Path) -> None:
    layers, shape = parse("Residual(8,3,2) > GlobalPool() > FCL(16,relu,bias)"), SHAPE
    shapes: list[tuple[int, ...]] = [shape]
    for layer in layers:
        after = layer.output_shape(shapes[-1])
        assert after is not None
        shapes.append(after)
    network = build_network(layers, shape, 10).eval()
    modules = [layer_modules(layer, before) for layer, before in zip(layers, shapes, strict=False)]
    named: dict[str, nn.Module] = {f"{k} {layers[k]}": nn.Sequential(*own) for k, own in enumerate(modules)}
    named["classifier"] = nn.Sequential(*classifier_modules(shapes[-1], 10))
    inputs = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = network(inputs).numpy()
    for k, cut in enumerate(cuts(measure_cost(named, shape, latency=False), shape, {})):
        folder = tmp_path / str(k)
        folder.mkdir()
        (folder / "device.onnx").touch()  # of an earlier cut
        files = write_parts(network, cut, list(map(len, modules)), shapes, folder, metadata={})
        device, server = files
        assert [device is None, server is None] == [cut.after == "input", cut.after == "classifier"]
        assert (folder / "device.onnx").exists() == (device is not None)
        crossing = run(device, inputs.numpy())
        if server is not None:
            assert crossing[0].nbytes == cut.crossing_bytes
        np.testing.assert_allclose(run(server, crossing), wanted, atol=1e-4)


@pytest.fixture(scope="module")
def found() -> tuple[CNNObjective, optuna.Study]:
    # What is reported is no accuracy here, and the deepest network the best.
    objective = CNNObjective(
        "digits",
        epochs=1,
        max_layers=3,
        min_accuracy=None,
        goal=lambda _, counts: counts.layers,
        device="cpu",
    )
    study = optuna.create_study(direction="maximize")
    space = objective.space
    study.enqueue_trial(space.to_params(parse("Conv(8,3,1) > MaxPool(3,3,0) > FCL(128,relu,bias)")))
    study.optimize(objective, n_trials=1)
    return objective, study


@pytest.mark.slow
def test_partition_of_a_trial(found: tuple[CNNObjective, optuna.Study], tmp_path: Path) -> None:
    objective, study = found
    trial = study.best_trial
    refit = objective.refit(trial)
    budget = Budget(macs=2_600, crossing_bytes=300)
    partition = objective.partition(trial, budget, folder=tmp_path, network=refit.network)
    assert partition.cut.after == "2 MaxPool(3,3,0)"
    assert partition.cut.crossing_bytes == 4 * 8 * 2 * 2
    assert (partition.cut.device_macs, partition.cut.server_macs) == (2_592, 32 * 128 + 1_280)
    known = [cut.accuracy_alone for cut in partition.cuts]
    assert known[0] is None and known[4] == known[3] == trial.user_attrs["accuracy"]
    assert all(it is not None and 0 < it < 1 for it in known[1:])
    assert [cut.accuracy_alone for cut in partition.cuts[1:4]] == list(accuracies(trial).values())
    whole = [(cut.device_latency or 0) + (cut.server_latency or 0) for cut in partition.cuts]
    assert min(whole) > 0 and max(whole) == pytest.approx(min(whole))
    assert partition.device == tmp_path / "device.onnx"
    images = objective.data.validation_images[:20]
    with torch.no_grad():
        wanted = refit.network(images).numpy()
    chained = run(partition.server, run(partition.device, images.numpy()))
    np.testing.assert_allclose(chained, wanted, atol=1e-4)
    session = onnxruntime.InferenceSession(str(partition.device), providers=["CPUExecutionProvider"])
    notes = session.get_modelmeta().custom_metadata_map
    assert notes["cut_behind"] == "2 MaxPool(3,3,0)" and notes["part"] == "device"
    assert len(json.loads(notes["mean"])) == 1
    text = str(partition)
    assert text.count("\n> ") == 1 and "latency of each part on the CPU, 1 thread" in text


def test_without_a_folder_nothing_is_trained(
    found: tuple[CNNObjective, optuna.Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    objective, study = found
    monkeypatch.setattr(CNNObjective, "refit", lambda *_, **__: pytest.fail("it was trained"))
    partition = objective.partition(study.best_trial, Budget(), latency=False)
    assert (partition.device, partition.server, partition.cut.after) == (None, None, "classifier")
    assert "ms" not in str(partition)


def test_partition_refuses_what_it_cannot_do(
    found: tuple[CNNObjective, optuna.Study], tmp_path: Path
) -> None:
    objective, study = found
    with pytest.raises(ValueError, match="limits latency to 0.1 s; latency must be True"):
        objective.partition(study.best_trial, Budget(latency=0.1), latency=False)
    with pytest.raises(ValueError, match="must be a network that refit returned for it"):
        objective.partition(
            study.best_trial, Budget(), folder=tmp_path, network=nn.Linear(3, 3), latency=False
        )
    other = build_network((kinds.GlobalPool(),), (1, 8, 8), 10)
    with pytest.raises(ValueError, match="must be a network that refit returned for it"):
        objective.partition(study.best_trial, Budget(), folder=tmp_path, network=other, latency=False)


@pytest.mark.parametrize("limit", ["5", True, -1, float("nan")])
def test_a_limit_that_is_none(limit: object) -> None:
    with pytest.raises(ValueError, match="macs is .*; it must be a number of at least 0"):
        Budget(macs=limit)  # type: ignore[arg-type]


def test_a_budget_that_is_none(found: tuple[CNNObjective, optuna.Study]) -> None:
    with pytest.raises(ValueError, match="budget is 5; it must be a Budget"):
        found[0].partition(found[1].best_trial, 5)  # type: ignore[arg-type]
