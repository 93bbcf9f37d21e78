"""What a study tells of layers: its networks, what each came to, and what each layer added.

Notation: k layers deep. A *reward* is what a layer added, positive where it made the network better,
whichever way the study goes (section IV of the paper).
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

import optuna_trlhpo.layers.kinds  # noqa: F401  so that its vocabularies are known
from optuna_trlhpo.layers import Layer, Network, network_in
from optuna_trlhpo.space import LayerSpace
from optuna_trlhpo.space.growth import SPACE_ATTRIBUTE

logger = optuna.logging.get_logger("optuna.trlhpo.visualization")

SHOWN = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


NONE_FEASIBLE = "No trial with layers is within all its constraints."


class Grown(NamedTuple):
    """A trial that grew layers.

    Attributes:
        number: The trial's.
        layers: All it had.
        values: By depth, what the network of so many layers came to, in the unit of the study's values.
        feasible: Whether the trial is within all its constraints.
    """

    number: int
    layers: Network
    values: dict[int, float]
    feasible: bool = True


class Reward(NamedTuple):
    """What a layer added."""

    number: int
    network: Network
    """The layers up to this one, which is the last."""
    reward: float

    @property
    def position(self) -> int:
        """1 for the first layer."""
        return len(self.network)

    @property
    def layer(self) -> Layer:
        return self.network[-1]


@dataclass(frozen=True)
class Layered:
    """The trials of a study that grew layers.

    Attributes:
        trials: In order; complete, pruned and running ones.
        values: What each network came to, the mean over the trials that had it.
        sign: 1 where more is better, -1 where less is.
        value_name: What the values are called.
        space: What the networks were grown in; None where the study does not tell.
        note: One sentence where there is nothing to show; else empty.
    """

    trials: tuple[Grown, ...]
    values: dict[Network, float]
    sign: float
    value_name: str
    space: LayerSpace | None
    note: str

    @property
    def before_any_layer(self) -> float | None:
        """The value that a network without layers is held to have: of accuracies 0, of error rates 1; None
        where the values are neither, and the first layer's reward is not defined. What lies in [0, 1] and is
        to be minimised may be a loss as well, so an error rate is what is called an error."""
        if not self.values or not all(0 <= value <= 1 for value in self.values.values()):
            return None
        if self.sign > 0:
            return 0.0
        return 1.0 if "error" in self.value_name.lower() else None

    def rewards(self) -> Iterator[Reward]:
        """Of every layer whose network and the one before it have a value, in this trial or elsewhere in the
        study."""
        for trial in self.trials:
            for k, value in trial.values.items():
                before = self.before_any_layer if k == 1 else trial.values.get(k - 1)
                if before is None and k > 1:
                    before = self.values.get(trial.layers[: k - 1])
                if before is not None:
                    yield Reward(trial.number, trial.layers[:k], self.sign * (value - before))

    def best(self) -> tuple[Grown, int] | None:
        """The trial with the best network, and how many of its layers that has; of equals the first. None
        where no trial has a value and is within its constraints."""
        within = [trial for trial in self.trials if trial.feasible]
        found = [(self.sign * v, -t.number, -k, t, k) for t in within for k, v in t.values.items()]
        if not found:
            return None
        *_, trial, depth = max(found, key=lambda item: item[:3])
        return trial, depth


def read_layers(study: Study, objective: int = 0) -> Layered:
    """What ``study`` tells of layers.

    A report at step k is the value of the network of k + 1 layers, as `LayerSpace.grow` asks for it. Where a
    trial suggested its network whole (`LayerSpace.suggest`), or reported more steps than it has layers,
    reports are something else, and its value alone counts, as that of all its layers. So it is where the
    value of a complete trial is none of its reports: these may be of epochs.

    Args:
        study: A study of any sampler.
        objective: Which of the study's objectives, from 0.

    Raises:
        ValueError: If there is no such objective.
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
    """Whether a trial's value is one of its reports; else these are of something else, such as epochs. One
    that has not been told its value yet, or an infinite one, is taken at its reports."""
    if not values or not math.isfinite(values[0]):
        return True
    return any(math.isclose(report, values[0], rel_tol=1e-6, abs_tol=1e-9) for report in reports.values())


def _note(trials: Sequence[FrozenTrial], grown: Sequence[Grown], has_values: bool) -> str:
    finished = [trial for trial in trials if trial.state.is_finished()]
    if not finished and not grown:
        return "The study has no finished trial."
    if finished and all(trial.state == TrialState.FAIL for trial in finished) and not has_values:
        return f"All {len(finished)} finished trials of the study failed."
    if not grown:
        return "No trial of the study has the layers of a LayerSpace."
    if not has_values:
        return "No trial with layers has a value yet."
    return ""


def feasible(trial: FrozenTrial) -> bool:
    """Whether every constraint of the trial is at most 0."""
    return all(value <= 0 for value in trial.constraints.values())


def decimal(value: float, *, signed: bool = False) -> str:
    """As people read it: four decimals, or as many digits where these would say little.

    Example:
        >>> decimal(0.98765), decimal(3e-6), decimal(12.3456), decimal(1234567.0), decimal(0.5, signed=True)
        ('0.9877', '3e-06', '12.35', '1,234,567', '+0.5000')
    """
    sign = "+" if signed else ""
    if math.isfinite(value) and value == round(value) and 2 <= abs(value) < 1e15:
        return f"{value:{sign},.0f}"
    return f"{value:{sign}.4f}" if 1e-3 <= abs(value) < 2 or value == 0 else f"{value:{sign}.4g}"


def read_space(study: Study) -> LayerSpace | None:
    """The space that the study's networks were grown in; None where it does not tell."""
    settings = study.user_attrs.get(SPACE_ATTRIBUTE)
    try:
        return None if settings is None else LayerSpace.from_settings(settings)
    except ValueError as error:
        _warn_once(study.study_name, f"The study's attribute {SPACE_ATTRIBUTE!r} is not understood: {error}.")
        return None


@functools.lru_cache(maxsize=100)
def _warn_once(study_name: str, warning: str) -> None:
    """All figures of a report read the same."""
    logger.warning(warning)


def find_trial(study: Study, trial: FrozenTrial | int | None) -> FrozenTrial | None:
    """The trial that is meant, by itself or by its number.

    Raises:
        ValueError: If the study has no trial of that number.
    """
    if trial is None or isinstance(trial, FrozenTrial):
        return trial
    trials = study.get_trials(deepcopy=False)
    for one in trials:
        if one.number == trial and not isinstance(trial, bool):
            return one
    known = f"the trials 0 to {len(trials) - 1}" if trials else "no trial"
    raise ValueError(f"trial is {trial!r}; the study has {known}")
