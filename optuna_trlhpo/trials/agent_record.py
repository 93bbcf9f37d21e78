"""The agent's record of a trial, stored with the trial: its forecasts, Q-values and attention weights."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from optuna.trial import FrozenTrial

from optuna_trlhpo.trials.attributes import finite_number, is_integer

AGENT_ATTRIBUTE = "trlhpo:agent"

ACTOR, ACTOR_NEIGHBOUR, INCUMBENT_NEIGHBOUR, CHANCE = ORIGINS = (
    "actor",
    "actor's neighbour",
    "incumbent's neighbour",
    "chance",
)
"""Proposers of a plan: the pretrained actor; a variation of what it proposed; a variation of a network, or a
configuration, that has been tried; or a random combination of known layers, or random values."""
PLAIN, SPACE, GROWTH = "plain", "space", "growth"
"""What trials ask for, see `AgentRecord`."""
MOST_CHARACTERS = 2000
"""Largest size of a stored `AgentRecord`, in characters."""
_DIGITS = 3
_MOST = 16**_DIGITS - 1
"""Attention weights are stored as hexadecimal numbers of three digits."""
_PLACES = 16 ** np.arange(_DIGITS)[::-1]
_NIBBLES = np.zeros(256)
_NIBBLES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)
_ROWS = re.compile(rf"([1-9][0-9]{{0,3}}):((?:[0-9a-f]{{{_DIGITS}}})+)")
_MOST_STEPS = 32
"""Largest number of steps, or plans, of which forecasts are stored."""
_REPLAYED = "asked", "corrected", "given", "excluded"
"""Attributes of a record that a new sampler reads, to go on as one that has followed the trial."""
_MOST_REPLAYED = 500
"""Largest number of values of each that are stored."""


class Forecast(NamedTuple):
    """The critic's prediction for a planned network, in the unit of the study's values.

    Attributes:
        n_fixed: Number of steps that the trial had when the plan was made.
        steps: Number of steps of the planned network.
        value: Predicted mean.
        low: Mean minus one standard deviation.
        high: Mean plus one standard deviation.
    """

    n_fixed: int
    steps: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class AgentRecord:
    """The agent's record of one trial.

    Attributes:
        by: Name of the decision maker: "actor", or the critic that ranked plans: "posterior", "transformer",
            "perceptron".
        origin: Proposer of the trial's first plan, one of `ORIGINS`; None where it is not recorded.
        gain: Improvement over the best value, 0 or more, that the critic expects of the trial's first plan,
            in the unit of the study's values; None where no critic ranks plans, and for several objectives.
        plans: One `Forecast` for each plan, in order, of a critic that ranks plans.
        q: ``[S]`` Q(state, action) of each executed step by the paper's critic, the mean over the ensemble,
            in [-1, 1].
        spread: ``[S]`` standard deviation over the ensemble.
        bootstrapped: Whether Q is of rewards, as in the paper; otherwise of rank scores.
        exploration: Fraction in [0, 1] of the noise added to the actor.
        losses: Losses of critic and actor, when they last learned before this trial; None for an actor that
            did not learn. In the paper's agent these are the mean squared error of Q, and -Q of the actor's
            actions. Of a critic that ranks plans it is the negative log evidence per value.
        attention: By "actor" and "critic", rows k = 1 to S, each ``[H, k + 1]``: the attention weights of the
            first k steps, then that of the query. The query is the step after these k (of a critic that ranks
            plans, the value of the network of these k steps; of the pretrained actor, the features of the
            space). The weights of a row sum to 1.
        asked: What the trial has asked for: `PLAIN`, parameters outside of any `LayerSpace`; `SPACE`, layers
            of one; `GROWTH`, whether to train, or to grow further.
        corrected: Numbers of parameters of the trial behind which it asked for another one than predicted.
        given: Positions of parameters, from 0, that got a value without asking the sampler, as where another
            one fixes it.
        excluded: Digests of planned networks that the objective did not offer.
    """

    by: str
    plans: tuple[Forecast, ...] = ()
    origin: str | None = None
    gain: float | None = None
    q: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()
    bootstrapped: bool = True
    exploration: float | None = None
    losses: tuple[float, float | None] | None = None
    attention: Mapping[str, Sequence[np.ndarray]] = field(default_factory=dict)
    asked: tuple[str, ...] = ()
    corrected: tuple[int, ...] = ()
    given: tuple[int, ...] = ()
    excluded: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the stored form, without empty parts.

        If the attention weights would make it exceed `MOST_CHARACTERS`, their mean over the heads is stored;
        if that is still too large, none are.
        """
        stored: dict[str, Any] = {"by": self.by}
        if self.origin is not None:
            stored["origin"] = self.origin
        if self.gain is not None and math.isfinite(self.gain):
            stored["gain"] = _rounded(self.gain)
        plans = [plan for plan in self.plans if all(map(math.isfinite, plan))]  # JSON has finite numbers only
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
        for name in _REPLAYED:
            if values := getattr(self, name):
                stored[name] = [*values[:_MOST_REPLAYED]]
        room = MOST_CHARACTERS - len(str(stored)) - 60
        for average in (False, True):
            written = {role: _written(rows, average) for role, rows in self.attention.items() if rows}
            if written and sum(map(len, written.values())) <= room:
                stored["attention"] = written
                break
        return stored


