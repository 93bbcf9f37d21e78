"""The position in a trial: its choices so far, divided into steps, from which the states of agents are made.

A *choice* is the name of a parameter and its action (`actions`). Consecutive parameters with the same numbers
in their names, such as ``layer2_conv_filters`` and ``layer2_conv_kernel`` or ``n_units_l2`` and
``dropout_l2``, are one *step*; a parameter without a number is a step of its own. Parameters with a single
value are left out: they are no decision.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from optuna_trlhpo.baselines.q_learning.actions import action_of, actions_of
from optuna_trlhpo.baselines.q_learning.metaqnn_space import is_layer_name
from optuna_trlhpo.layers import hyperparameter_of, unmasked
from optuna_trlhpo.trials.parameter_names import parse_name

Choice = tuple[str, int]
"""Name of a parameter, without the list of remaining choices of a masked one, and its action."""


class Step(NamedTuple):
    """The choices of one step, in order."""

    places: tuple[int, ...]
    """The numbers in their names."""
    is_layer: bool
    """Whether it is a layer of a `LayerSpace` or a `MetaQNNSpace`."""
    choices: list[Choice]


class TrialPosition:
    """The choices of a trial so far, in order.

    Args:
        n_bins: Largest number of actions of a number.

    Attributes:
        values: All parameters so far, those with a single value included.
        steps: Steps so far.

    Examples:
        >>> from optuna.distributions import CategoricalDistribution
        >>> position, kinds = TrialPosition(n_bins=4), CategoricalDistribution(["a", "b"])
        >>> for name in ("optimizer", "kind_l1", "size_l1", "kind_l2"):
        ...     position.push(name, kinds, "b")
        >>> [step.choices for step in position.steps]
        [[('optimizer', 1)], [('kind_l1', 1), ('size_l1', 1)], [('kind_l2', 1)]]
        >>> position.is_new_step("size_l2"), position.is_new_step("kind_l3")
        (False, True)
    """

    def __init__(self, n_bins: int) -> None:
        self.n_bins = n_bins
        self.values: dict[str, Any] = {}
        self.steps: list[Step] = []

    def push(self, name: str, distribution: BaseDistribution, value: Any) -> None:
        """Append a parameter."""
        if not distribution.single():
            if self.is_new_step(name):
                places = parse_name(unmasked(name)).places
                self.steps.append(Step(places, is_layer(name, distribution), []))
            action = action_of(name, distribution, value, self.n_bins)
            self.steps[-1].choices.append((unmasked(name), action))
        self.values[name] = value

    def catch_up(self, trial: FrozenTrial) -> None:
        """Append the parameters that the trial has got since the last call."""
        if len(trial.params) > len(self.values):
            for name, value in trial.params.items():
                if name not in self.values:
                    self.push(name, trial.distributions[name], value)

    def is_new_step(self, name: str) -> bool:
        """Return whether a parameter with this name begins a step here."""
        places = parse_name(unmasked(name)).places
        return not self.steps or not places or self.steps[-1].places != places

    def step_so_far(self, name: str) -> tuple[Choice, ...]:
        """Return the choices of the step of the next parameter, which has this name."""
        return () if self.is_new_step(name) else tuple(self.steps[-1].choices)

    def step_before(self, name: str) -> tuple[Choice, ...]:
        """Return the choices of the step before the one of the next parameter, which has this name."""
        before = self.steps if self.is_new_step(name) else self.steps[:-1]
        return tuple(before[-1].choices) if before else ()

    def actions(self, name: str, distribution: BaseDistribution) -> tuple[int, ...]:
        """Return the actions of the next parameter."""
        return actions_of(name, distribution, self.n_bins)


def is_layer(name: str, distribution: BaseDistribution) -> bool:
    """Return whether a parameter belongs to a layer of a `LayerSpace` or a `MetaQNNSpace`."""
    return is_layer_name(name) or hyperparameter_of(name, distribution) is not None
