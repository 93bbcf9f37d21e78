"""Convolutions of a GPU in 32 bits: a setting of the process, changed while a network is trained."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from optuna_trlhpo.cnn.training import loop
from optuna_trlhpo.cnn.training.fast_layout import FastOrder, fastest_layout, place
from optuna_trlhpo.cnn.training.full_precision import full_precision
from optuna_trlhpo.cnn.training.loop import PRECISIONS, predict_correct, train
from tests.cnn.test_training import classifier, generator, network, two_blobs

GPU, CPU = torch.device("cuda"), torch.device("cpu")
backends: Any = torch.backends  # without the settings of a newer PyTorch for mypy
cudnn = backends.cudnn
HAS_NEWER = hasattr(cudnn, "conv")
newer = pytest.mark.skipif(not HAS_NEWER, reason="PyTorch has one setting for all operations")


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """The settings as PyTorch has them at first, before and after each test."""
    cudnn.allow_tf32 = True
    yield
    if HAS_NEWER:
        backends.fp32_precision = "none"
    cudnn.allow_tf32 = True


def test_tf32_is_off_within_and_as_before_after() -> None:
    with full_precision(GPU):
        assert not cudnn.allow_tf32
    assert cudnn.allow_tf32
    with pytest.raises(KeyboardInterrupt), full_precision(GPU):
        raise KeyboardInterrupt
    assert cudnn.allow_tf32
    cudnn.allow_tf32 = False
    with full_precision(GPU):
        assert not cudnn.allow_tf32
    assert not cudnn.allow_tf32


def test_it_may_be_read_by_others_meanwhile() -> None:
    with full_precision(GPU), cudnn.flags(enabled=True, allow_tf32=False):
        assert not cudnn.allow_tf32
    assert cudnn.allow_tf32


def test_other_devices_leave_it_alone() -> None:
    with full_precision(CPU):
        assert cudnn.allow_tf32


def test_the_last_of_several_threads_restores_it() -> None:
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with full_precision(GPU):
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with full_precision(GPU):
        thread.start()
        assert entered.wait(10)
    assert not cudnn.allow_tf32  # the first one has left
    leave.set()
    thread.join()
    assert cudnn.allow_tf32


@newer
@pytest.mark.parametrize("of_rnn", ["ieee", "tf32"])
def test_settings_of_single_operations_are_restored(of_rnn: str) -> None:
    cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision = "tf32", of_rnn
    with full_precision(GPU):
        assert "tf32" not in (cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision)
    assert (cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision) == ("tf32", of_rnn)


@newer
def test_a_setting_for_everything_is_overruled() -> None:
    backends.fp32_precision = "tf32"
    with full_precision(GPU):
        assert "tf32" not in (cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision)
    assert cudnn.conv.fp32_precision == "tf32"


@pytest.mark.parametrize("precision", PRECISIONS)
def test_training_and_evaluation_ask_for_it(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []

    @contextlib.contextmanager
    def noted(device: torch.device) -> Iterator[None]:
        asked.append(device)
        yield

    monkeypatch.setattr(loop, "full_precision", noted)
    model, (images, labels) = classifier(), two_blobs()
    setting = {"epochs": 1, "batch_size": 16, "learning_rate": 0.1, "precision": precision}
    train(model, images, labels, generator=generator(), **setting)  # type: ignore[arg-type]
    predict_correct(model, images, labels)
    assert asked == [CPU, CPU]


# Layout


@pytest.mark.parametrize(
    ("text", "device", "precision", "by_pixel"),
    [
        ("Conv(8,3,1) > Conv(8,3,1)", GPU, "bfloat16", True),
        ("Residual(8,3,1)", GPU, "bfloat16", True),
        ("FCL(16,relu,bias)", GPU, "bfloat16", False),
        ("Conv(8,3,1) > MaxPool(2,2,0)", GPU, "float32", False),
        ("Conv(8,3,1) > MaxPool(2,2,0)", CPU, "float32", True),
        ("Conv(8,3,1) > MaxPool(2,2,0)", CPU, "bfloat16", True),
        ("Conv(8,3,1) > Conv(8,3,1)", CPU, "bfloat16", False),
        ("Conv(8,3,1) > MaxPool(2,2,0)", torch.device("mps"), "bfloat16", False),
    ],
)
def test_tensor_cores_have_the_channels_last(
    text: str, device: torch.device, precision: str, by_pixel: bool
) -> None:
    expected = torch.channels_last if by_pixel else torch.contiguous_format
    assert fastest_layout(network(text), device, precision) == expected


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@needs_gpu
def test_convolutions_of_the_gpu_have_32_bits() -> None:
    images, kernel = torch.randn(8, 64, 16, 16, device="cuda"), torch.randn(64, 64, 3, 3, device="cuda")
    exact = F.conv2d(images.double(), kernel.double())
    with full_precision(GPU):
        torch.testing.assert_close(F.conv2d(images, kernel).double(), exact, rtol=1e-4, atol=1e-3)


@needs_gpu
@pytest.mark.parametrize(
    "text", ["Conv(8,3,1) > MaxPool(2,2,0)", "Conv(8,3,1) > Conv(16,3,1)", "Residual(8,3,1)"]
)
def test_16_bits_on_the_gpu_learn_in_their_layout(text: str) -> None:
    labels = torch.arange(96, device="cuda") % 3
    images = torch.randn(96, 1, 12, 12, device="cuda") + labels[:, None, None, None]
    model = place(network(text), GPU, "bfloat16")
    kernel = next(it.weight for it in model.modules() if isinstance(it, nn.Conv2d))
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert isinstance(FastOrder(model, "bfloat16").model, nn.Sequential)
    train(
        model,
        images,
        labels,
        epochs=10,
        batch_size=16,
        learning_rate=0.01,
        precision="bfloat16",
        generator=generator(0, "cuda"),
    )
    assert predict_correct(model, images, labels).float().mean() > 0.8
