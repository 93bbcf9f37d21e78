"""Writes a graph of objects as a table of nodes, which JSON can represent, and arrays of numbers.

A *node* is a list: a tag, and what `graph_reader` builds the object from. A *value* in a node is None, a
boolean, a number or a text, or a list of one, the position of another node. Numbers of arrays are not in the
nodes: they are appended to one array for each type of number, in the order of the nodes.

=======  ===========================================  ==================================================
tag      object                                       further items
=======  ===========================================  ==================================================
``o``    object of `catalogue.OBJECTS`                number of its layout, values of its attributes
``s``    object of `catalogue.STATES`                 class, value of its state
``r``    object of `catalogue.RESTORED`               class, values of the arguments
``t``    tuple                                        values
``n``    object of `catalogue.TUPLES`                 class, values
``l``    list                                         values
``d``    dictionary of `catalogue.DICTS`              class, keys and values in turn
``dd``   ``defaultdict`` of lists                     keys and values in turn
``e``    set                                          values
``b``    bytes                                        length
``a``    array                                        type, shape, whether columns come first
``T``    tensor                                       type, shape
``N``    number of NumPy                              type
``x``    object of the sampler                        name
``p``    ``functools.partial`` of a class             class, values of the arguments
``m``    method ``features`` of a space model         value of the model
=======  ===========================================  ==================================================
"""

from __future__ import annotations

import functools
import types
from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np
import torch

from optuna_trlhpo.checkpoints import catalogue
from optuna_trlhpo.checkpoints.catalogue import Externals

NUMBER_TYPES = ("float64", "float32", "int64", "int32", "uint8", "bool")
"""Types of the numbers of arrays."""


class Graph(NamedTuple):
    """A graph of objects as a table."""

    layouts: list[list[Any]]
    """Classes of objects, each with the names of the attributes that an object has."""
    nodes: list[list[Any]]
    root: Any
    """Value of the outermost object."""
    numbers: dict[str, np.ndarray]
    """Numbers of all arrays, by their type."""


def write_graph(root: Any, externals: Externals) -> Graph:
    """Return the graph of an object.

    Args:
        root: The object.
        externals: Objects that are referred to by name.

    Raises:
        TypeError: If the graph has an object of another class than those of `catalogue`.
    """
    writer = _Writer(externals)
    value = writer.value(root)
    numbers = {
        kind: np.concatenate(parts) if parts else np.zeros(0, kind) for kind, parts in writer.numbers.items()
    }
    layouts = [[name, *attributes] for name, *attributes in writer.layouts]
    return Graph(layouts, writer.nodes, value, numbers)


class _Writer:
    def __init__(self, externals: Externals) -> None:
        self._externals = externals
        self._positions: dict[int, int] = {}  # by identity
        self._written: dict[str, int] = {}  # by text, of objects that never change
        self._alive: list[Any] = []  # an identity is unique only while the object exists
        self.nodes: list[list[Any]] = []
        self.layouts: dict[tuple[str, ...], int] = {}
        self.numbers: dict[str, list[np.ndarray]] = {kind: [] for kind in NUMBER_TYPES}

    def value(self, value: Any) -> Any:
        if value is None or type(value) in (bool, int, float, str):
            return value
        position = self._positions.get(id(value))
        if position is None:
            position = self._node(value)
            self._positions[id(value)] = position
            self._alive.append(value)
        return [position]

    def _node(self, value: Any) -> int:
        cls = type(value)
        name = self._externals.name_of(value)
        if name is not None:
            return self._add(["x", name])
        if cls is list or cls is set:
            return self._fill(value, ["l" if cls is list else "e"], value)
        if cls in catalogue.DICTS.values() or (cls is defaultdict and value.default_factory is list):
            head = ["dd"] if cls is defaultdict else ["d", cls.__name__]
            return self._fill(value, head, (one for pair in value.items() for one in pair))
        if cls is tuple:  # what cannot change is written after what it holds
            return self._add_once(["t", *map(self.value, value)])
        if catalogue.TUPLES.get(cls.__name__) is cls:
            return self._add_once(["n", cls.__name__, *map(self.value, value)])
        if cls is bytes:
            return self._add(["b", self._append(np.frombuffer(value, np.uint8))])
        if isinstance(value, np.generic):
            self._append(np.asarray(value).reshape(1))
            return self._add(["N", value.dtype.name])
        if cls is np.ndarray:
            by_columns = value.ndim > 1 and value.flags.f_contiguous and not value.flags.c_contiguous
            self._append((value.T if by_columns else value).ravel())
            return self._add(["a", value.dtype.name, list(value.shape), by_columns])
        if cls is torch.Tensor and not value.requires_grad:
            numbers = value.numpy()
            self._append(numbers.ravel())
            return self._add(["T", numbers.dtype.name, list(numbers.shape)])
        if cls is functools.partial and value.func in catalogue.FACTORIES.values():
            return self._add(["p", value.func.__name__, *map(self.value, value.args)])
        if cls is types.MethodType and value.__name__ == "features":
            return self._add(["m", self.value(value.__self__)])
        if catalogue.RESTORED.get(cls.__name__) is cls:
            return self._add(["r", cls.__name__, *map(self.value, value.__reduce__()[1])])
        if catalogue.STATES.get(cls.__name__) is cls:
            return self._add(["s", cls.__name__, self.value(value.__getstate__())])
        if catalogue.OBJECTS.get(cls.__name__) is cls:
            attributes = _attributes(value) | catalogue.replaced(value)
            layout = self.layouts.setdefault((cls.__name__, *attributes), len(self.layouts))
            if cls in catalogue.CONSTANTS:
                return self._add_once(["o", layout, *map(self.value, attributes.values())])
            return self._fill(value, ["o", layout], attributes.values())
        raise TypeError(f"a checkpoint cannot hold {value!r} of type {cls.__qualname__}")

    def _add(self, node: list[Any]) -> int:
        self.nodes.append(node)
        return len(self.nodes) - 1

    def _add_once(self, node: list[Any]) -> int:
        """Write an object that never changes; equal ones are one object."""
        text = repr(node)
        position = self._written.get(text)
        if position is None:
            position = self._written[text] = self._add(node)
        return position

    def _fill(self, value: Any, head: list[Any], members: Any) -> int:
        """Write an object that may be part of itself: its position is known before its members are."""
        position = self._positions[id(value)] = self._add(head)
        head.extend([self.value(member) for member in members])
        return position

    def _append(self, numbers: np.ndarray) -> int:
        kind = numbers.dtype.name
        if kind not in self.numbers:
            raise TypeError(f"a checkpoint cannot hold numbers of type {kind}")
        self.numbers[kind].append(numbers)
        return len(numbers)


def _attributes(value: Any) -> dict[str, Any]:
    if hasattr(value, "__dict__"):
        return dict(vars(value))
    return {name: getattr(value, name) for name in type(value).__slots__ if hasattr(value, name)}
