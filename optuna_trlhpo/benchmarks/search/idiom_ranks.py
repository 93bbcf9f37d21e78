"""Comparison of samplers on the `idioms`: ``python -m optuna_trlhpo.benchmarks idioms``.

Each sampler runs on each idiom with each seed. The measure is the true value, without noise, of the trial
with the best observed value, which a user would select. Values of different idioms have different units, so
the samplers are ranked for each idiom and seed. The mean rank over all idioms gives one number for each seed.

A row is the outcome of one study: ``problem`` is the idiom, ``form`` "study", ``budget`` its trials.

==================  =======================================================================================
``curve``           pairs ``[trials, value]``, one for each change of the best trial: the true value of the
                    trial with the best observed value from this number of trials on
``unit``            unit of the value, with ``direction``
``trials``          trials of the study; ``pruned`` is a subset
``seconds``         wall-clock seconds of the study, including trainings
``versions``        versions of the packages, and ``machine``
``error``           cause of a failure, in place of all fields after ``budget``
==================  =======================================================================================
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optuna_trlhpo.benchmarks.harness.command_line import print_report, select
from optuna_trlhpo.benchmarks.harness.rows import Row, check_names, read_rows, this_machine, versions
from optuna_trlhpo.benchmarks.harness.samplers import REFERENCE, SAMPLERS, SamplerFactory, create_sampler
from optuna_trlhpo.benchmarks.harness.studies import (
    check_positive,
    check_samplers,
    collect,
    failures_text,
    latest,
    machines_text,
    mean_text,
    table,
)
from optuna_trlhpo.benchmarks.problems.idioms import IDIOMS, Observer
from optuna_trlhpo.benchmarks.search import defaults


@dataclass(frozen=True)
class _IdiomRun:
    """Description of one study. It is sent to another process."""

    idiom: str
    sampler: str
    seed: int
    trials: int
    factory: SamplerFactory

    @property
    def key(self) -> Row:
        return {
            **{"problem": self.idiom, "form": "study"},
            **{"sampler": self.sampler, "seed": self.seed, "budget": self.trials},
        }


def run(
    idioms: Sequence[str] = tuple(IDIOMS),
    samplers: Mapping[str, SamplerFactory] | Sequence[str] = defaults.IDIOMS_SAMPLERS,
    *,
    seeds: Iterable[int] = range(defaults.IDIOMS_SEEDS),
    trials: int = defaults.IDIOMS_TRIALS,
    out: str | Path = "idioms-rows",
    jobs: int = 1,
    progress: bool = False,
) -> list[Row]:
    """Run the missing studies of each sampler on each idiom with each seed, and store their rows.

    Args:
        idioms: Names in `idioms.IDIOMS`.
        samplers: Names in `harness.samplers.SAMPLERS`, or factories by name.
        seeds: Random seeds of the sampler and of the noise.
        trials: Number of trials of a study.
        out: Folder of the rows; rows of other commands belong in other folders.
        jobs: Number of processes, each with one thread.
        progress: Whether to show a progress bar.

    Returns:
        The new rows.

    Raises:
        ValueError: For an unknown name or a number out of range.
        ImportError: If scikit-learn is missing.
    """
    check_positive(trials=trials, jobs=jobs)
    check_names("idiom", idioms, IDIOMS)
    factories = check_samplers(samplers)
    runs = [
        _IdiomRun(idiom, name, seed, trials, factory)
        for seed in seeds
        for idiom in idioms
        for name, factory in factories.items()
    ]
    return collect(_study, runs, out=out, jobs=jobs, progress=progress)


def _study(it: _IdiomRun) -> Row:
    idiom, watch = IDIOMS[it.idiom], Observer(it.seed)
    curve: list[list[float]] = []

    def follow(study: Study, trial: FrozenTrial) -> None:
        complete = trial.state == TrialState.COMPLETE  # without a complete trial there is no best one
        if complete and study.best_trial.number == trial.number:
            curve.append([trial.number + 1, round(watch.truths[trial.number], 9)])

    start = time.perf_counter()
    study = optuna.create_study(
        direction=idiom.direction,
        sampler=create_sampler(it.factory, seed=it.seed, budget=it.trials),
        pruner=idiom.pruner(),
    )
    study.optimize(lambda trial: idiom.play(trial, watch), n_trials=it.trials, callbacks=[follow])
    seconds = time.perf_counter() - start
    trials = study.get_trials(deepcopy=False)
    return {
        "curve": curve,
        "unit": idiom.unit,
        "direction": idiom.direction,
        "trials": len(trials),
        "pruned": sum(trial.state == TrialState.PRUNED for trial in trials),
        "seconds": round(seconds, 3),
        "versions": versions(),
        "machine": this_machine(),
    }


# Comparison ---------------------------------------------------------------------------------------------


Values = dict[str, dict[str, dict[int, float]]]
"""Values found, by idiom, sampler and seed. Smaller is better."""


def values_of(rows: Iterable[Row], at: int) -> Values:
    """Return the value of each study after a number of trials, negated if the study maximizes."""
    from optuna_trlhpo.benchmarks.search.results import regret_at  # needs the extra 'bench'

    values: Values = {}
    for row in rows:
        sign = -1 if row["direction"] == "maximize" else 1
        of_sampler = values.setdefault(row["problem"], {}).setdefault(row["sampler"], {})
        of_sampler[row["seed"]] = sign * regret_at(row["curve"], at)
    return values


def ranks_by_seed(values: Values, samplers: Sequence[str]) -> dict[str, dict[int, float]]:
    """Compute the mean rank of each sampler over the idioms, for each seed.

    The best rank is 1, and equal values share the mean of their ranks. Only seeds with a study of every
    sampler on every idiom count.

    Args:
        values: Values found.
        samplers: Names of the samplers to rank.

    Returns:
        Mean ranks by sampler and seed.

    Examples:
        >>> values = {"a": {"x": {0: 1.0}, "y": {0: 2.0}}, "b": {"x": {0: 3.0}, "y": {0: 3.0}}}
        >>> ranks_by_seed(values, ["x", "y"])
        {'x': {0: 1.25}, 'y': {0: 1.75}}
    """
    from scipy import stats

    studies = [of_idiom.get(name, {}) for of_idiom in values.values() for name in samplers]
    seeds = sorted(set.intersection(*map(set, studies))) if studies else []
    ranks = {
        seed: np.mean(
            [
                stats.rankdata([of_idiom[name][seed] for name in samplers], nan_policy="omit")
                for of_idiom in values.values()
            ],
            axis=0,
        )
        for seed in seeds
    }
    return {name: {seed: float(ranks[seed][i]) for seed in seeds} for i, name in enumerate(samplers)}


def report(rows: Iterable[Row], *, trials: int = defaults.IDIOMS_TRIALS, reference: str = REFERENCE) -> str:
    """Format the rows of one number of trials as tables in Markdown.

    Args:
        rows: Rows of `run`.
        trials: Number of trials of a study.
        reference: Name of the reference sampler.
    """
    rows, failed = latest(rows, {"budget": trials})
    if not rows:
        return f"There is no complete study of {trials} trials.\n{failures_text(failed)}"
    idioms = [name for name in IDIOMS if any(row["problem"] == name for row in rows)]
    samplers = sorted({row["sampler"] for row in rows}, key=_place)
    values = values_of(sorted(rows, key=lambda row: idioms.index(row["problem"])), trials)
    parts = [
        f"True value of the trial with the best observed value after {trials} trials: mean ± standard error "
        "over seeds. (+): larger values are better; (-): smaller values are better.",
        _values_table(rows, values, samplers, reference),
        _ranks_text(rows, idioms, samplers, trials, reference),
        f"{machines_text(rows)}{failures_text(failed)}",
    ]
    return "\n\n".join(parts) + "\n"


def _place(sampler: str) -> tuple[int, str]:
    """Return the sort key of a sampler in a table."""
    names = defaults.IDIOMS_SAMPLERS
    return (names.index(sampler) if sampler in names else len(names)), sampler


def _values_table(rows: Sequence[Row], values: Values, samplers: Sequence[str], reference: str) -> str:
    from optuna_trlhpo.benchmarks.search.results import SIGNIFICANT, Cell, holm, p_text, wilcoxon

    others = [name for name in samplers if name != reference]
    lines = []
    for idiom, of_idiom in values.items():
        sign = -1 if IDIOMS[idiom].direction == "maximize" else 1
        texts = [mean_text(sign * value for value in of_idiom.get(name, {}).values()) for name in samplers]
        told: list[str] = []
        if reference in of_idiom:
            there = [name for name in others if name in of_idiom]
            cells = {name: Cell("study", of_idiom[name]) for name in (reference, *there)}
            corrected = holm([wilcoxon(cells[reference], cells[name]) for name in there])
            for name, p in zip(there, corrected, strict=True):
                if p < SIGNIFICANT:
                    word = "better" if cells[reference].mean < cells[name].mean else "worse"
                    told.append(f"{word} than {name}, {p_text(p)}")
        mark = "+" if sign < 0 else "-"
        lines.append([f"{idiom} ({mark})", *texts, "; ".join(told)])
    return table(["idiom", *samplers, f"{reference} is (Holm-corrected p)"], lines)


def _ranks_text(
    rows: Sequence[Row], idioms: Sequence[str], samplers: Sequence[str], trials: int, reference: str
) -> str:
    """Format the mean ranks over all idioms, half-way and at the end, with their tests."""
    from optuna_trlhpo.benchmarks.search.results import Cell, friedman, holm, p_text, wilcoxon

    everywhere = [
        name
        for name in samplers
        if all(any((row["problem"], row["sampler"]) == (it, name) for row in rows) for it in idioms)
    ]
    marks = sorted({max(trials // 2, 1), trials})
    ranks = {at: ranks_by_seed(values_of(rows, at), everywhere) for at in marks}
    end = ranks[trials]
    n_seeds = len(next(iter(end.values()), {}))
    if len(everywhere) < 2 or not n_seeds:
        return "No two samplers have run on all idioms with a common seed, so there are no ranks."
    others = [name for name in everywhere if name != reference] if reference in everywhere else []
    cells = {name: Cell("study", of_seed) for name, of_seed in end.items()}
    ps = holm([wilcoxon(cells[reference], cells[name]) for name in others])
    p_of = dict(zip(others, ps, strict=True))
    lines = []
    for name in sorted(everywhere, key=lambda name: cells[name].mean):
        seconds = np.mean([row["seconds"] for row in rows if row["sampler"] == name])
        texts = [f"{np.mean(list(ranks[at][name].values())):.2f}" for at in marks]
        p = p_text(p_of[name]) if name in p_of else ""
        lines.append([name, *texts, p, f"{seconds:.1f}"])
    heads = ["sampler", *(f"@{at}" for at in marks), f"p against {reference}", "s per study"]
    with np.errstate(invalid="ignore"):  # undefined if all ranks are equal
        chance = friedman({name: list(of_seed.values()) for name, of_seed in end.items()})
    text = (
        f"Mean rank over {len(idioms)} idioms and {n_seeds} seeds. p: Wilcoxon's signed-rank test of the "
        "mean ranks of each seed, two-sided, with Holm's correction."
    )
    if np.isfinite(chance):
        text += f" Friedman's p that all samplers are equally good: {p_text(chance)}."
    return f"{text}\n\n{table(heads, lines)}"


# Command line -------------------------------------------------------------------------------------------


def handle(arguments: argparse.Namespace) -> int:
    """Run the missing studies and print the tables. Return 1 if a study failed."""
    new = run(
        select("idiom", arguments.idioms, IDIOMS),
        select("sampler", arguments.samplers, SAMPLERS),
        seeds=range(arguments.first_seed, arguments.first_seed + arguments.seeds),
        trials=arguments.trials,
        out=arguments.out,
        jobs=arguments.jobs,
        progress=True,
    )
    text = report(read_rows(arguments.out), trials=arguments.trials)
    print_report(text, arguments.markdown)
    return int(any("error" in row for row in new))
