"""Comparison of samplers with real trainings: ``python -m optuna_trlhpo.benchmarks real``.

A study trains networks on a task of `tasks`, by the function that created the table of ``mnist-layers``, and
selects the one with the best observed validation accuracy. Then this network is refitted on the training and
validation images together, with several new seeds and the settings of the search. Each refit is evaluated
once on the dataset's test images, which are not used otherwise.

The cost is the number of networks trained; a network that the study has trained before is free. The seed of a
training depends only on the study's seed and the network, so samplers that are compared with one seed see the
same values.

A row is the outcome of one study:

==================== =====================================================================================
``problem`` ...      task, with ``form``, ``sampler``, ``seed``, ``budget`` and ``refits``
``trainings``        networks trained
``curve``            pairs ``[trainings, observed validation accuracy]``, one for each change of the incumbent
``incumbents``       network of each pair; the last one is the result of the study
``parameters``       number of parameters of the result, with its ``macs``
``test_errors``      errors of its refits, as shares of the test images
``trials``           trials of the study, with ``hits``, the free lookups of networks trained before
``seconds``          CPU seconds of the sampler and of Optuna, with ``training_seconds`` and
                     ``refit_seconds``
``versions``         versions of the packages, and ``machine``
``error``            cause of a failure, in place of all fields after ``refits``
==================== =====================================================================================
"""

from __future__ import annotations

import argparse
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from optuna_trlhpo.benchmarks.harness.rows import Row, check_names, read_rows, this_machine
from optuna_trlhpo.benchmarks.harness.samplers import REFERENCE, SamplerFactory, create_sampler
from optuna_trlhpo.benchmarks.harness.studies import (
    check_positive,
    check_samplers,
    collect,
    failures_text,
    find_root,
    latest,
    machines_text,
    mean_text,
    table,
)
from optuna_trlhpo.benchmarks.problems.problem import Form
from optuna_trlhpo.benchmarks.problems.tasks import BATCH_SIZE, LEARNING_RATE, TASKS
from optuna_trlhpo.benchmarks.search import defaults, runner
from optuna_trlhpo.benchmarks.search.real_problem import (
    RealTraining,
    load_task,
    load_test_images,
    tasks_with_test_images,
)
from optuna_trlhpo.cnn.model import build_network
from optuna_trlhpo.cnn.training.loop import predict_correct, train
from optuna_trlhpo.layers import parse

CHECKPOINTS = (25, 50, 100)


def refit_errors(name: str, network: str, *, seed: int, refits: int, data_root: str | Path) -> list[float]:
    """Fit a network several times on training and validation images, and evaluate it on the test images.

    Args:
        name: Name of a task in `tasks.TASKS`.
        network: Network in the form of `describe`.
        seed: Random seed of the study. The initial weights and the order of the images depend on it, on the
            index of the refit and on the network.
        refits: Number of refits.
        data_root: Folder of MNIST's files.

    Returns:
        Error of each refit, as a share of the test images.
    """
    task, data = TASKS[name], load_task(name, str(data_root))
    images = torch.cat([data.train_images, data.validation_images])
    labels = torch.cat([data.train_labels, data.validation_labels])
    models = []
    for refit in range(refits):
        refit_seed = zlib.crc32(f"{seed} refit {refit} {network}".encode())
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(refit_seed)
            model = build_network(parse(network), data.input_shape, data.num_classes, conv_activation="relu")
        model.to(memory_format=torch.channels_last)
        train(
            model,
            images,
            labels,
            epochs=task.epochs,
            batch_size=BATCH_SIZE,
            learning_rate=LEARNING_RATE,
            generator=torch.Generator().manual_seed(refit_seed),
        )
        models.append(model)
    unseen, truth = load_test_images(task, data, data_root)
    return [1 - float(predict_correct(model, unseen, truth).double().mean()) for model in models]


def default_form(sampler: str) -> Form:
    """Return the default form for a sampler: progressive for samplers that depend on reports.

    Examples:
        >>> default_form("trlhpo"), default_form("greedy-growth"), default_form("tpe")
        ('progressive', 'progressive', 'terminal')
    """
    return "progressive" if sampler.startswith("trlhpo") or sampler.endswith("-growth") else "terminal"