def read_agent(trial: FrozenTrial) -> AgentRecord | None:
    """Return the agent's record of ``trial``; None if there is none, or a part of it is invalid."""
    stored = trial.system_attrs.get(AGENT_ATTRIBUTE)
    try:
        return _read_agent(stored) if isinstance(stored, dict) else None
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None


def _read_agent(stored: dict[str, Any]) -> AgentRecord:
    """Parse a stored record. For any JSON value it raises only exceptions that `read_agent` handles."""
    by, bootstrapped = stored["by"], stored.get("bootstrapped", True)
    if not isinstance(by, str) or not isinstance(bootstrapped, bool):
        raise ValueError("by must be a string, and bootstrapped True or False")
    q, spread = (tuple(map(finite_number, stored.get(name, ()))) for name in ("q", "spread"))
    if len(spread) not in (0, len(q)) or min(spread, default=0.0) < 0:
        raise ValueError("spread must be empty or have one value of at least 0 for each Q")
    exploration = None if stored.get("exploration") is None else finite_number(stored["exploration"])
    if exploration is not None and not 0 <= exploration <= 1:
        raise ValueError("exploration must be between 0 and 1")
    losses = None
    if stored.get("losses") is not None:
        of_critic, of_actor = stored["losses"]
        losses = finite_number(of_critic), None if of_actor is None else finite_number(of_actor)
    attention = stored.get("attention", {})
    if not isinstance(attention, dict):
        raise ValueError("attention must be a dictionary")
    origin = stored.get("origin")
    if origin is not None and origin not in ORIGINS:
        raise ValueError(f"origin must be one of {', '.join(ORIGINS)}")
    gain = None if stored.get("gain") is None else finite_number(stored["gain"])
    if gain is not None and gain < 0:
        raise ValueError("gain must be at least 0")
    asked, corrected, given, excluded = (tuple(stored.get(name, ())) for name in _REPLAYED)
    if not set(asked) <= {PLAIN, SPACE, GROWTH}:
        raise ValueError(f"asked must be some of {PLAIN}, {SPACE}, {GROWTH}")
    if not all(is_integer(n, least=0) for n in (*corrected, *given)):
        raise ValueError("corrected and given must be numbers of parameters")
    if not all(isinstance(text, str) for text in excluded):
        raise ValueError("excluded must be strings")
    return AgentRecord(
        by=by,
        origin=origin,
        gain=gain,
        plans=tuple(map(_read_plan, stored.get("plans", ()))),
        q=q,
        spread=spread,
        bootstrapped=bootstrapped,
        exploration=exploration,
        losses=losses,
        attention={role: _rows_of(attention[role]) for role in attention if role in ("actor", "critic")},
        asked=asked,
        corrected=corrected,
        given=given,
        excluded=excluded,
    )


def _read_plan(stored: Any) -> Forecast:
    n_fixed, steps, *values = stored
    value, low, high = map(finite_number, values)
    if not (is_integer(n_fixed, least=0) and is_integer(steps, least=1) and low <= value <= high):
        raise ValueError("a plan must have two numbers of steps, and a value between low and high")
    return Forecast(n_fixed, steps, value, low, high)


def _rounded(value: float, digits: int = 4) -> float:
    return float(f"{value:.{digits}g}")


def _of_plan(plan: Forecast) -> list[float]:
    # Values may be close together and far from 0.
    return [plan.n_fixed, plan.steps, *(_rounded(value, 6) for value in plan[2:])]


def _written(rows: Sequence[np.ndarray], average: bool) -> str:
    """Return the attention weights in the stored form, ``"<H>:<digits>"``."""
    if average:
        rows = [row.mean(axis=0, keepdims=True) for row in rows]
    digits = "".join(f"{round(_MOST * float(weight)):0{_DIGITS}x}" for row in rows for weight in row.flat)
    return f"{len(rows[0])}:{digits}"


def _rows_of(text: Any) -> list[np.ndarray]:
    match = _ROWS.fullmatch(text)
    if match is None:
        raise ValueError("attention must have the form '<heads>:<hexadecimal digits>'")
    H = int(match[1])
    # `bytes.fromhex` decodes pairs of digits only.
    weights = _NIBBLES[np.frombuffer(match[2].encode(), np.uint8)].reshape(-1, _DIGITS) @ _PLACES / _MOST
    rows, start, k = [], 0, 1
    while start < len(weights):
        row = weights[start : start + H * (k + 1)].reshape(H, k + 1)
        if (np.abs(row.sum(axis=1) - 1) > (k + 1) / _MOST).any():  # twice the largest rounding error
            raise ValueError("the weights of a row must sum to 1")
        rows.append(row)
        start, k = start + H * (k + 1), k + 1
    return rows
