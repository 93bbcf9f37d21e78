"""Table II of the paper with real trainings: ``python -m optuna_trlhpo.benchmarks table2``.

Each sampler searches networks of `CNNObjective.paper()`, whose layers are those of Table I, on MNIST. For
samplers that need reports, each trial trains and reports its network layer by layer; for the others, it
trains the network once. The split of the images and the initial weights depend on the seed of the study and
not on the sampler.

The cost is the number of networks trained; a network that the study has trained before is free. A study
ends with the trial that reaches its budget. Its trials are kept in ``OUT/studies``, and an interrupted study
goes on from its last finished trial.

A row is the outcome of one study:

==================== =====================================================================================
``problem`` ...      dataset, with ``form``, ``sampler``, ``seed``, ``scale`` and ``budget`` in trainings
``curve``            pairs ``[trainings, accuracy]``, one for each change of the best network
``models``           ``[value, seconds]`` of each finished trial: its best accuracy, and the seconds of the
                     search until then
``exploring``        number of first trials in which the sampler explores; None if it has no such phase
``architecture``     best network, with its ``parameters`` and ``macs``
``best_seconds``     seconds of the search until it was found
``trainings``        networks trained, with ``trials``, and ``hits``, the free lookups
``seconds``          seconds of the search, with ``training_seconds``
``versions``         versions of the packages, with ``machine`` and ``device``
``error``            cause of a failure, in place of all fields after ``budget``
==================== =====================================================================================
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from tqdm.auto import tqdm

from optuna_trlhpo.benchmarks.harness.command_line import print_report
from optuna_trlhpo.benchmarks.harness.rows import Row, read_rows, this_machine, versions
from optuna_trlhpo.benchmarks.harness.samplers import SamplerFactory, create_sampler
from optuna_trlhpo.benchmarks.harness.studies import check_positive, check_samplers, collect, find_root
from optuna_trlhpo.benchmarks.problems.problem import Form
from optuna_trlhpo.benchmarks.reproduction.scales import EXPLORING, PAPERS_AGENT, SCALES, Scale
from optuna_trlhpo.benchmarks.reproduction.table2_report import report
from optuna_trlhpo.benchmarks.search.real_training import default_form
from optuna_trlhpo.benchmarks.search.runner import TRIALS_PER_TRAINING
from optuna_trlhpo.cnn import CNNObjective
from optuna_trlhpo.layers import Network, describe, network_in
from optuna_trlhpo.trials.training_record import own_trainings

_DIGITS = {"epochs": 10}
"""Arguments for digits, which have under a thousand training images: two epochs teach them nothing."""
_OF_DIGITS = "trlhpo-prior"
_MESSAGES = 10
"""Messages about the remaining time of a study."""


# Objective ---------------------------------------------------------------------------------------------


def make_objective(problem: str, scale: Scale, seed: int, data_root: str) -> CNNObjective:
    """Create the paper's objective at a scale.

    Args:
        problem: ``"mnist"`` or ``"digits"``.
        scale: Size of the comparison.
        seed: Random seed of the split, the initial weights and the order of the images.
        data_root: Folder that contains MNIST.

    Raises:
        FileNotFoundError: If the files of MNIST are missing.
    """
    sizes = scale.arguments if problem == "mnist" else {"max_macs": scale.max_macs, **_DIGITS}
    # "auto" trains all prefixes for the paper's agent, and those that the sampler chooses for the others.
    return CNNObjective.paper(problem, data_root=data_root, train_prefixes="auto", seed=seed, **sizes)


def play(objective: CNNObjective, form: Form, trial: Trial) -> float:
    """Run one trial in one of the forms, and return the accuracy of its best network."""
    if form == "progressive":
        value = objective(trial)
        assert isinstance(value, float)
        return value
    trained = objective.evaluation(trial, objective.space.suggest(trial))
    return math.nan if trained is None else trained.accuracy


def exploring_trials(sampler: str, budget: int) -> int | None:
    """Return the number of first trials in which a sampler explores, or None if it has no such phase.

    Examples:
        >>> exploring_trials("trlhpo-paper", 100), exploring_trials("random", 100)
        (25, None)
    """
    return round(EXPLORING[sampler] * budget) if sampler in EXPLORING else None


def _papers_agent(*, seed: int, budget: int) -> BaseSampler:
    from optuna_trlhpo.sampler import TRLHPOSampler

    exploring = exploring_trials(PAPERS_AGENT, budget)
    return TRLHPOSampler.paper(seed=seed, n_exploration_trials=exploring, warn_independent_sampling=False)


# Studies -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Table2Run:
    """Description of one study. It is sent to another process."""

    problem: str
    form: Form
    sampler: str
    seed: int
    scale: str
    budget: int
    factory: SamplerFactory
    setting: Scale
    out: str
    data_root: str

    @property
    def key(self) -> Row:
        names = ("problem", "form", "sampler", "seed", "scale", "budget")
        return {name: getattr(self, name) for name in names}


def run(
    scale: str,
    samplers: Mapping[str, SamplerFactory] | Sequence[str],
    *,
    seeds: Iterable[int],
    problem: str = "mnist",
    out: str | Path = "benchmark-rows/table2",
    jobs: int = 1,
    data_root: str | Path | None = None,
    progress: bool = False,
) -> list[Row]:
    """Run the missing studies of each sampler with each seed, and store their rows.

    Args:
        scale: Name in `scales.SCALES`.
        samplers: Names in `harness.samplers.SAMPLERS`, or factories by name.
        seeds: Random seeds of the samplers and the objective.
        problem: ``"mnist"`` or ``"digits"``.
        out: Folder of the rows and the studies.
        jobs: Number of processes, each with one thread.
        data_root: See `harness.studies.find_root`.
        progress: Whether to show a progress bar, and the remaining time of each study.

    Returns:
        The new rows.

    Raises:
        ValueError: For an unknown name, or a number below 1.
        FileNotFoundError: If MNIST is required and missing, before the first study.
        ImportError: If a package is missing, before the first study.
    """
    check_positive(jobs=jobs)
    setting, root = SCALES[scale], find_root(data_root)
    factories = check_samplers(samplers)
    if PAPERS_AGENT in factories and not isinstance(samplers, Mapping):
        factories[PAPERS_AGENT] = _papers_agent  # its phases are as long as the budget asks for
    runs = [
        _Table2Run(
            problem=problem,
            form=default_form(name),
            sampler=name,
            seed=seed,
            scale=scale,
            budget=setting.trainings,
            factory=factory,
            setting=setting,
            out=str(out),
            data_root=root,
        )
        for seed in seeds  # the outermost loop, so that the rows are balanced at any time
        for name, factory in factories.items()
    ]
    if runs:
        make_objective(problem, setting, 0, root)  # fails now if the data are missing
    return collect(functools.partial(_study, progress=progress), runs, out=out, jobs=jobs, progress=progress)


def _study(it: _Table2Run, *, progress: bool) -> Row:
    objective = make_objective(it.problem, it.setting, it.seed, it.data_root)
    stored = _stored_study(it)
    study = _copy_in_memory(stored, it)
    done = _count_trainings(study.get_trials(deepcopy=False))
    clock = _Clock(it, done) if progress else None

    def follow(study: Study, trial: FrozenTrial) -> None:
        nonlocal done
        stored.add_trial(trial)
        done += _count_trainings([trial])
        if clock is not None:
            clock.tell(done)
        if done >= it.budget:
            study.stop()

    if done < it.budget:
        most = TRIALS_PER_TRAINING * it.budget - len(study.get_trials(deepcopy=False))
        study.optimize(lambda trial: play(objective, it.form, trial), n_trials=most, callbacks=[follow])
    return {
        **_outcome(study, objective),
        "exploring": exploring_trials(it.sampler, it.budget),
        "versions": versions(),
        "machine": this_machine(),
        "device": str(objective.data.device),
    }


def _stored_study(it: _Table2Run) -> Study:
    """Return the study in the file of a run."""
    folder = Path(it.out) / "studies"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{it.problem}-{it.scale}-{it.sampler}-{it.form}-{it.seed}"
    return optuna.create_study(
        study_name=name, storage=f"sqlite:///{folder}/{name}.db", load_if_exists=True, direction="maximize"
    )


def _copy_in_memory(stored: Study, it: _Table2Run) -> Study:
    """Return the study to run. In memory, no write to a file counts as time of the search."""
    sampler = create_sampler(it.factory, seed=it.seed, budget=it.budget)
    study = optuna.create_study(
        study_name=stored.study_name,
        direction="maximize",
        sampler=sampler,
        pruner=optuna.pruners.NopPruner(),  # growth has stop rules of its own
    )
    trials = stored.get_trials()
    if trials:
        study.add_trials(trials)
        sampler.reseed_rng()  # with the same random numbers, Optuna's samplers would repeat the first trials
    return study


def _count_trainings(trials: Sequence[FrozenTrial]) -> int:
    return sum(not entry.looked_up for own in own_trainings(trials) for entry in own)


class _Clock:
    """Prints the remaining time of a study, at each tenth of its trainings."""

    def __init__(self, it: _Table2Run, done: int) -> None:
        self._it, self._begun, self._done, self._told = it, time.perf_counter(), done, done

    def tell(self, done: int) -> None:
        """Print the remaining time if enough trainings have been done since the last message."""
        it = self._it
        if not self._told + it.budget / _MESSAGES <= done < it.budget:
            return
        self._told = done
        left = (time.perf_counter() - self._begun) / (done - self._done) * (it.budget - done)
        message = f"{it.sampler}, seed {it.seed}: {done} of {it.budget} trainings, {_duration(left)} left"
        tqdm.write(message, file=sys.stderr)


def _duration(seconds: float) -> str:
    """Format a duration in its largest suitable unit."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _outcome(study: Study, objective: CNNObjective) -> dict[str, Any]:
    """Return the fields of a row that a study contains."""
    trials = study.get_trials(deepcopy=False)
    trainings = hits = 0
    seconds = training_seconds = best_seconds = 0.0
    best = -1.0
    best_network: Network = ()
    curve: list[list[float]] = []
    models: list[list[float]] = []
    for trial, own in zip(trials, own_trainings(trials), strict=True):
        trained = sum(entry.seconds for entry in own if not entry.looked_up)
        training_seconds += trained
        failed = trial.state != TrialState.COMPLETE or trial.duration is None
        seconds += trained if failed or trial.duration is None else trial.duration.total_seconds()
        for entry in own:
            hits += entry.looked_up
            trainings += not entry.looked_up
            if entry.accuracy > best:
                best, best_seconds = entry.accuracy, seconds
                best_network = network_in(trial.params)[: entry.step + 1]
                curve.append([trainings, entry.accuracy])
        if not failed:
            assert trial.value is not None
            models.append([trial.value, round(seconds, 3)])
    if not curve:
        raise RuntimeError(f"no network was trained in {len(trials)} trials")
    return {
        "curve": curve,
        "models": models,
        "architecture": describe(best_network),
        "parameters": objective.space.parameters(best_network),
        "macs": objective.space.macs(best_network),
        "best_seconds": round(best_seconds, 3),
        "trainings": trainings,
        "trials": len(trials),
        "hits": hits,
        "seconds": round(seconds, 3),
        "training_seconds": round(training_seconds, 3),
    }


# Command line ------------------------------------------------------------------------------------------


def handle(arguments: argparse.Namespace) -> int:
    """Run the missing studies and print the tables. Return 1 if a study failed."""
    scale = SCALES[arguments.scale]
    problem, samplers = "mnist", list(arguments.samplers)
    try:
        make_objective(problem, scale, 0, find_root(arguments.data_root))
    except FileNotFoundError as error:
        problem = "digits"
        print(f"{error}\nScikit-learn's digits replace MNIST: these numbers do not compare with the paper's.")
        if _OF_DIGITS in samplers:
            samplers.remove(_OF_DIGITS)
            print(f"{_OF_DIGITS} is left out, because its prior was trained on digits.")
    first, n_seeds = arguments.first_seed, arguments.seeds or scale.seeds
    new = run(
        arguments.scale,
        samplers,
        seeds=range(first, first + n_seeds),
        problem=problem,
        out=arguments.out,
        jobs=arguments.jobs,
        data_root=arguments.data_root,
        progress=True,
    )
    print_report(report(read_rows(arguments.out), problem, arguments.scale), arguments.markdown)
    return int(any("error" in row for row in new))