# Studies -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _TrainingRun:
    """Description of one study. It is sent to another process."""

    problem: str
    form: Form
    sampler: str
    seed: int
    budget: int
    refits: int
    factory: SamplerFactory
    data_root: str

    @property
    def key(self) -> Row:
        names = ("problem", "form", "sampler", "seed", "budget", "refits")
        return {name: getattr(self, name) for name in names}


def run(
    name: str = "mnist",
    samplers: Mapping[str, SamplerFactory] | Sequence[str] = defaults.REAL_SAMPLERS,
    *,
    seeds: Iterable[int],
    budget: int = 100,
    form: Form | None = None,
    refits: int = defaults.REFITS,
    out: str | Path = "real-training-rows",
    jobs: int = 1,
    data_root: str | Path | None = None,
    progress: bool = False,
) -> list[Row]:
    """Run the missing studies of each sampler with each seed, and store their rows.

    Args:
        name: One of `tasks_with_test_images`.
        samplers: Names in `harness.samplers.SAMPLERS`, or factories by name.
        seeds: Random seeds of the sampler, the trainings and the refits.
        budget: Number of trainings of a study.
        form: Form of all samplers. None: the `default_form` of each sampler.
        refits: Number of refits of the network that a study has found.
        out: Folder of the rows; rows of other commands belong in other folders.
        jobs: Number of processes, each with one thread.
        data_root: Folder that contains MNIST. None: the folder in the environment variable
            ``TRLHPO_DATA_ROOT``, else ``../shared/data``, else ``data``.
        progress: Whether to show a progress bar.

    Returns:
        The new rows.

    Raises:
        ValueError: For an unknown name, or a number below 1.
        FileNotFoundError: If MNIST is required and missing, before the first study.
        ImportError: If a package is missing, before the first study.
    """
    check_names("task", [name], tasks_with_test_images())
    check_positive(budget=budget, refits=refits, jobs=jobs)
    factories = check_samplers(samplers)
    root = find_root(data_root)
    runs = [
        _TrainingRun(name, form or default_form(sampler), sampler, seed, budget, refits, factory, root)
        for seed in seeds  # the outermost loop, so that the rows are balanced at any time
        for sampler, factory in factories.items()
    ]
    if runs:
        load_task(name, root)  # fails now if the data are missing
    return collect(_study, runs, out=out, jobs=jobs, progress=progress)


def _study(it: _TrainingRun) -> Row:
    problem = RealTraining(it.problem, load_task(it.problem, it.data_root))
    objective = problem.objective(it.form, it.seed, it.budget)
    measured = runner.measure(
        objective, create_sampler(it.factory, seed=it.seed, budget=it.budget), it.budget
    )
    incumbents = _incumbents(problem.trained)
    _, found = incumbents[-1]
    start = time.process_time()
    test_errors = refit_errors(
        it.problem, found["architecture"], seed=it.seed, refits=it.refits, data_root=it.data_root
    )
    return {
        "trainings": measured["trainings"],
        "curve": [[trainings, row["accuracy"]] for trainings, row in incumbents],
        "incumbents": [row["architecture"] for _, row in incumbents],
        "parameters": found["parameters"],
        "macs": found["macs"],
        "test_errors": [round(error, 6) for error in test_errors],
        "trials": measured["trials"],
        "hits": measured["hits"],
        "seconds": measured["seconds"],
        "training_seconds": round(objective.evaluator.seconds, 3),
        "refit_seconds": round(time.process_time() - start, 3),
        "versions": measured["versions"],
        "machine": this_machine(),
    }


def _incumbents(trained: Mapping[str, Row]) -> list[tuple[int, Row]]:
    """Return the incumbents in order, each with the number of trainings so far and its row."""
    found: list[tuple[int, Row]] = []
    for trainings, row in enumerate(trained.values(), start=1):
        if not found or row["accuracy"] > found[-1][1]["accuracy"]:
            found.append((trainings, row))
    return found


# Report ------------------------------------------------------------------------------------------------


