"""What is noted in a study beside parameters, reports and values, so that it can be explained from itself.

==================  =====================================================================================
`SEEN_ATTRIBUTE`    of a trial: when it reported what (see `episode`)
`AGENT_ATTRIBUTE`   of a trial: what the agent expected of it, and what it attended to (`AgentNote`)
`SAMPLER_ATTRIBUTE` of a study: the settings of the sampler
``trainings``       of a trial, a user attribute: its networks, what they came to and how long that took
==================  =====================================================================================

A note is small, for storages only grow: that of the agent has at most `MOST_CHARACTERS`. Attributes may be
anybody's: what was not written here is read as nothing.

Notation: S steps, H heads (of all blocks, one block after the other).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial

from optuna_trlhpo.episode import Seen

SEEN_ATTRIBUTE = "trlhpo:seen"
AGENT_ATTRIBUTE = "trlhpo:agent"
SAMPLER_ATTRIBUTE = "trlhpo:sampler"
TRAININGS_ATTRIBUTE = "trainings"

MOST_CHARACTERS = 2000
"""Of an `AgentNote` as it is stored."""
_DIGITS = 3
_MOST = 16**_DIGITS - 1
"""Weights of attention are kept as hexadecimal numbers of three digits."""
_PLACES = 16 ** np.arange(_DIGITS)[::-1]
_NIBBLES = np.zeros(256)
_NIBBLES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)
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


# Reports ------------------------------------------------------------------------------------------------


def seen_in(trial: FrozenTrial) -> Seen:
    """When the trial reported what, as far as it was noted."""
    seen: Seen = trial.system_attrs.get(SEEN_ATTRIBUTE, [])
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
        if self.q:
            stored["q"] = [_rounded(value) for value in self.q[:_MOST_STEPS]]
            stored["bootstrapped"] = self.bootstrapped
        if any(self.spread):
            stored["spread"] = [_rounded(value) for value in self.spread[:_MOST_STEPS]]
        if self.exploration is not None:
            stored["exploration"] = _rounded(self.exploration)
        if self.losses is not None:
            stored["losses"] = [None if value is None else _rounded(value) for value in self.losses]
        room = MOST_CHARACTERS - len(str(stored)) - 60
        for average in (False, True):
            written = {whose: _written(rows, average) for whose, rows in self.attention.items() if rows}
            if written and sum(map(len, written.values())) <= room:
                stored["attention"] = written
                break
        return stored


def read_agent(trial: FrozenTrial) -> AgentNote | None:
    """What the agent noted of ``trial``; None if there is no such note, or one that is not understood."""
    stored = trial.system_attrs.get(AGENT_ATTRIBUTE)
    try:
        return _read_agent(stored)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None


def _read_agent(stored: Any) -> AgentNote | None:
    if stored is None:
        return None
    losses = stored.get("losses")
    exploration = stored.get("exploration")
    return AgentNote(
        by=str(stored["by"]),
        plans=tuple(Expected(int(a), int(b), *map(float, rest)) for a, b, *rest in stored.get("plans", ())),
        q=tuple(map(float, stored.get("q", ()))),
        spread=tuple(map(float, stored.get("spread", ()))),
        bootstrapped=bool(stored.get("bootstrapped", True)),
        exploration=None if exploration is None else float(exploration),
        losses=None
        if losses is None
        else (float(losses[0]), None if losses[1] is None else float(losses[1])),
        attention={
            whose: _rows_of(text)
            for whose, text in stored.get("attention", {}).items()
            if whose in ("actor", "critic")
        },
    )


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


def _rows_of(text: str) -> list[np.ndarray]:
    heads, _, digits = text.partition(":")
    H = int(heads)
    if H < 1 or not digits:
        raise ValueError(f"{text!r} has no weights")
    # As `bytes.fromhex`, which knows pairs alone.
    weights = _NIBBLES[np.frombuffer(digits.encode(), np.uint8)].reshape(-1, _DIGITS) @ _PLACES / _MOST
    rows, start, k = [], 0, 1
    while start < len(weights):
        rows.append(weights[start : start + H * (k + 1)].reshape(H, k + 1))
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


def read_trainings(trial: FrozenTrial | Trial) -> tuple[str, list[Training]]:
    """The key of the setting, and the trainings."""
    text = trial.user_attrs.get(TRAININGS_ATTRIBUTE)
    if not isinstance(text, str):
        return "", []
    return text.split(" ")[0], list(_trainings(text))


def _trainings(text: str) -> Iterator[Training]:
    number = r"[0-9.e+-]+"
    curve = rf"(?::((?:{number}/)*{number})(!?))?"
    pattern = rf"(?<= )(\d+):({number}):(=?)({number}){curve}(?= |$)"
    for step, accuracy, mark, seconds, points, stopped in re.findall(pattern, text):
        accuracies = tuple(map(float, points.split("/"))) if points else ()
        yield Training(int(step), float(accuracy), float(seconds), bool(mark), accuracies, bool(stopped))
