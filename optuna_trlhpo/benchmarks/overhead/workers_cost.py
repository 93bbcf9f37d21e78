"""What a trial costs each of many workers: ``python -m optuna_trlhpo.benchmarks workers-cost``.

Workers of one study take turns in one thread, a training at a time; trainings take no time here, but their
simulated lengths decide whose turn it is. Some workers are measured. Each of these has a sampler of its own
and a `RemoteStorage`. The others share a sampler; they are there so that the study grows, and has as many
running trials, as with so many workers. The trials before the measurement are random.

Times are those of the processor, which other work on the machine does not lengthen. The report adds the
latency of the storage, once for each call.

A row is the outcome of one simulation:

====================  =====================================================================================
``problem`` ...       with ``form``, ``sampler``, ``seed``, ``trials`` and ``workers``
``calls``             calls to the storage a trial, by method
``written``           bytes that the worker sends a trial
``read``              bytes of trials that the worker receives a trial
``stored``            bytes of the sampler's attributes of a finished trial
``suggestion``        seconds that the sampler computes for a parameter
``suggestion_calls``  its calls to the storage for a parameter
``spent``             seconds that all of a trial computes besides trainings
``joining``           seconds that a new sampler computes until it has learned the study and made a suggestion
``measured``          number of measured trials, of which all of this but ``joining`` is the mean
``versions``          versions of the packages, and ``machine``
``error``             cause of a failure, in place of all fields after ``workers``
====================  =====================================================================================
"""

from __future__ import annotations

import argparse
import functools
import heapq
import itertools
import json
import pickle
import statistics
import time
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from optuna_trlhpo.benchmarks.harness.command_line import print_report, select
from optuna_trlhpo.benchmarks.harness.rows import Row, check_names, read_rows, this_machine, versions
from optuna_trlhpo.benchmarks.harness.samplers import SAMPLERS, create_sampler
from optuna_trlhpo.benchmarks.harness.studies import (
    check_positive,
    collect,
    failures_text,
    machines_text,
    matches,
    table,
)
from optuna_trlhpo.benchmarks.overhead.remote_storage import RemoteStorage
from optuna_trlhpo.benchmarks.problems.synthetic import played, synthetic_layers, synthetic_turns

MEASURED = 4
"""Number of workers that are measured, if there are as many."""
TRIALS = 12
"""Number of measured trials of all of them at least."""

_STUDY = "workers-cost"
_PROBLEM = {"problem": "synthetic-layers", "form": "progressive"}


@dataclass(frozen=True)
class _WorkersRun:
    sampler: str
    seed: int
    trials: int
    workers: int

    @property
    def key(self) -> Row:
        names = "sampler", "seed", "trials", "workers"
        return {**_PROBLEM, **{name: getattr(self, name) for name in names}}


class _Snapshot(NamedTuple):
    """A study, and a sampler that has learned it."""

    storage: bytes
    """The pickled storage."""
    sampler: bytes
    """The pickled sampler."""
    joining: float
    """Seconds until its first suggestion."""


