"""Reading of the networks of a study, their values, and the rewards of their layers.

Notation: k is the depth, the number of layers. A *reward* is the improvement of the value by a layer. It is
positive if the layer made the network better, in both directions of the study (section IV of the paper).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import optuna
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

import optuna_trlhpo.layers.sequences  # noqa: F401  registers the vocabularies
from optuna_trlhpo.layers import Layer, Network, network_in
from optuna_trlhpo.space import LayerSpace
from optuna_trlhpo.space.growth import SPACE_ATTRIBUTE

logger = optuna.logging.get_logger("optuna.trlhpo.visualization")

SHOWN = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)

NO_FINISHED_TRIAL = "The study has no finished trial."
NONE_FEASIBLE = "No trial with layers satisfies all its constraints."
NO_PAIR_OF_VALUES = "the study has no network with a value both with and without its last layer."
"""Reason for the lack of rewards, the end of a sentence."""


class Grown(NamedTuple):
    """A trial that grew layers.

    Attributes:
        number: Number of the trial.
        layers: All layers of the trial.
        values: Values of the networks of the first k layers, by k, in the unit of the study's values.
        feasible: Whether the trial satisfies all its constraints.
    """

    number: int
    layers: Network
    values: dict[int, float]
    feasible: bool = True


class Reward(NamedTuple):
    """The reward of a layer in a trial."""

    number: int
    network: Network
    """The layers up to and including this one."""
    reward: float

    @property
    def position(self) -> int:
        """Position of the layer, 1 for the first."""
        return len(self.network)

    @property
    def layer(self) -> Layer:
        """The layer that the reward belongs to."""
        return self.network[-1]


@dataclass(frozen=True)
class Layered:
    """The trials of a study that grew layers.

    Attributes:
        trials: Complete, pruned and running trials, in order.
        values: Value of each network, the mean over the trials that contain it.
        sign: 1 if higher values are better, -1 if lower values are.
        value_name: Name of the values.
        space: Search space of the networks. None if the study does not record it.
        note: A sentence that says why there is no data. Empty if there is data.
    """

    trials: tuple[Grown, ...]
    values: dict[Network, float]
    sign: float
    value_name: str
    space: LayerSpace | None
    note: str

    @property
    def before_any_layer(self) -> float | None:
        """Assumed value of a network without layers: 0 for accuracies, 1 for error rates, otherwise None.

        With None, the reward of the first layer is undefined. Minimised values in [0, 1] may also be losses,
        so they are considered error rates only if their name contains "error".
        """
        if not self.values or not all(0 <= value <= 1 for value in self.values.values()):
            return None
        if self.sign > 0:
            return 0.0
        return 1.0 if "error" in self.value_name.lower() else None

    def rewards(self) -> Iterator[Reward]:
        """Yield the reward of every layer whose network and the one before it have a value.

        The value of the network before it may come from another trial of the study.
        """
        for trial in self.trials:
            for k, value in trial.values.items():
                before = self.before_any_layer if k == 1 else trial.values.get(k - 1)
                if before is None and k > 1:
                    before = self.values.get(trial.layers[: k - 1])
                if before is not None:
                    yield Reward(trial.number, trial.layers[:k], self.sign * (value - before))

    def best(self) -> tuple[Grown, int] | None:
        """Return the trial with the best network, and the depth of that network.

        Ties are resolved in favour of the first trial. Return None if no trial with a value satisfies its
        constraints.
        """
        within = [trial for trial in self.trials if trial.feasible]
        found = [(self.sign * v, -t.number, -k, t, k) for t in within for k, v in t.values.items()]
        if not found:
            return None
        *_, trial, depth = max(found, key=lambda item: item[:3])
        return trial, depth


def read_layers(study: Study, objective: int = 0) -> Layered:
    """Read the trials of ``study`` that grew layers.

    A report at step k is the value of the network of k + 1 layers, as `LayerSpace.grow` expects. Reports have
    another meaning if a trial suggested its network whole (`LayerSpace.suggest`), reported more steps than it
    has layers, or is complete with a value that differs from all its reports (which may be of epochs). Then
    only the value of the trial counts, as the value of the network of all its layers.

    Args:
        study: A study of any sampler.
        objective: Index of the objective, from 0.

    Raises:
        ValueError: If the objective does not exist.
    """
    directions = study.directions
    if not isinstance(objective, int) or not 0 <= objective < len(directions):
        raise ValueError(f"objective is {objective!r}; the study has {len(directions)}, counted from 0")
    trials = study.get_trials(deepcopy=False)
    shown = [trial for trial in trials if trial.state in SHOWN]
    grown = [
        Grown(trial.number, layers, _values(trial, len(layers), objective), feasible(trial))
        for trial in shown
        if (layers := network_in(trial.params))
    ]
    collected: dict[Network, list[float]] = {}
    for one in grown:
        for k, value in one.values.items():
            collected.setdefault(one.layers[:k], []).append(value)
    names = study.metric_names
    return Layered(
        trials=tuple(grown),
        values={network: sum(values) / len(values) for network, values in collected.items()},
        sign=-1.0 if directions[objective] == StudyDirection.MINIMIZE else 1.0,
        value_name=names[objective] if names else _value_name(len(directions), objective),
        space=read_space(study),
        note=_note(trials, grown, bool(collected)),
    )


def _value_name(n_objectives: int, objective: int) -> str:
    return "Objective Value" if n_objectives == 1 else f"Objective Value {objective}"


def _values(trial: FrozenTrial, depth: int, objective: int) -> dict[int, float]:
    reports = trial.intermediate_values
    values = trial.values
    if reports and "n_layers" not in trial.params and max(reports) < depth and _come_to(reports, values):
        return {step + 1: value for step, value in sorted(reports.items()) if math.isfinite(value)}
    if not values or not math.isfinite(values[objective]):
        return {}
    return {depth: values[objective]}


def _come_to(reports: Mapping[int, float], values: Sequence[float] | None) -> bool:
    """Return whether the value of a trial is one of its reports.

    Otherwise the reports have another meaning, such as epochs. A trial with no value yet, or with an infinite
    one, counts as such.
    """
    if not values or not math.isfinite(values[0]):
        return True
    return any(math.isclose(report, values[0], rel_tol=1e-6, abs_tol=1e-9) for report in reports.values())


def _note(trials: Sequence[FrozenTrial], grown: Sequence[Grown], has_values: bool) -> str:
    finished = [trial for trial in trials if trial.state.is_finished()]
    if not finished and not grown:
        return NO_FINISHED_TRIAL
    if finished and not has_values and (note := all_failed(finished)):
        return note
    if not grown:
        return "No trial of the study has the layers of a LayerSpace."
    if not has_values:
        return "No trial with layers has a value yet."
    return ""


def all_failed(finished: Sequence[FrozenTrial]) -> str:
    """Return a sentence if all finished trials have failed. Otherwise it is empty."""
    if any(trial.state != TrialState.FAIL for trial in finished):
        return ""
    return f"All {len(finished)} finished trials of the study failed."


def feasible(trial: FrozenTrial) -> bool:
    """Return whether every constraint of the trial is at most 0."""
    return all(value <= 0 for value in trial.constraints.values())


def decimal(value: float, *, signed: bool = False) -> str:
    """Format a number for readers.

    Integers of at least 2 in magnitude have no decimals. Other numbers have four decimals, or four
    significant digits where four decimals would show too few or too many digits.

    Examples:
        >>> decimal(0.98765), decimal(3e-6), decimal(12.3456), decimal(1234567.0), decimal(0.5, signed=True)
        ('0.9877', '3e-06', '12.35', '1,234,567', '+0.5000')
    """
    sign = "+" if signed else ""
    if math.isfinite(value) and value == round(value) and 2 <= abs(value) < 1e15:
        return f"{value:{sign},.0f}"
    return f"{value:{sign}.4f}" if 1e-3 <= abs(value) < 2 or value == 0 else f"{value:{sign}.4g}"


def count(number: int | None) -> str:
    """Format a number of parameters or operations for readers. None, an unknown number, is empty."""
    return "" if number is None else f"{number:,}"


def read_space(study: Study) -> LayerSpace | None:
    """Return the search space that the study records, or None if it records none or an unknown one."""
    settings = study.user_attrs.get(SPACE_ATTRIBUTE)
    try:
        return None if settings is None else LayerSpace.from_settings(settings)
    except ValueError as error:
        _warn_once(study.study_name, f"The study's attribute {SPACE_ATTRIBUTE!r} is not understood: {error}.")
        return None


@functools.lru_cache(maxsize=100)
def _warn_once(study_name: str, warning: str) -> None:
    """Log a warning once, because all figures of a report read the same study."""
    logger.warning(warning)


def find_trial(study: Study, trial: FrozenTrial | int | None) -> FrozenTrial | None:
    """Return the trial, which is given directly or by its number. None stays None.

    Raises:
        ValueError: If the study has no trial with that number.
    """
    if trial is None or isinstance(trial, FrozenTrial):
        return trial
    trials = study.get_trials(deepcopy=False)
    for one in trials:
        if one.number == trial and not isinstance(trial, bool):
            return one
    known = f"the trials 0 to {len(trials) - 1}" if trials else "no trial"
    raise ValueError(f"trial is {trial!r}; the study has {known}")
