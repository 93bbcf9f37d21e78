"""Running of ONNX files, on the CPU by onnxruntime."""

from __future__ import annotations

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


def accuracy_of_file(path: str | Path, images: Tensor, labels: Tensor) -> float:
    """Return the share of images that an ONNX file classifies correctly.

    Args:
        path: Path of the file.
        images: Standardised images ``[N, ...]``.
        labels: Labels ``[N]``.
    """
    run = runner(path)
    found = torch.cat([run(batch).argmax(dim=1) for batch in images.split(_BATCH)])
    return float((found == labels.cpu()).double().mean())
