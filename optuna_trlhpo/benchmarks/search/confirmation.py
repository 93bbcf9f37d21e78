"""Benefit of confirming the leaders of a study: ``python -m optuna_trlhpo.benchmarks confirm``.

The command compares two ways to spend a total of T trainings. In the first, a study spends all of them on the
search and selects the network with the best observed value. In the second, the search stops ``top * repeats``
trainings earlier, trains its ``top`` leaders ``repeats`` more times and selects the one with the best mean.
The measure is the true regret of the selected network.

The second way follows `CNNObjective.confirm`. The leaders are the best networks of their trials, ranked by
their observed values, without duplicates. The mean excludes the observed value, which is biased by the
selection. A tie goes to the network with the better observed value.

No sampler knows the number of remaining trainings. So one study serves both ways and every T, for a prefix of
a study equals a shorter study. The noise of a repeat depends on the study's seed, the network and the index
of the repeat. On a table, a repeat is one of the network's few stored trainings, drawn with replacement, and
the true value is their mean.

A row is the outcome of one study:

==================  =======================================================================================
``problem`` ...     with ``form``, ``sampler``, ``seed``, ``totals``, ``top`` and ``repeats``: the study
``regrets``         regrets of the best observed network and of the confirmed one, for each T of ``totals``
``unit``            unit of the regret
``trainings``       networks trained; fewer than the largest T if the trials ran out first
``seconds``         CPU seconds of the sampler and of Optuna
``versions``        versions of the packages, and ``machine``
``error``           cause of a failure, in place of all fields after ``repeats``
==================  =======================================================================================
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from optuna.trial import Trial

from optuna_trlhpo.benchmarks.harness.rows import Row, check_names, read_rows, this_machine
from optuna_trlhpo.benchmarks.harness.samplers import SamplerFactory, create_sampler
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
"""Offset of the seeds of repeats: repeat r with seed s has (r + 1) * 1,000,000 + s, which no study uses."""


class Look(NamedTuple):
    """Observation of a network's value in a trial."""

    trial: int
    network: str
    quality: float
    """Observed value, signed so that larger is better."""
    trainings: int
    """Number of trainings of the study so far, including this one."""


class _Recorded(Objective):
    """Objective that stores all observations."""

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
    """Return the ``top`` best observed networks, each the best of its trial. Ties keep their order.

    Examples:
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
    """Return the network with the best mean of ``repeats`` new observations, the first one in case of a tie.

    Args:
        problem: Problem of the networks.
        networks: Keys of the networks.
        seed: Random seed of the study.
        repeats: Number of observations of each network.
    """
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
    """Description of one study. It is sent to another process."""

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
    """Run the missing studies of each sampler on each problem with each seed, and store their rows.

    Args:
        problems: Names in `tables.problems`.
        samplers: Names in `harness.samplers.SAMPLERS`, or factories by name.
        seeds: Random seeds of the sampler and of the noise.
        totals: Total numbers of trainings, T; each more than ``top * repeats``.
        top: Number of networks to confirm.
        repeats: Number of trainings of each of them.
        form: Form of all samplers, on problems that have it. None: the `default_form` of each sampler.
        out: Folder of the rows; rows of other commands belong in other folders.
        jobs: Number of processes, each with one thread.
        data_root: See `tables.problems`.
        progress: Whether to show a progress bar.

    Returns:
        The new rows.

    Raises:
        ValueError: For an unknown name or a number out of range.
        ImportError: If a package is missing, before the first study.
        FileNotFoundError: If the file of a problem is missing, before the first study.
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
    for seed in seeds:  # the outermost loop, so that the rows are balanced at any time
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
    measured = runner.measure(objective, create_sampler(it.factory, seed=it.seed, budget=budget), budget)
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
        "machine": this_machine(),
    }


# Report ------------------------------------------------------------------------------------------------


def report(
    rows: Iterable[Row],
    *,
    totals: Sequence[int] = defaults.TOTALS,
    top: int = defaults.TOP,
    repeats: int = defaults.REPEATS,
) -> str:
    """Format the rows of one setting as a table in Markdown for each problem.

    The table compares the best observed and the confirmed network over paired seeds, by the difference of
    their regrets and by Wilcoxon's signed-rank test (two-sided, p after Holm over the lines of the table).

    Args:
        rows: Rows of `run`.
        totals: Total numbers of trainings.
        top: Number of confirmed networks.
        repeats: Number of trainings of each of them.
    """
    from optuna_trlhpo.benchmarks.search.results import Cell, holm, wilcoxon  # needs the extra 'bench'

    rows, failed = latest(rows, {"totals": list(totals), "top": top, "repeats": repeats})
    if not rows:
        return f"There is no complete study with {list(totals)} trainings, top {top} and {repeats} repeats.\n"
    text = (
        "Regret of the best observed network after T trainings, and of the confirmed network: the one with "
        f"the best mean of {repeats} new trainings among the {top} best observed after T - {top * repeats}. "
        "Mean ± standard error over seeds; a negative difference favours confirmation. p: Wilcoxon's "
        "two-sided signed-rank test, with Holm's correction over the lines of a table.\n\n"
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
    """Run the missing studies and print the tables. Return 1 if a study failed."""
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
