"""Processor time that the sampler takes per suggestion and per trial, for studies of different lengths."""

from __future__ import annotations

import argparse
import functools
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import optuna
import psutil
import torch
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_trlhpo.benchmarks.harness.rows import this_machine
from optuna_trlhpo.benchmarks.problems.synthetic import depths, synthetic_layers
from optuna_trlhpo.sampler import TRLHPOSampler

WINDOW = 20
"""Number of trials measured at each length of the study."""


class _Stopwatch(TRLHPOSampler):
    """Sampler that times its suggestions. The first one of a trial includes learning from earlier trials."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.seconds: dict[int, list[float]] = {}
        self.decisions: dict[int, float] = {}  # by trial: seconds in which it decided what to train

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        start = time.process_time()
        value = super().sample_independent(study, trial, param_name, param_distribution)
        self.seconds.setdefault(trial.number, []).append(time.process_time() - start)
        return value

    def worth_training(self, study: Study, trial: FrozenTrial, **depths: int) -> bool:
        """Decide as usual."""
        return self._timed(trial, functools.partial(super().worth_training, study, trial, **depths))

    def worth_growing(self, study: Study, trial: FrozenTrial) -> bool:
        """Decide as usual."""
        return self._timed(trial, functools.partial(super().worth_growing, study, trial))

    def _timed(self, trial: FrozenTrial, decide: Callable[[], bool]) -> bool:
        start = time.process_time()
        decision = decide()
        spent = self.decisions.get(trial.number, 0.0)
        self.decisions[trial.number] = spent + time.process_time() - start
        return decision


class Overhead(NamedTuple):
    """Times of the sampler in a study of ``trials`` trials, in seconds of the processor."""

    trials: int
    suggestion: float
    """Median of all suggestions except the first of each trial."""
    planning: float
    """95th percentile of these suggestions, those at which the agent plans a layer."""
    learning: float
    """Median of the first suggestions of the trials, which learn from the trial before."""
    training: float
    """Median over the trials of all time in the sampler, divided by the trained networks, at least one."""
    megabytes: float
    """Memory by which the process has grown with the sampler, besides the trials that were added."""


OBJECTIVES = ("layers", "depths")
"""Objectives to measure with: layers of a `LayerSpace`, each reported; or a depth with widths and shares."""


def measure_overhead(lengths: list[int], *, objective: str = "layers", seed: int = 0) -> list[Overhead]:
    """Measure the sampler at several lengths of one study.

    The trials between these lengths are random trials that are added to the study, so that a long study takes
    minutes. The sampler learns from all of them before it is measured.

    Args:
        lengths: Lengths of the study.
        objective: One of `OBJECTIVES`.
        seed: Random seed.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    play = {"layers": synthetic_layers(seed), "depths": depths}[objective]
    filler = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed))
    filler.optimize(play, n_trials=max(lengths))
    sampler = _Stopwatch(seed=seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    rows, process, megabytes = [], psutil.Process(), 0.0
    for length in sorted(lengths):
        n_missing = max(length - len(study.get_trials(deepcopy=False)) - 1, 0)
        study.add_trials(filler.get_trials(deepcopy=False)[:n_missing])
        before = process.memory_info().rss
        # The first trial learns from the added ones and is not measured.
        study.optimize(play, n_trials=1 + WINDOW)
        megabytes += (process.memory_info().rss - before) / 1e6
        numbers = sorted(sampler.seconds)[-WINDOW:]
        measured = [sampler.seconds[number] for number in numbers]
        trials = study.get_trials(deepcopy=False)
        suggestions = [seconds for trial in measured for seconds in trial[1:]]
        rows.append(
            Overhead(
                trials=length,
                suggestion=statistics.median(suggestions),
                planning=statistics.quantiles(suggestions, n=20)[-1],
                learning=statistics.median(trial[0] for trial in measured),
                training=statistics.median(
                    (sum(sampler.seconds[number]) + sampler.decisions.get(number, 0.0))
                    / max(len(trials[number].intermediate_values), 1)
                    for number in numbers
                ),
                megabytes=megabytes,
            )
        )
    return rows


def main(lengths: list[int], objective: str) -> None:
    """Print the measurement as a table, on one thread."""
    torch.set_num_threads(1)
    print(
        f"{this_machine()}, one thread; Python "
        f"{platform.python_version()}, torch {torch.__version__}, optuna {optuna.__version__}; "
        f"medians over {WINDOW} trials of {objective!r}"
    )
    print(
        f"{'trials':>7}  {'suggestion':>12}  {'95 % of them':>12}  {'first of a trial, with learning':>32}  "
        f"{'all, per training':>18}  {'memory':>8}"
    )
    for row in measure_overhead(lengths, objective=objective):
        print(
            f"{row.trials:>7}  {1000 * row.suggestion:>9.2f} ms  {1000 * row.planning:>9.2f} ms  "
            f"{1000 * row.learning:>29.1f} ms  {1000 * row.training:>15.1f} ms  {row.megabytes:>5.0f} MB"
        )


def handle(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    main(arguments.trials, arguments.objective)
    return 0
