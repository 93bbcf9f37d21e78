"""What is noted in a study beside parameters, reports and values, so that it can be explained from itself.

==================  =====================================================================================
`SEEN_ATTRIBUTE`    of a trial: when it reported what (see `episode`)
`AGENT_ATTRIBUTE`   of a trial: what the agent expected of it, and what it attended to (`AgentNote`)
`SAMPLER_ATTRIBUTE` of a study: the settings of the sampler
``trainings``       of a trial, a user attribute: its networks, what they came to and how long that took
``architecture``    of a trial, a user attribute: the best network that it has trained, as text
==================  =====================================================================================

A note is small, for storages only grow: that of the agent has at most `MOST_CHARACTERS`. Attributes may be
anybody's, or damaged. So each is checked where it is read, here alone, and a note of which a part is not
valid is read as nothing.

Notation: S steps, H heads (of all blocks, one block after the other).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from optuna.study import Study
from optuna.trial import BaseTrial, FrozenTrial

from optuna_trlhpo.layers import Network, describe, parse

SEEN_ATTRIBUTE = "trlhpo:seen"
AGENT_ATTRIBUTE = "trlhpo:agent"
SAMPLER_ATTRIBUTE = "trlhpo:sampler"
TRAININGS_ATTRIBUTE = "trainings"
ARCHITECTURE_ATTRIBUTE = "architecture"

MOST_CHARACTERS = 2000
"""Of an `AgentNote` as it is stored."""
_DIGITS = 3
_MOST = 16**_DIGITS - 1
"""Weights of attention are kept as hexadecimal numbers of three digits."""
_PLACES = 16 ** np.arange(_DIGITS)[::-1]
_NIBBLES = np.zeros(256)
_NIBBLES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)
_ROWS = re.compile(rf"([1-9][0-9]{{0,3}}):((?:[0-9a-f]{{{_DIGITS}}})+)")
_MOST_STEPS = 32
"""Of which expectations are kept."""


# Writing: samplers have no public way to write an attribute of a running trial, nor one of a study that is
# a bracket of Hyperband's. Optuna's own samplers go this way too; here alone it is gone.


def write_to_trial(study: Study, trial: FrozenTrial, name: str, value: Any) -> None:
    """Keep ``value``, which JSON can hold, with the running ``trial``."""
    study._storage.set_trial_system_attr(trial._trial_id, name, value)


def write_to_study(study: Study, name: str, value: Any) -> None:
    """Keep ``value``, which JSON can hold, with the study."""
    study._storage.set_study_system_attr(study._study_id, name, value)


def read_from_study(study: Study, name: str) -> Any:
    """What `write_to_study` has kept; None if there is nothing."""
    return study._storage.get_study_system_attrs(study._study_id).get(name)


# Numbers ------------------------------------------------------------------------------------------------


def finite(value: Any) -> float | None:
    """A number of JSON as a finite float; None for all else, also for True, NaN and an integer beyond floats.

    Example:
        >>> finite(3), finite(True), finite(10**400), finite("3"), finite(float("nan"))
        (3.0, None, None, None, None)
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def is_integer(value: Any, *, least: int) -> bool:
    """Whether it is an integer of at least ``least``; True is none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _finite(value: Any) -> float:
    number = finite(value)
    if number is None:
        raise ValueError(f"{type(value).__name__} is not a finite number")
    return number


# What Optuna notes --------------------------------------------------------------------------------------


def fixed_params(trial: FrozenTrial) -> dict[str, Any]:
    """Values by name that the trial has if it asks for these parameters: it was enqueued, or is a retry.

    Optuna keeps them for itself, and has no public way to read them.

    Example:
        >>> import optuna
        >>> study = optuna.create_study()
        >>> study.enqueue_trial({"x": 1})
        >>> fixed_params(study.trials[0])
        {'x': 1}
    """
    fixed = trial.system_attrs.get("fixed_params")
    if not isinstance(fixed, Mapping):
        return {}
    return {name: value for name, value in fixed.items() if isinstance(name, str)}


# Reports ------------------------------------------------------------------------------------------------


def seen_in(trial: FrozenTrial) -> list[tuple[int, int]]:
    """When the trial reported what, as far as it was noted.

    Pairs (n, step) say "when it had n parameters, the report of that step was the last". Both rise; n is 1 to
    the number of the trial's parameters, step is 0 or more.

    Example:
        >>> import optuna
        >>> from optuna.distributions import IntDistribution
        >>> one = dict(params={"x": 1}, distributions={"x": IntDistribution(0, 1)}, value=1)
        >>> seen_in(optuna.create_trial(**one, system_attrs={SEEN_ATTRIBUTE: [[1, 0]]}))
        [(1, 0)]
        >>> seen_in(optuna.create_trial(**one, system_attrs={SEEN_ATTRIBUTE: [[2, 0]]}))
        []
    """
    stored = trial.system_attrs.get(SEEN_ATTRIBUTE)
    seen: list[tuple[int, int]] = []
    for pair in stored if isinstance(stored, list) else ():
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            return []
        (n, step), (last_n, last_step) = pair, seen[-1] if seen else (0, -1)
        if not (is_integer(n, least=last_n + 1) and is_integer(step, least=last_step + 1)):
            return []
        if n > len(trial.params):
            return []
        seen.append((n, step))
    return seen


# The agent ----------------------------------------------------------------------------------------------


class Expected(NamedTuple):
    """What the critic expected of the network that it planned, in the unit of the study's values.

    Attributes:
        settled: Steps that the trial had when the plan was made.
        steps: Steps of the planned network.
        value: The mean.
        low: A standard deviation below it.
        high: A standard deviation above it.
    """

    settled: int
    steps: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class AgentNote:
    """What the agent made of one trial.

    Attributes:
        by: What decided: "actor", or the critic that ranked plans: "posterior", "transformer", "perceptron".
        plans: Of a critic that ranks plans: one `Expected` for each plan, in order.
        q: ``[S]`` of the paper's critic: Q(state, action) of each step as it was carried out, the mean of
            its members, in [-1, 1].
        spread: ``[S]`` the standard deviation of its members.
        bootstrapped: Whether Q is of rewards, the paper's; else of scores of ranks.
        exploration: The share in [0, 1] of the noise that was on the actor.
        losses: Of critic and actor, means over the updates before this trial; None for an actor that was
            left alone.
        attention: By "actor" and "critic" rows k = 1 to S, each ``[H, k + 1]``: the weights of the first k
            steps, and the weight of what is asked about. Asked is the step behind these k (where a critic
            ranks plans: what the network of these k steps is worth). Weights of a row sum to 1.
    """

    by: str
    plans: tuple[Expected, ...] = ()
    q: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()
    bootstrapped: bool = True
    exploration: float | None = None
    losses: tuple[float, float | None] | None = None
    attention: Mapping[str, Sequence[np.ndarray]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As it is stored; what is empty is left out.

        Where heads would make it larger than `MOST_CHARACTERS` their mean is kept, and if that is still too
        large, none of the attention.
        """
        stored: dict[str, Any] = {"by": self.by}
        plans = [plan for plan in self.plans if all(map(math.isfinite, plan))]  # JSON knows no others
        if plans:
            last = plans[-_MOST_STEPS:]
            stored["plans"] = [_of_plan(plan) for plan in last]
        if self.q and all(map(math.isfinite, (*self.q, *self.spread))):
            stored["q"] = [_rounded(value) for value in self.q[:_MOST_STEPS]]
            stored["bootstrapped"] = self.bootstrapped
            if any(self.spread):
                stored["spread"] = [_rounded(value) for value in self.spread[:_MOST_STEPS]]
        if self.exploration is not None:
            stored["exploration"] = _rounded(self.exploration)
        if self.losses is not None and all(value is None or math.isfinite(value) for value in self.losses):
            stored["losses"] = [None if value is None else _rounded(value) for value in self.losses]
        room = MOST_CHARACTERS - len(str(stored)) - 60
        for average in (False, True):
            written = {whose: _written(rows, average) for whose, rows in self.attention.items() if rows}
            if written and sum(map(len, written.values())) <= room:
                stored["attention"] = written
                break
        return stored


