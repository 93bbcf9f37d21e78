"""Training images are transformed at random, anew in each epoch and as the seed says."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from optuna_trlhpo.cnn import CNNObjective
from optuna_trlhpo.cnn.training.augmentation import NAMED, Augmentation
from optuna_trlhpo.kinds import MLP
from optuna_trlhpo.layers import parse
from tests.cnn.test_objective import make, run

NETWORK = parse("Conv(8,3,1) > MaxPool(2,2,0)")


def augmented(augmentation: Augmentation, images: Tensor, seed: int) -> Tensor:
    out = torch.empty_like(images)
    augmentation(images, out, seed=seed)
    return out


@pytest.mark.parametrize("name", NAMED)
def test_named_augmentations_move_images_and_keep_the_rest(name: str) -> None:
    pixels = torch.zeros(70, 1, 12, 12)
    pixels[:, :, 4:8, 4:8] = 1
    augmentation = Augmentation(name, (0.2,), (0.5,))
    images = (pixels - 0.2) / 0.5
    first = augmented(augmentation, images, 0)
    assert torch.equal(first, augmented(augmentation, images, 0))
    assert not torch.equal(first, augmented(augmentation, images, 1))
    assert len({tuple(image.flatten().tolist()) for image in first}) > 2
    # What comes in from the edges is black, and not the mean.
    assert torch.allclose(first.amin(), images.amin(), atol=1e-5)
    assert float(first.amax()) <= float(images.amax()) + 1e-4


def test_characters_are_never_mirrored() -> None:
    pixels = torch.zeros(640, 1, 12, 12)
    pixels[:, :, 3:9, 2:4] = 1  # on the left
    found = augmented(Augmentation("characters", (0.0,), (1.0,)), pixels, 0)
    assert bool((found[..., :6].sum(dim=(1, 2, 3)) > found[..., 6:].sum(dim=(1, 2, 3))).all())
    found = augmented(Augmentation("objects", (0.0,), (1.0,)), pixels, 0)
    mirrored = found[..., :6].sum(dim=(1, 2, 3)) < found[..., 6:].sum(dim=(1, 2, 3))
    assert 0.2 < float(mirrored.double().mean()) < 0.8


def test_global_generator_is_left_alone() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(3)
    torch.manual_seed(3)
    augmented(Augmentation("characters", (0.0,), (1.0,)), torch.zeros(40, 1, 8, 8), 7)
    assert torch.equal(torch.rand(3), wanted)


def test_training_sees_new_images_in_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []

    def noting(images: Tensor) -> Tensor:
        seen.append(images.clone())
        return images.flip(3)

    objective = make(epochs=2, augment=noting)
    data = objective.data
    network = objective.trainer.train(NETWORK, data.train_images, data.train_labels, seed=0)
    assert len(network) and sum(map(len, seen)) == 2 * len(data.train_labels)
    given = data.train_images * data.std[0] + data.mean[0]  # in the scale of the data
    pixels = torch.cat(seen)
    assert torch.allclose(pixels.amin(), given.amin()) and torch.allclose(pixels.amax(), given.amax())
    again = objective.trainer.train(NETWORK, data.train_images, data.train_labels, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    plain = objective.trainer.train(NETWORK, data.train_images, data.train_labels, seed=0, augment=None)
    assert not torch.equal(next(iter(plain.parameters())), next(iter(network.parameters())))


def test_none_changes_nothing() -> None:
    objective, other = make(), make(augment=None)
    assert objective.trainer.setting == other.trainer.setting
    assert make(augment="characters").trainer.setting != objective.trainer.setting
    named = make(augment=v2.RandomRotation(5)).trainer.setting
    assert (
        named == make(augment=v2.RandomRotation(5)).trainer.setting != make(augment="objects").trainer.setting
    )


def test_search_and_refit() -> None:
    objective = pickle.loads(pickle.dumps(make(augment="characters")))
    study = run(objective, n_trials=2)
    assert study.user_attrs["training"]["augmentation"] == "characters"
    refit = objective.refit(study.best_trial)
    same = objective.refit(study.best_trial, augment="characters")
    plain = objective.refit(study.best_trial, augment=None)
    weights = [next(iter(it.network.parameters())) for it in (refit, same, plain)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("augment", ["letters", 3, ("characters",)])
def test_bad_augmentation(augment: Any) -> None:
    with pytest.raises(ValueError, match=r"augment is .*; it must be one of characters, objects, a function"):
        make(augment=augment)
    objective = make()
    study = run(objective)
    with pytest.raises(ValueError, match="augment is"):
        objective.refit(study.best_trial, augment=augment)


def test_only_images_can_be_transformed() -> None:
    rows = torch.randn(60, 5).numpy(), (torch.arange(60) % 2).numpy()
    with pytest.raises(ValueError, match="for inputs that are no images it must be None"):
        CNNObjective(rows, vocabulary=MLP, augment="characters")


def test_transformation_must_keep_the_shape() -> None:
    objective = make(augment=lambda images: images[..., 1:])
    with pytest.raises(
        ValueError, match=r"augment returned torch.float32 of shape .*; it must return floats"
    ):
        run(objective)


class Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor:
        return images * self.factor


def halved(images: Tensor) -> Tensor:
    return images / 2


def test_only_equal_augmentations_share_trainings() -> None:
    def setting(augment: Any) -> str:
        return make(augment=augment).trainer.setting

    assert setting(Scaled(1.0)) == setting(Scaled(1.0)) != setting(Scaled(0.0))
    assert (
        setting(halved) == setting(halved) == pickle.loads(pickle.dumps(make(augment=halved))).trainer.setting
    )
    first = setting(lambda images: images)
    assert first != setting(lambda images: images)
    assert setting(v2.RandomApply([Scaled(0.0)], p=0.1)) != setting(v2.RandomApply([Scaled(0.0)], p=0.9))
    objective = make(augment=lambda images: images)
    assert objective.trainer.setting == objective.trainer.setting


@pytest.mark.parametrize(
    ("augment", "error"),
    [
        (lambda images: None, "augment returned NoneType; it must return floats of shape"),
        (lambda images: images > 0, "augment returned torch.bool of shape"),
        (
            lambda images: images[:3],
            r"augment returned torch.float32 of shape \(3, 1, 8, 8\); it must return",
        ),
        (lambda images: images.nothing, "augment failed on images of shape .*: AttributeError"),
    ],
)
def test_bad_results_are_named(augment: Any, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        run(make(augment=augment))


def test_class_in_place_of_a_transformation() -> None:
    with pytest.raises(ValueError, match="it must be one of characters, objects, a function"):
        make(augment=v2.RandomRotation)


def test_other_precision_is_converted() -> None:
    assert run(make(augment=lambda images: images.double())).best_value >= 0
