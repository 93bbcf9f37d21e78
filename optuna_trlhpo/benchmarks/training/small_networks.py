"""How good a network one search finds for a small device: ``python -m optuna_trlhpo.benchmarks small``.

A search grows networks within a limit on parameters and MACs, on a part of the training images and for few
epochs, until its time is up. Its leaders are trained again for longer on all images but the validation
images, with augmentation, and the best of them is the result. It is then refitted with several new seeds on
training and validation images together. Each refit is quantised to int8, with ranges from the validation
images, and both networks classify the test images, which nothing else reads, once.

The study of a search is kept in a file beside the rows, so that an interrupted search goes on. A row is the
outcome of one search:

==================== =====================================================================================
``problem`` ...      name in `SETTINGS`, with ``form`` (its arguments), ``sampler``, ``seed``, ``refits``
``architecture``     the network that was found, with its ``parameters`` and ``macs``
``accuracies``       validation accuracies of the leaders after their longer training, best first
``test_errors``      errors of the refits, as shares of the test images
``int8_errors``      errors of the same networks in int8
``int8_losses``      accuracy that each lost on the validation images by quantisation
``bytes``            size of the int8 file, with ``float_bytes`` and ``activation_bytes`` in int8
``latency``          seconds for one image in onnxruntime, of int8, with ``float_latency``
``trials``           trials of the search, with ``trainings``, the networks that were trained
``search_seconds``   seconds of the search, with ``leader_seconds`` and ``refit_seconds``
``versions``         versions of the packages, and ``machine``
``error``            cause of a failure, in place of all fields after ``refits``
==================== =====================================================================================
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.study import Study

from optuna_trlhpo.benchmarks.harness.rows import Row, check_names, read_rows, this_machine, versions
from optuna_trlhpo.benchmarks.harness.samplers import REFERENCE, SAMPLERS
from optuna_trlhpo.benchmarks.harness.studies import (
    check_positive,
    collect,
    failures_text,
    find_root,
    latest,
    machines_text,
    mean_text,
    table,
)
from optuna_trlhpo.benchmarks.training.defaults import SMALL_SETTINGS
from optuna_trlhpo.benchmarks.training.small_settings import SETTINGS, inputs_of
from optuna_trlhpo.cnn import CNNObjective, savings
from optuna_trlhpo.cnn.deploy.running import accuracy_of_file


@dataclass(frozen=True)
class _Search:
    """Description of one search. It is sent to another process."""

    problem: str
    sampler: str
    seed: int
    minutes: float
    refits: int
    data_root: str
    out: str

    @property
    def key(self) -> Row:
        form = f"{self.minutes:g} minutes, {SETTINGS[self.problem].text}"
        own = {name: getattr(self, name) for name in ("problem", "sampler", "seed", "refits")}
        return {"form": form, **own}


def run(
    names: Sequence[str] = SMALL_SETTINGS,
    *,
    seeds: Iterable[int],
    minutes: float = 60,
    sampler: str = REFERENCE,
    refits: int = 5,
    out: str | Path = "small-rows",
    jobs: int = 1,
    data_root: str | Path | None = None,
    progress: bool = False,
) -> list[Row]:
    """Run the missing searches, and store their rows.

    Args:
        names: Names in `SETTINGS`.
        seeds: Random seeds of the sampler, the splits, the trainings and the refits.
        minutes: Duration of a search, without the trainings behind it.
        sampler: A name in `harness.samplers.SAMPLERS`.
        refits: Number of refits of the network that a search has found.
        out: Folder of the rows and studies.
        jobs: Number of processes, each with one thread.
        data_root: Folder that contains MNIST; see `find_root`.
        progress: Whether to show a progress bar.

    Returns:
        The new rows.

    Raises:
        ValueError: For an unknown name, or a number that is not positive.
    """
    check_names("setting", names, SETTINGS)
    check_names("sampler", [sampler], SAMPLERS)
    check_positive(refits=refits, jobs=jobs)
    if not minutes > 0:
        raise ValueError(f"minutes is {minutes:g}; it must be positive")
    root = find_root(data_root)
    runs = [_Search(name, sampler, seed, minutes, refits, root, str(out)) for seed in seeds for name in names]
    return collect(_searched, runs, out=out, jobs=jobs, progress=progress)


def _searched(it: _Search) -> Row:
    setting = SETTINGS[it.problem]
    how: dict[str, Any] = {"data_root": it.data_root, "seed": it.seed, "device": "cpu", **setting.limits}
    if setting.vocabulary is not None:
        how["vocabulary"] = setting.vocabulary
    inputs = inputs_of(setting.data)
    objective = CNNObjective(inputs, **setting.search, **how)
    study = _study_of(it)
    seconds = sum(trial.duration.total_seconds() for trial in study.trials if trial.duration is not None)
    while seconds < 60 * it.minutes:
        begun = time.perf_counter()
        study.optimize(objective, timeout=60 * it.minutes - seconds)
        seconds += time.perf_counter() - begun

    begun = time.perf_counter()
    longer = CNNObjective(inputs, augment=setting.augment, **setting.whole, **how)
    confirmed = longer.confirm(study, top=setting.leaders, repeats=1)
    best, leader_seconds = confirmed[0], time.perf_counter() - begun

    begun = time.perf_counter()
    tested = [_tested(longer, best, setting.refit_epochs, 1000 * (it.seed + 1) + k) for k in range(it.refits)]
    cost = longer.cost(best, quantize="int8").quantised
    assert cost is not None and cost.latency is not None and cost.float_latency is not None
    saved = savings(study)
    return {
        "architecture": best.architecture,
        "parameters": best.parameters,
        "macs": best.macs,
        "accuracies": [row.mean for row in confirmed],
        "test_errors": [round(error, 6) for error, _, _ in tested],
        "int8_errors": [round(error, 6) for _, error, _ in tested],
        "int8_losses": [round(loss, 6) for _, _, loss in tested],
        "bytes": cost.model_bytes,
        "float_bytes": cost.float_model_bytes,
        "activation_bytes": cost.peak_activation_bytes,
        "latency": cost.latency.median,
        "float_latency": cost.float_latency.median,
        "trials": len(study.trials),
        "trainings": saved.trained,
        "search_seconds": round(seconds),
        "leader_seconds": round(leader_seconds),
        "refit_seconds": round(time.perf_counter() - begun),
        "versions": versions(),
        "machine": this_machine(),
    }


def _study_of(it: _Search) -> Study:
    """Return the study of a search, which is kept in a file."""
    folder = Path(it.out) / it.problem
    folder.mkdir(parents=True, exist_ok=True)
    return optuna.create_study(
        study_name=it.key["form"],
        storage=f"sqlite:///{folder}/{it.sampler}-{it.seed}.db",
        load_if_exists=True,
        direction="maximize",
        sampler=SAMPLERS[it.sampler](seed=it.seed),
        pruner=optuna.pruners.NopPruner(),
    )


def _tested(objective: CNNObjective, best: Any, epochs: int, seed: int) -> tuple[float, float, float]:
    """Refit a network, and return its test error as floats and as int8, and what int8 lost in validation."""
    refit = objective.refit(best, epochs=epochs, seed=seed)
    data = objective.data
    assert refit.test_accuracy is not None and data.test_images is not None and data.test_labels is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        exported = objective.export(best, path, network=refit.network, quantize="int8")
        assert exported.accuracy is not None and exported.float_accuracy is not None
        quantised = accuracy_of_file(path, data.test_images, data.test_labels)
    return 1 - refit.test_accuracy, 1 - quantised, exported.float_accuracy - exported.accuracy


# Report ------------------------------------------------------------------------------------------------


def report(rows: Iterable[Row], names: Sequence[str] = SMALL_SETTINGS) -> str:
    """Format the rows as tables in Markdown: one of the settings, one of the searches."""
    rows = list(rows)
    heads = ["setting", "searches", "test accuracy", "in int8", "parameters", "MACs", "int8 file", "minutes"]
    lines: list[list[str]] = []
    searches: list[list[str]] = []
    used: list[Row] = []
    failed: list[Row] = []
    for name in names:
        own, broken = latest(rows, {"problem": name})
        failed += broken
        used += own
        if not own:
            continue
        errors, int8 = (
            [100 * (1 - float(np.mean(row[field]))) for row in own]
            for field in ("test_errors", "int8_errors")
        )
        lines.append([name, str(len(own)), f"{mean_text(errors)} %", f"{mean_text(int8)} %"])
        for field in ("parameters", "macs", "bytes"):
            lines[-1].append(f"{np.mean([row[field] for row in own]):,.0f}")
        lines[-1].append(f"{np.mean([_seconds(row) for row in own]) / 60:.0f}")
        for row in sorted(own, key=lambda row: row["seed"]):
            per_refit = [100 * (1 - error) for error in row["test_errors"]]
            spread = f"{min(per_refit):.2f} to {max(per_refit):.2f}"
            accuracy = f"{np.mean(per_refit):.3f} % ({spread})"
            quantised = f"{100 * (1 - np.mean(row['int8_errors'])):.3f} %"
            counts = [f"{row[field]:,}" for field in ("parameters", "macs", "trainings")]
            searches.append([name, str(row["seed"]), accuracy, quantised, *counts, row["architecture"]])
    if not used:
        return f"There is no complete search.\n{failures_text(failed)}"
    forms = sorted({f"{row['problem']}: {row['form']}; {row['refits']} refits" for row in used})
    heads_of_searches = ["setting", "seed", "test accuracy", "in int8", "parameters", "MACs", "trainings"]
    return (
        "## Small networks\n\n"
        "Mean ± standard error over searches of the mean test accuracy of the refits. Minutes are those of "
        "the search and of all trainings behind it, on one thread.\n\n"
        f"{table(heads, lines)}\n\n"
        "Each search, with the least and the greatest accuracy of its refits:\n\n"
        f"{table([*heads_of_searches, 'network'], searches)}\n\n"
        + "".join(f"- {form}\n" for form in forms)
        + f"\n{machines_text(used)}\n{failures_text(failed)}"
    )


def _seconds(row: Row) -> float:
    return float(row["search_seconds"] + row["leader_seconds"] + row["refit_seconds"])


# Command line ------------------------------------------------------------------------------------------


def handle(arguments: argparse.Namespace) -> int:
    """Run the missing searches and print the tables. Return 1 if a search failed."""
    check_positive(searches=arguments.searches)
    new = run(
        arguments.settings,
        seeds=range(arguments.first_seed, arguments.first_seed + arguments.searches),
        minutes=arguments.minutes,
        sampler=arguments.sampler,
        refits=arguments.refits,
        out=arguments.out,
        jobs=arguments.jobs,
        data_root=arguments.data_root,
        progress=True,
    )
    print(report(read_rows(arguments.out), arguments.settings))
    return int(any("error" in row for row in new))
