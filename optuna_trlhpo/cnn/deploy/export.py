"""Export of a trained network to a file that can be used without this package.

The formats are ONNX, `torch.export` and Python source. Each file is read back and run for a check: its
outputs must equal those of the network. All formats accept any batch size.

Notation: B inputs in a batch.
"""

from __future__ import annotations

import ast
import copy
import importlib.util
import inspect
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from optuna_trlhpo.cnn.deploy.folding import folded
from optuna_trlhpo.cnn.deploy.quantisation import quantised, strip
from optuna_trlhpo.cnn.deploy.running import Run, runner
from optuna_trlhpo.layers import blocks
from optuna_trlhpo.layers.model_size import check_quantize

TOLERANCE = 1e-4
"""Maximum difference between the outputs of a file and of its network, for outputs of the order of 1."""

FORMATS = {".onnx": "ONNX", ".pt2": "torch.export", ".py": "Python source"}
"""Formats by the suffix of the path."""

_COMPARED = 100
"""Number of inputs of the calibration on which a quantised file and its network are compared."""

_EXTRA = 'install them with pip install "optuna-trlhpo[export]"'


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
        quantize: ``"int8"`` for 8-bit integers in ONNX: one scale for each output channel of a weight, and
            for each tensor of activations. Inputs and outputs stay floats. None for 32-bit floats.
        calibration: Inputs ``[N, *input_shape]`` that fix the ranges of the activations in int8.

    Raises:
        ValueError: For another suffix, if the network cannot be written in this format, or if it is to be
            quantised in another format than ONNX or without ``calibration``.
        ImportError: If the format is ONNX, which is not installed.
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
    write = {".onnx": _write_onnx, ".pt2": _write_program, ".py": _write_source}[path.suffix]
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
        run = _quantise(path, calibration)
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
    if quantize is not None and suffix != ".onnx":
        raise ValueError(f"path is {str(path)!r}; with quantize={quantize!r} it must end in .onnx")
    needed = ("onnx", "onnxruntime", "onnxscript") if suffix == ".onnx" else ()
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"the export to {str(path)!r} needs {', '.join(missing)}; {_EXTRA}")


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


def _quantise(path: Path, calibration: Tensor) -> Run:
    """Replace an ONNX file by the quantised one."""
    import onnx

    try:
        onnx.save(quantised(onnx.load(str(path)), calibration), str(path))
    except BaseException:
        path.unlink()  # it holds floats, which nobody asked for
        raise
    return runner(path)


def _write_program(
    network: nn.Module, path: Path, inputs: Tensor, output: str, notes: Mapping[str, str]
) -> tuple[tuple[Path, ...], Run]:
    torch.export.save(_quiet_export(network, inputs), path, extra_files={"metadata.json": json.dumps(notes)})
    return (path,), torch.export.load(path).module()


def _write_source(
    network: nn.Module, path: Path, inputs: Tensor, output: str, notes: Mapping[str, str]
) -> tuple[tuple[Path, ...], Run]:
    from safetensors.torch import save

    source, state = network_source(network, inputs, notes)
    weights = path.with_suffix(".safetensors")
    path.write_text(source, encoding="utf-8")
    weights.write_bytes(save(state, metadata=dict(notes)))  # `save_file` lets nobody else read the file
    namespace: dict[str, Any] = {"__file__": str(path), "__name__": path.stem}
    try:
        exec(compile(source, str(path), "exec"), namespace)
        loaded = namespace["load"]()
    except Exception as error:
        raise _unwritable(error) from error
    return (path, weights), loaded


# Source ----------------------------------------------------------------------------------------------------


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, blocks.SeededDropout) or super().is_leaf_module(module, name)


