"""Samplers where every network is really trained: ``python -m optuna_trlhpo.benchmarks real``.

A study trains networks on a task of `tasks`, by the function that made the table of ``mnist-layers``, and
takes the one with the best observed validation accuracy. Only then is it fitted again, on the training and
the validation images together, under several new seeds, with the epochs and all else as in the search; each
of these refits is judged once on the dataset's test images, which nothing before has read.

Cost is the number of networks trained; one that the study has trained before is free. The seed of a training
is made of the study's seed and the network alone: samplers compared on one seed see the same values.

A row is the outcome of one study:

==================== =====================================================================================
``problem`` ...      the task, with ``form``, ``sampler``, ``seed``, ``budget`` and ``refits``: which study
``trainings``        networks trained
``curve``            pairs ``[trainings, observed validation accuracy]``, one wherever the incumbent changes
``incumbents``       the network of each pair; the last one is what the study found
``parameters``       of that network, with its ``macs``
``test_errors``      of each of its refits, a share of the test images
``trials``           trials of the study; ``hits`` look-ups of networks trained before, which were free
``seconds``          CPU seconds of the sampler, and Optuna's; beside them ``training_seconds``,
                     ``refit_seconds``
``versions``         and ``machine``: what ran
``error``            in place of all after ``refits``: why the study failed
==================== =====================================================================================
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import multiprocessing
import os
import platform
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from optuna.trial import Trial
from tqdm.auto import tqdm

from optuna_trlhpo.benchmarks import runner
from optuna_trlhpo.benchmarks.problem import Form, Problem, Train
from optuna_trlhpo.benchmarks.runner import Row, SamplerFactory
from optuna_trlhpo.benchmarks.tables import DATA_ROOT_VARIABLE
from optuna_trlhpo.benchmarks.tasks import BATCH_SIZE, LEARNING_RATE, TASKS, Task
from optuna_trlhpo.benchmarks.training_table import train_network
from optuna_trlhpo.cnn.data import ImageData, load_data
from optuna_trlhpo.cnn.model import build_network
from optuna_trlhpo.cnn.training import predict_correct, train
from optuna_trlhpo.layers import describe, parse
from optuna_trlhpo.space import LayerSpace

REFITS = 3
CHECKPOINTS = (25, 50, 100)
REFERENCE = "trlhpo"
DEFAULT_SAMPLERS = tuple(
    name for name in ("trlhpo", "trlhpo-prior", "tpe", "random") if name in runner.SAMPLERS
)

_RESOLUTIONS = {"mnist": 28, "digits": 8}
_DATA_ROOTS = ("../shared/data", "data")


class RealTraining(Problem):
    """A task, as one study sees it: what a network is worth is what this study observed of it.

    Networks and their growth are those of ``mnist-layers``, the paper's stop rules included.

    Args:
        name: One of `tasks.TASKS`.
        data: Its images.

    Attributes:
        trained: What came of each training, by network, in the order of the trainings.
    """

    forms: tuple[Form, ...] = ("progressive", "terminal")
    optimum = 1.0
    unit = "% of the validation images"

    def __init__(self, name: str, data: ImageData) -> None:
        self.name = name
        self.trained: dict[str, Row] = {}
        self._task, self._data = TASKS[name], data
        self._space = LayerSpace(
            input_shape=data.input_shape, num_classes=data.num_classes, max_macs=self._task.max_macs
        )

    def observe(self, network: str, rng: np.random.Generator) -> float:
        training_seed = int(rng.integers(2**32))
        row = train_network(self._task, self._data, parse(network), training_seed=training_seed)
        self.trained[network] = row
        return row["accuracy"]

    def true_value(self, network: str) -> float:
        return self.trained[network]["accuracy"]

    def play(self, form: Form, trial: Trial, train: Train) -> float:
        if form == "terminal":
            return train(describe(self._space.suggest(trial)))
        best = 0.0
        for layers in self._space.grow(trial):
            accuracy = train(describe(layers))
            trial.report(accuracy, step=len(layers) - 1)
            best = max(best, accuracy)
        return best


def tasks_with_test_images() -> list[str]:
    """Names of the tasks whose images are those of their dataset, so that its test images are theirs too."""
    return [name for name, task in TASKS.items() if task == _unchanged(task)]


def load_test_images(task: Task, data: ImageData, data_root: str | Path) -> tuple[torch.Tensor, torch.Tensor]:
    """The test images of the task's dataset, standardised as those of ``data``, and their labels.

    Raises:
        ValueError: If the task changes the images of its dataset.
    """
    if task != _unchanged(task):
        raise ValueError(f"the task has no test images; {', '.join(tasks_with_test_images())} have")
    whole = load_data(task.dataset, data_root=data_root, device="cpu")
    assert whole.test_images is not None and whole.test_labels is not None
    pixels = whole.test_images * whole.std[0] + whole.mean[0]
    return (pixels - data.mean[0]) / data.std[0], whole.test_labels


def refit_errors(name: str, network: str, *, seed: int, refits: int, data_root: str | Path) -> list[float]:
    """Fit a network ``refits`` times on training and validation images; the share of wrong test images each.

    Args:
        name: One of `tasks.TASKS`.
        network: As `describe` writes it.
        seed: Of the study; the initial weights and the order of the images are made of it, the number of the
            refit and the network.
        refits: How many times.
        data_root: Where MNIST's files lie.
    """
    task, data = TASKS[name], _load(name, str(data_root))
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
    """The form that a sampler plays unless told otherwise: progressive where it lives on the reports.

    Example:
        >>> default_form("trlhpo"), default_form("greedy-growth"), default_form("tpe")
        ('progressive', 'progressive', 'terminal')
    """
    return "progressive" if sampler.startswith("trlhpo") or sampler.endswith("-growth") else "terminal"


# Studies -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Run:
    """One study to be run; it is sent to another process."""

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
    samplers: Mapping[str, SamplerFactory] | Sequence[str] = DEFAULT_SAMPLERS,
    *,
    seeds: Iterable[int],
    budget: int = 100,
    form: Form | None = None,
    refits: int = REFITS,
    out: str | Path = "real-training-rows",
    jobs: int = 1,
    data_root: str | Path | None = None,
    progress: bool = False,
) -> list[Row]:
    """Run each sampler with each seed, unless that has been done, and append a row to ``out`` for each.

    Args:
        name: One of `tasks_with_test_images`.
        samplers: Names out of `runner.SAMPLERS`, or factories by names of their own.
        seeds: Of the sampler, the trainings and the refits alike.
        budget: Trainings of a study.
        form: Of all samplers; None: of each its `default_form`.
        refits: Of the network that a study found.
        out: The folder of the rows; those of the runner belong in another one.
        jobs: Processes, each with one thread.
        data_root: Holds MNIST; None: the folder named in the environment variable ``TRLHPO_DATA_ROOT``, else
            ``../shared/data``, else ``data``.
        progress: Whether to show a bar.

    Returns:
        The rows that this call has added.

    Raises:
        ValueError: For an unknown name, or a number below 1.
        FileNotFoundError: Before the first study, if MNIST is needed and not there.
        ImportError: Likewise, if a package is missing.
    """
    runner.check_names("task", [name], tasks_with_test_images())
    check_positive(budget=budget, refits=refits, jobs=jobs)
    factories = check_samplers(samplers)
    root = find_root(data_root)
    runs = [
        _Run(name, form or default_form(sampler), sampler, seed, budget, refits, factory, root)
        for seed in seeds  # outermost, so that what is there at any time is balanced
        for sampler, factory in factories.items()
    ]
    if runs:
        _load(name, root)  # what is missing is told now
    return collect(_study, runs, out=out, jobs=jobs, progress=progress)


def _study(it: _Run) -> Row:
    problem = RealTraining(it.problem, _load(it.problem, it.data_root))
    objective = problem.objective(it.form, it.seed, it.budget)
    measured = runner._measure(objective, it.factory(seed=it.seed), it.budget)
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
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
    }


def _incumbents(trained: Mapping[str, Row]) -> list[tuple[int, Row]]:
    """Wherever a network is the best so far: trainings until then, and what came of it."""
    found: list[tuple[int, Row]] = []
    for trainings, row in enumerate(trained.values(), start=1):
        if not found or row["accuracy"] > found[-1][1]["accuracy"]:
            found.append((trainings, row))
    return found


@functools.cache
def _load(name: str, data_root: str) -> ImageData:
    return TASKS[name].load(data_root)


def find_root(data_root: str | Path | None) -> str:
    """The folder of the data: the one named, or where it usually lies."""
    if data_root is not None:
        return str(data_root)
    roots = [os.environ[DATA_ROOT_VARIABLE]] if DATA_ROOT_VARIABLE in os.environ else _DATA_ROOTS
    return next((root for root in roots if (Path(root) / "MNIST").is_dir()), roots[-1])


def _unchanged(task: Task) -> Task:
    resolution = _RESOLUTIONS[task.dataset]
    return dataclasses.replace(task, resolution=resolution, noise=0.0, inverted=False, num_classes=10)


# Rows, and the processes that make them ------------------------------------------------------------------


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
    kept = runner.read_rows(out, repair=True)
    missing = [it for it in runs if not any("error" not in row and matches(row, it.key) for row in kept)]
    rows = []
    done = len(runs) - len(missing)
    with tqdm(total=len(runs), initial=done, unit="study", disable=not progress) as bar:
        for row in _execute(functools.partial(_guarded, study), missing, jobs):
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
        runner.check_names("sampler", samplers, runner.SAMPLERS)
        samplers = {name: runner.SAMPLERS[name] for name in samplers}
    with runner._quiet():
        for factory in samplers.values():
            factory(seed=0)
    return dict(samplers)


def check_positive(**numbers: int) -> None:
    """Raise a ``ValueError`` for the first number below 1."""
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} is {number}; it must be at least 1")


def _guarded(study: Callable[[Any], Row], it: Run) -> Row:
    torch.set_num_threads(1)
    with runner._quiet():
        try:
            return {**it.key, **study(it)}
        except Exception as error:  # any of a sampler's: one of them must not end the others
            return {**it.key, "error": f"{type(error).__name__}: {error}"}


def _execute(study: Callable[[Any], Row], runs: Sequence[Run], jobs: int) -> Iterator[Row]:
    """A row for each run, in the order in which they end."""
    if jobs == 1 or len(runs) < 2:
        yield from map(study, runs)
        return
    others = set(multiprocessing.active_children())
    with runner._one_thread():
        context = multiprocessing.get_context("spawn")  # a fork would lack torch's threads
        pool = ProcessPoolExecutor(jobs, context, initializer=runner._begin_worker)
        try:
            for future in as_completed([pool.submit(study, it) for it in runs]):
                yield future.result()
            pool.shutdown()
        finally:  # where it was broken off, nobody waits for the studies that are under way
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()


# Report ------------------------------------------------------------------------------------------------


def report(rows: Iterable[Row], name: str = "mnist", *, budget: int = 100, refits: int = REFITS) -> str:
    """The rows of one task, budget and number of refits as a table in Markdown, the best test error first.

    Each sampler is compared with `REFERENCE` on the seeds that both have, by the difference of their test
    errors and by Wilcoxon's signed-rank test (two-sided, p after Holm).
    """
    from optuna_trlhpo.benchmarks.results import Cell, holm, wilcoxon  # needs the extra 'bench'

    rows, failed = latest(rows, {"problem": name, "budget": budget, "refits": refits})
    if not rows:
        return f"There is no whole study of {name} with {budget} trainings.\n"
    studies: dict[tuple[str, str], dict[int, Row]] = {}
    for row in rows:
        studies.setdefault((row["sampler"], row["form"]), {})[row["seed"]] = row
    tested = {
        player: Cell(player[1], {seed: 100 * float(np.mean(row["test_errors"])) for seed, row in by.items()})
        for player, by in studies.items()
    }
    players = sorted(tested, key=lambda player: tested[player].mean)
    ours = (REFERENCE, default_form(REFERENCE))
    others = [player for player in players if player != ours] if ours in tested else []
    ps = holm([wilcoxon(tested[player], tested[ours]) for player in others])
    p_of = dict(zip(others, ps, strict=True))

    places = [at for at in CHECKPOINTS if at < budget] + [budget]
    heads = ["sampler", "form", "seeds", *(f"validation error @{at}" for at in places), "test error"]
    heads += [f"less {REFERENCE}'s", "p", "CPU s of trainings", "of the sampler"]
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
        f"## {name}, really trained\n\n"
        f"{budget} trainings a study, of {task.train_size:,} images and {task.epochs} epochs each; validated "
        f"on {task.validation_size:,} images; at most {task.max_macs:,.0f} MACs. Errors in %, mean ± "
        "standard error over seeds. The validation error is that of the best observed network, lucky as it "
        f"may be. The test error is the mean of {refits} refits of that network on all {fitted:,} training "
        f"and validation images ({task.epochs} epochs, batches of {BATCH_SIZE}, Adam at {LEARNING_RATE:g} in "
        f"one cycle), each judged once on the test images of {task.dataset}.\n\n"
        f"{table(heads, lines)}\n\n"
    )
    if others:
        text += (
            f"p: Wilcoxon's signed-rank test against {REFERENCE}, two-sided, after Holm over {len(others)} "
            f"comparisons; {len(seeds)} seeds cannot give less than {min(2.0 ** (1 - len(seeds)), 1):.2g} "
            "before it.\n\n"
        )
    text += f"Seeds {', '.join(map(str, seeds))}. {machines_text(rows)}\n"
    return text + failures_text(failed)


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


def _accuracy_at(curve: Sequence[Sequence[float]], trainings: int) -> float:
    return [accuracy for start, accuracy in curve if start <= trainings][-1]


# Command line ------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes, and that `handle` runs it."""
    parser.add_argument(
        "--task", default="mnist", metavar="NAME", help="one of those with test images (default: %(default)s)"
    )
    parser.add_argument(
        "--samplers",
        nargs="*",
        default=list(DEFAULT_SAMPLERS),
        metavar="NAME",
        help="none: only report what is there (default: " + ", ".join(DEFAULT_SAMPLERS) + ")",
    )
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--budget", type=int, default=100, metavar="N", help="trainings of a study (default: %(default)s)"
    )
    parser.add_argument(
        "--form",
        choices=["progressive", "terminal"],
        help="of all samplers named (default: progressive for those that live on reports, else terminal)",
    )
    parser.add_argument(
        "--refits", type=int, default=REFITS, metavar="N", help="of what a study found (default: %(default)s)"
    )
    add_common_arguments(parser, out="real-training-rows", holds="MNIST")
    parser.set_defaults(handle=handle)


def add_common_arguments(parser: argparse.ArgumentParser, *, out: str, holds: str, jobs: bool = True) -> None:
    """Where rows and data lie, and how many processes there are if there may be several."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(out),
        metavar="DIR",
        help="the folder of the rows (default: %(default)s)",
    )
    if jobs:
        parser.add_argument(
            "--jobs", type=int, default=1, metavar="N", help="processes, of one thread each (default: 1)"
        )
    parser.add_argument(
        "--data-root",
        type=Path,
        metavar="DIR",
        help=f"holds {holds} (default: the environment variable {DATA_ROOT_VARIABLE}, else ../shared/data, "
        "else data)",
    )


def handle(arguments: argparse.Namespace) -> int:
    """Run what is missing and print the table; 1 if a study failed."""
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
    rows = runner.read_rows(arguments.out)
    print(report(rows, arguments.task, budget=arguments.budget, refits=arguments.refits))
    return int(any("error" in row for row in new))
