"""Builds the objects of a graph from its table, see `graph_writer`.

Reading executes no code of the table: it names classes of `catalogue`, whose objects are built without a call
of ``__init__`` and get their attributes. Its time and memory are bounded by the length of the table: each
number is read once, and tuples, which are hashed as keys, have a limited depth and size.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from typing import Any

import numpy as np
import torch

from optuna_trlhpo.checkpoints import catalogue
from optuna_trlhpo.checkpoints.catalogue import Externals
from optuna_trlhpo.checkpoints.graph_writer import Graph
from optuna_trlhpo.search_space.model import SpaceModel

_MOST_DEPTH = 50
"""Largest depth of tuples within tuples."""
_LEAST_HASHED, _MOST_HASHED = 10**6, 100
"""Largest number of items of all keys together: this, and so many for each node."""


class DamagedError(ValueError):
    """Error of a table or a file that does not have the form of a checkpoint."""


def read_graph(graph: Graph, externals: Externals) -> Any:
    """Return the root of a graph.

    Args:
        graph: The graph, of which nothing is trusted.
        externals: Objects that the graph refers to by name.

    Raises:
        DamagedError: If the graph is not one that `write_graph` can have written.
    """
    try:
        return _Reader(graph, externals).root()
    except DamagedError:
        raise
    # What the parts of a damaged graph raise where they do not fit, of the containers, NumPy and PyTorch.
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError) as error:
        raise DamagedError(f"its content is damaged: {error!r}") from error
    except (MemoryError, TypeError, ValueError) as error:
        raise DamagedError(f"its content is damaged: {error!r}") from error


class _Reader:
    def __init__(self, graph: Graph, externals: Externals) -> None:
        self._graph, self._externals = graph, externals
        n = len(graph.nodes)
        self._objects: list[Any] = [None] * n
        self._is_built = [False] * n
        self._weights = [0] * n  # number of items, with those of tuples within; 0: not hashable
        self._depths = [0] * n
        self._used = dict.fromkeys(graph.numbers, 0)
        self._to_hash = _LEAST_HASHED + _MOST_HASHED * n

    def root(self) -> Any:
        """Build all objects, and return the outermost one."""
        steps: dict[str, list[tuple[int, list[Any]]]] = defaultdict(list)
        for position, node in enumerate(self._graph.nodes):
            steps[node[0]].append((position, node))
        shells, late = ("l", "d", "dd", "e", "o", "s"), ("p", "m", "r")
        leaves, tuples = ("b", "a", "T", "N", "x"), ("t", "n")
        unknown = set(steps) - {*shells, *late, *leaves, *tuples}
        if unknown:
            raise DamagedError(f"nodes of {len(unknown)} unknown kinds")
        for position, node in sorted(one for tag in shells + leaves for one in steps[tag]):
            self._set(position, self._leaf(position, node) if node[0] in leaves else self._shell(node))
        for position, node in reversed(sorted(one for tag in ("l", "d") for one in steps[tag])):
            self._weigh(position, node[1:])  # choices may hold lists, and are keys
        for position, node in sorted(one for tag in tuples for one in steps[tag]):
            self._set(position, self._tuple(position, node))
        for tag in ("l", "e", "d", "dd"):
            for position, node in steps[tag]:
                self._fill(self._objects[position], node)
        for tag in late:
            for position, node in steps[tag]:
                self._set(position, self._late(node))
        for position, node in steps["o"]:
            self._set_attributes(self._objects[position], node)
            self._externals.check(self._objects[position])
        for position, node in steps["s"]:
            (state,) = self._values(node[2:])
            self._objects[position].__setstate__(state)
        if any(self._used[kind] != len(numbers) for kind, numbers in self._graph.numbers.items()):
            raise DamagedError("numbers are left over")
        return self._value(self._graph.root)

    def _set(self, position: int, built: Any) -> None:
        self._objects[position], self._is_built[position] = built, True

    # Values -------------------------------------------------------------------------------------------

    def _value(self, value: Any) -> Any:
        if type(value) is not list:
            if type(value) is dict:
                raise DamagedError("a value is a dictionary")
            return value
        (position,) = value
        if type(position) is not int or position < 0 or not self._is_built[position]:
            raise DamagedError("a value refers to a node that does not exist yet")
        return self._objects[position]

    def _values(self, values: list[Any]) -> list[Any]:
        return [self._value(value) for value in values]

    def _key(self, value: Any) -> Any:
        """Value that may be a key: its parts, which hashing visits one by one, are limited."""
        weight = 1
        if type(value) is list:
            weight = self._weights[value[0]]
            if not weight:
                raise DamagedError("a key cannot be hashed")
        self._to_hash -= weight
        if self._to_hash < 0:
            raise DamagedError("keys are too long")
        return self._value(value)

    # Nodes --------------------------------------------------------------------------------------------

    def _shell(self, node: list[Any]) -> Any:
        cls: Any
        match node:
            case ["l", *_]:
                return []
            case ["e", *_]:
                return set()
            case ["d", name, *_]:
                return catalogue.DICTS[name]()
            case ["dd", *_]:
                return defaultdict(list)
            case ["o", layout, *_]:
                cls = catalogue.OBJECTS[self._graph.layouts[layout][0]]
            case ["s", name, _]:
                cls = catalogue.STATES[name]
            case _:
                raise DamagedError("a node has another form")
        return cls.__new__(cls)

    def _leaf(self, position: int, node: list[Any]) -> Any:
        match node:
            case ["x", name]:
                self._weights[position] = 1
                return self._externals.by_name[name]
            case ["b", n]:
                self._weights[position] = 1
                return self._take("uint8", [n]).tobytes()
            case ["N", kind]:
                self._weights[position] = 1
                return self._take(kind, [1])[0]
            case ["a", kind, shape, by_columns]:
                return self._take(kind, shape[::-1]).T if by_columns else self._take(kind, shape)
            case ["T", kind, shape]:
                return torch.from_numpy(self._take(kind, shape))
        raise DamagedError("a node has another form")

    def _take(self, kind: str, shape: list[Any]) -> np.ndarray:
        """Return the next numbers of a type as an array of their own."""
        if not all(type(n) is int and n >= 0 for n in shape):
            raise DamagedError("an array has another shape")
        start, n = self._used[kind], math.prod(shape)
        if start + n > len(self._graph.numbers[kind]):
            raise DamagedError("numbers are missing")
        self._used[kind] = start + n
        return self._graph.numbers[kind][start : start + n].copy().reshape(shape)

    def _tuple(self, position: int, node: list[Any]) -> Any:
        values = node[1:] if node[0] == "t" else node[2:]
        inner = [value[0] for value in values if type(value) is list]
        depth = 1 + max((self._depths[k] for k in inner), default=0)
        if depth > _MOST_DEPTH:
            raise DamagedError("tuples are nested too deeply")
        self._depths[position] = depth
        self._weigh(position, values)
        members = self._values(values)
        if node[0] == "t":
            return tuple(members)
        cls: Any = catalogue.TUPLES[node[1]]
        if len(members) != len(getattr(cls, "_fields", members)):
            raise DamagedError("a tuple has another length")
        return tuple.__new__(cls, members)

    def _weigh(self, position: int, values: list[Any]) -> None:
        weights = [self._weights[value[0]] for value in values if type(value) is list]
        self._weights[position] = 1 + len(values) + sum(weights) if all(weights) else 0

    def _fill(self, built: Any, node: list[Any]) -> None:
        tag = node[0]
        if tag == "l":
            built.extend(self._values(node[1:]))
        elif tag == "e":
            built.update(map(self._key, node[1:]))
        else:
            items = node[1:] if tag == "dd" else node[2:]
            for key, value in zip(items[::2], items[1::2], strict=True):
                built[self._key(key)] = self._value(value)

    def _set_attributes(self, built: Any, node: list[Any]) -> None:
        names = self._graph.layouts[node[1]][1:]
        for name, value in zip(names, self._values(node[2:]), strict=True):
            if hasattr(built, "__dict__"):
                vars(built)[name] = value
            elif name in type(built).__slots__:
                setattr(built, name, value)
            else:
                raise DamagedError("an object has another attribute")

    def _late(self, node: list[Any]) -> Any:
        match node:
            case ["p", name, *arguments]:
                return functools.partial(catalogue.FACTORIES[name], *self._values(arguments))
            case ["m", owner]:
                model = self._value(owner)
                if isinstance(model, SpaceModel):
                    return model.features
            case ["r", name, *arguments]:
                cls: Any = catalogue.RESTORED[name]
                return cls.restored(*self._values(arguments))
        raise DamagedError("a node has another form")
