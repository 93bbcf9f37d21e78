"""Datasets: what is read, how it is split and standardised, and one sentence for whatever is wrong."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset, TensorDataset

from optuna_trlhpo.cnn import CNNObjective
from optuna_trlhpo.cnn.data.datasets import load_data, resolve_device
from optuna_trlhpo.cnn.data.splitting import stratified_split

DATA_ROOT = Path(os.environ.get("TRLHPO_DATA_ROOT", Path(__file__).resolve().parents[3] / "shared" / "data"))


def arrays(n: int = 60, classes: int = 3, shape: tuple[int, ...] = (8, 8)) -> tuple[np.ndarray, np.ndarray]:
    images = np.random.default_rng(0).integers(0, 256, size=(n, *shape), dtype=np.uint8)
    return images, np.arange(n) % classes


def load(data: Any, **kwargs: Any) -> Any:
    return load_data(data, **{"device": "cpu", **kwargs})


# Splits


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(2, 60), min_size=2, max_size=6),
    share=st.floats(0.1, 0.8),
    seed=st.integers(0, 1000),
)
def test_splits_are_exact_disjoint_and_stratified(counts: list[int], share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    n = len(labels)
    sizes = [max(int(share * n), 1), max(int((1 - share) * n / 2), 1)]
    parts = stratified_split(labels, sizes, rng)
    assert [len(part) for part in parts] == sizes
    assert len(set(np.concatenate(parts).tolist())) == sum(sizes)
    for part, size in zip(parts, sizes, strict=True):
        for label, count in enumerate(counts):
            assert abs((labels[part] == label).sum() - count * size / n) < 2


def test_a_class_of_two_is_in_both_parts() -> None:
    labels = np.array([0] * 28 + [1] * 2)
    for seed in range(20):
        train, validation = stratified_split(labels, [20, 10], np.random.default_rng(seed))
        assert labels[train].sum() == labels[validation].sum() == 1


def test_the_seed_fixes_the_split() -> None:
    images, labels = arrays()
    first, again, other = (load((images, labels), seed=seed) for seed in (1, 1, 2))
    assert first.train_images.equal(again.train_images)
    assert first.validation_labels.equal(again.validation_labels)
    assert not first.train_images.equal(other.train_images)


def test_training_and_validation_share_no_image() -> None:
    images = np.arange(60, dtype=np.float32).reshape(60, 1, 1, 1) * np.ones((1, 1, 4, 4), np.float32)
    data = load((images, np.arange(60) % 3))

    def numbers(part: torch.Tensor) -> list[int]:
        return (part[:, 0, 0, 0] * data.std[0] + data.mean[0]).round().int().tolist()

    train, validation = numbers(data.train_images), numbers(data.validation_images)
    assert (len(train), len(validation)) == (40, 20)
    assert sorted(train + validation) == list(range(60))
    assert [n % 3 for n in train] == data.train_labels.tolist()
    assert [n % 3 for n in validation] == data.validation_labels.tolist()


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({}, (40, 20)),
        ({"train_size": 50}, (50, 10)),
        ({"validation_size": 6}, (54, 6)),
        ({"train_size": 20, "validation_size": 10}, (20, 10)),
    ],
)
def test_sizes(sizes: dict[str, int], expected: tuple[int, int]) -> None:
    data = load(arrays(), **sizes)
    assert (len(data.train_labels), len(data.validation_labels)) == expected
    assert (len(data.train_images), len(data.validation_images)) == expected


# Sources


def test_digits() -> None:
    pytest.importorskip("sklearn")
    data = load("digits")
    sizes = [len(t) for t in (data.train_labels, data.validation_labels, data.test_labels)]
    assert sizes == [959, 479, 359] and sum(sizes) == 1797
    assert (data.name, data.num_classes, data.input_shape) == ("digits", 10, (1, 8, 8))
    for labels in (data.train_labels, data.validation_labels, data.test_labels):
        shares = torch.bincount(labels, minlength=10) / len(labels)
        assert shares.min() > 0.09 and shares.max() < 0.11
    # No image is in two splits (a few digits of the dataset are equal by nature, so compare counts).
    whole = torch.cat([data.train_images, data.validation_images, data.test_images]).flatten(1)
    from sklearn.datasets import load_digits

    assert len(whole.unique(dim=0)) == len(np.unique(load_digits().data, axis=0))


@pytest.mark.data
def test_mnist_has_the_papers_sizes() -> None:
    pytest.importorskip("torchvision")
    if not (DATA_ROOT / "MNIST" / "raw").is_dir():
        pytest.skip(f"no MNIST/raw in {DATA_ROOT}; set TRLHPO_DATA_ROOT to the folder that holds it")
    data = load("mnist", data_root=DATA_ROOT)
    sizes = [len(t) for t in (data.train_labels, data.validation_labels, data.test_labels)]
    assert sizes == [20_000, 10_000, 10_000]
    assert (data.num_classes, data.input_shape) == (10, (1, 28, 28))
    assert data.mean[0] == pytest.approx(0.1307, abs=0.002)  # the figures everybody uses for MNIST
    assert data.std[0] == pytest.approx(0.3081, abs=0.002)
    assert data.test_labels[:5].tolist() == [7, 2, 1, 0, 4]  # the test set in its original order
    shares = torch.bincount(data.train_labels) / 20_000
    assert torch.allclose(shares, torch.bincount(data.validation_labels) / 10_000, atol=3e-4)
    with pytest.raises(ValueError, match="train_size 55000 and validation_size 10000 do not fit.*60000"):
        load("mnist", data_root=DATA_ROOT, train_size=55_000)


def test_images_are_standardised_with_the_training_split() -> None:
    images, labels = arrays(shape=(3, 8, 8))
    data = load((images, labels, images[:7], labels[:7]))
    assert data.train_images.dtype == torch.float32 and data.train_labels.dtype == torch.int64
    std, mean = torch.std_mean(data.train_images, dim=(0, 2, 3), correction=0)
    assert torch.allclose(mean, torch.zeros(3), atol=1e-5) and torch.allclose(std, torch.ones(3), atol=1e-5)
    assert len(data.mean) == len(data.std) == 3 and 0 < data.mean[0] < 1  # uint8 is scaled to 0-1
    expected = (torch.from_numpy(images[:7]) / 255 - torch.tensor(data.mean)[:, None, None]) / torch.tensor(
        data.std
    )[:, None, None]
    assert torch.allclose(data.test_images, expected, atol=1e-5)


def test_a_constant_channel_becomes_zero() -> None:
    data = load((np.full((12, 8, 8), 7.0), np.arange(12) % 2))
    assert data.std == (1.0,) and not data.train_images.any()


class _PIL(Dataset):
    """A map-style dataset as torchvision's are: PIL images and plain integers."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> Any:
        image = pytest.importorskip("PIL.Image")
        pixels = self.images[i]
        return image.fromarray(pixels if pixels.ndim == 2 else pixels.transpose(1, 2, 0)), int(self.labels[i])


