"""Studies of the benchmarks with their own measures: they are run, stored as rows and printed as tables."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm.auto import tqdm

from optuna_trlhpo.benchmarks.harness.rows import Row, check_names, failure_text, read_rows, row_file
from optuna_trlhpo.benchmarks.harness.samplers import SAMPLERS, SamplerFactory, create_sampler
from optuna_trlhpo.benchmarks.harness.workers import execute, quiet
from optuna_trlhpo.benchmarks.problems.tables import DATA_ROOT_VARIABLE

_DATA_ROOTS = ("../shared/data", "data")
_ANY_BUDGET = 100
"""Budget of a sampler that is only created to see whether it can be."""


class Run(Protocol):
    """Description of a study for `collect`. It must be picklable."""

    @property
    def key(self) -> Row:
        """Fields that identify the study, the first ones of its row."""


def matches(row: Row, key: Row) -> bool:
    """Return whether a row contains all fields of ``key``, with equal values."""
    return all(name in row and row[name] == value for name, value in key.items())


def collect(
    study: Callable[[Any], Row],
    runs: Sequence[Run],
    *,
    out: str | Path,
    jobs: int = 1,
    progress: bool = False,
    serves: Callable[[Row, Row], bool] = matches,
) -> list[Row]:
    """Run the missing studies, and append each row to ``out/PROBLEM/SAMPLER.jsonl`` at once.

    So the same call continues after an interruption.

    Args:
        study: Function that returns the fields of a row after the key. Other processes must be able to import
            it. An exception becomes the field ``error`` of the row, and the next call repeats the study.
        runs: Studies in the order in which they begin.
        out: Folder of the rows.
        jobs: Number of processes, each with one thread. With 1, all studies run in this process.
        progress: Whether to show a progress bar.
        serves: Function that decides whether an existing row, the first argument, makes the study with a key,
            the second one, unnecessary.

    Returns:
        The new rows.

    Raises:
        ValueError: If a line in a file of these studies is not a row.
        RuntimeError: If a process was killed.
    """
    keys = [it.key for it in runs]
    files = [row_file(out, key["problem"], key["sampler"]) for key in keys]
    kept = {
        file: [row for row in read_rows(file, repair=True) if "error" not in row]
        for file in dict.fromkeys(files)
    }
    missing = [
        it
        for it, key, file in zip(runs, keys, files, strict=True)
        if not any(serves(row, key) for row in kept[file])
    ]
    rows = []
    done = len(runs) - len(missing)
    with tqdm(total=len(runs), initial=done, unit="study", disable=not progress) as bar:
        for row in execute(functools.partial(_guarded, study), missing, jobs):
            path = row_file(out, row["problem"], row["sampler"])
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            rows.append(row)
            bar.update()
    return rows


def latest(rows: Iterable[Row], setting: Row) -> tuple[list[Row], list[Row]]:
    """Return the latest rows of one setting.

    Args:
        rows: Rows in the order of their files.
        setting: Fields that the rows must contain.

    Returns:
        The last complete row of each study, and the last row of each study that has only failed.
    """
    whole: dict[tuple[Any, ...], Row] = {}
    failed: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        if matches(row, setting):
            study = tuple(row[name] for name in ("problem", "form", "sampler", "seed"))
            (failed if "error" in row else whole)[study] = row
    return list(whole.values()), [row for study, row in failed.items() if study not in whole]


def check_samplers(
    samplers: Mapping[str, SamplerFactory] | Sequence[str],
) -> dict[str, SamplerFactory]:
    """Return the factories of samplers by name, and check that each can create a sampler.

    Args:
        samplers: Names in `harness.samplers.SAMPLERS`, or factories by name.

    Raises:
        ValueError: For an unknown name.
        ImportError: If a sampler lacks a package.
    """
    if not isinstance(samplers, Mapping):
        check_names("sampler", samplers, SAMPLERS)
        samplers = {name: SAMPLERS[name] for name in samplers}
    with quiet():
        for factory in samplers.values():
            create_sampler(factory, seed=0, budget=_ANY_BUDGET)
    return dict(samplers)


def check_positive(**numbers: int) -> None:
    """Check that all numbers are positive.

    Raises:
        ValueError: For the first number below 1.
    """
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} is {number}; it must be at least 1")


def _guarded(study: Callable[[Any], Row], it: Run) -> Row:
    import torch

    torch.set_num_threads(1)
    with quiet():
        try:
            return {**it.key, **study(it)}
        except Exception as error:  # of any kind: one failure must not end the other studies
            return {**it.key, "error": f"{type(error).__name__}: {error}"}


# Text ---------------------------------------------------------------------------------------------------


def mean_text(values: Iterable[float], sign: str = "") -> str:
    """Format mean ± standard error of the mean.

    Examples:
        >>> mean_text([1.0, 2.0, 3.0]), mean_text([0.5], "+")
        ('2.000 ± 0.577', '+0.500')
    """
    array = np.array(list(values), dtype=float)
    if not len(array):
        return ""
    mean = f"{array.mean():{sign}.3f}"
    return mean if len(array) == 1 else f"{mean} ± {array.std(ddof=1) / np.sqrt(len(array)):.3f}"


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Format a table in Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [heads, ["---"] * len(heads), *lines])


def machines_text(rows: Iterable[Row]) -> str:
    """Describe the machines and versions that produced the rows."""
    texts = {
        row["machine"] + "; " + ", ".join(f"{name} {version}" for name, version in row["versions"].items())
        for row in rows
    }
    return f"One thread per study on {' / '.join(sorted(texts))}."


def failures_text(failed: Sequence[Row]) -> str:
    """List failed studies, one per line."""
    return "".join(f"\n- failed: {failure_text(row)}" for row in failed)


def find_root(data_root: str | Path | None) -> str:
    """Return the folder of the data: the given one, or the usual one."""
    if data_root is not None:
        return str(data_root)
    roots = [os.environ[DATA_ROOT_VARIABLE]] if DATA_ROOT_VARIABLE in os.environ else _DATA_ROOTS
    return next((root for root in roots if (Path(root) / "MNIST").is_dir()), roots[-1])
