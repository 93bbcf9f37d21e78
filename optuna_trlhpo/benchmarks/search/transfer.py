"""Transfer from an earlier study: trainings saved by a warm start, and the costs of a misleading study.

The prior for layers is off, so all prior knowledge comes from the earlier study.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from optuna_trlhpo.benchmarks.harness.command_line import (
    print_outcome,
    print_report,
    print_setting,
    read_existing_rows,
    select,
)
from optuna_trlhpo.benchmarks.harness.rows import Row, check_names
from optuna_trlhpo.benchmarks.harness.samplers import SamplerFactory, ours
from optuna_trlhpo.benchmarks.harness.studies import mean_text
from optuna_trlhpo.benchmarks.layer_prior.pretraining import DATA
from optuna_trlhpo.benchmarks.problems import tables
from optuna_trlhpo.benchmarks.problems.mnist_layers import read_table
from optuna_trlhpo.benchmarks.problems.problem import Problem
from optuna_trlhpo.benchmarks.problems.tasks import TASKS
from optuna_trlhpo.benchmarks.search import report, runner
from optuna_trlhpo.benchmarks.search.protocols import Share
from optuna_trlhpo.benchmarks.search.results import Results, p_text
from optuna_trlhpo.benchmarks.search.runner import TRIALS_PER_TRAINING
from optuna_trlhpo.layers import describe, parse
from optuna_trlhpo.sampler import TRLHPOSampler
from optuna_trlhpo.space import LayerSpace

COLD = "cold"
REVERSED = "reversed"
"""Name of a misleading study: the problem itself in the opposite direction."""
SHUFFLED = "shuffled"
"""Name of a misleading study: the problem itself with permuted values."""
DIGITS = "digits-28"
"""Task whose table of real trainings is an earlier study for ``mnist-layers``."""
EARLIER: dict[str, tuple[str, ...]] = {
    "nb201-cifar10": ("nb201-cifar100", "nb201-imagenet", REVERSED, SHUFFLED),
    "nb201-cifar100": ("nb201-cifar10", "nb201-imagenet", REVERSED, SHUFFLED),
    "nb201-imagenet": ("nb201-cifar10", "nb201-cifar100", REVERSED, SHUFFLED),
    "mnist-layers": (DIGITS, REVERSED, SHUFFLED),
}
"""Earlier studies by problem. A study begins with one of them."""
N_EARLIER = 100
"""Number of trainings of an earlier study."""
_OTHER_SEED = 10_000
"""Offset of the seed of an earlier study, which gives it different noise."""


def earlier_study(source: str, problem: str, *, seed: int, data_root: Path | None = None) -> optuna.Study:
    """Create a study of ``source`` with `N_EARLIER` trainings, and with noise of its own.

    An earlier study of a problem is a cold study of our sampler in the problem's first form. A misleading
    study consists of random networks, since a search for poor networks is unrealistic. Networks of the digits
    are drawn from their table, together with all their prefixes.

    Args:
        source: One of ``EARLIER[problem]``.
        problem: Problem of the later study.
        seed: Random seed of the later study.
        data_root: See `tables.problems`.
    """
    if source == DIGITS:
        return _of_table(np.random.default_rng(_OTHER_SEED + seed))
    if source in (REVERSED, SHUFFLED):
        study = _played(tables.load(problem, data_root), optuna.samplers.RandomSampler(seed), seed)
        return _misled(study, source, np.random.default_rng(_OTHER_SEED + seed))
    return _played(tables.load(source, data_root), cold_sampler(seed=seed), seed)


def _played(problem: Problem, sampler: BaseSampler, seed: int) -> optuna.Study:
    study = optuna.create_study(direction=problem.direction, sampler=sampler)
    objective = problem.objective(problem.forms[0], _OTHER_SEED + seed, N_EARLIER)
    for _ in range(TRIALS_PER_TRAINING * N_EARLIER):  # a small problem may have fewer networks
        study.optimize(objective, n_trials=1)
        if objective.evaluator.exhausted:
            break
    return study


def _misled(study: optuna.Study, how: str, rng: np.random.Generator) -> optuna.Study:
    """Return a study of the same networks with the opposite direction, or with permuted values."""
    trials = study.get_trials(states=(TrialState.COMPLETE,))
    if how == REVERSED:
        maximised = study.direction == StudyDirection.MAXIMIZE
        misled = optuna.create_study(direction="minimize" if maximised else "maximize")
        misled.add_trials(trials)
        return misled
    misled = optuna.create_study(direction=study.direction)
    values = [trial.value for trial in trials]
    for trial, index in zip(trials, rng.permutation(len(trials)), strict=True):
        # Reports belong to the layers of their own trial, so only final values can be permuted.
        trial.value, trial.intermediate_values = values[index], {}
        misled.add_trial(trial)
    return misled


def _of_table(rng: np.random.Generator) -> optuna.Study:
    task, table = TASKS[DIGITS], read_table(DATA / f"{DIGITS}-layers.csv.gz")
    space = LayerSpace(
        input_shape=(1, task.resolution, task.resolution),
        num_classes=task.num_classes,
        max_macs=task.max_macs,
    )
    accuracies = {row.architecture: row.accuracy for row in table}
    study, trained = optuna.create_study(direction="maximize"), set[str]()
    for architecture in rng.permutation(list(accuracies)).tolist():
        recorded = optuna.trial.FixedTrial(space.to_params(parse(architecture)))
        prefixes = [describe(network) for network in space.grow(recorded)]
        reports = {step: accuracies[prefix] for step, prefix in enumerate(prefixes)}
        trial = create_trial(
            params=recorded.params,
            distributions=recorded.distributions,
            value=max(reports.values()),
            intermediate_values=reports,
        )
        study.add_trial(trial)
        trained.update(prefixes)
        if len(trained) >= N_EARLIER:
            break
    return study


cold_sampler = functools.partial(ours, layer_prior=False)


def warm_sampler(source: str, problem: str, data_root: Path | None, *, seed: int) -> BaseSampler:
    """Create a sampler that begins with an earlier study of ``source``."""
    study = earlier_study(source, problem, seed=seed, data_root=data_root)
    return TRLHPOSampler(seed=seed, layer_prior=False, warm_start=[study], warn_independent_sampling=False)


def run(
    problems: Sequence[str],
    *,
    seeds: int,
    budget: int,
    out: str | Path,
    jobs: int = 1,
    data_root: Path | None = None,
    progress: bool = False,
) -> list[Row]:
    """Run the missing studies of the sampler, cold and after each of the earlier studies.

    Args:
        problems: Names in `EARLIER`.
        seeds: Number of studies of each kind.
        budget: Number of trainings of a study.
        out: Folder of the rows.
        jobs: Number of processes, each with one thread.
        data_root: See `tables.problems`.
        progress: Whether to show a progress bar.

    Returns:
        The new rows.

    Raises:
        ValueError: For a problem without an earlier study.
    """
    check_names("problem", problems, EARLIER)
    rows = []
    for problem in problems:
        factories: dict[str, SamplerFactory] = {COLD: cold_sampler}
        for source in EARLIER[problem]:
            factories[source] = functools.partial(warm_sampler, source, problem, data_root)
        form = tables.load(problem, data_root).forms[0]
        share = Share((problem,), tuple(factories), seeds, budget, forms=(form,))
        rows += runner.run_protocol(
            [share], factories, out=out, jobs=jobs, data_root=data_root, progress=progress
        )
    return rows


def markdown(results: Results, at: Iterable[int] = (10, 25, 50)) -> str:
    """Format a table for each problem: the regret with and without an earlier study, and the savings.

    Args:
        results: Rows of `run`.
        at: Numbers of trainings at which the regrets are compared.
    """
    at = list(at)
    parts = [
        "# Trainings saved by an earlier study\n\nMean regret ± standard error, and in brackets the number "
        "of trainings by which the warm start reaches the mean regret of the cold start earlier (negative: "
        "later). p values are those of Wilcoxon's signed-rank test over paired seeds against the cold start, "
        f"with Holm's correction; a p of .05 or more is a tie. An earlier study has {N_EARLIER} trainings "
        "with independent noise. Two of them are misleading, with random networks of the problem itself: "
        f"{REVERSED}, in the opposite direction, and {SHUFFLED}, with permuted values."
    ]
    for problem in results.problems:
        form = next(row["form"] for row in results.rows if row["problem"] == problem)
        budget = results.budget(problem)
        marks = [n for n in at if n <= budget]
        curves = {
            name: results.curves(problem, name, form, budget).mean(axis=0)
            for name in results.samplers(problem)
        }
        rows = []
        for name in (COLD, *EARLIER[problem]):
            if name not in curves:
                continue
            cells = [str(len(results.curves(problem, name, form)))]
            for n in marks:
                cells.append(_cell(results, problem, name, n, curves))
            rows.append([name, *cells])
        heads = ["start", "seeds", *map(report.head, marks)]
        parts.append(report.section(results, problem, heads, rows))
    parts.append(f"Versions: {report.versions_text(results)}.")
    return "\n\n".join(parts) + "\n"


def _cell(results: Results, problem: str, name: str, n: int, curves: dict[str, np.ndarray]) -> str:
    cell = results.cell(problem, name, n)
    assert cell is not None
    text = mean_text(cell.regrets.values())
    if name == COLD or COLD not in curves:
        return text
    compared = results.comparisons(problem, n, COLD)[name]
    p = p_text(compared.corrected)
    return f"{text} ({saved_text(curves[COLD], curves[name], n)}, {compared.word}, p {p})"


def saved_text(cold: np.ndarray, warm: np.ndarray, n: int) -> str:
    """Format the number of trainings that a warm start saves.

    Args:
        cold: Regret after each training, ``[budget]``, of a cold start.
        warm: Regret after each training, ``[budget]``, of a warm start.
        n: Number of trainings of the cold start. The text tells how much earlier the warm start reaches the
            same regret.

    Examples:
        >>> cold, warm = np.array([9.0, 8, 7, 6, 5]), np.array([9.0, 6, 5, 5, 5])
        >>> saved_text(cold, warm, 4), saved_text(warm, cold, 2), saved_text(warm, cold + 1, 5)
        ('+2', '-2', 'not within 5')
    """
    reached = np.flatnonzero(warm <= cold[n - 1])
    if not len(reached):
        return f"not within {len(warm)}"
    return f"{n - (int(reached[0]) + 1):+d}"


def handle(arguments: argparse.Namespace) -> int:
    """Run the missing studies and print the table. Return 1 if a study failed."""
    problems = select("problem", arguments.problems, EARLIER)
    print_setting(arguments)
    rows = run(
        problems,
        seeds=arguments.seeds,
        budget=arguments.budget,
        out=arguments.out,
        jobs=arguments.jobs,
        data_root=arguments.data_root,
        progress=True,
    )
    code = print_outcome(rows, arguments.out)
    text = markdown(Results(read_existing_rows(arguments.out)))
    print_report(text, arguments.markdown)
    return code