class TimedSampler(BaseSampler):
    """A sampler that adds up the time that another one takes, and its calls to the storage.

    Args:
        sampler: The other one. It finds the hooks of a `LayerSpace` by itself (`space.sampler_hooks`).
        storage: The storage. None: calls are not counted.

    Attributes:
        seconds: Time of the processor for all calls of the sampler since the last reset.
        calls: Number of calls to the storage meanwhile.
    """

    def __init__(self, sampler: BaseSampler, storage: RemoteStorage | None = None) -> None:
        self._sampler, self._storage = sampler, storage
        self.reset()

    def reset(self) -> None:
        """Count from zero."""
        self.seconds = 0.0
        self.calls = 0

    def _timed(self, name: str, *arguments: Any) -> Any:
        begin, calls = self._now()
        value = getattr(self._sampler, name)(*arguments)
        end, calls_then = self._now()
        self.seconds += end - begin
        self.calls += calls_then - calls
        return value

    def _now(self) -> tuple[float, int]:
        """Return the time of the processor, without that of counting bytes, and the calls to the storage."""
        if self._storage is None:
            return time.thread_time(), 0
        return time.thread_time() - self._storage.bookkeeping, sum(self._storage.calls.values())

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Forward the call."""
        self._timed("before_trial", study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Forward the call."""
        space: dict[str, BaseDistribution] = self._timed("infer_relative_search_space", study, trial)
        return space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Forward the call."""
        values: dict[str, Any] = self._timed("sample_relative", study, trial, search_space)
        return values

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Forward the call."""
        return self._timed("sample_independent", study, trial, param_name, param_distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Forward the call."""
        self._timed("after_trial", study, trial, state, values)


class _Cost(NamedTuple):
    """What one trial has cost its worker."""

    calls: Counter[str]
    written: int
    read: int
    stored: int
    suggestion: float
    suggestion_calls: float
    spent: float


class _Worker:
    """A worker whose trials pause at each training. With a `RemoteStorage` it counts what they cost."""

    def __init__(self, storage: BaseStorage, sampler: BaseSampler, seed: int) -> None:
        self.costs: list[_Cost] = []
        self._remote = storage if isinstance(storage, RemoteStorage) else None
        self._sampler = TimedSampler(sampler, self._remote)
        self._study = optuna.load_study(study_name=_STUDY, storage=storage, sampler=self._sampler)
        self._play = synthetic_turns(seed)
        self._running: tuple[Trial, Generator[None, None, float]] | None = None
        self._seconds = 0.0

    def turn(self) -> None:
        """Work until the next training, or the end of the trial."""
        begin = time.thread_time()
        if self._running is None:
            self._seconds = 0.0
            self._sampler.reset()
            if self._remote is not None:
                self._remote.reset()
            trial = self._study.ask()
            self._running = trial, self._play(trial)
        trial, turns = self._running
        try:
            next(turns)
        except StopIteration as end:
            finished = self._study.tell(trial, end.value)
            self._running = None
        self._seconds += time.thread_time() - begin
        if self._running is None and self._remote is not None:
            self.costs.append(self._cost(self._remote, finished))

    def _cost(self, remote: RemoteStorage, trial: FrozenTrial) -> _Cost:
        return _Cost(
            calls=remote.calls.copy(),
            written=remote.written,
            read=remote.read,
            stored=sum(len(json.dumps(item)) for item in trial.system_attrs.items()),
            suggestion=self._sampler.seconds / len(trial.params),
            suggestion_calls=self._sampler.calls / len(trial.params),
            spent=self._seconds - remote.bookkeeping,
        )


# Running ------------------------------------------------------------------------------------------------


def run(
    *,
    samplers: Sequence[str],
    workers: Sequence[int],
    trials: Sequence[int],
    out: str | Path,
    seed: int = 0,
    progress: bool = False,
) -> list[Row]:
    """Run the missing simulations.

    Args:
        samplers: Names in `harness.samplers.SAMPLERS`.
        workers: Numbers of workers.
        trials: Lengths of the study.
        out: Folder of the rows.
        seed: Random seed of the sampler, the noise and the turns.
        progress: Whether to show a progress bar.

    Returns:
        The new rows.
    """
    check_names("sampler", samplers, SAMPLERS)
    check_positive(workers=min(workers), trials=min(trials))
    runs = [
        _WorkersRun(sampler, seed, length, number)
        for sampler, length, number in itertools.product(samplers, trials, workers)
    ]
    return collect(_simulate, runs, out=out, progress=progress)


@functools.lru_cache(maxsize=1)
def _learned(name: str, seed: int, trials: int) -> _Snapshot:
    """Return a study of so many random trials, with one more of a sampler that has learned them."""
    storage, sampler = InMemoryStorage(), create_sampler(SAMPLERS[name], seed=seed, budget=trials)
    study = optuna.create_study(
        study_name=_STUDY, storage=storage, direction="maximize", sampler=RandomSampler(seed)
    )
    study.optimize(synthetic_layers(seed), n_trials=trials)
    study.sampler = timed = TimedSampler(sampler)
    trial = study.ask()
    turns = synthetic_turns(seed)(trial)
    next(turns)
    joining = timed.seconds
    study.tell(trial, played(turns))
    return _Snapshot(pickle.dumps(storage), pickle.dumps(sampler), joining)


def _simulate(it: _WorkersRun) -> Row:
    snapshot = _learned(it.sampler, it.seed, it.trials)
    storage, shared = pickle.loads(snapshot.storage), pickle.loads(snapshot.sampler)
    measured = [
        _Worker(RemoteStorage(storage), pickle.loads(snapshot.sampler), it.seed)
        for _ in range(min(it.workers, MEASURED))
    ]
    others = [_Worker(storage, shared, it.seed) for _ in range(it.workers - len(measured))]
    everyone = measured + others
    rng = np.random.default_rng(it.seed)
    turns = [(float(rng.random()), k) for k in range(it.workers)]
    heapq.heapify(turns)
    # The first trial of a worker reads the whole study, and has nothing new to learn.
    n_trials = 1 + -(-TRIALS // len(measured))
    while any(len(worker.costs) < n_trials for worker in measured):
        now, k = heapq.heappop(turns)
        everyone[k].turn()
        heapq.heappush(turns, (now + float(rng.lognormal(sigma=0.5)), k))  # the training
    costs = [cost for worker in measured for cost in worker.costs[1:n_trials]]
    methods = sorted({method for cost in costs for method in cost.calls})
    return {
        "calls": {method: _mean(cost.calls[method] for cost in costs) for method in methods},
        **{
            name: _mean(getattr(cost, name) for cost in costs)
            for name in ("written", "read", "stored", "suggestion", "suggestion_calls", "spent")
        },
        "joining": snapshot.joining,
        "measured": len(costs),
        "versions": versions(),
        "machine": this_machine(),
    }


def _mean(numbers: Iterable[float]) -> float:
    return round(statistics.fmean(numbers), 6)


# Report -------------------------------------------------------------------------------------------------


def report(rows: Iterable[Row], *, latencies: Sequence[int], seed: int = 0) -> str:
    """Format the rows as two tables in Markdown: calls and bytes, and seconds.

    Args:
        rows: Rows in the order of their files.
        latencies: Milliseconds that each call to the storage takes.
        seed: The seed that the rows must have.
    """
    whole: dict[tuple[str, int, int], Row] = {}
    failures: dict[tuple[str, int, int], Row] = {}
    for row in rows:
        if matches(row, {**_PROBLEM, "seed": seed}):
            (failures if "error" in row else whole)[row["sampler"], row["trials"], row["workers"]] = row
    failed = failures_text([row for cell, row in failures.items() if cell not in whole])
    if not whole:
        return f"There is no complete simulation.\n{failed}"
    calls, seconds = [], []
    for (sampler, trials, workers), row in sorted(whole.items()):
        head = [sampler, f"{trials:,}", str(workers)]
        total, reads = sum(row["calls"].values()), row["calls"].get("get_all_trials", 0.0)
        sizes = [f"{row[name] / 1000:.1f}" for name in ("stored", "written", "read")]
        calls.append([*head, f"{total:.0f}", f"{reads:.0f}", *sizes])
        suggestions = [1000 * row["suggestion"] + row["suggestion_calls"] * ms for ms in (0, *latencies)]
        spent = [row["spent"] + total * ms / 1000 for ms in (0, *latencies)]
        seconds.append(
            [
                *head,
                " / ".join(f"{number:.1f}" for number in suggestions),
                " / ".join(f"{number:.2f}" for number in spent),
                f"{row['joining']:.1f}",
            ]
        )
    first = ["sampler", "trials", "workers"]
    columns = [*first, "calls", "of them, reads of trials", "kB stored", "kB written", "kB read"]
    each = " / ".join(map(str, (0, *latencies)))
    return (
        "Calls to the storage and bytes a trial of one worker, means. Stored are the attributes of the "
        f"sampler.\n\n{table(columns, calls)}\n\n"
        f"Time of one worker, means, where each call to the storage takes {each} ms. The time of a trial "
        "is that of the sampler, of Optuna and of all calls, without trainings. To join is the time until a "
        "new sampler has learned the study and made a suggestion.\n\n"
        f"{table([*first, 'a suggestion, ms', 'a trial, s', 'to join, s'], seconds)}\n\n"
        f"{min(row['measured'] for row in whole.values())} trials or more a line; time of the processor, and "
        f"calls times latency. {machines_text(whole.values())}\n{failed}"
    )


def handle(arguments: argparse.Namespace) -> int:
    """Run the missing simulations and print the tables. Return 1 if one failed."""
    new = run(
        samplers=select("sampler", arguments.samplers, SAMPLERS),
        workers=arguments.workers,
        trials=arguments.trials,
        out=arguments.out,
        seed=arguments.seed,
        progress=True,
    )
    text = report(read_rows(arguments.out), latencies=arguments.latencies, seed=arguments.seed)
    print_report(text, arguments.markdown)
    return int(any("error" in row for row in new))
