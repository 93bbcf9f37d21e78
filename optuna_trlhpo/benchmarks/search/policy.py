"""Whether the policy of the paper's agent improves: ``python -m optuna_trlhpo.benchmarks policy``.

`TRLHPOSampler.paper()` with its published settings grows six layers of Table I with a computed accuracy
(`synthetic_layers`). Random search plays the same study.

A row is the outcome of one study. ``budget`` is its number of trials, T.

=================  ========================================================================================
``first``          mean value of the first fifth of the trials
``last``           mean value of the last two fifths
``best``           best value
``random``         best value of random search
``distinct``       share of different networks among the trials after exploration, the last three fifths
``kind_deviation`` standard deviation of the layer kind, as an action in [0, 1], that the policy prefers in
                   32 states of the study's trials, drawn at random
``seconds``        wall-clock seconds of the agent's study
``versions``       versions of the packages, and ``machine``
=================  ========================================================================================
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from optuna.study import Study

from optuna_trlhpo.benchmarks.harness.command_line import print_report
from optuna_trlhpo.benchmarks.harness.rows import Row, read_rows, this_machine, versions
from optuna_trlhpo.benchmarks.harness.studies import (
    check_positive,
    collect,
    failures_text,
    latest,
    machines_text,
    table,
)
from optuna_trlhpo.benchmarks.problems.synthetic import synthetic_layers
from optuna_trlhpo.layers.bins import middle_of
from optuna_trlhpo.sampler import TRLHPOSampler
from optuna_trlhpo.trials.attributes import report_marks
from optuna_trlhpo.trials.episode import read_episode

_STATES = 32


@dataclass(frozen=True)
class _Run:
    seed: int
    trials: int

    @property
    def key(self) -> Row:
        return {
            "problem": "synthetic-layers",
            "form": "progressive",
            "sampler": "paper",
            "seed": self.seed,
            "budget": self.trials,
        }


def preferred_kinds(study: Study, sampler: TRLHPOSampler, rng: np.random.Generator, n: int) -> np.ndarray:
    """Kinds ``[n]`` that the actor prefers in random states of the study's trials, as actions in [0, 1].

    The state is that of a random trial before a random layer. There is no noise.

    Args:
        study: Study of a `LayerSpace`.
        sampler: Sampler of the study, whose agent is the paper's.
        rng: Random generator.
        n: Number of states.
    """
    networks = sampler.agent.networks
    assert networks.ddpg is not None
    trials, kinds = study.get_trials(deepcopy=False), np.zeros(n)
    for i in range(n):
        trial = trials[rng.integers(len(trials))]
        episode = read_episode(trial, report_marks(trial))
        step = int(rng.integers(len(episode)))
        slot = episode.slots[step][0]
        weights = networks.weights(trial.number)
        query = networks.transitions.query([slot], np.zeros(0), weights)
        _, kind = networks.ddpg.act(networks.transitions.state(episode.first(step), weights), query)
        kinds[i] = middle_of(kind, slot.n_values)
    return kinds


def run(
    *, seeds: Iterable[int], trials: int, out: str | Path, jobs: int = 1, progress: bool = False
) -> list[Row]:
    """Run the missing studies.

    Args:
        seeds: Random seeds of the studies.
        trials: Number of trials of a study, T.
        out: Folder of the rows.
        jobs: Number of processes, each with one thread.
        progress: Whether to show a progress bar.

    Returns:
        The new rows.
    """
    check_positive(trials=trials, jobs=jobs)
    runs = [_Run(seed, trials) for seed in seeds]
    return collect(_play, runs, out=out, jobs=jobs, progress=progress)


def play(seed: int, *, trials: int) -> Row:
    """Run one study, and return the fields of its row after the key."""
    n = trials
    n_exploration = 2 * n // 5  # the default, 200, of the usual 500
    sampler = TRLHPOSampler.paper(
        seed=seed, n_exploration_trials=n_exploration, warn_independent_sampling=False
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    start = time.perf_counter()
    study.optimize(synthetic_layers(seed), n_trials=n)
    seconds = time.perf_counter() - start
    at_random = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed))
    at_random.optimize(synthetic_layers(seed), n_trials=n)
    values = np.array([trial.values[0] for trial in study.trials])
    networks = [tuple(trial.params.items()) for trial in study.trials[n_exploration:]]
    return {
        "first": float(values[: n // 5].mean()),
        "last": float(values[3 * n // 5 :].mean()),
        "best": float(values.max()),
        "random": at_random.best_value,
        "distinct": len(set(networks)) / len(networks),
        "kind_deviation": float(preferred_kinds(study, sampler, np.random.default_rng(seed), _STATES).std()),
        "seconds": round(seconds, 1),
        "versions": versions(),
        "machine": this_machine(),
    }


def _play(run: _Run) -> Row:
    return play(run.seed, trials=run.trials)


def report(rows: Iterable[Row], *, trials: int, seeds: Sequence[int]) -> str:
    """Format the rows of one number of trials as a table in Markdown, with a test against random search."""
    from scipy.stats import wilcoxon

    rows, failed = latest(rows, {"budget": trials})
    rows = sorted((row for row in rows if row["seed"] in seeds), key=lambda row: row["seed"])
    if not rows:
        return f"There is no complete study of {trials} trials.\n{failures_text(failed)}"
    names = ("first", "last", "best", "random", "distinct", "kind_deviation", "seconds")
    lines = [
        [str(row["seed"]), *(f"{row[name]:.3f}" for name in names[:-1]), f"{row['seconds']:.0f}"]
        for row in rows
    ]
    p = wilcoxon([row["best"] for row in rows], [row["random"] for row in rows], alternative="greater").pvalue
    n_better = sum(row["last"] > row["first"] for row in rows)
    parts = [
        f"The paper's agent on `synthetic_layers`, {trials} trials. Mean value of the first fifth and of the "
        "last two fifths of the trials; best value, and that of random search; share of different networks "
        "after exploration; deviation of the preferred kind over 32 states; seconds of a study.",
        table(["seed", "first", "last", "best", "random", "distinct", "kind", "s"], lines),
        f"The mean rose in {n_better} of {len(rows)} studies. Best value above that of random search: "
        f"p = {p:.3f} (Wilcoxon's signed-rank test, one-sided).",
        f"{machines_text(rows)}{failures_text(failed)}",
    ]
    return "\n\n".join(parts) + "\n"


def handle(arguments: argparse.Namespace) -> int:
    """Run the missing studies and print the table. Return 1 if a study failed."""
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    new = run(seeds=seeds, trials=arguments.trials, out=arguments.out, jobs=arguments.jobs, progress=True)
    print_report(report(read_rows(arguments.out), trials=arguments.trials, seeds=seeds), arguments.markdown)
    return int(any("error" in row for row in new))