def read_agent(trial: FrozenTrial) -> AgentNote | None:
    """What the agent noted of ``trial``; None if there is no note, or one of which a part is not valid."""
    stored = trial.system_attrs.get(AGENT_ATTRIBUTE)
    try:
        return _read_agent(stored) if isinstance(stored, dict) else None
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None


def _read_agent(stored: dict[str, Any]) -> AgentNote:
    """Raises anything but what `read_agent` expects for nothing that JSON can hold."""
    by, bootstrapped = stored["by"], stored.get("bootstrapped", True)
    if not isinstance(by, str) or not isinstance(bootstrapped, bool):
        raise ValueError("these are no texts and switches")
    q, spread = (tuple(map(_finite, stored.get(name, ()))) for name in ("q", "spread"))
    if len(spread) not in (0, len(q)) or min(spread, default=0.0) < 0:
        raise ValueError("there must be a spread for each Q")
    exploration = None if stored.get("exploration") is None else _finite(stored["exploration"])
    if exploration is not None and not 0 <= exploration <= 1:
        raise ValueError("exploration must be between 0 and 1")
    losses = None
    if stored.get("losses") is not None:
        of_critic, of_actor = stored["losses"]
        losses = _finite(of_critic), None if of_actor is None else _finite(of_actor)
    attention = stored.get("attention", {})
    if not isinstance(attention, dict):
        raise ValueError("attention must be by actor and critic")
    return AgentNote(
        by=by,
        plans=tuple(map(_read_plan, stored.get("plans", ()))),
        q=q,
        spread=spread,
        bootstrapped=bootstrapped,
        exploration=exploration,
        losses=losses,
        attention={whose: _rows_of(attention[whose]) for whose in attention if whose in ("actor", "critic")},
    )


