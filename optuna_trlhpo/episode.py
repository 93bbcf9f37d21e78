"""A trial as the agent sees it: a sequence of steps, each of up to four actions in [0, 1].

Notation: S steps, A action slots (4), P performance values (32).

A *step* is one layer of a `LayerSpace`, or the consecutive parameters that share an index in their names
(``n_units_l0``, ``dropout_l0``), or a single parameter; a report between two parameters ends a step too.
Names are compared by their *stem*, the name without its places (`parameters`), so that what is learned about
layer 2 helps at layer 3.

What the objective reported is known here by the note that the sampler keeps while a trial runs: ``seen``
lists pairs ``(n, r)``, "when the trial had n parameters, step r was the last that had been reported".
Reports that no parameter followed are not in it: they may be the epochs of a training, not the values of
layers.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalChoiceType,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import BaseTrial, FrozenTrial

from optuna_trlhpo.layers import ACTION_SLOTS, TABLE_I, Vocabulary, hyperparameter_of, unmasked
from optuna_trlhpo.parameters import MOST_COUNTED, on_grid, parse_name

PERFORMANCE_VALUES = 32
"""P: accuracies on validation batches that describe how a network performs (section IV of the paper)."""

_PERFORMANCE_ATTRIBUTE = "batch_accuracies"

Seen = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Slot:
    """What is fixed about a parameter, whatever its value: its name, and how many values it can take."""

    stem: str
    index: int
    """The places in its name, one after the other in groups of three digits; 0 where there are none."""
    n_values: int
    """How many values there are; 0 where they are continuous or too many to tell apart."""
    categorical: bool
    log_range: tuple[int, int] | None = None
    """The lowest and the highest of integers on a logarithmic scale: countable, but in bins of unequal
    width."""

    def settle(self, action: float) -> float:
        """The action that stands for the same value as ``action``: the middle of its bin."""
        if self.n_values:
            return (min(int(action * self.n_values), self.n_values - 1) + 0.5) / self.n_values
        if self.log_range is None:
            return action
        distribution = IntDistribution(*self.log_range, log=True)
        return encode("", distribution, decode("", distribution, action))


@dataclass(frozen=True)
class Episode:
    """The steps of one trial. Empty slots, and what was not reported, are NaN.

    Attributes:
        slots: S tuples of up to A slots.
        actions: ``[S, A]`` in [0, 1].
        reports: ``[S]`` the last report that arrived between this step and the next.
        performance: ``[S, P]`` accuracies on validation batches, in [0, 1], where the objective gives them.
        last_seen: The last step reported before the last parameter; -1 where there was none.
    """

    slots: tuple[tuple[Slot, ...], ...]
    actions: np.ndarray
    reports: np.ndarray
    performance: np.ndarray
    last_seen: int

    def __len__(self) -> int:
        return len(self.slots)

    def first(self, n: int) -> Episode:
        """The first ``n`` steps."""
        return Episode(
            self.slots[:n], self.actions[:n], self.reports[:n], self.performance[:n], self.last_seen
        )


@dataclass(frozen=True)
class Request:
    """A running trial that asks for a parameter.

    Attributes:
        before: The steps that are complete.
        slots: The slots of the step that the parameter belongs to; its own is the last.
        actions: ``[len(slots) - 1]`` the actions of that step that are settled.
    """

    before: Episode
    slots: tuple[Slot, ...]
    actions: np.ndarray


def read_episode(trial: FrozenTrial, seen: Seen) -> Episode:
    """The steps of ``trial``, finished or running, rebuilt from its parameters alone.

    Example:
        >>> import optuna
        >>> space = {f"n_units_l{i}": IntDistribution(1, 4) for i in range(2)}
        >>> params = {"n_units_l0": 1, "n_units_l1": 4}
        >>> trial = optuna.create_trial(params=params, distributions=space, value=1)
        >>> read_episode(trial, seen=[(1, 0)]).actions[:, 0].tolist()
        [0.125, 0.875]
    """
    return _read_steps(trial, steps_of(list(trial.params), seen), seen)


def episode_of(
    layers: np.ndarray, max_layers: int | None = None, vocabulary: Vocabulary = TABLE_I
) -> Episode:
    """Layers of a `LayerSpace` as the steps of a trial that grows them.

    Args:
        layers: ``[S, 4]`` actions.
        max_layers: If it is not None, the trial is asked for the depth first, of at most so many layers.
        vocabulary: The kinds of the layers.

    Example:
        >>> episode = episode_of(np.array([[0.1, 0.1, 0.1, 0.1]]), max_layers=2)
        >>> [slot.stem for slots in episode.slots for slot in slots][:3], float(episode.actions[0, 0])
        (['n_layers', 'layer_kind', 'layer_conv_filters'], 0.25)
    """
    steps, actions = [], np.full((len(layers), ACTION_SLOTS), np.nan)
    for k, row in enumerate(layers, start=1):
        cls = vocabulary.by_kind[vocabulary.kind.decode(row[0])]
        n = len(cls.hyperparameters)
        mine = [
            Slot(f"layer_{cls.prefix}_{hp.name}", k, len(hp.values), bool(hp.labels))
            for hp in cls.hyperparameters
        ]
        kind = Slot(f"layer_{vocabulary.kind_field}", k, len(vocabulary.kinds), True)
        steps.append((kind, *mine))
        actions[k - 1, : 1 + n] = row[: 1 + n]
    if max_layers is not None:
        steps.insert(0, (Slot("n_layers", 0, max_layers, False),))
        first = np.full((1, ACTION_SLOTS), np.nan)
        first[0, 0] = (len(layers) - 0.5) / max_layers
        actions = np.concatenate([first, actions])
    nothing = np.full(len(steps), np.nan)
    performance = np.full((len(steps), PERFORMANCE_VALUES), np.nan)
    return Episode(tuple(steps), actions, nothing, performance, last_seen=-1)


def read_request(trial: FrozenTrial, seen: Seen, name: str, distribution: BaseDistribution) -> Request:
    """What is known when a running ``trial`` asks for the parameter ``name``."""
    *before, (*settled, _) = steps_of([*trial.params, name], seen)
    distributions = trial.distributions
    slots = tuple(slot_of(other, distributions[other]) for other in settled)
    actions = np.array([encode(other, distributions[other], trial.params[other]) for other in settled])
    return Request(_read_steps(trial, before, seen), (*slots, slot_of(name, distribution)), actions)


def place_of_report(names: Sequence[str], earliest: int) -> int:
    """How many parameters a trial had when it reported, where that is not known to the last one.

    A sampler is not asked for parameters that are fixed or without alternative, so all it knows of a report
    that it did not see before is a stretch: not before ``earliest`` parameters, and before the last of
    ``names``, which it is asked for now. The report belongs where, in that stretch, the last step begins.

    Example:
        >>> place_of_report(["units_l0", "kind_l1", "units_l1"], earliest=1)
        1
    """
    last = len(names) - 1
    for n in range(last, max(earliest, 1) - 1, -1):
        if not continues_step(names[n], [names[n - 1]], reported=False):
            return n
    return last


def steps_of(names: Sequence[str], seen: Seen) -> list[list[str]]:
    """The names of a trial's parameters, step by step.

    Example:
        >>> steps_of(["n_units_l0", "dropout_l0", "n_units_l1"], seen=[])
        [['n_units_l0', 'dropout_l0'], ['n_units_l1']]
    """
    reported_at = dict(seen)
    steps: list[list[str]] = []
    for n, name in enumerate(names):
        if not steps or not continues_step(name, steps[-1], reported=n in reported_at):
            steps.append([])
        steps[-1].append(name)
    return steps


def _read_steps(trial: FrozenTrial, steps: Sequence[Sequence[str]], seen: Seen) -> Episode:
    reported_at = dict(seen)
    actions = np.full((len(steps), ACTION_SLOTS), np.nan)
    reports = np.full(len(steps), np.nan)
    performance = np.full((len(steps), PERFORMANCE_VALUES), np.nan)
    batches = read_performance(trial)
    end = 0
    for k, names in enumerate(steps):
        end += len(names)
        for i, name in enumerate(names):
            actions[k, i] = encode(name, trial.distributions[name], trial.params[name])
        if end in reported_at:
            reports[k] = trial.intermediate_values.get(reported_at[end], np.nan)
            performance[k] = batches.get(reported_at[end], np.nan)
    slots = tuple(tuple(slot_of(name, trial.distributions[name]) for name in names) for names in steps)
    return Episode(slots, actions, reports, performance, last_seen=max(reported_at.values(), default=-1))


def continues_step(name: str, step: Sequence[str], *, reported: bool) -> bool:
    """Whether parameter ``name`` belongs to the step that so far has the parameters ``step``.

    ``reported`` says whether a report arrived since the last of them.

    Example:
        >>> continues_step("dropout_l0", ["n_units_l0"], reported=False)
        True
        >>> continues_step("n_units_l1", ["n_units_l0", "dropout_l0"], reported=False)
        False
    """
    if reported or len(step) == ACTION_SLOTS:
        return False
    places = parse_name(unmasked(name)).places
    return bool(places) and places == parse_name(unmasked(step[-1])).places


def slot_of(name: str, distribution: BaseDistribution) -> Slot:
    """What the agent knows of a parameter before it has a value."""
    hyperparameter = hyperparameter_of(name, distribution)
    if hyperparameter is not None:
        # A masked set has a name of its own in Optuna; here it is the same question.
        layer, _, field = unmasked(name).removeprefix("layer").partition("_")
        return Slot(f"layer_{field}", int(layer), len(hyperparameter.values), bool(hyperparameter.labels))
    stem, places = parse_name(name)
    index = functools.reduce(lambda whole, place: 1000 * whole + place, places, 0)
    if isinstance(distribution, CategoricalDistribution):
        return Slot(stem, index, len(distribution.choices), True)
    log_range = None
    if isinstance(distribution, IntDistribution) and distribution.log:
        log_range = distribution.low, distribution.high
    return Slot(stem, index, _n_values(distribution), False, log_range)


def encode(name: str, distribution: BaseDistribution, value: CategoricalChoiceType) -> float:
    """The action in [0, 1] that stands for ``value``; `decode` is its inverse.

    A parameter of a `LayerSpace` is encoded on the scale of Table I, another one on its own: in equal bins
    where its values can be counted, else linearly, or logarithmically where its distribution is.
    """
    hyperparameter = hyperparameter_of(name, distribution)
    if hyperparameter is not None:
        return hyperparameter.encode(value)
    if isinstance(distribution, CategoricalDistribution):
        return (distribution.to_internal_repr(value) + 0.5) / len(distribution.choices)
    assert isinstance(value, int | float)
    n, low, high = _n_values(distribution), *_bounds(distribution)
    if n:
        # A range may have changed since (Optuna allows it), so what is stored is told apart by position
        # alone.
        return (round((value - low) / _step(distribution)) + 0.5) / n
    transform = math.log if _is_log(distribution) else float
    start, span = transform(low), transform(high) - transform(low)
    if span == 0:
        return 0.5
    place = transform(min(max(value, low), high))
    share = (place - start) / span if math.isfinite(span) else (place / 2 - start / 2) / (high / 2 - low / 2)
    return min(max(share, 0.0), 1.0)


def decode(name: str, distribution: BaseDistribution, action: float) -> CategoricalChoiceType:
    """The value within ``distribution`` that ``action`` stands for, or the nearest to it.

    Example:
        >>> decode("dropout_l0", FloatDistribution(0.0, 0.5), 0.5)
        0.25
    """
    action = float(action)
    hyperparameter = hyperparameter_of(name, distribution)
    if isinstance(distribution, CategoricalDistribution):
        n = len(distribution.choices)
        if hyperparameter is not None:
            return hyperparameter.nearest(action, distribution.choices)
        return distribution.choices[min(int(action * n), n - 1)]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if hyperparameter is not None:
        assert isinstance(distribution, IntDistribution)
        allowed = range(distribution.low, distribution.high + 1, distribution.step)
        return hyperparameter.nearest(action, allowed)
    n, low, high = _n_values(distribution), *_bounds(distribution)
    if n:
        value = low + min(int(action * n), n - 1) * _step(distribution)
    elif _is_log(distribution):
        value = math.exp(math.log(low) + action * (math.log(high) - math.log(low)))
    else:
        value = low * (1 - action) + action * high
    return on_grid(distribution, value)


def _n_values(distribution: BaseDistribution) -> int:
    if _is_log(distribution) or _step(distribution) == 0:
        return 0
    low, high = _bounds(distribution)
    n = round((high - low) / _step(distribution)) + 1
    return n if n <= MOST_COUNTED else 0


def _step(distribution: BaseDistribution) -> float:
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return distribution.step or 0


def _is_log(distribution: BaseDistribution) -> bool:
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return distribution.log


def _bounds(distribution: BaseDistribution) -> tuple[float, float]:
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if isinstance(distribution, IntDistribution) and distribution.log:
        return distribution.low - 0.5, distribution.high + 0.5  # each integer gets its own stretch
    return distribution.low, distribution.high


def report_performance(trial: BaseTrial, accuracies: Sequence[float], step: int) -> None:
    """Pass the accuracies on 32 validation batches to the sampler, beside ``trial.report(accuracy, step)``.

    They describe *how* a network performs, and are a part of the state that the paper's agent sees (section
    IV); the score is what is reported. They are kept as one short text, a user attribute of the trial, with
    a resolution of 1/255.

    Args:
        trial: The running trial.
        accuracies: 32 numbers in [0, 1].
        step: The step that is reported with it.

    Raises:
        ValueError: If there are not 32 numbers in [0, 1].
    """
    values = np.asarray(accuracies, dtype=float)
    if values.shape != (PERFORMANCE_VALUES,) or not ((0 <= values) & (values <= 1)).all():
        raise ValueError(
            f"accuracies have shape {values.shape} and range {np.min(values, initial=np.inf):g} to "
            f"{np.max(values, initial=-np.inf):g}; they must be {PERFORMANCE_VALUES} numbers in [0, 1]"
        )
    digits = np.rint(values * 255).astype(np.uint8).tobytes().hex()
    before = trial.user_attrs.get(_PERFORMANCE_ATTRIBUTE, "")
    trial.set_user_attr(_PERFORMANCE_ATTRIBUTE, f"{before} {step}:{digits}".strip())


def read_performance(trial: FrozenTrial) -> dict[int, np.ndarray]:
    """What `report_performance` has kept, ``[32]`` for each step.

    The attribute may be anybody's: what `report_performance` did not write is nothing.
    """
    text = trial.user_attrs.get(_PERFORMANCE_ATTRIBUTE)
    if not isinstance(text, str):
        return {}
    entries = re.findall(rf"(?<!\S)([0-9]{{1,9}}):([0-9a-f]{{{2 * PERFORMANCE_VALUES}}})(?!\S)", text)
    return {int(k): np.frombuffer(bytes.fromhex(digits), np.uint8) / 255 for k, digits in entries}
