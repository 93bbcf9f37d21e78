"""What the benchmarks share that train or judge in their own way: rows that are kept as they come, and the
text made of them.
"""

from __future__ import annotations

import functools
import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm.auto import tqdm

from optuna_trlhpo.benchmarks.harness.rows import Row, check_names, read_rows
from optuna_trlhpo.benchmarks.harness.samplers import SAMPLERS, SamplerFactory
from optuna_trlhpo.benchmarks.harness.workers import execute, quiet
from optuna_trlhpo.benchmarks.problems.tables import DATA_ROOT_VARIABLE

_DATA_ROOTS = ("../shared/data", "data")


class Run(Protocol):
    """What `collect` runs; it can be pickled."""

    @property
    def key(self) -> Row:
        """What tells the study apart from others; its row begins so."""


def collect(
    study: Callable[[Any], Row],
    runs: Sequence[Run],
    *,
    out: str | Path,
    jobs: int = 1,
    progress: bool = False,
) -> list[Row]:
    """Run the studies whose rows ``out`` lacks; append each row to ``out/PROBLEM/SAMPLER.jsonl`` as it comes.

    Args:
        study: Makes of a run what its row holds after the key. A function of a module, for other processes
            have to find it. What it raises becomes the row's ``error``, and is tried again by the next call.
        runs: In the order in which they are begun.
        out: The folder of the rows.
        jobs: Processes, each with one thread. With 1, all runs in this process.
        progress: Whether to show a bar.
    """
    kept = read_rows(out, repair=True)
    missing = [it for it in runs if not any("error" not in row and matches(row, it.key) for row in kept)]
    rows = []
    done = len(runs) - len(missing)
    with tqdm(total=len(runs), initial=done, unit="study", disable=not progress) as bar:
        for row in execute(functools.partial(_guarded, study), missing, jobs):
            path = Path(out) / row["problem"] / f"{row['sampler']}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            rows.append(row)
            bar.update()
    return rows


def matches(row: Row, key: Row) -> bool:
    """Whether a row holds all that ``key`` holds."""
    return all(name in row and row[name] == value for name, value in key.items())


def latest(rows: Iterable[Row], setting: Row) -> tuple[list[Row], list[Row]]:
    """The rows of one setting: of each study the last one that is whole, and those that only failed."""
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
    """Factories by name.

    Raises:
        ValueError: For an unknown name.
        ImportError: If a sampler lacks a package.
    """
    if not isinstance(samplers, Mapping):
        check_names("sampler", samplers, SAMPLERS)
        samplers = {name: SAMPLERS[name] for name in samplers}
    with quiet():
        for factory in samplers.values():
            factory(seed=0)
    return dict(samplers)


def check_positive(**numbers: int) -> None:
    """Raise a ``ValueError`` for the first number below 1."""
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} is {number}; it must be at least 1")


def _guarded(study: Callable[[Any], Row], it: Run) -> Row:
    import torch

    torch.set_num_threads(1)
    with quiet():
        try:
            return {**it.key, **study(it)}
        except Exception as error:  # any of a sampler's: one of them must not end the others
            return {**it.key, "error": f"{type(error).__name__}: {error}"}


# Text ---------------------------------------------------------------------------------------------------


def mean_text(values: Iterable[float], sign: str = "") -> str:
    """Mean ± standard error of the mean.

    Example:
        >>> mean_text([1.0, 2.0, 3.0]), mean_text([0.5], "+")
        ('2.000 ± 0.577', '+0.500')
    """
    array = np.array(list(values), dtype=float)
    if not len(array):
        return ""
    mean = f"{array.mean():{sign}.3f}"
    return mean if len(array) == 1 else f"{mean} ± {array.std(ddof=1) / np.sqrt(len(array)):.3f}"


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [heads, ["---"] * len(heads), *lines])


def this_machine() -> str:
    """What runs this, for a row."""
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def machines_text(rows: Iterable[Row]) -> str:
    """The machines and versions that rows come from."""
    texts = {
        row["machine"] + "; " + ", ".join(f"{name} {version}" for name, version in row["versions"].items())
        for row in rows
    }
    return f"One thread a study on {' / '.join(sorted(texts))}."


def failures_text(failed: Sequence[Row]) -> str:
    """Studies of which there is nothing but an error, a line each."""
    return "".join(
        f"\n- failed: {row['problem']} ({row['form']}), {row['sampler']}, seed {row['seed']}: {row['error']}"
        for row in failed
    )


def find_root(data_root: str | Path | None) -> str:
    """The folder of the data: the one named, or where it usually lies."""
    if data_root is not None:
        return str(data_root)
    roots = [os.environ[DATA_ROOT_VARIABLE]] if DATA_ROOT_VARIABLE in os.environ else _DATA_ROOTS
    return next((root for root in roots if (Path(root) / "MNIST").is_dir()), roots[-1])
