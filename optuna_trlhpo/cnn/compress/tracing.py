"""Reading of a module with `torch.fx`: what each layer takes its inputs from, and which widths are tied.

An operation that is not known here keeps the widths of everything that reaches it, so that the module stays
right. Notation: tensors are ``[B, C, ...]``, and C is described by a `Layout`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from optuna_trlhpo.cnn.compress.widths import Layout, WidthGroups
from optuna_trlhpo.layers.blocks import SeededDropout

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)
"""Layers with one or several numbers for each channel."""

_KEEPING_MODULES = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid),
    *(nn.Tanh, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Softplus, nn.Softsign, nn.LogSigmoid),
    *(nn.Identity, nn.Upsample, SeededDropout, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
    *(nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.ReflectionPad2d, nn.ReplicationPad2d),
)
_KEEPING = {
    *("relu", "relu_", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "mish", "sigmoid", "tanh"),
    *("hardswish", "hardsigmoid", "hardtanh", "softplus", "dropout", "dropout1d", "dropout2d", "dropout3d"),
    *("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "interpolate"),
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "contiguous", "clone", "detach"),
    *("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "abs", "neg", "exp", "float"),
}
"""Names of functions and methods whose outputs have the channels of their input."""

_BINARY = {
    *("add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "truediv", "iadd", "isub", "imul"),
    *("maximum", "minimum"),
}
_READING = {"size", "dim", "getattr"}
"""Names of functions and methods that return no tensor, and depend on no width that may change."""


class TracedLayer(NamedTuple):
    """A layer of the module whose weights depend on widths.

    Attributes:
        name: Name of the layer in the module.
        inputs: Layout of its inputs.
        outputs: Layout of its outputs.
        follows: Whether its output has the channels of its input, as in a normalisation or a depthwise
            convolution.
    """

    name: str
    inputs: Layout
    outputs: Layout
    follows: bool = False


class Traced(NamedTuple):
    """What a module was read as.

    Attributes:
        layers: Layers whose weights depend on widths, in the order of their calls.
        groups: Groups of layers with equal widths.
        output_shape: Shape of the output for one input.
    """

    layers: tuple[TracedLayer, ...]
    groups: WidthGroups
    output_shape: tuple[int, ...]


def trace(module: nn.Module, input_shape: Sequence[int]) -> Traced:
    """Read a module that maps one tensor ``[B, *input_shape]`` to one tensor.

    Raises:
        ValueError: If the module cannot be traced, does not accept such inputs, or does not return one
            tensor.

    Examples:
        >>> module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
        >>> traced = trace(module, (1, 8, 8))
        >>> [layer.name for layer in traced.layers], traced.groups.free(), traced.output_shape
        (['0', '3'], {1: '0'}, (10,))
    """
    kind = type(module).__name__
    _check_parameters(module)
    shadow = copy.deepcopy(module).to("meta")  # nothing is computed, only shapes are worked out
    try:
        graph = fx.GraphModule(shadow, _LayerTracer().trace(shadow.train()))
    except Exception as error:  # of any kind, from the module's own code
        raise ValueError(
            f"the {kind} cannot be traced by torch.fx ({_first_line(error)}); pass an Adapter that builds it "
            "from its widths"
        ) from error
    try:
        # In evaluation mode, because normalisation over one pixel of few images is an error in training.
        ShapeProp(graph.eval()).propagate(torch.empty(2, *input_shape, device="meta"))
    except Exception as error:
        raise ValueError(
            f"the {kind} does not accept inputs of shape {tuple(input_shape)} ({_first_line(error)})"
        ) from error
    return _LayoutReader(graph).read(kind)


class _LayerTracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = (*CONVOLUTIONS, *TRANSPOSED, *NORMS, *_KEEPING_MODULES, nn.Linear, nn.PReLU)
        return isinstance(m, known) or super().is_leaf_module(m, module_qualified_name)


class _LayoutReader:
    """Walks the graph of a module and collects its layers and groups."""

    def __init__(self, graph: fx.GraphModule) -> None:
        self._graph = graph
        self._modules = dict(graph.named_modules())
        self._groups = WidthGroups()
        self._layouts: dict[fx.Node, Layout] = {}
        self._layers: dict[str, TracedLayer] = {}

    def read(self, kind: str) -> Traced:
        inputs = [node for node in self._graph.graph.nodes if node.op == "placeholder" and not node.args]
        if len(inputs) != 1:
            raise ValueError(f"the {kind} has {len(inputs)} inputs; it must have one")
        shape: tuple[int, ...] | None = None
        for node in self._graph.graph.nodes:
            if node.op == "output":
                result = node.args[0]
                shape = _shape(result) if isinstance(result, fx.Node) else None
                if shape is None or len(shape) < 2:
                    raise ValueError(
                        f"the {kind} does not return one tensor (N, classes, ...) in training; leave out "
                        "other outputs, such as with aux_logits=False"
                    )
                self._groups.freeze(self._layouts[result])
                continue
            layout = self._layout(node)
            if layout is not None:
                self._layouts[node] = layout
        assert shape is not None, "a graph has an output"
        return Traced(tuple(self._layers.values()), self._groups, shape[1:])

    # One node ---------------------------------------------------------------------------------------------

    def _layout(self, node: fx.Node) -> Layout | None:
        """Return the layout of the output of a node, or None if it is not a tensor with channels."""
        shape = _shape(node)
        if shape is None or len(shape) < 2:
            if not (node.op in ("call_function", "call_method") and _name(node) in _READING):
                self._groups.freeze(self._all_inputs(node))
            return None
        if node.op == "call_module":
            return self._of_module(node, shape)
        if node.op in ("call_function", "call_method"):
            return self._of_function(node, shape)
        return self._frozen(shape)  # the input, or a parameter

    def _all_inputs(self, node: fx.Node) -> Layout:
        return sum((self._layouts.get(one, ()) for one in node.all_input_nodes), ())

    def _frozen(self, shape: Sequence[int]) -> Layout:
        return (self._groups.new_frozen(shape[1]),)

    def _unknown(self, node: fx.Node, shape: Sequence[int]) -> Layout:
        self._groups.freeze(self._all_inputs(node))
        return self._frozen(shape)

    def _of_module(self, node: fx.Node, shape: tuple[int, ...]) -> Layout:
        name = str(node.target)
        module = self._modules[name]
        if len(node.all_input_nodes) != 1 or node.all_input_nodes[0] not in self._layouts:
            return self._unknown(node, shape)
        source = node.all_input_nodes[0]
        inputs, before = self._layouts[source], _shape(source)
        assert before is not None
        if name in self._layers:  # called again
            self._groups.tie(self._layers[name].inputs, inputs)
            return self._layers[name].outputs
        if isinstance(module, (*CONVOLUTIONS, *TRANSPOSED)) and len(before) == len(module.kernel_size) + 2:
            if module.groups == module.in_channels == module.out_channels > 1:
                return self._add(TracedLayer(name, inputs, inputs, follows=True))
            if module.groups == 1:
                return self._add(TracedLayer(name, inputs, (self._groups.new(shape[1], name),)))
        elif isinstance(module, nn.Linear) and len(before) == 2:
            return self._add(TracedLayer(name, inputs, (self._groups.new(shape[1], name),)))
        elif isinstance(module, NORMS):
            return self._add(TracedLayer(name, inputs, inputs, follows=True))
        elif isinstance(module, nn.PReLU):
            if module.num_parameters > 1:
                self._add(TracedLayer(name, inputs, inputs, follows=True))
            return inputs
        elif isinstance(module, nn.Flatten):
            return self._flattened(node, inputs, (module.start_dim, module.end_dim))
        elif isinstance(module, _KEEPING_MODULES) and before[1] == shape[1]:
            return inputs
        return self._unknown(node, shape)

    def _add(self, layer: TracedLayer) -> Layout:
        self._layers[layer.name] = layer
        return layer.outputs

    def _of_function(self, node: fx.Node, shape: tuple[int, ...]) -> Layout:
        name = _name(node)
        arguments = list(node.args)
        if name == "cat":
            return self._concatenated(node, shape)
        if name in _BINARY:
            return self._combined(node, shape)
        source = arguments[0] if arguments else None
        if not isinstance(source, fx.Node) or source not in self._layouts:
            return self._unknown(node, shape)
        inputs, before = self._layouts[source], _shape(source)
        assert before is not None
        if name == "flatten":
            span = _argument(node, 1, "start_dim", 0), _argument(node, 2, "end_dim", -1)
            return self._flattened(node, inputs, span)
        if name in ("view", "reshape"):
            sizes = arguments[1] if isinstance(arguments[1], tuple | list) else arguments[1:]
            # A number in place of -1 would hold the original width.
            if len(sizes) == 2 and sizes[1] == -1 and len(shape) == 2:
                return self._flattened(node, inputs, (1, -1))
        if name == "mean":
            over = _argument(node, 1, "dim", None)
            axes = over if isinstance(over, tuple | list) else [1 if over is None else over]
            if not {axis % len(before) for axis in axes} & {0, 1}:
                return inputs
        if name == "squeeze" and shape == before[:2] and math.prod(before[2:]) == 1:
            return inputs
        if name == "pad" and len(shape) == len(before) and shape[:2] == before[:2]:
            return inputs
        if name in _KEEPING and len(node.all_input_nodes) == 1 + _read_only(node, self._layouts):
            return inputs
        return self._unknown(node, shape)

    def _flattened(self, node: fx.Node, inputs: Layout, span: tuple[int, int]) -> Layout:
        before, shape = _shape(node.all_input_nodes[0]), _shape(node)
        assert before is not None and shape is not None
        if span[0] == 1 and span[1] in (-1, len(before) - 1):
            pixels = math.prod(before[2:])
            return tuple(one._replace(repeat=one.repeat * pixels) for one in inputs)
        return self._unknown(node, shape)

    def _concatenated(self, node: fx.Node, shape: tuple[int, ...]) -> Layout:
        parts = node.args[0] if node.args else node.kwargs.get("tensors")
        axis = _argument(node, 1, "dim", 0)
        known = isinstance(parts, tuple | list) and all(part in self._layouts for part in parts)
        if not known or not isinstance(axis, int):
            return self._unknown(node, shape)
        assert isinstance(parts, tuple | list)
        layouts = [self._layouts[part] for part in parts if isinstance(part, fx.Node)]
        if axis % len(shape) == 1:
            return sum(layouts, ())
        for layout in layouts[1:]:
            self._groups.tie(layouts[0], layout)
        return layouts[0]

    def _combined(self, node: fx.Node, shape: tuple[int, ...]) -> Layout:
        """Return the layout of a sum, product or the like of tensors, or of a tensor and a number."""
        operands = [one for one in node.all_input_nodes if _shape(one) is not None]
        if any(one not in self._layouts or len(_shape(one) or ()) != len(shape) for one in operands):
            return self._unknown(node, shape)
        for one in operands:
            channels = (_shape(one) or ())[1]
            if channels != shape[1]:  # one channel for all
                self._groups.freeze(self._layouts[one])
        layouts = [self._layouts[one] for one in operands if (_shape(one) or ())[1] == shape[1]]
        for layout in layouts[1:]:
            self._groups.tie(layouts[0], layout)
        return layouts[0]


# Nodes ----------------------------------------------------------------------------------------------------


def _shape(node: fx.Node) -> tuple[int, ...] | None:
    """Return the shape of the tensor that a node returns, or None if it returns something else."""
    meta = node.meta.get("tensor_meta")
    shape = getattr(meta, "shape", None)
    return None if shape is None else tuple(shape)


def _name(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _read_only(node: fx.Node, layouts: dict[fx.Node, Layout]) -> int:
    """Return the number of inputs that are no tensors, such as a size."""
    return sum(one not in layouts for one in node.all_input_nodes)


def _check_parameters(module: nn.Module) -> None:
    owners: dict[int, str] = {}
    for name, part in module.named_modules():
        for parameter in part.parameters(recurse=False):
            if id(parameter) in owners:
                raise ValueError(
                    f"the layers {owners[id(parameter)]!r} and {name!r} share a parameter; pass an Adapter "
                    "that builds the network from its widths"
                )
            owners[id(parameter)] = name


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
