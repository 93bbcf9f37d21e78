"""A trial as the agent sees it: a sequence of steps, each of up to four actions in [0, 1].

Notation: S steps, A action slots (4), P performance values (32).

A *step* is one layer of a `LayerSpace`, or the consecutive parameters that share an index in their names
(``n_units_l0``, ``dropout_l0``), or a single parameter. A report between two parameters ends a step, too.
Names are compared by their *base name*, the name without its numbers (`parameter_names`), so that what is
learned about layer 2 applies to layer 3.

The positions of the reports come from marks that the sampler records while a trial runs. A mark ``(n, r)``
means that when the trial had n parameters, step r was the last one reported. Reports after the last parameter
have no mark: they may be the epochs of a training, not the values of layers.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from optuna.distributions import (
    BaseDistribution,
)
from optuna.trial import FrozenTrial

from optuna_trlhpo.layers import ACTION_SLOTS, TABLE_I, Vocabulary, unmasked
from optuna_trlhpo.trials.parameter_names import parse_name
from optuna_trlhpo.trials.parameters import ParameterSpec, encode, parameter_spec
from optuna_trlhpo.trials.performance import PERFORMANCE_VALUES, read_performance

ReportMarks = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Episode:
    """The steps of one trial. Empty slots and missing reports are NaN.

    Attributes:
        slots: S tuples of up to A parameters.
        actions: ``[S, A]`` actions in [0, 1].
        reports: ``[S]`` last report between this step and the next.
        performance: ``[S, P]`` accuracies on validation batches, in [0, 1], where the objective reports them.
        last_reported: Last step reported before the last parameter; -1 if there was none.
    """

    slots: tuple[tuple[ParameterSpec, ...], ...]
    actions: np.ndarray
    reports: np.ndarray
    performance: np.ndarray
    last_reported: int

    def __len__(self) -> int:
        return len(self.slots)

    def first(self, n: int) -> Episode:
        """Return the first ``n`` steps."""
        return Episode(
            self.slots[:n], self.actions[:n], self.reports[:n], self.performance[:n], self.last_reported
        )


@dataclass(frozen=True)
class Request:
    """The state of a running trial that asks for a parameter.

    Attributes:
        before: The completed steps.
        slots: Parameters of the current step; the requested one is the last.
        actions: ``[len(slots) - 1]`` actions of the current step that are fixed already.
    """

    before: Episode
    slots: tuple[ParameterSpec, ...]
    actions: np.ndarray


def read_episode(trial: FrozenTrial, marks: ReportMarks) -> Episode:
    """Return the steps of ``trial``, finished or running, rebuilt from its parameters and marks alone.

    Examples:
        >>> import optuna
        >>> from optuna.distributions import IntDistribution
        >>> space = {f"n_units_l{i}": IntDistribution(1, 4) for i in range(2)}
        >>> params = {"n_units_l0": 1, "n_units_l1": 4}
        >>> trial = optuna.create_trial(params=params, distributions=space, value=1)
        >>> read_episode(trial, marks=[(1, 0)]).actions[:, 0].tolist()
        [0.125, 0.875]
    """
    return _read_steps(trial, steps_of(list(trial.params), marks), marks)


def episode_of(
    layers: np.ndarray, max_layers: int | None = None, vocabulary: Vocabulary = TABLE_I
) -> Episode:
    """Return layers of a `LayerSpace` as the steps of a trial that grows them.

    Args:
        layers: ``[S, 4]`` actions.
        max_layers: Largest depth, if the trial is asked for the depth first. None if it is not.
        vocabulary: Kinds of the layers.

    Examples:
        >>> episode = episode_of(np.array([[0.1, 0.1, 0.1, 0.1]]), max_layers=2)
        >>> [slot.base_name for slots in episode.slots for slot in slots][:3], float(episode.actions[0, 0])
        (['n_layers', 'layer_kind', 'layer_conv_filters'], 0.25)
    """
    steps, actions = [], np.full((len(layers), ACTION_SLOTS), np.nan)
    for k, row in enumerate(layers, start=1):
        cls = vocabulary.by_kind[vocabulary.kind.decode(row[0])]
        n = len(cls.hyperparameters)
        mine = [
            ParameterSpec(f"layer_{cls.prefix}_{hp.name}", k, len(hp.values), bool(hp.labels))
            for hp in cls.hyperparameters
        ]
        kind = ParameterSpec(f"layer_{vocabulary.kind_field}", k, len(vocabulary.kinds), True)
        steps.append((kind, *mine))
        actions[k - 1, : 1 + n] = row[: 1 + n]
    if max_layers is not None:
        steps.insert(0, (ParameterSpec("n_layers", 0, max_layers, False),))
        first = np.full((1, ACTION_SLOTS), np.nan)
        first[0, 0] = (len(layers) - 0.5) / max_layers
        actions = np.concatenate([first, actions])
    nothing = np.full(len(steps), np.nan)
    performance = np.full((len(steps), PERFORMANCE_VALUES), np.nan)
    return Episode(tuple(steps), actions, nothing, performance, last_reported=-1)


def read_request(
    trial: FrozenTrial, marks: ReportMarks, name: str, distribution: BaseDistribution
) -> Request:
    """Return the state of a running ``trial`` that asks for the parameter ``name``."""
    *before, (*known, _) = steps_of([*trial.params, name], marks)
    distributions = trial.distributions
    slots = tuple(parameter_spec(other, distributions[other]) for other in known)
    actions = np.array([encode(other, distributions[other], trial.params[other]) for other in known])
    return Request(_read_steps(trial, before, marks), (*slots, parameter_spec(name, distribution)), actions)


def new_mark(trial: FrozenTrial, name: str, earliest: int, marks: ReportMarks) -> tuple[int, int] | None:
    """Where a trial reported since the last mark, seen as it asks for a parameter; None if it did not.

    Args:
        trial: The running trial, with its parameters in order.
        name: The parameter that it asks for.
        earliest: Parameters that it had, with the one asked for, at the last call.
        marks: The marks so far.

    Returns:
        The number of parameters before the report, and the last step reported.
    """
    names = [*trial.params, name]
    last = max(trial.intermediate_values, default=-1)
    if len(names) == 1 or last <= max((step for _, step in marks), default=-1):
        return None
    return infer_report_position(names, earliest), last


def infer_report_position(names: Sequence[str], earliest: int) -> int:
    """Return how many parameters a trial had when it reported, where this is known only approximately.

    A sampler is not asked for parameters that are fixed or have a single value, so it can only bound the
    position of a report that it did not see before: at least ``earliest`` parameters, and before the last of
    ``names``, which is requested now. Within these bounds the report is assigned to the start of the last
    step.

    Examples:
        >>> infer_report_position(["units_l0", "kind_l1", "units_l1"], earliest=1)
        1
    """
    last = len(names) - 1
    for n in range(last, max(earliest, 1) - 1, -1):
        if not continues_step(names[n], [names[n - 1]], reported=False):
            return n
    return last


def steps_of(names: Sequence[str], marks: ReportMarks) -> list[list[str]]:
    """Return the names of a trial's parameters, grouped by step.

    Examples:
        >>> steps_of(["n_units_l0", "dropout_l0", "n_units_l1"], marks=[])
        [['n_units_l0', 'dropout_l0'], ['n_units_l1']]
    """
    reported_at = dict(marks)
    steps: list[list[str]] = []
    for n, name in enumerate(names):
        if not steps or not continues_step(name, steps[-1], reported=n in reported_at):
            steps.append([])
        steps[-1].append(name)
    return steps


def _read_steps(trial: FrozenTrial, steps: Sequence[Sequence[str]], marks: ReportMarks) -> Episode:
    reported_at = dict(marks)
    actions = np.full((len(steps), ACTION_SLOTS), np.nan)
    reports = np.full(len(steps), np.nan)
    batches = read_performance(trial)
    performance = _no_performance(len(steps)).copy() if batches else _no_performance(len(steps))
    end = 0
    for k, names in enumerate(steps):
        end += len(names)
        for i, name in enumerate(names):
            actions[k, i] = encode(name, trial.distributions[name], trial.params[name])
        if end in reported_at:
            reports[k] = trial.intermediate_values.get(reported_at[end], np.nan)
            if batches:
                performance[k] = batches.get(reported_at[end], np.nan)
    slots = tuple(tuple(parameter_spec(name, trial.distributions[name]) for name in names) for names in steps)
    return Episode(slots, actions, reports, performance, last_reported=max(reported_at.values(), default=-1))


@functools.lru_cache(maxsize=64)
def _no_performance(n_steps: int) -> np.ndarray:
    """Return ``[S, P]`` values of steps without any; most trials share them, for they take much memory."""
    performance = np.full((n_steps, PERFORMANCE_VALUES), np.nan)
    performance.flags.writeable = False
    return performance


def continues_step(name: str, step: Sequence[str], *, reported: bool) -> bool:
    """Return whether parameter ``name`` belongs to the step that so far has the parameters ``step``.

    ``reported`` says whether a report arrived after the last of them.

    Examples:
        >>> continues_step("dropout_l0", ["n_units_l0"], reported=False)
        True
        >>> continues_step("n_units_l1", ["n_units_l0", "dropout_l0"], reported=False)
        False
    """
    if reported or len(step) == ACTION_SLOTS:
        return False
    places = parse_name(unmasked(name)).places
    return bool(places) and places == parse_name(unmasked(step[-1])).places
