"""Memory that runs out: it is recognised whoever says so, ends a trial and no study, and is explained."""

from __future__ import annotations

import logging
from typing import Any, Literal

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import TrialState
from torch import Tensor, nn

from optuna_trlhpo.cnn import best_network
from optuna_trlhpo.cnn.data.datasets import load_data, resolve_device
from optuna_trlhpo.cnn.memory import is_out_of_memory
from optuna_trlhpo.cnn.training import trainer
from tests.cnn.test_objective import make, run

OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported at some other call"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED"),
    RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"),
    RuntimeError("HIP error: out of memory"),
    RuntimeError("HIP error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`"),
    RuntimeError("miopenStatusAllocFailed"),
    RuntimeError("XPU out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)"),
    RuntimeError("MPS backend out of memory (MPS allocated: 8.98 GB, max allowed: 9.07 GB)."),
    RuntimeError("Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    RuntimeError("std::bad_alloc"),
    MemoryError(),
    MemoryError("Unable to allocate 8. GiB for an array with shape (1, 2) and data type float32"),
]

OTHER = [
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: operation failed due to a previous error during capture"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_BAD_PARAM"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
    ValueError("out of memory"),
    KeyboardInterrupt(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=str)
def test_memory_that_ran_out_is_recognised(error: BaseException) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", OTHER, ids=repr)
def test_other_errors_are_not_taken_for_it(error: BaseException) -> None:
    assert not is_out_of_memory(error)


def test_a_real_failure_of_the_cpu_allocator_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(2**50)
    assert is_out_of_memory(of_numpy.value)


class _FailsBackward(torch.autograd.Function):
    error: BaseException

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        return inputs.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        raise _FailsBackward.error


@pytest.mark.parametrize("error", [OUT_OF_MEMORY[0], OUT_OF_MEMORY[1], MemoryError()], ids=repr)
def test_it_is_recognised_behind_the_backward_pass(error: BaseException) -> None:
    _FailsBackward.error = error
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        _FailsBackward.apply(torch.ones(2, requires_grad=True)).sum().backward()
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("error", [OUT_OF_MEMORY[1], OUT_OF_MEMORY[3], MemoryError()], ids=repr)
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_each_kind_fails_one_trial_and_no_study(
    error: BaseException, n_jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, train = [0], trainer.train
    informed: list[str] = []

    def first_fails(*args: Any, **kwargs: Any) -> None:
        calls[0] += 1
        if calls[0] == 1:
            raise error
        train(*args, **kwargs)

    monkeypatch.setattr(trainer, "train", first_fails)
    monkeypatch.setattr(logging.getLogger("optuna.trlhpo.cnn"), "info", informed.append)
    objective = make()
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=3, n_jobs=n_jobs)
    states = [trial.state for trial in study.trials]
    assert states.count(TrialState.FAIL) == 1 and states.count(TrialState.COMPLETE) == 2
    assert any(type(error).__name__ in text for text in informed)  # what PyTorch said is not lost
    # Another study with the same objective, and one with another, go on as if nothing had happened.
    assert run(objective).best_value >= 0
    assert run(make()).best_value >= 0


def test_an_augmentation_that_runs_out_of_memory_fails_the_trial() -> None:
    def greedy(images: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    study = run(make(augment=greedy))
    assert study.trials[0].state == TrialState.FAIL
    assert study.trials[0].user_attrs["failed"].startswith("out of memory while training")


@pytest.mark.parametrize("setting", [{"max_latency": 1.0}, {"objectives": ("accuracy", "latency")}])
def test_a_latency_that_memory_is_too_short_to_measure(
    setting: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = make(**setting)

    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error: out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(best_network, "latency_of", full)
        patch.setattr(trainer, "train", full)
        both: list[Literal["maximize", "minimize"]] = ["maximize", "minimize"]
        directions = both[: len(objective.objectives)]
        study = optuna.create_study(directions=directions, sampler=optuna.samplers.RandomSampler(seed=0))
        study.optimize(objective, n_trials=1)
        assert study.trials[0].state == TrialState.FAIL
        assert study.trials[0].user_attrs["failed"].startswith("out of memory while training")
    study.optimize(objective, n_trials=1)  # it is measured again
    assert study.trials[1].state == TrialState.COMPLETE


def test_a_keyboard_interrupt_ends_the_study(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(make())


def test_a_trained_network_holds_no_gradients() -> None:
    objective = make(inherit=True)
    trial = run(objective, network="Conv(8,3,1) > Conv(8,3,1)").best_trial
    network = objective.refit(trial).network
    assert [parameter.grad for parameter in network.parameters()] == [None] * 4


# Data that do not fit


def images(n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((n, 3, 8, 8), dtype=np.uint8), np.arange(n) % 3


@pytest.mark.parametrize("error", [OUT_OF_MEMORY[0], OUT_OF_MEMORY[17], MemoryError()], ids=repr)
def test_data_that_do_not_fit_are_explained(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(Tensor, "to", full)
    # (60 + 30) * 3 * 8 * 8 numbers of 4 bytes
    message = (
        r"the 90 inputs of shape \(3, 8, 8\) take 6.91e-05 GB as float32, which do not fit in the memory of "
        "cpu; choose a smaller train_size and validation_size, smaller inputs$"
    )
    with pytest.raises(ValueError, match=message):
        load_data((*images(), *images(30)), device="cpu")


def test_what_is_free_on_the_gpu_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    class Module:
        @staticmethod
        def mem_get_info(device: torch.device) -> tuple[int, int]:
            return 10**9, 8 * 10**9

    monkeypatch.setattr("optuna_trlhpo.cnn.data.datasets.resolve_device", torch.device)
    monkeypatch.setattr(torch, "get_device_module", lambda _: Module)
    monkeypatch.setattr(Tensor, "to", full)
    with pytest.raises(ValueError, match=r"of cuda:1 \(1 of 8 GB are free\); choose .*, or device='cpu'$"):
        load_data(images(), device="cuda:1")


def test_other_errors_of_the_data_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error: invalid device ordinal")

    monkeypatch.setattr(Tensor, "to", broken)
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        load_data(images(), device="cpu")


def test_a_full_device_is_not_called_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later")

    monkeypatch.setattr(torch, "zeros", full)
    with pytest.raises(
        ValueError, match=r"device is 'cuda', which has no memory left \(CUDA error: out of memory\); free"
    ):
        resolve_device("cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_network_that_does_not_fit_on_the_gpu_is_survived() -> None:
    free, _ = torch.cuda.mem_get_info()
    with pytest.raises(RuntimeError) as caught:
        nn.Linear(free // 4, 8, device="cuda")
    assert is_out_of_memory(caught.value)
    assert torch.ones(2, device="cuda").sum() == 2
