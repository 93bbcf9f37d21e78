"""The objective: what a trial suggests, trains, reports and records, and which samplers play it."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FixedTrial, TrialState
from torch import Tensor, nn

from optuna_trlhpo import TRLHPOSampler
from optuna_trlhpo.cnn import Adapter, CompressObjective, IntegerRange, UNet, goals, segmentation_data
from optuna_trlhpo.cnn.compress.training import ModuleTrainer
from tests.cnn.compress.modules import MODULES
from tests.cnn.test_objective import stripes


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(256, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 2)),
    )


def make(module: nn.Module | Adapter | None = None, n: int = 180, **kwargs: Any) -> CompressObjective:
    small = {"epochs": 2, "batch_size": 16, "device": "cpu"}
    data = kwargs.pop("data", (*stripes(n), *stripes(60, seed=1)))
    return CompressObjective(network() if module is None else module, data, **{**small, **kwargs})


def run(objective: CompressObjective, n_trials: int = 2, **kwargs: Any) -> optuna.Study:
    kwargs = {"direction": "maximize", "sampler": RandomSampler(seed=0), **kwargs}
    study = optuna.create_study(pruner=kwargs.pop("pruner", optuna.pruners.NopPruner()), **kwargs)
    study.optimize(objective, n_trials=n_trials)
    return study


@pytest.fixture(scope="module")
def objective() -> CompressObjective:
    return make()


# One trial ------------------------------------------------------------------------------------------------


def test_a_trial_suggests_reports_and_records(objective: CompressObjective) -> None:
    trial = run(objective, 1).trials[0]
    assert list(trial.params) == ["0.channels", "0.kernel", "5.channels"]
    assert 1 <= trial.params["0.channels"] <= 16 and trial.params["0.kernel"] in (1, 3)

    built = objective.build(trial)
    noted = trial.user_attrs
    parameters = sum(it.numel() for it in built.parameters())
    assert noted["parameters"] == parameters
    assert noted["bytes"] == 4 * (parameters + 2 * trial.params["0.channels"]) + 8  # and a counter of int64
    assert noted["train_seconds"] > 0 and noted["inference_seconds"] > 0
    assert sorted(trial.intermediate_values) == [0, 1]
    assert trial.value == noted["accuracy"] == trial.intermediate_values[1]

    original = objective.original
    assert original.parameters == sum(it.numel() for it in network().parameters())
    for name, share in noted["relative"].items():
        assert share == pytest.approx(noted[name] / getattr(original, name), rel=1e-4)
    assert set(noted["relative"]) == {"parameters", "macs", "bytes", "train_seconds", "inference_seconds"}


def test_the_study_notes_the_original_and_names_its_values(objective: CompressObjective) -> None:
    study = run(objective, 1)
    assert study.user_attrs["original"]["accuracy"] == objective.original.accuracy
    assert study.metric_names == ["accuracy"]


def test_a_training_depends_on_the_seed_and_the_network_alone(objective: CompressObjective) -> None:
    values = {"0.channels": 7, "0.kernel": 3, "5.channels": 9}
    again, other = make(), make(seed=1)
    torch.manual_seed(7)  # the global generator plays no part
    assert again(FixedTrial(values)) == objective(FixedTrial(values))
    first, second = (
        it.train_again(values, "repeat", it.original.network)[0].state_dict() for it in (objective, again)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    third = other.train_again(values, "repeat", other.original.network)[0].state_dict()
    assert not torch.equal(first["0.weight"], third["0.weight"])


def test_a_network_is_trained_once_a_study(
    objective: CompressObjective, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    train = ModuleTrainer.train

    def counted(self: ModuleTrainer, *args: Any, **how: Any) -> Any:
        trained.append(how["seed"])
        return train(self, *args, **how)

    objective.original  # noqa: B018
    monkeypatch.setattr(ModuleTrainer, "train", counted)
    study = optuna.create_study(direction="maximize")
    for width in (4, 4, 5):
        study.enqueue_trial({"0.channels": width, "0.kernel": 1, "5.channels": 8})
    study.optimize(objective, n_trials=3)
    first, second, third = study.trials
    assert len(trained) == 2
    assert (second.value, second.intermediate_values) == (first.value, first.intermediate_values)
    assert second.user_attrs["looked_up"] == 0 and "looked_up" not in third.user_attrs
    assert second.user_attrs["train_seconds"] == first.user_attrs["train_seconds"]


def test_a_hopeless_training_is_pruned_between_epochs(objective: CompressObjective) -> None:
    pruner = optuna.pruners.ThresholdPruner(lower=2.0)
    trial = run(objective, 1, pruner=pruner).trials[0]
    assert trial.state is TrialState.PRUNED and list(trial.intermediate_values) == [0]


def test_out_of_memory_fails_the_trial_and_not_the_study(
    objective: CompressObjective, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective.original  # noqa: B018

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(ModuleTrainer, "train", fail)
        study = run(objective, 2)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL] * 2
    assert "out of memory" in study.trials[0].user_attrs["failed"]


# Values and limits ----------------------------------------------------------------------------------------


def test_a_network_beyond_a_limit_is_not_trained(objective: CompressObjective) -> None:
    limited = make(max_parameters=1000, max_macs=1e4)
    study = optuna.create_study(direction="maximize")
    for widths in ((16, 32), (1, 2)):
        study.enqueue_trial({"0.channels": widths[0], "0.kernel": 1, "5.channels": widths[1]})
    study.optimize(limited, n_trials=2)
    large, small = study.trials
    assert large.state is TrialState.PRUNED and not large.intermediate_values
    assert large.constraints["parameters"] == pytest.approx(large.user_attrs["parameters"] / 1000 - 1)
    assert large.constraints["parameters"] > 0 and "accuracy" not in large.user_attrs
    assert small.state is TrialState.COMPLETE and max(small.constraints.values()) <= 0


def test_a_slow_network_is_beyond_the_limit() -> None:
    study = run(make(max_latency=1e-9), 1)
    assert study.trials[0].state is TrialState.PRUNED and study.trials[0].constraints["latency"] > 0


def test_a_loss_of_accuracy_is_a_constraint(monkeypatch: pytest.MonkeyPatch) -> None:
    limited = make(max_loss=0.1)
    accuracy = limited.original.accuracy
    outcomes = iter([accuracy - 0.2, accuracy - 0.1])
    train = ModuleTrainer.train

    def fake(self: ModuleTrainer, *args: Any, **how: Any) -> Any:
        after, score = how.pop("after_epoch"), next(outcomes)
        result = train(self, *args, **how)
        after(score)
        return result

    monkeypatch.setattr(ModuleTrainer, "train", fake)
    study = run(limited, 2)
    assert [trial.constraints["accuracy"] for trial in study.trials] == pytest.approx([0.1, 0])
    assert study.best_trial.number == 1


def test_a_goal_weighs_accuracy_and_cost() -> None:
    weighed = make(goal=goals.weighted_product("parameters", 1000, exponent=-0.1))
    trial = run(weighed, 1).trials[0]
    noted = trial.user_attrs
    expected = noted["accuracy"] * (noted["parameters"] / 1000) ** -0.1
    assert trial.value == pytest.approx(expected) == trial.intermediate_values[1]
    assert expected != noted["accuracy"]


def test_several_objectives_have_one_value_each() -> None:
    names = ("accuracy", "parameters", "latency", "macs", "activation_bytes", "layers")
    study = run(make(objectives=names), 1, direction=None, directions=["maximize"] + ["minimize"] * 5)
    trial = study.trials[0]
    noted = trial.user_attrs
    width = trial.params["0.channels"]
    # The largest layers are those at 8x8 pixels: the normalisation and the activation, in and out.
    assert trial.values == [
        *(noted["accuracy"], noted["parameters"], noted["inference_seconds"], noted["macs"]),
        *(4 * 2 * 64 * width, 2),
    ]


# Samplers -------------------------------------------------------------------------------------------------


SAMPLERS: dict[str, Callable[[], BaseSampler]] = {
    "trlhpo": lambda: TRLHPOSampler(seed=0, n_startup_trials=4),
    "tpe": lambda: TPESampler(seed=0, n_startup_trials=4),
    "nsga2": lambda: NSGAIISampler(seed=0, population_size=4),
}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_finds_smaller_networks_than_chance(sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All networks are equally accurate here, without a training, so the smallest is the best."""
    limited = make(goal=goals.weighted_product("parameters", 1000, exponent=-0.5), epochs=1, n=36)
    limited.original  # noqa: B018

    def untrained(self: ModuleTrainer, module: nn.Module, *, after_epoch: Any, **_: Any) -> Any:
        after_epoch(0.9)
        return module, 0.01

    monkeypatch.setattr(ModuleTrainer, "train", untrained)
    monkeypatch.setattr(CompressObjective, "latency", lambda *_: 0.001)
    study = run(limited, 24, sampler=SAMPLERS[sampler]())
    late = [trial.user_attrs["parameters"] for trial in study.trials[12:]]
    chance = [trial.user_attrs["parameters"] for trial in run(limited, 60).trials]
    assert np.median(late) < 0.6 * np.median(chance)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_plays_real_trainings(sampler: str) -> None:
    study = run(make(epochs=1, n=60), 6, sampler=SAMPLERS[sampler]())
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 6
    assert len({tuple(trial.params.items()) for trial in study.trials}) > 1


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_plays_several_objectives(sampler: str) -> None:
    objective = make(epochs=1, n=60, objectives=("accuracy", "parameters"), max_loss=0.3)
    study = run(
        objective, 6, direction=None, directions=["maximize", "minimize"], sampler=SAMPLERS[sampler]()
    )
    assert all(len(trial.values) == 2 for trial in study.trials)
    assert "accuracy" in study.trials[0].constraints


