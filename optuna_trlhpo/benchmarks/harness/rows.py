"""Rows of results: each is the outcome of one study, stored as a line of JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import optuna

from optuna_trlhpo import __version__

Row = dict[str, Any]


def read_rows(path: str | Path, *, repair: bool = False) -> list[Row]:
    """Read the rows of a file, or of all files ``PROBLEM/SAMPLER.jsonl`` in a folder.

    An incomplete last line is ignored. A missing file has no rows.

    Args:
        path: File or folder.
        repair: Whether to remove an incomplete last line from its file.

    Raises:
        ValueError: For any other line that is not a row.
    """
    path = Path(path)
    rows: list[Row] = []
    for file in sorted(path.glob("*/*.jsonl")) if path.is_dir() else [path] if path.exists() else []:
        text = file.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if repair and whole != text:
            with file.open("r+b") as opened:
                opened.truncate(len(whole))
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                row = json.loads(line)
                row_identity(row)
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{file}, line {number} is not a row of a benchmark") from error
            rows.append(row)
    return rows


def versions() -> dict[str, str]:
    """Return the versions that results depend on."""
    import torch

    return {
        "python": platform.python_version(),
        "optuna": optuna.__version__,
        "torch": str(torch.__version__),
        "optuna_trlhpo": __version__,
    }


def this_machine() -> str:
    """Describe this machine, for a row."""
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def failure_text(row: Row) -> str:
    """Describe a failed study."""
    return f"{row['problem']} ({row['form']}), {row['sampler']}, seed {row['seed']}: {row['error']}"


def row_file(out: str | Path, problem: str, sampler: str) -> Path:
    """Return the file of the rows of a problem and a sampler."""
    return Path(out) / problem / f"{sampler}.jsonl"


def row_identity(row: Row) -> tuple[str, str, str, int]:
    """Return the problem, form, sampler and seed of a row."""
    return row["problem"], row["form"], row["sampler"], row["seed"]


def check_names(what: str, names: Iterable[str], allowed: Iterable[str]) -> None:
    """Check names.

    Raises:
        ValueError: If a name is not allowed. The message lists the allowed ones.
    """
    allowed = list(allowed)
    unknown = [name for name in names if name not in allowed]
    if unknown:
        raise ValueError(f"unknown {what} {', '.join(unknown)}; there are {', '.join(allowed)}")
