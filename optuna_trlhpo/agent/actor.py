"""Actor of DDPG, which maps a state to the next action."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from optuna_trlhpo.agent.config import AgentConfig
from optuna_trlhpo.agent.tokens import Steps, make_imr
from optuna_trlhpo.agent.transformer import Transformer


class Actor(nn.Module):
    """mu(state): the next layer's action, in [0, 1] (section IV)."""

    def __init__(self, config: AgentConfig, *, n_slots: int, n_performance: int, n_weights: int) -> None:
        super().__init__()
        self.imr = make_imr(config, n_slots, n_performance, n_weights)
        self.body = Transformer(config)
        self.head = nn.Linear(config.width, n_slots)

    def forward(self, state: Steps, query: Steps, position: Tensor) -> Tensor:
        """Actions ``[B, Q, A]`` for the queries."""
        return self.explain(state, query, position)[0]

    def explain(self, state: Steps, query: Steps, position: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Actions ``[B, Q, A]``, and the attention weights ``[B, H, S + Q, S + Q]`` of each block."""
        answer, weights = self.body(self.imr(state), self.imr(query.unfilled()), position)
        return torch.sigmoid(self.head(answer)), weights
