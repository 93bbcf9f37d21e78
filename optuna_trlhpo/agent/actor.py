"""Actor of DDPG, which maps a state to the next action."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from optuna_trlhpo.agent.config import AgentConfig
from optuna_trlhpo.agent.tokens import MOST_KINDS, Steps, make_imr
from optuna_trlhpo.agent.transformer import Transformer, start_small


class Action(NamedTuple):
    """Actions of Q queries, in the form of `Steps`."""

    actions: Tensor  # [B, Q, A] in [0, 1]
    kinds: Tensor  # [B, Q, K] one-hot, with the gradient of the softmax; 0 where the first slot is an action


class Noise(NamedTuple):
    """Noise with which Q actions are chosen."""

    gumbel: Tensor  # [B, Q, K] added to the logits of the kinds
    normal: Tensor  # [B, Q, A] in deviations of a stochastic policy


class Actor(nn.Module):
    """mu(state): the next layer's action (section IV).

    The first parameter of a layer, its kind, is one of a few values without an order. It gets one logit for
    each value, masked by what may stand there. The largest is chosen, and the gradient is that of the softmax
    (straight-through Gumbel-softmax; Jang, Gu and Poole, 2017). Every kind has hyper-parameters of its own,
    as in Hausknecht and Stone, "Deep reinforcement learning in parameterized action space", 2016. All
    other parameters are numbers in [0, 1]. A stochastic policy has a deviation for each (section VI-B).
    """

    def __init__(self, config: AgentConfig, *, n_slots: int, n_performance: int, n_weights: int) -> None:
        super().__init__()
        self.imr = make_imr(config, n_slots, n_performance, n_weights)
        self.body = Transformer(config)
        self.head = nn.Linear(config.width, n_slots)
        self.kind = nn.Linear(config.width, MOST_KINDS)
        self.of_kind = nn.Linear(config.width, MOST_KINDS * n_slots)  # added to the head's output
        layers = [self.head, self.kind, self.of_kind]
        self.log_deviation: nn.Linear | None = None
        if config.stochastic_policy:
            self.log_deviation = nn.Linear(config.width, n_slots)
            layers.append(self.log_deviation)
        for layer in layers:
            start_small(layer)

    def forward(self, state: Steps, query: Steps, position: Tensor, noise: Noise | None = None) -> Action:
        """Actions for the queries; without ``noise`` those that the actor prefers."""
        return self.explain(state, query, position, noise)[0]

    def explain(
        self, state: Steps, query: Steps, position: Tensor, noise: Noise | None = None
    ) -> tuple[Action, list[Tensor]]:
        """Actions as of `forward`, and the attention weights ``[B, H, S + Q, S + Q]`` of each block."""
        answer, weights = self.body(self.imr(state), self.imr(query.unfilled()), position)
        has_kinds = query.allowed.any(dim=-1, keepdim=True)
        logits = self.kind(answer) if noise is None else self.kind(answer) + noise.gumbel
        shares = logits.masked_fill(has_kinds & (query.allowed == 0), -math.inf).softmax(dim=-1)
        chosen = nn.functional.one_hot(shares.argmax(dim=-1), MOST_KINDS).to(shares)
        kinds = (chosen + shares - shares.detach()) * has_kinds
        own = self.of_kind(answer).unflatten(-1, (MOST_KINDS, -1))  # [B, Q, K, A]
        slots = self.head(answer) + (kinds.unsqueeze(-1) * own).sum(dim=-2)
        if noise is not None and self.log_deviation is not None:
            slots = slots + self.log_deviation(answer).exp() * noise.normal
        return Action(torch.sigmoid(slots), kinds), weights