def report(
    rows: Iterable[Row],
    name: str = "mnist",
    *,
    budget: int = 100,
    refits: int = defaults.REFITS,
    reference: str = REFERENCE,
) -> str:
    """Format the rows of one setting as a table in Markdown, in ascending order of the test error.

    The table compares each sampler with ``reference`` on their common seeds, by the difference of the test
    errors and by Wilcoxon's signed-rank test (two-sided, p after Holm).

    Args:
        rows: Rows of `run`.
        name: Name of the task.
        budget: Number of trainings of a study.
        refits: Number of refits.
        reference: Name of the sampler with which the others are compared.
    """
    from optuna_trlhpo.benchmarks.search.results import Cell, holm, wilcoxon  # needs the extra 'bench'

    rows, failed = latest(rows, {"problem": name, "budget": budget, "refits": refits})
    if not rows:
        return f"There is no complete study of {name} with {budget} trainings.\n"
    studies: dict[tuple[str, str], dict[int, Row]] = {}
    for row in rows:
        studies.setdefault((row["sampler"], row["form"]), {})[row["seed"]] = row
    tested = {
        player: Cell(player[1], {seed: 100 * float(np.mean(row["test_errors"])) for seed, row in by.items()})
        for player, by in studies.items()
    }
    players = sorted(tested, key=lambda player: tested[player].mean)
    ours = (reference, default_form(reference))
    others = [player for player in players if player != ours] if ours in tested else []
    ps = holm([wilcoxon(tested[player], tested[ours]) for player in others])
    p_of = dict(zip(others, ps, strict=True))

    places = [at for at in CHECKPOINTS if at < budget] + [budget]
    heads = ["sampler", "form", "seeds", *(f"validation error @{at}" for at in places), "test error"]
    heads += [f"difference from {reference}", "p", "CPU s of trainings", "CPU s of the sampler"]
    lines = []
    for player in players:
        by, cell = studies[player], tested[player]
        line = [*player, str(len(by))]
        line += [
            mean_text([100 * (1 - _accuracy_at(row["curve"], at)) for row in by.values()]) for at in places
        ]
        line.append(mean_text(cell.regrets.values()))
        if player in p_of:
            shared = cell.regrets.keys() & tested[ours].regrets.keys()
            line.append(mean_text([cell.regrets[seed] - tested[ours].regrets[seed] for seed in shared], "+"))
            line.append(f"{p_of[player]:.3f}")
        else:
            line += ["", ""]
        for seconds in ("training_seconds", "seconds"):
            line.append(f"{np.mean([row[seconds] for row in by.values()]):.0f}")
        lines.append(line)

    task = TASKS[name]
    fitted = task.train_size + task.validation_size
    seeds = sorted({row["seed"] for row in rows})
    text = (
        f"## {name}, with real trainings\n\n"
        f"{budget} trainings per study, on {task.train_size:,} images for {task.epochs} epochs each; "
        f"validation on {task.validation_size:,} images; at most {task.max_macs:,.0f} MACs. Errors in %, "
        "mean ± standard error over seeds. The validation error is that of the best observed network, and is "
        f"biased by the selection. The test error is the mean of {refits} refits of that network on all "
        f"{fitted:,} training and validation images ({task.epochs} epochs, batch size {BATCH_SIZE}, Adam "
        f"with a one-cycle learning rate of {LEARNING_RATE:g}), each evaluated once on the test images of "
        f"{task.dataset}.\n\n"
        f"{table(heads, lines)}\n\n"
    )
    if others:
        text += (
            f"p: Wilcoxon's signed-rank test against {reference}, two-sided, with Holm's correction over "
            f"{len(others)} comparisons; {len(seeds)} seeds cannot give less than "
            f"{min(2.0 ** (1 - len(seeds)), 1):.2g} before the correction.\n\n"
        )
    text += f"Seeds {', '.join(map(str, seeds))}. {machines_text(rows)}\n"
    return text + failures_text(failed)


def _accuracy_at(curve: Sequence[Sequence[float]], trainings: int) -> float:
    return [accuracy for start, accuracy in curve if start <= trainings][-1]


# Command line ------------------------------------------------------------------------------------------


def handle(arguments: argparse.Namespace) -> int:
    """Run the missing studies and print the table. Return 1 if a study failed."""
    check_positive(seeds=arguments.seeds)
    new = run(
        arguments.task,
        arguments.samplers,
        seeds=range(arguments.seeds),
        budget=arguments.budget,
        form=arguments.form,
        refits=arguments.refits,
        out=arguments.out,
        jobs=arguments.jobs,
        data_root=arguments.data_root,
        progress=True,
    )
    rows = read_rows(arguments.out)
    print(
        report(
            rows,
            arguments.task,
            budget=arguments.budget,
            refits=arguments.refits,
            reference=arguments.reference,
        )
    )
    return int(any("error" in row for row in new))
