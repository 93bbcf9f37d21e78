"""Readable Python source of a trained network, with its weights in a file beside it.

Notation: B inputs in a batch.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from optuna_trlhpo.cnn.deploy.running import Run
from optuna_trlhpo.layers import blocks


def write_source(
    network: nn.Module, path: Path, inputs: Tensor, notes: Mapping[str, str]
) -> tuple[tuple[Path, ...], Run]:
    """Write the source and the weights, and return their paths and the network that they load.

    Args:
        network: Network in evaluation mode.
        path: Path of the source. The weights are beside it, as ``.safetensors``.
        inputs: A batch of arbitrary numbers, to determine the shapes.
        notes: Metadata for both files.

    Raises:
        ValueError: If the network cannot be written as source.
    """
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
