"""What confirming the leaders of a study is worth: ``python -m optuna_trlhpo.benchmarks confirm``.

Of T trainings in all, a study can spend every one on the search and take the network with the best observed
value. Or it stops ``top * repeats`` trainings before, observes its ``top`` leaders ``repeats`` more times and
takes the one with the best mean. Both are judged by the true regret of the network they take.

The second follows `CNNObjective.confirm`: the leaders are the networks with the best observed values, each
the best of a trial, equal networks counted once; the mean is that of the repeats alone, for the observed
value was selected for being high. Of equal means the one that was observed better counts.

No sampler knows how many trainings are left, so one study serves both and every T: what it had found after so
many trainings is what a study cut short would have found. A repeat has noise of its own, fixed by the study's
seed, the network and the repeat. On a table a repeat is one of the network's few stored trainings, drawn with
replacement, and the true value is their mean.

A row is the outcome of one study:

==================  =======================================================================================
``problem`` ...     with ``form``, ``sampler``, ``seed``, ``totals``, ``top`` and ``repeats``: which study
``regrets``         for each T of ``totals`` that of the best observed network, and that of the confirmed one
``unit``            of the regret
``trainings``       networks trained; fewer than the largest T where the trials ran out first
``seconds``         CPU seconds of the sampler, and Optuna's
``versions``        and ``machine``: what ran
``error``           in place of all after ``repeats``: why the study failed
==================  =======================================================================================
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from optuna.trial import Trial

from optuna_trlhpo.benchmarks.harness.rows import Row, check_names, read_rows
from optuna_trlhpo.benchmarks.harness.samplers import SamplerFactory
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
from optuna_trlhpo.benchmarks.problems import tables
from optuna_trlhpo.benchmarks.problems.problem import Evaluator, Form, Objective, Problem
from optuna_trlhpo.benchmarks.search import defaults, runner
from optuna_trlhpo.benchmarks.search.real_training import default_form

_REPEAT_SEEDS = 1_000_000
"""Repeat r of a study with seed s has the noise of seed (r + 1) * 1,000,000 + s, which no study has."""


class Look(NamedTuple):
    """A trial asked what a network is worth."""

    trial: int
    network: str
    quality: float
    """What was observed; larger is better."""
    trainings: int
    """Of the study, this one included."""


class _Recorded(Objective):
    """Keeps all looks."""

    def __init__(self, problem: Problem, form: Form, evaluator: Evaluator) -> None:
        super().__init__(problem, form, evaluator)
        self.looks: list[Look] = []

    def __call__(self, trial: Trial) -> float:
        def train(network: str) -> float:
            value = self.evaluator.train(network)
            quality = _quality(self.problem, value)
            self.looks.append(Look(trial.number, network, quality, self.evaluator.trainings))
            return value

        return self.problem.play(self.form, trial, train)


def leaders(looks: Iterable[Look], top: int) -> list[str]:
    """The ``top`` best observed networks, each the best of a trial; of equals the earliest first.

    Example:
        >>> leaders([Look(0, "a", 0.7, 1), Look(0, "ab", 0.9, 2), Look(1, "b", 0.8, 3)], 5)
        ['ab', 'b']
    """
    best_of_trial: dict[int, Look] = {}
    for look in looks:
        if look.trial not in best_of_trial or look.quality > best_of_trial[look.trial].quality:
            best_of_trial[look.trial] = look
    ranked = sorted(best_of_trial.values(), key=lambda look: -look.quality)
    return list(dict.fromkeys(look.network for look in ranked))[:top]


def confirmed(problem: Problem, networks: Sequence[str], *, seed: int, repeats: int) -> str:
    """The network with the best mean of ``repeats`` new observations; of equals the first."""
    evaluators = [
        Evaluator(problem, (repeat + 1) * _REPEAT_SEEDS + seed, budget=len(networks))
        for repeat in range(repeats)
    ]

    def mean(network: str) -> float:
        values = [_quality(problem, evaluator.train(network)) for evaluator in evaluators]
        return round(float(np.mean(values)), 9)

    return max(networks, key=mean)


def _quality(problem: Problem, value: float) -> float:
    return value if problem.direction == "maximize" else -value


# Studies -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _ConfirmationRun:
    """One study to be run; it is sent to another process."""

    problem: str
    form: Form
    sampler: str
    seed: int
    totals: tuple[int, ...]
    top: int
    repeats: int
    factory: SamplerFactory
    data_root: str | Path | None

    @property
    def key(self) -> Row:
        names = ("problem", "form", "sampler", "seed", "top", "repeats")
        return {"totals": list(self.totals), **{name: getattr(self, name) for name in names}}


def run(
    problems: Sequence[str] = defaults.CONFIRMED_PROBLEMS,
    samplers: Mapping[str, SamplerFactory] | Sequence[str] = defaults.CONFIRMED_SAMPLERS,
    *,
    seeds: Iterable[int],
    totals: Sequence[int] = defaults.TOTALS,
    top: int = defaults.TOP,
    repeats: int = defaults.REPEATS,
    form: Form | None = None,
    out: str | Path = "confirmation-rows",
    jobs: int = 1,
    data_root: str | Path | None = None,
    progress: bool = False,
) -> list[Row]:
    """Run each sampler on each problem with each seed, unless that has been done, and keep a row of each.

    Args:
        problems: Names out of `tables.problems`.
        samplers: Names out of `harness.samplers.SAMPLERS`, or factories by names of their own.
        seeds: Of the sampler and of the noise alike.
        totals: Trainings in all, T; each more than ``top * repeats``.
        top: Networks that are confirmed.
        repeats: Trainings of each.
        form: Of all samplers, where a problem has it; None: of each its `default_form`, likewise.
        out: The folder of the rows; those of the runner belong in another one.
        jobs: Processes, each with one thread.
        data_root: See `tables.problems`.
        progress: Whether to show a bar.

    Returns:
        The rows that this call has added.

    Raises:
        ValueError: For an unknown name or a number out of range.
        ImportError, FileNotFoundError: Before the first study, if a problem or a sampler lacks something.
    """
    check_names("problem", problems, tables.problems())
    check_positive(top=top, repeats=repeats, jobs=jobs)
    if not totals or min(totals) <= top * repeats:
        raise ValueError(
            f"totals are {list(totals)}; each must be more than top * repeats, {top * repeats} trainings"
        )
    factories = check_samplers(samplers)
    forms = {name: tables.load(name, data_root).forms for name in problems} if factories else {}
    runs = []
    for seed in seeds:  # outermost, so that what is there at any time is balanced
        for name in forms:
            for sampler, factory in factories.items():
                wanted = form or default_form(sampler)
                played = wanted if wanted in forms[name] else forms[name][0]
                it = _ConfirmationRun(
                    name, played, sampler, seed, tuple(totals), top, repeats, factory, data_root
                )
                runs.append(it)
    return collect(_study, runs, out=out, jobs=jobs, progress=progress)


def _study(it: _ConfirmationRun) -> Row:
    problem = tables.load(it.problem, it.data_root)
    budget = max(it.totals)
    objective = _Recorded(problem, it.form, Evaluator(problem, it.seed, budget))
    measured = runner.measure(objective, it.factory(seed=it.seed), budget)
    regrets = []
    for total in it.totals:
        searched = [look for look in objective.looks if look.trainings <= total]
        shorter = [look for look in searched if look.trainings <= total - it.top * it.repeats]
        chosen = confirmed(problem, leaders(shorter, it.top), seed=it.seed, repeats=it.repeats)
        pair = problem.regret(leaders(searched, 1)[0]), problem.regret(chosen)
        regrets.append([round(float(regret), 9) for regret in pair])
    return {
        "regrets": regrets,
        "unit": problem.unit,
        "trainings": measured["trainings"],
        "seconds": measured["seconds"],
        "versions": measured["versions"],
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
    }


# Report ------------------------------------------------------------------------------------------------


def report(
    rows: Iterable[Row],
    *,
    totals: Sequence[int] = defaults.TOTALS,
    top: int = defaults.TOP,
    repeats: int = defaults.REPEATS,
) -> str:
    """The rows of one setting: for each problem a table in Markdown.

    Best observed and confirmed are compared seed by seed, by the difference of their regrets and by
    Wilcoxon's signed-rank test (two-sided, p after Holm over the lines of the table).
    """
    from optuna_trlhpo.benchmarks.search.results import Cell, holm, wilcoxon  # needs the extra 'bench'

    rows, failed = latest(rows, {"totals": list(totals), "top": top, "repeats": repeats})
    if not rows:
        return f"There is no whole study with {list(totals)} trainings, top {top} and {repeats} repeats.\n"
    text = (
        "Regret of the best observed network after T trainings, and of the network that is best by the mean "
        f"of {repeats} new trainings, out of the {top} best observed after T - {top * repeats}. Mean ± "
        "standard error over seeds; a difference below 0 speaks for confirming. p: Wilcoxon's signed-rank "
        "test, two-sided, after Holm over the lines of a table.\n\n"
    )
    for name in dict.fromkeys(row["problem"] for row in rows):
        here = [row for row in rows if row["problem"] == name]
        lines, ps = [], []
        for sampler, form in dict.fromkeys((row["sampler"], row["form"]) for row in here):
            studies = [row for row in here if (row["sampler"], row["form"]) == (sampler, form)]
            for i, total in enumerate(totals):
                pairs = np.array([row["regrets"][i] for row in studies])  # [seeds, 2]
                observed, confirmed_ = (Cell(form, dict(enumerate(column))) for column in pairs.T)
                ps.append(wilcoxon(confirmed_, observed))
                gained = (pairs[:, 1] - pairs[:, 0]).round(9)
                counts = [int(np.sum(gained < 0)), int(np.sum(gained == 0)), int(np.sum(gained > 0))]
                lines.append(
                    [sampler, form, str(len(studies)), str(total)]
                    + [mean_text(pairs[:, 0]), mean_text(pairs[:, 1]), mean_text(gained, "+")]
                    + [" / ".join(map(str, counts))]
                )
        heads = ["sampler", "form", "seeds", "T", "best observed", "confirmed", "difference"]
        heads += ["better / same / worse", "p"]
        lines = [[*line, f"{p:.3f}"] for line, p in zip(lines, holm(ps), strict=True)]
        text += f"## {name}, regret in {here[0]['unit']}\n\n{table(heads, lines)}\n\n"
    return text + machines_text(rows) + "\n" + failures_text(failed)


# Command line ------------------------------------------------------------------------------------------


def handle(arguments: argparse.Namespace) -> int:
    """Run what is missing and print the tables; 1 if a study failed."""
    check_positive(seeds=arguments.seeds)
    setting = {"totals": arguments.totals, "top": arguments.top, "repeats": arguments.repeats}
    new = run(
        arguments.problems,
        arguments.samplers,
        seeds=range(arguments.seeds),
        form=arguments.form,
        out=arguments.out,
        jobs=arguments.jobs,
        data_root=arguments.data_root,
        progress=True,
        **setting,
    )
    print(report(read_rows(arguments.out), **setting))
    return int(any("error" in row for row in new))
