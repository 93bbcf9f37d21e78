"""Quantisation of an ONNX model to 8-bit integers by onnxruntime, and removal of unneeded parts of a model.

Weights and activations become int8 with a scale and a zero point: one for each output channel of a weight,
one for each tensor of activations (Jacob et al., 2018). The model has QuantizeLinear and DequantizeLinear
nodes around its operations (QDQ), which runtimes fuse to integer arithmetic.

Notation: N images.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    import onnx

CALIBRATION_IMAGES = 1000
"""Number of images that fix the ranges of the activations. More take time and change little."""

_BATCH = 100


def quantised(model: onnx.ModelProto, images: Tensor) -> onnx.ModelProto:
    """Return the model with int8 weights and activations.

    Args:
        model: Model of 32-bit floats with one input.
        images: Images ``[N, ...]`` as the model takes them, which fix the ranges of the activations.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, _without_advice():
        whole, prepared, quantised = (Path(folder) / name for name in ("a.onnx", "b.onnx", "c.onnx"))
        onnx.save(model, whole)
        # Symbolic inference would need another package; these models have no symbols but the batch size.
        quant_pre_process(str(whole), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(quantised),
            _batches(model.graph.input[0].name, images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        found = onnx.load(str(quantised))
    del found.metadata_props[:]
    found.metadata_props.extend(model.metadata_props)
    shorten_names(found)
    return found


def _batches(name: str, images: Tensor) -> Any:
    """Return a reader of batches, as onnxruntime's calibration wants it."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches: Iterator[Tensor] = iter(images[:CALIBRATION_IMAGES].split(_BATCH))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._batches, None)
            return None if batch is None else {name: batch.cpu().numpy()}

    return Reader()


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Hold back the advice to preprocess, which onnxruntime logs whether that was done or not."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes for debugging: often more bytes than the weights of a small network."""
    graph = model.graph
    graph.doc_string = ""
    del graph.value_info[:]
    del graph.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""
        node.name = ""
        del node.metadata_props[:]
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]


def shorten_names(model: onnx.ModelProto) -> None:
    """Give every tensor but the input and the output a short name, and store its numbers without padding."""
    from onnx import numpy_helper

    strip(model)
    graph = model.graph
    kept = {value.name for value in (*graph.input, *graph.output)}
    names: dict[str, str] = {"": ""} | {name: name for name in kept}

    def short(name: str) -> str:
        if name not in names:
            names[name] = f"_{len(names)}"
        return names[name]

    for node in graph.node:
        node.input[:] = [short(name) for name in node.input]
        node.output[:] = [short(name) for name in node.output]
    tensors = [
        numpy_helper.from_array(numpy_helper.to_array(tensor), short(tensor.name))
        for tensor in graph.initializer
    ]
    del graph.initializer[:]
    graph.initializer.extend(tensors)
