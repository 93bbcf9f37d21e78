"""Steps of a trial as tokens of a transformer."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from optuna_trlhpo.agent.config import AgentConfig

NAME_CODE = 16
"""N: length of the code of a name."""
MOST_KINDS = 8
"""K: largest number of values of a step's first parameter that are encoded as one of K."""
_BINS = 8


class Steps(NamedTuple):
    """Layers, or candidates for one. Empty positions are 0."""

    actions: Tensor  # [B, S, A] in [0, 1]
    filled: Tensor  # [B, S, A] 1 where there is an action, else 0
    names: Tensor  # [B, S, A, N] codes of the parameters' names
    performance: Tensor  # [B, S, P]
    measured: Tensor  # [B, S] 1 where the performance is known, else 0
    weights: Tensor  # [B, S, O] this trial's weights of the O objectives; O = 0 with a single objective
    kinds: Tensor  # [B, S, K] one-hot value of a step's first parameter, a category of up to K values; else 0
    allowed: Tensor  # [B, S, K] 1 for the values that the first parameter could have; 0 if it is no such one

    def unmeasured(self) -> Steps:
        """Steps without their performance, as a query to the critic before any training."""
        return self._replace(
            performance=torch.zeros_like(self.performance), measured=torch.zeros_like(self.measured)
        )

    def unfilled(self) -> Steps:
        """Steps with only the name of their first parameter, as a query to the actor."""
        first = torch.zeros_like(self.filled)
        first[..., 0] = 1
        return self.unmeasured()._replace(
            actions=torch.zeros_like(self.actions),
            filled=torch.zeros_like(self.filled),
            names=self.names * first.unsqueeze(-1),
            kinds=torch.zeros_like(self.kinds),
        )

    def at(self, start: int, stop: int) -> Steps:
        """Steps from ``start`` to ``stop``."""
        return Steps(*(tensor[:, start:stop] for tensor in self))


class FrozenIMR(nn.Module):
    """Intermediate model representation: tanh(W1 action + W2 performance), random and fixed (section IV).

    Actions and accuracies enter as numbers in [-1, 1], and W1 and W2 are scaled so that either contributes
    about as much as the positional encoding.
    """

    def __init__(self, config: AgentConfig, *, n_slots: int, n_performance: int, n_weights: int) -> None:
        super().__init__()
        self.n_features = n_slots + MOST_KINDS + n_performance + n_weights
        self.linear = nn.Linear(self.n_features, config.width, bias=False)  # W1 and W2 side by side
        with torch.no_grad():
            nn.init.normal_(self.linear.weight)
            self.linear.weight[:, n_slots + MOST_KINDS :] /= math.sqrt(n_performance)
        self.requires_grad_(False)

    def forward(self, steps: Steps) -> Tensor:
        return torch.tanh(self.linear(self.features(steps)))  # [B, S, W]

    def features(self, steps: Steps) -> Tensor:
        """Inputs of the linear map, ``[B, S, n_features]``."""
        actions = (2 * steps.actions - 1) * steps.filled
        performance = (2 * steps.performance - 1) * steps.measured.unsqueeze(-1)
        return torch.cat([actions, steps.kinds, performance, steps.weights], dim=-1)


class LearnedIMR(nn.Module):
    """Intermediate model representation that is learned, and includes the names of the slots.

    A slot is encoded by its action, by the action in eight overlapping bins (which separate neighbouring
    choices and still have a gradient), and by its name.
    """

    centres: Tensor

    def __init__(self, config: AgentConfig, *, n_slots: int, n_performance: int, n_weights: int) -> None:
        super().__init__()
        self.n_features = n_slots * (2 + _BINS + NAME_CODE) + MOST_KINDS + n_performance + 1 + n_weights
        self.layers = nn.Sequential(
            nn.Linear(self.n_features, 2 * config.width), nn.GELU(), nn.Linear(2 * config.width, config.width)
        )
        self.register_buffer("centres", (torch.arange(_BINS) + 0.5) / _BINS)

    def forward(self, steps: Steps) -> Tensor:
        return self.layers(self.features(steps))  # [B, S, W]

    def features(self, steps: Steps) -> Tensor:
        """Inputs of the network, ``[B, S, n_features]``."""
        bins = torch.relu(1 - _BINS * (steps.actions.unsqueeze(-1) - self.centres).abs())  # [B, S, A, bins]
        filled = steps.filled.unsqueeze(-1)
        slots = torch.cat([filled, filled * steps.actions.unsqueeze(-1), filled * bins, steps.names], dim=-1)
        measured = steps.measured.unsqueeze(-1)
        parts = [slots.flatten(-2), steps.kinds, steps.performance, measured, steps.weights]
        return torch.cat(parts, dim=-1)


def make_imr(config: AgentConfig, n_slots: int, n_performance: int, n_weights: int) -> FrozenIMR | LearnedIMR:
    """Create the intermediate model representation that the settings name."""
    cls = LearnedIMR if config.learned_imr else FrozenIMR
    return cls(config, n_slots=n_slots, n_performance=n_performance, n_weights=n_weights)