@pytest.mark.parametrize("shape", [(8, 8), (3, 8, 9)])
def test_every_form_of_the_same_data_is_the_same(shape: tuple[int, ...]) -> None:
    images, labels = arrays(shape=shape)
    tensors = torch.from_numpy(images), torch.from_numpy(labels)
    forms: list[Any] = [
        (images, labels),
        [images, labels.astype(np.uint8)],
        tensors,
        (images.astype(np.float64) / 255, labels),
        (np.asfortranarray(images), labels.astype(">i4")),
        TensorDataset(*tensors),
        _PIL(images, labels),
    ]
    first, *others = (load(form) for form in forms)
    assert first.input_shape == (shape if len(shape) == 3 else (1, *shape))
    for other in others:
        assert torch.allclose(first.train_images, other.train_images, atol=1e-6)
        assert first.train_labels.equal(other.train_labels)
        assert torch.allclose(first.validation_images, other.validation_images, atol=1e-6)
    assert others[-1].name == "_PIL" and first.name == "arrays" and first.test_images is None


def test_the_users_arrays_are_left_alone() -> None:
    images, labels = arrays()
    images = images.astype(np.float32)
    before = images.copy()
    load((images, labels)).train_images.add_(1)
    assert (images == before).all()


def test_it_can_be_pickled() -> None:
    data = load(arrays())
    assert pickle.loads(pickle.dumps(data)).train_images.equal(data.train_images)


# Errors


def _with(index: int, value: Any) -> Any:
    whole: list[Any] = [*arrays(), *arrays(6)]
    whole[index] = value
    return tuple(whole)


