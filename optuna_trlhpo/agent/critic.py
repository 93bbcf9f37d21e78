"""Critic of DDPG, which maps a state and an action to a value."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from optuna_trlhpo.agent.config import AgentConfig
from optuna_trlhpo.agent.tokens import Steps, make_imr
from optuna_trlhpo.agent.transformer import Transformer, start_small


class Critic(nn.Module):
    """Q(state, action) in [-1, 1] (section IV), by M members that share a body."""

    def __init__(self, config: AgentConfig, *, n_slots: int, n_performance: int, n_weights: int) -> None:
        super().__init__()
        self.imr = make_imr(config, n_slots, n_performance, n_weights)
        self.body = Transformer(config)
        self.head = nn.Sequential(
            nn.Linear(config.width, config.width), nn.GELU(), nn.Linear(config.width, config.n_critics)
        )
        start_small(self.head[-1])
        self.prior_scale = config.prior_scale
        if config.prior_scale:
            self.prior = nn.Sequential(
                nn.Linear(self.imr.n_features, config.width),
                nn.Tanh(),
                nn.Linear(config.width, config.n_critics),
            )
            for layer, gain in ((self.prior[0], 2.0), (self.prior[2], 1.0)):  # outputs of deviation about 1
                assert isinstance(layer, nn.Linear)
                nn.init.normal_(layer.weight, std=gain / layer.in_features**0.5)
            self.prior.requires_grad_(False)

    def forward(self, state: Steps, query: Steps, position: Tensor) -> Tensor:
        """Values ``[B, Q, M]`` of the queries, by each member."""
        return self.explain(state, query, position)[0]

    def explain(self, state: Steps, query: Steps, position: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Values ``[B, Q, M]``, and the attention weights ``[B, H, S + Q, S + Q]`` of each block."""
        query = query.unmeasured()
        answer, weights = self.body(self.imr(state), self.imr(query), position)
        value = self.head(answer)
        if self.prior_scale:
            value = value + self.prior_scale * self.prior(self.imr.features(query))
        return torch.tanh(value), weights
