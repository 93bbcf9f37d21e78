"""ExecuTorch programs: a trained network for telephones and boards, on the kernels of XNNPACK.

A program takes one input at a time, because the memory of all activations is planned when it is written.
In int8, weights and activations have a scale and a zero point, as in `quantisation`: one for each output
channel of a weight, one for each tensor of activations (Jacob et al., 2018).

Notation: C channels, H height, W width, N inputs of the calibration.
"""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from optuna_trlhpo.cnn.deploy.folding import folded
from optuna_trlhpo.cnn.deploy.quantisation import CALIBRATION_IMAGES
from optuna_trlhpo.layers import blocks

_BATCH = 100


def executorch_program(
    network: nn.Module,
    input_shape: Sequence[int],
    notes: Mapping[str, str],
    calibration: Tensor | None = None,
) -> bytes:
    """Return a network as the bytes of a ``.pte`` file.

    The method ``forward`` takes one input ``[1, *input_shape]``. The method ``metadata`` takes nothing and
    returns the notes as JSON. What XNNPACK has no kernel for is computed by ExecuTorch's portable kernels.

    Args:
        network: Network in evaluation mode, on the CPU. It is not changed.
        input_shape: Shape of one input without the batch axis.
        notes: Metadata.
        calibration: Inputs ``[N, *input_shape]`` that fix the ranges of the activations in int8. None for
            32-bit floats.

    Raises:
        ValueError: If ExecuTorch cannot express the network.
        ImportError: If ExecuTorch is not installed.
    """
    with _without_advice():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        try:
            network = _with_global_pools(folded(network))
            if calibration is not None:
                network = _quantised(network, calibration)
            lowered = to_edge_transform_and_lower(
                torch.export.export(network, (torch.zeros(1, *input_shape),)),
                partitioner=[XnnpackPartitioner()],
                constant_methods={"metadata": json.dumps(dict(notes))},
            )
            return bytes(lowered.to_executorch().buffer)
        except Exception as error:  # custom modules may raise any exception
            raise unwritable(error) from error


def unwritable(error: Exception) -> ValueError:
    """Return the error for a network that ExecuTorch cannot express or run."""
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return ValueError(
        f"the network cannot be written for ExecuTorch ({reason}); use the suffix .onnx or .pt2"
    )


def _quantised(network: nn.Module, calibration: Tensor) -> nn.Module:
    """Return the network with rounding to int8 around its operations, which XNNPACK fuses to integers."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    images = calibration[:CALIBRATION_IMAGES]
    example = torch.zeros(2, *images.shape[1:])  # torch.export takes a batch of one for a constant
    sizes = ({0: torch.export.Dim("batch")},)
    graph = torch.export.export(network, (example,), dynamic_shapes=sizes).module()
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    observed = prepare_pt2e(graph, quantizer)
    with torch.no_grad():
        for batch in images.split(_BATCH):
            observed(batch)
    converted: nn.Module = convert_pt2e(observed)
    return converted


class _GlobalPool(nn.Module):
    """The mean over H and W, ``[1, C, H, W]`` to ``[1, C]``, in the form that XNNPACK has a kernel for."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3), keepdim=True).flatten(1)


def _with_global_pools(network: nn.Module) -> nn.Module:
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if name and isinstance(module, blocks.Mean) and module.axes == (2, 3):
            network.set_submodule(name, _GlobalPool())
    return network


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Hold back warnings of ExecuTorch's packages about each other, and about GPUs that are not needed."""
    loggers = [logging.getLogger(name) for name in ("torch.utils._pytree", "torchao")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