_IMAGES, _LABELS = arrays()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            "minst",
            "data is 'minst'; the datasets known by name are digits, mnist, fashion_mnist, kmnist, cifar",
        ),
        (42, r"data is a int; it must be one of digits, .* or a torch Dataset"),
        ((_IMAGES,), "data is a tuple; it must be one of"),
        ((_IMAGES[0, 0], _LABELS), r"images has shape \(8,\); it must be \(n, H, W\) or \(n, C, H, W\)"),
        ((np.zeros((60, 32, 32, 3)), _LABELS), r"shape \(60, 32, 32, 3\).*transpose\(0, 3, 1, 2\)"),
        ((_IMAGES[:0], _LABELS[:0]), r"images has shape \(0, 8, 8\); it must contain at least one image"),
        (
            (_IMAGES, _LABELS[:-1]),
            "there are 60 images and 59 labels; there must be one label for each image",
        ),
        ((_IMAGES, _LABELS[:, None]), r"labels has shape \(60, 1\); it must be \(n,\)"),
        ((_IMAGES, _LABELS / 2), "labels has dtype float64; it must contain integers"),
        ((_IMAGES, _LABELS > 0), "labels has dtype bool; it must contain integers"),
        (
            (_IMAGES, np.array([0, "a"] * 30, dtype=object)),
            "labels has dtype object; it must contain numbers",
        ),
        ((_IMAGES, _LABELS - 1), "labels contain -1; with 2 classes they must be integers from 0 to 1"),
        ((_IMAGES, _LABELS + 1), "the number of images of class 0 is 0; each of the 4 classes"),
        (
            (_IMAGES, np.r_[_LABELS[:-1], 3]),
            r"the number of images of class 3 is 1; .* \(0 to 3\) needs at least 2",
        ),
        ((np.where(_IMAGES > 250, np.nan, 1.0), _LABELS), "pixels that are NaN or infinite"),
        (_with(2, _IMAGES[:6, :7]), r"test_images have shape \(1, 7, 8\) and images \(1, 8, 8\)"),
        (_with(3, _LABELS[:5]), "there are 6 test_images and 5 test_labels"),
        (_with(3, _LABELS[:6] + 1), "test_labels contain 3; with 3 classes"),
        (TensorDataset(torch.zeros(0, 1, 8, 8), torch.zeros(0)), "data is an empty TensorDataset"),
        (TensorDataset(torch.zeros(4, 8, 8), torch.zeros(4)), "labels has dtype float32"),
    ],
)
def test_what_is_wrong_with_the_data_is_said(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(data)


class _Ragged(_PIL):
    def __getitem__(self, i: int) -> Any:
        return np.zeros((8, 8 + i % 2)), 0


def test_images_of_different_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"shapes \(8, 8\) and \(8, 9\); all must have the same shape"):
        load(_Ragged(*arrays()))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"train_size": 0}, "train_size is 0; it must be a positive integer"),
        ({"train_size": 2.5}, "train_size is 2.5; it must be a positive integer"),
        ({"train_size": True}, "train_size is True; it must be a positive integer"),
        ({"validation_size": -3}, "validation_size is -3; it must be a positive integer"),
        ({"train_size": 60}, "train_size is 60; it must be less than the number of images, 60"),
        ({"train_size": 50, "validation_size": 11}, "train_size 50 and validation_size 11 do not fit"),
        ({"num_classes": 1}, "num_classes is 1; it must be an integer of at least 2"),
        ({"num_classes": 2}, "labels contain 2; with 2 classes they must be integers from 0 to 1"),
        ({"num_classes": 5}, "the number of images of class 3 is 0; each of the 5 classes"),
        ({"device": "gpu"}, "device is 'gpu'; it must be 'cpu'"),
        ({"device": "meta"}, "device is 'meta'; it must be 'cpu'"),
    ],
)
def test_what_is_wrong_with_an_argument_is_said(argument: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(arrays(), **argument)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_gpu_is_said() -> None:
    with pytest.raises(ValueError, match="device is 'cuda'; it must be 'cpu', because no GPU is available"):
        resolve_device("cuda")
    assert resolve_device(None) == torch.device("cpu")


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST/raw"), ("cifar10", "cifar-10-batches-py")])
def test_missing_files_are_said(tmp_path: Path, name: str, folder: str) -> None:
    pytest.importorskip("torchvision")
    with pytest.raises(
        FileNotFoundError, match=rf"the files of '{name}' are not in .*{folder}; pass download=True"
    ):
        load(name, data_root=tmp_path)


def test_a_failing_download_says_where_files_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("torchvision.datasets")

    def offline(*_: Any, **__: Any) -> None:
        raise RuntimeError("Error downloading\ntrain-images")

    monkeypatch.setattr(datasets, "KMNIST", offline)
    message = r"could not download .kmnist. \(Error downloading train-images\); put its files in .*KMNIST/raw"
    with pytest.raises(OSError, match=message):
        load("kmnist", data_root=tmp_path, download=True)


@pytest.mark.parametrize(("name", "package"), [("digits", "sklearn.datasets"), ("mnist", "torchvision")])
def test_a_missing_extra_is_said(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r'pip install "optuna-trlhpo\[cnn\]"'):
        load(name)
    assert load(arrays()).num_classes == 3  # arrays need neither


def test_labels_may_be_names() -> None:
    images = np.random.default_rng(0).random((30, 8, 8))
    names = np.array(["cat", "dog", "ant"])[np.arange(30) % 3]
    data = load_data((images, names, images[:4], ["dog", "dog", "ant", "cat"]), device="cpu")
    assert data.classes == ("ant", "cat", "dog") and data.num_classes == 3
    assert data.test_labels is not None and data.test_labels.tolist() == [2, 2, 0, 1]
    numbers = load_data((images, np.array([1, 2, 0])[np.arange(30) % 3]), device="cpu")
    assert torch.equal(numbers.train_labels, data.train_labels) and numbers.classes == ()
    with pytest.raises(
        ValueError, match="test_labels contain 'cow'; the labels have the classes ant, cat, dog"
    ):
        load_data((images, names, images[:1], ["cow"]), device="cpu")


def test_names_of_classes_are_in_the_file(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((60, 8, 8))
    objective = CNNObjective((images, np.array(["a", "b"])[np.arange(60) % 2]), epochs=1, max_layers=1)
    trial = optuna.trial.create_trial(value=0.5, user_attrs={"architecture": "Conv(8,3,1)"})
    objective.export(trial, tmp_path / "a.py")
    assert '["a", "b"]' in (tmp_path / "a.py").read_text(encoding="utf-8")
