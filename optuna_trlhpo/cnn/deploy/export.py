"""Export of a trained network to a file that can be used without this package.

The formats are ONNX, ExecuTorch, `torch.export` and Python source. Each file is read back and run for a
check: its outputs must equal those of the network. All formats accept any batch size, but for ExecuTorch,
whose programs take one input at a time.

Notation: B inputs in a batch.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from optuna_trlhpo.cnn.deploy.executorch_program import executorch_program, unwritable
from optuna_trlhpo.cnn.deploy.folding import folded
from optuna_trlhpo.cnn.deploy.quantisation import quantised, strip
from optuna_trlhpo.cnn.deploy.running import Run, executorch_runner, runner
from optuna_trlhpo.cnn.deploy.source import write_source
from optuna_trlhpo.layers.model_size import check_quantize

TOLERANCE = 1e-4
"""Maximum difference between the outputs of a file and of its network, for outputs of the order of 1."""

FORMATS = {".onnx": "ONNX", ".pte": "ExecuTorch", ".pt2": "torch.export", ".py": "Python source"}
"""Formats by the suffix of the path."""

QUANTISABLE = (".onnx", ".pte")
"""Suffixes of the formats that hold 8-bit integers."""

_NEEDED = {".onnx": ("export", "onnx", "onnxruntime", "onnxscript"), ".pte": ("executorch", "executorch")}
"""The extra and the packages that a format needs."""

_COMPARED = 100
"""Number of inputs of the calibration on which a quantised file and its network are compared."""


class Exported(NamedTuple):
    """A network that was written to a file, read back and run.

    Attributes:
        format: One of the values of `FORMATS`.
        files: The requested file; for ``.py`` also the ``.safetensors`` file with the weights.
        bytes: Total size of the files.
        difference: Maximum difference between the outputs of the file and of the network: on random inputs,
            or for a quantised file on those of its calibration.
        quantize: Number format that the network was quantised to. None means 32-bit floats.
        accuracy: Accuracy of the quantised file on the validation images. None if it is not quantised.
        float_accuracy: Accuracy of the network before, on the same images. None if it is not quantised.
    """

    format: str
    files: tuple[Path, ...]
    bytes: int
    difference: float
    quantize: str | None = None
    accuracy: float | None = None
    float_accuracy: float | None = None


def export_network(
    network: nn.Module,
    path: str | Path,
    input_shape: Sequence[int],
    *,
    output: str = "logits",
    metadata: Mapping[str, Any] | None = None,
    quantize: str | None = None,
    calibration: Tensor | None = None,
) -> Exported:
    """Write a trained network to a file in the format of the suffix of ``path``, and check it.

    - ``.onnx``: for onnxruntime and other ONNX readers. The input is named ``"input"``; there is one output.
    - ``.pte``: an ExecuTorch program for a telephone or a board, on the CPU by XNNPACK. Its method
      ``forward`` takes one input ``[1, *input_shape]``; its method ``metadata`` returns the metadata as JSON.
    - ``.pt2``: a `torch.export` program, for ``torch.export.load(path).module()``.
    - ``.py``: readable source that needs only PyTorch and safetensors. It has a class ``Network`` and a
      function ``load()``, which loads the weights from the ``.safetensors`` file beside it. The network can
      be trained further.

    Args:
        network: Any module with one input and one output. It is not changed, and is exported in evaluation
            mode.
        path: Path of the file. An existing file is replaced.
        input_shape: Shape of one input without the batch axis.
        output: Name of the output in ONNX.
        metadata: Additional metadata for the file, serialisable as JSON.
        quantize: ``"int8"`` for 8-bit integers in ONNX or ExecuTorch: one scale for each output channel of a
            weight, and for each tensor of activations. Inputs and outputs stay floats. None for 32-bit
            floats.
        calibration: Inputs ``[N, *input_shape]`` that fix the ranges of the activations in int8.

    Raises:
        ValueError: For another suffix, if the network cannot be written in this format, or if it is to be
            quantised in a format without 8-bit integers or without ``calibration``.
        ImportError: If the format is ONNX or ExecuTorch, which is not installed.
        RuntimeError: If the outputs of the written file differ from those of the network. The file of floats
            is checked; those of a quantised file always differ a little.

    Examples:
        >>> import tempfile
        >>> network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
        >>> exported = export_network(network, Path(tempfile.mkdtemp()) / "net.py", (1, 8, 8))
        >>> exported.format, [path.name for path in exported.files], exported.difference < TOLERANCE
        ('Python source', ['net.py', 'net.safetensors'], True)
    """
    path = Path(path)
    check_format(path, quantize)
    if quantize is not None:
        calibration = _checked_calibration(calibration, tuple(input_shape))
        recurrent = {type(module).__name__ for module in network.modules() if isinstance(module, nn.RNNBase)}
        if recurrent:
            names = ", ".join(sorted(recurrent))
            raise ValueError(f"quantize is {quantize!r}; with {names}, which stays floats, it must be None")
    notes = {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in (metadata or {}).items()
    }
    reference = copy.deepcopy(network).cpu().eval().to(memory_format=torch.contiguous_format)
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(size, *input_shape, generator=generator) for size in (2, 1, 5)]
    path.parent.mkdir(parents=True, exist_ok=True)
    write = {
        ".onnx": _write_onnx,
        ".pte": _write_executorch,
        ".pt2": _write_program,
        ".py": _write_source,
    }[path.suffix]
    files, run = write(reference, path, batches[0], output, notes)
    with torch.inference_mode():
        difference = max(_difference(run(batch), reference(batch)) for batch in batches)
    if not difference <= TOLERANCE:
        if quantize is not None:
            path.unlink()  # nobody asked for a file of floats
        raise RuntimeError(
            f"the outputs of the exported file {str(path)!r} differ from those of the network by up to "
            f"{difference:.2g}; do not use the file"
        )
    if calibration is not None and quantize is not None:
        run = _quantise(reference, path, calibration, notes)
        with torch.inference_mode():
            difference = _difference(run(calibration[:_COMPARED]), reference(calibration[:_COMPARED]))
    size = sum(file.stat().st_size for file in files)
    return Exported(FORMATS[path.suffix], files, size, difference, quantize)


def check_format(path: str | Path, quantize: str | None = None) -> None:
    """Raise an error unless the suffix is known and the packages for its format are installed."""
    check_quantize(quantize)
    suffix = Path(path).suffix
    if suffix not in FORMATS:
        known = ", ".join(f"{ending} ({name})" for ending, name in FORMATS.items())
        raise ValueError(f"path is {str(path)!r}; it must end in {known}")
    if quantize is not None and suffix not in QUANTISABLE:
        endings = " or ".join(QUANTISABLE)
        raise ValueError(f"path is {str(path)!r}; with quantize={quantize!r} it must end in {endings}")
    extra, *needed = _NEEDED.get(suffix, ("",))
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"the export to {str(path)!r} needs {', '.join(missing)}; "
            f'install with pip install "optuna-trlhpo[{extra}]"'
        )


def _difference(found: Tensor, wanted: Tensor) -> float:
    """Return the maximum difference, relative for large outputs; infinite or NaN for invalid outputs."""
    if found.shape != wanted.shape:
        return float("inf")
    return float(((found - wanted).abs() / wanted.abs().clamp(min=1)).max())


def _quiet_export(network: nn.Module, inputs: Tensor) -> torch.export.ExportedProgram:
    with warnings.catch_warnings():
        # PyTorch warns about its own LSTM, and about names that its exporter will replace.
        warnings.simplefilter("ignore")
        sizes = ({0: torch.export.Dim("batch")},)
        return torch.export.export(network, (inputs,), dynamic_shapes=sizes)


def _write_onnx(
    network: nn.Module, path: Path, inputs: Tensor, output: str, notes: Mapping[str, str]
) -> tuple[tuple[Path, ...], Run]:
    import onnx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            folded(network),  # older exporters cannot write some normalisations
            (inputs,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["input"],
            output_names=[output],
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(notes)
    program.save(str(path), external_data=False)
    model = onnx.load(str(path))
    strip(model)
    onnx.save(model, str(path))
    return (path,), runner(path)


def _checked_calibration(calibration: Any, input_shape: tuple[int, ...]) -> Tensor:
    """Return the inputs as floats.

    Raises:
        ValueError: If they are not finite numbers ``[N, *input_shape]``.
    """
    wanted = f"to quantise, it must be finite numbers (N, {', '.join(map(str, input_shape))})"
    try:
        inputs = torch.as_tensor(calibration).detach().cpu().float()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"calibration is {type(calibration).__name__}; {wanted}") from error
    if inputs.shape[1:] != input_shape or not len(inputs):
        raise ValueError(f"calibration has the shape {tuple(inputs.shape)}; {wanted}")
    if not inputs.isfinite().all():
        raise ValueError(f"calibration has numbers that are not finite; {wanted}")
    return inputs


def _quantise(network: nn.Module, path: Path, calibration: Tensor, notes: Mapping[str, str]) -> Run:
    """Replace a file of floats by the quantised one."""
    try:
        if path.suffix == ".pte":
            return _save_executorch(network, path, calibration.shape[1:], notes, calibration)
        import onnx

        onnx.save(quantised(onnx.load(str(path)), calibration), str(path))
    except BaseException:
        path.unlink()  # it holds floats, which nobody asked for
        raise
    return runner(path)


def _write_executorch(
    network: nn.Module, path: Path, inputs: Tensor, output: str, notes: Mapping[str, str]
) -> tuple[tuple[Path, ...], Run]:
    return (path,), _save_executorch(network, path, inputs.shape[1:], notes)


def _save_executorch(
    network: nn.Module,
    path: Path,
    input_shape: Sequence[int],
    notes: Mapping[str, str],
    calibration: Tensor | None = None,
) -> Run:
    path.write_bytes(executorch_program(network, input_shape, notes, calibration))
    try:
        return executorch_runner(path)
    except RuntimeError as error:  # an operation for which the runtime has no kernel
        path.unlink()
        raise unwritable(error) from error


def _write_program(
    network: nn.Module, path: Path, inputs: Tensor, output: str, notes: Mapping[str, str]
) -> tuple[tuple[Path, ...], Run]:
    torch.export.save(_quiet_export(network, inputs), path, extra_files={"metadata.json": json.dumps(notes)})
    return (path,), torch.export.load(path).module()


def _write_source(
    network: nn.Module, path: Path, inputs: Tensor, output: str, notes: Mapping[str, str]
) -> tuple[tuple[Path, ...], Run]:
    return write_source(network, path, inputs, notes)