def network_source(
    network: nn.Module, inputs: Tensor, notes: Mapping[str, str]
) -> tuple[str, dict[str, Tensor]]:
    """Return Python source of a network, and its weights by their names in the source.

    Custom modules are replaced by the operations that they call, so that only PyTorch modules remain.

    Args:
        network: Network in evaluation mode.
        inputs: A batch of arbitrary numbers, to determine the shapes.
        notes: Metadata for the docstring.

    Raises:
        ValueError: If the control flow of the network depends on its inputs.
    """
    try:
        traced = _Tracer().trace(network)
    except Exception as error:  # custom modules may raise any exception
        raise _unwritable(error) from error
    ShapeProp(fx.GraphModule(network, traced)).propagate(inputs)
    graph, modules = _renamed(network, traced)
    shapes = {node.name: _shape(node) for node in graph.nodes}
    forward = []
    _, _, body = graph.python_code("self").src.partition("):\n")
    for line in body.splitlines():
        line = re.sub(r";  .* = None$", "", line.rstrip())  # such assignments free memory in large graphs
        shape = shapes.get(line.split("=")[0].strip())
        if line.strip():
            forward.append(f"    {line}" + (f"  # {shape}" if shape and "return" not in line else ""))
    try:
        members = [f"        self.{name} = {constructor_call(module)}" for name, module in modules.items()]
    except Exception as error:
        raise _unwritable(error) from error
    state = {
        f"{name}.{key}": tensor.contiguous()
        for name, module in modules.items()
        for key, tensor in module.state_dict().items()
    }
    lines = "\n".join(f"{key}: {value}" for key, value in notes.items())
    docstring = f"A network, for inputs [B, {', '.join(map(str, inputs.shape[1:]))}].\n\n{lines}".rstrip()
    source = _SOURCE.format(
        docstring=docstring.replace("\\", "\\\\").replace('"""', "'''"),
        imports="import torch\n" if any(" torch." in line for line in forward) else "",
        members="\n".join(members),
        forward="\n".join(forward),
    )
    return source, state


_SOURCE = '''"""{docstring}
"""

from pathlib import Path

{imports}from safetensors.torch import load_file
from torch import nn


class Network(nn.Module):
    def __init__(self):
        super().__init__()
{members}

    def forward(self, x):
{forward}


def load(path=Path(__file__).with_suffix(".safetensors")):
    """The trained network, in evaluation mode."""
    network = Network()
    network.load_state_dict(load_file(path))
    return network.eval()
'''


def _unwritable(reason: object) -> ValueError:
    return ValueError(f"the network cannot be written as source ({reason}); use the suffix .onnx or .pt2")


def _renamed(network: nn.Module, traced: fx.Graph) -> tuple[fx.Graph, dict[str, nn.Module]]:
    """Rename every module of the graph, as in ``conv2d_1``, and return the modules by name, in order."""
    graph = fx.Graph()
    names: dict[str, str] = {}
    modules: dict[str, nn.Module] = {}
    count: dict[str, int] = {}
    copies: dict[fx.Node, fx.Node] = {}
    for node in traced.nodes:
        if node.op == "call_module":
            target = str(node.target)
            if target not in names:
                module = network.get_submodule(target)
                kind = type(module).__name__.lower()
                count[kind] = count.get(kind, 0) + 1
                names[target] = f"{kind}_{count[kind]}"
                modules[names[target]] = module
            new = graph.call_module(
                names[target],
                fx.map_arg(node.args, copies.__getitem__),
                fx.map_arg(node.kwargs, copies.__getitem__),
            )
            new.meta = dict(node.meta)
        elif node.op == "placeholder":
            new = graph.placeholder("x")
        elif node.op == "get_attr":
            raise _unwritable(f"it has a tensor outside its modules, {node.target!r}")
        else:
            new = graph.node_copy(node, copies.__getitem__)
        copies[node] = new
    return graph, modules


def constructor_call(module: nn.Module) -> str:
    """Return the constructor call of a module. The text of a PyTorch module has this form."""
    if isinstance(module, blocks.SeededDropout):
        return f"nn.Dropout{'2d' if module.channels else ''}({module.share})"
    call = ast.parse(str(module), mode="eval").body
    assert isinstance(call, ast.Call), f"{type(module).__name__} has no constructor call as its text"
    # Default values are omitted, because other versions of PyTorch may not know the argument.
    defaults = inspect.signature(type(module)).parameters
    call.keywords = [
        word
        for word in call.keywords
        if word.arg is None
        or word.arg not in defaults
        or ast.literal_eval(word.value) != defaults[word.arg].default
    ]
    return f"nn.{ast.unparse(call)}"


def _shape(node: fx.Node) -> str:
    tensor = node.meta.get("tensor_meta")
    shape = getattr(tensor, "shape", None)
    # An LSTM has several outputs, and then no shape.
    return "" if shape is None else f"[B, {', '.join(map(str, shape[1:]))}]"