def _read_plan(stored: Any) -> Expected:
    settled, steps, *values = stored
    value, low, high = map(_finite, values)
    if not (is_integer(settled, least=0) and is_integer(steps, least=1) and low <= value <= high):
        raise ValueError("a plan has numbers of steps, and a value between low and high")
    return Expected(settled, steps, value, low, high)


def _rounded(value: float, digits: int = 4) -> float:
    return float(f"{value:.{digits}g}")


def _of_plan(plan: Expected) -> list[float]:
    # Values may lie close together, far from 0.
    return [plan.settled, plan.steps, *(_rounded(value, 6) for value in plan[2:])]


def _written(rows: Sequence[np.ndarray], average: bool) -> str:
    """``"<H>:<digits>"``."""
    if average:
        rows = [row.mean(axis=0, keepdims=True) for row in rows]
    digits = "".join(f"{round(_MOST * float(weight)):0{_DIGITS}x}" for row in rows for weight in row.flat)
    return f"{len(rows[0])}:{digits}"


def _rows_of(text: Any) -> list[np.ndarray]:
    match = _ROWS.fullmatch(text)
    if match is None:
        raise ValueError("attention has another form")
    H = int(match[1])
    # As `bytes.fromhex`, which knows pairs alone.
    weights = _NIBBLES[np.frombuffer(match[2].encode(), np.uint8)].reshape(-1, _DIGITS) @ _PLACES / _MOST
    rows, start, k = [], 0, 1
    while start < len(weights):
        row = weights[start : start + H * (k + 1)].reshape(H, k + 1)
        if (np.abs(row.sum(axis=1) - 1) > (k + 1) / _MOST).any():  # twice what rounding can do
            raise ValueError("the weights of a row must sum to 1")
        rows.append(row)
        start, k = start + H * (k + 1), k + 1
    return rows


# Trainings ----------------------------------------------------------------------------------------------


class Training(NamedTuple):
    """A network of a trial: the one of ``step + 1`` layers."""

    step: int
    accuracy: float
    seconds: float
    looked_up: bool
    """Whether it was not trained, for another trial had trained it."""
    curve: tuple[float, ...] = ()
    """Accuracies after each epoch but the last, where they were watched."""
    stopped: bool = False
    """Whether the training was stopped early."""


def write_training(before: str, training: Training) -> str:
    """``before``, the attribute as it was (at first a key of the setting), with one training more.

    Example:
        >>> write_training("1f2e3d4c", Training(0, 0.9125, 2.514, looked_up=False))
        '1f2e3d4c 0:0.9125:2.51'
    """
    mark = "=" if training.looked_up else ""
    entry = f"{training.step}:{training.accuracy!r}:{mark}{training.seconds:.3g}"
    if training.curve:
        entry += f":{'/'.join(map(repr, training.curve))}{'!' if training.stopped else ''}"
    return f"{before} {entry}"


def read_trainings(trial: BaseTrial) -> tuple[str, list[Training]]:
    """The key of the setting, and the trainings; an empty key if there is no such note."""
    text = trial.user_attrs.get(TRAININGS_ATTRIBUTE)
    if not isinstance(text, str):
        return "", []
    key, *entries = text.split(" ")
    trainings = [training for entry in entries if (training := _training(entry)) is not None]
    return (key, trainings) if len(trainings) == len(entries) else ("", [])


_NUMBER = r"[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]{1,3})?"
_TRAINING = re.compile(
    rf"([0-9]{{1,4}}):({_NUMBER}):(=?)({_NUMBER})(?::({_NUMBER}(?:/{_NUMBER})*)(!?))?", re.ASCII
)


def _training(entry: str) -> Training | None:
    match = _TRAINING.fullmatch(entry)
    if match is None:
        return None
    step, accuracy, mark, seconds, points, stopped = match.groups()
    curve = tuple(map(float, points.split("/"))) if points else ()
    if not all(0 <= share <= 1 for share in (float(accuracy), *curve)) or finite(float(seconds)) is None:
        return None
    return Training(int(step), float(accuracy), float(seconds), bool(mark), curve, bool(stopped))


# The best network ---------------------------------------------------------------------------------------


def read_architecture(trial: BaseTrial) -> tuple[str, Network] | None:
    """The best network of a trial, as text and as layers; None if it has none, or what is no network."""
    text = trial.user_attrs.get(ARCHITECTURE_ATTRIBUTE)
    if not isinstance(text, str):
        return None
    try:
        layers = parse(text)
    except ValueError:
        return None
    return (describe(layers), layers) if layers else None


def read_count(trial: BaseTrial, name: str) -> int | float | None:
    """What the best network of a trial costs, such as its ``"macs"``: the user attribute of that name.

    None where it is not a finite number of 0 or more.
    """
    value = trial.user_attrs.get(name)
    number = finite(value)
    return value if number is not None and number >= 0 else None