# Networks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make_module", [it for name, it in MODULES.items() if name != "unet"])
def test_modules_of_every_form_are_compressed(make_module: Callable[[], nn.Module]) -> None:
    images, labels = stripes(40)
    objective = make(make_module(), data=(images, labels), epochs=1)
    study = run(objective, 1)
    assert study.trials[0].state is TrialState.COMPLETE
    assert study.trials[0].user_attrs["relative"]["parameters"] < 1


def test_grey_images_are_repeated_for_networks_of_colour_and_enlarged() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    objective = make(module, image_size=20, epochs=1, n=36)
    assert objective.data.input_shape == (3, 20, 20)
    grey = make(nn.Sequential(nn.Conv2d(1, 4, 1), *list(module)[1:]), n=36).data
    images = objective.data.train_images
    assert torch.equal(images[:, 0], images[:, 2])
    assert torch.equal(images[:, :1, 2:18:2, 3:19:2], grey.train_images)  # each pixel is a square of four
    assert images[:, :, [0, 1, 18, 19]].unique().numel() == 1


def segmented(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Bright squares on noise."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(n, 8, 8)).astype(np.float32)
    maps = np.zeros((n, 8, 8), dtype=np.int64)
    for image, label_map in zip(images, maps, strict=True):
        row, column = rng.integers(5, size=2)
        image[row : row + 4, column : column + 4] += 4
        label_map[row : row + 4, column : column + 4] = 1
    return images, maps


def test_a_unet_is_compressed_by_its_mean_iou() -> None:
    data = segmentation_data(segmented(60, 0), segmented(30, 1), segmented(30, 2), device="cpu")
    objective = make(UNet(1, 2, width=4, depth=1), data=data, epochs=6, learning_rate=1e-2)
    study = run(objective, 1)
    trial = study.trials[0]
    module, _ = objective.trainer.train(
        objective.build(trial), seed=objective.seed_of(trial.params), from_scratch=True
    )
    with torch.no_grad():
        predicted = module(data.validation_images).argmax(1)
    truth = data.validation_labels
    ratios = [
        ((predicted == k) & (truth == k)).sum() / ((predicted == k) | (truth == k)).sum() for k in (0, 1)
    ]
    assert trial.user_attrs["accuracy"] == pytest.approx(float(sum(ratios)) / 2)
    assert objective.original.accuracy > 0.7


class Perceptron(Adapter):
    """A module that no one could trace, built by hand."""

    ranges = {"units": IntegerRange(2, 32, step=2)}

    def build(self, values: Any) -> nn.Module:
        return Untraceable(values["units"])


class Untraceable(nn.Module):
    def __init__(self, units: int) -> None:
        super().__init__()
        self.hidden, self.end = nn.Linear(64, units), nn.Linear(units, 2)

    def forward(self, images: Tensor) -> Tensor:
        features = self.hidden(images.flatten(1)).relu()
        if len(features) and bool((features[:1] > 0).any().item() if features.device.type == "cpu" else True):
            features = 1 * features
        logits: Tensor = self.end(features)
        return logits


def test_an_adapter_builds_what_cannot_be_traced() -> None:
    with pytest.raises(ValueError, match="cannot be traced"):
        make(Untraceable(8))
    objective = make(Perceptron())
    trial = run(objective, 1).trials[0]
    assert trial.user_attrs["parameters"] == 65 * trial.params["units"] + 2 * trial.params["units"] + 2
    with pytest.raises(ValueError, match="inherit is True; Perceptron has no method inherit"):
        run(make(Perceptron(), inherit=True), 1)


# Starting from trained weights ----------------------------------------------------------------------------


def test_a_network_inherits_from_the_trained_original() -> None:
    objective = make(inherit=True, inherited_epochs=1)
    weight = objective.original.network.get_parameter("0.weight")
    inherited = objective.build({"0.channels": 3, "0.kernel": 3, "5.channels": 4}).get_parameter("0.weight")
    order = weight.abs().flatten(1).sum(1).argsort(descending=True)[:3].sort().values
    assert torch.equal(inherited, weight[order])
    assert list(run(objective, 1).trials[0].intermediate_values) == [0]


def test_an_original_that_is_trained_is_only_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    first = make(epochs=3)
    module = first.original.network
    monkeypatch.setattr(ModuleTrainer, "train", None)
    second = make(module, trained=True)
    assert second.original.accuracy == first.original.accuracy
    assert second.original.train_seconds is None
    assert second.setting != make(network(), trained=True).setting


def test_the_trained_original_is_kept_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "folder" / "original.pt"
    first = make(original_file=file).original
    assert make(epochs=1).setting != make().setting
    with pytest.raises(ValueError, match="holds a network of another setting"):
        make(original_file=file, epochs=1).original  # noqa: B018
    monkeypatch.setattr(ModuleTrainer, "train", None)
    second = make(original_file=file).original
    assert (second.accuracy, second.train_seconds) == (first.accuracy, first.train_seconds)
    weights = second.network.state_dict()
    assert all(torch.equal(weights[name], it) for name, it in first.network.state_dict().items())
    file.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="which is not a file of an original network"):
        make(original_file=file).original  # noqa: B018


