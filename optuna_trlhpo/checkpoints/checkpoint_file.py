"""The file of a checkpoint: tensors in the format of safetensors, which holds no code.

The tensor ``graph`` is the table of `graph_writer` as JSON, ``trials`` are the numbers of the trials that
were learned, and the others are numbers of arrays, by their type. The metadata say what the file is, with a
checksum of everything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from optuna_trlhpo.checkpoints.graph_reader import DamagedError
from optuna_trlhpo.checkpoints.graph_writer import NUMBER_TYPES, Graph

FORMAT = "optuna-trlhpo checkpoint"
VERSION = "2"
"""Version of the format, which changes with what the graph of an agent contains."""
_TENSORS = {"graph": "uint8", "trials": "int64"} | {kind: kind for kind in NUMBER_TYPES}


class Checkpoint(NamedTuple):
    """Content of a file."""

    about: dict[str, Any]
    """What the checkpoint is of, as JSON can represent it."""
    trials: np.ndarray
    """``[N]`` numbers of the trials that were learned."""
    graph: Graph


def write_file(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint.

    Raises:
        ValueError: If JSON cannot represent a part of it.
    """
    graph = checkpoint.graph
    table = json.dumps([graph.layouts, graph.nodes, graph.root], separators=(",", ":")).encode()
    tensors = dict(graph.numbers) | {
        "graph": np.frombuffer(table, np.uint8),
        "trials": checkpoint.trials.astype(np.int64),
    }
    metadata = {"format": FORMAT, "version": VERSION, "about": json.dumps(checkpoint.about)}
    save_file(tensors, path, metadata | {"sha256": _checksum(metadata, tensors)})


def read_file(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        DamagedError: If the file is not a whole checkpoint of this version.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise DamagedError("the file is not a checkpoint")
            if metadata.get("version") != VERSION:
                raise DamagedError(f"its version is {metadata.get('version')!r}, not {VERSION!r}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise DamagedError(f"the file is damaged ({error})") from error
    if {name: numbers.dtype.name for name, numbers in tensors.items()} != _TENSORS or any(
        numbers.ndim != 1 for numbers in tensors.values()
    ):
        raise DamagedError("the file has other tensors than a checkpoint")
    if metadata.get("sha256") != _checksum(metadata, tensors):
        raise DamagedError("the file is damaged: its checksum is wrong")
    try:
        about = json.loads(metadata["about"])
        layouts, nodes, root = json.loads(tensors.pop("graph").tobytes())
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        raise DamagedError("the file is damaged: it holds no table") from error
    lists = [layouts, nodes]
    if not isinstance(about, dict) or not all(isinstance(rows, list) and rows for rows in lists):
        raise DamagedError("the file is damaged: its table has another form")
    if not all(isinstance(row, list) and row and isinstance(row[0], str) for rows in lists for row in rows):
        raise DamagedError("the file is damaged: its table has another form")
    return Checkpoint(about, tensors.pop("trials"), Graph(layouts, nodes, root, tensors))


def _checksum(metadata: Mapping[str, str], tensors: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in ("format", "version", "about"):
        digest.update(f"{name}={len(metadata.get(name, ''))}:{metadata.get(name, '')};".encode())
    for name in sorted(tensors):
        digest.update(f"{name}={len(tensors[name])}:".encode())
        digest.update(np.ascontiguousarray(tensors[name]).data)
    return digest.hexdigest()
