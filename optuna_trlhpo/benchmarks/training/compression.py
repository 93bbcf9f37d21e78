"""How much smaller and faster known networks become: ``python -m optuna_trlhpo.benchmarks compress``.

A search starts with four networks whose widths are all the same share of the original ones, and then
narrows the layers as its sampler decides, until its time is up. Its value is the accuracy times a small
power of the number of parameters. The smallest network that keeps its accuracy on the validation images in
trainings with new seeds is the result. It and the original are trained again and compared on the
test images, which nothing else reads.

The study of a search and the trained original are kept in files beside the rows, so that an interrupted
search goes on. A row is the outcome of one search:

========================== ===============================================================================
``problem`` ...            name in `SETTINGS`, with ``form`` (its arguments), ``sampler``, ``seed``
``values``                 widths and kernels of the result, with ``share`` if the search began with it
``original``, ``result``   accuracies of their trainings on the test images, with their interval,
                           parameters, MACs, bytes, and seconds of a training and of one inference
``gain``                   accuracy of the result less that of the original, with ``gain_interval``
``trials``                 complete trials of the search, with ``search_seconds``
``versions``               versions of the packages, and ``machine``
``error``                  cause of a failure, in place of all fields after ``seed``
========================== ===============================================================================
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.study import Study
from optuna.trial import TrialState

from optuna_trlhpo.benchmarks.harness.rows import Row, check_names, read_rows, this_machine, versions
from optuna_trlhpo.benchmarks.harness.samplers import REFERENCE, SAMPLERS
from optuna_trlhpo.benchmarks.harness.studies import (
    check_positive,
    collect,
    failures_text,
    find_root,
    latest,
    machines_text,
    table,
)
from optuna_trlhpo.benchmarks.training.compression_settings import SETTINGS
from optuna_trlhpo.benchmarks.training.defaults import COMPRESSED_NETWORKS, COMPRESSION_MINUTES
from optuna_trlhpo.cnn import CompressObjective, TestedNetwork, goals

SHARES = (0.5, 0.25, 0.125, 0.0625)
"""Shares of all widths in the networks that a search begins with."""
CANDIDATES = 3
"""Maximum number of networks that are trained again for the choice."""
EXPONENT = -0.01
"""A network with half the parameters may be about 0.7 % less accurate at the same value."""
PUBLISHED = "83x smaller, 52 % less training time, 54 % less inference time"
"""The most that Iranfar, Zapater and Atienza report (2021, 10.1109/TCAD.2021.3077193, abstract)."""


@dataclass(frozen=True)
class _Compression:
    """Description of one search. It is sent to another process."""

    problem: str
    sampler: str
    seed: int
    minutes: float
    repeats: int
    data_root: str
    out: str

    @property
    def key(self) -> Row:
        form = f"{self.minutes:g} minutes, {self.repeats} repeats; {SETTINGS[self.problem].form}"
        return {"form": form, "problem": self.problem, "sampler": self.sampler, "seed": self.seed}


def run(
    names: Sequence[str] = COMPRESSED_NETWORKS,
    *,
    seeds: Iterable[int],
    minutes: float = COMPRESSION_MINUTES,
    sampler: str = REFERENCE,
    repeats: int = 2,
    out: str | Path = "compression-rows",
    jobs: int = 1,
    data_root: str | Path | None = None,
    progress: bool = False,
) -> list[Row]:
    """Run the missing searches, and store their rows.

    Args:
        names: Names in `SETTINGS`.
        seeds: Random seeds of the sampler, the splits and the trainings.
        minutes: Duration of a search, without the trainings of the original and those behind the search.
        sampler: A name in `harness.samplers.SAMPLERS`.
        repeats: Number of trainings with new seeds for the choice, and of those for the test.
        out: Folder of the rows and studies.
        jobs: Number of processes, each with one thread. Times are comparable only if each has a core.
        data_root: Folder that contains MNIST; see `find_root`.
        progress: Whether to show a progress bar.

    Returns:
        The new rows.

    Raises:
        ValueError: For an unknown name, or a number that is not positive.
    """
    check_names("network", names, SETTINGS)
    check_names("sampler", [sampler], SAMPLERS)
    check_positive(repeats=repeats, jobs=jobs)
    if not minutes > 0:
        raise ValueError(f"minutes is {minutes:g}; it must be positive")
    root = find_root(data_root)
    runs = [
        _Compression(name, sampler, seed, minutes, repeats, root, str(out))
        for seed in seeds
        for name in names
    ]
    return collect(_compressed, runs, out=out, jobs=jobs, progress=progress)


def _compressed(it: _Compression) -> Row:
    setting, folder = SETTINGS[it.problem], Path(it.out) / it.problem
    network = setting.make()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    objective = CompressObjective(
        network,
        **setting.arguments(it.seed, it.data_root),
        goal=goals.weighted_product("parameters", parameters, exponent=EXPONENT),
        original_file=folder / f"original-{it.seed}.pt",
    )
    starts = [objective.adapter.scaled(share) for share in SHARES]
    study = _study_of(it, folder)
    if not study.trials:
        for values in starts:
            study.enqueue_trial(values)
    objective.original  # noqa: B018 (trained before the time of the search begins)
    seconds = sum(trial.duration.total_seconds() for trial in study.trials if trial.duration is not None)
    while seconds < 60 * it.minutes:
        begun = time.perf_counter()
        study.optimize(objective, timeout=60 * it.minutes - seconds)
        seconds += time.perf_counter() - begun

    chosen = objective.smallest(study, candidates=CANDIDATES, repeats=it.repeats)
    original, result = objective.compare(chosen, repeats=it.repeats)
    return {
        "values": dict(chosen.params),
        "share": next((share for share, it in zip(SHARES, starts, strict=True) if it == chosen.params), None),
        "original": _measured(original),
        "result": _measured(result),
        "gain": round(result.gain, 6),
        "gain_interval": [round(bound, 6) for bound in result.gain_interval],
        "trials": sum(trial.state is TrialState.COMPLETE for trial in study.trials),
        "search_seconds": round(seconds),
        "versions": versions(),
        "machine": this_machine(),
    }


def _measured(tested: TestedNetwork) -> dict[str, Any]:
    return {
        "accuracies": [round(score, 6) for score in tested.scores],
        "accuracy": round(tested.accuracy, 6),
        "interval": [round(bound, 6) for bound in tested.accuracy_interval],
        **{name: getattr(tested, name) for name in ("parameters", "macs", "bytes")},
        **{name: getattr(tested, name) for name in ("train_seconds", "inference_seconds")},
    }


def _study_of(it: _Compression, folder: Path) -> Study:
    """Return the study of a search, which is kept in a file."""
    folder.mkdir(parents=True, exist_ok=True)
    return optuna.create_study(
        study_name=it.key["form"],
        storage=f"sqlite:///{folder}/{it.sampler}-{it.seed}.db",
        load_if_exists=True,
        direction="maximize",
        sampler=SAMPLERS[it.sampler](seed=it.seed),
        pruner=optuna.pruners.NopPruner(),
    )


# Report ------------------------------------------------------------------------------------------------


def report(rows: Iterable[Row], names: Sequence[str] = COMPRESSED_NETWORKS) -> str:
    """Format the rows as a table in Markdown, with the network and the result of each search."""
    rows = list(rows)
    heads = ["network", "sampler", "seed", "test accuracy", "of the original", "gain (95 % interval)"]
    heads += ["parameters", "smaller", "training time", "inference time", "trials"]
    lines: list[list[str]] = []
    used: list[Row] = []
    failed: list[Row] = []
    for name in names:
        own, broken = latest(rows, {"problem": name})
        failed += broken
        used += own
        for row in sorted(own, key=lambda row: (row["sampler"], row["seed"])):
            first, second = row["original"], row["result"]
            low, high = row["gain_interval"]
            sizes = f"{second['parameters']:,} of {first['parameters']:,}"
            lines.append(
                [
                    *(name, row["sampler"], str(row["seed"])),
                    *(f"{second['accuracy']:.4f}", f"{first['accuracy']:.4f}"),
                    f"{row['gain']:+.4f} ({low:+.4f} to {high:+.4f})",
                    *(sizes, f"{first['bytes'] / second['bytes']:.1f}x"),
                    *(
                        _change(first[field], second[field])
                        for field in ("train_seconds", "inference_seconds")
                    ),
                    str(row["trials"])
                    + ("" if row["share"] is None else f" (all widths x {row['share']:g})"),
                ]
            )
    if not used:
        return f"There is no complete search.\n{failures_text(failed)}"
    forms = sorted({f"{row['problem']}: {row['form']}" for row in used})
    return (
        "## Compressed networks\n\n"
        "Mean test accuracies (of `unet` the mean IoU) of repeated trainings. The result is the smallest "
        "network that kept the accuracy of the original, less one standard error, on the validation images. "
        "Times are relative to those of the original. The abstract of Iranfar, Zapater and Atienza (2021, "
        f"10.1109/TCAD.2021.3077193) has, at most and on other data: {PUBLISHED}.\n\n"
        f"{table(heads, lines)}\n\n"
        + "".join(f"- {form}\n" for form in forms)
        + f"\n{machines_text(used)}\n{failures_text(failed)}"
    )


def _change(first: float, second: float) -> str:
    return f"{100 * (second / first - 1):+.0f} %"


# Command line ------------------------------------------------------------------------------------------


def handle(arguments: argparse.Namespace) -> int:
    """Run the missing searches and print the table. Return 1 if a search failed."""
    check_positive(searches=arguments.searches)
    new = run(
        arguments.network,
        seeds=range(arguments.first_seed, arguments.first_seed + arguments.searches),
        minutes=arguments.minutes,
        sampler=arguments.sampler,
        repeats=arguments.repeats,
        out=arguments.out,
        jobs=arguments.jobs,
        data_root=arguments.data_root,
        progress=True,
    )
    print(report(read_rows(arguments.out), arguments.network))
    return int(any("error" in row for row in new))
