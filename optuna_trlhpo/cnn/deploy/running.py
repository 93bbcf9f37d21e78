"""Running of exported files on the CPU: ONNX by onnxruntime, ExecuTorch programs by their own runtime."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

Run = Callable[[Tensor], Tensor]
"""Function of a batch ``[B, ...]`` that returns the outputs of a file."""

_BATCH = 500
"""Number of images that a file classifies at once."""


def runner(path: str | Path, *, threads: int = 0) -> Run:
    """Return a function that runs an ONNX file on a batch ``[B, ...]`` on the CPU.

    Args:
        path: Path of the file.
        threads: Number of CPU threads. 0 lets onnxruntime decide.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: torch.from_numpy(session.run(None, {name: batch.cpu().numpy()})[0])


def executorch_runner(path: str | Path) -> Run:
    """Return a function that runs an ExecuTorch program on each input of a batch ``[B, ...]``, on the CPU.

    Args:
        path: Path of the file. It may change later; the program is in memory.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the runtime calls its own interface experimental
        from executorch.runtime import Runtime

    program = Runtime.get().load_program(Path(path).read_bytes())
    program.load_method("forward")

    def run(batch: Tensor) -> Tensor:
        method = program.load_method("forward")  # it was loaded above, and lives no longer than the program
        return torch.cat([method.execute([one])[0] for one in batch.cpu().float().contiguous().split(1)])

    return run


def accuracy_of_file(path: str | Path, images: Tensor, labels: Tensor) -> float:
    """Return the share of images that a file classifies correctly.

    Args:
        path: Path of an ONNX file or of an ExecuTorch program.
        images: Standardised images ``[N, ...]``.
        labels: Labels ``[N]``.
    """
    run = executorch_runner(path) if Path(path).suffix == ".pte" else runner(path)
    found = torch.cat([run(batch).argmax(dim=1) for batch in images.split(_BATCH)])
    return float((found == labels.cpu()).double().mean())