def test_an_objective_can_be_pickled(objective: CompressObjective) -> None:
    copied = pickle.loads(pickle.dumps(objective))
    assert copied.original.accuracy == objective.original.accuracy
    assert copied.setting == objective.setting


# Errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"threads": "auto"}, "threads is 'auto'; it must be a positive integer"),
        ({"inference_batch": 0}, "inference_batch is 0"),
        ({"inherited_epochs": 2}, "inherited_epochs is 2; it must be None unless inherit is True"),
        ({"max_loss": -0.1}, "max_loss is -0.1"),
        ({"max_parameters": 0}, "max_parameters is 0; it must be a positive number"),
        ({"goal": "small"}, "goal is 'small'"),
        ({"objectives": ("parameters",)}, "it must be accuracy, alone or with"),
        (
            {"goal": goals.mixture("macs", 1), "objectives": ("accuracy", "macs")},
            "with a goal, .*the only objective must be accuracy",
        ),
        ({"image_size": 4}, "size is 4; it must be at least that of the images, 8x8"),
        ({"min_share": 0}, "min_share is 0"),
        ({"augment": "x"}, "augment is 'x'"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_an_error(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**wrong)


def classifier(classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Flatten(), nn.Linear(256, classes))


def test_outputs_that_do_not_suit_the_labels_are_an_error() -> None:
    with pytest.raises(
        ValueError, match=r"has outputs of shape \(1,\); for these labels it must be \(classes\)"
    ):
        make(classifier(1))
    with pytest.raises(ValueError, match=r"has outputs of shape \(4, 8, 8\); .*with at least 2 classes"):
        make(nn.Sequential(nn.Conv2d(1, 8, 1), nn.Conv2d(8, 4, 1)))
    data = segmentation_data(segmented(10, 0), segmented(10, 1), device="cpu")
    with pytest.raises(ValueError, match=r"it must be \(classes, 8, 8\)"):
        make(classifier(2), data=data)
    with pytest.raises(ValueError, match="train_size is 5; with an ImageData"):
        make(UNet(1, 2, width=2, depth=1), data=data, train_size=5)
    with pytest.raises(ValueError, match="for inputs that are no images it must be None"):
        make(UNet(1, 2, width=2, depth=1), data=data, augment="objects")


def test_a_last_step_of_one_image_is_an_error_where_it_cannot_be_normalised() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    with pytest.raises(ValueError, match="does not accept batches .*Expected more than 1 value per channel"):
        make(module, train_size=33, validation_size=50)


@pytest.mark.parametrize("value", [None, 0, 33, 3.0])
def test_values_out_of_range_are_an_error(objective: CompressObjective, value: Any) -> None:
    with pytest.raises(ValueError, match="5.channels is .*; it must be an integer from 2 to 32"):
        objective.build({"0.channels": 3, "0.kernel": 1, "5.channels": value})
    with pytest.raises(ValueError, match="0.kernel is 2; .* from 1 to 3 in steps of 2"):
        objective.build({"0.channels": 3, "0.kernel": 2, "5.channels": 3})


def test_a_study_of_other_directions_is_an_error(
    objective: CompressObjective, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    with pytest.raises(ValueError, match="the study does not maximise one value"):
        run(objective, 1, direction="minimize")
